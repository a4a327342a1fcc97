//! kiln runs GGUF language models on any GPU that WebGPU reaches (Metal, Vulkan, DX12), with a CPU SIMD path for the
//! layers that do not fit.
//!
//! ```
//! use kiln::{Generate, Model};
//!
//! let model = Model::open("tests/golden/models/llama.gguf")?;
//! let mut session = model.session();
//! for piece in session.generate_with("The capital of France is", Generate::new().max_tokens(20))? {
//!     print!("{}", piece?);
//! }
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! The crate is being built from the bottom up. What works today: [`gguf`] opens, checks and writes model files,
//! [`tokenizer`] turns text into token ids and back from nothing but a file's metadata, [`quant`] decodes every weight
//! format, [`model`] writes the programs of all families, [`backend::cpu`] runs them on a paged [`cache`],
//! as does [`backend::gpu`], [`scheduler`] spreads them over both, [`sampler`] chooses tokens, [`session`] puts it all together,
//! and [`mod@embed`] makes vectors of texts.
//!
//! # Layers
//!
//! Imports go only rightwards; `tests/layering.rs` holds every file to it:
//!
//! ```text
//! lib → chat, embed → session → scheduler, sampler, grammar, template, tokenizer → model, backend → cache
//!     → program → quant → gguf → options → error
//! ```
//!
//! The hinge is [`program`]: a model *writes* a program, the backends *execute* it, and neither imports the other. Both
//! ends of attention go by the page tables that [`cache`] keeps, so the backends stand above it.
//!
//! # Manners
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
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
