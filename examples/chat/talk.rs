//! A conversation in a terminal.

mod commands;
mod editor;

use crate::Args;
use crate::progress::{Bar, Unit};
use crate::stream::{Stop, finish_words, statistics_line};
use crate::wrap::Wrap;
use commands::Command;
use editor::{Editor, Input};
use kiln::chat::{Chat, ChatReply, Message, Piece, Role};
use kiln::session::{Finish, Statistics};
use kiln::{Error as KilnError, Model};
use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Prompts that take longer get a bar.
const SOON: Duration = Duration::from_millis(500);
/// How often a reply is looked at while nothing has come of it.
const LOOK: Duration = Duration::from_millis(5);

const HELP: &str = "\
/help           this
/system [TEXT]  show or change what the model is told first
/reset          forget what has been said
/save FILE      write the conversation to a file
/load FILE      go on with one
/stats          what the last reply cost, and who computes
/model [FILE]   show the model, or go on with another one
/quit           end; so does Ctrl-D
//...           say something that begins with a slash
Ctrl-C stops a reply. A line that ends in \\ goes on in the next.";

/// What a conversation begins with.
pub fn beginning(args: &Args) -> Result<Vec<Message>, Box<dyn Error>> {
    let mut messages = args.load.as_deref().map(commands::load).transpose()?.unwrap_or_default();
    if let Some(text) = &args.system {
        commands::set_system(&mut messages, text);
    }
    Ok(messages)
}

/// Talks until the user ends it.
pub fn run(args: &Args, model: Model) -> Result<(), Box<dyn Error>> {
    let stop = Stop::new()?;
    let file = args.model.clone();
    let chat = args.chat(&model)?.messages(beginning(args)?).start()?;
    let mut talk = Talk { args, file, chat, stop, editor: Editor::new()?, colors: args.has_colors(), last: None };
    talk.greet()?;
    loop {
        let prompt = talk.painted("> ", BOLD);
        let said = match talk.editor.read(("> ", prompt))? {
            Input::Line(text) => text,
            Input::Interrupted => {
                println!("Ctrl-D or /quit ends.");
                continue;
            }
            Input::End => break,
        };
        match Command::parse(&said) {
            None if said.trim().is_empty() => {}
            None => talk.say(&said),
            Some(Ok(Command::Quit)) => break,
            // Whatever fails, the conversation goes on.
            Some(command) => {
                if let Err(error) = command.map_err(Into::into).and_then(|command| talk.obey(command)) {
                    talk.complain(&*error);
                }
            }
        }
    }
    Ok(())
}

const PLAIN: &str = "0";
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";

struct Talk<'a> {
    args: &'a Args,
    /// The model's, if it is not one of those that need none.
    file: Option<PathBuf>,
    chat: Chat,
    stop: Stop,
    editor: Editor,
    colors: bool,
    last: Option<(Statistics, Option<Finish>)>,
}

impl Talk<'_> {
    fn greet(&mut self) -> io::Result<()> {
        self.tell(&self.name(), BOLD)?;
        self.tell("/help lists what can be done. Ctrl-C stops a reply, Ctrl-D ends.", DIM)?;
        if self.file.is_none() && self.args.hub.hf.is_none() {
            let words = "This is a very small model, for a first try: ask it for a story, a sum, or what kiln is.";
            self.tell(words, DIM)?;
        }
        Ok(())
    }

    /// Says something of its own.
    fn tell(&mut self, text: &str, code: &str) -> io::Result<()> {
        let (mut out, mut wrap, width) = (io::stdout().lock(), Wrap::default(), self.editor.columns());
        if self.colors {
            write!(out, "\x1b[{code}m")?;
        }
        wrap.print(&mut out, text, width)?;
        if self.colors {
            write!(out, "\x1b[0m")?;
        }
        wrap.finish(&mut out)
    }

    /// Which model, and where it runs.
    fn name(&self) -> String {
        let model = self.chat.model();
        let devices: Vec<String> = model.plan().parts.iter().map(|part| part.device.clone()).collect();
        format!("{}: {}; on {}", self.args.name_of(self.file.as_deref()), model.facts(), devices.join(" and "))
    }

    fn painted(&self, text: &str, code: &str) -> String {
        if self.colors { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn complain(&self, error: &dyn Error) {
        eprintln!("{}", self.painted(&format!("error: {error}"), RED));
    }

    /// Says something and prints the reply; goes on once if a GPU is lost.
    fn say(&mut self, text: &str) {
        let text = text.strip_prefix('/').filter(|rest| rest.starts_with('/')).unwrap_or(text);
        let mut result = self.chat.say(text).map_err(Into::into).and_then(|reply| {
            let mut show = Show { editor: &mut self.editor, colors: self.colors, wrap: Wrap::default(), thinks: false };
            show.reply(reply, &self.stop)
        });
        if let Err(error) = &result
            && matches!(error.downcast_ref(), Some(KilnError::GpuLost { .. }))
        {
            self.complain(&**error);
            result = self.chat.resume().map_err(Into::into).and_then(|reply| {
                let mut show =
                    Show { editor: &mut self.editor, colors: self.colors, wrap: Wrap::default(), thinks: false };
                show.reply(reply, &self.stop)
            });
        }
        match result {
            Ok(last) => {
                if last.1 == Some(Finish::Cancelled) {
                    println!("{}", self.painted("(stopped)", DIM));
                }
                self.last = Some(last);
            }
            Err(error) => self.complain(&*error),
        }
        println!();
    }

    fn obey(&mut self, command: Command) -> Result<(), Box<dyn Error>> {
        match command {
            Command::Help => self.tell(HELP, PLAIN)?,
            Command::System(None) => {
                let system = self.chat.messages().iter().find(|message| message.role == Role::System);
                let text = system.map_or("The model is told nothing.", |message| &message.text[..]).to_owned();
                self.tell(&text, PLAIN)?;
            }
            Command::System(Some(text)) => {
                commands::set_system(self.chat.messages_mut(), &text);
                println!("From now on the model is told that.");
            }
            Command::Reset => {
                self.chat.messages_mut().retain(|message| message.role == Role::System);
                println!("All forgotten.");
            }
            Command::Save(path) => {
                commands::save(&path, self.chat.messages())?;
                println!("{} messages written to {}.", self.chat.messages().len(), path.display());
            }
            Command::Load(path) => {
                let messages = commands::load(&path)?;
                println!("{} messages read from {}.", messages.len(), path.display());
                *self.chat.messages_mut() = messages;
            }
            Command::Stats => self.tell(&self.statistics(), PLAIN)?,
            Command::Model(None) => self.tell(&format!("{}\n{}", self.name(), self.chat.model().memory()), PLAIN)?,
            Command::Model(Some(path)) => {
                self.change_model(&path)?;
                self.tell(&self.name(), PLAIN)?;
            }
            Command::Quit => {}
        }
        Ok(())
    }

    /// The same conversation with another model.
    fn change_model(&mut self, path: &Path) -> Result<(), Box<dyn Error>> {
        let model = self.args.open(Some(path))?;
        self.chat = self.args.chat(&model)?.messages(self.chat.messages().iter().cloned()).start()?;
        self.file = Some(path.to_owned());
        self.last = None;
        Ok(())
    }

    /// What the last reply cost, and who computes.
    fn statistics(&self) -> String {
        let last = match &self.last {
            Some((statistics, finish)) => {
                format!("{}: {}", statistics_line(statistics), finish_words(finish.as_ref()))
            }
            None => "Nothing has been said yet".into(),
        };
        let (model, held) = (self.chat.model(), self.chat.session().tokens().len());
        let (context, count) = (model.context(), self.chat.messages().len());
        let gone = match self.chat.forgotten_messages() {
            0 => String::new(),
            gone => format!(", of which the model no longer sees {gone}"),
        };
        let plan = model.plan().to_string();
        format!("{last}.\n{held} of {context} tokens of context, {count} messages{gone}.\n{}", plan.trim_end())
    }
}

/// Prints a reply.
struct Show<'a> {
    editor: &'a mut Editor,
    colors: bool,
    wrap: Wrap,
    /// Whether the last piece was a thought.
    thinks: bool,
}

impl Show<'_> {
    fn reply(&mut self, mut reply: ChatReply, stop: &Stop) -> Result<(Statistics, Option<Finish>), Box<dyn Error>> {
        let _stopping = stop.stops(reply.cancel_handle());
        let first = wait(&mut reply);
        let result = first.into_iter().chain(reply.by_ref()).try_for_each(|piece| Ok(self.piece(&piece?)?));
        self.paint("0")?;
        self.wrap.finish(&mut io::stdout().lock())?;
        result.map(|()| (reply.statistics(), reply.finish()))
    }

    fn piece(&mut self, piece: &Piece) -> io::Result<()> {
        let is_thought = matches!(piece, Piece::Thought(_));
        if is_thought != self.thinks {
            self.wrap.finish(&mut io::stdout().lock())?;
            self.paint(if is_thought { DIM } else { "0" })?;
            if !self.colors {
                println!("{}", if is_thought { "(thinking)" } else { "(answer)" });
            }
            self.thinks = is_thought;
        }
        let text = match piece {
            Piece::Thought(text) | Piece::Text(text) => text.clone(),
            Piece::Call(call) => format!("{}\n", call.to_json()),
            Piece::BrokenCall(call) => format!("\n({call})\n"),
            _ => String::new(),
        };
        let width = self.editor.columns();
        self.wrap.print(&mut io::stdout().lock(), &text, width)
    }

    fn paint(&self, code: &str) -> io::Result<()> {
        if self.colors { write!(io::stdout(), "\x1b[{code}m") } else { Ok(()) }
    }
}

/// Waits for the first piece, and shows how far the prompt is if that takes a while.
fn wait(reply: &mut ChatReply) -> Option<kiln::Result<Piece>> {
    let start = Instant::now();
    let mut bar = Bar::new("reading", Unit::Things("tokens"));
    loop {
        if let Some(piece) = reply.try_next() {
            return piece;
        }
        let statistics = reply.statistics();
        if start.elapsed() > SOON && statistics.generated_tokens == 0 {
            bar.set(statistics.prompt_tokens_run as u64, statistics.prompt_tokens as u64);
        }
        std::thread::sleep(LOOK);
    }
}
