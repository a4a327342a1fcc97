//! Recorded dispatches: pipelines, groups of bindings and parameters, made once and replayed at every step.
//!
//! A [`Draft`] says what one dispatch needs; [`Recording::new`] makes what the device wants of all of them: pipelines,
//! compiled side by side where there are threads, one buffer with all parameters, and a group of bindings for each. After
//! that a step costs a few calls for each dispatch, and makes no object.

use super::device::Gpu;
use super::memory::filled;
use super::pace::Moment;
use super::profile::{ProductShape, Timing};
use super::shader::Variant;
use crate::Result;
use crate::backend::batch::Batch;
use bytemuck::Pod;
use std::collections::HashMap;
use std::sync::Mutex;

/// What a step's dispatches are sized by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Tokens of the batch.
    pub tokens: u32,
    /// Tokens whose logits are asked for.
    pub outputs: u32,
}

impl Size {
    /// That of a batch.
    pub fn of(batch: Batch) -> Self {
        Size { tokens: batch.tokens.len() as u32, outputs: batch.outputs.len() as u32 }
    }
}

/// Workgroups for a step.
pub type Groups = Box<dyn Fn(Size) -> [u32; 3] + Send + Sync>;

/// One dispatch, before it is recorded.
pub struct Draft {
    /// The shader; its first two bindings are the step and the parameters.
    pub variant: Variant,
    /// The parameters.
    pub params: Vec<u8>,
    /// The other bindings, in order.
    pub buffers: Vec<wgpu::Buffer>,
    /// Workgroups.
    pub groups: Groups,
    /// Bytes of weights that it reads.
    pub weight_bytes: u64,
    /// What it multiplies with, if it is a product.
    pub product: Option<ProductShape>,
}

impl Draft {
    /// A dispatch.
    pub fn new(
        variant: Variant,
        params: impl Pod,
        buffers: &[&wgpu::Buffer],
        groups: impl Fn(Size) -> [u32; 3] + Send + Sync + 'static,
    ) -> Self {
        let buffers = buffers.iter().copied().cloned().collect();
        let params = bytemuck::bytes_of(&params).to_vec();
        Draft { variant, params, buffers, groups: Box::new(groups), weight_bytes: 0, product: None }
    }
}

struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    groups: Groups,
    name: &'static str,
    weight_bytes: u64,
    product: Option<ProductShape>,
}

impl Dispatch {
    fn encode(&self, pass: &mut wgpu::ComputePass, size: Size) {
        let [x, y, z] = (self.groups)(size);
        if x > 0 && y > 0 && z > 0 {
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.bindings, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
    }
}

/// Pipelines by variant: layers share them.
#[derive(Default)]
pub struct Pipelines {
    made: Mutex<HashMap<Variant, wgpu::ComputePipeline>>,
    seconds: Mutex<f64>,
}

impl Pipelines {
    /// Makes those that are missing.
    async fn prepare(&self, gpu: &Gpu, drafts: &[Draft]) -> Result<()> {
        let mut missing: Vec<&Variant> = vec![];
        for draft in drafts {
            if !self.lock().contains_key(&draft.variant) && !missing.contains(&&draft.variant) {
                missing.push(&draft.variant);
            }
        }
        let start = Moment::now();
        for (variant, pipeline) in missing.iter().zip(compile(gpu, &missing).await) {
            self.lock().insert((*variant).clone(), pipeline?);
        }
        *self.seconds.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += start.seconds().unwrap_or(0.0);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Variant, wgpu::ComputePipeline>> {
        self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// How long it took to make them; 0 where there is no clock.
    pub fn seconds(&self) -> f64 {
        *self.seconds.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Pipelines of some variants: on several threads where there are any.
#[cfg(not(target_family = "wasm"))]
async fn compile(gpu: &Gpu, variants: &[&Variant]) -> Vec<Result<wgpu::ComputePipeline>> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    let next = std::sync::atomic::AtomicUsize::new(0);
    let made = Mutex::new(Vec::with_capacity(variants.len()));
    let work = || {
        while let Some((index, variant)) = {
            let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            variants.get(index).map(|variant| (index, variant))
        } {
            let pipeline = super::readback::wait(gpu, variant.pipeline(gpu));
            made.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, pipeline));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(variants.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut made = made.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    made.sort_by_key(|(index, _)| *index);
    made.into_iter().map(|(_, pipeline)| pipeline).collect()
}

/// Pipelines of some variants.
#[cfg(target_family = "wasm")]
async fn compile(gpu: &Gpu, variants: &[&Variant]) -> Vec<Result<wgpu::ComputePipeline>> {
    futures::future::join_all(variants.iter().map(|variant| variant.pipeline(gpu))).await
}

/// Dispatches in order.
pub struct Recording {
    dispatches: Vec<Dispatch>,
}

impl Recording {
    /// Records drafts. `step` is what changes from step to step.
    pub async fn new(gpu: &Gpu, pipelines: &Pipelines, step: &wgpu::Buffer, drafts: Vec<Draft>) -> Result<Self> {
        pipelines.prepare(gpu, &drafts).await?;
        let pitch = gpu.device().limits().min_uniform_buffer_offset_alignment.max(256) as usize;
        let mut all = vec![0; drafts.len() * pitch];
        for (place, draft) in all.chunks_mut(pitch).zip(&drafts) {
            place.iter_mut().zip(&draft.params).for_each(|(to, &from)| *to = from);
        }
        let params = filled(gpu, "parameters", &all).await?;
        let mut dispatches = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.into_iter().enumerate() {
            let Some(pipeline) = pipelines.lock().get(&draft.variant).cloned() else { continue };
            let own = wgpu::BufferBinding {
                buffer: &params,
                offset: (index * pitch) as u64,
                size: std::num::NonZeroU64::new((draft.params.len() as u64).next_multiple_of(16)),
            };
            let others = draft.buffers.iter().map(wgpu::Buffer::as_entire_binding);
            let resources = [step.as_entire_binding(), wgpu::BindingResource::Buffer(own)].into_iter().chain(others);
            let entries: Vec<wgpu::BindGroupEntry> =
                (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
            let bindings = wgpu::BindGroupDescriptor {
                label: Some(draft.variant.file),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            };
            let what = format!("bindings of {}", draft.variant.file);
            let bindings = gpu.make(&what, 0, |device| device.create_bind_group(&bindings)).await?;
            let Draft { variant, groups, weight_bytes, product, .. } = draft;
            dispatches.push(Dispatch { pipeline, bindings, groups, name: variant.file, weight_bytes, product });
        }
        Ok(Recording { dispatches })
    }

    /// How many dispatches there are.
    pub fn len(&self) -> usize {
        self.dispatches.len()
    }

    /// The shader of each dispatch.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.dispatches.iter().map(|dispatch| dispatch.name)
    }

    /// How much work each dispatch is in a step: operations of products, and little for what is not one.
    pub fn works(&self, size: Size) -> impl Iterator<Item = f64> {
        const OTHER_WORK: f64 = 1e6;
        self.dispatches.iter().map(move |dispatch| match dispatch.product {
            _ if (dispatch.groups)(size).contains(&0) => 0.0,
            Some(product) => product.flops(size.tokens, size.outputs) as f64,
            None => OTHER_WORK * f64::from(size.tokens),
        })
    }

    /// What each dispatch does in a step, in no time; none of those that have nothing to do.
    pub fn costs(&self, size: Size) -> impl Iterator<Item = Option<Timing>> {
        self.dispatches.iter().map(move |dispatch| {
            let timing = Timing {
                name: dispatch.name,
                product: dispatch.product,
                dispatches: 1,
                seconds: 0.0,
                weight_bytes: dispatch.weight_bytes,
                flops: dispatch.product.map_or(0, |product| product.flops(size.tokens, size.outputs)),
            };
            (!(dispatch.groups)(size).contains(&0)).then_some(timing)
        })
    }

    /// Encodes some of the dispatches into one pass.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, range: std::ops::Range<usize>, size: Size) {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        self.dispatches.get(range).into_iter().flatten().for_each(|dispatch| dispatch.encode(&mut pass, size));
    }

    /// Encodes one dispatch into a pass of its own, between a timestamp query and the next one.
    pub fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        index: usize,
        size: Size,
        (query_set, query): (&wgpu::QuerySet, u32),
    ) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                query_set,
                beginning_of_pass_write_index: Some(query),
                end_of_pass_write_index: Some(query + 1),
            }),
        });
        self.dispatches.get(index).into_iter().for_each(|dispatch| dispatch.encode(&mut pass, size));
    }
}
