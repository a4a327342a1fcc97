//! Methods of Python's strings that the engine's own collection lacks.

use minijinja::Value;
use minijinja::value::Tuple;

/// Calls a method, if it is one of these and the arguments fit it.
pub(super) fn call(text: &str, name: &str, arguments: &[Value]) -> Option<Value> {
    let word = |index: usize| -> Option<&str> { arguments.get(index)?.as_str() };
    let number = |index: usize| arguments.get(index).and_then(|value| usize::try_from(value.clone()).ok());
    match (name, arguments.len()) {
        ("removeprefix", 1) => Some(text.strip_prefix(word(0)?).unwrap_or(text).into()),
        ("removesuffix", 1) => Some(text.strip_suffix(word(0)?).unwrap_or(text).into()),
        ("rsplit", 1 | 2) => rsplit(text, word(0)?, if arguments.len() == 2 { number(1) } else { None }),
        ("partition", 1) => Some(match text.split_once(word(0)?) {
            Some((before, behind)) => tuple([before, word(0)?, behind]),
            None => tuple([text, "", ""]),
        }),
        ("rpartition", 1) => Some(match text.rsplit_once(word(0)?) {
            Some((before, behind)) => tuple([before, word(0)?, behind]),
            None => tuple(["", "", text]),
        }),
        ("ljust", 1 | 2) => Some(padded(text, 0, room(text, number(0)?), word(1)).into()),
        ("rjust", 1 | 2) => Some(padded(text, room(text, number(0)?), 0, word(1)).into()),
        ("zfill", 1) => {
            let sign = text.len() - text.trim_start_matches(['+', '-']).len().max(text.len().saturating_sub(1));
            let (sign, digits) = text.split_at(sign);
            Some(format!("{sign}{}", padded(digits, room(text, number(0)?), 0, Some("0"))).into())
        }
        ("center", 1 | 2) => {
            let (room, width) = (room(text, number(0)?), number(0)?);
            // Python's choice where it is uneven.
            let left = room / 2 + (room & width & 1);
            Some(padded(text, left, room - left, word(1)).into())
        }
        ("swapcase", 0) => {
            let swap = |c: char| -> String {
                if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
            };
            Some(text.chars().map(swap).collect::<String>().into())
        }
        _ => None,
    }
}

/// Cuts from the right, at most so often.
fn rsplit(text: &str, separator: &str, most: Option<usize>) -> Option<Value> {
    if separator.is_empty() {
        return None;
    }
    let mut parts: Vec<&str> = match most {
        Some(most) => text.rsplitn(most.saturating_add(1), separator).collect(),
        None => text.rsplit(separator).collect(),
    };
    parts.reverse();
    Some(parts.into_iter().map(Value::from).collect())
}

fn tuple(parts: [&str; 3]) -> Value {
    Value::from(Tuple::from(parts.map(Value::from)))
}

/// How many characters a text lacks of a width.
fn room(text: &str, width: usize) -> usize {
    const MOST_WIDTH: usize = 10_000;
    width.min(MOST_WIDTH).saturating_sub(text.chars().count())
}

fn padded(text: &str, left: usize, right: usize, with: Option<&str>) -> String {
    let with = with.unwrap_or(" ");
    format!("{}{text}{}", with.repeat(left), with.repeat(right))
}
