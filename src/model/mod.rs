//! Hyper-parameters and flags from metadata; one small file per family that writes its program. Not built yet.
