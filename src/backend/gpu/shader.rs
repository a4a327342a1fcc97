//! Shader text: a small preprocessor over the files of `shaders/`, and pipelines made of what comes out.
//!
//! A line that begins with `#` is for the preprocessor:
//!
//! | line | effect |
//! |---|---|
//! | `#include "shared/sums.wgsl"` | the file's text, once; a `$NAME` in it stands for a constant |
//! | `#if FLAG`, `#if !FLAG`, `#else`, `#end` | what is between, if the flag is set, or not set |
//! | `#repeat i 4` … `#end` | what is between, for `$i` from 0 to 3; the count may be `$NAME` |
//!
//! Elsewhere `$NAME` or `${NAME}` stands for a constant's value. Loops are unrolled by `#repeat` because no compiler on the way to the
//! GPU does it.
//!
//! Checks: shaders are made by this crate, and every size that steers them comes from checked values on the host, so
//! checks of bounds are left out unless [`Gpu::checked`] asks for them.

use super::device::Gpu;
use super::sources::SOURCES;
use super::tiers::Tier;
use crate::{Error, Result};
use std::borrow::Cow;

/// A shader to be made: a file, what is set, and the constants in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The file's name in `shaders/`.
    pub file: &'static str,
    /// Flags that are set; [`Variant::for_gpu`] adds those of the tiers.
    pub flags: Vec<&'static str>,
    /// Names and values.
    pub constants: Vec<(&'static str, String)>,
    /// What the bindings of group 0 are, in order: `r` for storage that is read, `w` for storage that is written, `u` for
    /// uniforms.
    pub bindings: &'static str,
}

impl Variant {
    /// A file without flags and constants.
    pub fn new(file: &'static str, bindings: &'static str) -> Self {
        Variant { file, flags: vec![], constants: vec![], bindings }
    }

    /// With a flag set, if `yes`.
    #[must_use]
    pub fn flag(mut self, name: &'static str, yes: bool) -> Self {
        if yes {
            self.flags.push(name);
        }
        self
    }

    /// With a flag not set.
    #[must_use]
    pub fn without(mut self, name: &'static str) -> Self {
        self.flags.retain(|flag| *flag != name);
        self
    }

    /// With a constant.
    #[must_use]
    pub fn constant(mut self, name: &'static str, value: impl ToString) -> Self {
        self.constants.push((name, value.to_string()));
        self
    }

    /// With the flags of the tiers that a device has: `SUBGROUPS`, `F16`, `DOT`.
    #[must_use]
    pub fn for_gpu(self, gpu: &Gpu) -> Self {
        self.flag("SUBGROUPS", gpu.has(Tier::Subgroups)).flag("F16", gpu.has(Tier::F16)).flag("DOT", gpu.has(Tier::Dot))
    }

    /// The text of the shader.
    pub fn text(&self) -> Result<String> {
        let mut expansion = Expansion { variant: self, included: vec![], text: String::new() };
        expansion.file(self.file)?;
        Ok(expansion.text)
    }

    /// The pipeline. Its one group of bindings is laid out as [`Variant::bindings`] says; the entry point is `main`.
    pub async fn pipeline(&self, gpu: &Gpu) -> Result<wgpu::ComputePipeline> {
        let text = self.text()?;
        let what = format!("pipeline of {} {:?}", self.file, self.flags);
        gpu.make(&what, 0, |device| self.compile(device, text, gpu.checked())).await
    }

    fn compile(&self, device: &wgpu::Device, text: String, checked: bool) -> wgpu::ComputePipeline {
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(self.file), source: wgpu::ShaderSource::Wgsl(Cow::Owned(text)) };
        let module = if checked {
            device.create_shader_module(descriptor)
        } else {
            // SAFETY: bounds and loops are as the host says, which checks all sizes before they reach a shader; the
            // tests run every shader with the checks as well.
            #[allow(unsafe_code)]
            unsafe {
                device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
            }
        };
        let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(self.file),
            entries: &entries(self.bindings),
        });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(self.file),
            bind_group_layouts: &[Some(&group)],
            immediate_size: 0,
        });
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(self.file),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                // Kernels write what they read; some compilers expand this to a store for each element.
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        })
    }

    fn error(&self, found: &str, expected: &str) -> Error {
        Error::Gpu {
            subject: format!("shader {} {:?}", self.file, self.flags),
            found: found.into(),
            expected: expected.into(),
        }
    }
}

/// What wgpu asks for before it lets anybody use what it has for experiments.
pub(super) fn experiments_allowed() -> wgpu::ExperimentalFeatures {
    // SAFETY: an application has asked for this by `GpuOptions::matrices`; one shader uses it, within the bounds of its
    // memory, and the self-check runs that before it is trusted.
    #[allow(unsafe_code)]
    unsafe {
        wgpu::ExperimentalFeatures::enabled()
    }
}

fn entries(bindings: &str) -> Vec<wgpu::BindGroupLayoutEntry> {
    let entry = |(binding, kind)| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: match kind {
                'u' => wgpu::BufferBindingType::Uniform,
                _ => wgpu::BufferBindingType::Storage { read_only: kind == 'r' },
            },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    };
    (0..).zip(bindings.chars()).map(entry).collect()
}

/// A variant's text as it comes together.
struct Expansion<'v> {
    variant: &'v Variant,
    included: Vec<String>,
    text: String,
}

impl Expansion<'_> {
    fn file(&mut self, name: &str) -> Result<()> {
        if self.included.iter().any(|included| included == name) {
            return Ok(());
        }
        self.included.push(name.into());
        let Some((_, source)) = SOURCES.iter().find(|(file, _)| *file == name) else {
            return Err(self.variant.error(&format!("`{name}`"), "a file of `shaders/`"));
        };
        let lines: Vec<&str> = source.lines().collect();
        self.lines(&lines, &mut vec![])
    }

    /// Expands lines; `counters` are the names and values of the repetitions around them.
    fn lines(&mut self, lines: &[&str], counters: &mut Vec<(String, usize)>) -> Result<()> {
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            at += 1;
            let Some(directive) = line.trim_start().strip_prefix('#') else {
                let line = self.replaced(line, counters);
                self.text.push_str(&line);
                self.text.push('\n');
                continue;
            };
            let directive = self.replaced(directive, counters);
            let words: Vec<&str> = directive.split_whitespace().collect();
            match words[..] {
                ["include", name] => self.file(name.trim_matches('"'))?,
                ["if", flag] => {
                    let (block, otherwise, next) = self.block(lines, at)?;
                    let set = self.variant.flags.contains(&flag.trim_start_matches('!')) != flag.starts_with('!');
                    self.lines(if set { block } else { otherwise }, counters)?;
                    at = next;
                }
                ["repeat", counter, count] => {
                    let (block, _, next) = self.block(lines, at)?;
                    let Ok(count) = count.parse() else {
                        return Err(self.variant.error(line, "`#repeat` with a number"));
                    };
                    for value in 0..count {
                        counters.push((counter.into(), value));
                        self.lines(block, counters)?;
                        counters.pop();
                    }
                    at = next;
                }
                _ => return Err(self.variant.error(line, "`#include`, `#if` or `#repeat`")),
            }
        }
        Ok(())
    }

    /// The lines from `start` up to the matching `#else`, from there to `#end`, and the index behind that.
    fn block<'l>(&self, lines: &'l [&'l str], start: usize) -> Result<(&'l [&'l str], &'l [&'l str], usize)> {
        let (mut depth, mut middle) = (0, None);
        for (index, line) in lines.iter().enumerate().skip(start) {
            match line.split_whitespace().next() {
                Some("#if" | "#repeat") => depth += 1,
                Some("#else") if depth == 0 => middle = Some(index),
                Some("#end") if depth == 0 => {
                    let first = middle.unwrap_or(index);
                    let otherwise = middle.map_or(&lines[index..index], |middle| &lines[middle + 1..index]);
                    return Ok((&lines[start..first], otherwise, index + 1));
                }
                Some("#end") => depth -= 1,
                _ => {}
            }
        }
        Err(self.variant.error("the end of a file", "`#end`"))
    }

    /// A line with values in place of names.
    fn replaced(&self, line: &str, counters: &[(String, usize)]) -> String {
        let mut result = String::new();
        let mut rest = line;
        while let Some(dollar) = rest.find('$') {
            let (before, after) = (&rest[..dollar], &rest[dollar + 1..]);
            let (name, behind) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
                Some(parts) => parts,
                None => {
                    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
                    after.split_at(end)
                }
            };
            result.push_str(before);
            let counter = counters.iter().rev().find(|counter| counter.0 == name).map(|counter| counter.1.to_string());
            let constant = || self.variant.constants.iter().find(|constant| constant.0 == name);
            match counter.or_else(|| constant().map(|constant| constant.1.clone())) {
                Some(value) => result.push_str(&value),
                // WGSL has no dollars, so this is an error that names the line when the shader is compiled.
                None => result.extend(["$", name]),
            }
            rest = behind;
        }
        result + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(source: &str, flags: &[&'static str]) -> String {
        let variant = Variant { flags: flags.to_vec(), ..Variant::new("x", "").constant("N", 2) };
        let mut expansion = Expansion { variant: &variant, included: vec![], text: String::new() };
        expansion.lines(&source.lines().collect::<Vec<_>>(), &mut vec![]).unwrap();
        expansion.text
    }

    #[test]
    fn conditions_choose() {
        let source = "#if A\na\n#if B\nb\n#else\nc\n#end\n#else\nd\n#end\n#if !A\ne\n#end";
        assert_eq!(expand(source, &[]), "d\ne\n");
        assert_eq!(expand(source, &["A"]), "a\nc\n");
        assert_eq!(expand(source, &["A", "B"]), "a\nb\n");
    }

    #[test]
    fn repetitions_count() {
        assert_eq!(
            expand("#repeat i $N\n#repeat j 2\nx$i = ${j}$N;\n#end\n#end", &[]),
            "x0 = 02;\nx0 = 12;\nx1 = 02;\nx1 = 12;\n"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let variant = Variant::new("nothing.wgsl", "");
        assert!(variant.text().unwrap_err().to_string().contains("nothing.wgsl"));
        let mut expansion = Expansion { variant: &variant, included: vec![], text: String::new() };
        assert!(expansion.lines(&["#if A", "x"], &mut vec![]).unwrap_err().to_string().contains("#end"));
        assert!(expansion.lines(&["#what"], &mut vec![]).unwrap_err().to_string().contains("#what"));
    }
}
