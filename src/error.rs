//! The one error type of the crate: what was found, where, and what was expected instead.

use std::path::{Path, PathBuf};

/// `Result` with kiln's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, by the place it went wrong in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("{source}")]
    Io {
        /// What the system said.
        #[from]
        source: std::io::Error,
    },
    /// A file's bytes break a rule of the GGUF container.
    #[error("invalid GGUF: {subject} at byte {offset}: found {found}, expected {expected}")]
    Gguf {
        /// The key, tensor or part of the header.
        subject: String,
        /// Where in the file, counted from the start of the container.
        offset: u64,
        /// What the file says.
        found: String,
        /// What it may say.
        expected: String,
    },
    /// A metadata key is missing, has another type, or has a value that cannot be used.
    #[error("metadata key `{key}`: found {found}, expected {expected}")]
    Metadata {
        /// The full key.
        key: String,
        /// What the file says.
        found: String,
        /// What it may say.
        expected: String,
    },
    /// Values and blocks that do not fit together, or a type that has no blocks to decode.
    #[error("{format} blocks: found {found}, expected {expected}")]
    Quant {
        /// The name of the type.
        format: &'static str,
        /// What was handed over.
        found: String,
        /// What may be handed over.
        expected: String,
    },
    /// A file that is sound as such does not hold the model that it says it does.
    #[error("{subject}: found {found}, expected {expected}")]
    Model {
        /// The tensor, or part of the model.
        subject: String,
        /// What the file says.
        found: String,
        /// What the rest of the file calls for.
        expected: String,
    },
    /// A sequence is as long as it can be.
    #[error("context full: {used_tokens} tokens used and {asked_tokens} more asked for, of at most {limit_tokens}")]
    ContextFull {
        /// The length of the sequence.
        used_tokens: u32,
        /// What was to be added to it.
        asked_tokens: u32,
        /// The length it could get to: its context, or less if other sequences hold the pages.
        limit_tokens: u32,
    },
    /// A sequence cannot go back so far, because a sliding window has moved on.
    #[error("cannot go back to {asked_tokens} tokens: expected 0, or at least {earliest_tokens} (the window moved on)")]
    Evicted {
        /// The length that was asked for.
        asked_tokens: u32,
        /// The shortest length that is possible, other than zero.
        earliest_tokens: u32,
    },
    /// Something that a cache cannot be made of, or asked for.
    #[error("cache {subject}: found {found}, expected {expected}")]
    Cache {
        /// The limit, group or operation.
        subject: &'static str,
        /// What was handed over.
        found: String,
        /// What may be handed over.
        expected: String,
    },
    /// An option of the sampler out of its limits, or logits that no token can be chosen from.
    #[error("sampler's {subject}: found {found}, expected {expected}")]
    Sampler {
        /// The option, or what was handed over to sample from.
        subject: &'static str,
        /// What was handed over.
        found: String,
        /// What may be handed over.
        expected: String,
    },
    /// A chat template that cannot be used, or refuses a conversation.
    #[error("chat template{}: {reason}", line.map_or(String::new(), |line| format!(", line {line}")))]
    Template {
        /// Where in the template.
        line: Option<usize>,
        /// What is wrong, in its own words if it says so itself.
        reason: String,
    },
    /// A conversation that cannot be held.
    #[error("chat {subject}: found {found}, expected {expected}")]
    Chat {
        /// The message, or part of one.
        subject: String,
        /// What was handed over.
        found: String,
        /// What may be handed over.
        expected: String,
    },
    /// A grammar that cannot be used, or that a text cannot be made to conform to.
    #[error("{subject}: {reason}")]
    Grammar {
        /// The kind of grammar, or the part of structured output.
        subject: String,
        /// What is wrong, in the engine's words where it knows best.
        reason: String,
    },
    /// A GPU, a shader or a buffer that is not as it has to be.
    #[error("GPU {subject}: found {found}, expected {expected}")]
    Gpu {
        /// The adapter, shader or buffer.
        subject: String,
        /// What the driver or the program says.
        found: String,
        /// What was needed.
        expected: String,
    },
    /// A GPU that has no room for something.
    #[error("GPU memory: no room for {}{what}", if *bytes > 0 { format!("{bytes} bytes of ") } else { String::new() })]
    GpuMemory {
        /// What was to be put there.
        what: String,
        /// Its size; 0 if only the driver knows.
        bytes: u64,
    },
    /// A GPU that is gone: unplugged, reset by its driver, or given up. What was computed on it has to be computed again.
    #[error("GPU `{name}` was lost: {reason}")]
    GpuLost {
        /// The adapter.
        name: String,
        /// What the driver says.
        reason: String,
    },
    /// Any of the above, in a named file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
}

impl Error {
    /// Says which file the error is about.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        Error::File { path: path.to_owned(), source: Box::new(self) }
    }

    /// A metadata key that does not hold what was expected.
    pub(crate) fn metadata(key: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Error::Metadata { key: key.into(), found: found.into(), expected: expected.into() }
    }

    /// An option or an argument that the sampler cannot work with.
    pub(crate) fn sampler(subject: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Error::Sampler { subject, found: found.into(), expected: expected.into() }
    }
}
