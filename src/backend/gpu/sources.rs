//! The texts of `shaders/`, as part of the program.

macro_rules! sources {
    ($($name:literal)*) => {
        /// Names and texts.
        pub const SOURCES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../shaders/", $name)))),*];
    };
}

sources! {
    "add.wgsl"
    "shared/step.wgsl"
}
