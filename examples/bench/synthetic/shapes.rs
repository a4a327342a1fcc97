//! The shapes of real models: their sizes, metadata and tensors.

use kiln::gguf::GgufWriter;

/// The sizes of a model.
#[derive(Debug)]
pub struct Shape {
    pub name: &'static str,
    pub architecture: &'static str,
    pub vocabulary: u32,
    pub width: u32,
    pub layers: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_size: u32,
    /// Width of the feed-forward part; of one expert, where there are experts.
    pub inner: u32,
    pub experts: Option<Experts>,
    /// Layers other than each fourth, where they are recurrent.
    pub recurrent: Option<Recurrent>,
    /// The embeddings are the output too.
    pub tied: bool,
    pub context: u32,
    pub rope_base: f32,
    pub epsilon: f32,
}

#[derive(Debug)]
pub struct Experts {
    pub count: u32,
    /// How many of them a token goes through.
    pub used: u32,
}

/// Gated delta nets, of which queries, keys and values have as many heads, of one size.
#[derive(Debug)]
pub struct Recurrent {
    pub heads: u32,
    pub head_size: u32,
    /// Tokens that the convolution counts.
    pub kernel: u32,
}

const LLAMA_1B: Shape = Shape {
    name: "llama-1b",
    architecture: "llama",
    vocabulary: 128_256,
    width: 2048,
    layers: 16,
    heads: 32,
    kv_heads: 8,
    head_size: 64,
    inner: 8192,
    experts: None,
    recurrent: None,
    tied: true,
    context: 131_072,
    rope_base: 500_000.0,
    epsilon: 1e-5,
};

const QWEN3_600M: Shape = Shape {
    name: "qwen3-0.6b",
    architecture: "qwen3",
    vocabulary: 151_936,
    width: 1024,
    layers: 28,
    heads: 16,
    kv_heads: 8,
    head_size: 128,
    inner: 3072,
    experts: None,
    recurrent: None,
    tied: true,
    context: 40_960,
    rope_base: 1_000_000.0,
    epsilon: 1e-6,
};

const QWEN3_30B_A3B: Shape = Shape {
    name: "qwen3-30b-a3b",
    architecture: "qwen3moe",
    width: 2048,
    layers: 48,
    heads: 32,
    kv_heads: 4,
    inner: 768,
    experts: Some(Experts { count: 128, used: 8 }),
    tied: false,
    ..QWEN3_600M
};

/// The shapes that can be asked for.
pub const SHAPES: [Shape; 8] = [
    Shape {
        name: "llama-260k",
        vocabulary: 512,
        width: 64,
        layers: 5,
        heads: 8,
        kv_heads: 4,
        head_size: 8,
        inner: 172,
        context: 2048,
        rope_base: 10_000.0,
        ..LLAMA_1B
    },
    LLAMA_1B,
    QWEN3_600M,
    Shape { name: "llama-8b", width: 4096, layers: 32, head_size: 128, inner: 14_336, tied: false, ..LLAMA_1B },
    QWEN3_30B_A3B,
    Shape {
        name: "qwen3.5-0.8b-like",
        architecture: "qwen35",
        vocabulary: 248_320,
        layers: 24,
        heads: 8,
        kv_heads: 2,
        head_size: 256,
        inner: 3584,
        recurrent: Some(Recurrent { heads: 16, head_size: 128, kernel: 4 }),
        context: 262_144,
        rope_base: 10_000_000.0,
        ..QWEN3_600M
    },
    // A twelfth of it, for machines that have no room for all.
    Shape { name: "qwen3-30b-a3b-cut", layers: 4, vocabulary: 12_662, ..QWEN3_30B_A3B },
    Shape {
        name: "gpt-oss-20b",
        architecture: "gpt-oss",
        vocabulary: 201_088,
        width: 2880,
        layers: 24,
        heads: 64,
        kv_heads: 8,
        head_size: 64,
        inner: 2880,
        experts: Some(Experts { count: 32, used: 4 }),
        recurrent: None,
        tied: false,
        context: 131_072,
        rope_base: 150_000.0,
        epsilon: 1e-5,
    },
];

/// What is in a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Contents {
    /// Random numbers, quantized.
    Matrix {
        /// Whether mixes keep it in a better type.
        matters: bool,
    },
    /// Random numbers in F32.
    Router,
    /// One number over and over, in F32.
    Constant(f32),
}

/// A tensor of a model.
#[derive(Debug)]
pub struct Tensor {
    pub name: String,
    /// Fastest dimension first.
    pub shape: Vec<u64>,
    pub contents: Contents,
}

impl Shape {
    /// What the metadata say about the sizes.
    pub fn write_metadata(&self, writer: &mut GgufWriter) -> kiln::Result<()> {
        let mut set = |key: &str, value: u32| writer.set(&format!("{}.{key}", self.architecture), value);
        set("block_count", self.layers)?;
        set("context_length", self.context)?;
        set("embedding_length", self.width)?;
        set("feed_forward_length", self.inner)?;
        set("vocab_size", self.vocabulary)?;
        set("attention.head_count", self.heads)?;
        set("attention.head_count_kv", self.kv_heads)?;
        set("attention.key_length", self.head_size)?;
        set("attention.value_length", self.head_size)?;
        let rotated = if self.recurrent.is_some() { self.head_size / 4 } else { self.head_size };
        set("rope.dimension_count", rotated)?;
        if let Some(Recurrent { heads, head_size, kernel }) = &self.recurrent {
            set("ssm.conv_kernel", *kernel)?;
            set("ssm.inner_size", heads * head_size)?;
            set("ssm.state_size", *head_size)?;
            set("ssm.time_step_rank", *heads)?;
            set("ssm.group_count", *heads)?;
            let third = rotated / 2 / 3;
            let sections = vec![rotated / 2 - 2 * third, third, third, 0];
            writer.set(&format!("{}.rope.dimension_sections", self.architecture), sections)?;
        }
        let mut set = |key: &str, value: u32| writer.set(&format!("{}.{key}", self.architecture), value);
        if let Some(experts) = &self.experts {
            set("expert_count", experts.count)?;
            set("expert_used_count", experts.used)?;
            set("expert_feed_forward_length", self.inner)?;
        }
        if self.is_gpt_oss() {
            set("attention.sliding_window", 128)?;
            set("rope.scaling.original_context_length", 4096)?;
            writer.set("gpt-oss.rope.scaling.type", "yarn")?;
            writer.set("gpt-oss.rope.scaling.factor", 32.0f32)?;
        }
        writer.set(&format!("{}.attention.layer_norm_rms_epsilon", self.architecture), self.epsilon)?;
        writer.set(&format!("{}.rope.freq_base", self.architecture), self.rope_base)
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> Vec<Tensor> {
        let (width, vocabulary) = (self.width, self.vocabulary);
        let mut tensors = vec![
            matrix("token_embd.weight", &[width, vocabulary], self.tied),
            constant("output_norm.weight", &[width], 1.0),
        ];
        if !self.tied {
            tensors.push(matrix("output.weight", &[width, vocabulary], true));
        }
        for layer in 0..self.layers {
            let mixer = match &self.recurrent {
                Some(recurrent) if layer % 4 != 3 => self.recurrence(recurrent, layer),
                _ => self.attention(layer),
            };
            let parts = mixer.into_iter().chain(self.feed_forward(layer));
            tensors.extend(parts.map(|tensor| Tensor { name: format!("blk.{layer}.{}", tensor.name), ..tensor }));
        }
        tensors
    }

    fn attention(&self, layer: u32) -> Vec<Tensor> {
        let (width, queries, keys) = (self.width, self.heads * self.head_size, self.kv_heads * self.head_size);
        let mut tensors = vec![
            constant("attn_norm.weight", &[width], 1.0),
            matrix("attn_q.weight", &[width, if self.recurrent.is_some() { 2 * queries } else { queries }], false),
            matrix("attn_k.weight", &[width, keys], false),
            matrix("attn_v.weight", &[width, keys], self.layer_matters(layer)),
            matrix("attn_output.weight", &[queries, width], false),
        ];
        if self.architecture.starts_with("qwen3") {
            tensors.push(constant("attn_q_norm.weight", &[self.head_size], 1.0));
            tensors.push(constant("attn_k_norm.weight", &[self.head_size], 1.0));
        }
        if self.is_gpt_oss() {
            tensors.push(constant("attn_sinks.weight", &[self.heads], 0.0));
            for (name, size) in [("attn_q", queries), ("attn_k", keys), ("attn_v", keys), ("attn_output", width)] {
                tensors.push(constant(&format!("{name}.bias"), &[size], 0.0));
            }
        }
        tensors
    }

    fn recurrence(&self, &Recurrent { heads, head_size, kernel }: &Recurrent, layer: u32) -> Vec<Tensor> {
        let (width, inner) = (self.width, heads * head_size);
        let exact = |name: &str, shape: &[u32]| Tensor { contents: Contents::Router, ..matrix(name, shape, false) };
        vec![
            constant("attn_norm.weight", &[width], 1.0),
            matrix("attn_qkv.weight", &[width, 3 * inner], self.layer_matters(layer)),
            matrix("attn_gate.weight", &[width, inner], false),
            exact("ssm_alpha.weight", &[width, heads]),
            exact("ssm_beta.weight", &[width, heads]),
            constant("ssm_conv1d.weight", &[kernel, 3 * inner], 0.5),
            constant("ssm_dt.bias", &[heads], 0.0),
            constant("ssm_a", &[heads], -0.1),
            constant("ssm_norm.weight", &[head_size], 1.0),
            matrix("ssm_out.weight", &[inner, width], false),
        ]
    }

    fn feed_forward(&self, layer: u32) -> Vec<Tensor> {
        let (width, inner, matters) = (self.width, self.inner, self.layer_matters(layer));
        let norm = if self.is_gpt_oss() || self.recurrent.is_some() {
            "post_attention_norm.weight"
        } else {
            "ffn_norm.weight"
        };
        let norm = constant(norm, &[width], 1.0);
        let Some(Experts { count, .. }) = self.experts else {
            return vec![
                norm,
                matrix("ffn_gate.weight", &[width, inner], false),
                matrix("ffn_up.weight", &[width, inner], false),
                matrix("ffn_down.weight", &[inner, width], matters),
            ];
        };
        let mut tensors = vec![
            norm,
            Tensor { contents: Contents::Router, ..matrix("ffn_gate_inp.weight", &[width, count], false) },
            matrix("ffn_gate_exps.weight", &[width, inner, count], false),
            matrix("ffn_up_exps.weight", &[width, inner, count], false),
            matrix("ffn_down_exps.weight", &[inner, width, count], matters),
        ];
        if self.is_gpt_oss() {
            tensors.push(constant("ffn_gate_inp.bias", &[count], 0.0));
            tensors.push(constant("ffn_gate_exps.bias", &[inner, count], 0.0));
            tensors.push(constant("ffn_up_exps.bias", &[inner, count], 0.0));
            tensors.push(constant("ffn_down_exps.bias", &[width, count], 0.0));
        }
        tensors
    }

    fn is_gpt_oss(&self) -> bool {
        self.architecture == "gpt-oss"
    }

    /// Whether mixes keep values and down projections of a layer in a better type: in the first and last eighth, and in
    /// every third layer between.
    fn layer_matters(&self, layer: u32) -> bool {
        let eighth = self.layers / 8;
        layer < eighth || layer >= 7 * self.layers / 8 || (layer - eighth) % 3 == 2
    }
}

fn matrix(name: &str, shape: &[u32], matters: bool) -> Tensor {
    let shape = shape.iter().map(|&size| u64::from(size)).collect();
    Tensor { name: name.into(), shape, contents: Contents::Matrix { matters } }
}

fn constant(name: &str, shape: &[u32], value: f32) -> Tensor {
    Tensor { contents: Contents::Constant(value), ..matrix(name, shape, false) }
}
