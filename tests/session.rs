//! Models, sessions and replies, on a tiny model whose greedy continuation is known.

use futures::{Stream, executor::block_on, future::poll_fn};
use kiln::gguf::{Gguf, GgufWriter, TensorInfo, TensorType};
use kiln::quant;
use kiln::session::Finish;
use kiln::{CacheFormat, Error, Generate, LoadOptions, Model, Reply};
use serde_json::Value;
use std::path::PathBuf;
use std::pin::pin;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name)
}

/// The model, a prompt, and the tokens that follow it greedily.
fn golden() -> (Model, Vec<u32>, Vec<u32>) {
    let facts: Value = serde_json::from_str(&std::fs::read_to_string(path("llama.json")).unwrap()).unwrap();
    let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let model = LoadOptions::new().sessions(4).cache_format(CacheFormat::F32).open(path("llama.gguf")).unwrap();
    (model, ids(&facts["tokens"]), ids(&facts["greedy"]["tokens"]))
}

fn greedy(count: usize) -> Generate {
    Generate::new().greedy().max_tokens(count).ignore_end(true)
}

#[test]
fn a_reply_is_the_golden_continuation_and_the_session_goes_on_from_it() {
    let (model, prompt, expected) = golden();
    let mut session = model.session();
    let mut reply = session.generate_tokens(&prompt, greedy(10)).unwrap();
    let first: String = reply.by_ref().map(Result::unwrap).collect();
    assert_eq!(reply.finish(), Some(Finish::MaxTokens));
    let statistics = reply.statistics();
    assert_eq!((statistics.prompt_tokens, statistics.generated_tokens), (prompt.len(), 10));
    drop(reply);
    assert_eq!(session.tokens()[prompt.len()..], expected[..10]);
    let more = expected.len() - 10;
    let second = session.generate_tokens(&[], greedy(more)).unwrap().text().unwrap();
    assert_eq!(session.tokens()[prompt.len()..], expected);
    // In one go it is the same text, up to characters that the cut between the two broke.
    let mut whole = model.session();
    let text = whole.generate_tokens(&prompt, greedy(expected.len())).unwrap().text().unwrap();
    let without_broken = |text: &str| text.replace('\u{fffd}', "");
    assert_eq!(without_broken(&text), without_broken(&(first + &second)));
}

#[test]
fn iterating_streaming_and_polling_give_the_same_text() {
    let (model, prompt, _) = golden();
    let text = model.session().generate_tokens(&prompt, greedy(20)).unwrap().text().unwrap();

    let mut session = model.session();
    let reply = session.generate_tokens(&prompt, greedy(20)).unwrap();
    let streamed = block_on(async {
        let mut reply = pin!(reply);
        let mut text = String::new();
        while let Some(piece) = poll_fn(|context| reply.as_mut().poll_next(context)).await {
            text.push_str(&piece.unwrap());
        }
        text
    });
    assert_eq!(streamed, text);

    let mut session = model.session();
    let mut reply = session.generate_tokens(&prompt, greedy(20)).unwrap();
    let mut polled = String::new();
    loop {
        match reply.try_next() {
            None => std::thread::yield_now(),
            Some(None) => break,
            Some(Some(piece)) => polled.push_str(&piece.unwrap()),
        }
    }
    assert_eq!(polled, text);
    assert!(reply.next().is_none(), "the end stays the end");
}

#[test]
fn forks_share_what_they_have_and_go_their_own_ways() {
    let (model, prompt, expected) = golden();
    let mut trunk = model.session();
    drop(trunk.generate_tokens(&prompt, greedy(4)).unwrap().text().unwrap());
    let mut branch = trunk.fork().unwrap();
    branch.generate_tokens(&[7, 8, 9], greedy(5)).unwrap().text().unwrap();
    // The branch did what a session of its own would have done, and the trunk goes on as if there were no branch.
    let mut alone = model.session();
    let tokens = [&branch.tokens()[..prompt.len() + 4], &[7, 8, 9]].concat();
    alone.generate_tokens(&tokens, greedy(5)).unwrap().text().unwrap();
    assert_eq!(branch.tokens(), alone.tokens());
    trunk.generate_tokens(&[], greedy(4)).unwrap().text().unwrap();
    assert_eq!(trunk.tokens()[prompt.len()..], expected[..8]);
    // And back.
    trunk.truncate(prompt.len() + 2).unwrap();
    trunk.generate_tokens(&[], greedy(6)).unwrap().text().unwrap();
    assert_eq!(trunk.tokens()[prompt.len()..], expected[..8]);
}

#[test]
fn dropping_or_cancelling_stops_a_reply_and_leaves_the_session_usable() {
    let (model, prompt, expected) = golden();
    let mut session = model.session();
    let mut reply = session.generate_tokens(&prompt, Generate::new().greedy().ignore_end(true)).unwrap();
    reply.next().unwrap().unwrap();
    drop(reply);
    let generated = session.tokens().len() - prompt.len();
    assert!(generated > 0 && generated < 400, "{generated} tokens");
    let compared = generated.min(expected.len());
    assert_eq!(session.tokens()[prompt.len()..][..compared], expected[..compared]);

    session.truncate(prompt.len()).unwrap();
    let mut reply = session.generate_tokens(&[], Generate::new().greedy().ignore_end(true)).unwrap();
    reply.cancel_handle().cancel();
    let ended = reply.by_ref().all(|piece| piece.is_ok());
    assert!(ended && reply.finish() == Some(Finish::Cancelled));
}

#[test]
fn stop_texts_end_the_reply_before_them() {
    let (model, prompt, _) = golden();
    let text = model.session().generate_tokens(&prompt, greedy(20)).unwrap().text().unwrap();
    let (at, stop) = text.char_indices().nth(6).map(|(at, c)| (at, c.to_string())).unwrap();
    let first = text.find(&stop).unwrap().min(at);
    let mut session = model.session();
    let mut reply = session.generate_tokens(&prompt, greedy(20).stop(stop.clone())).unwrap();
    let stopped: String = reply.by_ref().map(Result::unwrap).collect();
    assert_eq!((stopped.as_str(), reply.finish()), (&text[..first], Some(Finish::Stop(stop))));
}

#[test]
fn a_full_context_is_an_error_with_its_numbers() {
    let (_, prompt, _) = golden();
    let limit = prompt.len() as u32 + 3;
    let model = LoadOptions::new().context(limit).open(path("llama.gguf")).unwrap();
    let mut session = model.session();
    let pieces: Vec<_> = session.generate_tokens(&prompt, greedy(100)).unwrap().collect();
    let Some(Err(Error::ContextFull { used_tokens, asked_tokens: 1, limit_tokens })) = pieces.last() else {
        panic!("{pieces:?}")
    };
    assert_eq!((*used_tokens, *limit_tokens), (limit, limit));
    // The session still holds its tokens, and can go back.
    assert_eq!(session.tokens().len() as u32, limit + 1);
    session.truncate(prompt.len()).unwrap();
    assert!(session.generate_tokens(&[], greedy(2)).unwrap().text().is_ok());
    let too_long = vec![5; limit as usize + 1];
    let error = model.session().generate_tokens(&too_long, greedy(1)).map(drop).unwrap_err();
    assert!(matches!(error, Error::ContextFull { used_tokens: 0, .. }), "{error}");
}

#[test]
fn a_full_context_leaves_nothing_held_back() {
    let (_, prompt, _) = golden();
    let model = LoadOptions::new().context(prompt.len() as u32 + 12).open(path("llama.gguf")).unwrap();
    let text = |how: Generate| {
        let mut session = model.session();
        let mut reply = session.generate_tokens(&prompt, how).unwrap();
        let pieces: Vec<Result<String, Error>> = reply.by_ref().collect();
        assert!(matches!(pieces.last(), Some(Err(Error::ContextFull { .. }))), "{pieces:?}");
        pieces.into_iter().flatten().collect::<String>()
    };
    let written = text(greedy(100));
    // The last letter may begin a stop text, and does not.
    let last = written.chars().last().unwrap();
    assert_eq!(text(greedy(100).stop(format!("{last}\u{1}\u{2}never"))), written);
}

#[test]
fn seeds_decide_and_texts_are_only_texts() {
    let (model, ..) = golden();
    let text = |seed| {
        let how = Generate::new().seed(seed).max_tokens(30).ignore_end(true);
        model.session().generate_with("the quick", how).unwrap().text().unwrap()
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
    // The first text gets BOS in front; control tokens in it are text.
    let mut session = model.session();
    drop(session.generate_with("a</s>", greedy(1)).unwrap().text().unwrap());
    let bos = model.tokenizer().special().bos.unwrap();
    assert_eq!(session.tokens()[0], bos);
    assert!(!session.tokens()[1..session.tokens().len() - 1].contains(&model.tokenizer().special().eos.unwrap()));
}

#[test]
fn mistakes_are_errors() {
    let (model, ..) = golden();
    let mut session = model.session();
    assert!(session.generate_tokens(&[], greedy(1)).is_err());
    let error = session.generate_tokens(&[1, 320], greedy(1)).map(drop).unwrap_err().to_string();
    assert!(error.contains("320") && error.contains("below 320"), "{error}");
    assert!(Model::open(path("no-such-model.gguf")).unwrap_err().to_string().contains("no-such-model.gguf"));
    let embedder = Model::open(path("bert.gguf")).unwrap();
    let error = embedder.session().generate("a cat").map(drop).unwrap_err().to_string();
    assert!(error.contains("embed"), "{error}");
}

#[test]
fn replies_and_models_can_be_sent_to_threads() {
    fn sendable<T: Send>() {}
    fn shareable<T: Send + Sync>() {}
    shareable::<Model>();
    sendable::<kiln::Session>();
    sendable::<Reply<'static>>();
    let (model, prompt, expected) = golden();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (model, prompt, expected) = (model.clone(), &prompt, &expected);
            scope.spawn(move || {
                let mut session = model.session();
                session.generate_tokens(prompt, greedy(12)).unwrap().text().unwrap();
                assert_eq!(session.tokens()[prompt.len()..], expected[..12]);
            });
        }
    });
}

/// The golden model with its matrices in Q8_0, which can be packed.
fn quantized() -> Gguf {
    let file = Gguf::open(path("llama.gguf")).unwrap();
    let mut writer = GgufWriter::new();
    for (key, value) in file.metadata().iter() {
        writer.set(key, value).unwrap();
    }
    for tensor in file.tensors() {
        let data = file.data(tensor).unwrap();
        if tensor.shape().len() == 1 {
            writer.tensor(tensor.name(), tensor.shape(), tensor.tensor_type(), data).unwrap();
            continue;
        }
        let mut values = vec![0.0; tensor.elements() as usize];
        quant::decode(tensor.tensor_type(), &data, &mut values).unwrap();
        let mut bytes = vec![0; values.len() / 32 * 34];
        quant::encode(TensorType::Q8_0, &values, &mut bytes).unwrap();
        writer.tensor(tensor.name(), tensor.shape(), TensorType::Q8_0, bytes).unwrap();
    }
    let mut bytes = vec![];
    writer.write(&mut bytes).unwrap();
    Gguf::from_bytes(bytes).unwrap()
}

#[test]
fn without_packing_the_text_is_the_same_and_the_file_is_the_only_copy() {
    let (_, prompt, _) = golden();
    let load = |pack| Model::load(quantized(), &LoadOptions::new().pack(pack)).unwrap();
    let (packed, plain) = (load(true), load(false));
    assert_eq!((plain.memory().packed_bytes, packed.memory().weight_bytes), (0, plain.memory().weight_bytes));
    // All that a token reads is packed, but its row of the embedding table.
    let row_bytes = packed.program().weights[0].columns as u64 / 32 * 34;
    assert!(packed.memory().packed_bytes >= packed.token_bytes() - row_bytes, "{}", packed.memory());
    let [packed, plain] = [packed, plain].map(|model| {
        let mut session = model.session();
        session.generate_tokens(&prompt, greedy(20)).unwrap().text().unwrap();
        session.tokens().to_vec()
    });
    assert_eq!(packed, plain);
}

#[test]
fn threads_are_as_many_as_asked_for() {
    let (_, prompt, expected) = golden();
    for (asked, found) in [(0, 1), (1, 1), (3, 3)] {
        let model = LoadOptions::new().threads(asked).open(path("llama.gguf")).unwrap();
        assert_eq!(model.threads(), found);
        let mut session = model.session();
        session.generate_tokens(&prompt, greedy(5)).unwrap().text().unwrap();
        assert_eq!(session.tokens()[prompt.len()..], expected[..5]);
    }
}

#[test]
fn a_model_tells_its_size_and_its_plan() {
    let model = LoadOptions::new().context(64).sessions(3).open(path("llama.gguf")).unwrap();
    let file = Gguf::open(path("llama.gguf")).unwrap();
    let sum = |size: fn(&TensorInfo) -> u64| file.tensors().iter().map(size).sum::<u64>();
    let facts = model.facts();
    assert_eq!((facts.parameters, facts.weight_bytes), (sum(|t| t.elements()), sum(|t| t.size_bytes())));
    assert!(facts.to_string().starts_with("llama ") && facts.to_string().ends_with(&facts.recipe), "{facts}");
    // A token reads all matrices, and of the embedding table, which is not tied here, a row.
    let matrices = file.tensors().iter().filter(|t| t.shape().len() > 1 && t.name() != "token_embd.weight");
    let table = file.tensor("token_embd.weight").unwrap();
    assert!(file.tensor("output.weight").is_some());
    let read: u64 = matrices.map(|t| t.size_bytes()).sum::<u64>() + table.size_bytes() / table.shape()[1];
    assert_eq!(model.token_bytes(), read);
    // Half the context is half the cache, but for the page that is copied when sessions share it.
    let plan = model.memory();
    let half = LoadOptions::new().context(32).sessions(3).open(path("llama.gguf")).unwrap().memory().cache_bytes;
    assert!(plan.cache_bytes > half && plan.cache_bytes < 2 * half, "{plan}");
    assert!(plan.to_string().starts_with("weights ") && plan.to_string().contains("at full context"), "{plan}");
}

#[test]
fn statistics_tell_the_weights_that_were_read() {
    let (model, prompt, _) = golden();
    let mut session = model.session();
    let mut reply = session.generate_tokens(&prompt, greedy(10)).unwrap();
    assert!(reply.by_ref().all(|piece| piece.is_ok()));
    let statistics = reply.statistics();
    assert_eq!(statistics.token_bytes, model.token_bytes());
    let expected = 9.0 / statistics.generating.as_secs_f64() * model.token_bytes() as f64 / 1e9;
    assert!((statistics.gigabytes_per_second() / expected - 1.0).abs() < 1e-9, "{statistics:?}");
}

#[test]
fn logits_are_those_that_a_reply_chooses_by() {
    let (model, prompt, expected) = golden();
    let likeliest = |logits: Vec<f32>| {
        assert_eq!(logits.len(), model.program().vocabulary);
        (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
    };
    let mut session = model.session();
    assert_eq!(likeliest(session.logits(&prompt).unwrap()), expected[0]);
    assert_eq!(likeliest(session.logits(&[]).unwrap()), expected[0], "the last token is run again");
    assert_eq!(likeliest(session.logits(&expected[..2]).unwrap()), expected[2]);
    assert_eq!(session.tokens().len(), prompt.len() + 2);
    assert!(session.logits(&[1, 320]).is_err() && model.session().logits(&[]).is_err());
    session.generate_tokens(&expected[2..3], greedy(1)).unwrap().text().unwrap();
    assert_eq!(session.tokens()[prompt.len() + 3], expected[3]);
}
