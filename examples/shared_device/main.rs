//! An application that draws with a device of its own, while kiln generates text on the same device and queue.
//!
//! ```text
//! shared_device --model FILE [--prompt TEXT] [--budget MS] [--frames N] [--fps N] [--out FILE.png]
//!               [--device auto|gpu|gpu:NAME] [--ctx N]
//! ```
//!
//! The application opens the device, asking for what kiln can use; kiln gets it, and keeps each of its submissions short,
//! so that a frame finds the queue free soon. The frame loop asks the reply for text without ever waiting for it.
//!
//! A frame's time is from when the application begins to record it until the device has drawn it. Frames are timed
//! without kiln first, when the model is loaded and nothing runs; then while kiln generates, from the first token of the
//! prompt on. A frame is in time if it takes no more than the median of those without kiln, the budget, and 2 ms.

#[allow(dead_code, reason = "it says how many layers a GPU gets, and here it gets all")]
#[path = "../common/mod.rs"]
mod common;
mod frames;
mod png;
mod scene;

use clap::Parser;
use frames::Frames;
use kiln::backend::gpu::{Gpu, wgpu};
use kiln::gguf::Gguf;
use kiln::{Device, Generate, Model};
use scene::{SIZE, Scene};
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Draws frames on a device of its own, while kiln generates text on it, and says how long they took.
///
/// A frame's time is from when it begins to be recorded until the device has drawn it. It is in time if that is no more
/// than the median of frames without kiln, the budget, and 2 ms.
#[derive(Parser)]
struct Args {
    /// The GGUF file.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// The text to go on from.
    #[arg(long, value_name = "TEXT", default_value = "Once upon a time")]
    prompt: String,
    /// How long kiln may keep the device busy at a time, in milliseconds.
    #[arg(long, value_name = "MS", default_value = "4")]
    budget: NonZeroU32,
    /// How many frames are drawn while kiln generates.
    #[arg(long, value_name = "N", default_value = "600")]
    frames: NonZeroU32,
    /// How many frames are drawn in a second.
    #[arg(long, value_name = "N", default_value = "60")]
    fps: NonZeroU32,
    /// Write the last frame to a file, as PNG.
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
    #[command(flatten)]
    flags: common::Flags,
}

/// Frames without kiln, to compare with.
const IDLE_FRAMES: usize = 120;

/// What a frame may take beside what it takes without kiln and the budget, in milliseconds.
const MARGIN: f64 = 2.0;

/// Radians from frame to frame.
const TURN: f32 = 0.05;

fn main() -> ExitCode {
    common::run(run)
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let options = args.flags.load_options()?.submit_budget_ms(args.budget.get());
    // Only the name counts: the device is the application's.
    let name = match &options.device {
        Device::Auto => None,
        Device::Gpu(name) => name.as_deref(),
        Device::Gpus(names) => names.first().map(String::as_str),
        Device::Cpu => return Err("--device cpu: it is a GPU that is shared, expected gpu or gpu:NAME".into()),
    };
    let (adapter, device, queue) = pollster::block_on(open(name))?;
    let scene = Scene::new(&device, &queue);
    let gpu = pollster::block_on(Gpu::from_wgpu(&adapter, device, queue))?;
    let named = |error| format!("{}: {error}", args.model.display());
    let model = Model::load_on(Gguf::open(&args.model)?, &options, std::slice::from_ref(&gpu)).map_err(named)?;
    eprintln!("{}\n{}", gpu.report(), model.facts());

    let fps = args.fps.get().into();
    let mut idle = Frames::per_second(fps);
    while idle.count() < IDLE_FRAMES {
        draw(&scene, &mut idle)?;
    }
    let mut busy = Frames::per_second(fps);
    let spoken = generate(args, &model, &scene, &mut busy)?;
    if let Some(path) = &args.out {
        let picture = |error| format!("{}: {error}", path.display());
        let mut file = BufWriter::new(File::create(path).map_err(picture)?);
        png::write(&mut file, SIZE, &scene.pixels()?).and_then(|()| file.flush()).map_err(picture)?;
    }
    print(args, &idle, &busy, &spoken);
    Ok(())
}

/// What came out beside the frames.
#[derive(Default)]
struct Spoken {
    /// The first reply.
    text: String,
    replies: usize,
    tokens: usize,
    seconds: f64,
}

/// The device that the application wants, with what kiln can use beside.
async fn open(name: Option<&str>) -> Result<(wgpu::Adapter, wgpu::Device, wgpu::Queue), Box<dyn Error>> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    let adapter = match name {
        Some(name) => {
            let is_named =
                |adapter: &wgpu::Adapter| adapter.get_info().name.to_lowercase().contains(&name.to_lowercase());
            let adapters = instance.enumerate_adapters(wgpu::Backends::PRIMARY).await;
            adapters.into_iter().find(is_named).ok_or_else(|| format!("no GPU is named like `{name}`"))?
        }
        None => {
            let power_preference = wgpu::PowerPreference::HighPerformance;
            instance.request_adapter(&wgpu::RequestAdapterOptions { power_preference, ..Default::default() }).await?
        }
    };
    let wanted = Gpu::requirements(&adapter);
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("application"),
        required_features: wanted.features,
        required_limits: wanted.limits,
        ..Default::default()
    };
    let (device, queue) = adapter.request_device(&descriptor).await?;
    Ok((adapter, device, queue))
}

fn draw(scene: &Scene, frames: &mut Frames) -> Result<(), Box<dyn Error>> {
    let angle = frames.count() as f32 * TURN;
    frames.next(|| scene.draw(angle))
}

/// Draws the frames that were asked for, while one reply after the other is generated.
fn generate(args: &Args, model: &Model, scene: &Scene, frames: &mut Frames) -> Result<Spoken, Box<dyn Error>> {
    let wanted = args.frames.get() as usize;
    let start = Instant::now();
    let mut spoken = Spoken::default();
    while frames.count() < wanted {
        let mut session = model.session();
        let how = Generate::new().max_tokens(model.context() as usize / 2).ignore_end(true);
        let mut reply = session.generate_with(&args.prompt, how)?;
        let mut text = String::new();
        'frames: while frames.count() < wanted {
            draw(scene, frames)?;
            while let Some(piece) = reply.try_next() {
                let Some(piece) = piece else { break 'frames };
                text.push_str(&piece?);
            }
        }
        if spoken.replies == 0 {
            spoken.text = text;
        }
        spoken.replies += 1;
        spoken.tokens += reply.statistics().generated_tokens;
    }
    spoken.seconds = start.elapsed().as_secs_f64();
    Ok(spoken)
}

fn print(args: &Args, idle: &Frames, busy: &Frames, spoken: &Spoken) {
    println!("{}{}\n", args.prompt, spoken.text);
    println!("frame times in ms   median     95 %     99 %    worst   frames");
    for (name, frames) in [("without kiln", idle), ("with kiln", busy)] {
        let [median, most, nearly_all, worst] = [0.5, 0.95, 0.99, 1.0].map(|share| frames.within(share));
        let count = frames.count();
        println!("{name:17} {median:8.2} {most:8.2} {nearly_all:8.2} {worst:8.2} {count:8}");
    }
    let (usual, budget) = (idle.within(0.5), f64::from(args.budget.get()));
    let limit = usual + budget + MARGIN;
    println!(
        "{:.1} % of the frames with kiln took no more than {limit:.2} ms: {usual:.2} without it, a budget of {budget}, and {MARGIN}",
        100.0 * busy.share(limit),
    );
    let Spoken { replies, tokens, seconds, .. } = spoken;
    println!("{:.1} tokens/s: {tokens} in {seconds:.1} s, of {replies} replies", *tokens as f64 / seconds);
}
