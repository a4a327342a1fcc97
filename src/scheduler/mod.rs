//! Placement (who gets which layer, from memory truth) and the step loop over segments. Not built yet.
