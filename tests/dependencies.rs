//! What one gets into with this crate: few packages, a core without graphics and JSON, and nothing that compiles C.

use std::collections::BTreeSet;
use std::process::Command;

/// Packages that others use to compile C, or to read it.
const OF_C: [&str; 6] = ["autotools", "bindgen", "cc", "cmake", "meson-next", "pkg-config"];

/// What the library depends on for this machine, itself included, as `name version`; `None`, with a word about it, where
/// cargo cannot tell.
fn packages(arguments: &[&str], edges: &str) -> Option<BTreeSet<String>> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--offline", "--prefix", "none", "--format", "{p}", "--edges", edges]).args(arguments);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    if !output.status.success() {
        println!("skipped: {command:?}: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    let lines = String::from_utf8(output.stdout).unwrap();
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let packages: BTreeSet<String> = lines.lines().filter(|line| !line.is_empty()).map(name).collect();
    assert!(packages.iter().any(|package| package.starts_with("kiln ")), "{command:?} tells of {packages:?}");
    Some(packages)
}

/// Those of some packages that have one of these names.
fn named<'a>(packages: &'a BTreeSet<String>, names: &[&str]) -> Vec<&'a String> {
    packages.iter().filter(|package| package.split(' ').next().is_some_and(|name| names.contains(&name))).collect()
}

#[test]
fn the_core_has_neither_graphics_nor_templates() {
    let Some(core) = packages(&["--no-default-features"], "normal") else { return };
    let found = named(&core, &["ash", "minijinja", "naga", "objc2-metal", "serde_json", "wgpu"]);
    assert!(found.is_empty(), "{found:?} are among the {} packages of the core: {core:#?}", core.len());
    assert!(core.len() < 20, "the core has {} packages: {core:#?}", core.len());
}

#[test]
fn the_features_bring_what_the_core_leaves_out() {
    let Some(chat) = packages(&["--no-default-features", "--features", "chat"], "normal") else { return };
    assert!(named(&chat, &["wgpu"]).is_empty() && !named(&chat, &["minijinja"]).is_empty(), "{chat:#?}");
    let Some(gpu) = packages(&["--no-default-features", "--features", "gpu"], "normal") else { return };
    assert!(named(&gpu, &["minijinja"]).is_empty() && !named(&gpu, &["wgpu"]).is_empty(), "{gpu:#?}");
}

#[test]
fn there_are_few_packages_by_default() {
    let Some(default) = packages(&[], "normal,build") else { return };
    let is_linux = cfg!(target_os = "linux"); // other systems have more that only they need
    assert!(!is_linux || default.len() < 150, "{} packages by default: {default:#?}", default.len());
}

#[test]
fn nothing_compiles_c() {
    for features in [&["--no-default-features"][..], &[], &["--all-features"]] {
        let Some(all) = packages(features, "normal,build") else { return };
        let found = named(&all, &OF_C);
        assert!(found.is_empty(), "{found:?} are among the {} packages with {features:?}: {all:#?}", all.len());
    }
}
