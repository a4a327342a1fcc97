//! Options that applications set when they load a model: plain structs, no environment variables. Not built yet.
