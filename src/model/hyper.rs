//! The hyper-parameters that all families share, as the metadata give them.

use crate::Result;
use crate::error::Error;
use crate::gguf::Metadata;

/// Sizes and constants of a model.
#[derive(Debug, Clone)]
pub(super) struct Hyper<'m> {
    metadata: &'m Metadata,
    pub architecture: String,
    pub layers: usize,
    /// Numbers in the residual stream.
    pub width: usize,
    pub vocabulary: usize,
    pub context: usize,
    /// Per layer.
    pub heads: Vec<usize>,
    /// Per layer.
    pub kv_heads: Vec<usize>,
    /// Per layer.
    pub feed_forward: Vec<usize>,
    pub key_size: usize,
    pub value_size: usize,
    /// Of norms by the root of the mean square.
    pub epsilon: f32,
    /// Of norms that subtract the mean.
    pub layer_epsilon: f32,
    pub rope_dimensions: usize,
    pub rope_base: f32,
    pub scaling: Scaling,
}

/// What `rope.scaling.*` says.
#[derive(Debug, Clone)]
pub(super) struct Scaling {
    pub kind: ScalingKind,
    /// By how many times the context grew; 1 where it did not.
    pub factor: f32,
    pub original_context: usize,
    pub attention_factor: f32,
    /// How much of what YaRN makes up for is left out again; 0 where all of it counts.
    pub log_multiplier: f32,
    pub beta_fast: f32,
    pub beta_slow: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScalingKind {
    None,
    Linear,
    Yarn,
    /// A divisor for each pair, in two tables: one for short contexts and one for long ones.
    LongRope,
}

impl<'m> Hyper<'m> {
    pub fn read(metadata: &'m Metadata, architecture: &str) -> Result<Self> {
        let mut hyper = Hyper {
            metadata,
            architecture: architecture.to_owned(),
            layers: 0,
            width: 0,
            vocabulary: 0,
            context: 0,
            heads: vec![],
            kv_heads: vec![],
            feed_forward: vec![],
            key_size: 0,
            value_size: 0,
            epsilon: 0.0,
            layer_epsilon: 0.0,
            rope_dimensions: 0,
            rope_base: 0.0,
            scaling: Scaling::NONE,
        };
        let trailing = hyper.optional("nextn_predict_layers")?.unwrap_or(0);
        let blocks = hyper.required("block_count")?;
        hyper.layers =
            blocks.checked_sub(trailing).filter(|&layers| layers > 0 && blocks <= MOST_LAYERS).ok_or_else(|| {
                Error::metadata(
                    hyper.key("block_count"),
                    blocks.to_string(),
                    format!("{} to {MOST_LAYERS}", trailing + 1),
                )
            })?;
        if trailing > 0 {
            log::info!("{trailing} layers that predict several tokens at once are left out");
        }
        hyper.width = hyper.required("embedding_length")?;
        hyper.context = hyper.required("context_length")?;
        hyper.vocabulary = hyper.read_vocabulary()?;
        // Models may be without attention, or feed-forward, if their layers keep something else.
        let nothing = vec![0; hyper.layers];
        let default = hyper.has_states().then_some(&nothing[..]);
        hyper.heads = hyper.per_layer("attention.head_count", default)?;
        hyper.kv_heads = hyper.per_layer("attention.head_count_kv", Some(&hyper.heads))?;
        hyper.feed_forward = hyper.per_layer("feed_forward_length", default)?;
        let is_attentive = hyper.heads.iter().any(|&heads| heads > 0);
        let shared = hyper.width / hyper.heads.iter().copied().max().unwrap_or(1).max(1);
        hyper.key_size = hyper.optional("attention.key_length")?.unwrap_or(shared);
        hyper.value_size = hyper.optional("attention.value_length")?.unwrap_or(shared);
        hyper.epsilon = hyper.number("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5);
        hyper.layer_epsilon = hyper.number("attention.layer_norm_epsilon")?.unwrap_or(1e-5);
        let rotated = hyper.optional("rope.dimension_count")?.unwrap_or(hyper.key_size);
        hyper.rope_dimensions = if is_attentive { rotated } else { 0 };
        hyper.rope_base = hyper.number("rope.freq_base")?.unwrap_or(10_000.0);
        // HunYuan's way to a longer context: a higher base.
        if let (Some(alpha), 3..) = (hyper.positive("rope.scaling.alpha")?, hyper.key_size) {
            hyper.rope_base *= alpha.powf(hyper.key_size as f32 / (hyper.key_size - 2) as f32);
        }
        hyper.scaling = Scaling::read(&hyper)?;
        hyper.check()?;
        Ok(hyper)
    }

    /// The full name of a key of this architecture.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub fn optional(&self, name: &str) -> Result<Option<usize>> {
        Ok(self.metadata.u32(&self.key(name))?.map(|value| value as usize))
    }

    pub fn number(&self, name: &str) -> Result<Option<f32>> {
        self.metadata.f32(&self.key(name))
    }

    /// A positive number; files write 0 for none.
    pub fn positive(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.number(name)?.filter(|&value| value != 0.0))
    }

    /// An array with a bool for each layer; none if there is no such key, or it is no array.
    pub fn flags(&self, name: &str) -> Result<Option<Vec<bool>>> {
        let key = self.key(name);
        if self.metadata.get(&key).is_none_or(|value| value.as_array().is_none()) {
            return Ok(None);
        }
        let flags = self.metadata.bools(&key)?.unwrap_or_default();
        if flags.len() < self.layers {
            let found = format!("an array of {}", flags.len());
            return Err(Error::metadata(key, found, format!("one for each of {} layers", self.layers)));
        }
        Ok(Some(flags))
    }

    /// An array of numbers; empty if there is no such key.
    pub fn counts(&self, name: &str) -> Result<Vec<u32>> {
        Ok(self.metadata.u32s(&self.key(name))?.unwrap_or_default())
    }

    /// How many pairs rotate by each coordinate, in models that also see pictures. For text all coordinates are the same
    /// but a fourth, which would be 0, and its pairs not rotated.
    pub fn sections(&self) -> Result<Vec<u32>> {
        const KEY: &str = "rope.dimension_sections";
        let sections = self.counts(KEY)?;
        match sections.get(3).filter(|&&other| other > 0) {
            None => Ok(sections),
            Some(other) => {
                let found = format!("{other} in the fourth section");
                Err(Error::metadata(self.key(KEY), found, "nothing in it"))
            }
        }
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<&'m str>> {
        self.metadata.str(&self.key(name))
    }

    /// How many types of tokens there are: the tokenizer counts them.
    pub fn token_types(&self) -> Result<usize> {
        const TYPES: &str = "tokenizer.ggml.token_type_count";
        let types = self.metadata.u32(TYPES)?.filter(|&types| types > 0);
        types.map(|types| types as usize).ok_or_else(|| Error::metadata(TYPES, "nothing", "a positive number"))
    }

    /// A yes or no.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.metadata.bool(&self.key(name))
    }

    /// How many tokens the convolutions count that some families have in place of attention.
    pub fn convolution(&self) -> Result<Option<usize>> {
        const KEY: &str = "shortconv.l_cache";
        match self.optional(KEY)? {
            Some(kernel) if kernel == 0 || kernel > MOST_CONVOLVED => {
                Err(Error::metadata(self.key(KEY), kernel.to_string(), format!("1 to {MOST_CONVOLVED}")))
            }
            kernel => Ok(kernel),
        }
    }

    /// Whether layers may keep something else than keys and values: those without heads of these do.
    fn has_states(&self) -> bool {
        ["shortconv.l_cache", "ssm.conv_kernel"].iter().any(|name| self.metadata.get(&self.key(name)).is_some())
    }

    fn required(&self, name: &str) -> Result<usize> {
        match self.optional(name)? {
            Some(value) if value > 0 => Ok(value),
            found => {
                let found = found.map_or("nothing".into(), |value| value.to_string());
                Err(Error::metadata(self.key(name), found, "a positive number"))
            }
        }
    }

    /// A number for all layers, or an array with one for each.
    pub fn per_layer(&self, name: &str, default: Option<&[usize]>) -> Result<Vec<usize>> {
        let key = self.key(name);
        if self.metadata.get(&key).is_some_and(|value| value.as_array().is_some()) {
            let values = self.metadata.u32s(&key)?.unwrap_or_default();
            if values.len() < self.layers {
                let found = format!("an array of {}", values.len());
                return Err(Error::metadata(
                    key,
                    found,
                    format!("a number, or one for each of {} layers", self.layers),
                ));
            }
            return Ok(values[..self.layers].iter().map(|&value| value as usize).collect());
        }
        match (self.optional(name)?, default) {
            (Some(value), _) => Ok(vec![value; self.layers]),
            (None, Some(default)) => Ok(default.to_vec()),
            (None, None) => Err(Error::metadata(key, "nothing", "a number, or an array with one for each layer")),
        }
    }

    fn read_vocabulary(&self) -> Result<usize> {
        // The tokenizer counts: where tokens were added after training, `vocab_size` may not.
        const TOKENS: &str = "tokenizer.ggml.tokens";
        if let Some(tokens) = self.metadata.strings(TOKENS)? {
            return Ok(tokens.len());
        }
        let missing = || Error::metadata(self.key("vocab_size"), "nothing", format!("a number, or {TOKENS}"));
        self.optional("vocab_size")?.ok_or_else(missing)
    }

    /// Refuses heads that attention cannot be computed with.
    pub fn check_heads(&self, layer: usize, heads: usize, kv_heads: usize) -> Result<()> {
        let wrong = |name: &str, found: String, expected: String| Err(Error::metadata(self.key(name), found, expected));
        if heads == 0 {
            return wrong("attention.head_count", format!("0 in layer {layer}"), "a positive number".into());
        }
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            let found = format!("{kv_heads} in layer {layer}");
            return wrong("attention.head_count_kv", found, format!("a divisor of its {heads} heads"));
        }
        Ok(())
    }

    /// What the arithmetic of every family rests on.
    fn check(&self) -> Result<()> {
        let wrong = |name: &str, found: String, expected: String| Err(Error::metadata(self.key(name), found, expected));
        for (layer, (&heads, &kv_heads)) in self.heads.iter().zip(&self.kv_heads).enumerate() {
            if kv_heads > 0 || !self.has_states() {
                self.check_heads(layer, heads, kv_heads)?;
            }
        }
        if self.heads.iter().all(|&heads| heads == 0) {
            return Ok(());
        }
        for (name, size) in [("attention.key_length", self.key_size), ("attention.value_length", self.value_size)] {
            if size == 0 || size > MOST_HEAD_SIZE {
                return wrong(name, size.to_string(), format!("1 to {MOST_HEAD_SIZE}"));
            }
        }
        if !self.rope_dimensions.is_multiple_of(2) || self.rope_dimensions > self.key_size {
            let expected = format!("an even number up to the {} of a key", self.key_size);
            return wrong("rope.dimension_count", self.rope_dimensions.to_string(), expected);
        }
        if !(self.rope_base > 0.0 && self.rope_base.is_finite()) {
            return wrong("rope.freq_base", self.rope_base.to_string(), "a positive number".into());
        }
        Ok(())
    }
}

const MOST_LAYERS: usize = 512;
/// The most tokens that a convolution counts.
pub(super) const MOST_CONVOLVED: usize = 64;
const MOST_HEAD_SIZE: usize = 4096;

impl Scaling {
    /// Rotation as it is.
    pub const NONE: Self = Scaling {
        kind: ScalingKind::None,
        factor: 1.0,
        original_context: 0,
        attention_factor: 1.0,
        log_multiplier: 0.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
    };

    /// What sines and cosines are multiplied with: YaRN makes up for attention that spreads over a longer context.
    pub fn magnitude(&self) -> f32 {
        let grown = self.kind == ScalingKind::Yarn && self.factor > 1.0;
        let made_up = |multiplier: f32| if grown { 1.0 + 0.1 * multiplier * self.factor.ln() } else { 1.0 };
        self.attention_factor * made_up(1.0) / made_up(self.log_multiplier)
    }

    fn read(hyper: &Hyper) -> Result<Self> {
        let key = hyper.key("rope.scaling.type");
        let kind = match hyper.metadata.str(&key)? {
            None | Some("linear") => ScalingKind::Linear,
            Some("none") => ScalingKind::None,
            Some("yarn") => ScalingKind::Yarn,
            Some("longrope") => ScalingKind::LongRope,
            Some(other) => {
                return Err(Error::metadata(key, format!("`{other}`"), "one of none, linear, yarn, longrope"));
            }
        };
        let original = hyper.optional("rope.scaling.original_context_length")?;
        let older = hyper.positive("rope.scale_linear")?;
        let factor = hyper.positive("rope.scaling.factor")?.or(older).unwrap_or(1.0);
        if !(factor > 0.0 && factor.is_finite()) {
            return Err(Error::metadata(hyper.key("rope.scaling.factor"), factor.to_string(), "a positive number"));
        }
        Ok(Scaling {
            kind,
            factor: if kind == ScalingKind::None { 1.0 } else { factor },
            original_context: original.filter(|&positions| positions > 0).unwrap_or(hyper.context),
            attention_factor: hyper.positive("rope.scaling.attn_factor")?.unwrap_or(1.0),
            log_multiplier: hyper.number("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0),
            beta_fast: hyper.number("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
            beta_slow: hyper.number("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
        })
    }
}
