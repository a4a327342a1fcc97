//! Tiny models with recurrent layers.

use super::{Sizes, Tiny};

/// The families.
pub const RECURRENT: [&str; 5] = ["mamba2", "granitehybrid", "qwen3next", "qwen35", "qwen35moe"];

/// The sizes of a family's plain model. Layers without heads of keys are recurrent, where the file says so in this way.
pub fn sizes(architecture: &str) -> Sizes {
    match architecture {
        "mamba2" => Sizes { heads: vec![0; 3], kv_heads: vec![0; 3], inner: vec![0; 3], ..Sizes::new(3) },
        "granitehybrid" => Sizes { kv_heads: vec![0, 0, 2, 0], ..Sizes::new(4) },
        _ => Sizes::new(5),
    }
}

/// How the heads of recurrent layers are cut.
struct Heads {
    heads: usize,
    key_heads: usize,
    key_size: usize,
    value_size: usize,
}

impl Tiny {
    fn is_mamba(&self) -> bool {
        ["mamba2", "granitehybrid"].contains(&self.architecture.as_str())
    }

    fn heads(&self) -> Heads {
        match self.is_mamba() {
            true => Heads { heads: self.sizes.width / 16, key_heads: 2, key_size: 16, value_size: 32 },
            false => {
                let size = self.sizes.head_size;
                Heads { heads: 4, key_heads: 2, key_size: size, value_size: size }
            }
        }
    }

    /// What files of these families say.
    pub(super) fn recurrent(self) -> Self {
        let Heads { heads, key_heads, key_size, value_size } = self.heads();
        let (width, architecture) = (self.sizes.width, self.architecture.clone());
        let tiny = self
            .set("ssm.conv_kernel", 4)
            .set("ssm.inner_size", (heads * value_size) as u32)
            .set("ssm.state_size", key_size as u32)
            .set("ssm.time_step_rank", heads as u32)
            .set("ssm.group_count", key_heads as u32);
        let rotated = tiny.sizes.head_size as u32 / 2;
        let tiny = match architecture.as_str() {
            "mamba2" => tiny.unset(&["attention.key_length", "attention.value_length"]),
            "granitehybrid" => tiny
                .set("embedding_scale", 1.5f32)
                .set("residual_scale", 0.7f32)
                .set("attention.scale", 0.3f32)
                .set("logit_scale", 0.8f32),
            "qwen3next" => tiny.set("rope.dimension_count", rotated),
            _ => tiny.set("rope.dimension_count", rotated).set("rope.dimension_sections", vec![3u32, 3, 2, 0]),
        };
        let tiny = tiny.add("token_embd.weight", &[width, Sizes::VOCABULARY]).add("output_norm.weight", &[width]);
        let tiny = tiny.add("output.weight", &[width, Sizes::VOCABULARY]);
        let tiny = (0..tiny.layers()).fold(tiny, Tiny::recurrent_layer);
        match architecture.as_str() {
            "qwen3next" | "qwen35moe" => tiny.experts(0),
            _ => tiny,
        }
    }

    fn recurrent_layer(self, layer: usize) -> Self {
        let Heads { heads, key_heads, key_size, value_size } = self.heads();
        let (width, inner, is_mamba) = (self.sizes.width, self.sizes.inner[layer], self.is_mamba());
        let (keys, values) = (key_heads * key_size, heads * value_size);
        let mut parts: Vec<(&str, Vec<usize>)> = vec![("attn_norm.weight", vec![width])];
        let is_recurrent = match self.architecture.as_str() {
            "mamba2" => true,
            "granitehybrid" => self.sizes.kv_heads[layer] == 0,
            _ => layer % 4 != 3,
        };
        if is_recurrent {
            parts.push(("ssm_conv1d.weight", vec![4, 2 * keys + values]));
            parts.push(("ssm_dt.bias", vec![heads]));
            parts.push(("ssm_out.weight", vec![values, width]));
        }
        if is_recurrent && is_mamba {
            parts.push(("ssm_in.weight", vec![width, 2 * values + 2 * keys + heads]));
            parts.push(("ssm_conv1d.bias", vec![2 * keys + values]));
            parts.push(("ssm_a", vec![1, heads]));
            parts.push(("ssm_d", vec![1, heads]));
            parts.push(("ssm_norm.weight", vec![values / key_heads, key_heads]));
        } else if is_recurrent {
            parts.push(("attn_qkv.weight", vec![width, 2 * keys + values]));
            parts.push(("attn_gate.weight", vec![width, values]));
            parts.push(("ssm_a", vec![heads]));
            parts.push(("ssm_norm.weight", vec![value_size]));
            match self.architecture.as_str() {
                "qwen3next" => parts.push(("ssm_ba.weight", vec![width, 2 * heads])),
                _ => parts.extend([("ssm_alpha.weight", vec![width, heads]), ("ssm_beta.weight", vec![width, heads])]),
            }
        } else {
            let size = self.sizes.head_size;
            let (queries, keys) = (self.sizes.heads[layer] * size, self.sizes.kv_heads[layer] * size);
            parts.push(("attn_q.weight", vec![width, if is_mamba { queries } else { 2 * queries }]));
            parts.push(("attn_k.weight", vec![width, keys]));
            parts.push(("attn_v.weight", vec![width, keys]));
            parts.push(("attn_output.weight", vec![queries, width]));
            if !is_mamba {
                parts.push(("attn_q_norm.weight", vec![size]));
                parts.push(("attn_k_norm.weight", vec![size]));
            }
        }
        if self.architecture != "mamba2" {
            let norm = if is_mamba { "ffn_norm.weight" } else { "post_attention_norm.weight" };
            parts.push((norm, vec![width]));
            parts.push(("ffn_gate.weight", vec![width, inner]));
            parts.push(("ffn_up.weight", vec![width, inner]));
            parts.push(("ffn_down.weight", vec![inner, width]));
        }
        parts.iter().fold(self, |tiny, (name, shape)| tiny.add(&format!("blk.{layer}.{name}"), shape))
    }
}
