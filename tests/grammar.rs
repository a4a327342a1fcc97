//! Structured output: whatever a model would say, what it says conforms.
//!
//! Two models: the small one that comes with kiln, which has learned English, and one of random weights, which would say
//! anything. Greedily, and by chance at a temperature at which both babble.

#![cfg(feature = "grammar")]

#[cfg(feature = "gpu")]
mod gpu;
mod json_shape;

use json_shape::Pattern;
use kiln::gguf::{Gguf, GgufWriter};
use kiln::grammar::{Grammar, Matcher, Vocabulary};
use kiln::sampler::SamplerOptions;
use kiln::session::Finish;
use kiln::tokenizer::Tokenizer;
use kiln::{CacheFormat, Device, Error, Generate, LoadOptions, Model};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

const SEEDS: u64 = 6;
const MOST_TOKENS: usize = 300;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn open(name: &str) -> Model {
    LoadOptions::new()
        .device(Device::Cpu)
        .context(512)
        .cache_format(CacheFormat::F32)
        .threads(1)
        .open(path(name))
        .unwrap()
}

static BOX: LazyLock<Model> = LazyLock::new(|| open("examples/model-in-the-box/box.gguf"));
static RANDOM: LazyLock<Model> = LazyLock::new(|| open("tests/golden/models/llama.gguf"));

/// The ways to choose: greedily, and by chance with some seeds.
fn ways() -> impl Iterator<Item = Generate> {
    let by_chance = |seed| {
        let options = SamplerOptions::new().temperature(1.5).top_k(0).top_p(1.0).min_p(0.0);
        Generate::new().sampler(options).seed(seed)
    };
    let all = std::iter::once(Generate::new().greedy()).chain((0..SEEDS).map(by_chance));
    all.map(|how| how.max_tokens(MOST_TOKENS))
}

/// The text of a reply, its tokens, and why it ended.
fn reply(model: &Model, how: Generate) -> (String, Vec<u32>, Finish) {
    let mut session = model.session();
    let prompt = session.generate_with("Tell me: ", how.clone().max_tokens(0)).unwrap();
    drop(prompt);
    let held = session.tokens().len();
    let mut reply = session.generate_tokens(&[], how).unwrap();
    let text: String = reply.by_ref().map(Result::unwrap).collect();
    let finish = reply.finish().unwrap();
    drop(reply);
    (text, session.tokens()[held..].to_vec(), finish)
}

/// Replies of both models in all ways, those that came to their end. At least `share` of all do.
fn whole_replies(grammar: Grammar, share: f64) -> Vec<String> {
    let (mut whole, mut all) = (vec![], 0);
    for model in [&*BOX, &*RANDOM] {
        for how in ways() {
            let (text, tokens, finish) = reply(model, how.grammar(grammar.clone()));
            assert!(!tokens.iter().any(|&token| model.tokenizer().is_control(token)), "{text}");
            all += 1;
            match finish {
                Finish::End(_) | Finish::Complete => whole.push(text),
                other => assert_eq!(other, Finish::MaxTokens),
            }
        }
    }
    let enough = whole.len() as f64 >= share * f64::from(all);
    assert!(enough, "{} of {all} replies came to their end: {grammar:?}", whole.len());
    whole
}

fn is_plate(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 6
        && bytes[..2].iter().all(u8::is_ascii_uppercase)
        && bytes[2] == b'-'
        && bytes[3..].iter().all(u8::is_ascii_digit)
}

fn is_accented(text: &str) -> bool {
    (2..=5).contains(&text.chars().count()) && text.chars().all(|c| "éü日本".contains(c))
}

const PATTERNS: [Pattern; 3] =
    [("^[A-Z]{2}-[0-9]{3}$", is_plate), ("^[éü日本]{2,5}$", is_accented), ("x[0-9]", has_x_digit)];

fn has_x_digit(text: &str) -> bool {
    text.as_bytes().windows(2).any(|pair| pair[0] == b'x' && pair[1].is_ascii_digit())
}

/// Schemas, and which share of replies has to come to an end within the tokens.
fn schemas() -> Vec<(f64, Value)> {
    let point = json!({ "type": "object", "properties": { "x": { "type": "integer", "minimum": -5, "maximum": 5 } },
        "required": ["x"], "additionalProperties": false });
    let short = json!({ "type": "string", "maxLength": 8 });
    vec![
        (1.0, json!({ "enum": ["red", "green", 3, null, "a\"b\\c", [1, { "k": "v" }]] })),
        (1.0, json!({ "const": { "kind": "é日本", "level": 7 } })),
        (1.0, point.clone()),
        (1.0, json!({ "type": "integer", "minimum": 17, "maximum": 1234 })),
        (1.0, json!({ "type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": 4 })),
        (1.0, json!({ "type": "integer", "minimum": 0, "maximum": 999, "multipleOf": 7 })),
        (0.5, json!({ "type": "number", "minimum": 0.5, "maximum": 2.25 })),
        (1.0, json!({ "type": "boolean" })),
        (1.0, json!({ "type": ["integer", "null"], "minimum": 1, "maximum": 99 })),
        (1.0, json!({ "type": "string", "minLength": 3, "maxLength": 12 })),
        (1.0, json!({ "type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$" })),
        (1.0, json!({ "type": "string", "pattern": "^[éü日本]{2,5}$" })),
        (0.8, json!({ "type": "string", "pattern": "x[0-9]", "maxLength": 20 })),
        (0.8, json!({ "type": "array", "items": { "enum": ["a", "b"] }, "minItems": 2, "maxItems": 4 })),
        (
            0.8,
            json!({ "type": "array", "items": { "type": "array", "items": { "type": "boolean" }, "minItems": 1,
            "maxItems": 2 }, "minItems": 1, "maxItems": 3 }),
        ),
        (
            0.8,
            json!({ "type": "array", "prefixItems": [{ "const": "head" }, { "type": "boolean" }],
            "items": { "type": "integer", "minimum": 0, "maximum": 9 }, "minItems": 2, "maxItems": 5 }),
        ),
        (
            0.8,
            json!({ "anyOf": [point.clone(), { "type": "null" }, { "type": "array", "items": point, "maxItems": 2 }] }),
        ),
        (
            0.8,
            json!({ "oneOf": [
            { "type": "object", "properties": { "kind": { "const": "cat" }, "lives": { "type": "integer", "minimum": 1,
                "maximum": 9 } }, "required": ["kind", "lives"], "additionalProperties": false },
            { "type": "object", "properties": { "kind": { "const": "dog" }, "name": short }, "required": ["kind", "name"],
                "additionalProperties": false }] }),
        ),
        (
            0.5,
            json!({ "$defs": { "node": { "type": "object", "properties": { "value": { "type": "integer", "minimum": 0,
            "maximum": 9 }, "next": { "anyOf": [{ "$ref": "#/$defs/node" }, { "type": "null" }] } },
            "required": ["value", "next"], "additionalProperties": false } }, "$ref": "#/$defs/node" }),
        ),
        (
            0.8,
            json!({ "type": "object", "properties": { "name": short, "nick": short, "age": { "type": "integer",
            "minimum": 0, "maximum": 150 } }, "required": ["name"], "additionalProperties": false }),
        ),
        (
            0.0,
            json!({ "type": "object", "properties": { "id": { "type": "integer" } }, "required": ["id"],
            "additionalProperties": { "type": "boolean" } }),
        ),
        (0.0, json!({ "type": "object", "properties": { "id": { "type": "integer" } }, "required": ["id", "extra"] })),
        (0.8, json!({ "allOf": [{ "type": "integer", "minimum": 10 }, { "maximum": 20 }] })),
        (
            0.8,
            json!({ "type": "object", "properties": { "a": { "type": "boolean" }, "b": { "type": "boolean" } },
            "minProperties": 1, "additionalProperties": false }),
        ),
    ]
}

#[test]
fn replies_conform_to_schemas() {
    for (share, schema) in schemas() {
        for text in whole_replies(Grammar::json_schema(&schema).unwrap(), share) {
            let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{schema}"));
            json_shape::check(&value, &schema, &schema, &PATTERNS).unwrap_or_else(|error| panic!("{error}\n{schema}"));
        }
    }
}

#[test]
fn any_json_is_json() {
    for text in whole_replies(Grammar::json(), 0.1) {
        // JSON has numbers that no float holds.
        let read = serde_json::from_str::<Value>(&text).map(drop).map_err(|error| error.to_string());
        assert!(
            read.as_ref().map_or_else(|error| error.contains("number out of range"), |()| true),
            "{read:?}: {text}"
        );
    }
}

#[test]
fn regular_expressions_match_the_whole_reply() {
    type Case = (&'static str, f64, fn(&str) -> bool);
    let cases: [Case; 7] = [
        ("[0-9]{3}-[0-9]{4}", 1.0, |text| {
            let digits = |part: &str, count| part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit());
            text.split_once('-').is_some_and(|(a, b)| digits(a, 3) && digits(b, 4))
        }),
        ("yes|no", 1.0, |text| ["yes", "no"].contains(&text)),
        ("", 1.0, str::is_empty),
        ("(é|日本){1,4}!", 1.0, |text| {
            let body = text.strip_suffix('!').unwrap_or_default();
            let count = body.matches('é').count() + body.matches("日本").count();
            (1..=4).contains(&count) && body.replace('é', "").replace("日本", "").is_empty()
        }),
        ("a+/\\\\[a-c]\n", 0.3, |text| {
            let rest = text.trim_start_matches('a');
            rest.len() < text.len() && ["/\\a\n", "/\\b\n", "/\\c\n"].contains(&rest)
        }),
        ("^(ab|c)$", 1.0, |text| ["ab", "c"].contains(&text)),
        (r"\w{1,6}\.", 0.9, |text| {
            let word = text.strip_suffix('.').unwrap_or_default();
            (1..=6).contains(&word.chars().count())
                && word.chars().all(|c| c == '_' || c.is_alphanumeric() || !c.is_ascii())
        }),
    ];
    for (expression, share, matches) in cases {
        for text in whole_replies(Grammar::regex(expression).unwrap(), share) {
            assert!(matches(&text), "{text:?} for {expression}");
        }
    }
}

/// The value of a sum of products, if it is one.
fn calculate(text: &str) -> Option<f64> {
    let (value, rest) = sum(text)?;
    rest.is_empty().then_some(value)
}

fn sum(text: &str) -> Option<(f64, &str)> {
    let (mut value, mut rest) = product(text)?;
    while let Some(sign) = rest.chars().next().filter(|c| "+-".contains(*c)) {
        let (next, after) = product(&rest[1..])?;
        (value, rest) = (if sign == '+' { value + next } else { value - next }, after);
    }
    Some((value, rest))
}

fn product(text: &str) -> Option<(f64, &str)> {
    let (mut value, mut rest) = atom(text)?;
    while let Some(after) = rest.strip_prefix('*') {
        let (next, after) = atom(after)?;
        (value, rest) = (value * next, after);
    }
    Some((value, rest))
}

fn atom(text: &str) -> Option<(f64, &str)> {
    if let Some(inner) = text.strip_prefix('(') {
        let (value, rest) = sum(inner)?;
        return Some((value, rest.strip_prefix(')')?));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

#[test]
fn a_lark_grammar_of_sums_gives_sums() {
    let sums = r#"
        start: product (("+" | "-") product)*
        product: atom ("*" atom)*
        atom: NUMBER | "(" start ")"
        NUMBER: /[0-9]{1,3}/
    "#;
    for text in whole_replies(Grammar::lark(sums).unwrap(), 0.3) {
        assert!(calculate(&text).is_some(), "{text}");
    }
}

#[test]
fn the_builder_methods_hold_and_the_start_of_a_reply_tells_what_is_wrong() {
    let schema = json!({ "type": "integer", "minimum": 5, "maximum": 9 });
    let (text, _, finish) = reply(&BOX, Generate::new().greedy().json_schema(&schema));
    assert!((5..=9).contains(&text.parse::<i64>().unwrap()), "{text}");
    assert_eq!(finish, Finish::Complete, "one digit, and nothing can follow");
    assert!(["yes", "no"].contains(&&reply(&BOX, Generate::new().greedy().regex("yes|no")).0[..]));
    assert_eq!(reply(&BOX, Generate::new().greedy().lark("start: \"só\"")).0, "só");
    // The last one counts, and descriptions compare as they were written.
    let last = Generate::new().regex("a").lark("start: \"b\"");
    assert_eq!(last, Generate::new().grammar(Grammar::lark("start: \"b\"").unwrap()));
    assert_eq!(reply(&RANDOM, last).0, "b");

    let mut session = BOX.session();
    let wrong = Generate::new().json_schema(&json!({ "not": { "type": "null" } }));
    let error = session.generate_with("Hello", wrong).map(drop).unwrap_err();
    assert!(matches!(&error, Error::Grammar { reason, .. } if reason.contains("`not`")), "{error}");
    assert!(session.tokens().is_empty(), "nothing was begun");
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let schemas = [
        (json!({ "not": { "type": "null" } }), "`not`"),
        (json!({ "type": "array", "uniqueItems": true }), "`uniqueItems`"),
        (json!({ "type": "array", "contains": { "const": 1 } }), "`contains`"),
        (json!({ "type": "object", "properties": { "a": { "if": {}, "then": false } } }), "`if`, `then`"),
        (json!({ "type": "object", "propertyNames": { "maxLength": 3 } }), "`propertyNames`"),
        (json!({ "type": "object", "dependentRequired": { "a": ["b"] } }), "`dependentRequired`"),
        (json!({ "type": "object", "unevaluatedProperties": false }), "`unevaluatedProperties`"),
        (json!({ "oneOf": [{ "type": "integer", "minimum": 1 }, { "type": "integer", "maximum": 5 }] }), "`oneOf`"),
        (json!({ "type": "object", "minProperties": 2 }), "`minProperties`"),
        (json!({ "type": "array", "prefixItems": [true], "additionalItems": false }), "`prefixItems`"),
        (json!({ "$ref": "https://example.org/schema" }), "https://example.org/schema"),
        (json!({ "$ref": "#/$defs/missing" }), "missing"),
        (json!({ "type": "string", "format": "nonsense" }), "nonsense"),
        (json!({ "type": "whatever" }), "whatever"),
        (json!({ "type": "string", "minLength": -1 }), "minLength"),
        (json!({ "type": "string", "pattern": "(" }), "("),
        (json!({ "type": "string", "minLength": 5, "maxLength": 4 }), "minLength"),
        (json!({ "type": "integer", "minimum": "five" }), "minimum"),
        (json!({ "type": "integer", "minimum": 5, "maximum": 4 }), "minimum"),
        (json!({ "x-guidance": { "lenient": true }, "not": {} }), "`not`"),
        (json!(false), "false"),
        (json!(7), "object or boolean"),
        (json!({ "enum": [] }), "empty"),
        // Its engine panics at this one, which is nobody's end.
        (json!({ "type": "number", "minimum": format!("{}é", "x".repeat(98)) }), "engine"),
        (nested(1000), "deep"),
    ];
    for (schema, named) in schemas {
        let error = Grammar::json_schema(&schema).unwrap_err();
        let Error::Grammar { subject, reason } = &error else { panic!("{error}") };
        assert!(subject == "JSON schema" && reason.contains(named), "{named} is not in: {error}");
    }
    for (expression, named) in
        [("(", "("), ("[a", "["), ("a\\", "backslash"), ("a(?=b)", "look"), ("a^b", "look"), ("a{5,2}", "repetition")]
    {
        let error = Grammar::regex(expression).unwrap_err();
        assert!(matches!(&error, Error::Grammar { reason, .. } if reason.contains(named)), "{expression}: {error}");
    }
    let deep = format!("start: {}\"a\"{}", "(".repeat(100_000), ")".repeat(100_000));
    let bytes = "%llguidance {\"allow_invalid_utf8\": true}\nstart: /(?s-u:.)/";
    for (grammar, named) in [
        ("", "start"),
        (bytes, "allow_invalid_utf8"),
        ("start: \"a", "1"),
        ("start: other", "other"),
        (&deep[..], "nest"),
    ] {
        let error = Grammar::lark(grammar).unwrap_err();
        assert!(matches!(&error, Error::Grammar { reason, .. } if reason.contains(named)), "{error}");
    }
}

/// An array of arrays of arrays.
fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(true), |items, _| json!({ "items": items, "type": "array" }))
}

#[test]
fn schemas_of_the_allowed_depth_do_not_exhaust_a_stack() {
    Grammar::json_schema(&nested(199)).unwrap();
}

#[test]
fn a_limit_of_tokens_cuts_a_text_short() {
    let schema =
        json!({ "type": "array", "items": { "type": "integer", "minimum": 100, "maximum": 999 }, "minItems": 50 });
    let (text, tokens, finish) = reply(&BOX, Generate::new().greedy().json_schema(&schema).max_tokens(10));
    assert_eq!((finish, tokens.len()), (Finish::MaxTokens, 10));
    assert!(text.starts_with('[') && serde_json::from_str::<Value>(&text).is_err(), "{text}");
    // A text that is complete with the last token is complete.
    let (text, tokens, finish) = reply(&BOX, Generate::new().greedy().regex("[0-9]").max_tokens(1));
    assert_eq!((text.len(), tokens.len(), finish), (1, 1, Finish::Complete));
}

#[test]
fn a_stop_text_still_stops() {
    let how = Generate::new().greedy().regex("[0-9]{2}:[0-9]{2}").stop(":");
    let (text, _, finish) = reply(&BOX, how);
    assert_eq!((text.len(), finish), (2, Finish::Stop(":".into())));
}

#[test]
fn where_the_end_is_ignored_only_the_grammar_ends() {
    for seed in 0..20 {
        let how = Generate::new().sampler(SamplerOptions::new().temperature(1.5)).seed(seed).ignore_end(true);
        let (text, _, finish) = reply(&BOX, how.regex("[ab]{1,5}"));
        assert_eq!((text.len(), finish), (5, Finish::Complete), "{text}");
    }
}

#[test]
fn tokens_that_are_ruled_out_twice_leave_an_error() {
    let vocabulary = BOX.tokenizer().token_count();
    let digits = (0..vocabulary).filter(|&token| BOX.tokenizer().piece(token).iter().any(u8::is_ascii_digit));
    let how = Generate::new().sampler(SamplerOptions::greedy().suppress(digits)).regex("[0-9]");
    let last = BOX.session().generate_with("Hello", how).unwrap().last().unwrap();
    assert!(matches!(last, Err(Error::Sampler { .. })), "{last:?}");
    // And a mask that meets logits of which none is finite.
    let mut matcher = matcher(&Grammar::regex("[0-9]").unwrap(), BOX.tokenizer());
    let mask = matcher.mask().unwrap().unwrap();
    let error = mask.restrict(&mut vec![f32::NEG_INFINITY; vocabulary as usize]).unwrap_err();
    assert!(matches!(error, Error::Grammar { .. }), "{error}");
}

fn matcher(grammar: &Grammar, tokenizer: &Tokenizer) -> Matcher {
    Matcher::new(grammar, &Arc::new(Vocabulary::new(tokenizer).unwrap())).unwrap()
}

#[test]
fn a_session_goes_on_behind_a_structured_reply() {
    let mut session = BOX.session();
    let text =
        session.generate_with("The answer is ", Generate::new().greedy().regex("[0-9]{2}")).unwrap().text().unwrap();
    assert_eq!(text.len(), 2);
    let held = BOX.tokenizer().decode(session.tokens());
    assert!(held.ends_with(&format!("The answer is {text}")), "{held}");
    let free = session.generate_with(" and", Generate::new().greedy().max_tokens(3)).unwrap();
    assert!(free.text().is_ok());
}

/// The tokens that another matcher, which goes on from here, would take one by one.
fn tried(matcher: &Matcher, tokens: u32) -> Vec<u32> {
    (0..tokens).filter(|&token| matcher.clone().accept(token).is_ok()).collect()
}

#[test]
fn masks_are_the_tokens_that_can_be_accepted() {
    let grammars = [
        Grammar::json(),
        Grammar::json_schema(&schemas()[19].1).unwrap(),
        Grammar::regex("(é|日本|[a-f]+ ?){1,9}").unwrap(),
        Grammar::lark("start: (\"ab\" | \"a\" start | /[0-9]+/)+").unwrap(),
    ];
    let mut compared = 0;
    for model in [&*BOX, &*RANDOM] {
        let tokenizer = model.tokenizer();
        for (grammar, seed) in grammars.iter().flat_map(|grammar| (1..4).map(move |seed| (grammar, seed))) {
            let mut matcher = matcher(grammar, tokenizer);
            let mut draw = seed * 7919;
            for _ in 0..12 {
                let Some(mask) = matcher.mask().unwrap() else { break };
                let allowed: Vec<u32> = mask.iter().collect();
                assert_eq!(allowed, tried(&matcher, tokenizer.token_count()), "{grammar:?}");
                assert!((0..tokenizer.token_count() + 99).all(|token| mask.allows(token) == allowed.contains(&token)));
                compared += 1;
                draw = draw * 1_103_515_245_usize % 2_147_483_647 + 12345;
                let goes_on = allowed.iter().filter(|&&token| !tokenizer.special().ends_generation(token));
                let goes_on: Vec<u32> = goes_on.copied().collect();
                let Some(&token) = goes_on.get(draw % goes_on.len().max(1)) else { break };
                matcher.accept(token).unwrap();
            }
        }
    }
    assert!(compared > 100, "{compared}");
}

/// Accepts a text byte by byte, as a vocabulary with a token for each byte can. Whether all was taken.
fn takes(matcher: &mut Matcher, tokenizer: &Tokenizer, text: &str) -> bool {
    text.bytes().all(|byte| {
        let token = (0..tokenizer.token_count()).find(|&token| tokenizer.piece(token) == [byte]);
        matcher.accept(token.unwrap_or_else(|| panic!("no token of byte {byte}"))).is_ok()
    })
}

#[test]
fn texts_end_where_they_may_and_nowhere_else() {
    let tokenizer = RANDOM.tokenizer();
    let end = tokenizer.special().end_of_generation[0];
    let mut matcher = matcher(&Grammar::regex("ab?c?").unwrap(), tokenizer);
    assert!(!matcher.may_end().unwrap() && !matcher.mask().unwrap().unwrap().allows(end));
    assert!(takes(&mut matcher, tokenizer, "a"));
    assert!(matcher.may_end().unwrap() && !matcher.must_end() && matcher.mask().unwrap().unwrap().allows(end));
    let mut ended = matcher.clone();
    ended.accept(end).unwrap();
    assert!(ended.must_end());
    assert!(takes(&mut matcher, tokenizer, "bc"));
    assert!(matcher.must_end() && matcher.may_end().unwrap() && matcher.mask().unwrap().is_none());
    // Errors say where, and what may come is not lost by asking in vain.
    let error = matcher.accept(7).unwrap_err();
    assert!(error.to_string().contains("after 3 tokens"), "{error}");
}

#[test]
fn json_is_written_so_that_no_name_can_hide() {
    let tokenizer = RANDOM.tokenizer();
    let schema = json!({ "type": "object", "properties": { "age": { "type": "integer" } } });
    let accepts = |text: &str| takes(&mut matcher(&Grammar::json_schema(&schema).unwrap(), tokenizer), tokenizer, text);
    assert!(accepts("{\"age\": 5, \"name\": \"x\"}") && accepts("{\"aged\":\"yes\"}") && accepts("{\n  \"age\": 1\n}"));
    // An escape would spell the name past its schema; twice the name would, too.
    assert!(!accepts("{\"\\u0061ge\":\"x\"}") && !accepts("{\"age\":\"x\"}") && !accepts("{\"age\":1,\"age\":"));
    // White space ends.
    assert!(!accepts(&format!("{{\"age\":{}1}}", " ".repeat(100))) && !accepts("{\n\n"));
}

#[test]
fn control_tokens_come_only_where_a_grammar_names_them() {
    let tokenizer = BOX.tokenizer();
    let named = tokenizer.token("<|im_start|>").unwrap();
    let mut as_text = matcher(&Grammar::lark("start: \"<|im_start|>\"").unwrap(), tokenizer);
    assert!(!as_text.mask().unwrap().unwrap().allows(named));
    let mut named_as_such = matcher(&Grammar::lark("start: <|im_start|> \"a\"").unwrap(), tokenizer);
    assert_eq!(named_as_such.mask().unwrap().unwrap().iter().collect::<Vec<_>>(), [named]);
    let unknown = Grammar::lark("start: <|nothing|>").unwrap();
    let error = Matcher::new(&unknown, &Arc::new(Vocabulary::new(tokenizer).unwrap())).unwrap_err();
    assert!(error.to_string().contains("<|nothing|>"), "{error}");
}

/// A vocabulary of SentencePiece with what files do wrong: an end that says it is text, two tokens of the same bytes, a byte
/// that no text has, and a token that is far too long.
#[test]
fn odd_tokens_are_never_chosen_for_what_they_are_not() {
    let long = "a".repeat(5000);
    let tokens = ["a", "b", "stop", "a", "<0xFF>", &long, "<0x61>", "\u{2581}a", "unused", "<|tool|>"];
    let kinds = [1, 1, 1, 1, 6, 1, 6, 1, 5, 3];
    let mut writer = GgufWriter::new();
    writer.set("tokenizer.ggml.model", "llama").unwrap();
    writer.set("tokenizer.ggml.tokens", tokens.map(String::from).to_vec()).unwrap();
    writer.set("tokenizer.ggml.scores", vec![0_f32; tokens.len()]).unwrap();
    writer.set("tokenizer.ggml.token_type", kinds.to_vec()).unwrap();
    writer.set("tokenizer.ggml.bos_token_id", 8_u32).unwrap();
    writer.set("tokenizer.ggml.unknown_token_id", 8_u32).unwrap();
    writer.set("tokenizer.ggml.eos_token_id", 2_u32).unwrap();
    let mut bytes = vec![];
    writer.write(&mut bytes).unwrap();
    let tokenizer = Tokenizer::load(Gguf::from_bytes(bytes).unwrap().metadata()).unwrap();
    let masked = |matcher: &mut Matcher| matcher.mask().unwrap().unwrap().iter().collect::<Vec<_>>();
    let mut letters = matcher(&Grammar::regex("[ -z]+").unwrap(), &tokenizer);
    assert_eq!(masked(&mut letters), [0, 1, 3, 6, 7]);
    letters.accept(6).unwrap();
    assert_eq!(masked(&mut letters), [0, 1, 2, 3, 6, 7], "now it may end");
    assert_eq!(masked(&mut matcher(&Grammar::lark("start: <|tool|>").unwrap(), &tokenizer)), [9]);
    // What the vocabulary cannot write is an error when it is needed, not a wrong token.
    let mut other = matcher(&Grammar::regex("ac").unwrap(), &tokenizer);
    other.accept(3).unwrap();
    let error = other.mask().unwrap_err();
    assert!(error.to_string().contains("no token of the vocabulary"), "{error}");
}

#[cfg(feature = "gpu")]
#[test]
fn a_gpu_gives_the_same_reply_and_its_loss_does_not_end_the_grammar() {
    let schema = json!({ "type": "array", "items": { "enum": ["one", "two", 3] }, "minItems": 9, "maxItems": 12 });
    let seeded = |seed| Generate::new().sampler(SamplerOptions::new().temperature(1.5)).seed(seed);
    for how in [Generate::new().greedy(), seeded(1), seeded(2)] {
        let Some(gpu) = gpu::open(&Default::default()).pop() else { return };
        let how = how.json_schema(&schema);
        let expected = RANDOM.session().generate_with("Hi", how.clone()).unwrap().text().unwrap();
        let file = Gguf::open(path("tests/golden/models/llama.gguf")).unwrap();
        let options = LoadOptions::new().context(512).cache_format(CacheFormat::F32);
        let model = Model::load_on(file, &options, std::slice::from_ref(&gpu)).unwrap();
        let mut session = model.session();
        let mut reply = session.generate_with("Hi", how).unwrap();
        let mut text: String = (0..3).filter_map(|_| reply.next()?.ok()).collect();
        gpu.device().destroy();
        let (rest, errors): (Vec<_>, Vec<_>) = reply.partition(Result::is_ok);
        text.extend(rest.into_iter().map(Result::unwrap));
        assert!(matches!(&errors[..], [Err(Error::GpuLost { .. })]), "{errors:?}");
        text.extend(session.resume().unwrap().map(Result::unwrap));
        assert_eq!(text, expected);
        let value: Value = serde_json::from_str(&text).unwrap();
        json_shape::check(&value, &schema, &schema, &[]).unwrap();
    }
}

/// Vocabularies of every algorithm that generates, and what is odd about them.
#[test]
fn every_small_vocabulary_masks_what_it_can_write() {
    for name in ["rwkv-small", "gemma4-small", "whitespace-small", "rstrip-small", "lstrip-small", "t5-small"] {
        let file = Gguf::open(path(&format!("tests/golden/tokenizers/{name}.gguf"))).unwrap();
        let tokenizer = Tokenizer::load(file.metadata()).unwrap();
        let mut matcher = matcher(&Grammar::regex("[a-z ]{1,12}").unwrap(), &tokenizer);
        let mask = matcher.mask().unwrap().unwrap();
        let fits = |token| {
            let piece = tokenizer.piece(token);
            let special = tokenizer.is_control(token) || tokenizer.special().ends_generation(token);
            !special
                && (1..=12).contains(&piece.len())
                && piece.iter().all(|&byte| byte == b' ' || byte.is_ascii_lowercase())
        };
        let expected: Vec<u32> = (0..tokenizer.token_count()).filter(|&token| fits(token)).collect();
        assert!(expected.len() > 5, "{name}: {expected:?}");
        assert_eq!(mask.iter().collect::<Vec<_>>(), expected, "{name}");
    }
}
