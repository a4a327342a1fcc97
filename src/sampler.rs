//! From logits to the next token: penalties, truncation, temperature, seeded choice. Not built yet.
