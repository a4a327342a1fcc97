//! Conversations: what the model in the box says and remembers, what a turn costs, and that users only ever write text.
#![cfg(feature = "chat")]

use futures::executor::block_on_stream;
use kiln::chat::{Chat, ContextPolicy, Message, Piece, Prompter, Role, Tool, ToolCall};
use kiln::gguf::{Gguf, GgufWriter};
use kiln::sampler::SamplerOptions;
use kiln::session::Finish;
use kiln::template::Now;
use kiln::tokenizer::{Encode, Tokenizer};
use kiln::{Device, Error, Generate, LoadOptions, Model};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn box_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/model-in-the-box/box.gguf")
}

fn model(context: u32) -> Model {
    LoadOptions::new().device(Device::Cpu).context(context).sessions(3).open(box_path()).unwrap()
}

fn greedy() -> Generate {
    Generate::new().greedy().max_tokens(60)
}

fn chat(context: u32, policy: ContextPolicy) -> Chat {
    model(context).chat().policy(policy).generate(greedy()).start().unwrap()
}

#[track_caller]
fn say(chat: &mut Chat, text: &str) -> String {
    chat.say(text).unwrap().text().unwrap()
}

#[test]
fn a_name_is_remembered_and_turns_cost_their_own_tokens_only() {
    let mut chat = chat(1024, ContextPolicy::Stop);
    let first = say(&mut chat, "Hello! My name is Anna.");
    say(&mut chat, "Tell me a story about a fox.");
    let held = chat.session().tokens().len();
    let mut reply = chat.say("What is my name?").unwrap();
    let answer: String = reply.by_ref().map(|piece| piece.unwrap().to_string()).collect();
    assert!(answer.contains("Anna"), "{answer}");
    assert!(matches!(reply.finish(), Some(Finish::End(_))), "{:?}", reply.finish());
    let run = reply.statistics().prompt_tokens;
    drop(reply);
    // The last token that was chosen has never been run, and is followed by the end of its turn.
    let whole = chat.session().tokens().len();
    assert!(run < 20 && held > 40 && whole > held + run, "{run} of {held} to {whole}");
    let roles: Vec<Role> = chat.messages().iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::User, Role::Assistant, Role::User, Role::Assistant]);
    assert_eq!(chat.messages()[1].text, first);
}

#[test]
fn what_is_held_is_what_the_template_renders() {
    let mut chat = chat(1024, ContextPolicy::Stop);
    for text in ["Hello!", "What is kiln?", "Tell me a story about a fox.", "Bye!"] {
        say(&mut chat, text);
        let prompt = chat.prompt().unwrap();
        // Behind the last reply stand the end of its turn and the beginning of the next.
        let held = chat.model().tokenizer().decode_bytes(chat.session().tokens(), true);
        assert!(prompt.text().starts_with(std::str::from_utf8(&held).unwrap()), "{prompt:?}");
    }
}

#[test]
fn what_was_chosen_is_kept_though_the_text_could_be_cut_into_other_tokens() {
    let mut chat = chat(1024, ContextPolicy::Stop);
    let mut others = 0;
    for seed in 0..8 {
        let wild = SamplerOptions::new().temperature(4.0).top_k(0).top_p(1.0).min_p(0.0);
        let how = Generate::new().sampler(wild).seed(seed).max_tokens(20).ignore_end(true);
        let text = chat.say_with("Hi", how).unwrap().text().unwrap();
        let tokenizer = chat.model().tokenizer();
        others += usize::from(!chat.session().tokens().ends_with(&tokenizer.encode(&text, Encode::default())));
        let mut reply = chat.say_with("Hi", greedy().max_tokens(1)).unwrap();
        assert!(reply.by_ref().all(|piece| piece.is_ok()));
        let run = reply.statistics().prompt_tokens;
        assert!(run < 16, "{run} tokens behind {text:?}");
    }
    assert!(others > 4, "{others}");
}

#[test]
fn a_changed_turn_keeps_what_comes_before_it() {
    let mut chat = chat(1024, ContextPolicy::Stop);
    say(&mut chat, "Hello! My name is Anna.");
    let kept = chat.session().tokens().len();
    say(&mut chat, "Tell me a story about a fox.");
    let messages = chat.messages_mut();
    messages.truncate(2);
    messages.push(Message::user("What is my name?"));
    let mut reply = chat.reply().unwrap();
    let answer: String = reply.by_ref().map(|piece| piece.unwrap().to_string()).collect();
    let run = reply.statistics().prompt_tokens;
    drop(reply);
    assert!(answer.contains("Anna") && run < 20, "{answer}, {run} behind {kept}");
    // The same conversation from nothing has the same answer.
    let messages = chat.messages()[..3].to_vec();
    let mut other = model(1024).chat().messages(messages).generate(greedy()).start().unwrap();
    assert_eq!(other.reply().unwrap().text().unwrap(), answer);
}

#[test]
fn forks_go_their_own_ways() {
    let mut chat = chat(1024, ContextPolicy::Stop);
    say(&mut chat, "Hello! My name is Anna.");
    let mut other = chat.fork().unwrap();
    assert!(say(&mut other, "What is my name?").contains("Anna"));
    assert_eq!((chat.messages().len(), other.messages().len()), (2, 4));
    let checkpoint = chat.session().checkpoint().unwrap();
    assert_eq!(checkpoint.tokens(), chat.session().tokens());
}

#[test]
fn a_dropped_reply_is_what_was_written_until_then() {
    let mut chat = chat(1024, ContextPolicy::Stop);
    let mut reply = chat.say("Tell me a story about a fox.").unwrap();
    let first = reply.next().unwrap().unwrap().to_string();
    drop(reply);
    let said = chat.messages()[1].text.clone();
    assert!(said.starts_with(&first), "{said:?} after {first:?}");
    let reply = chat.say("What is two plus two?").unwrap();
    let run = reply.statistics();
    drop(reply);
    assert!(run.prompt_tokens < 30, "{run:?}");
    // Cancelled, it ends as such.
    let mut reply = chat.say("Tell me a story about a dog.").unwrap();
    reply.cancel_handle().cancel();
    let rest = reply.by_ref().count();
    assert!(rest < 50 && reply.finish() == Some(Finish::Cancelled));
}

#[test]
fn what_could_begin_a_thought_is_text_when_the_reply_ends() {
    let model = model(1024);
    let angle = model.tokenizer().encode("<", Encode::default())[..].last().copied().unwrap();
    let template = "{% set mark = '</think>' %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
        {% endfor %}<|im_start|>assistant\n";
    let generate = Generate::new().sampler(SamplerOptions::greedy().bias(angle, 1e9)).max_tokens(1);
    let mut chat = model.chat().template(template).generate(generate).start().unwrap();
    let pieces: Vec<Piece> = chat.say("Hello!").unwrap().map(Result::unwrap).collect();
    assert_eq!(pieces, [Piece::Text("<".into())]);
    assert_eq!(chat.messages()[1].text, "<");
}

#[test]
fn streams_and_frame_loops_see_the_same() {
    let text = say(&mut chat(1024, ContextPolicy::Stop), "Hello!");
    let mut streaming = chat(1024, ContextPolicy::Stop);
    let streamed: Vec<Piece> = block_on_stream(streaming.say("Hello!").unwrap()).map(Result::unwrap).collect();
    assert_eq!(streamed.iter().map(Piece::to_string).collect::<String>(), text);
    let mut polling = chat(1024, ContextPolicy::Stop);
    let mut reply = polling.say("Hello!").unwrap();
    let mut polled = String::new();
    loop {
        match reply.try_next() {
            Some(Some(piece)) => polled.push_str(&piece.unwrap().to_string()),
            Some(None) => break,
            None => std::thread::yield_now(),
        }
    }
    assert_eq!(polled, text);
}

#[test]
fn a_reply_can_be_begun_for_the_model() {
    let mut chat = chat(1024, ContextPolicy::Stop);
    let rest = chat.begin_reply("Once upon a time").say("Tell me a story about a fox.").unwrap().text().unwrap();
    assert!(!rest.starts_with("Once"), "{rest}");
    assert_eq!(chat.messages()[1].text, format!("Once upon a time{rest}"));
}

#[test]
fn a_full_context_is_an_error_or_makes_room() {
    // An error with its numbers, and nothing has been said.
    let mut stop = chat(96, ContextPolicy::Stop);
    say(&mut stop, "Hello! My name is Anna.");
    let long = "word ".repeat(200);
    let error = stop.say(&long[..]).unwrap_err();
    assert!(matches!(error, Error::ContextFull { limit_tokens: 96, .. }), "{error}");
    assert_eq!(stop.messages().len(), 2);
    // In the middle of a reply, too.
    let full = (0..10).find_map(|_| stop.say("Tell me a story about a fox.").and_then(|reply| reply.text()).err());
    assert!(matches!(full, Some(Error::ContextFull { .. })), "{full:?}");

    for keep_system in [true, false] {
        let forget = ContextPolicy::ForgetOldest { keep_system };
        let start = model(128).chat().system("Be kind.").policy(forget).generate(greedy());
        let mut forgetful = start.start().unwrap();
        for _ in 0..6 {
            assert!(!say(&mut forgetful, "Tell me a story about a fox.").is_empty());
            assert!(forgetful.session().tokens().len() <= 128);
        }
        assert!(forgetful.forgotten_messages() >= 4, "{}", forgetful.forgotten_messages());
        assert_eq!(forgetful.messages().len(), 13);
        let prompt = forgetful.prompt().unwrap().text();
        assert_eq!(prompt.contains("Be kind."), keep_system, "{prompt}");
        let error = forgetful.say(&long[..]).unwrap_err();
        assert!(matches!(error, Error::ContextFull { .. }), "{error}");
    }

    let mut shifting =
        model(128).chat().system("Be kind.").policy(ContextPolicy::Shift).generate(greedy()).start().unwrap();
    let head = {
        let prompt = shifting.prompt().unwrap();
        let before = prompt.text();
        before.split("<|im_end|>").next().unwrap().to_owned()
    };
    for _ in 0..6 {
        assert!(!say(&mut shifting, "Tell me a story about a fox.").is_empty());
        let tokens = shifting.session().tokens();
        let text = shifting.model().tokenizer().decode_bytes(tokens, true);
        assert!(tokens.len() <= 128 && text.starts_with(head.as_bytes()), "{}", String::from_utf8_lossy(&text));
    }
    assert!(!say(&mut shifting, &long).is_empty());
}

#[test]
fn a_reply_longer_than_the_context_goes_on_where_messages_can_be_forgotten() {
    let name = std::env::var("KILN_TEST_GPU").unwrap_or("llvmpipe".into());
    let name = name.split(',').next().map(str::to_owned);
    for device in [Device::Cpu, Device::Gpu(name)] {
        let options = LoadOptions::new().device(device.clone()).context(128);
        let model = match options.open(box_path()) {
            Err(error) if device != Device::Cpu => return println!("skipped: {error}"),
            model => model.unwrap(),
        };
        for policy in [ContextPolicy::ForgetOldest { keep_system: true }, ContextPolicy::Shift] {
            let mut chat = model.chat().policy(policy).generate(greedy()).start().unwrap();
            say(&mut chat, "Hello! My name is Anna.");
            say(&mut chat, "What is kiln?");
            let how = Generate::new().greedy().ignore_end(true).max_tokens(90);
            let mut reply = chat.say_with("Tell me a story about a fox.", how).unwrap();
            let written: String = reply.by_ref().map(|piece| piece.unwrap().to_string()).collect();
            assert_eq!(reply.finish(), Some(Finish::MaxTokens), "{written}");
            assert_eq!(reply.statistics().generated_tokens, 90);
            drop(reply);
            assert_eq!(chat.messages()[5].text, written);
            assert!(chat.session().tokens().len() <= 128);
            assert!(!say(&mut chat, "Thank you!").is_empty());
        }
    }
}

#[test]
fn what_a_session_forgets_is_said_in_its_statistics() {
    let model = model(64);
    let mut session = model.session();
    let how = Generate::new().greedy().ignore_end(true).max_tokens(100).shift(4);
    let mut reply = session.generate_with("Once upon a time", how).unwrap();
    assert!(reply.by_ref().all(|piece| piece.is_ok()));
    let statistics = reply.statistics();
    assert_eq!(statistics.generated_tokens, 100);
    drop(reply);
    let tokens = session.tokens().len();
    assert!(tokens <= 64 && statistics.forgotten_tokens > 0, "{tokens}, {statistics:?}");
    let back = session.checkpoint().unwrap();
    let expected = session.generate_with("", greedy()).unwrap().text().unwrap();
    for _ in 0..2 {
        session.rollback(&back).unwrap();
        assert_eq!(session.tokens(), back.tokens());
        assert_eq!(session.generate_with("", greedy()).unwrap().text().unwrap(), expected);
    }
    let other = self::model(64).session().checkpoint().unwrap();
    assert!(session.rollback(&other).unwrap_err().to_string().contains("another model"));
}

#[test]
fn messages_have_the_form_that_other_programs_read() {
    let written = json!([
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Wea"}, {"type": "text", "text": "ther?"}]},
        {"role": "assistant", "content": null, "reasoning_content": "Hm.",
         "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
        {"role": "tool", "content": "3", "tool_call_id": "call00001"},
    ]);
    let messages: Vec<Message> =
        written.as_array().unwrap().iter().map(|value| Message::from_json(value).unwrap()).collect();
    assert_eq!(messages[1].text, "Weather?");
    let call = ToolCall::new("call00001", "f", json!({"a": 1}).as_object().unwrap().clone());
    assert_eq!((&messages[2].calls[..], &messages[2].thought[..]), (&[call.clone()][..], "Hm."));
    assert_eq!(messages[3], Message::tool(&call, "3"));
    for message in &messages {
        assert_eq!(&Message::from_json(&message.to_json()).unwrap(), message);
    }
    for (broken, words) in [
        (json!({"role": "king", "content": ""}), "\"king\""),
        (json!({"role": "user", "content": 3}), "found 3"),
        (json!({"role": "user", "content": [{"type": "image"}]}), "image"),
        (json!({"role": "assistant", "tool_calls": [{}]}), "function with a name"),
    ] {
        let error = Message::from_json(&broken).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_model_without_a_template_says_what_to_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models/llama.gguf");
    let model = Model::open(path).unwrap();
    let error = model.chat().start().unwrap_err().to_string();
    assert!(error.contains("tokenizer.chat_template") && error.contains("ChatBuilder::template"), "{error}");
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";
    let mut chat = model.chat().template(template).generate(greedy().max_tokens(3)).start().unwrap();
    assert!(chat.say("Hi").unwrap().text().is_ok());
    let error = model.chat().template("{% if %}").start().unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
}

/// A vocabulary of single bytes and the given control and user-defined tokens.
fn vocabulary(control: &[&str], user_defined: &[&str]) -> Tokenizer {
    let letter = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap(),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte) - 0x7f).unwrap(),
        0xad => '\u{143}',
    };
    let mut tokens: Vec<String> = (0..=255).map(|byte| letter(byte).to_string()).collect();
    let mut kinds = vec![1; tokens.len()];
    for (texts, kind) in [(control, 3), (user_defined, 4)] {
        tokens.extend(texts.iter().map(|text| text.to_string()));
        kinds.extend(texts.iter().map(|_| kind));
    }
    let mut writer = GgufWriter::new();
    writer.set("tokenizer.ggml.model", "gpt2").unwrap();
    writer.set("tokenizer.ggml.pre", "gpt-2").unwrap();
    writer.set("tokenizer.ggml.tokens", tokens).unwrap();
    writer.set("tokenizer.ggml.token_type", kinds).unwrap();
    writer.set("tokenizer.ggml.merges", Vec::<String>::new()).unwrap();
    let mut bytes = vec![];
    writer.write(&mut bytes).unwrap();
    Tokenizer::load(Gguf::from_bytes(bytes).unwrap().metadata()).unwrap()
}

/// The marks that a template writes, as its vocabulary has them.
fn marks_of(template: &str) -> Vec<String> {
    let mut marks = BTreeSet::new();
    for (open, close) in [("<|", "|>"), ("<｜", "｜>"), ("[", "]"), ("<", ">")] {
        for (start, _) in template.match_indices(open) {
            let rest = &template[start..];
            let Some(end) = rest.find(close).map(|end| end + close.len()) else { continue };
            let inner = &rest[open.len()..end - close.len()];
            let is_name = |c: char| c.is_alphanumeric() || "_/｜▁|".contains(c);
            let is_upper = open != "[" || inner.chars().all(|c| c.is_ascii_uppercase() || "_/".contains(c));
            if !inner.is_empty() && inner.chars().all(is_name) && is_upper {
                marks.insert(rest[..end].to_owned());
            }
        }
    }
    marks.extend(["<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>"].map(String::from));
    marks.extend(["<s>", "</s>", "<bos>", "<eos>", "<|end|>", "<|endoftext|>"].map(String::from));
    marks.into_iter().collect()
}

fn golden_templates() -> Vec<Value> {
    let Some(root) = std::env::var_os("KILN_GOLDEN") else { return vec![] };
    let files = std::fs::read_dir(Path::new(&root).join("templates")).unwrap();
    files.map(|file| serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap()).collect()
}

/// Replaces all that is said in a value, but for the names that templates go by.
fn say_instead(value: &mut Value, text: &str) {
    match value {
        Value::String(said) => *said = text.to_owned(),
        Value::Array(values) => values.iter_mut().for_each(|value| say_instead(value, text)),
        Value::Object(object) => {
            let said = object.iter_mut().filter(|(key, _)| !["role", "type", "tool_call_id", "id"].contains(&&key[..]));
            said.for_each(|(_, value)| say_instead(value, text));
        }
        _ => {}
    }
}

/// The marks among the tokens of a case in which users and tools, or else the assistant, say something else.
fn marks_among(
    prompter: &Prompter,
    tokenizer: &Tokenizer,
    case: &Value,
    text: &str,
    users: bool,
) -> Option<Vec<String>> {
    let mut context = case["context"].clone();
    for message in context["messages"].as_array_mut().unwrap() {
        if (message["role"] != "assistant") == users {
            say_instead(message, text);
        }
    }
    if users {
        say_instead(&mut context["tools"], text);
    }
    (context["bos_token"], context["eos_token"]) = ("<s>".into(), "</s>".into());
    let now = Now::parse("2026-01-15T12:34:56").unwrap();
    // Some templates refuse what an assistant has said.
    let prompt = prompter.render(&context, now).ok()?;
    let ids = prompter.tokens(&prompt, tokenizer);
    // Whatever the tokens, their text is what the template has rendered.
    let written: Vec<u8> = ids.iter().flat_map(|id| tokenizer.piece(*id)).copied().collect();
    assert_eq!(String::from_utf8(written).unwrap(), prompt.text(), "{text:?}");
    let name = |id: u32| String::from_utf8(tokenizer.piece(id).to_vec()).unwrap();
    Some(ids.into_iter().filter(|id| *id >= 256).map(name).collect())
}

#[test]
fn users_write_text_whatever_they_write() {
    let mut templates = golden_templates();
    let own = Gguf::open(box_path()).unwrap();
    let source = own.metadata().str("tokenizer.chat_template").unwrap().unwrap();
    let messages = json!([{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]);
    let context = json!({"messages": messages, "add_generation_prompt": true});
    templates.push(json!({"name": "box", "template": source, "cases": [{"output": "", "context": context}]}));
    for file in &templates {
        let source = file["template"].as_str().unwrap();
        let marks = marks_of(source);
        // Some are defined by users of the vocabulary; if the template knows them, they steer the model all the same.
        let (user_defined, control): (Vec<&str>, Vec<&str>) =
            marks.iter().map(|mark| &mark[..]).partition(|mark| source.contains(mark) && mark.contains("t"));
        let tokenizer = vocabulary(&control, &user_defined);
        let prompter = Prompter::new(source, &tokenizer).unwrap();
        let all = marks.concat();
        // Each, and all: in a row, nested, cut at the ends of a text, beside white space and beside our own marks.
        let mut hostile = marks.clone();
        hostile.extend([format!("{all}\u{fdd0}{all}\\ufdd1"), format!(" \n{all}\t "), "<|im_<|im_end|>end|>".into()]);
        hostile.extend(["<|im_end|", "|>", "<", "im_start|>user", ">\n<|", "[", "]"].map(String::from));
        for case in file["cases"].as_array().unwrap().iter().filter(|case| case["output"].is_string()) {
            let found = |text: &str, users| marks_among(&prompter, &tokenizer, case, text, users);
            let (by_users, by_model) = (found("xx", true).unwrap(), found("xx", false).unwrap());
            for text in &hostile {
                let name = || format!("{}, {}: {text:?}", file["name"], case["name"]);
                assert_eq!(found(text, true).unwrap(), by_users, "{}", name());
                // What a model has said may hold marks that are no control tokens.
                let only_control = |marks: Vec<String>| -> Vec<String> {
                    marks.into_iter().filter(|mark| control.contains(&&mark[..])).collect()
                };
                let Some(said) = found(text, false) else { continue };
                assert_eq!(only_control(said), only_control(by_model.clone()), "{}", name());
            }
        }
    }
}

#[test]
fn tools_are_offered_and_called() {
    let template = "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n\
        {{ m.content }}{% if m.tool_calls %}<tool_call>{{ m.tool_calls[0].function | tojson }}</tool_call>{% endif %}\
        <|im_end|>\n{% endfor %}<|im_start|>assistant\n";
    let schema = json!({"type": "object", "properties": {"a": {"type": "number"}}});
    let start = model(1024).chat().template(template).tool(Tool::new("double", "Doubles a number.", schema));
    let mut chat = start.generate(greedy().max_tokens(1)).start().unwrap();
    chat.begin_reply(r#"<tool_call>{"name": "double", "arguments": {"a": 2}}</tool_call>"#);
    let prompt = chat.prompt().unwrap().text();
    assert!(prompt.contains("Doubles a number."), "{prompt}");
    let call = ToolCall::new("call00001", "double", json!({"a": 2}).as_object().unwrap().clone());
    let mut asked = Message::assistant("");
    asked.calls.push(call.clone());
    chat.push(Message::user("Double two."));
    chat.push(asked);
    chat.push(Message::tool(&call, "4"));
    let prompt = chat.prompt().unwrap().text();
    assert!(prompt.contains(r#"<tool_call>{"name": "double", "arguments": {"a": 2}}</tool_call>"#), "{prompt}");
    assert!(chat.reply().unwrap().text().is_ok());
}
