//! Pages of keys and values, page tables, fork, rollback, window eviction, recurrent state slots. Not built yet.
