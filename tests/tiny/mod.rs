//! Tiny random models of every family, made on the spot.
//!
//! A [`Tiny`] is the metadata and the tensors of a file that a test changes before it is written. Weights depend on the
//! tensor's name alone, so a variant differs from the plain model in what it changes and nothing else. They are scaled so
//! that every part of a layer moves the logits, which are of the order of 1 to 10.

use kiln::gguf::{Endian, Gguf, GgufWriter, TensorType};
use kiln::quant::Format;
use std::sync::Arc;

pub mod encoders;
pub mod recurrent;
pub mod variants;

/// Sizes of a model; vectors have one number a layer.
#[derive(Clone)]
pub struct Sizes {
    pub width: usize,
    pub heads: Vec<usize>,
    pub kv_heads: Vec<usize>,
    pub head_size: usize,
    pub inner: Vec<usize>,
}

impl Sizes {
    /// Tokens.
    pub const VOCABULARY: usize = 128;

    /// Four heads of 32, which two heads of keys and values serve.
    pub fn new(layers: usize) -> Self {
        Sizes { width: 128, heads: vec![4; layers], kv_heads: vec![2; layers], head_size: 32, inner: vec![96; layers] }
    }

    /// Smaller, for models with many layers; the width is no multiple of the heads.
    pub fn thin(layers: usize) -> Self {
        Sizes { width: 32, heads: vec![3; layers], kv_heads: vec![1; layers], head_size: 16, inner: vec![16; layers] }
    }

    /// As [`Sizes::new`], with heads that do not add up to the width.
    pub fn odd_heads(layers: usize) -> Self {
        Sizes { heads: vec![6; layers], kv_heads: vec![3; layers], ..Sizes::new(layers) }
    }
}

/// Families with norms that subtract the mean, and those of them that have biases.
const LAYER_NORMS: [&str; 8] =
    ["command-r", "cohere2", "falcon", "gptneox", "phi2", "nemotron", "stablelm", "starcoder2"];
const NORM_BIASES: [&str; 7] = ["phimoe", "falcon", "gptneox", "phi2", "nemotron", "stablelm", "starcoder2"];

/// Whether a layer has windows, and heads of half the size.
fn is_near(architecture: &str, layer: usize) -> bool {
    architecture == "gemma4" && layer % 3 != 2
}

/// A metadata value.
#[derive(Clone)]
pub enum Fact {
    Count(u32),
    Number(f32),
    Flag(bool),
    Text(String),
    Counts(Vec<u32>),
    Flags(Vec<bool>),
    Texts(Vec<String>),
}

macro_rules! fact_from {
    ($($type:ty: $variant:ident),*) => {$(
        impl From<$type> for Fact {
            fn from(value: $type) -> Fact {
                Fact::$variant(value.into())
            }
        }
    )*};
}

fact_from!(u32: Count, f32: Number, bool: Flag, &str: Text, Vec<u32>: Counts, Vec<bool>: Flags, Vec<String>: Texts);

/// A model in the making.
#[derive(Clone)]
pub struct Tiny {
    pub architecture: String,
    sizes: Sizes,
    facts: Vec<(String, Fact)>,
    tensors: Vec<(String, Vec<usize>, TensorType)>,
    endian: Endian,
}

impl Tiny {
    /// The plain model of a family.
    pub fn new(architecture: &str) -> Self {
        let sizes = match architecture {
            "qwen3" | "qwen3moe" | "gemma" => Sizes::odd_heads(2),
            "gemma2" | "gpt-oss" | "smollm3" | "cohere2" | "llama4" => Sizes::new(5),
            "gemma3" | "gemma-embedding" => Sizes { width: 64, ..Sizes::new(7) },
            "gemma4" => Sizes { width: 64, ..Sizes::new(6) },
            // Layers without heads of keys are convolutions.
            "lfm2" | "lfm2moe" => Sizes { kv_heads: vec![0, 2, 0, 0, 2], ..Sizes::new(5) },
            recurrent if recurrent::RECURRENT.contains(&recurrent) => recurrent::sizes(recurrent),
            _ => Sizes::new(2),
        };
        Tiny::with_sizes(architecture, sizes)
    }

    /// The plain model of a family in other sizes.
    pub fn with_sizes(architecture: &str, sizes: Sizes) -> Self {
        let tiny = Tiny {
            architecture: architecture.into(),
            sizes: sizes.clone(),
            facts: vec![],
            tensors: vec![],
            endian: Endian::Little,
        };
        let tiny = tiny
            .set("general.architecture", architecture)
            .set("tokenizer.ggml.model", "none")
            .set("vocab_size", Sizes::VOCABULARY as u32)
            .set("context_length", 256)
            .set("embedding_length", sizes.width as u32)
            .set("block_count", sizes.heads.len() as u32)
            .set("attention.layer_norm_rms_epsilon", 0.01f32)
            .per_layer("attention.head_count", &sizes.heads)
            .per_layer("attention.head_count_kv", &sizes.kv_heads)
            .per_layer("feed_forward_length", &sizes.inner)
            .set("attention.key_length", sizes.head_size as u32)
            .set("attention.value_length", sizes.head_size as u32);
        let tiny = match architecture {
            "gemma2" | "gpt-oss" => tiny.set("attention.sliding_window", 8),
            "gemma4" => {
                let near = (0..sizes.heads.len()).map(|layer| is_near(architecture, layer)).collect::<Vec<bool>>();
                let tiny = tiny.set("attention.sliding_window", 8).set("attention.sliding_window_pattern", near);
                let tiny = tiny.set("rope.freq_base", 100_000f32).add("rope_freqs.weight", &[sizes.head_size / 2]);
                let half = sizes.head_size as u32 / 2;
                let tiny = tiny.set("attention.key_length_swa", half).set("attention.value_length_swa", half);
                tiny.set("rope.dimension_count_swa", half).set("embedding_length_per_layer_input", 0)
            }
            "gemma3" => tiny.set("attention.sliding_window", 8).set("rope.freq_base", 100_000f32),
            "gemma-embedding" => {
                let tiny = tiny.set("attention.sliding_window", 8).set("rope.freq_base", 100_000f32);
                tiny.set("attention.causal", false).set("pooling_type", 1)
            }
            encoder if encoders::ENCODERS.contains(&encoder) => return tiny.encoder(),
            recurrent if recurrent::RECURRENT.contains(&recurrent) => return tiny.recurrent(),
            "lfm2" | "lfm2moe" => tiny.set("shortconv.l_cache", 3),
            "granite" | "granitemoe" => tiny
                .set("embedding_scale", 1.5f32)
                .set("residual_scale", 0.7f32)
                .set("attention.scale", 0.3f32)
                .set("logit_scale", 0.8f32),
            "command-r" => tiny.set("logit_scale", 0.8f32),
            "cohere2" => tiny.set("logit_scale", 0.8f32).set("attention.sliding_window", 8),
            "llama4" => tiny.set("attention.sliding_window", 8),
            "mistral3" => {
                let tiny = tiny.set("rope.scaling.original_context_length", 8);
                tiny.set("attention.temperature_scale", 0.4f32)
            }
            "gptneox" => tiny.set("use_parallel_residual", true),
            "qwen2vl" | "qwen3vl" => tiny.set("rope.dimension_sections", vec![6u32, 5, 5, 0]),
            "glm4" | "glm4moe" | "minimax-m2" => tiny.set("rope.dimension_count", sizes.head_size as u32 / 2),
            "deepseek2" => tiny.latent(),
            _ => tiny,
        };
        let tiny = match LAYER_NORMS.contains(&architecture) {
            true => tiny.unset(&["attention.layer_norm_rms_epsilon"]).set("attention.layer_norm_epsilon", 0.01f32),
            false => tiny,
        };
        let width = sizes.width;
        let mut tiny = tiny.add("token_embd.weight", &[width, Sizes::VOCABULARY]);
        let final_norm = if architecture.starts_with("lfm2") { "token_embd_norm.weight" } else { "output_norm.weight" };
        tiny = tiny.add(final_norm, &[width]);
        let is_tied = ["command-r", "cohere2", "bitnet", "lfm2", "lfm2moe"].contains(&architecture);
        if !architecture.starts_with("gemma") && !is_tied {
            tiny = tiny.add("output.weight", &[width, Sizes::VOCABULARY]);
        }
        if ["phi2", "phimoe"].contains(&architecture) {
            tiny = tiny.add("output.bias", &[Sizes::VOCABULARY]);
        }
        if NORM_BIASES.contains(&architecture) {
            tiny = tiny.add("output_norm.bias", &[width]);
        }
        let tiny = (0..sizes.heads.len()).fold(tiny, Tiny::layer);
        match architecture {
            "qwen2moe" | "qwen3moe" | "gpt-oss" | "olmoe" | "granitemoe" | "minimax-m2" | "phimoe" => tiny.experts(0),
            "hunyuan-moe" | "llama4" => tiny.experts(0),
            "deepseek2" | "glm4moe" | "ernie4_5-moe" | "bailingmoe2" | "lfm2moe" => tiny.experts(1),
            _ => tiny,
        }
    }

    /// What files with latent attention say: rows of 32 numbers, and half of each head rotated.
    fn latent(self) -> Self {
        let (head_size, rotated) = (self.sizes.head_size as u32, self.sizes.head_size as u32 / 2);
        self.set("attention.head_count_kv", 1)
            .set("attention.key_length", 32 + rotated)
            .set("attention.value_length", 32)
            .set("attention.key_length_mla", head_size)
            .set("attention.value_length_mla", head_size)
            .set("attention.kv_lora_rank", 32)
            .set("attention.q_lora_rank", 40)
            .set("rope.dimension_count", rotated)
    }

    /// Experts in place of feed-forward, or beside it, from a layer on.
    pub fn experts(self, from_layer: usize) -> Self {
        let (count, inner, width) = (8, 32, self.sizes.width);
        let architecture = self.architecture.clone();
        let is = |names: &[&str]| names.contains(&architecture.as_str());
        let used = if is(&["llama4"]) { 1 } else { 3 };
        let mut tiny = self.set("expert_count", count as u32).set("expert_used_count", used);
        tiny = match is(&["llama", "olmoe", "granitemoe", "minimax-m2", "hunyuan-moe", "phimoe", "granitehybrid"]) {
            true => tiny.set("feed_forward_length", inner as u32),
            false => tiny.set("expert_feed_forward_length", inner as u32),
        };
        if is(&["hunyuan-moe"]) {
            tiny = tiny.set("expert_feed_forward_length", inner as u32);
            tiny = tiny.set("expert_shared_feed_forward_length", 2 * inner as u32);
        }
        if is(&["minimax-m2"]) {
            tiny = tiny.set("expert_feed_forward_length", inner as u32).set("expert_gating_func", 2);
        }
        if is(&["ernie4_5-moe"]) {
            tiny = tiny.set("interleave_moe_layer_step", 1).set("expert_shared_feed_forward_length", 64);
        }
        if is(&["lfm2moe"]) {
            tiny = tiny.set("expert_gating_func", 2);
        }
        if is(&["ernie4_5-moe", "deepseek2", "glm4moe", "bailingmoe2", "lfm2moe"]) {
            tiny = tiny.set("leading_dense_block_count", from_layer as u32);
        }
        if is(&["glm4moe", "bailingmoe2"]) {
            tiny = tiny.set("expert_weights_norm", true).set("expert_shared_count", 2);
            tiny = tiny.set("expert_gating_func", 2);
        }
        if is(&["deepseek2"]) {
            tiny = tiny.set("expert_group_count", 4).set("expert_group_used_count", 2);
            tiny = tiny.set("expert_gating_func", 2).set("expert_weights_norm", true);
            tiny = tiny.set("expert_weights_scale", 2.5f32).set("expert_shared_count", 2);
        }
        if is(&["qwen2moe", "qwen3next", "qwen35moe"]) {
            tiny = tiny.set("expert_shared_feed_forward_length", 48);
        }
        if is(&["llama4"]) {
            tiny = tiny.set("interleave_moe_layer_step", 2);
        }
        let step = if is(&["llama4"]) { 2 } else { 1 };
        for layer in (from_layer..tiny.layers()).filter(|layer| (layer + 1) % step == 0) {
            let name = |part: &str| format!("blk.{layer}.{part}");
            for part in ["ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"] {
                tiny = if is(&["gemma4"]) { tiny } else { tiny.remove(&name(part)) };
            }
            let mut parts: Vec<(&str, Vec<usize>)> = vec![
                ("ffn_gate_inp.weight", vec![width, count]),
                ("ffn_gate_exps.weight", vec![width, inner, count]),
                ("ffn_up_exps.weight", vec![width, inner, count]),
                ("ffn_down_exps.weight", vec![inner, width, count]),
            ];
            if is(&["qwen2moe", "qwen3next", "qwen35moe"]) {
                parts.push(("ffn_gate_inp_shexp.weight", vec![width]));
                parts.push(("ffn_gate_shexp.weight", vec![width, 48]));
                parts.push(("ffn_up_shexp.weight", vec![width, 48]));
                parts.push(("ffn_down_shexp.weight", vec![48, width]));
            }
            if is(&["deepseek2", "glm4moe", "ernie4_5-moe", "bailingmoe2", "minimax-m2", "lfm2moe"]) {
                parts.push(("exp_probs_b.bias", vec![count]));
            }
            if is(&["deepseek2", "glm4moe", "ernie4_5-moe", "bailingmoe2", "hunyuan-moe"]) {
                parts.push(("ffn_gate_shexp.weight", vec![width, 2 * inner]));
                parts.push(("ffn_up_shexp.weight", vec![width, 2 * inner]));
                parts.push(("ffn_down_shexp.weight", vec![2 * inner, width]));
            }
            if is(&["llama4"]) {
                parts.push(("ffn_gate_shexp.weight", vec![width, inner]));
                parts.push(("ffn_up_shexp.weight", vec![width, inner]));
                parts.push(("ffn_down_shexp.weight", vec![inner, width]));
            }
            if is(&["gemma4"]) {
                parts.push(("ffn_gate_inp.scale", vec![width]));
                parts.push(("ffn_down_exps.scale", vec![count]));
                parts.push(("pre_ffw_norm_2.weight", vec![width]));
                parts.push(("post_ffw_norm_1.weight", vec![width]));
                parts.push(("post_ffw_norm_2.weight", vec![width]));
            }
            if is(&["gpt-oss"]) {
                parts.push(("ffn_gate_inp.bias", vec![count]));
                parts.push(("ffn_gate_exps.bias", vec![inner, count]));
                parts.push(("ffn_up_exps.bias", vec![inner, count]));
                parts.push(("ffn_down_exps.bias", vec![width, count]));
            }
            tiny = parts.iter().fold(tiny, |tiny, (part, shape)| tiny.add(&name(part), shape));
        }
        tiny
    }

    fn layer(self, layer: usize) -> Self {
        let Sizes { width, head_size, .. } = self.sizes;
        let head_size = if is_near(&self.architecture, layer) { head_size / 2 } else { head_size };
        let (heads, kv_heads) = (self.sizes.heads[layer], self.sizes.kv_heads[layer]);
        let (queries, keys, inner) = (heads * head_size, kv_heads * head_size, self.sizes.inner[layer]);
        let architecture = self.architecture.clone();
        let is = |names: &[&str]| names.contains(&architecture.as_str());
        let mut parts: Vec<(&str, Vec<usize>)> = vec![("ffn_down.weight", vec![inner, width])];
        let (rotated, is_convolution) = (head_size / 2, kv_heads == 0);
        if is_convolution {
            parts.push(("shortconv.in_proj.weight", vec![width, 3 * width]));
            parts.push(("shortconv.conv.weight", vec![3, width]));
            parts.push(("shortconv.out_proj.weight", vec![width, width]));
        } else {
            parts.push(("attn_output.weight", vec![queries, width]));
        }
        if is_convolution {
        } else if is(&["deepseek2"]) {
            parts.push(("attn_q_a.weight", vec![width, 40]));
            parts.push(("attn_q_a_norm.weight", vec![40]));
            parts.push(("attn_q_b.weight", vec![40, queries]));
            parts.push(("attn_kv_a_mqa.weight", vec![width, 32 + rotated]));
            parts.push(("attn_kv_a_norm.weight", vec![32]));
            parts.push(("attn_k_b.weight", vec![head_size - rotated, 32, heads]));
            parts.push(("attn_v_b.weight", vec![32, head_size, heads]));
        } else if is(&["phi3", "falcon", "gptneox", "bailingmoe2"]) {
            parts.push(("attn_qkv.weight", vec![width, queries + 2 * keys]));
        } else {
            parts.push(("attn_q.weight", vec![width, queries]));
            parts.push(("attn_k.weight", vec![width, keys]));
            parts.push(("attn_v.weight", vec![width, keys]));
        }
        if is(&["phi3", "glm4"]) {
            parts.push(("ffn_up.weight", vec![width, 2 * inner]));
        } else if is(&["falcon", "gptneox", "phi2", "nemotron", "starcoder2", "arcee"]) {
            parts.push(("ffn_up.weight", vec![width, inner]));
        } else {
            parts.push(("ffn_gate.weight", vec![width, inner]));
            parts.push(("ffn_up.weight", vec![width, inner]));
        }
        if is(&["gpt-oss"]) {
            parts.push(("attn_sinks.weight", vec![heads]));
            parts.push(("attn_output.bias", vec![width]));
        }
        if is(&["qwen2", "qwen2moe", "gpt-oss", "qwen2vl", "starcoder2", "phi2", "seed_oss", "glm4moe", "phimoe"]) {
            parts.push(("attn_q.bias", vec![queries]));
            parts.push(("attn_k.bias", vec![keys]));
            parts.push(("attn_v.bias", vec![keys]));
        }
        if is(&["gptneox"]) {
            parts.push(("attn_qkv.bias", vec![queries + 2 * keys]));
        }
        if is(&["phimoe"]) {
            parts.push(("attn_output.bias", vec![width]));
        }
        if is(&["starcoder2", "phi2", "gptneox"]) {
            parts.push(("attn_output.bias", vec![width]));
            parts.push(("ffn_up.bias", vec![inner]));
            parts.push(("ffn_down.bias", vec![width]));
        }
        if is(&["bitnet"]) {
            parts.push(("attn_sub_norm.weight", vec![queries]));
            parts.push(("ffn_sub_norm.weight", vec![inner]));
        }
        if is(&[
            "qwen3",
            "qwen3moe",
            "gemma3",
            "gemma4",
            "gemma-embedding",
            "qwen3vl",
            "exaone4",
            "hunyuan-dense",
            "hunyuan_vl",
            "hunyuan-moe",
            "bailingmoe2",
        ]) {
            parts.push(("attn_q_norm.weight", vec![head_size]));
            parts.push(("attn_k_norm.weight", vec![head_size]));
        }
        if is(&["lfm2", "lfm2moe"]) && !is_convolution {
            parts.push(("attn_q_norm.weight", vec![head_size]));
            parts.push(("attn_k_norm.weight", vec![head_size]));
        }
        if is(&["olmo2", "olmoe", "minimax-m2"]) {
            parts.push(("attn_q_norm.weight", vec![queries]));
            parts.push(("attn_k_norm.weight", vec![keys]));
        }
        if !is(&["olmo2", "exaone4"]) {
            parts.push(("attn_norm.weight", vec![width]));
            if is(&NORM_BIASES) {
                parts.push(("attn_norm.bias", vec![width]));
            }
        }
        if is(&["seed_oss", "gpt-oss", "glm4moe"]) {
            parts.push(("post_attention_norm.weight", vec![width]));
        } else if !is(&["olmo2", "exaone4", "command-r", "cohere2", "falcon", "phi2"]) {
            parts.push(("ffn_norm.weight", vec![width]));
            if is(&NORM_BIASES) {
                parts.push(("ffn_norm.bias", vec![width]));
            }
        }
        if is(&["gemma2", "gemma3", "gemma4", "gemma-embedding", "glm4", "olmo2", "exaone4"]) {
            parts.push(("post_attention_norm.weight", vec![width]));
            parts.push(("post_ffw_norm.weight", vec![width]));
        }
        parts.iter().fold(self, |tiny, (name, shape)| tiny.add(&format!("blk.{layer}.{name}"), shape))
    }

    pub fn layers(&self) -> usize {
        self.sizes.heads.len()
    }

    fn per_layer(self, key: &str, values: &[usize]) -> Self {
        let values: Vec<u32> = values.iter().map(|&value| value as u32).collect();
        match values.iter().all(|value| *value == values[0]) {
            true => self.set(key, values[0]),
            false => self.set(key, values),
        }
    }

    /// The full name of a key.
    pub fn key(&self, key: &str) -> String {
        match key.starts_with("general.") || key.starts_with("tokenizer.") {
            true => key.into(),
            false => format!("{}.{key}", self.architecture),
        }
    }

    /// Writes the file in the other byte order.
    pub fn big_endian(mut self) -> Self {
        self.endian = Endian::Big;
        self
    }

    /// Sets a key, named without its architecture.
    pub fn set(mut self, key: &str, value: impl Into<Fact>) -> Self {
        let key = self.key(key);
        self.facts.retain(|(known, _)| *known != key);
        self.facts.push((key, value.into()));
        self
    }

    /// Takes keys away.
    pub fn unset(mut self, keys: &[&str]) -> Self {
        for key in keys {
            let key = self.key(key);
            let before = self.facts.len();
            self.facts.retain(|(known, _)| *known != key);
            assert!(self.facts.len() < before, "{key} is not there");
        }
        self
    }

    /// Adds a tensor, or gives it another shape.
    pub fn add(mut self, name: &str, shape: &[usize]) -> Self {
        self.tensors.retain(|(known, ..)| known != name);
        self.tensors.push((name.into(), shape.to_vec(), TensorType::F32));
        self
    }

    /// Adds a tensor to each layer.
    pub fn add_to_layers(self, name: &str, shape: &[usize]) -> Self {
        (0..self.layers()).fold(self, |tiny, layer| tiny.add(&format!("blk.{layer}.{name}"), shape))
    }

    /// Takes a tensor away.
    pub fn remove(mut self, name: &str) -> Self {
        let before = self.tensors.len();
        self.tensors.retain(|(known, ..)| known != name);
        assert!(self.tensors.len() < before, "{name} is not there");
        self
    }

    /// Stores a tensor in another format.
    pub fn store_as(mut self, name: &str, format: TensorType) -> Self {
        let tensor = self.tensors.iter_mut().find(|(known, ..)| known == name);
        tensor.unwrap().2 = format;
        self
    }

    /// Stores all matrices of layers in another format.
    pub fn store_matrices_as(mut self, format: TensorType) -> Self {
        let matrices = self.tensors.iter_mut().filter(|(name, shape, _)| name.starts_with("blk.") && shape.len() >= 2);
        matrices.for_each(|(.., known)| *known = format);
        self
    }

    /// One tensor instead of three for queries, keys and values, with the same numbers.
    pub fn fuse_query_key_value(mut self) -> Self {
        for layer in 0..self.layers() {
            let head_size = self.sizes.head_size;
            let rows = (self.sizes.heads[layer] + 2 * self.sizes.kv_heads[layer]) * head_size;
            for part in ["q", "k", "v"] {
                self = self.remove(&format!("blk.{layer}.attn_{part}.weight"));
            }
            let shape = [self.sizes.width, rows];
            self = self.add(&format!("blk.{layer}.attn_qkv.weight"), &shape);
        }
        self
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut writer = GgufWriter::with_endian(self.endian);
        for (key, fact) in &self.facts {
            let set = match fact {
                Fact::Count(value) => writer.set(key, *value),
                Fact::Number(value) => writer.set(key, *value),
                Fact::Flag(value) => writer.set(key, *value),
                Fact::Text(value) => writer.set(key, value.as_str()),
                Fact::Counts(values) => writer.set(key, values.clone()),
                Fact::Flags(values) => writer.set(key, values.clone()),
                Fact::Texts(values) => writer.set(key, values.clone()),
            };
            set.unwrap();
        }
        for (name, shape, kind) in &self.tensors {
            let values = self.values(name, shape);
            let format = Format::of(*kind).unwrap();
            let mut bytes = vec![0; format.bytes_for(values.len()).unwrap()];
            if *kind != TensorType::Q8_K {
                format.encode(&values, &mut bytes).unwrap();
            }
            let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
            writer.tensor(name, &shape, *kind, bytes).unwrap();
        }
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        bytes
    }

    pub fn file(&self) -> Arc<Gguf> {
        Arc::new(Gguf::from_bytes(self.bytes()).unwrap())
    }

    fn values(&self, name: &str, shape: &[usize]) -> Vec<f32> {
        let is_fused = !recurrent::RECURRENT.contains(&self.architecture.as_str());
        if let Some((layer, kind)) = name.split_once("attn_qkv.").filter(|_| is_fused) {
            return self.fused_values(layer, kind, shape);
        }
        let count = shape.iter().product();
        let part = name.rsplit_once('.').map_or(name, |(part, _)| part);
        let tied = !self.tensors.iter().any(|(name, ..)| name == "output.weight");
        let (middle, spread) = match part.rsplit('.').next().unwrap_or(part) {
            "rope_freqs" | "rope_factors_long" | "rope_factors_short" => (2.0, 0.9),
            part if part.contains("_norm") && name.ends_with(".weight") => (1.0, 0.5),
            "attn_sinks" => (0.0, 3.0),
            _ if name.ends_with("ssm_a") => (-0.5, 0.45),
            _ if name.ends_with("ssm_d") => (1.0, 0.5),
            "ffn_gate_inp" if name.ends_with(".scale") => (8.0, 4.0), // the root of the width is divided out
            _ if name.ends_with(".scale") => (1.0, 0.5),
            _ if name.ends_with(".bias") => (0.0, 0.5),
            "layer_output_scale" => (0.8, 0.2),
            "per_layer_token_embd" => (0.0, 1.0 / 4.0),
            "token_embd" if tied => (0.0, 4.0 / (shape[0] as f32).sqrt()),
            "token_embd" => (0.0, 1.7),
            "output" => (0.0, 5.0 / (shape[0] as f32).sqrt()),
            "attn_q" | "attn_k" | "attn_q_b" | "attn_k_b" | "attn_kv_b" => (0.0, 3.0 / (shape[0] as f32).sqrt()),
            _ => (0.0, 2.0 / (shape[0] as f32).sqrt()),
        };
        random(name, count).map(|value| middle + spread * value).collect()
    }
}

impl Tiny {
    /// The numbers of three tensors, one above the other; `layer` as in `blk.0.`, `kind` is `weight` or `bias`.
    fn fused_values(&self, layer: &str, kind: &str, shape: &[usize]) -> Vec<f32> {
        let number: usize = layer.split('.').nth(1).unwrap().parse().unwrap();
        let (heads, kv_heads) = (self.sizes.heads[number], self.sizes.kv_heads[number]);
        let parts = [("q", heads), ("k", kv_heads), ("v", kv_heads)];
        let part = |(part, heads): (&str, usize)| {
            let mut shape = shape.to_vec();
            *shape.last_mut().unwrap() = heads * self.sizes.head_size;
            self.values(&format!("{layer}attn_{part}.{kind}"), &shape)
        };
        parts.into_iter().flat_map(part).collect()
    }
}

#[allow(dead_code, reason = "not every test needs it")]
impl Tiny {
    /// With another number of tokens.
    pub fn vocabulary(self, tokens: usize) -> Self {
        let width = self.sizes.width;
        let is_tied = !self.tensors.iter().any(|(name, ..)| name == "output.weight");
        let tiny = self.set("vocab_size", tokens as u32).add("token_embd.weight", &[width, tokens]);
        if is_tied { tiny } else { tiny.add("output.weight", &[width, tokens]) }
    }

    /// The numbers of a tensor.
    pub fn value_of(&self, name: &str) -> Vec<f32> {
        let (_, shape, _) = self.tensors.iter().find(|(known, ..)| known == name).unwrap();
        self.values(name, shape)
    }

    /// With a tokenizer, of which each token is a letter.
    pub fn tokenizer(self) -> Self {
        let (_, shape, _) = self.tensors.iter().find(|(name, ..)| name == "token_embd.weight").unwrap();
        let letters = (0x4e00..).filter_map(char::from_u32).take(shape[1]).map(String::from);
        let letters: Vec<String> = letters.collect();
        self.set("tokenizer.ggml.model", "llama").set("tokenizer.ggml.tokens", letters)
    }
}

/// Numbers between -1 and 1 that depend on the name.
pub fn random(name: &str, count: usize) -> impl Iterator<Item = f32> {
    let mut state = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (0..count).map(move |_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}
