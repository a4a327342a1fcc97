//! A validator of JSON schemas that knows just the keywords of the tests, and fails on any other.

use serde_json::Value;

/// What a pattern means, written by hand: so that no engine judges itself.
pub type Pattern = (&'static str, fn(&str) -> bool);

/// Why a value does not conform.
pub fn check(value: &Value, schema: &Value, root: &Value, patterns: &[Pattern]) -> Result<(), String> {
    let keywords = match schema {
        Value::Bool(true) => return Ok(()),
        Value::Bool(false) => return Err(format!("{value} where nothing may be")),
        Value::Object(keywords) => keywords,
        other => panic!("not a schema: {other}"),
    };
    let fits = |schema: &Value| check(value, schema, root, patterns);
    for (keyword, wanted) in keywords {
        let list = || wanted.as_array().unwrap();
        let ok = match &keyword[..] {
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|one| is_type(value, one.as_str().unwrap())),
                one => is_type(value, one.as_str().unwrap()),
            },
            "enum" => list().iter().any(|one| same(value, one)),
            "const" => same(value, wanted),
            "anyOf" => list().iter().any(|one| fits(one).is_ok()),
            "oneOf" => list().iter().filter(|one| fits(one).is_ok()).count() == 1,
            "allOf" => list().iter().all(|one| fits(one).is_ok()),
            "$ref" => {
                let path = wanted.as_str().unwrap().strip_prefix('#').unwrap();
                fits(root.pointer(path).unwrap()).map_err(|error| format!("{path}: {error}"))?;
                true
            }
            "$defs" | "$schema" | "title" | "description" => true,
            _ => match value {
                Value::String(text) => check_string(text, keyword, wanted, patterns),
                Value::Number(_) => check_number(value.as_f64().unwrap(), keyword, wanted.as_f64()),
                Value::Array(items) => check_array(items, keywords, keyword, wanted, root, patterns)?,
                Value::Object(_) => check_object(value, keywords, keyword, wanted, root, patterns)?,
                _ => true,
            },
        };
        if !ok {
            return Err(format!("{value} is against `{keyword}`: {wanted}"));
        }
    }
    Ok(())
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("not a type: {other}"),
    }
}

/// Equal, and numbers whether written with a point or not.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn check_string(text: &str, keyword: &str, wanted: &Value, patterns: &[Pattern]) -> bool {
    let length = text.chars().count() as u64;
    match keyword {
        "minLength" => length >= wanted.as_u64().unwrap(),
        "maxLength" => length <= wanted.as_u64().unwrap(),
        "pattern" => {
            let matches = patterns.iter().find(|(pattern, _)| wanted == pattern);
            matches.unwrap_or_else(|| panic!("no matcher for {wanted}")).1(text)
        }
        other => others(other),
    }
}

fn check_number(number: f64, keyword: &str, wanted: Option<f64>) -> bool {
    let bound = |holds: fn(&f64, &f64) -> bool| holds(&number, &wanted.unwrap());
    match keyword {
        "minimum" => bound(f64::ge),
        "maximum" => bound(f64::le),
        "exclusiveMinimum" => bound(f64::gt),
        "exclusiveMaximum" => bound(f64::lt),
        "multipleOf" => number % wanted.unwrap() == 0.0,
        other => others(other),
    }
}

type Keywords = serde_json::Map<String, Value>;

fn check_array(
    items: &[Value],
    keywords: &Keywords,
    keyword: &str,
    wanted: &Value,
    root: &Value,
    patterns: &[Pattern],
) -> Result<bool, String> {
    let count = items.len() as u64;
    Ok(match keyword {
        "minItems" => count >= wanted.as_u64().unwrap(),
        "maxItems" => count <= wanted.as_u64().unwrap(),
        "prefixItems" => {
            let mut pairs = items.iter().zip(wanted.as_array().unwrap());
            pairs.try_for_each(|(item, schema)| check(item, schema, root, patterns))?;
            true
        }
        "items" => {
            let first = keywords.get("prefixItems").map_or(0, |first| first.as_array().unwrap().len());
            items.iter().skip(first).try_for_each(|item| check(item, wanted, root, patterns))?;
            true
        }
        other => others(other),
    })
}

fn check_object(
    value: &Value,
    keywords: &Keywords,
    keyword: &str,
    wanted: &Value,
    root: &Value,
    patterns: &[Pattern],
) -> Result<bool, String> {
    let members = value.as_object().unwrap();
    let none = Keywords::new();
    let named = keywords.get("properties").map_or(&none, |named| named.as_object().unwrap());
    Ok(match keyword {
        "required" => wanted.as_array().unwrap().iter().all(|name| members.contains_key(name.as_str().unwrap())),
        "properties" => {
            for (name, schema) in named {
                members.get(name).map_or(Ok(()), |member| check(member, schema, root, patterns))?;
            }
            true
        }
        "additionalProperties" => {
            let mut others = members.iter().filter(|(name, _)| !named.contains_key(&name[..]));
            others.try_for_each(|(_, member)| check(member, wanted, root, patterns))?;
            true
        }
        "minProperties" => members.len() as u64 >= wanted.as_u64().unwrap(),
        "maxProperties" => members.len() as u64 <= wanted.as_u64().unwrap(),
        other => others(other),
    })
}

/// Keywords that say nothing of a value of another type.
fn others(keyword: &str) -> bool {
    const KNOWN: &[&str] = &[
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "prefixItems",
        "items",
        "required",
        "properties",
        "additionalProperties",
        "minProperties",
        "maxProperties",
    ];
    assert!(KNOWN.contains(&keyword), "the validator does not know `{keyword}`");
    true
}
