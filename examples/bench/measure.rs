//! What is measured: the memory's speed, and that of a model.

use kiln::backend::cpu::bandwidth::Bandwidth;
use kiln::backend::cpu::pool::Pool;
use kiln::{Model, Session};
use std::error::Error;
use std::time::{Duration, Instant, SystemTime};

/// More than caches hold.
const READ_BYTES: usize = 256 << 20;
const READS: usize = 7;

/// The speed, in GB/s, at which the workers read a large buffer: the best of several times, since other programs can
/// only slow it down.
pub fn read_bandwidth(pool: &Pool) -> kiln::Result<f64> {
    let buffer = Bandwidth::new(READ_BYTES, pool)?;
    Ok((0..READS).map(|_| buffer.measure(pool)).fold(0.0, f64::max))
}

/// Tokens to run: a prompt at once, or single ones.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    pub prompt: u32,
    pub generated: u32,
    /// Tokens in the cache before.
    pub depth: u32,
}

/// The times that a test took.
#[derive(Debug)]
pub struct Samples {
    /// When it was begun.
    pub begun: SystemTime,
    pub times: Vec<Duration>,
}

/// As many single tokens are enough to warm up.
const WARM_UP_TOKENS: u32 = 16;

impl Test {
    /// Tokens that are timed.
    pub fn tokens(&self) -> u32 {
        self.prompt + self.generated
    }

    /// Positions that a sequence must have room for.
    pub fn positions(&self) -> u32 {
        self.depth.saturating_add(self.tokens())
    }

    /// The name, as in `pp512 @ d4096`.
    pub fn name(&self) -> String {
        let name = match self.generated {
            0 => format!("pp{}", self.prompt),
            generated => format!("tg{generated}"),
        };
        if self.depth > 0 { format!("{name} @ d{}", self.depth) } else { name }
    }

    /// Runs it `reps` times, and once before to warm up.
    pub fn run(&self, model: &Model, reps: u32) -> Result<Samples, Box<dyn Error>> {
        let mut tokens = Tokens::new(model.program().vocabulary);
        let mut base = model.session();
        if self.depth > 0 {
            eprintln!("{}: {} tokens before", self.name(), self.depth);
            base.logits(&tokens.take(self.depth))?;
        }
        eprintln!("{}: warm-up", self.name());
        let warm_up = Test { generated: self.generated.min(WARM_UP_TOKENS), ..*self };
        warm_up.once(&mut base.fork()?, &mut tokens)?;
        let begun = SystemTime::now();
        let times = (1..=reps).map(|rep| {
            eprintln!("{}: {rep} of {reps}", self.name());
            self.once(&mut base.fork()?, &mut tokens)
        });
        Ok(Samples { begun, times: times.collect::<Result<_, _>>()? })
    }

    fn once(&self, session: &mut Session, tokens: &mut Tokens) -> Result<Duration, Box<dyn Error>> {
        let tokens = tokens.take(self.tokens());
        let step = if self.prompt > 0 { tokens.len() } else { 1 };
        let mut logits = Vec::new();
        let start = Instant::now();
        for tokens in tokens.chunks(step) {
            logits = session.logits(tokens)?;
        }
        let time = start.elapsed();
        match logits.iter().find(|logit| !logit.is_finite()) {
            Some(logit) => Err(format!("{}: a logit is {logit}, expected a number", self.name()).into()),
            None => Ok(time),
        }
    }
}

/// Random tokens.
pub struct Tokens {
    state: u64,
    vocabulary: u64,
}

impl Tokens {
    /// Of a vocabulary of so many.
    pub fn new(vocabulary: usize) -> Self {
        Tokens { state: 1, vocabulary: vocabulary as u64 }
    }

    /// The next ones.
    pub fn take(&mut self, count: u32) -> Vec<u32> {
        let mut next = || {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.state >> 33) % self.vocabulary) as u32
        };
        (0..count).map(|_| next()).collect()
    }
}
