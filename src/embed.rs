//! Vectors of texts, and scores of documents for a query: pooling and batching over an encoder.
//!
//! ```
//! use kiln::Model;
//!
//! let embedder = Model::open("tests/golden/models/bert.gguf")?.embedder()?;
//! let vectors = embedder.embed(["a cat", "a kitten"])?;
//! assert_eq!(vectors.len(), 2);
//! println!("{}", kiln::embed::similarity(&vectors[0], &vectors[1]));
//! # Ok::<(), kiln::Error>(())
//! ```
//!
//! Texts are run many at a time, one behind the other with nothing between them, so short ones waste nothing beside long
//! ones; while a batch runs, the next one is cut into tokens. What the file says of pooling is done here, as are the dense
//! layers or the classifier that some files have behind it.
//!
//! A file that says how to pool is an embedder, as is every encoder. Others can be made to embed with
//! [`LoadOptions::embed`](crate::LoadOptions::embed).

use crate::Result;
use crate::backend::batch::{Batch, Positions};
use crate::backend::cpu::executor::{Executor, ExecutorOptions};
use crate::backend::cpu::matrix::MatrixOptions;
use crate::backend::cpu::memory::PageMemory;
use crate::cache::{Cache, CacheFormat, CacheLimits};
use crate::error::Error;
use crate::model::{self, Head};
use crate::options::Pooling;
use crate::program::Purpose;
use crate::session::Model;
use crate::tokenizer::Encode;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};

/// Tokens that are run together, unless options say otherwise: enough to be busy, few enough to stay near.
const BATCH_TOKENS: usize = 512;
/// Batches that are cut into tokens ahead of the one that runs.
const BATCHES_AHEAD: usize = 2;

/// How to embed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbedOptions {
    /// How the rows of a text become one vector; by default as the file says.
    pub pooling: Option<Pooling>,
    /// Whether vectors are made one long, so that their dot product is the cosine of the angle between them.
    pub normalise: bool,
    /// Whether texts that are too long lose their end. If not, they are errors.
    pub truncate: bool,
    /// How many tokens are run together, but for texts that are longer.
    pub batch_tokens: usize,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        EmbedOptions { pooling: None, normalise: true, truncate: false, batch_tokens: BATCH_TOKENS }
    }
}

impl EmbedOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`EmbedOptions::pooling`].
    #[must_use]
    pub fn pooling(mut self, how: Pooling) -> Self {
        self.pooling = Some(how);
        self
    }

    /// Sets [`EmbedOptions::normalise`].
    #[must_use]
    pub fn normalise(mut self, yes: bool) -> Self {
        self.normalise = yes;
        self
    }

    /// Sets [`EmbedOptions::truncate`].
    #[must_use]
    pub fn truncate(mut self, yes: bool) -> Self {
        self.truncate = yes;
        self
    }

    /// Sets [`EmbedOptions::batch_tokens`].
    #[must_use]
    pub fn batch_tokens(mut self, count: usize) -> Self {
        self.batch_tokens = count;
        self
    }
}

/// Makes vectors of texts. Cloning gives another handle to the same one, and threads may share it.
#[derive(Debug, Clone)]
pub struct Embedder {
    model: Model,
    options: EmbedOptions,
    pooling: Pooling,
    head: Option<Arc<HeadRunner>>,
    /// What a reranker reads, with the places of query and document; without it they stand side by side.
    template: Option<String>,
}

/// The matrices behind pooling.
#[derive(Debug)]
struct HeadRunner {
    head: Head,
    executor: Mutex<Executor>,
}

impl Model {
    /// Makes vectors of texts, as the file says.
    ///
    /// # Errors
    /// [`Error::Model`] if the model generates text, and what a broken file ends in.
    pub fn embedder(&self) -> Result<Embedder> {
        self.embedder_with(EmbedOptions::default())
    }

    /// The same, with a choice of how.
    pub fn embedder_with(&self, options: EmbedOptions) -> Result<Embedder> {
        if self.program().purpose != Purpose::Embed {
            let found = "one that generates text, whose file does not say how to pool".into();
            let expected = "an embedder, or LoadOptions::embed".into();
            return Err(Error::Model { subject: "model".into(), found, expected });
        }
        let file = self.file();
        let named = options.pooling.or(model::pooling(file.metadata())?);
        let pooling = named.unwrap_or(Pooling::Mean);
        let head = model::head(file, pooling)?;
        let head = head.map(|head| HeadRunner::new(self, head)).transpose()?.map(Arc::new);
        let template = file.metadata().str("tokenizer.chat_template.rerank")?.map(str::to_owned);
        Ok(Embedder { model: self.clone(), options, pooling, head, template })
    }
}

/// Some texts as tokens, one behind the other.
#[derive(Debug, Default)]
struct Texts {
    tokens: Vec<u32>,
    lengths: Vec<usize>,
}

impl Embedder {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How vectors are pooled.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Numbers in a vector.
    pub fn dimensions(&self) -> usize {
        match &self.head {
            Some(head) => head.width(),
            None => self.row_width(),
        }
    }

    /// The most tokens of a text, those among them that stand around every text.
    pub fn context(&self) -> usize {
        let program = self.model.program();
        let (tokens, outputs) = self.model.most_rows();
        let rows = if self.row_pooling() == Pooling::Mean { tokens.min(outputs) } else { tokens };
        (self.model.context() as usize).min(program.most_positions()).min(rows)
    }

    /// A vector for each text.
    ///
    /// # Errors
    /// [`Error::ContextFull`] if a text is too long, and is not to be truncated; [`Error::Model`] if there is no pooling,
    /// or it ranks.
    pub fn embed<T: AsRef<str> + Sync>(&self, texts: impl IntoIterator<Item = T>) -> Result<Vec<Vec<f32>>> {
        let wrong = |found: &str, expected: &str| {
            Err(Error::Model { subject: "pooling".into(), found: found.into(), expected: expected.into() })
        };
        match self.pooling {
            Pooling::None => return wrong("none", "a way to make one vector of many, or Embedder::embed_tokens"),
            Pooling::Rank => return wrong("one that ranks", "one for vectors, or Embedder::rank"),
            _ => {}
        }
        let texts: Vec<T> = texts.into_iter().collect();
        let mut vectors = self.pool(texts.len(), |index| Ok(self.encode(texts[index].as_ref())))?;
        if self.options.normalise {
            vectors.iter_mut().for_each(|vector| normalise(vector));
        }
        Ok(vectors)
    }

    /// A vector for each token of a text, those among them that stand around every text. They are as the model leaves
    /// them: no pooling, no dense layers, no length of one.
    pub fn embed_tokens(&self, text: &str) -> Result<Vec<Vec<f32>>> {
        let tokens = self.fit(self.encode(text))?;
        let outputs: Vec<usize> = (0..tokens.len()).collect();
        let rows = self.model.run_texts(Batch { tokens: &tokens, outputs: &outputs, texts: &[] })?;
        Ok(rows.chunks(self.row_width()).map(<[f32]>::to_vec).collect())
    }

    /// A score for each document: the higher, the better it answers the query. What scores are is up to the model; some
    /// are likelihoods.
    ///
    /// # Errors
    /// [`Error::Model`] if the model is no reranker, and [`Error::ContextFull`] if query and document together are too
    /// long.
    pub fn rank<T: AsRef<str> + Sync>(&self, query: &str, documents: impl IntoIterator<Item = T>) -> Result<Vec<f32>> {
        if self.pooling != Pooling::Rank {
            let (found, expected) = (format!("{:?}", self.pooling), "one that ranks: a reranker's".into());
            return Err(Error::Model { subject: "pooling".into(), found, expected });
        }
        let documents: Vec<T> = documents.into_iter().collect();
        let scores = self.pool(documents.len(), |index| Ok(self.pair(query, documents[index].as_ref())))?;
        let is_softmax = self.head.as_ref().is_some_and(|runner| runner.head.is_softmax);
        let score = |mut classes: Vec<f32>| {
            if is_softmax {
                crate::backend::cpu::ops::softmax(&mut classes);
            }
            classes.first().copied().unwrap_or_default()
        };
        Ok(scores.into_iter().map(score).collect())
    }

    /// The tokens of a text, with what the model expects around it.
    fn encode(&self, text: &str) -> Vec<u32> {
        self.model.tokenizer().encode(text, Encode::default().add_special(true))
    }

    /// The tokens of a query and a document.
    fn pair(&self, query: &str, document: &str) -> Vec<u32> {
        let tokenizer = self.model.tokenizer();
        if let Some(template) = &self.template {
            let text = template.replace("{query}", query).replace("{document}", document);
            return tokenizer.encode(&text, Encode::default().add_special(true).parse_special(true));
        }
        let (special, plain) = (tokenizer.special(), Encode::default());
        let end = || special.eos.or(special.separator).filter(|_| special.add_eos);
        let separator = || special.separator.filter(|_| special.add_separator);
        let mut tokens: Vec<u32> = special.bos.filter(|_| special.add_bos).into_iter().collect();
        tokens.extend(tokenizer.encode(query, plain));
        tokens.extend(end().into_iter().chain(separator()));
        tokens.extend(tokenizer.encode(document, plain));
        tokens.extend(end().or_else(separator));
        tokens
    }

    /// The tokens as they are run, if there are not too many.
    fn fit(&self, mut tokens: Vec<u32>) -> Result<Vec<u32>> {
        let (limit, count) = (self.context(), tokens.len());
        if count <= limit {
            return Ok(tokens);
        }
        if !self.options.truncate {
            let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            let (asked_tokens, limit_tokens) = (number(count), number(limit));
            return Err(Error::ContextFull { used_tokens: 0, asked_tokens, limit_tokens });
        }
        // What ends every text ends this one too.
        let special = self.model.tokenizer().special();
        let last = tokens.last().copied().filter(|&last| [special.eos, special.separator].contains(&Some(last)));
        tokens.truncate(limit - usize::from(last.is_some()));
        tokens.extend(last);
        Ok(tokens)
    }

    /// One vector for each of so many texts. They are cut into tokens on a thread of their own, ahead of what runs.
    fn pool(&self, count: usize, tokens_of: impl Fn(usize) -> Result<Vec<u32>> + Sync) -> Result<Vec<Vec<f32>>> {
        let (most_tokens, most_outputs) = self.model.most_rows();
        let most_tokens = self.options.batch_tokens.min(most_tokens).max(1);
        let most_tokens = if self.row_pooling() == Pooling::Mean { most_tokens.min(most_outputs) } else { most_tokens };
        let (sender, receiver) = sync_channel::<Result<Texts>>(BATCHES_AHEAD);
        let tokens_of = &tokens_of;
        // Takes the sender along: when it is done, there is nothing more to receive.
        let cut = move || {
            let mut texts = Texts::default();
            for index in 0..count {
                let tokens = match tokens_of(index).and_then(|tokens| self.fit(tokens)) {
                    Ok(tokens) => tokens,
                    Err(error) => {
                        _ = sender.send(Err(error));
                        return;
                    }
                };
                let is_full = texts.tokens.len() + tokens.len() > most_tokens || texts.lengths.len() == most_outputs;
                if is_full && !texts.lengths.is_empty() && sender.send(Ok(std::mem::take(&mut texts))).is_err() {
                    return; // nobody listens any more
                }
                texts.lengths.push(tokens.len());
                texts.tokens.extend(tokens);
            }
            if !texts.lengths.is_empty() {
                _ = sender.send(Ok(texts));
            }
        };
        std::thread::scope(|scope| {
            std::thread::Builder::new().spawn_scoped(scope, cut)?;
            let mut vectors = Vec::with_capacity(count);
            for texts in receiver {
                self.run(&texts?, &mut vectors)?;
            }
            Ok(vectors)
        })
    }

    /// Adds the vectors of some texts.
    fn run(&self, texts: &Texts, vectors: &mut Vec<Vec<f32>>) -> Result<()> {
        let Texts { tokens, lengths } = texts;
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        let outputs: Vec<usize> = match self.row_pooling() {
            Pooling::First => {
                ends.zip(lengths).filter(|(_, length)| **length > 0).map(|(end, length)| end - length).collect()
            }
            Pooling::Last => ends.zip(lengths).filter(|(_, length)| **length > 0).map(|(end, _)| end - 1).collect(),
            _ => (0..tokens.len()).collect(),
        };
        let is_mean = outputs.len() == tokens.len() && self.row_pooling() == Pooling::Mean;
        let filled: Vec<usize> = lengths.iter().copied().filter(|&length| length > 0).collect();
        let rows = match filled.is_empty() {
            true => vec![],
            false => self.model.run_texts(Batch { tokens, outputs: &outputs, texts: &filled })?,
        };
        let width = self.row_width();
        let mut rest = &rows[..];
        let mut pooled = Vec::with_capacity(lengths.len() * width);
        for &length in lengths {
            // A text without tokens, in a vocabulary that puts none around it, is a vector of zeros.
            let own = if is_mean { length } else { length.min(1) };
            let (rows, later) = rest.split_at_checked(own * width).unwrap_or((rest, &[]));
            rest = later;
            let start = pooled.len();
            pooled.resize(start + width, 0.0);
            average(rows, &mut pooled[start..]);
        }
        match &self.head {
            Some(head) => head.run(lengths.len(), pooled, vectors)?,
            None => vectors.extend(pooled.chunks(width).map(<[f32]>::to_vec)),
        }
        Ok(())
    }

    /// How the rows are pooled that the head takes.
    fn row_pooling(&self) -> Pooling {
        let of_head = self.head.as_ref().and_then(|runner| runner.head.pooling);
        of_head.unwrap_or(self.pooling)
    }

    /// Numbers in a row of a token.
    fn row_width(&self) -> usize {
        let program = self.model.program();
        program.output.and_then(|output| program.slots.get(output.0)).map_or(1, |slot| slot.width.max(1))
    }
}

impl HeadRunner {
    fn new(model: &Model, head: Head) -> Result<Self> {
        let (program, segments) = (head.program.clone(), vec![head.segment.clone()]);
        // Small as they are, they need not be rounded.
        let matrices = MatrixOptions { exact: true, ..MatrixOptions::default() };
        let options = ExecutorOptions { threads: 1, matrices, loading: None };
        let executor = Executor::of_segments(model.file().clone(), program, segments, options)?;
        Ok(HeadRunner { head, executor: Mutex::new(executor) })
    }

    fn width(&self) -> usize {
        let program = &self.head.program;
        program.output.and_then(|output| program.slots.get(output.0)).map_or(1, |slot| slot.width.max(1))
    }

    fn run(&self, texts: usize, pooled: Vec<f32>, vectors: &mut Vec<Vec<f32>>) -> Result<()> {
        let nothing = Cache::new(vec![], CacheLimits::new(1))?;
        let mut memory = PageMemory::new(&nothing, CacheFormat::F32)?;
        let tokens = vec![0; texts];
        let batch = Batch { tokens: &tokens, outputs: &[], texts: &[] };
        let executor = self.executor.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = nothing.sequence();
        let given = [Arc::new(pooled)];
        let wanted = executor.run_segment(0, batch, Positions::next(&sequence), &mut memory, (true, &given))?;
        vectors.extend(wanted.iter().flat_map(|rows| rows.chunks(self.width())).map(<[f32]>::to_vec));
        Ok(())
    }
}

/// The average of some rows, none of which gives zeros.
fn average(rows: &[f32], out: &mut [f32]) {
    let count = rows.len() / out.len().max(1);
    for row in rows.chunks_exact(out.len().max(1)) {
        out.iter_mut().zip(row).for_each(|(out, row)| *out += row);
    }
    if count > 1 {
        let share = 1.0 / count as f32;
        out.iter_mut().for_each(|out| *out *= share);
    }
}

/// Makes a vector one long, unless it is zero.
fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// The cosine of the angle between two vectors, of any length: 1 where they point the same way. 0 if one of them is zero.
pub fn similarity(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { (dot(a, b) / lengths) as f32 } else { 0.0 }
}
