//! JSON schemas on their way to the engine.
//!
//! The engine refuses most of what it cannot do. Here is refused what it would silently do otherwise, and it is told how
//! JSON is to be written.

use serde_json::{Map, Value, json};

/// White space between the parts of a value: a blank, or a line break and its indentation. Bounded, so that no model gets
/// lost in it.
const WHITE_SPACE: &str = r" |\n[ \t]{0,40}";

/// The letters that may follow a backslash. Without `u`: names of properties could be spelled in ways that the engine
/// does not see through.
const ESCAPES: &str = "nrbtf\\\"";

/// How deep a schema nests at most: far more than people write, and little enough for the stack of a thread, since the engine
/// follows it by recursion.
const MOST_DEPTH: usize = 200;

/// Keywords whose values are no schemas.
const PLAIN_VALUES: [&str; 5] = ["const", "enum", "default", "examples", "example"];

/// The schema with the engine's options in it, or what is wrong.
pub(super) fn prepare(schema: &Value) -> Result<Value, String> {
    check(schema, MOST_DEPTH)?;
    let mut keywords = match schema {
        Value::Bool(true) => Map::new(),
        Value::Object(keywords) => keywords.clone(),
        other => return Ok(other.clone()),
    };
    let options = json!({ "whitespace_pattern": WHITE_SPACE, "json_allowed_escapes": ESCAPES });
    keywords.insert("x-guidance".into(), options);
    Ok(Value::Object(keywords))
}

fn check(schema: &Value, depth_left: usize) -> Result<(), String> {
    let Some(depth_left) = depth_left.checked_sub(1) else { return Err(format!("deeper than {MOST_DEPTH} levels")) };
    match schema {
        Value::Array(items) => items.iter().try_for_each(|item| check(item, depth_left)),
        Value::Object(keywords) => {
            check_keywords(keywords)?;
            let parts = keywords.iter().filter(|(keyword, _)| !PLAIN_VALUES.contains(&&keyword[..]));
            parts.map(|(_, part)| part).try_for_each(|part| check(part, depth_left))
        }
        _ => Ok(()),
    }
}

fn check_keywords(keywords: &Map<String, Value>) -> Result<(), String> {
    // The draft that has the one has not the other, and the engine then forgets `prefixItems`.
    let is_list = |keyword| keywords.get(keyword).is_some_and(Value::is_array);
    if is_list("prefixItems") && (keywords.contains_key("additionalItems") || is_list("items")) {
        return Err("`prefixItems` beside keywords of older drafts is not supported; use `items` for the rest".into());
    }
    // Names that a model makes up may come twice, and then count once.
    let required = keywords.get("required").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let made_up = keywords.get("minProperties").and_then(Value::as_u64).map_or(0, |min| min.saturating_sub(required));
    if made_up > 1 {
        return Err("`minProperties` of more than one property that is not `required` is not supported".into());
    }
    Ok(())
}
