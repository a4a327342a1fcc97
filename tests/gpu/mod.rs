//! Runs single kernels on every GPU of the machine, software ones too, in every tier.
//!
//! Memory that a kernel writes is poisoned before the run, and lies between guards that must be what they were.

#![allow(dead_code)] // every test that includes this uses another part

use kiln::backend::gpu::readback::{read, wait};
use kiln::backend::gpu::shader::Variant;
use kiln::backend::gpu::{Gpu, GpuOptions, Tier, Tiers, wgpu};
use kiln::gguf::TensorType;
use kiln::quant::decode;
use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::ManuallyDrop;

const GUARD_BYTES: u64 = 256;
const GUARD: u8 = 0xa5;
/// As a float it is not a number, so that what a kernel forgets to write is seen.
const POISON: u8 = 0xff;

/// What is at a binding.
pub enum Data<'a> {
    /// Storage or a uniform, to be read.
    Read(&'a [u8]),
    /// So many bytes of storage to be written.
    Write(usize),
    /// Storage that is read and written.
    Change(&'a [u8]),
}

/// Opens the first device of [`gpus`], as options say; none, with a visible word, where there is no driver.
pub fn open(options: &GpuOptions) -> Vec<Gpu> {
    let names = std::env::var("KILN_TEST_GPU").unwrap_or("llvmpipe".into());
    let mut options = options.clone();
    options.name = names.split(',').next().map(String::from);
    let opened = pollster::block_on(Gpu::open(&options));
    opened.inspect_err(|error| println!("skipped: {error}")).into_iter().collect()
}

/// Opens the devices: those named by `KILN_TEST_GPU` (parts of names, with commas), or all software ones; each without
/// any tier, then with more and more, and with and without checks. None, with a visible word, where there is no driver.
pub fn gpus() -> Vec<Gpu> {
    let names = std::env::var("KILN_TEST_GPU").unwrap_or("llvmpipe,SwiftShader".into());
    let mut gpus = vec![];
    for name in names.split(',') {
        let mut seen = vec![];
        for (without, checked) in [
            (Tiers::NONE, false),
            (Tiers::NONE.with(Tier::Dot), false),
            (Tiers::ALL.without(Tiers::NONE.with(Tier::Dot)), false),
            (Tiers::ALL, false),
            (Tiers::NONE, true),
            (Tiers::ALL, true),
        ] {
            let mut options = GpuOptions::default();
            options.name = Some(name.into());
            options.without = without;
            options.checked = checked;
            options.matrices = true;
            match pollster::block_on(Gpu::open(&options)) {
                Ok(gpu) if !seen.contains(&(gpu.tiers(), checked)) => {
                    seen.push((gpu.tiers(), checked));
                    gpus.push(gpu);
                }
                Ok(_) => {}
                Err(error) => println!("skipped: no GPU {name}: {error}"),
            }
        }
    }
    gpus
}

/// Pipelines by their device's address, which stays while the handle beside them does, and variant.
type Pipelines = HashMap<(*const wgpu::Device, Variant), (Gpu, wgpu::ComputePipeline)>;

thread_local! {
    // Never dropped: wgpu needs thread-local values of its own for that, which may be gone by then.
    static PIPELINES: RefCell<ManuallyDrop<Pipelines>> = RefCell::default();
}

/// How many pipelines a test keeps.
const MOST_PIPELINES: usize = 16;

/// A kernel's pipeline, made once for the cases of a test that follow each other: some drivers take seconds.
fn pipeline(gpu: &Gpu, variant: &Variant) -> wgpu::ComputePipeline {
    let make = || {
        let pipeline = wait(gpu, variant.pipeline(gpu)).unwrap_or_else(|error| panic!("{gpu:?}: {error}"));
        (gpu.clone(), pipeline)
    };
    let key = (std::ptr::from_ref(gpu.device()), variant.clone());
    PIPELINES.with_borrow_mut(|pipelines| {
        // Some drivers take a hundred megabytes for one, too.
        if pipelines.len() >= MOST_PIPELINES {
            pipelines.clear();
        }
        pipelines.entry(key).or_insert_with(make).1.clone()
    })
}

/// Runs a kernel once, and returns what is at each binding that it writes, in order.
pub fn run(gpu: &Gpu, variant: &Variant, bindings: &[Data], groups: [u32; 3]) -> Vec<Vec<u8>> {
    let pipeline = pipeline(gpu, variant);
    let device = gpu.device();
    let usage = |kind| match kind {
        'u' => wgpu::BufferUsages::UNIFORM,
        _ => wgpu::BufferUsages::STORAGE,
    };
    assert_eq!(bindings.len(), variant.bindings.len(), "{}", variant.file);
    let buffers: Vec<(wgpu::Buffer, u64)> = bindings
        .iter()
        .zip(variant.bindings.chars())
        .map(|(data, kind)| {
            let inner = match data {
                Data::Read(bytes) | Data::Change(bytes) => bytes.to_vec(),
                Data::Write(bytes) => vec![POISON; *bytes],
            };
            let size = (inner.len() as u64).next_multiple_of(4).max(16);
            let mut bytes = vec![GUARD; (size + 2 * GUARD_BYTES) as usize];
            bytes[GUARD_BYTES as usize..][..inner.len()].copy_from_slice(&inner);
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: bytes.len() as u64,
                usage: usage(kind) | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            gpu.queue().write_buffer(&buffer, 0, &bytes);
            (buffer, size)
        })
        .collect();
    let entries: Vec<wgpu::BindGroupEntry> = (0..)
        .zip(&buffers)
        .map(|(binding, (buffer, size))| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset: GUARD_BYTES,
                size: Some((*size).try_into().unwrap()),
            }),
        })
        .collect();
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
    }
    gpu.queue().submit([encoder.finish()]);
    let mut written = vec![];
    for (((buffer, size), data), kind) in buffers.iter().zip(bindings).zip(variant.bindings.chars()) {
        let bytes = copy(gpu, buffer, size + 2 * GUARD_BYTES);
        let inner = match data {
            Data::Read(bytes) | Data::Change(bytes) => bytes.len(),
            Data::Write(bytes) => *bytes,
        };
        let (before, rest) = bytes.split_at(GUARD_BYTES as usize);
        let (inner, after) = rest.split_at(inner);
        let guarded = before.iter().chain(after).all(|&byte| byte == GUARD);
        assert!(guarded, "{} {:?} on {gpu:?} wrote outside of its memory", variant.file, variant.flags);
        if kind == 'w' {
            written.push(inner.to_vec());
        }
    }
    written
}

/// The bytes of a buffer.
pub fn copy(gpu: &Gpu, buffer: &wgpu::Buffer, bytes: u64) -> Vec<u8> {
    let target = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: bytes,
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &target, 0, bytes);
    gpu.queue().submit([encoder.finish()]);
    wait(gpu, read(gpu, &target, bytes)).unwrap()
}

/// Bytes as numbers.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Numbers as bytes.
pub fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Words as bytes.
pub fn bytes_of_words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The error of `found` in relation to `truth`: the sum of its squares over theirs.
pub fn nmse(found: &[f32], truth: &[f32]) -> f64 {
    assert_eq!(found.len(), truth.len());
    let square = |x: f32| f64::from(x).powi(2);
    let error: f64 = found.iter().zip(truth).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    error / truth.iter().map(|&b| square(b)).sum::<f64>().max(f64::MIN_POSITIVE)
}

/// Numbers of about a normal distribution, the same for the same seed.
pub struct Random(pub u64);

impl Random {
    /// A word.
    pub fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32 ^ (self.0 >> 15) as u32
    }

    /// A number.
    pub fn normal(&mut self) -> f32 {
        (0..6).map(|_| (self.word() & 0xffff) as f32 / 65536.0 - 0.5).sum::<f32>() * 1.41
    }

    /// Some numbers.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }
    /// A row of weights, of random blocks whose values are of a size that weights have.
    pub fn row(&mut self, kind: TensorType, columns: usize) -> Vec<u8> {
        let (elements, bytes) = (kind.block_elements() as usize, kind.block_bytes() as usize);
        let mut block = vec![0; bytes];
        let mut values = vec![0.0f32; elements];
        let blocks = (0..columns / elements).map(|_| {
            loop {
                block.iter_mut().for_each(|byte| *byte = self.word() as u8);
                decode(kind, &block, &mut values).unwrap();
                if values.iter().all(|value| value.abs() < 10.0) && values.iter().any(|value| value.abs() > 1e-3) {
                    return block.clone();
                }
            }
        });
        blocks.collect::<Vec<_>>().concat()
    }
}
