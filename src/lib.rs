//! kiln runs language models in GGUF files on any GPU that WebGPU reaches (Metal, Vulkan, DX12), and on the CPU with what
//! does not fit. It is a library first: no server, no runtime, no C, nothing to install beside the model.
//!
//! There are three nouns. A [`Model`] is loaded once and shared; a [`Session`] is one sequence of tokens, cheap to fork; a
//! [`Reply`] is one generation. Everything else follows from what you want to do.
//!
//! # Text that goes on
//!
//! ```
//! use kiln::{Generate, Model};
//!
//! let model = Model::open("examples/model-in-the-box/box.gguf")?; // a GPU if there is one, else the CPU
//! let mut session = model.session();
//! for piece in session.generate_with("Once upon a time", Generate::new().max_tokens(20))? {
//!     print!("{}", piece?);
//! }
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! [`Generate`] says how: temperature and the rest of the [`sampler`], a seed, stop texts, what to do when the context is
//! full. A session goes on from where it is; [`Session::fork`], [`Session::checkpoint`] and [`Session::save`] keep what has
//! been computed.
//!
//! # Conversations
//!
//! With the feature `chat`, the model's own template turns messages into what it was trained on. A new turn computes its own
//! tokens only, and what users type is never taken for a control token.
//!
#![cfg_attr(feature = "chat", doc = "```")]
#![cfg_attr(not(feature = "chat"), doc = "```ignore")]
//! use kiln::{Model, Piece};
//!
//! let model = Model::open("examples/model-in-the-box/box.gguf")?;
//! let mut chat = model.chat().system("Answer in one line.").start()?;
//! for piece in chat.say("What is kiln?")? {
//!     match piece? {
//!         Piece::Thought(_) => {} // of models that think before they answer
//!         piece => print!("{piece}"),
//!     }
//! }
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! The module `chat` has the rest: histories, tools that the model may call, and what to forget when the context is full.
//!
//! # Replies with a form
//!
//! With the feature `grammar`, a reply conforms to a JSON schema, a regular expression or a Lark grammar, whatever the model
//! would rather have said.
//!
#![cfg_attr(feature = "grammar", doc = "```")]
#![cfg_attr(not(feature = "grammar"), doc = "```ignore")]
//! use kiln::{Generate, Model};
//!
//! let model = Model::open("examples/model-in-the-box/box.gguf")?;
//! let schema = serde_json::json!({
//!     "type": "object",
//!     "properties": { "animal": { "enum": ["fox", "hen"] }, "legs": { "type": "integer", "minimum": 0, "maximum": 8 } },
//!     "required": ["animal", "legs"],
//!     "additionalProperties": false
//! });
//! let text = model.session().generate_with("A fox: ", Generate::new().json_schema(&schema))?.text()?;
//! let value: serde_json::Value = serde_json::from_str(&text).expect("it is what the schema says");
//! assert!(value["legs"].as_u64() <= Some(8));
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! # Vectors of texts
//!
//! Encoders, and decoders that were trained for it, make vectors to compare texts by; see [`mod@embed`].
//!
//! ```
//! use kiln::{Model, embed::similarity};
//!
//! let embedder = Model::open("tests/golden/models/bert.gguf")?.embedder()?;
//! let vectors = embedder.embed(["a cat", "a kitten"])?;
//! println!("{:.3}", similarity(&vectors[0], &vectors[1]));
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! # Where it runs
//!
//! As many layers as fit a GPU run there, the rest on the CPU, unless [`LoadOptions`] say otherwise. What would go where is
//! known before anything is loaded.
//!
//! ```
//! use kiln::{LoadOptions, Offload};
//!
//! let options = LoadOptions::new().offload(Offload::Layers(2)).context(512);
//! println!("{}", options.plan("examples/model-in-the-box/box.gguf")?);
//! # let options = options.offload(Offload::None).device(kiln::Device::Cpu);
//! let model = options.open("examples/model-in-the-box/box.gguf")?;
//! assert_eq!(model.context(), 512);
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! # A device of your own
//!
//! An application that draws shares its device and queue with kiln; submissions are kept short, so frames find the queue
//! free. `examples/shared_device` draws while a model writes.
//!
#![cfg_attr(feature = "gpu", doc = "```no_run")]
#![cfg_attr(not(feature = "gpu"), doc = "```ignore")]
//! use kiln::backend::gpu::{Gpu, wgpu};
//! use kiln::gguf::Gguf;
//! use kiln::{LoadOptions, Model};
//!
//! # async fn shared(adapter: wgpu::Adapter) -> Result<(), Box<dyn std::error::Error>> {
//! let wants = Gpu::requirements(&adapter); // what to ask the adapter for, besides what the application needs
//! let (device, queue) = adapter.request_device(&wgpu::DeviceDescriptor {
//!     required_features: wants.features,
//!     required_limits: wants.limits,
//!     ..Default::default()
//! }).await?;
//! let gpu = Gpu::from_wgpu(&adapter, device, queue).await?;
//! let options = LoadOptions::new().submit_budget_ms(4);
//! let model = Model::load_on(Gguf::open("model.gguf")?, &options, &[gpu])?;
//! # Ok(())
//! # }
//! ```
//!
//! # Without waiting
//!
//! A reply runs on a thread of its own. It is an iterator for those who wait, a stream for those who await, and has a
//! [`try_next`](Reply::try_next) for those who may do neither. No runtime is needed, and any will do.
//!
//! ```
//! use futures::StreamExt;
//! use kiln::{Generate, Model};
//!
//! # fn main() -> kiln::Result<()> {
//! let model = Model::open("examples/model-in-the-box/box.gguf")?;
//! futures::executor::block_on(async {
//!     let mut session = model.session();
//!     let mut reply = session.generate_with("Once upon a time", Generate::new().max_tokens(20))?;
//!     while let Some(piece) = StreamExt::next(&mut reply).await {
//!         print!("{}", piece?);
//!     }
//!     Ok(())
//! })
//! # }
//! ```
//!
//! ```
//! use kiln::{Generate, Model};
//!
//! let model = Model::open("examples/model-in-the-box/box.gguf")?;
//! let mut session = model.session();
//! let mut reply = session.generate_with("Once upon a time", Generate::new().max_tokens(20))?;
//! loop {
//!     match reply.try_next() {
//!         Some(Some(piece)) => print!("{}", piece?),
//!         Some(None) => break,
//!         None => std::thread::yield_now(), // draw a frame
//!     }
//! }
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! # Enough
//!
//! Dropping a reply cancels it; a handle does so from another thread. The session is then what had been written.
//!
//! ```
//! use kiln::{Model, session::Finish};
//!
//! let model = Model::open("examples/model-in-the-box/box.gguf")?;
//! let mut session = model.session();
//! let mut reply = session.generate("Once upon a time")?;
//! let cancel = reply.cancel_handle();
//! std::thread::spawn(move || cancel.cancel());
//! let written: kiln::Result<String> = reply.by_ref().collect();
//! assert!(written.is_ok() && matches!(reply.finish(), Some(Finish::Cancelled | Finish::End(_))));
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! # Features
//!
//! | feature | default | what it brings | what it needs |
//! |---|---|---|---|
//! | `gpu` | yes | [`backend::gpu`]; without it [`Device::Auto`] is the CPU, and to ask for a GPU is an error that says so | wgpu |
//! | `chat` | yes | the modules `chat` and `template`; without it there are texts and tokens, and no conversations | minijinja, serde_json |
//! | `grammar` | no | `grammar`: replies that conform to a schema or a grammar | llguidance, serde_json |
//!
//! Without any, the crate is a core of few dependencies that runs models on the CPU. (`portable` is for a test of the
//! shaders, and brings nothing.)
//!
//! # How it is built
//!
//! Imports go only rightwards; `tests/layering.rs` holds every file to it:
//!
//! ```text
//! lib → chat, embed → session → scheduler, sampler, grammar, template → tokenizer → model, backend
//!     → cache → program → quant → gguf → options → error
//! ```
//!
//! The hinge is [`program`]: a model *writes* a program, the backends *execute* it, and neither imports the other. Both
//! ends of attention go by the page tables that [`cache`] keeps, so the backends stand above it. Every layer is public, for
//! those who want a tokenizer, a file's header or a sampler and nothing else.
//!
//! No async runtime, no environment variables, no prints and no panics: plain options in, [`Result`] out, and the
//! `log` facade for words.

// The manners, held by the linter. Tests may fail and print as tests do.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)
)]

pub mod backend;
pub mod cache;
#[cfg(feature = "chat")]
pub mod chat;
pub mod embed;
pub mod error;
pub mod gguf;
#[cfg(feature = "grammar")]
pub mod grammar;
pub mod model;
pub mod options;
pub mod program;
pub mod quant;
pub mod sampler;
pub mod scheduler;
pub mod session;
#[cfg(feature = "chat")]
pub mod template;
pub mod tokenizer;

#[cfg(feature = "chat")]
pub use chat::{Chat, ContextPolicy, Message, Piece};
pub use embed::{EmbedOptions, Embedder};
pub use error::{Error, Result};
pub use options::{CacheFormat, Device, LoadOptions, Offload, OnCpu, Pooling, Recover, TensorClass};
pub use session::{Generate, Model, Reply, Session};

/// The examples of the readme, compiled and run with the tests.
#[cfg(all(doctest, feature = "chat"))]
#[doc = include_str!("../README.md")]
struct Readme;
