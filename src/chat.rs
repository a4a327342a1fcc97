//! Conversations with a model: who said what, and the reply to it.
//!
//! ```
//! use kiln::Model;
//!
//! let model = Model::open("examples/model-in-the-box/box.gguf")?;
//! let mut chat = model.chat().start()?;
//! for piece in chat.say("Hello! My name is Anna.")? {
//!     print!("{}", piece?);
//! }
//! let answer = chat.say("What is my name?")?.text()?;
//! assert!(answer.contains("Anna"), "{answer}");
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! A [`Chat`] is a list of [`Message`]s over a session. For each reply the model's own template renders all of them, and
//! what the session holds of the outcome is not run again: a further turn costs its own tokens, a changed one those from
//! the change on. What users type cannot become a control token, whatever it is (see [`Prompter`]).
//!
//! A [`ChatReply`] streams [`Piece`]s: what the model thinks, what it answers and which tools it calls are told apart.
//! When it has ended, or is dropped, its message is part of the conversation.

mod calls;
mod message;
mod prompt;
mod reader;
mod reply;

pub use message::{Message, Role, Tool, ToolCall};
pub use prompt::{Prompt, Prompter};
pub use reader::{BrokenCall, Piece};
pub use reply::ChatReply;

use crate::error::{Error, Result};
use crate::session::{Finish, Generate, Model, Session};
use crate::template::Now;
use prompt::without_system;
use reader::Reader;
use reply::{Prefix, Turn};
use serde_json::{Map, Value};
use std::sync::Arc;

/// What to do when the context is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ContextPolicy {
    /// The reply ends in [`Error::ContextFull`].
    #[default]
    Stop,
    /// The oldest messages are forgotten, from one of the user's to the next, and the rest is run again. They stay in
    /// [`Chat::messages`].
    ForgetOldest {
        /// Never forget what the system says.
        keep_system: bool,
    },
    /// The older half of the tokens is forgotten, but for what stands before the first message of a user, wherever that
    /// cuts, and the rest is run again.
    Shift,
}

/// How a conversation begins. Made by [`Model::chat`].
#[derive(Debug, Clone)]
pub struct ChatBuilder {
    model: Model,
    messages: Vec<Message>,
    template: Option<String>,
    setup: Setup,
}

/// What stays the same from turn to turn.
#[derive(Debug, Clone)]
struct Setup {
    tools: Vec<Tool>,
    variables: Map<String, Value>,
    now: Now,
    policy: ContextPolicy,
    generate: Generate,
}

impl Model {
    /// Whether the model brings a chat template along. Without one, [`ChatBuilder::template`] has to name it.
    pub fn has_chat_template(&self) -> bool {
        Prompter::is_in(self.file().metadata())
    }

    /// The beginning of a conversation.
    pub fn chat(&self) -> ChatBuilder {
        let setup = Setup {
            tools: vec![],
            variables: Map::new(),
            now: Now::utc(),
            policy: ContextPolicy::default(),
            generate: Generate::default(),
        };
        ChatBuilder { model: self.clone(), messages: vec![], template: None, setup }
    }
}

impl ChatBuilder {
    /// What the application tells the model before anything else.
    #[must_use]
    pub fn system(self, text: impl Into<String>) -> Self {
        self.message(Message::system(text))
    }

    /// Something that has been said already.
    #[must_use]
    pub fn message(mut self, message: Message) -> Self {
        self.messages.push(message);
        self
    }

    /// All that has been said already.
    #[must_use]
    pub fn messages(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
        self.messages.extend(messages);
        self
    }

    /// A tool that the model may call.
    #[must_use]
    pub fn tool(mut self, tool: Tool) -> Self {
        self.setup.tools.push(tool);
        self
    }

    /// Whether a model that can think does so before it answers; without this, as its template has it.
    #[must_use]
    pub fn thinking(self, yes: bool) -> Self {
        self.variable("enable_thinking", yes)
    }

    /// Something else that the template knows, such as `reasoning_effort`.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.setup.variables.insert(name.into(), value.into());
        self
    }

    /// What to do when the context is full.
    #[must_use]
    pub fn policy(mut self, policy: ContextPolicy) -> Self {
        self.setup.policy = policy;
        self
    }

    /// How replies are generated, where nothing else is asked for.
    #[must_use]
    pub fn generate(mut self, how: Generate) -> Self {
        self.setup.generate = how;
        self
    }

    /// A template in place of the file's.
    #[must_use]
    pub fn template(mut self, source: impl Into<String>) -> Self {
        self.template = Some(source.into());
        self
    }

    /// What the template takes for the time; by default the clock's, in UTC, when this was made.
    #[must_use]
    pub fn now(mut self, now: Now) -> Self {
        self.setup.now = now;
        self
    }

    /// The conversation.
    ///
    /// # Errors
    /// [`Error::Metadata`] if the model brings no template, [`Error::Template`] if that cannot be read.
    pub fn start(self) -> Result<Chat> {
        let ChatBuilder { model, messages, template, setup } = self;
        let prompter = match template {
            Some(source) => Prompter::new(&source, model.tokenizer())?,
            None => Prompter::of_file(model.file().metadata(), model.tokenizer(), !setup.tools.is_empty())?,
        };
        let takes_system = prompter.takes_system(&setup.tools, &setup.variables, setup.now);
        let (session, held) = (model.session(), Held::default());
        let (prompter, setup) = (Arc::new(prompter), Arc::new(setup));
        Ok(Chat {
            session,
            prompter,
            setup,
            takes_system,
            messages,
            held,
            forgotten: 0,
            prefix: String::new(),
            calls: 0,
            paused: None,
        })
    }
}

/// A conversation with a model.
#[derive(Debug)]
pub struct Chat {
    session: Session,
    prompter: Arc<Prompter>,
    setup: Arc<Setup>,
    /// Whether the template has a place for what the system says; otherwise it goes in front of what the user says.
    takes_system: bool,
    messages: Vec<Message>,
    held: Held,
    /// How many messages, from the first on that may be, the context has no room for.
    forgotten: usize,
    /// What the next reply begins with.
    prefix: String,
    /// How many calls the model has made, for their ids.
    calls: usize,
    /// A reply that ended in an error, and may be gone on with.
    paused: Option<Box<Turn>>,
}

/// The text that stands behind a session's tokens.
#[derive(Debug, Clone, Default)]
struct Held {
    text: String,
    /// Lengths in bytes and in tokens that belong together.
    ends: Vec<(usize, usize)>,
}

impl Held {
    /// How much of another text is held for certain: bytes and tokens.
    fn common(&self, text: &str) -> (usize, usize) {
        let begins = |(bytes, _): &&(usize, usize)| self.text.get(..*bytes).is_some_and(|held| text.starts_with(held));
        self.ends.iter().rev().find(begins).copied().unwrap_or_default()
    }

    /// Becomes another text, which is so many tokens. Of the lengths that were known, those in what is common stay.
    fn set(&mut self, text: &str, tokens: usize) {
        self.ends.retain(|(bytes, _)| self.text.get(..*bytes).is_some_and(|held| text.starts_with(held)));
        self.text = text.to_owned();
        self.ends.push((text.len(), tokens));
    }
}

impl Chat {
    /// Says something as the user, and gets the reply.
    ///
    /// # Errors
    /// [`Error::ContextFull`] if there is no room for it, and [`Error::Template`] if the template refuses it; nothing
    /// has been said then.
    pub fn say(&mut self, text: impl Into<String>) -> Result<ChatReply<'_>> {
        let how = self.setup.generate.clone();
        self.say_with(text, how)
    }

    /// The same, with a choice of how.
    pub fn say_with(&mut self, text: impl Into<String>, how: Generate) -> Result<ChatReply<'_>> {
        self.settle();
        self.messages.push(Message::user(text));
        match self.start(how) {
            Ok(turn) => Ok(ChatReply::new(self, turn)),
            Err(error) => {
                self.messages.pop();
                Err(error)
            }
        }
    }

    /// Adds a message without asking for a reply: the result of a tool, for example.
    pub fn push(&mut self, message: Message) {
        self.settle();
        self.messages.push(message);
    }

    /// The model's reply to the messages as they are.
    pub fn reply(&mut self) -> Result<ChatReply<'_>> {
        let how = self.setup.generate.clone();
        self.reply_with(how)
    }

    /// The same, with a choice of how.
    pub fn reply_with(&mut self, how: Generate) -> Result<ChatReply<'_>> {
        self.settle();
        let turn = self.start(how)?;
        Ok(ChatReply::new(self, turn))
    }

    /// Takes these words for the beginning of the next reply, which goes on from there. They are part of its message, and
    /// not of its pieces.
    pub fn begin_reply(&mut self, text: impl Into<String>) -> &mut Self {
        self.prefix = text.into();
        self
    }

    /// Goes on with a reply that ended because a GPU was lost; see [`Session::resume`].
    pub fn resume(&mut self) -> Result<ChatReply<'_>> {
        let running = self.session.resume_running()?;
        let turn = self.paused.take().ok_or_else(nothing_paused)?;
        Ok(ChatReply::new(self, turn.go_on(running)))
    }

    /// What has been said.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The same, to be changed: the next reply goes by what is there then. What comes before the first change is not run
    /// again.
    pub fn messages_mut(&mut self) -> &mut Vec<Message> {
        self.settle();
        self.forgotten = 0;
        &mut self.messages
    }

    /// How many of the messages the model no longer sees, because the context was full.
    pub fn forgotten_messages(&self) -> usize {
        self.forgotten
    }

    /// The session below: its tokens are what the model has seen.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The model.
    pub fn model(&self) -> &Model {
        self.session.model()
    }

    /// What the model would see if it were to reply now.
    pub fn prompt(&self) -> Result<Prompt> {
        self.render(self.forgotten)
    }

    /// Another conversation that goes on from the same messages. What both have been through is kept once.
    pub fn fork(&self) -> Result<Chat> {
        let messages = self.messages.iter().chain(self.paused.as_ref().map(|turn| turn.message())).cloned().collect();
        Ok(Chat {
            session: self.session.fork()?,
            prompter: self.prompter.clone(),
            setup: self.setup.clone(),
            takes_system: self.takes_system,
            messages,
            held: self.held.clone(),
            forgotten: self.forgotten,
            prefix: self.prefix.clone(),
            calls: self.calls,
            paused: None,
        })
    }

    /// A reply that was to be gone on with, and is not, stays as it is.
    fn settle(&mut self) {
        if let Some(turn) = self.paused.take() {
            self.messages.push(turn.into_message());
        }
    }

    /// What the model sees of the messages if so many are forgotten.
    fn render(&self, forgotten: usize) -> Result<Prompt> {
        let visible = self.visible(forgotten);
        let folded;
        let visible = if self.takes_system {
            &visible
        } else {
            folded = without_system(&visible);
            &folded
        };
        let Setup { tools, variables, now, .. } = &*self.setup;
        self.prompter.render(&self.prompter.context(visible, tools, variables), *now)
    }

    /// The messages without the oldest so many that may be forgotten.
    fn visible(&self, forgotten: usize) -> Vec<Message> {
        let mut left = forgotten;
        let mut is_visible = |message: &&Message| {
            let is_gone = left > 0 && !self.is_kept(message);
            left -= usize::from(is_gone);
            !is_gone
        };
        self.messages.iter().filter(|message| is_visible(message)).cloned().collect()
    }

    fn is_kept(&self, message: &Message) -> bool {
        let keeps = !matches!(self.setup.policy, ContextPolicy::ForgetOldest { keep_system: false });
        keeps && message.role == Role::System
    }

    /// How many messages are forgotten when one more exchange is, if there is one besides the last.
    fn forget_more(&self, forgotten: usize) -> Option<usize> {
        let may_go: Vec<&Message> = self.messages.iter().filter(|message| !self.is_kept(message)).collect();
        let next = may_go.iter().skip(forgotten + 1).position(|message| message.role == Role::User)?;
        Some(forgotten + 1 + next)
    }

    /// Prepares the session for a reply, and starts it.
    fn start(&mut self, how: Generate) -> Result<Turn> {
        let mut how = how;
        let mut prompt = self.render(self.forgotten)?;
        let mut tokens = self.tokens(&prompt);
        let limit = self.model().context() as usize;
        match self.setup.policy {
            ContextPolicy::ForgetOldest { .. } => {
                let most = how.max_tokens.unwrap_or(limit).min(limit / 8).max(1);
                if tokens.len() + most > limit {
                    (prompt, tokens) = self.forget(0)?;
                }
            }
            ContextPolicy::Shift => {
                let keep = self.head_tokens(&tokens)?;
                how.shift = Some(keep);
                if tokens.len() >= limit && keep < limit / 2 {
                    let rest = tokens.split_off(tokens.len() - (limit - keep) / 2);
                    tokens.truncate(keep);
                    tokens.extend(rest);
                    self.held.ends.clear();
                }
            }
            ContextPolicy::Stop => {}
        }
        let style = self.prompter.style(!self.setup.tools.is_empty());
        how.shown.extend(self.prompter.shown(&style, self.model().tokenizer()));
        let mut reader = Reader::new(style, prompt.marked());
        let prefix = self.begin(&mut reader, &mut prompt, &mut tokens);
        self.session.set_tokens(&tokens)?;
        self.held.set(prompt.marked(), tokens.len());
        let forgets = matches!(self.setup.policy, ContextPolicy::ForgetOldest { .. });
        let running = self.session.run(how, forgets)?;
        self.prefix.clear();
        Ok(Turn::new(reader, prefix, prompt, tokens.len(), running))
    }

    /// Puts the words that the reply is to begin with behind the prompt.
    fn begin(&self, reader: &mut Reader, prompt: &mut Prompt, tokens: &mut Vec<u32>) -> Prefix {
        let text = self.prefix.clone();
        if text.is_empty() {
            return Prefix::default();
        }
        let before = reader.begin();
        let prefix = Prefix { prompt: format!("{before}{}", self.prompter.guarded(&text, prompt)), text };
        tokens.extend(self.push_prefix(&prefix, prompt));
        prefix
    }

    fn push_prefix(&self, prefix: &Prefix, prompt: &mut Prompt) -> Vec<u32> {
        let bytes = prompt.marked().len();
        prompt.push(&prefix.prompt);
        self.prompter.tokens_from(prompt, bytes, self.model().tokenizer())
    }

    /// The tokens of a prompt: those that are held of it, and others behind them.
    fn tokens(&self, prompt: &Prompt) -> Vec<u32> {
        let (bytes, held) = self.held.common(prompt.marked());
        let mut tokens = self.session.tokens().get(..held).unwrap_or_default().to_vec();
        tokens.extend(self.prompter.tokens_from(prompt, bytes, self.model().tokenizer()));
        tokens
    }

    /// Forgets messages until there is room again, also for what the model has written in this turn. Half as much as is
    /// there is enough, so that it need not be done for every turn.
    fn forget(&mut self, written_tokens: usize) -> Result<(Prompt, Vec<u32>)> {
        let limit = self.model().context() as usize;
        loop {
            let Some(forgotten) = self.forget_more(self.forgotten) else {
                let prompt = self.render(self.forgotten)?;
                let tokens = self.tokens(&prompt);
                if tokens.len() + written_tokens < limit {
                    return Ok((prompt, tokens));
                }
                let (used_tokens, asked_tokens) = (tokens.len() as u32, written_tokens as u32 + 1);
                return Err(Error::ContextFull { used_tokens, asked_tokens, limit_tokens: limit as u32 });
            };
            self.forgotten = forgotten;
            let prompt = self.render(forgotten)?;
            let tokens = self.tokens(&prompt);
            if tokens.len() + written_tokens <= limit / 2 {
                log::info!("the context is full: the model no longer sees the oldest {forgotten} messages");
                return Ok((prompt, tokens));
            }
        }
    }

    /// How many of the tokens stand before the first user's message: those that are the same whatever is said.
    fn head_tokens(&self, tokens: &[u32]) -> Result<usize> {
        let head = |text: &str| -> Result<Vec<u32>> {
            let system = self.messages.iter().filter(|message| message.role == Role::System && self.takes_system);
            let messages: Vec<Message> = system.cloned().chain([Message::user(text)]).collect();
            let Setup { tools, variables, now, .. } = &*self.setup;
            let prompt = self.prompter.render(&self.prompter.context(&messages, tools, variables), *now)?;
            Ok(self.prompter.tokens(&prompt, self.model().tokenizer()))
        };
        let (one, other) = (head("1")?, head("A")?);
        Ok(tokens.iter().zip(one.iter().zip(&other)).take_while(|(a, (b, c))| a == b && b == c).count())
    }

    /// Goes on with a reply that has filled the context, behind fewer messages.
    fn make_room(&mut self, turn: &mut Turn) -> Result<()> {
        let written = self.session.tokens().get(turn.prompt_tokens..).unwrap_or_default().to_vec();
        let prefix_tokens = self.push_prefix(&turn.prefix, &mut turn.prompt.clone()).len();
        let (mut prompt, mut tokens) = self.forget(written.len() + prefix_tokens)?;
        tokens.extend(self.push_prefix(&turn.prefix, &mut prompt));
        let prompt_tokens = tokens.len();
        tokens.extend(written);
        let running = self.session.run_on(&tokens, turn.cancel_handle())?;
        self.held.set(prompt.marked(), prompt_tokens);
        turn.restart(prompt, prompt_tokens, running);
        Ok(())
    }

    /// A turn is over: what the model wrote is part of the conversation, and of what is held.
    fn end(&mut self, turn: Turn) {
        let (statistics, finish) = (turn.statistics(), turn.finish());
        if statistics.forgotten_tokens > 0 {
            self.held.ends.clear();
        }
        // The beginning of a stop text is among the tokens, and not in the text.
        if !matches!(finish, Some(Finish::Stop(_))) {
            let text = format!("{}{}", turn.prompt.marked(), self.prompter.guarded(turn.written(), &turn.prompt));
            self.held.set(&text, self.session.tokens().len());
        }
        self.messages.push(turn.into_message());
    }
}

fn nothing_paused() -> Error {
    let (found, expected) = ("nothing to go on with".into(), "a reply that the loss of a GPU has ended".into());
    Error::Chat { subject: "reply".into(), found, expected }
}
