//! Text to token ids and back.

pub mod split;
pub mod unicode;
mod unicode_tables;
