//! What can be asked for with a slash, and conversations in files.

use kiln::chat::{Message, Role};
use serde_json::Value;
use std::error::Error;
use std::path::{Path, PathBuf};

/// A line that begins with a slash.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    System(Option<String>),
    Reset,
    Save(PathBuf),
    Load(PathBuf),
    Stats,
    Model(Option<PathBuf>),
    Quit,
}

/// All of them, to be completed.
pub const NAMES: [&str; 8] = ["/help", "/system", "/reset", "/save", "/load", "/stats", "/model", "/quit"];

impl Command {
    /// Reads a line, if it is a command.
    pub fn parse(line: &str) -> Option<Result<Self, String>> {
        let line = line.trim();
        if !line.starts_with('/') || line.starts_with("//") {
            return None;
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = Some(rest.trim()).filter(|rest| !rest.is_empty());
        let file = || rest.map(PathBuf::from).ok_or_else(|| format!("{name}: found nothing, expected a file"));
        Some(match (name, rest) {
            ("/help" | "/?", None) => Ok(Command::Help),
            ("/system", rest) => Ok(Command::System(rest.map(str::to_owned))),
            ("/reset", None) => Ok(Command::Reset),
            ("/save", _) => file().map(Command::Save),
            ("/load", _) => file().map(Command::Load),
            ("/stats", None) => Ok(Command::Stats),
            ("/model", rest) => Ok(Command::Model(rest.map(PathBuf::from))),
            ("/quit" | "/exit" | "/bye", None) => Ok(Command::Quit),
            (name, Some(rest)) if NAMES.contains(&name) => Err(format!("{name}: found {rest:?}, expected nothing")),
            (name, _) => Err(format!("found {name}, expected one of {}", NAMES.join(" "))),
        })
    }
}

/// Changes what the system says.
pub fn set_system(messages: &mut Vec<Message>, text: &str) {
    match messages.first_mut().filter(|message| message.role == Role::System) {
        Some(message) => message.text = text.to_owned(),
        None => messages.insert(0, Message::system(text)),
    }
}

/// Writes a conversation, in the form that other programs read too. A file that is there is replaced as a whole.
pub fn save(path: &Path, messages: &[Message]) -> Result<(), Box<dyn Error>> {
    let list: Value = messages.iter().map(Message::to_json).collect();
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let written = std::fs::write(&new, format!("{list:#}\n")).and_then(|()| std::fs::rename(&new, path));
    written.map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Reads a conversation: a list of messages, or an object that has one as `messages`.
pub fn load(path: &Path) -> Result<Vec<Message>, Box<dyn Error>> {
    let read = || -> Result<Vec<Message>, Box<dyn Error>> {
        let value: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        let list = value.get("messages").unwrap_or(&value);
        let list = list.as_array().ok_or("found no list, expected the messages of a conversation")?;
        Ok(list.iter().map(Message::from_json).collect::<kiln::Result<_>>()?)
    };
    read().map_err(|error| format!("{}: {error}", path.display()).into())
}
