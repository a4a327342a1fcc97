//! Measures dispatches: by the device's own clock where it has one, else by the time that many submits take.

use kiln::Result;
use kiln::backend::gpu::memory::buffer;
use kiln::backend::gpu::readback::{read, wait};
use kiln::backend::gpu::{Gpu, wgpu};
use std::time::{Duration, Instant};

/// One dispatch, ready to be encoded.
pub struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    groups: [u32; 3],
}

impl Dispatch {
    /// A pipeline, the buffers of its bindings in order, and workgroups.
    pub fn new(gpu: &Gpu, pipeline: &wgpu::ComputePipeline, buffers: &[&wgpu::Buffer], groups: [u32; 3]) -> Self {
        let entries: Vec<wgpu::BindGroupEntry> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bindings = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Dispatch { pipeline: pipeline.clone(), bindings, groups }
    }
}

/// The times of many runs, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub median: f64,
    /// A tenth of the runs took less than this.
    pub low: f64,
    /// A tenth took more.
    pub high: f64,
}

impl Times {
    fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let (last, tenth) = (seconds.len() - 1, seconds.len() / 10);
        Times { median: seconds[last.div_ceil(2)], low: seconds[tenth], high: seconds[last - tenth] }
    }

    /// How much times differ, as a share of the median.
    pub fn spread(&self) -> f64 {
        (self.high - self.low) / 2.0 / self.median
    }
}

/// How long is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// What a pass should take, so that its beginning and end do not count.
    pub pass: Duration,
    /// How long clocks and caches warm up.
    pub warm_up: Duration,
    /// How long passes are then repeated.
    pub measured: Duration,
    /// At least so many passes, and at most.
    pub passes: (usize, usize),
}

/// Measures on a device.
pub struct Timer<'g> {
    gpu: &'g Gpu,
    effort: Effort,
    clock: Option<Clock>,
}

/// A device's own clock: two timestamps, on their way to where they can be read.
struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    target: wgpu::Buffer,
    /// Seconds of a tick.
    period: f64,
}

/// A pass is no longer than this, whatever it takes: command buffers are not without limits.
const MOST_ROUNDS: usize = 1000;
/// Submits between two looks at the clock on the wall.
const SUBMITS: usize = 8;

impl<'g> Timer<'g> {
    pub fn new(gpu: &'g Gpu, effort: Effort) -> Result<Self> {
        let has_clock = gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let clock = if has_clock { Some(Clock::new(gpu)?) } else { None };
        Ok(Timer { gpu, effort, clock })
    }

    /// How time is taken, in a word or two.
    pub fn method(&self) -> &'static str {
        if self.clock.is_some() { "timestamps around passes" } else { "wall clock over many submits" }
    }

    /// What a round takes. Rounds are run in turns, so that what one reads is not in a cache when its turn comes again.
    pub fn measure(&self, rounds: &[Vec<Dispatch>]) -> Result<Times> {
        let mut turns = rounds.iter().cycle();
        self.run(&mut turns, 1)?;
        let once = self.run(&mut turns, 1)?;
        let count = ((self.effort.pass.as_secs_f64() / once.max(1e-9)).ceil() as usize).clamp(1, MOST_ROUNDS);
        let start = Instant::now();
        while start.elapsed() < self.effort.warm_up {
            self.run(&mut turns, count)?;
        }
        let (least, most) = self.effort.passes;
        let (start, mut seconds) = (Instant::now(), vec![]);
        while seconds.len() < least || (seconds.len() < most && start.elapsed() < self.effort.measured) {
            seconds.push(self.run(&mut turns, count)?);
        }
        Ok(Times::of(seconds))
    }

    /// Runs so many rounds, and returns the seconds that one took.
    fn run<'a>(&self, turns: &mut impl Iterator<Item = &'a Vec<Dispatch>>, count: usize) -> Result<f64> {
        let mut pass = || self.encode(turns.by_ref().take(count).flatten());
        let seconds = match &self.clock {
            Some(clock) => {
                let commands = pass();
                self.gpu.queue().submit([commands]);
                clock.seconds(self.gpu)?
            }
            None => {
                let passes: Vec<_> = (0..SUBMITS).map(|_| pass()).collect();
                let start = Instant::now();
                passes.into_iter().for_each(|commands| _ = self.gpu.queue().submit([commands]));
                _ = self.gpu.device().poll(wgpu::PollType::wait_indefinitely());
                start.elapsed().as_secs_f64() / SUBMITS as f64
            }
        };
        self.gpu.check()?;
        Ok(seconds / count as f64)
    }

    fn encode<'a>(&self, dispatches: impl Iterator<Item = &'a Dispatch>) -> wgpu::CommandBuffer {
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        let timestamp_writes = self.clock.as_ref().map(|clock| wgpu::ComputePassTimestampWrites {
            query_set: &clock.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        for Dispatch { pipeline, bindings, groups: [x, y, z] } in dispatches {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, bindings, &[]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
        drop(pass);
        if let Some(clock) = &self.clock {
            encoder.resolve_query_set(&clock.queries, 0..2, &clock.resolved, 0);
            encoder.copy_buffer_to_buffer(&clock.resolved, 0, &clock.target, 0, 16);
        }
        encoder.finish()
    }
}

impl Clock {
    fn new(gpu: &Gpu) -> Result<Self> {
        let queries = gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
            label: None,
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let resolved = wait(gpu, buffer(gpu, "timestamps", 16, wgpu::BufferUsages::QUERY_RESOLVE))?;
        let target = gpu.device().create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 16,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let period = f64::from(gpu.queue().get_timestamp_period()) * 1e-9;
        Ok(Clock { queries, resolved, target, period })
    }

    /// What the pass took that was submitted last.
    fn seconds(&self, gpu: &Gpu) -> Result<f64> {
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&wait(gpu, read(gpu, &self.target, 16))?);
        Ok(stamps[1].saturating_sub(stamps[0]) as f64 * self.period)
    }
}
