//! One sequence of tokens, its cache and its replies. Not built yet.
