//! JSON, as Python's `json` module writes it, and from JSON to values of templates.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// The filter `tojson`: by default on one line, with a space behind commas and colons, and no letter escaped that need not
/// be.
pub(super) fn filter(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<Value>>("indent")?,
    };
    let indent = indent.filter(|indent| !indent.is_none()).and_then(|indent| indent.as_usize());
    let only_ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let separators = options.get::<Option<Value>>("separators")?.filter(|pair| !pair.is_none());
    options.assert_all_used()?;
    let mut style = Style { indent, only_ascii, sorted, comma: ", ".into(), colon: ": ".into() };
    if indent.is_some() {
        style.comma = ",".into();
    }
    if let Some(pair) = separators {
        style.comma = pair.get_item_by_index(0)?.to_string();
        style.colon = pair.get_item_by_index(1)?.to_string();
    }
    let mut text = String::new();
    write(value, &style, 0, &mut text)?;
    Ok(Value::from(text))
}

struct Style {
    indent: Option<usize>,
    only_ascii: bool,
    sorted: bool,
    comma: String,
    colon: String,
}

/// Deeper than any conversation.
const MOST_DEPTH: usize = 200;

fn write(value: &Value, style: &Style, depth: usize, text: &mut String) -> Result<(), Error> {
    if depth > MOST_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("found JSON deeper than {MOST_DEPTH}")));
    }
    match value.kind() {
        ValueKind::None => text.push_str("null"),
        ValueKind::Bool => text.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => text.push_str(&super::python::number(value)),
        ValueKind::String => quote(value.as_str().unwrap_or_default(), style.only_ascii, text),
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sorted {
                keys.sort();
            }
            brackets(('{', '}'), keys.into_iter(), style, depth, text, |key, text| {
                match key.as_str() {
                    Some(key) => quote(key, style.only_ascii, text),
                    None => quote(&super::python::text_of(&key), style.only_ascii, text),
                }
                text.push_str(&style.colon);
                write(&value.get_item(&key)?, style, depth + 1, text)
            })?;
        }
        ValueKind::Seq | ValueKind::Iterable => {
            brackets(('[', ']'), value.try_iter()?, style, depth, text, |item, text| {
                write(&item, style, depth + 1, text)
            })?;
        }
        kind => {
            let what = format!("found {kind}, expected what JSON has");
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
    }
    Ok(())
}

fn brackets(
    (open, close): (char, char),
    items: impl Iterator<Item = Value>,
    style: &Style,
    depth: usize,
    text: &mut String,
    mut each: impl FnMut(Value, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |depth: usize, text: &mut String| {
        if let Some(indent) = style.indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent.min(64) * depth));
        }
    };
    text.push(open);
    let mut is_empty = true;
    for item in items {
        if !is_empty {
            text.push_str(&style.comma);
        }
        line(depth + 1, text);
        each(item, text)?;
        is_empty = false;
    }
    if !is_empty {
        line(depth, text);
    }
    text.push(close);
    Ok(())
}

fn quote(from: &str, only_ascii: bool, text: &mut String) {
    text.push('"');
    for letter in from.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            letter if letter < ' ' || (only_ascii && !letter.is_ascii()) => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
            letter => text.push(letter),
        }
    }
    text.push('"');
}

/// A value that templates can use.
pub(super) fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => Value::from(value),
            (None, Some(value), _) => Value::from(value),
            (None, None, value) => Value::from(value.unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(value).collect(),
        serde_json::Value::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(key, field)| (key.as_str(), value(field))))
        }
    }
}
