//! Every family, on tiny random models: what holds for any model whatever its weights, and what is said about files that
//! are wrong.
//!
//! `KILN_DUMP_MODELS` names a folder to write the models to, each with its tokens and its logits, for comparing them with
//! another implementation.

#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use kiln::backend::batch::Batch;
use kiln::backend::cpu::memory::PageMemory;
use kiln::backend::cpu::reference::Reference;
use kiln::cache::{Cache, CacheFormat, CacheLimits, Sequence};
use kiln::gguf::{Gguf, TensorType};
use kiln::model::{self, ProgramOptions};
use kiln::program::{Op, Purpose, Sees};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tiny::variants::{self, CONTEXT, Variant};
use tiny::{Sizes, Tiny, encoders, random};

/// More than the windows, and no multiple of a chunk.
const TOKENS: usize = 29;
/// How many random mixtures of options are tried.
const MIXED: usize = 24;
/// And how many of them are dumped.
const MIXED_DUMPED: usize = 400;
/// Measured: 7e-5 for the deepest, 4e-6 for all others.
const F16_CACHE_NMSE: f64 = 1e-4;
/// Measured: 6.7e-3.
const Q8_0_CACHE_NMSE: f64 = 1e-2;
/// Where a rounding can send a token to another expert. Measured: 3.4e-2 after 27 layers, 1e-2 otherwise.
const ROUTED_ELSEWHERE_NMSE: f64 = 5e-2;

fn tokens() -> Vec<u32> {
    let token = |value: f32| ((value + 1.0) / 2.0 * Sizes::VOCABULARY as f32) as u32;
    random("tokens", TOKENS).map(token).collect()
}

/// All variants, and some mixtures.
fn samples() -> impl Iterator<Item = Variant> {
    variants::all().into_iter().chain(variants::mixed(MIXED)).chain(encoders::all())
}

/// Whether a model describes tokens and keeps nothing: what is said of sequences and logits does not hold then.
fn embeds(model: &Reference) -> bool {
    model.program().purpose == Purpose::Embed
}

/// Numbers in a row of the output.
fn width(model: &Reference) -> usize {
    model.program().slots[model.program().output.unwrap().0].width
}

fn load(tiny: &Tiny) -> kiln::Result<Reference> {
    let file = tiny.file();
    let program = model::program(&file, ProgramOptions { context: CONTEXT })?;
    Reference::new(file, program)
}

fn open(variant: &Variant) -> Reference {
    load(&variant.tiny).unwrap_or_else(|error| panic!("{}: {error}", variant.name))
}

/// An empty sequence with room for some tokens, and the memory of its pages.
fn sequence(model: &Reference, tokens: usize, format: CacheFormat) -> (Sequence, PageMemory) {
    let cache = Cache::of_program(model.program(), CacheLimits::new(tokens as u32)).unwrap();
    (cache.sequence(), PageMemory::new(&cache, format).unwrap())
}

/// The logits of all tokens, `chunk` of them at a time.
fn run(model: &Reference, tokens: &[u32], chunk: usize, format: CacheFormat) -> Vec<f32> {
    let (mut sequence, mut memory) = sequence(model, tokens.len(), format);
    let mut logits = Vec::new();
    for tokens in tokens.chunks(chunk) {
        let outputs: Vec<usize> = (0..tokens.len()).collect();
        logits.extend(model.run(Batch { tokens, outputs: &outputs, texts: &[] }, &mut sequence, &mut memory).unwrap());
    }
    logits
}

fn whole(model: &Reference, tokens: &[u32]) -> Vec<f32> {
    run(model, tokens, tokens.len(), CacheFormat::F32)
}

/// The squared error over the squared logits.
fn nmse(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let error: f64 = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    error / expected.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>()
}

#[test]
fn every_family_has_a_tiny_model() {
    let tested: BTreeSet<String> = samples().map(|variant| variant.tiny.architecture).collect();
    let known: BTreeSet<String> = model::architectures().map(String::from).collect();
    assert_eq!(tested, known);
}

#[test]
fn dump() {
    let Some(folder) = std::env::var_os("KILN_DUMP_MODELS").map(std::path::PathBuf::from) else { return };
    let text: Vec<String> = tokens().iter().map(u32::to_string).collect();
    fs::write(folder.join("tokens"), text.join(" ")).unwrap();
    for variant in variants::all().into_iter().chain(variants::mixed(MIXED_DUMPED)).chain(encoders::all()) {
        let write = |suffix: &str, bytes: &[u8]| fs::write(folder.join(format!("{}.{suffix}", variant.name)), bytes);
        write("gguf", &variant.tiny.bytes()).unwrap();
        match load(&variant.tiny) {
            Ok(model) => {
                let logits = whole(&model, &tokens());
                let bytes: Vec<u8> = logits.iter().flat_map(|value| value.to_le_bytes()).collect();
                write("kiln.f32", &bytes).unwrap();
            }
            Err(error) => println!("{}: {error}", variant.name),
        }
    }
}

#[test]
fn chunks_give_the_same_logits_as_the_whole() {
    for variant in samples() {
        let (model, tokens) = (open(&variant), tokens());
        let expected = whole(&model, &tokens);
        let size = (expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32).sqrt();
        if embeds(&model) {
            continue;
        }
        assert!((1.0..10.0).contains(&size), "{}: logits of {size} would hide errors", variant.name);
        for chunk in [1, 13] {
            let found = run(&model, &tokens, chunk, CacheFormat::F32);
            assert!(found == expected, "{}, {chunk} at a time: {:e}", variant.name, nmse(&found, &expected));
        }
    }
}

#[test]
fn later_tokens_change_no_earlier_logits() {
    for variant in samples() {
        let (model, mut tokens) = (open(&variant), tokens());
        let before = whole(&model, &tokens);
        let changed = 12;
        tokens[changed] = (tokens[changed] + 1) % Sizes::VOCABULARY as u32;
        let after = whole(&model, &tokens);
        let width = width(&model);
        let row = |logits: &[f32], row: usize| logits[row * width..][..width].to_vec();
        // Tokens of encoders see later ones.
        let causal = model.program().steps.iter().all(|step| match step.op {
            Op::AttendTexts { sees, .. } => matches!(sees, Sees::Before(_)),
            _ => true,
        });
        if !causal {
            assert!(row(&before, changed - 1) != row(&after, changed - 1), "{}", variant.name);
            continue;
        }
        for earlier in 0..changed {
            assert!(row(&before, earlier) == row(&after, earlier), "{}, row {earlier}", variant.name);
        }
        assert!(row(&before, changed) != row(&after, changed), "{}", variant.name);
    }
}

#[test]
fn earlier_tokens_matter_and_their_order_too() {
    for variant in variants::all() {
        let (model, mut tokens) = (open(&variant), tokens());
        let logits = whole(&model, &tokens);
        let last = |logits: &[f32]| logits[(TOKENS - 1) * Sizes::VOCABULARY..].to_vec();
        tokens.swap(TOKENS - 2, TOKENS - 3);
        assert!(last(&whole(&model, &tokens)) != last(&logits), "{}", variant.name);
    }
}

#[test]
fn windows_end_where_they_should() {
    // In each of two layers a token sees four others, so in the end it hears of eight.
    let tiny = Tiny::with_sizes("gemma2", Sizes::new(2)).set("attention.sliding_window", 5);
    assert_last_hears_of(&load(&tiny.set("attention.sliding_window_pattern", 0)).unwrap(), 8);
}

#[test]
fn chunks_end_where_they_should() {
    // However many layers there are: the last of 29 tokens is the fifth of its chunk.
    let tiny = Tiny::with_sizes("llama4", Sizes::new(3)).set("attention.sliding_window", 8);
    assert_last_hears_of(&load(&tiny).unwrap(), 4);
}

/// That the last token's logits depend on so many tokens before it, and on none farther back.
#[track_caller]
fn assert_last_hears_of(model: &Reference, tokens_back: usize) {
    let last = |tokens: &[u32]| whole(model, tokens).split_off((TOKENS - 1) * Sizes::VOCABULARY);
    for (back, seen) in [(tokens_back, true), (tokens_back + 1, false)] {
        let mut tokens = tokens();
        let before = last(&tokens);
        tokens[TOKENS - 1 - back] ^= 1;
        assert_eq!(last(&tokens) != before, seen, "{back} back");
    }
}

#[test]
fn rows_of_logits_do_not_depend_on_which_are_asked_for() {
    for variant in samples() {
        let (model, tokens) = (open(&variant), tokens());
        let all = whole(&model, &tokens);
        for outputs in [&[0, 5, 6, TOKENS - 1][..], &[]] {
            let (mut sequence, mut memory) = sequence(&model, TOKENS, CacheFormat::F32);
            let found = model.run(Batch { tokens: &tokens, outputs, texts: &[] }, &mut sequence, &mut memory).unwrap();
            let width = width(&model);
            let row = |&row: &usize| all[row * width..][..width].to_vec();
            let expected: Vec<f32> = outputs.iter().flat_map(row).collect();
            assert!(found == expected, "{}, rows {outputs:?}", variant.name);
        }
    }
}

#[test]
fn smaller_caches_are_close() {
    for variant in samples() {
        let (model, tokens) = (open(&variant), tokens());
        if embeds(&model) {
            continue;
        }
        let expected = whole(&model, &tokens);
        let caches = &model.program().key_values;
        if caches.is_empty() {
            continue; // states are kept as they are
        }
        let error = |format| nmse(&run(&model, &tokens, TOKENS, format), &expected);
        let half = error(CacheFormat::F16);
        // A little makes a router choose another expert.
        let has_router = model.program().steps.iter().any(|step| matches!(step.op, Op::Route { .. }));
        let most = if has_router { ROUTED_ELSEWHERE_NMSE } else { 0.0 };
        assert!(half > 0.0 && half < F16_CACHE_NMSE.max(most), "{}: F16 {half:e}", variant.name);
        if caches.iter().all(|cache| cache.key_size % 32 == 0 && cache.value_size % 32 == 0) {
            let bytes = error(CacheFormat::Q8_0);
            assert!(bytes > half && bytes < Q8_0_CACHE_NMSE.max(most), "{}: Q8_0 {bytes:e}", variant.name);
        }
    }
}

#[test]
fn what_is_saved_of_a_sequence_can_be_put_back() {
    for variant in samples() {
        let (model, tokens) = (open(&variant), tokens());
        if embeds(&model) {
            continue;
        }
        for format in [CacheFormat::F32, CacheFormat::F16] {
            let (first, rest) = tokens.split_at(17);
            let run = |tokens: &[u32], (sequence, memory): &mut (Sequence, PageMemory)| {
                let outputs: Vec<usize> = (0..tokens.len()).collect();
                model.run(Batch { tokens, outputs: &outputs, texts: &[] }, sequence, memory).unwrap()
            };
            let mut original = sequence(&model, TOKENS, format);
            run(first, &mut original);
            let mut other = sequence(&model, TOKENS, format);
            other.0.restore(original.0.len(), &original.0.evicted_pages()).unwrap();
            let places = original.0.holdings().into_iter().zip(other.0.holdings());
            for ((layer, held, from), (other_layer, other_held, to)) in places {
                assert_eq!((layer, held, from.len()), (other_layer, other_held, to.len()));
                let state = model.program().states.iter().find(|state| state.layer as u32 == layer);
                let bytes = original.1.read(held, &from);
                assert_eq!(bytes.len() as u64, original.1.bytes_of(held) * from.len() as u64, "{}", variant.name);
                other.1.write(held, &to, &bytes, state);
            }
            assert!(run(rest, &mut original) == run(rest, &mut other), "{}, {format:?}", variant.name);
        }
    }
}

#[test]
fn listings_name_everything() {
    for variant in samples() {
        let model = open(&variant);
        let (program, listing) = (model.program(), model.program().to_string());
        assert_eq!(listing.lines().count(), program.steps.len() + 1, "{}", variant.name);
        assert!(listing.starts_with(&format!("{}: ", variant.tiny.architecture)), "{listing}");
        assert!(!listing.contains('?'), "{}:\n{listing}", variant.name);
        for weight in program.weights.iter().filter(|weight| !weight.name.starts_with("rope_")) {
            assert!(listing.contains(&weight.name), "{} is not in\n{listing}", weight.name);
        }
    }
}

#[test]
fn programs_use_all_tensors() {
    for variant in samples() {
        let (file, model) = (variant.tiny.file(), open(&variant));
        let used: BTreeSet<&str> = model.program().weights.iter().map(|weight| &weight.name[..]).collect();
        let unused = file.tensors().iter().map(|tensor| tensor.name()).filter(|name| !used.contains(name));
        // Of two tables of rotation factors one is used; layers for several tokens at once are not.
        // Factors of whole layers are part of the program.
        let is_known = |name: &&str| name.starts_with("rope_factors_") || name.contains("layer_output_scale");
        let unused: Vec<&str> = unused.filter(|name| !is_known(name)).collect();
        let is_next = |name: &&str| variant.name.ends_with("-next-layer") && name.starts_with("blk.2.");
        assert!(unused.iter().all(is_next), "{}: {unused:?}", variant.name);
    }
}

/// The logits of a variant, by name.
fn logits(name: &str) -> Vec<f32> {
    let variants = variants::all();
    let variant = variants.iter().find(|variant| variant.name == name);
    whole(&open(variant.unwrap_or_else(|| panic!("no variant {name}"))), &tokens())
}

#[test]
fn different_words_for_one_thing_give_the_same_logits() {
    for (name, same) in [
        ("mistral-plain", "llama-plain"),
        ("llama-defaults", "llama-plain"),
        ("llama-array-keys", "llama-plain"),
        ("llama-fused", "llama-plain"),
        ("llama-biases", "llama-fused-biases"),
        ("llama-no-scaling", "llama-plain"),
        ("llama-yarn-no-factor", "llama-plain"),
        ("llama-untyped-factor", "llama-linear"),
        ("llama-old-factor", "llama-linear"),
        ("llama-yarn-no-original", "llama-yarn-context"),
        ("gemma3-zero-window", "gemma3-wide-window"),
        ("granite-rotation", "granite-plain"),
        ("glm4-fused", "glm4-plain"),
        ("glm4-next-layer", "glm4-plain"),
        ("glm4moe-next-layer", "glm4moe-plain"),
        ("glm4moe-unnamed-gating", "glm4moe-plain"),
        ("phi3-ignored-window", "phi3-plain"),
        ("phi3-split", "phi3-plain"),
        ("olmo2-fused", "olmo2-plain"),
        ("qwen2moe-own-sizes", "qwen2moe-plain"),
        ("qwen3moe-own-sizes", "qwen3moe-plain"),
        ("command-r-fused", "command-r-plain"),
        ("hunyuan-dense-fused", "hunyuan-dense-plain"),
        ("ernie4_5-plain", "llama-plain"),
        ("internlm2-plain", "llama-plain"),
        ("qwen2vl-plain", "qwen2-plain"),
    ] {
        assert!(logits(name) == logits(same), "{name} is not {same}");
    }
}

#[test]
fn a_softmax_of_those_chosen_is_one_of_all_without_the_others() {
    let change = nmse(&logits("llama-experts-softmax-of-chosen"), &logits("llama-experts"));
    assert!(change < 1e-11, "{change:e}");
}

#[test]
fn options_change_the_logits() {
    for (name, plain) in [
        ("llama-biases", "llama-plain"),
        ("llama-base", "llama-plain"),
        ("llama-freqs", "llama-plain"),
        ("llama-linear", "llama-plain"),
        ("llama-freqs-linear", "llama-freqs"),
        ("llama-yarn", "llama-linear"),
        ("llama-yarn", "llama-yarn-context"),
        ("llama-yarn-attention", "llama-yarn-context"),
        ("llama-yarn-shrinking", "llama-plain"),
        ("llama-longrope", "llama-longrope-short"),
        ("gemma2-no-window", "gemma2-plain"),
        ("gemma2-softcaps", "gemma2-plain"),
        ("gemma2-window-base", "gemma2-plain"),
        ("gemma2-pattern", "gemma2-plain"),
        ("gemma2-pattern", "gemma2-pattern-array"),
        ("gemma3-linear", "gemma3-plain"),
        ("gemma3-softcap", "gemma3-plain"),
        ("gemma3-pattern", "gemma3-pattern-array"),
        ("gemma3-yarn", "gemma3-linear"),
        ("phi3-long", "phi3-short"),
        ("granite-no-rotation", "granite-plain"),
        ("granite-logit-scale-only", "granite-plain"),
        ("granite-freqs", "granite-plain"),
        ("glm4-sections", "glm4-plain"),
        ("gemma4-partial", "gemma4-plain"),
        ("gemma4-scaled", "gemma4-plain"),
        ("gemma4-wide-window", "gemma4-plain"),
        ("gemma4-keys-as-values", "gemma4-plain"),
        ("gemma4-shared", "gemma4-plain"),
        ("gemma4-inputs", "gemma4-plain"),
        ("gemma4-small", "gemma4-inputs"),
        ("olmo2-windows", "olmo2-windows-yarn"),
        ("olmo2-windows-yarn", "olmo2-windows-array"),
        ("llama-experts-all-used", "llama-experts"),
        ("llama-experts-one", "llama-experts"),
        ("llama-experts-biases", "llama-experts"),
        ("llama-experts-scale", "llama-experts"),
        ("llama-experts-sigmoid", "llama-experts"),
        ("llama-experts-root-softplus", "llama-experts"),
        ("llama-experts-bias-of-choice", "llama-experts"),
        ("llama-experts-groups", "llama-experts"),
        ("llama-experts-merged", "llama-experts"), // other numbers: they depend on the name
        ("gpt-oss-yarn", "gpt-oss-plain"),
        ("glm4moe-norms", "glm4moe-plain"),
        ("phimoe-long", "phimoe-plain"),
        ("deepseek2-temperature", "deepseek2-plain"),
        ("glm4moe-plain-weights", "glm4moe-plain"),
        ("granitemoe-shared", "granitemoe-plain"),
        ("bailingmoe2-groups", "bailingmoe2-plain"),
        ("deepseek2-yarn", "deepseek2-plain"),
        ("deepseek2-yarn-multiplier", "deepseek2-yarn"),
        ("deepseek2-lite", "deepseek2-plain"),
        ("gpt-oss-window-base", "gpt-oss-plain"),
        ("gpt-oss-pattern-array", "gpt-oss-plain"),
        ("gpt-oss-no-window", "gpt-oss-plain"),
        ("cohere2-wide-window", "cohere2-plain"),
        ("cohere2-pattern", "cohere2-pattern-array"),
        ("falcon-two-norms", "falcon-plain"),
        ("gptneox-sequential", "gptneox-plain"),
        ("stablelm-parallel", "stablelm-plain"),
        ("stablelm-large", "stablelm-parallel"),
        ("hunyuan_vl-alpha", "hunyuan_vl-plain"),
        ("hunyuan-dense-plain", "exaone-plain"),
        ("mistral3-even", "mistral3-plain"),
        ("mistral3-yarn", "mistral3-log-multiplier"),
        ("llama4-one-chunk", "llama4-plain"),
        ("llama4-no-chunks", "llama4-one-chunk"),
        ("llama4-dense", "llama4-plain"),
        ("gemma4-experts", "gemma4-plain"),
        ("gemma4-experts-alike", "gemma4-experts"),
    ] {
        let change = nmse(&logits(name), &logits(plain));
        assert!(change > 1e-3, "{name} differs from {plain} by {change:e}");
    }
}

/// Loads a wrong file, and holds the error to a list of words.
#[track_caller]
fn assert_fails(tiny: Tiny, words: &[&str]) {
    let error = load(&tiny).map(|model| model.program().to_string()).unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in `{error}`");
    }
}

#[test]
fn unknown_architectures_are_named_beside_the_known() {
    let known: Vec<&str> = model::architectures().collect();
    let llama = || Tiny::new("llama");
    assert_fails(llama().set("general.architecture", "parrot"), &["general.architecture", "`parrot`"]);
    assert_fails(llama().set("general.architecture", "parrot"), &known);
    assert_fails(llama().unset(&["general.architecture"]), &["general.architecture", "nothing", "llama"]);
}

#[test]
fn what_unknown_architectures_need_is_said_and_what_comes_closest() {
    let fails = |name: &str, words: &[&str]| assert_fails(Tiny::new("llama").set("general.architecture", name), words);
    fails("mamba", &["the closest is `mamba2`; `mamba` needs recurrent layers of another kind"]);
    fails("t5", &["`t5` needs an encoder with cross attention"]);
    fails("gemma3n", &["the closest is `gemma3`; `gemma3n` needs several streams between its layers"]);
    fails("Llama", &["the closest is `llama`"]);
    fails("phi4", &["the closest is `phi3`"]);
    fails("starcoder", &["the closest is `starcoder2`; `starcoder` needs positions that are learnt"]);
}

#[test]
fn what_cannot_be_run_yet_is_said() {
    let tiny = || Tiny::new("llama");
    let gemma = Tiny::new("gemma").set("expert_count", 8u32);
    assert_fails(gemma, &["gemma.expert_count", "8", "no experts"]);
    assert_fails(tiny().big_endian(), &["big-endian", "little-endian weights"]);
}

#[test]
fn every_tensor_is_called_for_and_measured() {
    let plain = model::architectures().map(|family| Tiny::with_sizes(family, Sizes::thin(2)));
    for tiny in plain.chain([Tiny::with_sizes("gemma4", Sizes::thin(2)).experts(1)]) {
        let (family, file) = (tiny.architecture.clone(), tiny.file());
        for tensor in file.tensors().iter().filter(|tensor| !tensor.name().ends_with(".bias")) {
            let name = tensor.name();
            // Without its own, the output is the embedding table; without the fused one, the first of three is missed;
            // shared experts without a router count whole; Gemma 4 takes keys where there are no values, has experts where
            // there is a router, which may weigh them equally; some encoders do without types of tokens, Jina's without gates.
            let mut optional = vec!["output.weight", "ffn_gate_inp_shexp.weight", "token_types.weight"];
            if family == "gemma4" {
                optional.extend(["attn_v.weight", "ffn_gate_inp.weight", "ffn_down_exps.scale"]);
            }
            optional.extend((family == "jina-bert-v2").then_some("blk.0.ffn_gate.weight"));
            if !optional.iter().any(|part| name.ends_with(part)) {
                let is_recurrent = tiny::recurrent::RECURRENT.contains(&family.as_str());
                let called = match is_recurrent {
                    true => name.replace("ssm_ba", "ssm_alpha"), // one tensor, or two
                    false => name.replace("attn_qkv", "attn_q"),
                };
                assert_fails(tiny.clone().remove(name), &[&called, "nothing"]);
            }
            let mut shape: Vec<usize> = tensor.shape().iter().map(|&size| size as usize).collect();
            let expected = shape[0].to_string();
            shape[0] += 32;
            assert_fails(tiny.clone().add(name, &shape), &[name, &shape[0].to_string(), &expected]);
        }
        if !embeds(&load(&tiny).unwrap()) {
            assert_fails(tiny.clone().add("output.bias", &[7]), &["output.bias", "7", "128"]);
        }
    }
}

#[test]
fn tensors_in_formats_that_are_no_weights_are_named() {
    let name = "blk.1.ffn_down.weight";
    let tiny = Tiny::with_sizes("llama", Sizes { inner: vec![256; 2], ..Sizes::new(2) });
    assert_fails(tiny.clone().store_as(name, TensorType::Q8_K), &[name, "Q8_K"]);
    assert_fails(tiny.store_as(name, TensorType::Q8_1), &[name, "Q8_1"]);
}

#[test]
fn tensors_that_would_be_ignored_are_named() {
    let scale = "blk.1.ffn_up.scale";
    assert_fails(Tiny::new("llama").add(scale, &[1]), &[scale, "not supported"]);
    let fused = Tiny::new("llama").fuse_query_key_value().add_to_layers("attn_k.bias", &[64]);
    assert_fails(fused, &["blk.0.attn_k.bias", "attn_qkv.bias"]);
}

#[test]
fn experts_that_cannot_be_are_named() {
    let llama = |key: &str, value: u32| Tiny::new("llama").experts(0).set(key, value);
    assert_fails(llama("expert_count", 100_000), &["llama.expert_count", "100000"]);
    assert_fails(llama("expert_used_count", 9), &["llama.expert_used_count", "9", "1 to 8"]);
    assert_fails(llama("expert_used_count", 0), &["llama.expert_used_count", "0", "1 to 8"]);
    assert_fails(llama("expert_gating_func", 5), &["llama.expert_gating_func", "5", "1 to 4"]);
    assert_fails(llama("expert_group_count", 3), &["llama.expert_group_count", "3", "8 experts"]);
    let groups = llama("expert_group_count", 4);
    assert_fails(groups.clone().set("expert_group_used_count", 5), &["llama.expert_group_used_count", "5"]);
    assert_fails(groups.set("expert_group_used_count", 1), &["llama.expert_group_used_count", "1", "3 experts"]);
    let fewer = llama("expert_used_count", 2).set("expert_count", 7);
    assert_fails(fewer, &["blk.0.ffn_gate_inp.weight", "128 × 8", "128 × 7"]);
    assert_fails(
        llama("expert_used_count", 2).add("blk.1.ffn_up_exps.bias", &[32, 7]),
        &["ffn_up_exps.bias", "32 × 7"],
    );
    let llama4 = || Tiny::new("llama4");
    assert_fails(llama4().set("expert_used_count", 2), &["llama4.expert_used_count", "2", "1: "]);
    let step = "interleave_moe_layer_step";
    assert_fails(llama4().unset(&[step]), &["llama4.interleave_moe_layer_step", "nothing"]);
    assert_fails(llama4().set(step, 1), &["blk.0.ffn_gate_inp.weight", "nothing"]);
    let scale = Tiny::new("gemma4").experts(0).add("blk.1.ffn_gate_exps.scale", &[8]);
    assert_fails(scale, &["blk.1.ffn_gate_exps.scale", "not supported"]);
    let deepseek = |key: &str, value: u32| Tiny::new("deepseek2").set(key, value);
    assert_fails(deepseek("attention.kv_lora_rank", 0), &["deepseek2.attention.kv_lora_rank", "positive"]);
    assert_fails(deepseek("rope.dimension_count", 32), &["deepseek2.rope.dimension_count", "32", "31"]);
    let warm = Tiny::new("deepseek2").set("attention.temperature_scale", 0.1f32);
    assert_fails(warm, &["deepseek2.attention.temperature_length", "nothing"]);
}

#[test]
fn required_keys_are_called_for() {
    let keys = ["embedding_length", "block_count", "context_length", "vocab_size", "feed_forward_length"];
    for key in keys.into_iter().chain(["attention.head_count"]) {
        assert_fails(Tiny::new("qwen2").unset(&[key]), &[&format!("qwen2.{key}"), "nothing"]);
        assert_fails(Tiny::new("qwen2").set(key, "many"), &[&format!("qwen2.{key}"), "many"]);
    }
    for (family, key) in [
        ("granite", "logit_scale"),
        ("cohere2", "logit_scale"),
        ("cohere2", "attention.sliding_window"),
        ("gemma4", "attention.sliding_window"),
        ("gemma4", "attention.sliding_window_pattern"),
        ("gptneox", "use_parallel_residual"),
    ] {
        assert_fails(Tiny::new(family).unset(&[key]), &[&format!("{family}.{key}"), "nothing"]);
    }
}

#[test]
fn recurrent_layers_that_cannot_be_are_named() {
    for family in ["mamba2", "qwen35"] {
        let fails = |key: &str, value: u32, words: &[&str]| {
            let words: Vec<String> = [&[&*format!("{family}.{key}"), &value.to_string()], words]
                .concat()
                .iter()
                .map(|word| word.to_string())
                .collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_fails(Tiny::new(family).set(key, value), &words);
        };
        fails("ssm.conv_kernel", 65, &["1 to 64"]);
        fails("ssm.inner_size", 0, &["1 to"]);
        fails("ssm.state_size", 1025, &["1 to 1024"]);
        fails("ssm.time_step_rank", 3, &["a divisor of the"]);
        fails("ssm.group_count", 3, &["a divisor of the"]);
        for key in ["ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count"] {
            assert_fails(Tiny::new(family).unset(&[key]), &[&format!("{family}.{key}"), "nothing"]);
        }
    }
    let qwen = || Tiny::new("qwen35");
    assert_fails(qwen().set("full_attention_interval", 0), &["qwen35.full_attention_interval", "positive"]);
    assert_fails(
        qwen().set("attention.recurrent_layers", vec![true; 3]),
        &["recurrent_layers", "array of 3", "5 layers"],
    );
    // The fourth layer attends.
    assert_fails(qwen().set("attention.head_count_kv", vec![0u32; 5]), &["head_count_kv", "0 in layer 3", "divisor"]);
    assert_fails(qwen().unset(&["attention.head_count"]), &["qwen35.attention.head_count", "0 in layer 0"]);
    assert!(load(&Tiny::new("mamba2").unset(&["attention.head_count", "attention.head_count_kv"])).is_ok());
    let wide = Tiny::new("mamba2").set("ssm.time_step_rank", 1).set("ssm.group_count", 1).set("ssm.inner_size", 2048);
    assert_fails(wide, &["mamba2.ssm.inner_size", "2048", "at most 1024"]);
}

#[test]
fn numbers_that_cannot_be_are_named() {
    let llama = || Tiny::new("llama");
    for (key, value, word) in [
        ("attention.head_count", 0, "0"),
        ("attention.head_count_kv", 3, "3"),
        ("attention.head_count_kv", 0, "0"),
        ("attention.key_length", 0, "0"),
        ("attention.value_length", 100_000, "100000"),
        ("block_count", 0, "0"),
        ("block_count", 100_000, "100000"),
        ("embedding_length", 0, "0"),
        ("rope.dimension_count", 7, "7"),
        ("rope.dimension_count", 34, "34"),
    ] {
        assert_fails(llama().set(key, value), &[&format!("`llama.{key}`"), word]);
    }
    for (key, value, word) in [
        ("attention.key_length_swa", 0, "0"),
        ("attention.key_length_swa", 64, "64"),
        ("attention.value_length_swa", 8, "8"),
        ("attention.value_length", 24, "24"),
        ("rope.dimension_count_swa", 7, "7"),
        ("rope.dimension_count_swa", 18, "18"),
        ("attention.shared_kv_layers", 6, "none"),
        ("attention.shared_kv_layers", 5, "none"),
    ] {
        assert_fails(Tiny::new("gemma4").set(key, value), &[&format!("gemma4.{key}"), word]);
    }
    for base in [0.0, -1.0, f32::NAN] {
        assert_fails(llama().set("rope.freq_base", base), &["llama.rope.freq_base"]);
    }
    assert_fails(llama().set("rope.scaling.factor", -2f32), &["llama.rope.scaling.factor", "-2"]);
    assert_fails(llama().set("rope.scaling.type", "spiral"), &["llama.rope.scaling.type", "`spiral`", "yarn"]);
    assert_fails(llama().set("attention.causal", false), &["llama.attention.causal", "false"]);
    let sections = Tiny::new("glm4").set("rope.dimension_sections", vec![2u32, 2, 2, 2]);
    assert_fails(sections, &["glm4.rope.dimension_sections", "2 in the fourth"]);
    let sections = Tiny::new("hunyuan_vl").set("rope.dimension_sections", vec![4u32, 4, 4, 4]);
    assert_fails(sections, &["hunyuan_vl.rope.dimension_sections", "4 in the fourth"]);
    assert_fails(llama().set("nextn_predict_layers", 2), &["llama.block_count", "2"]);
}

#[test]
fn arrays_have_an_entry_for_each_layer() {
    for key in ["attention.head_count", "attention.head_count_kv", "feed_forward_length"] {
        assert_fails(Tiny::new("llama").set(key, vec![4u32]), &[&format!("llama.{key}"), "array of 1", "2 layers"]);
    }
    let pattern = "attention.sliding_window_pattern";
    let short = Tiny::new("gemma3").set(pattern, vec![true; 3]);
    assert_fails(short, &["gemma3.attention.sliding_window_pattern", "array of 3", "7 layers"]);
    assert_fails(Tiny::new("gemma3").set(pattern, "odd"), &["gemma3.attention.sliding_window_pattern", "odd"]);
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let model = load(&Tiny::new("llama")).unwrap();
    let (mut sequence, mut memory) = sequence(&model, 4, CacheFormat::F32);
    let mut fails = |tokens: &[u32], outputs: &[usize], word: &str| {
        let error =
            model.run(Batch { tokens, outputs, texts: &[] }, &mut sequence, &mut memory).unwrap_err().to_string();
        assert!(error.contains(word), "`{word}` is not in `{error}`");
        assert_eq!(sequence.len(), 0);
    };
    fails(&[1, 128], &[], "128");
    fails(&[1, 2, 3, 4, 5], &[], "at most 4");
    fails(&[1, 2], &[2], "output");
}

/// The families in the README: all that there are, and golden models of their architectures.
#[test]
fn the_table_of_families_is_true() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Families\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let mut listed = vec![];
    for row in section.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, _, names, cpu, gpu, golden, _, _] = cells[..] else { panic!("{row}") };
        // Whether they do is tested for all: in this file, and in `families.rs`.
        assert_eq!([cpu, gpu], ["yes"; 2], "{row}");
        let names: Vec<&str> = names.split(' ').map(|name| name.trim_matches('`')).collect();
        for name in golden.split(", ").filter(|name| !name.is_empty()) {
            let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
            let large = std::env::var_os("KILN_GOLDEN").map(|root| Path::new(&root).join("models"));
            let paths =
                [Some(committed), large].into_iter().flatten().map(|folder| folder.join(format!("{name}.gguf")));
            let Some(path) = paths.into_iter().find(|path| path.exists()) else {
                assert!(std::env::var_os("KILN_GOLDEN").is_none(), "there is no golden {name}");
                continue;
            };
            let file = Gguf::open(path).unwrap();
            let architecture = file.metadata().str("general.architecture").unwrap().unwrap();
            assert!(names.contains(&architecture), "{name} is a {architecture}: {row}");
        }
        listed.extend(names.into_iter().map(String::from));
    }
    listed.sort();
    let mut known: Vec<String> = model::architectures().map(String::from).collect();
    known.sort();
    assert_eq!(listed, known);
    assert!(readme.contains(&format!(" {} architectures ", known.len())), "there are {}", known.len());
}
