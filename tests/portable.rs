//! Every shader in every variant is taken by other compilers than the one at hand: naga's validator, its way to Vulkan,
//! Metal and DirectX, and, where it is installed, the compiler of a browser, which alone checks that barriers are
//! reached by all lanes together. Needs the feature `portable`.

use kiln::backend::gpu::shader::Variant;
use kiln::backend::gpu::variants;
use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
fn naga_translates_every_variant() {
    let variants = variants::all();
    for variant in &variants {
        let text = text(variant);
        let name = || format!("{} {:?}\n{text}", variant.file, variant.flags);
        let module = naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|error| panic!("{}\n{}", name(), error.emit_to_string(&text)));
        // What `unpack2x16float` takes: part of the language, and no feature.
        let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        capabilities.set(Capabilities::SUBGROUP, variant.flags.contains(&"SUBGROUPS"));
        capabilities.set(Capabilities::SHADER_FLOAT16, variant.flags.contains(&"F16"));
        let is_of_matrices = variant.file == "mat_mul_matrix.wgsl";
        capabilities.set(Capabilities::COOPERATIVE_MATRIX, is_of_matrices);
        let info = Validator::new(ValidationFlags::all(), capabilities)
            .validate(&module)
            .unwrap_or_else(|error| panic!("{}\n{}", name(), error.emit_to_string(&text)));
        assert_eq!(bindings(&module), variant.bindings, "{}", name());
        translate(&module, &info, is_of_matrices).unwrap_or_else(|error| panic!("{}\n{error}", name()));
    }
    println!("{} variants by naga", variants.len());
}

fn text(variant: &Variant) -> String {
    variant.text().unwrap_or_else(|error| panic!("{error}"))
}

/// What the bindings of a module are, in order, as [`Variant::bindings`] has them.
fn bindings(module: &naga::Module) -> String {
    let kind = |space| match space {
        naga::AddressSpace::Uniform => Some('u'),
        naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => Some('w'),
        naga::AddressSpace::Storage { .. } => Some('r'),
        _ => None,
    };
    let mut bindings: Vec<(u32, char)> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| Some((variable.binding.as_ref()?.binding, kind(variable.space)?)))
        .collect();
    bindings.sort_unstable();
    assert!((0..).zip(&bindings).all(|(i, &(binding, _))| i == binding), "bindings have gaps: {bindings:?}");
    bindings.into_iter().map(|(_, kind)| kind).collect()
}

/// To Vulkan's, Metal's and DirectX's languages, at the versions that the features in use need; only to Vulkan's where
/// that alone has them.
fn translate(module: &naga::Module, info: &ModuleInfo, only_vulkan: bool) -> Result<(), String> {
    let options = spv::Options { lang_version: if only_vulkan { (1, 6) } else { (1, 3) }, ..Default::default() };
    spv::write_vec(module, info, &options, None).map_err(|error| format!("SPIR-V: {error}"))?;
    if only_vulkan {
        return Ok(());
    }
    let options = msl::Options { lang_version: (2, 1), ..Default::default() };
    msl::write_string(module, info, &options, &Default::default()).map_err(|error| format!("MSL: {error}"))?;
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_4, ..Default::default() };
    let pipeline = hlsl::PipelineOptions::default();
    let mut written = String::new();
    let mut writer = hlsl::Writer::new(&mut written, &options, &pipeline);
    writer.write(module, info, None).map_err(|error| format!("HLSL: {error}"))?;
    Ok(())
}

#[test]
fn tint_compiles_every_variant() {
    let Ok(help) = Command::new("tint").arg("--help").output() else {
        println!("skipped: no tint");
        return;
    };
    // Builds of tint differ in what they can write; all of them check what they read.
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let known = help.split_once("--format <").and_then(|(_, rest)| rest.split_once('>')).map_or("", |(known, _)| known);
    let formats: Vec<&str> =
        ["spirv", "msl", "hlsl", "wgsl"].into_iter().filter(|format| known.split('|').any(|k| k == *format)).collect();
    assert!(!formats.is_empty(), "tint knows no format to write: {known}");
    let mut variants = variants::all();
    // No browser has matrices.
    variants.retain(|variant| variant.file != "mat_mul_matrix.wgsl");
    let (first, second) = variants.split_at(variants.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| first.iter().for_each(|variant| tint(variant, &formats)));
        second.iter().for_each(|variant| tint(variant, &formats));
    });
    println!("{} variants by tint to {formats:?}", variants.len());
}

/// Compiles one variant to each format.
fn tint(variant: &Variant, formats: &[&str]) {
    let text = text(variant);
    // naga knows no such line, browsers ask for it.
    let enable = if variant.flags.contains(&"SUBGROUPS") { "enable subgroups;\n" } else { "" };
    let path = Temporary::new(&format!("{enable}{text}"));
    for format in formats {
        let result = Command::new("tint").args(["--format", format]).arg(&path.0).stdout(Stdio::null()).output();
        let result = result.expect("tint runs");
        let words = String::from_utf8_lossy(&result.stderr);
        assert!(result.status.success(), "{} {:?} to {format}: {words}\n{text}", variant.file, variant.flags);
    }
}

/// A file that goes with its name.
struct Temporary(PathBuf);

impl Temporary {
    fn new(text: &str) -> Self {
        let name = format!("kiln-{}-{:?}.wgsl", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        std::fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).expect("a temporary file");
        Temporary(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}
