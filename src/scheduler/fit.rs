//! What a model is loaded with, found before anything is: the GPUs, the context, and the program and cache for it.

use super::CHUNK_TOKENS;
use super::placement::{Placement, Site, Sites};
use super::plan::Plan;
use crate::Result;
use crate::backend::gpu::{self, Gpu, GpuOptions, Sight};
use crate::cache::{Cache, CacheLimits, CacheState};
use crate::gguf::Gguf;
use crate::model::{self, ProgramOptions};
use crate::options::{Device, LoadOptions, Offload};
use crate::program::{Program, Purpose};

/// No context is made smaller than this for the sake of a GPU.
const LEAST_CONTEXT: u32 = 4096;
/// As long as a text may be on a GPU, if no longer context is asked for.
const TEXT_TOKENS: u32 = 2048;
/// Contexts that are made smaller are multiples of this.
const CONTEXT_STEP: u32 = 256;

/// What a session's states of recurrent layers may take, of which the more are kept the smaller they are.
const SNAPSHOT_BYTES: u64 = 128 << 20;
const FEWEST_SNAPSHOTS: u64 = 4;
const MOST_SNAPSHOTS: u64 = 64;

/// What fits together.
#[derive(Debug)]
pub struct Fit {
    /// The GPUs.
    pub sites: Vec<Site>,
    /// What is computed.
    pub program: Program,
    /// The books of its cache.
    pub cache: Cache,
    /// Why it is so.
    pub reasons: Vec<String>,
}

impl Fit {
    /// Finds the context: what was asked for, or else what the model was trained for; less where all layers would fit
    /// the GPUs with less.
    pub fn new(file: &Gguf, options: &LoadOptions, sites: Vec<Site>) -> Result<Self> {
        let trained = model::trained_context(file.metadata())?;
        let mut fit = Self::with_context(file, options, sites, options.context.unwrap_or(trained))?;
        if options.context.is_some_and(|context| context > trained) {
            fit.reason(format!("The model was trained for a context of {trained} tokens."));
        }
        let can_shrink = options.context.is_none() && matches!(options.offload, Offload::Auto { .. });
        if !can_shrink || fit.sites.is_empty() || fit.is_all_on_gpus(options)? {
            return Ok(fit);
        }
        let least = LEAST_CONTEXT.min(trained);
        let mut fits = least;
        // If not even the least lets all layers in, nothing is won by more.
        let tried = Self::with_context(file, options, fit.sites.clone(), least)?;
        let (mut low, mut high) = (least / CONTEXT_STEP + 1, trained.div_ceil(CONTEXT_STEP));
        if !tried.is_all_on_gpus(options)? {
            high = low;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            let tried = Self::with_context(file, options, fit.sites.clone(), middle * CONTEXT_STEP)?;
            if tried.is_all_on_gpus(options)? {
                (fits, low) = (middle * CONTEXT_STEP, middle + 1);
            } else {
                high = middle;
            }
        }
        fit = Self::with_context(file, options, fit.sites, fits)?;
        if fits < trained {
            fit.reason(format!(
                "The context is {fits} tokens, not the {trained} that the model was trained for, so that more layers \
                 fit; ask for another to have it."
            ));
        }
        Ok(fit)
    }

    fn with_context(file: &Gguf, options: &LoadOptions, sites: Vec<Site>, context: u32) -> Result<Self> {
        let how = ProgramOptions { context: context as usize };
        let program = if options.embed { model::embedding_program(file, how) } else { model::program(file, how) }?;
        let chunk_tokens = match program.purpose {
            Purpose::Generate => CHUNK_TOKENS as u32,
            // Texts are never cut, so GPUs have room for long ones, and with a longer context, if it is asked for, for that.
            Purpose::Embed => options.context.unwrap_or(context.min(TEXT_TOKENS)).max(CHUNK_TOKENS as u32),
        };
        let state_bytes = CacheState::of_program(&program).iter().map(CacheState::bytes).fold(0, u64::saturating_add);
        let snapshots = (SNAPSHOT_BYTES / state_bytes.max(1)).clamp(FEWEST_SNAPSHOTS, MOST_SNAPSHOTS) as u32;
        let limits = CacheLimits { sequences: options.sessions, chunk_tokens, snapshots, ..CacheLimits::new(context) };
        let cache = Cache::of_program(&program, limits)?;
        Ok(Fit { sites, program, cache, reasons: vec![] })
    }

    fn reason(&mut self, reason: String) {
        log::info!("{reason}");
        self.reasons.push(reason);
    }

    fn is_all_on_gpus(&self, options: &LoadOptions) -> Result<bool> {
        let placement = Placement::new(self.known(options), &options.offload, &options.on_cpu)?;
        Ok(!placement.layers.contains(&0) && placement.head != 0)
    }

    /// What layers are placed by.
    pub fn known(&self, options: &LoadOptions) -> Sites<'_> {
        Sites { program: &self.program, cache: &self.cache, format: options.cache_format, gpus: &self.sites }
    }

    /// Who would get what.
    pub fn plan(&self, options: &LoadOptions) -> Result<Plan> {
        let placement = Placement::new(self.known(options), &options.offload, &options.on_cpu)?;
        placement.plan(self.known(options), options, self.reasons.clone())
    }
}

/// The GPUs that options name, opened.
pub fn open(options: &LoadOptions) -> Result<Vec<Gpu>> {
    each(options, gpu::open)
}

/// The GPUs that options name, as they look from outside.
pub fn look(options: &LoadOptions) -> Result<Vec<Site>> {
    Ok(each(options, gpu::look)?.into_iter().map(Site::from).collect())
}

/// What `get` finds for the options' devices: it is asked for one, or for all of the best kind.
fn each<T>(options: &LoadOptions, get: impl Fn(&GpuOptions, bool) -> Result<Vec<T>>) -> Result<Vec<T>> {
    let named = |name: Option<&String>| {
        let name = name.cloned();
        get(&GpuOptions { name, ..GpuOptions::default() }, false)
    };
    match &options.device {
        _ if options.offload == Offload::None => Ok(vec![]),
        Device::Cpu => Ok(vec![]),
        Device::Auto => {
            let how = GpuOptions { no_emulation: true, ..GpuOptions::default() };
            let found = get(&how, true).inspect_err(|error| log::info!("all runs on the CPU: {error}"));
            Ok(found.unwrap_or_default())
        }
        Device::Gpu(name) => named(name.as_ref()),
        Device::Gpus(names) => {
            let each = names.iter().map(|name| named(Some(name))).collect::<Result<Vec<_>>>()?;
            Ok(each.into_iter().flatten().collect())
        }
    }
}

impl Site {
    /// An open GPU.
    ///
    /// # Errors
    /// [`Error::GpuLost`](crate::Error::GpuLost) if it is gone.
    pub fn of(gpu: &Gpu) -> Result<Self> {
        gpu.sight().map(Site::from)
    }
}

impl From<Sight> for Site {
    fn from(Sight { name, traits, room, .. }: Sight) -> Self {
        Site { name, traits, free_bytes: room.free_bytes, most_layers: usize::MAX }
    }
}
