//! What templates expect of Python: how values print, and methods that values have there.

use super::strings;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value};

/// Writes a value as Python's `str` does.
pub(super) fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    if value.is_undefined() {
        return Ok(());
    }
    let written = match value.as_str() {
        Some(text) => out.write_str(text),
        None => out.write_str(&text_of(value)),
    };
    written.map_err(|_| Error::new(ErrorKind::WriteFailure, "found more output than is allowed"))
}

/// A value as Python's `str` gives it.
pub(super) fn text_of(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => repr(value, 0),
    }
}

/// A value as Python's `repr` gives it.
fn repr(value: &Value, depth: usize) -> String {
    const MOST_DEPTH: usize = 100;
    if depth > MOST_DEPTH {
        return "...".into();
    }
    match value.kind() {
        ValueKind::None => "None".into(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.into(),
        ValueKind::Number => number(value),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<String> =
                value.try_iter().into_iter().flatten().map(|item| repr(&item, depth + 1)).collect();
            match (value.is_tuple(), &items[..]) {
                (true, [item]) => format!("({item},)"),
                (true, _) => format!("({})", items.join(", ")),
                _ => format!("[{}]", items.join(", ")),
            }
        }
        ValueKind::Map => {
            let pair = |key: Value| {
                let field = value.get_item(&key).unwrap_or_default();
                format!("{}: {}", repr(&key, depth + 1), repr(&field, depth + 1))
            };
            let pairs: Vec<String> = value.try_iter().into_iter().flatten().map(pair).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        _ => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            letter if letter == quote => out.extend(['\\', quote]),
            letter if letter.is_control() => out.push_str(&format!("\\x{:02x}", letter as u32)),
            letter => out.push(letter),
        }
    }
    out.push(quote);
    out
}

/// A number as Python writes it: floats always with a point or an exponent.
pub(super) fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(float) = f64::try_from(value.clone()) else { return value.to_string() };
    if !float.is_finite() {
        return if float.is_nan() {
            "NaN"
        } else if float > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        }
        .into();
    }
    let exponent = if float == 0.0 { 0.0 } else { float.abs().log10().floor() };
    if (-4.0..16.0).contains(&exponent) {
        return format!("{float:?}");
    }
    // As in 1e-05 and 1.5e+20.
    let text = format!("{float:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// Methods that values have in Python.
pub(super) fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    match value.as_str().and_then(|text| strings::call(text, name, arguments)) {
        Some(result) => Ok(result),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

/// Whether Python can iterate over a value, which it can over what is undefined, too.
pub(super) fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || value.kind() == ValueKind::Iterable
}

/// Whether a value has a length and items.
pub(super) fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Undefined)
}

/// Whether a value is a number, as true and false are to Python.
pub(super) fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

/// Indents the lines of a text, but for the first and for empty ones unless these are asked for.
pub(super) fn indent(
    text: &str,
    width: Option<Value>,
    first: Option<Value>,
    blank: Option<Value>,
    named: Kwargs,
) -> Result<String, Error> {
    const MOST_WIDTH: usize = 1000;
    let or_named = |value: Option<Value>, name| value.map_or_else(|| named.get(name), |value| Ok(Some(value)));
    let (width, first, blank) = (or_named(width, "width")?, or_named(first, "first")?, or_named(blank, "blank")?);
    named.assert_all_used()?;
    let is_asked = |value: &Option<Value>| value.as_ref().is_some_and(Value::is_true);
    let indentation = match width {
        None => " ".repeat(4),
        Some(width) => match width.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(width)?.min(MOST_WIDTH)),
        },
    };
    let lines = text.split('\n').enumerate().map(|(index, line)| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let is_wanted = if index == 0 { is_asked(&first) } else { !line.is_empty() || is_asked(&blank) };
        if is_wanted { format!("{indentation}{line}") } else { line.to_owned() }
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// How many words a text has.
pub(super) fn word_count(text: &str) -> usize {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).count()
}
