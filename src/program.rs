//! The contract between models and backends: ops, slots, and the flat op list with layer tags. Not built yet.
