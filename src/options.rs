//! What an application decides when it loads a model: plain values with sensible defaults, no environment variables.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// How a model is loaded.
///
/// ```no_run
/// use kiln::{CacheFormat, LoadOptions};
///
/// let model = LoadOptions::new().context(8192).cache_format(CacheFormat::Q8_0).open("model.gguf")?;
/// # Ok::<(), kiln::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// The most tokens that a session holds; by default what the model was trained for.
    pub context: Option<u32>,
    /// How many sessions are certain to find room for a full context each. More may live as long as they are short.
    pub sessions: u32,
    /// How keys and values are kept.
    pub cache_format: CacheFormat,
    /// Whether the file is mapped into memory. If not, weights are read when they are used.
    pub map: bool,
    /// Whether weights are packed for the vector unit. It makes everything faster, and takes about as much memory as
    /// the weights do, beside the file. If not, the mapped file is the only copy of them.
    pub pack: bool,
    /// Whether the model is to embed texts, even if its file says nothing of that. It cannot generate any then.
    pub embed: bool,
    /// Whether the CPU decodes weights and leaves activations as they are, where it otherwise rounds these to eight bits:
    /// slow, for comparisons.
    pub exact: bool,
    /// How many threads compute; by default as many as there are cores.
    pub threads: Option<usize>,
    /// The pre-tokenizer to use in place of the one that the file names.
    pub pre_tokenizer: Option<String>,
    /// What computes.
    pub device: Device,
    /// How much of the model the GPUs get.
    pub offload: Offload,
    /// Tensors that stay in system memory, wherever their layers go.
    pub on_cpu: Vec<OnCpu>,
    /// What replies do when a GPU is lost. Without this they end in an error, and
    /// [`Session::resume`](crate::Session::resume) goes on.
    pub recover: Option<Recover>,
    /// How long a GPU is kept busy by what is submitted at a time, in milliseconds: less where other things are to be drawn
    /// with the same device in between.
    pub submit_budget_ms: u32,
    /// Whom to tell how far loading is.
    pub progress: Option<Progress>,
}

/// Is told how far loading is: the bytes of weights that are ready, and all of them.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(u64, u64) + Send + Sync>);

impl Progress {
    /// Tells it.
    pub(crate) fn tell(&self, done_bytes: u64, all_bytes: u64) {
        (self.0)(done_bytes, all_bytes);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

impl PartialEq for Progress {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Progress {}

/// What computes, beside the CPU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Device {
    /// The GPUs of the machine: all discrete ones, or if there are none the integrated ones, as many of them as the model
    /// needs, the largest first. Where there are none but emulated ones, the CPU.
    #[default]
    Auto,
    /// The CPU alone.
    Cpu,
    /// The best GPU, or the best of those whose name contains this, in any case.
    Gpu(Option<String>),
    /// Several GPUs, each the best of those whose name contains this.
    Gpus(Vec<String>),
}

/// How much of a model the GPUs get. Layers that they do not get run on the CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offload {
    /// As many layers as fit, with their part of the cache, from the first on.
    Auto {
        /// What is left to others of each GPU's memory.
        reserve_bytes: u64,
    },
    /// Nothing.
    None,
    /// Everything.
    All,
    /// The first so many layers. With the last of them go the embedding and the head.
    Layers(u32),
    /// These layers, each range on one of the GPUs, which count from 0.
    Ranges(Vec<(Range<u32>, usize)>),
}

impl Default for Offload {
    fn default() -> Self {
        Offload::Auto { reserve_bytes: 512 << 20 }
    }
}

/// How the rows that describe the tokens of a text become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// They do not: each token has its own.
    None,
    /// Their average.
    Mean,
    /// The first token's, which stands for the text.
    First,
    /// The last token's, which has seen all of the text.
    Last,
    /// One of them goes through a classifier: the result is a score.
    Rank,
}

/// How a model goes on when a GPU is lost: from the tokens of its sessions, which are run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recover {
    /// On the CPU alone.
    Cpu,
    /// On GPUs as [`LoadOptions::device`] names them, opened anew; on the CPU if there are none any more.
    Reopen,
}

/// Tensors that stay in system memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnCpu {
    /// Which.
    pub class: TensorClass,
    /// From this layer on.
    pub from_layer: u32,
}

/// Tensors of one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorClass {
    /// What turns tokens into activations.
    Embedding,
    /// What turns activations into logits, behind the last layer.
    Head,
    /// What stands behind the attention of a layer, experts included.
    FeedForward,
    /// The experts of a layer, of which each token needs few.
    Experts,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            context: None,
            sessions: 1,
            cache_format: CacheFormat::F16,
            map: true,
            pack: true,
            embed: false,
            exact: false,
            threads: None,
            pre_tokenizer: None,
            device: Device::Auto,
            offload: Offload::default(),
            on_cpu: vec![],
            recover: None,
            submit_budget_ms: 50,
            progress: None,
        }
    }
}

impl LoadOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`LoadOptions::context`].
    #[must_use]
    pub fn context(mut self, tokens: u32) -> Self {
        self.context = Some(tokens);
        self
    }

    /// Sets [`LoadOptions::sessions`].
    #[must_use]
    pub fn sessions(mut self, count: u32) -> Self {
        self.sessions = count;
        self
    }

    /// Sets [`LoadOptions::cache_format`].
    #[must_use]
    pub fn cache_format(mut self, format: CacheFormat) -> Self {
        self.cache_format = format;
        self
    }

    /// Sets [`LoadOptions::map`].
    #[must_use]
    pub fn map(mut self, yes: bool) -> Self {
        self.map = yes;
        self
    }

    /// Sets [`LoadOptions::pack`].
    #[must_use]
    pub fn pack(mut self, yes: bool) -> Self {
        self.pack = yes;
        self
    }

    /// Sets [`LoadOptions::embed`].
    #[must_use]
    pub fn embed(mut self, yes: bool) -> Self {
        self.embed = yes;
        self
    }

    /// Sets [`LoadOptions::exact`].
    #[must_use]
    pub fn exact(mut self, yes: bool) -> Self {
        self.exact = yes;
        self
    }

    /// Sets [`LoadOptions::threads`]; none counts as one.
    #[must_use]
    pub fn threads(mut self, count: usize) -> Self {
        self.threads = Some(count);
        self
    }

    /// Sets [`LoadOptions::device`].
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Sets [`LoadOptions::offload`].
    #[must_use]
    pub fn offload(mut self, offload: Offload) -> Self {
        self.offload = offload;
        self
    }

    /// Adds to [`LoadOptions::on_cpu`]: these tensors of all layers.
    #[must_use]
    pub fn on_cpu(self, class: TensorClass) -> Self {
        self.on_cpu_from(class, 0)
    }

    /// The same for the layers from one on.
    #[must_use]
    pub fn on_cpu_from(mut self, class: TensorClass, from_layer: u32) -> Self {
        self.on_cpu.push(OnCpu { class, from_layer });
        self
    }

    /// Sets [`LoadOptions::recover`].
    #[must_use]
    pub fn recover(mut self, how: Recover) -> Self {
        self.recover = Some(how);
        self
    }

    /// Sets [`LoadOptions::submit_budget_ms`].
    #[must_use]
    pub fn submit_budget_ms(mut self, milliseconds: u32) -> Self {
        self.submit_budget_ms = milliseconds;
        self
    }

    /// Sets [`LoadOptions::progress`]: called while a model is loaded, with the bytes of weights that are ready and all of
    /// them. The last call has the two equal.
    #[must_use]
    pub fn progress(mut self, tell: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        self.progress = Some(Progress(Arc::new(tell)));
        self
    }

    /// Sets [`LoadOptions::pre_tokenizer`].
    #[must_use]
    pub fn pre_tokenizer(mut self, name: impl Into<String>) -> Self {
        self.pre_tokenizer = Some(name.into());
        self
    }
}

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CacheFormat {
    /// 32-bit floating point, for tests and comparisons.
    F32,
    /// 16-bit floating point.
    #[default]
    F16,
    /// Blocks of 32 signed bytes under one scale: about half of F16.
    Q8_0,
}
