//! Vectors of texts as applications get them: pooling, batches, limits, heads, ranks.

#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use kiln::embed::similarity;
use kiln::gguf::Gguf;
use kiln::{Device, EmbedOptions, Embedder, Error, LoadOptions, Model, Pooling};
use tiny::{Tiny, random};

/// Texts of several lengths, in words of the golden model's small vocabulary.
const TEXTS: [&str; 6] =
    ["the quick brown fox", "a", "fox fox fox fox fox 12 fox, the end.", "", "the", "quick, brown"];

fn options() -> LoadOptions {
    LoadOptions::new().device(Device::Cpu).threads(2).exact(true)
}

fn golden() -> Model {
    options().open("tests/golden/models/bert.gguf").unwrap()
}

fn model(tiny: Tiny) -> Model {
    Model::load(Gguf::from_bytes(tiny.tokenizer().bytes()).unwrap(), &options()).unwrap()
}

/// A text of so many of a tiny model's tokens, each of which is a letter.
fn letters(name: &str, count: usize) -> String {
    random(name, count).map(|value| char::from_u32(0x4e00 + 3 + ((value + 1.0) * 60.0) as u32).unwrap()).collect()
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let largest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 2e-5, "differ by {largest}");
}

fn raw(pooling: Pooling) -> EmbedOptions {
    EmbedOptions::new().normalise(false).pooling(pooling)
}

#[test]
fn vectors_are_pooled_rows() {
    let model = golden();
    let rows = model.embedder().unwrap().embed_tokens(TEXTS[2]).unwrap();
    assert_eq!(
        rows.len(),
        model.tokenizer().encode(TEXTS[2], kiln::tokenizer::Encode::default().add_special(true)).len()
    );
    let mean: Vec<f32> =
        (0..rows[0].len()).map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / rows.len() as f32).collect();
    let pooled = |how: EmbedOptions| model.embedder_with(how).unwrap().embed(&TEXTS[2..3]).unwrap().remove(0);
    assert_near(&pooled(raw(Pooling::Mean)), &mean);
    assert_near(&pooled(raw(Pooling::First)), &rows[0]);
    assert_near(&pooled(raw(Pooling::Last)), rows.last().unwrap());
    // The file asks for the mean, and vectors are one long.
    let vector = pooled(EmbedOptions::new());
    assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    assert!((similarity(&vector, &mean) - 1.0).abs() < 1e-5);
    assert_eq!(model.embedder().unwrap().pooling(), Pooling::Mean);
    assert_eq!(model.embedder().unwrap().dimensions(), vector.len());
}

#[test]
fn batches_change_nothing() {
    let model = golden();
    let alone: Vec<Vec<f32>> =
        TEXTS.iter().map(|text| model.embedder().unwrap().embed([text]).unwrap().remove(0)).collect();
    for batch_tokens in [1, 7, 20, 512] {
        for pooling in [Pooling::Mean, Pooling::First, Pooling::Last] {
            let embedder = |how: EmbedOptions| model.embedder_with(how.pooling(pooling)).unwrap();
            let together = embedder(EmbedOptions::new().batch_tokens(batch_tokens)).embed(TEXTS).unwrap();
            assert_eq!(together.len(), TEXTS.len());
            for (text, vector) in TEXTS.iter().zip(&together) {
                assert_near(vector, &embedder(EmbedOptions::new()).embed([text]).unwrap()[0]);
            }
            if pooling == Pooling::Mean {
                together.iter().zip(&alone).for_each(|(vector, alone)| assert_near(vector, alone));
            }
        }
    }
    assert!(model.embedder().unwrap().embed(Vec::<String>::new()).unwrap().is_empty());
}

#[test]
fn texts_that_are_too_long_are_errors_or_cut() {
    let model = golden();
    let embedder = model.embedder().unwrap();
    assert_eq!(embedder.context(), 128);
    let long = "fox ".repeat(200);
    let tokens = model.tokenizer().encode(&long, kiln::tokenizer::Encode::default().add_special(true));
    let error = embedder.embed(["the", &long, "fox"]).unwrap_err();
    let Error::ContextFull { asked_tokens, limit_tokens, .. } = error else { panic!("{error}") };
    assert_eq!((asked_tokens as usize, limit_tokens), (tokens.len(), 128));
    assert!(matches!(embedder.embed_tokens(&long), Err(Error::ContextFull { .. })));
    let cut = model.embedder_with(EmbedOptions::new().truncate(true)).unwrap();
    assert_eq!(cut.embed_tokens(&long).unwrap().len(), 128);
    // What is left is the beginning, and what ends every text.
    let word = (tokens.len() - 2) / 200;
    let short = "fox ".repeat(126 / word);
    assert_eq!((word * 200, 126 / word * word), (tokens.len() - 2, 126));
    assert_near(&cut.embed([&long]).unwrap()[0], &cut.embed([&short]).unwrap()[0]);
}

#[test]
fn embedders_are_shared_between_threads() {
    let embedder = golden().embedder().unwrap();
    let expected = embedder.embed(TEXTS).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(embedder.embed(TEXTS).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn every_family_embeds() {
    for variant in tiny::encoders::all() {
        let model = model(variant.tiny);
        let embedder = model.embedder().unwrap();
        let (text, other) = (letters("one", 40), letters("other", 9));
        let vectors = embedder.embed([&text, &other, &text]).unwrap();
        assert_near(&vectors[0], &vectors[2]);
        assert_near(&vectors[1], &embedder.embed([&other]).unwrap()[0]);
        assert!(similarity(&vectors[0], &vectors[1]) < 0.999, "{}", variant.name);
        assert_eq!(vectors[0].len(), embedder.dimensions(), "{}", variant.name);
    }
}

#[test]
fn models_that_generate_embed_if_asked_and_those_that_embed_do_not_generate() {
    let path = "tests/golden/models/llama.gguf";
    let error = options().open(path).unwrap().embedder().unwrap_err().to_string();
    assert!(error.contains("generates") && error.contains("LoadOptions::embed"), "{error}");
    let model = options().embed(true).open(path).unwrap();
    let embedder = model.embedder_with(EmbedOptions::new().pooling(Pooling::Last)).unwrap();
    let vectors = embedder.embed(["the fox", "the dog"]).unwrap();
    assert!(similarity(&vectors[0], &vectors[1]) < 0.9999);
    for model in [model, golden()] {
        let error = model.session().generate("the").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("embeds texts"), "{error}");
    }
}

#[test]
fn poolings_that_give_no_vector_say_so() {
    let model = golden();
    let fails = |result: kiln::Result<Vec<Vec<f32>>>, word: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    fails(model.embedder_with(raw(Pooling::None)).unwrap().embed(TEXTS), "embed_tokens");
    let error = model.embedder_with(raw(Pooling::Rank)).unwrap_err().to_string();
    assert!(error.contains("cls.output.weight"), "{error}");
    let error = model.embedder().unwrap().rank("the", TEXTS).unwrap_err().to_string();
    assert!(error.contains("reranker"), "{error}");
    let file = Gguf::from_bytes(Tiny::new("bert").set("pooling_type", 9).tokenizer().bytes()).unwrap();
    let error = Model::load(file, &options()).unwrap_err().to_string();
    assert!(error.contains("bert.pooling_type") && error.contains("9"), "{error}");
}

/// One vector times a matrix of a tiny model, plus a bias.
fn product(matrix: &str, bias: Option<&str>, rows: usize, x: &[f32]) -> Vec<f32> {
    let values: Vec<f32> = Tiny::new("bert").add(matrix, &[x.len(), rows]).value_of(matrix);
    let bias = bias.map(|name| Tiny::new("bert").add(name, &[rows]).value_of(name));
    let dot = |row: &[f32]| row.iter().zip(x).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32;
    values.chunks(x.len()).enumerate().map(|(i, row)| dot(row) + bias.as_ref().map_or(0.0, |bias| bias[i])).collect()
}

#[test]
fn rerankers_have_a_classifier() {
    let width = 128;
    let tiny = Tiny::new("bert").set("pooling_type", 4);
    let tiny = tiny.add("cls.output.weight", &[width, 1]).add("cls.output.bias", &[1]);
    let two = tiny.clone().add("cls.weight", &[width, width]).add("cls.bias", &[width]);
    for (tiny, has_inner) in [(tiny, false), (two, true)] {
        let ranker = model(tiny).embedder().unwrap();
        assert_eq!((ranker.pooling(), ranker.dimensions()), (Pooling::Rank, 1));
        let (query, documents) = (letters("query", 5), [letters("one", 9), letters("two", 4)]);
        let scores = ranker.rank(&query, &documents).unwrap();
        assert!(ranker.embed(&documents).unwrap_err().to_string().contains("Embedder::rank"));
        for (document, score) in documents.iter().zip(&scores) {
            // In this vocabulary a text begins as it does behind a space, and nothing stands between two.
            let first = ranker.embed_tokens(&format!("{query} {document}")).unwrap().remove(0);
            let inner = match has_inner {
                true => product("cls.weight", Some("cls.bias"), width, &first).iter().map(|x| x.tanh()).collect(),
                false => first,
            };
            assert_near(&[*score], &product("cls.output.weight", Some("cls.output.bias"), 1, &inner));
        }
        assert!((scores[0] - scores[1]).abs() > 1e-3);
    }
}

#[test]
fn dense_layers_follow_pooling() {
    let plain = Tiny::new("gemma-embedding");
    let dense = plain.clone().add("dense_2.weight", &[64, 96]).add("dense_3.weight", &[96, 64]);
    let text = letters("text", 30);
    let pooled = model(plain).embedder_with(EmbedOptions::new().normalise(false)).unwrap().embed([&text]).unwrap();
    let inner = product("dense_2.weight", None, 96, &pooled[0]);
    let expected = product("dense_3.weight", None, 64, &inner);
    let embedder: Embedder = model(dense).embedder_with(EmbedOptions::new().normalise(false)).unwrap();
    assert_near(&embedder.embed([&text]).unwrap()[0], &expected);
}

/// With the vocabulary of a file.
fn with_vocabulary(tiny: Tiny, file: &Gguf) -> Tiny {
    let metadata = file.metadata();
    let tokens = metadata.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    let tokens: Vec<String> = tokens.map(|token| String::from_utf8(token.to_vec()).unwrap()).collect();
    let kinds = metadata.u32s("tokenizer.ggml.token_type").unwrap().unwrap();
    let tiny = tiny.vocabulary(tokens.len()).set("tokenizer.ggml.model", "bert").set("tokenizer.ggml.tokens", tokens);
    let ids = ["bos", "eos", "cls", "seperator", "padding", "mask", "unknown"];
    let tiny = ids.iter().fold(tiny, |tiny, name| {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match metadata.u32(&key).unwrap() {
            Some(id) => tiny.set(&key, id),
            None => tiny,
        }
    });
    tiny.set("tokenizer.ggml.pre", "jina-v2-en").set("tokenizer.ggml.token_type", kinds)
}

/// `KILN_DUMP_ENCODERS` names a folder to write models, texts and vectors to, for comparing them with another
/// implementation.
#[test]
fn dump() {
    let Some(folder) = std::env::var_os("KILN_DUMP_ENCODERS").map(std::path::PathBuf::from) else { return };
    let golden = Gguf::open("tests/golden/models/bert.gguf").unwrap();
    let texts: Vec<&str> = TEXTS.into_iter().filter(|text| !text.is_empty()).collect();
    std::fs::write(folder.join("texts"), texts.join("\n")).unwrap();
    let rank = Tiny::new("bert").set("pooling_type", 4).add("cls.weight", &[128, 128]).add("cls.bias", &[128]);
    let rank = rank.add("cls.output.weight", &[128, 1]).add("cls.output.bias", &[1]);
    let rank = tiny::variants::Variant { name: "bert-rank".into(), tiny: rank };
    for variant in tiny::encoders::all().into_iter().chain([rank]) {
        let bytes = with_vocabulary(variant.tiny, &golden).bytes();
        std::fs::write(folder.join(format!("{}.gguf", variant.name)), &bytes).unwrap();
        let embedder = Model::load(Gguf::from_bytes(bytes).unwrap(), &options()).unwrap().embedder().unwrap();
        let vectors = match embedder.pooling() {
            Pooling::Rank => vec![embedder.rank(texts[0], &texts[1..]).unwrap()],
            _ => embedder.embed(&texts).unwrap(),
        };
        std::fs::write(folder.join(format!("{}.json", variant.name)), serde_json::to_string(&vectors).unwrap())
            .unwrap();
    }
}
