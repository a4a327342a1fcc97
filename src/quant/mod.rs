//! Block formats: struct, size assert, scalar decode and encode for each weight type. Not built yet; the sizes of the
//! blocks, which the container needs, are in [`crate::gguf::TensorType`].
