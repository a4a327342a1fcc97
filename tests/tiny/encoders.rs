//! Encoders, and decoders that embed: models whose program describes tokens and keeps nothing.

use super::variants::Variant;
use super::{Sizes, Tiny};

/// Families that can do nothing else, and are laid out unlike decoders.
pub const ENCODERS: [&str; 5] = ["bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "modern-bert"];
/// Experts of the one that has them.
const EXPERTS: usize = 8;

impl Tiny {
    /// The tensors and keys of an encoder, of whose heads each has keys and values of its own.
    pub(super) fn encoder(mut self) -> Self {
        self.sizes.kv_heads = self.sizes.heads.clone();
        self.sizes.width = self.sizes.heads[0] * self.sizes.head_size;
        let Sizes { width, .. } = self.sizes;
        let architecture = self.architecture.clone();
        let is_modern = architecture == "modern-bert";
        let mut tiny = self
            .unset(&["attention.layer_norm_rms_epsilon", "attention.head_count_kv", "embedding_length"])
            .set("embedding_length", width as u32)
            .set("attention.layer_norm_epsilon", 0.01f32)
            .set("attention.causal", false)
            .add("token_embd.weight", &[width, Sizes::VOCABULARY])
            .add("token_embd_norm.weight", &[width]);
        if is_modern {
            tiny = tiny
                .set("attention.sliding_window", 8)
                .set("rope.freq_base", 500f32)
                .add("output_norm.weight", &[width]);
        } else {
            tiny = tiny.set("tokenizer.ggml.token_type_count", 2).add("token_types.weight", &[width, 2]);
            tiny = tiny.add("token_embd_norm.bias", &[width]);
        }
        if architecture == "bert" {
            tiny = tiny.add("position_embd.weight", &[width, 256]);
        }
        if architecture == "nomic-bert-moe" {
            tiny = tiny.set("moe_every_n_layers", 2).set("expert_count", EXPERTS as u32).set("expert_used_count", 3);
        }
        for layer in 0..tiny.layers() {
            let inner = tiny.sizes.inner[layer];
            let has_experts = architecture == "nomic-bert-moe" && layer % 2 == 1;
            let mut parts: Vec<(&str, Vec<usize>)> = vec![("attn_output.weight", vec![width, width])];
            parts.extend((!has_experts).then(|| ("ffn_down.weight", vec![inner, width])));
            match &architecture[..] {
                "nomic-bert" | "nomic-bert-moe" | "modern-bert" => {
                    parts.push(("attn_qkv.weight", vec![width, 3 * width]))
                }
                _ => {
                    for name in ["attn_q", "attn_k", "attn_v"] {
                        parts.push((Box::leak(format!("{name}.weight").into_boxed_str()), vec![width, width]));
                        parts.push((Box::leak(format!("{name}.bias").into_boxed_str()), vec![width]));
                    }
                    parts.push(("attn_output.bias", vec![width]));
                    parts.push(("ffn_down.bias", vec![width]));
                }
            }
            match &architecture[..] {
                "modern-bert" => parts.push(("ffn_up.weight", vec![width, 2 * inner])),
                "nomic-bert-moe" if has_experts => parts.extend([
                    ("ffn_gate_inp.weight", vec![width, EXPERTS]),
                    ("ffn_up_exps.weight", vec![width, inner, EXPERTS]),
                    ("ffn_down_exps.weight", vec![inner, width, EXPERTS]),
                ]),
                "bert" | "nomic-bert-moe" => {
                    parts.extend([("ffn_up.weight", vec![width, inner]), ("ffn_up.bias", vec![inner])])
                }
                _ => parts.extend([("ffn_up.weight", vec![width, inner]), ("ffn_gate.weight", vec![width, inner])]),
            }
            if is_modern {
                parts.push(("ffn_norm.weight", vec![width]));
                parts.extend((layer > 0).then(|| ("attn_norm.weight", vec![width])));
            } else {
                for name in [
                    "attn_output_norm.weight",
                    "attn_output_norm.bias",
                    "layer_output_norm.weight",
                    "layer_output_norm.bias",
                ] {
                    parts.push((name, vec![width]));
                }
            }
            tiny = parts.iter().fold(tiny, |tiny, (name, shape)| tiny.add(&format!("blk.{layer}.{name}"), shape));
        }
        tiny
    }
}

/// The variants of encoders, and of decoders that embed.
pub fn all() -> Vec<Variant> {
    let mut variants = vec![];
    let mut add = |name: &str, tiny: Tiny| {
        let name = format!("{}-{name}", tiny.architecture);
        variants.push(Variant { name, tiny });
    };
    for family in ENCODERS {
        add("plain", Tiny::new(family));
    }
    let mut fused = Tiny::new("bert").fuse_query_key_value().add_to_layers("attn_qkv.bias", &[384]);
    for layer in 0..2 {
        let part = |tiny: Tiny, part| tiny.remove(&format!("blk.{layer}.attn_{part}.bias"));
        fused = ["q", "k", "v"].into_iter().fold(fused, part);
    }
    add("fused", fused);
    add("fast", Tiny::new("nomic-bert").set("rope.freq_base", 100f32));
    add("scaled", Tiny::new("nomic-bert").set("rope.scaling.factor", 4f32));
    let mixture = || Tiny::with_sizes("nomic-bert-moe", Sizes::new(5));
    add("deep", mixture());
    let biases = mixture().add_to_layers("attn_qkv.bias", &[384]).add_to_layers("attn_output.bias", &[128]);
    add("biases", biases.set("expert_used_count", 1));
    let jina = || Tiny::new("jina-bert-v2");
    add("six-heads", Tiny::with_sizes("jina-bert-v2", Sizes { heads: vec![6; 2], head_size: 24, ..Sizes::new(2) }));
    let mut fused = jina();
    for layer in 0..2 {
        fused = fused.remove(&format!("blk.{layer}.ffn_gate.weight"));
    }
    add("code", fused.clone().add_to_layers("ffn_up.bias", &[96]));
    add("fused", fused.add_to_layers("ffn_up.weight", &[128, 192]));
    let norms = jina().add_to_layers("attn_q_norm.weight", &[128]).add_to_layers("attn_q_norm.bias", &[128]);
    let norms = norms.add_to_layers("attn_k_norm.weight", &[128]).add_to_layers("attn_k_norm.bias", &[128]);
    add("norms", norms.add_to_layers("attn_norm_2.weight", &[128]).add_to_layers("attn_norm_2.bias", &[128]));
    let modern = || Tiny::with_sizes("modern-bert", Sizes::new(5));
    add("deep", modern());
    add("silu", modern().set("hidden_activation", "silu"));
    add("no-window", modern().unset(&["attention.sliding_window"]));
    add("odd-window", modern().set("attention.sliding_window", 5).set("rope.freq_base_swa", 50f32));
    add("pattern", modern().set("attention.sliding_window_pattern", 2));
    add("plain", Tiny::new("gemma-embedding"));
    add("odd-window", Tiny::new("gemma-embedding").set("attention.sliding_window", 5));
    // A decoder that embeds has no use for logits.
    let decoder = |name: &str| Tiny::new(name).set("pooling_type", 3).remove("output.weight");
    add("embedding", decoder("qwen3"));
    add("embedding", decoder("llama"));
    add("embedding", Tiny::new("gemma2").set("pooling_type", 1));
    variants
}
