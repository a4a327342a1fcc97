//! What the device can do: copy, read, and multiply plain matrices.

use crate::Sizes;
use crate::timer::{Dispatch, Timer, Times};
use kiln::backend::gpu::memory::{buffer, filled};
use kiln::backend::gpu::readback::wait;
use kiln::backend::gpu::{Gpu, Tier, wgpu};
use kiln::{Error, Result};

/// A ceiling, and how it was found.
pub struct Ceiling {
    pub name: &'static str,
    /// What was run.
    pub what: String,
    pub times: Times,
    /// Bytes that were read and written, or operations.
    pub amount: u64,
}

impl Ceiling {
    /// Thousand millions a second.
    pub fn speed(&self) -> f64 {
        self.amount as f64 / self.times.median / 1e9
    }
}

/// All of them.
pub struct Ceilings {
    pub copy: Ceiling,
    pub read: Ceiling,
    /// In f32, and with f16 going in where the device has it.
    pub products: Vec<Ceiling>,
}

impl Ceilings {
    pub fn measure(gpu: &Gpu, timer: &Timer, sizes: &Sizes) -> Result<Self> {
        let bytes = sizes.stream_bytes.min(gpu.binding_bytes()) / STREAM_GROUP_BYTES * STREAM_GROUP_BYTES;
        let stream = |text| stream(gpu, timer, text, bytes);
        let what = format!("kernel over vec4<u32>, {} MiB", bytes >> 20);
        let (copied, read) = (stream(include_str!("copy.wgsl"))?, stream(include_str!("read.wgsl"))?);
        let mut products = vec![product(gpu, timer, sizes.product, false)?];
        if gpu.has(Tier::F16) {
            products.push(product(gpu, timer, sizes.product, true)?);
        }
        Ok(Ceilings {
            copy: Ceiling {
                name: "copy",
                what: format!("{what} read and as many written"),
                times: copied,
                amount: 2 * bytes,
            },
            read: Ceiling { name: "read", what: format!("{what} read"), times: read, amount: bytes },
            products,
        })
    }

    /// The faster plain product.
    pub fn product(&self) -> f64 {
        self.products.iter().map(Ceiling::speed).fold(0.0, f64::max)
    }

    pub fn all(&self) -> impl Iterator<Item = (&Ceiling, &'static str)> {
        let streams = [&self.copy, &self.read].map(|ceiling| (ceiling, "GB/s"));
        streams.into_iter().chain(self.products.iter().map(|ceiling| (ceiling, "GFLOP/s")))
    }
}

/// What a workgroup copies.
const STREAM_GROUP_BYTES: u64 = 16 << 10;
/// Rows and columns that a workgroup multiplies.
const TILE: u32 = 128;

fn stream(gpu: &Gpu, timer: &Timer, text: &str, bytes: u64) -> Result<Times> {
    let pipeline = pipeline(gpu, text.to_owned(), 2)?;
    let [source, target] = [random(gpu, bytes)?, random(gpu, bytes)?];
    let groups = (bytes / STREAM_GROUP_BYTES) as u32;
    // More than a side of a grid may have; what is left over is left out.
    let wide = groups.min(32 << 10);
    timer.measure(&[vec![Dispatch::new(gpu, &pipeline, &[&source, &target], [wide, groups / wide, 1])]])
}

fn product(gpu: &Gpu, timer: &Timer, size: u32, half: bool) -> Result<Ceiling> {
    let head = if half { "enable f16;\nalias Quad = vec4<f16>;" } else { "alias Quad = vec4<f32>;" };
    let text = format!("{head}\nconst SIZE = {size}u;\n{}", include_str!("product.wgsl"));
    let pipeline = pipeline(gpu, text, 3)?;
    let count = u64::from(size).pow(2);
    let [a, b] = [random(gpu, count * if half { 2 } else { 4 })?, random(gpu, count * if half { 2 } else { 4 })?];
    let c = wait(gpu, buffer(gpu, "product", count * 4, wgpu::BufferUsages::STORAGE))?;
    let groups = [size / TILE, size / TILE, 1];
    let times = timer.measure(&[vec![Dispatch::new(gpu, &pipeline, &[&a, &b, &c], groups)]])?;
    Ok(Ceiling {
        name: if half { "product f16" } else { "product f32" },
        what: format!("{size} x {size} x {size}, sums in f32, no matrix units"),
        times,
        amount: 2 * u64::from(size).pow(3),
    })
}

/// Random words that are no infinite numbers, nor two halves one of which is.
pub fn random_words(count: usize) -> Vec<u32> {
    let mut state = 1u32;
    let word = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state ^ state >> 16) & 0xbfff_bfff
    };
    std::iter::repeat_with(word).take(count).collect()
}

/// A buffer of them.
fn random(gpu: &Gpu, bytes: u64) -> Result<wgpu::Buffer> {
    const PIECE_BYTES: u64 = 4 << 20;
    let words = random_words(PIECE_BYTES.min(bytes) as usize / 4);
    let piece = wait(gpu, filled(gpu, "random", bytemuck::cast_slice(&words)))?;
    let whole = wait(gpu, buffer(gpu, "random", bytes, wgpu::BufferUsages::STORAGE))?;
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    for start in (0..bytes).step_by(PIECE_BYTES as usize) {
        encoder.copy_buffer_to_buffer(&piece, 0, &whole, start, PIECE_BYTES.min(bytes - start));
    }
    gpu.queue().submit([encoder.finish()]);
    Ok(whole)
}

/// A pipeline of a text of this folder, whose last binding is written.
fn pipeline(gpu: &Gpu, text: String, bindings: u32) -> Result<wgpu::ComputePipeline> {
    let device = gpu.device();
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let descriptor = wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(text.into()) };
    // SAFETY: the sizes of grids and buffers are made for each other in this file.
    #[allow(unsafe_code)]
    let module = unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
    let entry = |binding| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only: binding + 1 < bindings },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    };
    let entries: Vec<_> = (0..bindings).map(entry).collect();
    let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(&layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    });
    match wait(gpu, scope.pop()) {
        None => Ok(pipeline),
        Some(error) => Err(Error::Gpu {
            subject: "shader of a ceiling".into(),
            found: error.to_string(),
            expected: "a shader that compiles".into(),
        }),
    }
}
