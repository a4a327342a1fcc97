//! The texts of `shaders/`, as part of the program.

macro_rules! sources {
    ($($name:literal)*) => {
        /// Names and texts.
        pub const SOURCES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../shaders/", $name)))),*];
    };
}

sources! {
    "add.wgsl"
    "attend_merge.wgsl"
    "attend_split.wgsl"
    "attend_tile.wgsl"
    "rotate_store.wgsl"
    "shared/attend.wgsl"
    "shared/page.wgsl"
    "shared/step.wgsl"
}
