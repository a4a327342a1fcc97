//! Embeddings of texts: pooling and batching over an encoder. Not built yet.
