//! The texts of `shaders/`, as part of the program.

macro_rules! sources {
    ($($name:literal)*) => {
        /// Names and texts.
        pub const SOURCES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../shaders/", $name)))),*];
    };
}

sources! {
    "add.wgsl"
    "embed.wgsl"
    "quants/bf16.wgsl"
    "quants/f16.wgsl"
    "quants/f32.wgsl"
    "quants/iq1_m.wgsl"
    "quants/iq1_s.wgsl"
    "quants/iq2_s.wgsl"
    "quants/iq2_xs.wgsl"
    "quants/iq2_xxs.wgsl"
    "quants/iq3_s.wgsl"
    "quants/iq3_xxs.wgsl"
    "quants/iq4_nl.wgsl"
    "quants/iq4_xs.wgsl"
    "quants/mxfp4.wgsl"
    "quants/nvfp4.wgsl"
    "quants/parts/bits.wgsl"
    "quants/parts/choose.wgsl"
    "quants/parts/e2m1.wgsl"
    "quants/parts/levels.wgsl"
    "quants/parts/nibbles.wgsl"
    "quants/parts/pairs.wgsl"
    "quants/parts/signs.wgsl"
    "quants/parts/sixes.wgsl"
    "quants/parts/thirds.wgsl"
    "quants/parts/unit.wgsl"
    "quants/q1_0.wgsl"
    "quants/q2_0.wgsl"
    "quants/q2_k.wgsl"
    "quants/q3_k.wgsl"
    "quants/q4_0.wgsl"
    "quants/q4_1.wgsl"
    "quants/q4_k.wgsl"
    "quants/q5_0.wgsl"
    "quants/q5_1.wgsl"
    "quants/q5_k.wgsl"
    "quants/q6_k.wgsl"
    "quants/q8_0.wgsl"
    "quants/tq1_0.wgsl"
    "quants/tq2_0.wgsl"
    "shared/step.wgsl"
}
