//! Text to token ids and back.
mod interner;
mod merge;
mod trie;
