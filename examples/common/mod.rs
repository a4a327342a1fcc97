//! What the examples that run a model share: flags of one meaning, and one way to fail.

use clap::{Args, Parser, ValueEnum};
use kiln::{LoadOptions, Offload, TensorClass};
use std::error::Error;
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::process::ExitCode;
use std::str::FromStr;

/// Where and how a model runs.
#[derive(Args, Debug, Clone)]
pub struct Flags {
    /// Where it runs: auto (a GPU if there is one that is not emulated), cpu, gpu, gpu:NAME (part of its name), or several
    /// with commas, as gpu:NAME,NAME.
    #[arg(long, value_name = "WHERE", default_value = "auto")]
    device: Device,
    /// How many layers the GPU gets: a number, all, or auto, which is as many as fit.
    #[arg(long, value_name = "N|all|auto", default_value = "auto")]
    gpu_layers: GpuLayers,
    /// What stays on the CPU, wherever its layers go.
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    on_cpu: Vec<Class>,
    /// The same as --on-cpu experts: of a token only what its experts work on crosses over, and what they come to.
    #[arg(long)]
    cpu_experts: bool,
    /// Threads on the CPU; by default, one a core.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// The most tokens of a sequence; by default, what the model was trained for, or what is needed.
    #[arg(long, value_name = "N")]
    ctx: Option<NonZeroU32>,
}

impl Flags {
    /// The options that the flags ask for.
    ///
    /// # Errors
    /// If they ask for what this build does not have, or contradict each other.
    pub fn load_options(&self) -> Result<LoadOptions, String> {
        let (device, offload) = match (&self.device, &self.gpu_layers) {
            (Device::Gpu(_), GpuLayers::Count(0)) | (Device::Cpu, GpuLayers::All | GpuLayers::Count(1..)) => {
                return Err(format!(
                    "--device {} and --gpu-layers {}: expected one of them, or two that agree",
                    self.device, self.gpu_layers
                ));
            }
            (Device::Cpu, _) | (_, GpuLayers::Count(0)) => (kiln::Device::Cpu, Offload::None),
            (Device::Gpu(_), GpuLayers::Auto) => (self.device.named(), Offload::default()),
            (Device::Auto, GpuLayers::Auto) => (kiln::Device::Auto, Offload::default()),
            (_, GpuLayers::All) => (self.device.named(), Offload::All),
            (_, GpuLayers::Count(count)) => (self.device.named(), Offload::Layers(*count)),
        };
        let mut options = LoadOptions::new().device(device).offload(offload);
        let experts = self.cpu_experts.then_some(&Class::Experts).filter(|experts| !self.on_cpu.contains(experts));
        for class in self.on_cpu.iter().chain(experts) {
            options = options.on_cpu(class.named());
        }
        options.threads = self.threads.map(NonZeroUsize::get);
        options.context = self.ctx.map(NonZeroU32::get);
        Ok(options)
    }
}

#[derive(Debug, Clone)]
enum Device {
    Auto,
    Cpu,
    /// The one of this name, or any.
    Gpu(Option<String>),
}

impl Device {
    /// The GPUs that it names.
    fn named(&self) -> kiln::Device {
        match self {
            Device::Gpu(Some(names)) if names.contains(',') => {
                kiln::Device::Gpus(names.split(',').map(str::to_owned).collect())
            }
            Device::Gpu(name) => kiln::Device::Gpu(name.clone()),
            Device::Auto | Device::Cpu => kiln::Device::Gpu(None),
        }
    }
}

/// As [`TensorClass`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Class {
    /// What turns tokens into activations.
    Embedding,
    /// What turns activations into logits.
    Head,
    /// What stands behind attention in a layer.
    Ffn,
    /// The experts of layers that have some.
    Experts,
}

impl Class {
    fn named(self) -> TensorClass {
        match self {
            Class::Embedding => TensorClass::Embedding,
            Class::Head => TensorClass::Head,
            Class::Ffn => TensorClass::FeedForward,
            Class::Experts => TensorClass::Experts,
        }
    }
}

impl FromStr for Device {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.strip_prefix("gpu:")) {
            ("auto", _) => Ok(Device::Auto),
            ("cpu", _) => Ok(Device::Cpu),
            ("gpu", _) => Ok(Device::Gpu(None)),
            (_, Some(name)) if !name.is_empty() => Ok(Device::Gpu(Some(name.into()))),
            _ => Err("expected auto, cpu, gpu or gpu:NAME"),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => write!(f, "auto"),
            Device::Cpu => write!(f, "cpu"),
            Device::Gpu(None) => write!(f, "gpu"),
            Device::Gpu(Some(name)) => write!(f, "gpu:{name}"),
        }
    }
}

#[derive(Debug, Clone)]
enum GpuLayers {
    Auto,
    All,
    Count(u32),
}

impl FromStr for GpuLayers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(GpuLayers::Auto),
            "all" => Ok(GpuLayers::All),
            _ => text.parse().map(GpuLayers::Count).map_err(|_| "expected a number, all or auto"),
        }
    }
}

impl fmt::Display for GpuLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuLayers::Auto => write!(f, "auto"),
            GpuLayers::All => write!(f, "all"),
            GpuLayers::Count(count) => write!(f, "{count}"),
        }
    }
}

/// Runs an example on its arguments. Arguments that are wrong end it with code 2, the mistake and the usage; any other
/// error with code 1.
pub fn run<A: Parser>(example: impl FnOnce(&A) -> Result<(), Box<dyn Error>>) -> ExitCode {
    let mut command = A::command();
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let arguments = match matches.and_then(|matches| A::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => {
            _ = error.print();
            if error.use_stderr() && !error.to_string().contains("Usage") {
                eprintln!("\n{}", command.render_usage());
            }
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match example(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
