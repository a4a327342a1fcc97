//! The GPU backend: device, shader variants, weight upload, recorded plans, readback, timestamps. Not built yet.
