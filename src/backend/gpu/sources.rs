//! The texts of `shaders/`, as part of the program.

macro_rules! sources {
    ($($name:literal)*) => {
        /// Names and texts.
        pub const SOURCES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../shaders/", $name)))),*];
    };
}

sources! {
    "add.wgsl"
    "argmax.wgsl"
    "bias.wgsl"
    "gate.wgsl"
    "norm.wgsl"
    "quantize.wgsl"
    "scale.wgsl"
    "select.wgsl"
    "softcap.wgsl"
    "top_k.wgsl"
    "shared/order.wgsl"
    "shared/quantize.wgsl"
    "shared/rows.wgsl"
    "shared/step.wgsl"
    "shared/team.wgsl"
}
