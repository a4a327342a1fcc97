//! The variants of every family that change the program: what files have and leave out.

use super::{Sizes, Tiny, random};

/// The context that programs are made for.
pub const CONTEXT: usize = 256;

/// A model.
pub struct Variant {
    /// The family, and what is special.
    pub name: String,
    pub tiny: Tiny,
}

/// All variants of all families.
pub fn all() -> Vec<Variant> {
    let mut variants = vec![];
    let families = [
        llama,
        rope,
        qwen,
        gemma,
        gemma2,
        gemma3,
        gemma4,
        phi3,
        granite,
        others,
        olmo2,
        cohere,
        without_gate,
        layer_norms,
        likes_of_llama,
        experts,
        llama4,
        gpt_oss,
        deepseek,
        more_experts,
        lfm2,
        recurrent,
    ];
    for family in families {
        let mut add = |name: &str, tiny: Tiny| {
            let name = format!("{}-{name}", tiny.architecture);
            variants.push(Variant { name, tiny });
        };
        family(&mut add);
    }
    variants
}

/// Models that differ from the plain ones in everything that may differ, at random.
pub fn mixed(count: usize) -> impl Iterator<Item = Variant> {
    let families: Vec<&str> = kiln::model::architectures()
        .filter(|name| {
            !["mistral", "gemma4", "gemma-embedding"].contains(name)
                && !super::encoders::ENCODERS.contains(name)
                && !super::recurrent::RECURRENT.contains(name)
        })
        .collect();
    (0..count).map(move |number| {
        let family = families[number % families.len()];
        let name = format!("{family}-mixed-{number}");
        let dice = random(&name, 64).map(|value| ((value + 1.0) * 500.0) as usize);
        Variant { tiny: mix(family, dice), name }
    })
}

fn mix(family: &str, mut dice: impl Iterator<Item = usize>) -> Tiny {
    let mut pick = |from: &[usize]| from[dice.next().unwrap() % from.len()];
    // The reference cannot do without a layer of Llama 4 that sees everything, each fourth.
    let layers = if family == "llama4" { pick(&[5, 7]) } else { pick(&[1, 2, 3, 5, 7]) };
    let (head_size, kv_heads) = (pick(&[8, 16, 24, 32, 64]), pick(&[1, 2, 3]));
    let heads = kv_heads * pick(&[1, 2, 4]);
    let width_is_heads = WIDTH_IS_HEADS.contains(&family);
    let sizes = Sizes {
        width: if width_is_heads { heads * head_size } else { pick(&[64, 72, 104, 128]) },
        heads: vec![heads; layers],
        kv_heads: vec![kv_heads; layers],
        head_size,
        inner: vec![pick(&[32, 40, 88]); layers],
    };
    let tiny = mix_rope(Tiny::with_sizes(family, sizes.clone()), head_size, &mut pick);
    let tiny = match family {
        "gemma2" | "gemma3" | "olmo2" | "cohere2" | "gpt-oss" => mix_windows(tiny, &mut pick),
        "gemma" | "command-r" | "bitnet" | "lfm2" | "lfm2moe" => tiny,
        // To the reference chunks have 8192 positions, whatever the file says.
        "llama4" => tiny.unset(&["attention.sliding_window"]),
        "deepseek2" => return tiny.set("expert_group_count", pick(&[0, 2, 4]) as u32),
        family if UNTIED.contains(&family) => tiny,
        _ if pick(&[0, 1]) == 1 => tiny.remove("output.weight"),
        _ => tiny,
    };
    // To the reference the epsilon of this one is 0, whatever the file says.
    let tiny = if family == "qwen2vl" { tiny.set("attention.layer_norm_rms_epsilon", 0f32) } else { tiny };
    mix_query_key_value(tiny, &sizes, &mut pick)
}

/// To the reference, heads make up the width of these.
const WIDTH_IS_HEADS: [&str; 19] = [
    "phimoe",
    "qwen2moe",
    "olmoe",
    "bailingmoe2",
    "qwen2",
    "phi3",
    "olmo2",
    "bitnet",
    "cohere2",
    "command-r",
    "exaone4",
    "falcon",
    "gptneox",
    "internlm2",
    "nemotron",
    "phi2",
    "qwen2vl",
    "stablelm",
    "starcoder2",
];
/// Of these it wants a matrix for logits of their own.
const UNTIED: [&str; 10] = [
    "phimoe",
    "qwen2moe",
    "olmoe",
    "minimax-m2",
    "bailingmoe2",
    "gptneox",
    "internlm2",
    "nemotron",
    "phi2",
    "stablelm",
];
/// These rotate parts of heads.
const PARTIAL: [&str; 12] = [
    "glm4moe",
    "minimax-m2",
    "phi3",
    "glm4",
    "gemma2",
    "gemma3",
    "cohere2",
    "command-r",
    "gptneox",
    "nemotron",
    "phi2",
    "stablelm",
];

type Pick<'a> = &'a mut dyn FnMut(&[usize]) -> usize;

fn mix_rope(tiny: Tiny, head_size: usize, pick: Pick) -> Tiny {
    let tiny = tiny.set("rope.freq_base", pick(&[100, 10_000, 1_000_000]) as f32);
    let tiny = match pick(&[0, 1, 2, 3]) {
        0 => tiny,
        1 => tiny.set("rope.scaling.factor", pick(&[2, 3, 8]) as f32),
        _ => {
            let tiny = tiny.set("rope.scaling.type", "yarn").set("rope.scaling.factor", pick(&[2, 5, 32]) as f32);
            tiny.set("rope.scaling.original_context_length", pick(&[8, 32, 200]) as u32)
        }
    };
    let partial = PARTIAL.contains(&tiny.architecture.as_str());
    match partial && pick(&[0, 1]) == 1 {
        true => tiny.set("rope.dimension_count", head_size as u32 / 2),
        false => tiny,
    }
}

fn mix_windows(tiny: Tiny, pick: Pick) -> Tiny {
    // The reference wants one layer at least without a window, if there are windows.
    let global = pick(&[0, 1, 2, 3, 4, 5, 6]) % tiny.layers();
    let windows: Vec<bool> = (0..tiny.layers()).map(|layer| layer != global && pick(&[0, 1, 2]) > 0).collect();
    if !windows.contains(&true) {
        return tiny.set("attention.sliding_window", 100);
    }
    let tiny = tiny.set("attention.sliding_window", pick(&[1, 2, 5, 11]) as u32);
    tiny.set("attention.sliding_window_pattern", windows)
}

fn mix_query_key_value(tiny: Tiny, sizes: &Sizes, pick: Pick) -> Tiny {
    let (queries, keys) = (sizes.heads[0] * sizes.head_size, sizes.kv_heads[0] * sizes.head_size);
    let (fuse, bias) = (pick(&[0, 1]) == 1, pick(&[0, 1]) == 1);
    let tiny = match tiny.architecture.as_str() {
        "qwen2" | "qwen2moe" | "gpt-oss" | "qwen2vl" | "starcoder2" | "phi2" | "seed_oss" | "bitnet" | "falcon"
        | "gptneox" | "glm4moe" | "olmoe" | "minimax-m2" | "phimoe" => return tiny,
        "phi3" | "bailingmoe2" => tiny,
        _ if fuse => tiny.fuse_query_key_value(),
        _ => tiny,
    };
    match bias {
        false => tiny,
        true if fuse || ["phi3", "bailingmoe2"].contains(&&*tiny.architecture) => {
            tiny.add_to_layers("attn_qkv.bias", &[queries + 2 * keys])
        }
        true => {
            let tiny = tiny.add_to_layers("attn_q.bias", &[queries]);
            tiny.add_to_layers("attn_k.bias", &[keys]).add_to_layers("attn_v.bias", &[keys])
        }
    }
}

type Add<'a> = &'a mut dyn FnMut(&str, Tiny);

const HEAD_KEYS: [&str; 2] = ["attention.key_length", "attention.value_length"];

fn llama(add: Add) {
    let plain = || Tiny::new("llama");
    let biases = |tiny: Tiny| {
        let tiny = tiny.add_to_layers("attn_output.bias", &[128]).add_to_layers("ffn_down.bias", &[128]);
        tiny.add_to_layers("ffn_gate.bias", &[96]).add_to_layers("ffn_up.bias", &[96])
    };
    add("plain", plain());
    add("defaults", plain().unset(&HEAD_KEYS));
    add(
        "one-head-count",
        Tiny::with_sizes("llama", Sizes { kv_heads: vec![4; 2], ..Sizes::new(2) }).unset(&["attention.head_count_kv"]),
    );
    add("array-keys", plain().set("attention.head_count", vec![4u32; 2]).set("feed_forward_length", vec![96u32; 2]));
    add("fused", plain().fuse_query_key_value());
    add("fused-biases", biases(plain()).fuse_query_key_value().add_to_layers("attn_qkv.bias", &[256]));
    let separate = biases(plain()).add_to_layers("attn_q.bias", &[128]);
    add("biases", separate.add_to_layers("attn_k.bias", &[64]).add_to_layers("attn_v.bias", &[64]));
    add("tied", plain().remove("output.weight"));
    add("odd-heads", Tiny::with_sizes("llama", Sizes::odd_heads(2)));
    let narrow = plain().set("attention.value_length", 16).add_to_layers("attn_v.weight", &[128, 32]);
    add("narrow-values", narrow.add_to_layers("attn_output.weight", &[64, 128]));
    add("attention-scale", plain().set("attention.scale", 0.5f32));
    let uneven = Sizes { heads: vec![4, 2, 6], kv_heads: vec![2, 1, 2], inner: vec![96, 32, 64], ..Sizes::new(3) };
    add("uneven-layers", Tiny::with_sizes("llama", uneven));
    add("plain", Tiny::new("mistral"));
}

/// Everything that `rope.*` can say, on llama.
fn rope(add: Add) {
    let plain = || Tiny::new("llama");
    let yarn = || plain().set("rope.scaling.type", "yarn").set("rope.scaling.factor", 4f32);
    add("base", plain().set("rope.freq_base", 500_000f32));
    add("freqs", plain().add("rope_freqs.weight", &[16]));
    add("linear", plain().set("rope.scaling.type", "linear").set("rope.scaling.factor", 4f32));
    add("untyped-factor", plain().set("rope.scaling.factor", 4f32));
    add("old-factor", plain().set("rope.scale_linear", 4f32));
    add("no-scaling", plain().set("rope.scaling.type", "none").set("rope.scaling.factor", 4f32));
    add("freqs-linear", plain().add("rope_freqs.weight", &[16]).set("rope.scaling.factor", 4f32));
    add("yarn", yarn().set("rope.scaling.original_context_length", 16));
    add("yarn-context", yarn());
    add("yarn-no-original", yarn().set("rope.scaling.original_context_length", 0));
    add("yarn-attention", yarn().set("rope.scaling.attn_factor", 0.8f32));
    add("yarn-shrinking", yarn().set("rope.scaling.factor", 0.5f32));
    add("yarn-no-factor", yarn().unset(&["rope.scaling.factor"]));
    let tables = |tiny: Tiny| {
        let tiny = tiny.add("rope_factors_long.weight", &[16]).add("rope_factors_short.weight", &[16]);
        tiny.set("rope.scaling.type", "longrope").set("rope.scaling.original_context_length", 64)
    };
    add("longrope", tables(plain()).set("rope.scaling.attn_factor", 1.2f32));
    add("longrope-short", tables(plain()).set("rope.scaling.original_context_length", CONTEXT as u32));
    add("longrope-factor", tables(plain()).set("rope.scaling.factor", 4f32));
}

fn qwen(add: Add) {
    add("plain", Tiny::new("qwen2"));
    add("tied", Tiny::new("qwen2").remove("output.weight"));
    add("defaults", Tiny::new("qwen2").unset(&HEAD_KEYS));
    add("output-bias", Tiny::new("qwen2").add("output.bias", &[Sizes::VOCABULARY]));
    let yarn = Tiny::new("qwen2").set("rope.scaling.type", "yarn").set("rope.scaling.factor", 4f32);
    add("yarn", yarn.set("rope.scaling.original_context_length", 32).set("rope.freq_base", 1e6f32));
    add("plain", Tiny::new("qwen3"));
    add("tied", Tiny::new("qwen3").remove("output.weight"));
    add("defaults", Tiny::with_sizes("qwen3", Sizes::new(2)).unset(&HEAD_KEYS));
    let yarn = Tiny::new("qwen3").set("rope.scaling.type", "yarn").set("rope.scaling.factor", 4f32);
    add("yarn", yarn.set("rope.scaling.original_context_length", 32));
}

/// What files with experts may say, mostly in the words of llama's.
fn experts(add: Add) {
    let plain = || Tiny::new("llama").experts(0);
    let biases = |tiny: Tiny, rows| tiny.add_to_layers("ffn_down_exps.bias", &[128, 8]).add_to_layers(rows, &[32, 8]);
    add("experts", plain());
    add("experts-all-used", plain().set("expert_used_count", 8));
    add("experts-one", plain().set("expert_used_count", 1));
    add("experts-biases", biases(plain(), "ffn_up_exps.bias").add_to_layers("ffn_gate_inp.bias", &[8]));
    add("experts-scale", plain().set("expert_weights_scale", 1.5f32));
    add("experts-sigmoid", plain().set("expert_gating_func", 2));
    add("experts-softmax-of-chosen", plain().set("expert_gating_func", 3));
    add("experts-root-softplus", plain().set("expert_gating_func", 4));
    add("experts-bias-of-choice", plain().add_to_layers("exp_probs_b.bias", &[8]));
    add("experts-groups", plain().set("expert_group_count", 4).set("expert_group_used_count", 2));
    let mut merged = plain();
    for layer in 0..2 {
        merged = merged.remove(&format!("blk.{layer}.ffn_gate_exps.weight"));
        merged = merged.remove(&format!("blk.{layer}.ffn_up_exps.weight"));
    }
    add("experts-merged", merged.add_to_layers("ffn_gate_up_exps.weight", &[128, 64, 8]));
    add("plain", Tiny::new("qwen2moe"));
    add(
        "own-sizes",
        Tiny::new("qwen2moe").set("feed_forward_length", 48).unset(&["expert_shared_feed_forward_length"]),
    );
    add("plain", Tiny::new("qwen3moe"));
    add("tied", Tiny::new("qwen3moe").remove("output.weight"));
    let shared_out = Tiny::new("qwen3moe").set("feed_forward_length", 96).unset(&["expert_feed_forward_length"]);
    add("own-sizes", shared_out);
}

fn llama4(add: Add) {
    let plain = || Tiny::new("llama4");
    add("plain", plain());
    add("one-chunk", plain().unset(&["attention.sliding_window"]));
    add("no-chunks", plain().set("attention.sliding_window", 0));
    // So many experts mean the model without norms of queries and keys.
    let many = plain().unset(&["attention.sliding_window"]).set("expert_count", 128);
    let many = [1, 3].into_iter().fold(many, |tiny, layer| {
        let tiny = tiny.add(&format!("blk.{layer}.ffn_gate_inp.weight"), &[128, 128]);
        let matrices = [("gate", [128, 32, 128]), ("up", [128, 32, 128]), ("down", [32, 128, 128])];
        let add = |tiny: Tiny, (part, shape): (&str, [usize; 3])| {
            tiny.add(&format!("blk.{layer}.ffn_{part}_exps.weight"), &shape)
        };
        matrices.into_iter().fold(tiny, add)
    });
    add("128-experts", many);
    // All layers are dense.
    let mut dense = plain().unset(&["expert_count", "interleave_moe_layer_step"]);
    for layer in [1, 3] {
        for part in ["gate_inp", "gate_exps", "up_exps", "down_exps", "gate_shexp", "up_shexp", "down_shexp"] {
            dense = dense.remove(&format!("blk.{layer}.ffn_{part}.weight"));
        }
    }
    let dense = dense.add_to_layers("ffn_gate.weight", &[128, 96]).add_to_layers("ffn_up.weight", &[128, 96]);
    add("dense", dense.add_to_layers("ffn_down.weight", &[96, 128]));
}

fn gpt_oss(add: Add) {
    let plain = || Tiny::new("gpt-oss");
    let yarn = plain().set("rope.scaling.type", "yarn").set("rope.scaling.factor", 8f32);
    add("plain", plain());
    add("yarn", yarn.set("rope.scaling.original_context_length", 32));
    add("window-base", plain().set("rope.freq_base_swa", 500f32));
    let layers = vec![false, true, true, false, true];
    add("pattern-array", plain().set("attention.sliding_window_pattern", layers));
    add("no-window", plain().unset(&["attention.sliding_window"]));
}

fn deepseek(add: Add) {
    let plain = || Tiny::new("deepseek2");
    let lite = || {
        let mut tiny = plain().unset(&["attention.q_lora_rank", "expert_gating_func", "expert_weights_norm"]);
        for layer in 0..2 {
            for part in ["attn_q_a", "attn_q_a_norm", "attn_q_b"] {
                tiny = tiny.remove(&format!("blk.{layer}.{part}.weight"));
            }
        }
        tiny.unset(&["expert_group_count"]).add_to_layers("attn_q.weight", &[128, 128])
    };
    let yarn = |tiny: Tiny| {
        let tiny = tiny.set("rope.scaling.type", "yarn").set("rope.scaling.factor", 8f32);
        tiny.set("rope.scaling.original_context_length", 32)
    };
    add("plain", plain());
    add("tied", plain().remove("output.weight"));
    add("yarn", yarn(plain()));
    add("yarn-multiplier", yarn(plain()).set("rope.scaling.yarn_log_multiplier", 0.1f32));
    add("three-layers", Tiny::with_sizes("deepseek2", Sizes::new(3)));
    // The reference knows it by its layers.
    let mut thin = Tiny::with_sizes("deepseek2", Sizes::thin(27)).unset(&["attention.q_lora_rank"]);
    for layer in 0..27 {
        for part in ["attn_q_a", "attn_q_a_norm", "attn_q_b"] {
            thin = thin.remove(&format!("blk.{layer}.{part}.weight"));
        }
    }
    add("27-layers", thin.add_to_layers("attn_q.weight", &[32, 48]));
    add("lite", lite());
    // Files from before the matrices of keys and values were taken apart.
    let mut old = plain().unset(&["attention.key_length_mla", "attention.value_length_mla"]);
    for layer in 0..2 {
        old = old.remove(&format!("blk.{layer}.attn_k_b.weight")).remove(&format!("blk.{layer}.attn_v_b.weight"));
    }
    let old = old.set("attention.head_count_kv", 4).set("attention.key_length", 32);
    add("old", old.set("attention.value_length", 32).add_to_layers("attn_kv_b.weight", &[32, 4 * (16 + 32)]));
}

fn lfm2(add: Add) {
    add("plain", Tiny::new("lfm2"));
    add("untied", Tiny::new("lfm2").add("output.weight", &[128, Sizes::VOCABULARY]));
    let convolution_last = Sizes { kv_heads: vec![2, 0], ..Sizes::new(2) };
    add("convolution-last", Tiny::with_sizes("lfm2", convolution_last));
    add("plain", Tiny::new("lfm2moe"));
}

fn recurrent(add: Add) {
    for family in super::recurrent::RECURRENT {
        add("plain", Tiny::new(family));
        add("tied", Tiny::new(family).remove("output.weight"));
    }
    let plain = |family| Tiny::new(family);
    add("interval", plain("qwen35").set("full_attention_interval", 4));
    let named = vec![true, true, true, false, true];
    add("named-layers", plain("qwen35").set("attention.recurrent_layers", named).set("full_attention_interval", 2));
    add("experts", plain("granitehybrid").experts(0));
    add("unrotated", plain("granitehybrid").set("rope.scaling.finetuned", false));
    let all = vec![0; 4];
    add("no-attention", Tiny::with_sizes("granitehybrid", Sizes { kv_heads: all, ..Sizes::new(4) }));
    for (name, head_size) in [("wide", 128), ("wider", 256), ("odd", 36)] {
        let sizes = Sizes { head_size, heads: vec![2; 2], kv_heads: vec![1; 2], ..Sizes::new(2) };
        add(name, Tiny::with_sizes("qwen35", sizes.clone()));
        add(name, Tiny::with_sizes("qwen3next", sizes));
    }
    let last = Sizes { kv_heads: vec![0, 2], ..Sizes::new(2) };
    add("attention-last", Tiny::with_sizes("granitehybrid", last));
}

fn more_experts(add: Add) {
    let glm = || Tiny::new("glm4moe");
    add("plain", Tiny::new("olmoe"));
    add("plain", Tiny::new("granitemoe"));
    add("tied", Tiny::new("granitemoe").remove("output.weight"));
    let shared = Tiny::new("granitemoe").set("expert_shared_feed_forward_length", 48);
    let shared = shared.add_to_layers("ffn_gate_shexp.weight", &[128, 48]);
    let shared = shared.add_to_layers("ffn_up_shexp.weight", &[128, 48]);
    add("shared", shared.add_to_layers("ffn_down_shexp.weight", &[48, 128]));
    add("plain", glm());
    add("norms", glm().add_to_layers("attn_q_norm.weight", &[32]).add_to_layers("attn_k_norm.weight", &[32]));
    add("unnamed-gating", glm().unset(&["expert_gating_func"]));
    add("plain-weights", glm().unset(&["expert_weights_norm"]).set("expert_weights_scale", 1.5f32));
    // A layer for predicting several tokens at once, which is no part of the trunk.
    let next = Tiny::with_sizes("glm4moe", Sizes::new(3)).set("nextn_predict_layers", 1);
    let next = next.add("blk.2.nextn.eh_proj.weight", &[256, 128]);
    add("next-layer", next.add("blk.2.nextn.enorm.weight", &[128]).add("blk.2.nextn.hnorm.weight", &[128]));
    add("plain", Tiny::new("ernie4_5-moe"));
    add("tied", Tiny::new("ernie4_5-moe").remove("output.weight"));
    add("plain", Tiny::new("minimax-m2"));
    add("plain", Tiny::new("hunyuan-moe"));
    add("tied", Tiny::new("hunyuan-moe").remove("output.weight"));
    add("plain", Tiny::new("phimoe"));
    let tables = Tiny::new("phimoe").add("rope_factors_long.weight", &[16]).add("rope_factors_short.weight", &[16]);
    add("long", tables.set("rope.scaling.original_context_length", 64).set("rope.scaling.attn_factor", 1.19f32));
    let warm = Tiny::new("deepseek2").set("attention.temperature_scale", 0.4f32);
    add("temperature", warm.set("attention.temperature_length", 8));
    add("plain", Tiny::new("bailingmoe2"));
    let groups = Tiny::new("bailingmoe2").set("expert_group_count", 4).set("expert_group_used_count", 2);
    add("groups", groups.set("expert_weights_scale", 2.5f32));
}

fn gemma(add: Add) {
    add("plain", Tiny::new("gemma"));
    add("defaults", Tiny::with_sizes("gemma", Sizes::new(2)).unset(&HEAD_KEYS));
    add("one-kv-head", Tiny::with_sizes("gemma", Sizes { kv_heads: vec![1; 2], ..Sizes::new(2) }));
    add("linear", Tiny::new("gemma").set("rope.scaling.factor", 2f32));
}

fn gemma2(add: Add) {
    let plain = || Tiny::new("gemma2");
    add("plain", plain());
    add("no-window", plain().unset(&["attention.sliding_window"]));
    add("softcaps", plain().set("attn_logit_softcapping", 3f32).set("final_logit_softcapping", 5f32));
    add("pattern", plain().set("attention.sliding_window_pattern", 3));
    add("pattern-one", plain().set("attention.sliding_window_pattern", 1));
    add("pattern-zero", plain().set("attention.sliding_window_pattern", 0));
    let layers = vec![false, true, true, false, true];
    add("pattern-array", plain().set("attention.sliding_window_pattern", layers));
    add("window-base", plain().set("rope.freq_base_swa", 500f32));
    add("linear", plain().set("rope.scaling.factor", 4f32));
    // The 27B model, by which the reference means one of 46 layers.
    let deep = Tiny::with_sizes("gemma2", Sizes::thin(46)).set("attention.sliding_window", 8);
    add("46-layers", deep);
}

fn gemma3(add: Add) {
    let plain = || Tiny::new("gemma3");
    add("plain", plain());
    add("linear", plain().set("rope.scaling.type", "linear").set("rope.scaling.factor", 8f32));
    add("no-window", plain().unset(&["attention.sliding_window"]).set("rope.scaling.factor", 8f32));
    add("wide-window", plain().set("attention.sliding_window", 100).set("rope.freq_base_swa", 100_000f32));
    add("zero-window", plain().set("attention.sliding_window", 0));
    add("window-base", plain().set("rope.freq_base_swa", 500f32));
    add("pattern", plain().set("attention.sliding_window_pattern", 2));
    add("pattern-zero", plain().set("attention.sliding_window_pattern", 0));
    let layers = vec![false, true, true, false, true, true, false];
    add("pattern-array", plain().set("attention.sliding_window_pattern", layers));
    add("softcap", plain().set("final_logit_softcapping", 5f32));
    add("untied", plain().add("output.weight", &[64, Sizes::VOCABULARY]));
    let yarn = plain().set("rope.scaling.type", "yarn").set("rope.scaling.factor", 8f32);
    add("yarn", yarn.set("rope.scaling.original_context_length", 32).set("rope.scaling.attn_factor", 0.9f32));
    // The 27B model, by which the reference means one of 62 layers.
    add("62-layers", Tiny::with_sizes("gemma3", Sizes::thin(62)));
}

fn gemma4(add: Add) {
    let plain = || Tiny::new("gemma4");
    add("plain", plain());
    add("partial", plain().set("rope.dimension_count_swa", 8).set("rope.freq_base_swa", 500f32));
    add("scaled", plain().add_to_layers("layer_output_scale.weight", &[1]));
    let window = plain().set("attention.sliding_window", 100);
    add("wide-window", window.set("final_logit_softcapping", 5f32));
    // Layers with large heads take keys for values.
    add("keys-as-values", plain().remove("blk.2.attn_v.weight").remove("blk.5.attn_v.weight"));
    // The small models.
    let mut shared = plain().set("attention.shared_kv_layers", 3);
    for part in ["attn_k", "attn_v", "attn_k_norm"] {
        shared = (3..6).fold(shared, |tiny, layer| tiny.remove(&format!("blk.{layer}.{part}.weight")));
    }
    add("shared", shared.clone());
    let inputs = |tiny: Tiny| {
        let tiny = tiny.set("embedding_length_per_layer_input", 12).add("per_layer_proj_norm.weight", &[12]);
        let tiny = tiny.add("per_layer_token_embd.weight", &[72, Sizes::VOCABULARY]);
        let tiny = tiny.add("per_layer_model_proj.weight", &[64, 72]).add_to_layers("inp_gate.weight", &[64, 12]);
        tiny.add_to_layers("proj.weight", &[12, 64]).add_to_layers("post_norm.weight", &[64])
    };
    add("inputs", inputs(plain()));
    let experts = |from: usize| plain().experts(from);
    add("experts", experts(2));
    let alike = (2..6).fold(experts(2), |tiny, layer| tiny.remove(&format!("blk.{layer}.ffn_down_exps.scale")));
    add("experts-alike", alike);
    let apart = |tiny: Tiny, layer: usize| {
        let part = |tiny: Tiny, part: &str| tiny.remove(&format!("blk.{layer}.ffn_{part}_exps.weight"));
        ["gate", "up"].into_iter().fold(tiny, part)
    };
    let merged = (0..6).fold(experts(0), apart).add_to_layers("ffn_gate_up_exps.weight", &[64, 64, 8]);
    add("experts-merged", merged.add_to_layers("layer_output_scale.weight", &[1]));
    add("small", inputs(shared).add_to_layers("layer_output_scale.weight", &[1]));
}

fn phi3(add: Add) {
    let plain = || Tiny::new("phi3");
    let tables = |tiny: Tiny, pairs: usize| {
        let tiny = tiny.add("rope_factors_long.weight", &[pairs]).add("rope_factors_short.weight", &[pairs]);
        tiny.set("rope.scaling.original_context_length", 64).set("rope.scaling.attn_factor", 1.19f32)
    };
    add("plain", plain());
    add("defaults", plain().unset(&HEAD_KEYS));
    add("tied", plain().remove("output.weight"));
    add("long", tables(plain(), 16));
    add("short", tables(plain(), 16).set("rope.scaling.original_context_length", CONTEXT as u32));
    add("long-partial", tables(plain(), 12).set("rope.dimension_count", 24));
    add("long-factor", tables(plain(), 16).set("rope.scaling.type", "longrope").set("rope.scaling.factor", 4f32));
    add("untyped-factor", tables(plain(), 16).set("rope.scaling.factor", 4f32));
    add("ignored-window", plain().set("attention.sliding_window", 4));
    let mut split = plain();
    for layer in 0..2 {
        split = split.remove(&format!("blk.{layer}.attn_qkv.weight"));
    }
    let split = split.add_to_layers("attn_q.weight", &[128, 128]);
    add("split", split.add_to_layers("attn_k.weight", &[128, 64]).add_to_layers("attn_v.weight", &[128, 64]));
}

fn granite(add: Add) {
    let plain = || Tiny::new("granite");
    add("plain", plain());
    add("tied", plain().remove("output.weight"));
    add("logit-scale-only", plain().unset(&["embedding_scale", "residual_scale", "attention.scale"]));
    add("no-rotation", plain().set("rope.scaling.finetuned", false));
    add("rotation", plain().set("rope.scaling.finetuned", true));
    add("freqs", plain().add("rope_freqs.weight", &[16]));
    add("biases", plain().add_to_layers("attn_output.bias", &[128]).add_to_layers("ffn_down.bias", &[128]));
}

fn others(add: Add) {
    add("plain", Tiny::new("smollm3"));
    add("tied", Tiny::new("smollm3").remove("output.weight"));
    add("plain", Tiny::new("glm4"));
    add("defaults", Tiny::new("glm4").unset(&HEAD_KEYS).unset(&["rope.dimension_count"]));
    let biases = Tiny::new("glm4").add_to_layers("attn_q.bias", &[128]);
    add("biases", biases.add_to_layers("attn_k.bias", &[64]).add_to_layers("attn_v.bias", &[64]));
    add("fused", Tiny::new("glm4").fuse_query_key_value());
    add("sections", Tiny::new("glm4").set("rope.dimension_sections", vec![2u32, 3, 3, 0]));
    // A layer for predicting several tokens at once, which is no part of the trunk.
    let next = Tiny::with_sizes("glm4", Sizes::new(3)).set("nextn_predict_layers", 1);
    let next = next.add("blk.2.nextn.eh_proj.weight", &[256, 128]);
    add("next-layer", next.add("blk.2.nextn.enorm.weight", &[128]).add("blk.2.nextn.hnorm.weight", &[128]));
}

fn olmo2(add: Add) {
    let plain = || Tiny::new("olmo2");
    let deep = || Tiny::with_sizes("olmo2", Sizes::new(5)).set("attention.sliding_window", 8);
    let yarn = |tiny: Tiny| {
        let tiny = tiny.set("rope.scaling.type", "yarn").set("rope.scaling.factor", 8f32);
        tiny.set("rope.scaling.original_context_length", 32).set("rope.scaling.attn_factor", 1.2f32)
    };
    add("plain", plain());
    add("defaults", plain().unset(&HEAD_KEYS));
    add("many-kv-heads", Tiny::with_sizes("olmo2", Sizes { kv_heads: vec![4; 2], ..Sizes::new(2) }));
    add("fused", plain().fuse_query_key_value());
    // OLMo 3.
    add("windows", deep());
    add("windows-yarn", yarn(deep()));
    let layers = vec![true, false, true, true, false];
    add("windows-array", yarn(deep()).set("attention.sliding_window_pattern", layers));
    add("windows-base", deep().set("rope.freq_base_swa", 500f32));
}

fn cohere(add: Add) {
    let plain = || Tiny::new("command-r");
    add("plain", plain());
    add("no-scale", plain().unset(&["logit_scale"]));
    add("fused", plain().fuse_query_key_value());
    // The largest model, by which the reference means any of 64 layers or more.
    let tiny = Tiny::with_sizes("command-r", narrow(64)).add_to_layers("attn_q_norm.weight", &[16, 2]);
    add("64-layers", tiny.add_to_layers("attn_k_norm.weight", &[16, 1]));
    let plain = || Tiny::new("cohere2");
    add("plain", plain());
    add("wide-window", plain().set("attention.sliding_window", 100));
    add("pattern", plain().set("attention.sliding_window_pattern", 3));
    let layers = vec![false, true, true, false, true];
    add("pattern-array", plain().set("attention.sliding_window_pattern", layers));
    add("biases", plain().add_to_layers("attn_qkv.bias", &[256]).fuse_query_key_value());
}

/// Sizes of models with many layers whose heads make up the width.
fn narrow(layers: usize) -> Sizes {
    Sizes { heads: vec![2; layers], ..Sizes::thin(layers) }
}

fn without_gate(add: Add) {
    add("plain", Tiny::new("falcon"));
    add("tied", Tiny::new("falcon").remove("output.weight"));
    add("one-kv-head", Tiny::with_sizes("falcon", Sizes { kv_heads: vec![1; 2], ..Sizes::new(2) }));
    let two = Tiny::new("falcon").add_to_layers("attn_norm_2.weight", &[128]);
    add("two-norms", two.add_to_layers("attn_norm_2.bias", &[128]));
    add("plain", Tiny::new("phi2"));
    add("partial", Tiny::new("phi2").set("rope.dimension_count", 12));
    add("plain", Tiny::new("gptneox"));
    add("sequential", Tiny::new("gptneox").set("use_parallel_residual", false));
    add("partial", Tiny::new("gptneox").set("rope.dimension_count", 8));
    add("plain", Tiny::new("starcoder2"));
    add("tied", Tiny::new("starcoder2").remove("output.weight"));
    add("plain", Tiny::new("nemotron"));
    add("partial", Tiny::new("nemotron").set("rope.dimension_count", 16));
    let biases = Tiny::new("nemotron").add_to_layers("attn_output.bias", &[128]).add_to_layers("ffn_up.bias", &[96]);
    add("biases", biases.add_to_layers("ffn_down.bias", &[128]));
    add("plain", Tiny::new("arcee"));
    add("freqs", Tiny::new("arcee").add("rope_freqs.weight", &[16]));
}

fn layer_norms(add: Add) {
    let plain = || Tiny::new("stablelm");
    add("plain", plain());
    add("partial", plain().set("rope.dimension_count", 8));
    let biases = plain().add_to_layers("attn_q.bias", &[128]).add_to_layers("attn_k.bias", &[64]);
    add("biases", biases.add_to_layers("attn_v.bias", &[64]));
    // The one of 12 billion parameters.
    let mut large = plain();
    for layer in 0..2 {
        large = large.remove(&format!("blk.{layer}.ffn_norm.weight")).remove(&format!("blk.{layer}.ffn_norm.bias"));
    }
    add("parallel", large.clone());
    let large = large.add_to_layers("attn_q_norm.weight", &[32, 4]);
    add("large", large.add_to_layers("attn_k_norm.weight", &[32, 2]));
}

fn likes_of_llama(add: Add) {
    for family in ["ernie4_5", "exaone", "internlm2", "hunyuan-dense", "hunyuan_vl", "seed_oss", "qwen2vl", "qwen3vl"] {
        add("plain", Tiny::new(family));
    }
    add("alpha", Tiny::new("hunyuan_vl").set("rope.scaling.alpha", 50f32));
    add("no-epsilon", Tiny::new("qwen2vl").set("attention.layer_norm_rms_epsilon", 0f32));
    add("fused", Tiny::new("hunyuan-dense").fuse_query_key_value());
    add("tied", Tiny::new("seed_oss").remove("output.weight"));
    let mut bare = Tiny::new("seed_oss");
    for (layer, part) in [(0, "q"), (0, "k"), (0, "v"), (1, "q"), (1, "k"), (1, "v")] {
        bare = bare.remove(&format!("blk.{layer}.attn_{part}.bias"));
    }
    add("no-biases", bare);
    add("freqs", Tiny::new("exaone").add("rope_freqs.weight", &[16]));
    add("plain", Tiny::new("bitnet"));
    let tempered = || Tiny::new("mistral3");
    add("plain", tempered());
    add("even", tempered().set("attention.temperature_scale", 0f32));
    let yarn = tempered().set("rope.scaling.type", "yarn").set("rope.scaling.factor", 16f32);
    add("yarn", yarn.clone());
    add("log-multiplier", yarn.set("rope.scaling.yarn_log_multiplier", 0.7f32));
    add("plain", Tiny::new("exaone4"));
    add("tied", Tiny::new("exaone4").remove("output.weight"));
    // The one of 32 billion parameters, by which the reference means one of 64 layers.
    let large = Tiny::with_sizes("exaone4", narrow(64)).set("attention.sliding_window", 8);
    add("64-layers", large);
    let odd = Tiny::with_sizes("exaone4", Sizes::new(5)).set("attention.sliding_window", 8);
    add("ignored-window", odd);
}
