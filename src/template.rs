//! Chat templates: the little programs that models bring along to turn a conversation into the text that they were
//! trained on.
//!
//! They are written for Jinja2 as Python programs run it, and render here to the same bytes: blocks are trimmed, strings
//! have Python's methods, values print as Python's do, JSON is written as its `json` module writes it, and
//! `raise_exception`, `strftime_now` and `{% generation %}` are there. A template comes from a file that anybody may have
//! made, so it cannot open others, may take only so many steps, and may write only so much.

mod json;
mod python;
mod strings;
mod time;

pub use time::Now;

use crate::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use std::io::{self, Write};

/// The longest template.
const MOST_SOURCE_BYTES: usize = 4 << 20;
/// The most that one may write.
const MOST_OUTPUT_BYTES: usize = 64 << 20;
/// The most steps that one may take.
const MOST_STEPS: u64 = 20_000_000;

/// A template that is ready to be rendered.
#[derive(Debug, Clone)]
pub struct Template {
    environment: Environment<'static>,
}

impl Template {
    /// Reads a template.
    ///
    /// ```
    /// use kiln::template::{Now, Template};
    ///
    /// let template = Template::new("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}")?;
    /// let context = serde_json::json!({ "messages": [{ "role": "user", "content": "Hello!" }] });
    /// assert_eq!(template.render(&context, Now::utc())?, "<user>Hello!\n");
    /// # Ok::<(), kiln::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Template`] if it is too long, or no Jinja.
    pub fn new(source: &str) -> Result<Self> {
        if source.len() > MOST_SOURCE_BYTES {
            let reason = format!("found {} bytes, expected at most {MOST_SOURCE_BYTES}", source.len());
            return Err(Error::Template { line: None, reason });
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(wrong)?;
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(MOST_STEPS));
        environment.set_unknown_method_callback(python::method);
        environment.set_formatter(python::print);
        environment.add_filter("tojson", json::filter);
        environment.add_filter("indent", python::indent);
        environment.add_filter("wordcount", python::word_count);
        environment.add_test("iterable", python::is_iterable);
        environment.add_test("sequence", python::is_sequence);
        environment.add_test("number", python::is_number);
        environment.add_function("raise_exception", raise);
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(wrong)?;
        Ok(Template { environment })
    }

    /// What the template makes of a context: an object with what templates know, as `messages`, `tools`,
    /// `add_generation_prompt` and `bos_token`. `now` is what it takes for the time.
    ///
    /// # Errors
    /// [`Error::Template`] if the template refuses the conversation, or goes wrong.
    pub fn render(&self, context: &serde_json::Value, now: Now) -> Result<String> {
        let mut environment = self.environment.clone();
        environment.add_function("strftime_now", move |format: &str| now.format(format));
        let mut output = Output { bytes: vec![] };
        let template = environment.get_template(NAME).map_err(wrong)?;
        template.render_captured_to(json::value(context), &mut output).map_err(wrong)?;
        String::from_utf8(output.bytes)
            .map_err(|error| Error::Template { line: None, reason: format!("found {error}, expected text") })
    }
}

const NAME: &str = "chat";

/// What has been written, as long as it is not too much.
struct Output {
    bytes: Vec<u8>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MOST_OUTPUT_BYTES {
            return Err(io::Error::other(format!("found more than {MOST_OUTPUT_BYTES} bytes of output")));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets a template refuse a conversation.
fn raise(reason: &str) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason.to_owned()))
}

fn wrong(error: minijinja::Error) -> Error {
    let line = error.line();
    let reason = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => format!("found more than {MOST_STEPS} steps, expected an end"),
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    Error::Template { line, reason }
}

/// Marks of what an assistant says are for training: they become blocks that do nothing.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        text.push_str(before);
        let Some(end) = tag[2..].find("%}") else {
            rest = tag;
            break;
        };
        let (tag, behind) = tag.split_at(end + 4);
        let inner = tag[2..end + 2].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
        match inner.trim() {
            "generation" => text.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => text.push_str(&tag.replace("endgeneration", "endif")),
            _ => text.push_str(tag),
        }
        rest = behind;
    }
    text.push_str(rest);
    text
}
