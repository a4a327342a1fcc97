//! Structured output: masks over the vocabulary from a schema or a grammar. Not built yet.
