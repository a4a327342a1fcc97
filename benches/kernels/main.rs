//! How fast a GPU multiplies with weights of every type, against what it can do: few tokens in GB/s of weights against
//! copying memory, many tokens in GFLOP/s against a plain product of matrices.
//!
//! ```text
//! cargo bench --bench kernels -- [--device NAME] [--types Q4_0,Q8_0] [--rows N] [--columns N] [--tokens 1,8,512]
//!                                [--output md|json] [--name]
//! ```
//!
//! The device is the best one, or the best with NAME in its name. Sizes fit it: on a GPU, matrices of 8192 by 8192, so many
//! in turns that they are a gigabyte, which no cache holds; small ones where the processor emulates a GPU.
//!
//! A number is the median of many passes of some milliseconds each; behind ± stands half of the distance from the tenth
//! part of the passes that was fastest to the tenth that was slowest. Shaders are compiled and have run for a while before.
//! GB/s are the bytes of weights as they lie on the device, once for a dispatch. The copy counts what it reads and what it
//! writes, both done by a kernel. Products are dispatched one after the other, as in a model: each waits for the one before.
//!
//! In JSON, tables go to where errors go.

#[path = "../../examples/bench/adapter.rs"]
mod adapter;
#[path = "../../examples/bench/synthetic/blocks.rs"]
mod blocks;
mod ceilings;
mod products;
mod timer;

use ceilings::Ceilings;
use clap::{Parser, ValueEnum};
use kiln::backend::gpu::layout::{self, Layout};
use kiln::backend::gpu::{Gpu, GpuOptions, wgpu};
use kiln::gguf::TensorType;
use products::{Case, Matrices};
use serde_json::{Value, json};
use std::error::Error;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;
use timer::{Effort, Timer};

/// How fast a GPU multiplies.
#[derive(Parser)]
struct Args {
    /// Part of the name of the GPU.
    #[arg(long)]
    device: Option<String>,
    /// Types of weights; by default all.
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    types: Vec<TensorType>,
    /// Rows of the matrices.
    #[arg(long)]
    rows: Option<NonZeroU32>,
    /// Columns of the matrices.
    #[arg(long)]
    columns: Option<NonZeroU32>,
    /// Tokens that are multiplied at once.
    #[arg(long, value_delimiter = ',')]
    tokens: Vec<NonZeroU32>,
    /// How results are written.
    #[arg(long, value_enum, default_value_t = Format::Md)]
    output: Format,
    /// Only say which device it would be.
    #[arg(long)]
    name: bool,
    /// What cargo says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Md,
    Json,
}

fn kind(name: &str) -> Result<TensorType, String> {
    let known = layout::all().iter().map(Layout::kind);
    known.clone().find(|kind| kind.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
        format!("no type of weights, expected one of {}", known.map(TensorType::name).collect::<Vec<_>>().join(", "))
    })
}

/// What is measured, as far as it depends on the device.
struct Sizes {
    rows: u32,
    columns: u32,
    tokens: Vec<u32>,
    /// Bytes of matrices that are multiplied in turns.
    set_bytes: u64,
    /// Bytes that are copied.
    stream_bytes: u64,
    /// Rows and columns of plain products.
    product: u32,
    effort: Effort,
}

impl Sizes {
    fn new(gpu: &Gpu, args: &Args) -> Self {
        let mut sizes = match gpu.info().device_type {
            wgpu::DeviceType::Cpu => Self::small(),
            _ => Self::large(),
        };
        sizes.rows = args.rows.map_or(sizes.rows, NonZeroU32::get);
        sizes.columns = args.columns.map_or(sizes.columns, NonZeroU32::get);
        if !args.tokens.is_empty() {
            sizes.tokens = args.tokens.iter().map(|tokens| tokens.get()).collect();
        }
        sizes
    }

    /// For a device that the processor emulates: all types in a minute or two.
    fn small() -> Self {
        let [pass, warm_up, measured] = [5, 0, 100].map(Duration::from_millis);
        let effort = Effort { pass, warm_up, measured, passes: (3, 15) };
        let (tokens, set_bytes, stream_bytes) = (vec![1, 8, 32], 8 << 20, 32 << 20);
        Sizes { rows: 1024, columns: 1024, tokens, set_bytes, stream_bytes, product: 512, effort }
    }

    fn large() -> Self {
        let [pass, warm_up, measured] = [5, 200, 300].map(Duration::from_millis);
        let effort = Effort { pass, warm_up, measured, passes: (5, 40) };
        let (tokens, set_bytes, stream_bytes) = (vec![1, 8, 512], 1 << 30, 512 << 20);
        Sizes { rows: 8192, columns: 8192, tokens, set_bytes, stream_bytes, product: 4096, effort }
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode, Box<dyn Error>> {
    let mut options = GpuOptions::default();
    options.name.clone_from(&args.device);
    let gpu = pollster::block_on(Gpu::open(&options))?;
    if args.name {
        println!("{}", gpu.info().name);
        return Ok(ExitCode::SUCCESS);
    }
    let sizes = Sizes::new(&gpu, args);
    let timer = Timer::new(&gpu, sizes.effort)?;
    // Tables are for people, wherever nobody else reads.
    let mut out: Box<dyn Write> = match args.output {
        Format::Md => Box::new(io::stdout()),
        Format::Json => Box::new(io::stderr()),
    };
    writeln!(out, "{}\n{}\n", adapter::line(&gpu), timer.method())?;
    let ceilings = Ceilings::measure(&gpu, &timer, &sizes)?;
    for (ceiling, unit) in ceilings.all() {
        let (name, speed, spread) = (ceiling.name, ceiling.speed(), ceiling.times.spread() * 100.0);
        writeln!(out, "{name:11} {:>8} {unit} ± {spread:.1}% ({})", digits(speed), ceiling.what)?;
    }
    let (found, failed) = all_types(&gpu, &timer, &ceilings, &sizes, args, &mut out)?;
    if args.output == Format::Json {
        let result = document(&gpu, &timer, &ceilings, &sizes, found);
        serde_json::to_writer_pretty(io::stdout(), &result)?;
        println!();
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Measures every type, and says whether any failed: the others count all the same.
fn all_types(
    gpu: &Gpu,
    timer: &Timer,
    ceilings: &Ceilings,
    sizes: &Sizes,
    args: &Args,
    out: &mut dyn Write,
) -> Result<(Vec<Value>, bool), Box<dyn Error>> {
    let (mut found, mut failed) = (vec![], false);
    writeln!(
        out,
        "\n{} x {}, up to {} MiB of matrices in turns\n\n\
         | weights | as  | tokens |         µs |     ± |    GB/s | of copy | GFLOP/s | of product |\n\
         | ------- | --- | -----: | ---------: | ----: | ------: | ------: | ------: | ---------: |",
        sizes.rows,
        sizes.columns,
        sizes.set_bytes >> 20,
    )?;
    let is_asked_for = |layout: &&Layout| args.types.is_empty() || args.types.contains(&layout.kind());
    for layout in layout::all().iter().filter(is_asked_for) {
        let matrices = match Matrices::new(gpu, *layout, (sizes.rows, sizes.columns), sizes.set_bytes) {
            Ok(matrices) => matrices,
            Err(error) => {
                eprintln!("{}: {error}", layout.kind());
                failed = true;
                continue;
            }
        };
        for &tokens in &sizes.tokens {
            match matrices.measure(timer, tokens) {
                Ok(case) => {
                    row(&case, ceilings, out)?;
                    found.push(value(&case, ceilings, matrices.count()));
                }
                Err(error) => {
                    eprintln!("{}, {tokens} tokens: {error}", layout.kind());
                    failed = true;
                }
            }
        }
    }
    Ok((found, failed))
}

/// Shares: of the copy for few tokens, of the product for many.
fn shares(case: &Case, ceilings: &Ceilings) -> (Option<f64>, Option<f64>) {
    let few = case.is_few();
    let of_copy = case.gb_per_s() / ceilings.copy.speed();
    (few.then_some(of_copy), (!few).then(|| case.gflop_per_s() / ceilings.product()))
}

fn row(case: &Case, ceilings: &Ceilings, out: &mut dyn Write) -> io::Result<()> {
    let percent = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.0}%", share * 100.0));
    let (of_copy, of_product) = shares(case, ceilings);
    writeln!(
        out,
        "| {:7} | {:3} | {:6} | {:10.1} | {:4.1}% | {:>7} | {:>7} | {:>7} | {:>10} |",
        case.kind,
        if case.integer { "i8" } else { "f32" },
        case.tokens,
        case.times.median * 1e6,
        case.times.spread() * 100.0,
        digits(case.gb_per_s()),
        percent(of_copy),
        digits(case.gflop_per_s()),
        percent(of_product),
    )?;
    out.flush()
}

/// A speed in about three digits.
fn digits(speed: f64) -> String {
    let behind_the_point = if speed < 10.0 { 2 } else { usize::from(speed < 100.0) };
    format!("{speed:.behind_the_point$}")
}

fn value(case: &Case, ceilings: &Ceilings, matrices: usize) -> Value {
    let (of_copy, of_product) = shares(case, ceilings);
    json!({
        "type": case.kind.name(),
        "activations": if case.integer { "i8" } else { "f32" },
        "n_tokens": case.tokens,
        "matrices": matrices,
        "ns": case.times.median * 1e9,
        "low_ns": case.times.low * 1e9,
        "high_ns": case.times.high * 1e9,
        "weight_bytes": case.weight_bytes,
        "flops": case.flops,
        "gb_per_s": case.gb_per_s(),
        "gflop_per_s": case.gflop_per_s(),
        "copy_share": of_copy,
        "product_share": of_product,
    })
}

fn document(gpu: &Gpu, timer: &Timer, ceilings: &Ceilings, sizes: &Sizes, products: Vec<Value>) -> Value {
    let ceilings = ceilings.all().map(|(ceiling, unit)| {
        json!({
            "name": ceiling.name,
            "what": ceiling.what,
            "unit": unit,
            "speed": ceiling.speed(),
            "ns": ceiling.times.median * 1e9,
            "low_ns": ceiling.times.low * 1e9,
            "high_ns": ceiling.times.high * 1e9,
        })
    });
    let device: serde_json::Map<String, Value> =
        adapter::fields(Some(gpu)).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    json!({
        "engine": concat!("kiln ", env!("CARGO_PKG_VERSION")),
        "device": device,
        "method": timer.method(),
        "rows": sizes.rows,
        "columns": sizes.columns,
        "ceilings": ceilings.collect::<Vec<_>>(),
        "products": products,
    })
}
