//! Sessions in files: the tokens, and what devices keep of them.
//!
//! The file begins with what never changes (which model, which tokens) and goes on, layer by layer, with the bytes of
//! pages and states as they lie on their device. Where they fit the model as it is placed when they are read, they are put
//! back; where anything is otherwise (another device, another format of the cache), they are left, and the tokens are run
//! again when the session is used next. So a file can be read wherever its model runs.

use super::{Model, Session, State};
use crate::Result;
use crate::cache::Held;
use crate::error::Error;
use crate::options::CacheFormat;
use crate::scheduler::{Engine, Holding};
use std::io::{Read, Write};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"KILNSES1";
/// Bytes of each tensor that tell one model from another.
const SAMPLE_BYTES: u64 = 64;

impl Session {
    /// Writes the session: its tokens, and what the model keeps of them, so that they need not be run again. The sampler of
    /// an interrupted reply is not part of it.
    pub fn save(&self, mut to: impl Write) -> Result<()> {
        let state = self.state()?;
        to.write_all(MAGIC)?;
        to.write_all(&fingerprint(&self.model)?.to_le_bytes())?;
        write_numbers(&mut to, &state.tokens)?;
        to.write_all(&state.sequence.len().to_le_bytes())?;
        to.write_all(&[format_of(&self.model)])?;
        write_numbers(&mut to, &state.sequence.evicted_pages())?;
        let count = state.engine.holdings(&state.sequence).len() as u32;
        to.write_all(&count.to_le_bytes())?;
        state.engine.save(&state.sequence, |holding, bytes| {
            to.write_all(&holding.layer.to_le_bytes())?;
            to.write_all(&kind_of(holding))?;
            to.write_all(&(bytes.len() as u64).to_le_bytes())?;
            Ok(to.write_all(bytes)?)
        })
    }
}

impl Model {
    /// A session that was saved by [`Session::save`], with this model.
    ///
    /// # Errors
    /// [`Error::Model`] if it is no such file, was saved with another model, or has more tokens than the context.
    pub fn restore(&self, mut from: impl Read) -> Result<Session> {
        let from = &mut from;
        if read_array(from)? != *MAGIC {
            return Err(wrong("the beginning of another file", "a session saved by this version"));
        }
        if u64::from_le_bytes(read_array(from)?) != fingerprint(self)? {
            return Err(wrong("the tokens of another model", "those of this one"));
        }
        let tokens = read_numbers(from, self.context(), "tokens")?;
        let vocabulary = self.program().vocabulary;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(wrong(&format!("token {token}"), &format!("ids below {vocabulary}")));
        }
        let mut session = self.session();
        if let Some(state) = &mut session.state {
            state.tokens = tokens;
            self.restore_kept(from, state)?;
        }
        Ok(session)
    }

    /// Puts back what was kept of the tokens, if it fits.
    fn restore_kept(&self, from: &mut impl Read, state: &mut State) -> Result<()> {
        let len = u32::from_le_bytes(read_array(from)?);
        if len as usize > state.tokens.len() {
            return Err(wrong(&format!("{len} positions"), &format!("those of {} tokens", state.tokens.len())));
        }
        let [format] = read_array(from)?;
        let evicted = read_numbers(from, u16::MAX.into(), "groups of layers")?;
        let engine = state.engine.clone();
        let mut fits = format == format_of(self) && state.sequence.restore(len, &evicted).is_ok();
        let holdings = engine.holdings(&state.sequence);
        let count = u32::from_le_bytes(read_array(from)?);
        fits = fits && count as usize == holdings.len();
        for index in 0..count {
            let holding = holdings.get(index as usize).filter(|_| fits);
            fits = restore_holding(from, &engine, holding)?;
        }
        if !fits {
            log::info!("{len} tokens of a saved session will be run again: the model is placed otherwise now");
            state.sequence = engine.cache().sequence();
        }
        Ok(())
    }
}

/// Reads what a device held, and puts it back. Returns whether it fits.
fn restore_holding(from: &mut impl Read, engine: &Arc<Engine>, holding: Option<&Holding>) -> Result<bool> {
    let layer = u32::from_le_bytes(read_array(from)?);
    let kind: [u8; 2] = read_array(from)?;
    let bytes = u64::from_le_bytes(read_array(from)?);
    let alike = holding.filter(|holding| holding.layer == layer && kind_of(holding) == kind);
    match alike.filter(|holding| engine.holding_bytes(holding) == bytes) {
        Some(holding) => {
            let mut data = vec![0; bytes as usize];
            from.read_exact(&mut data).map_err(cut_short)?;
            engine.restore(holding, &data);
            Ok(true)
        }
        None => {
            let skipped = std::io::copy(&mut from.by_ref().take(bytes), &mut std::io::sink())?;
            if skipped < bytes { Err(cut_short(std::io::ErrorKind::UnexpectedEof.into())) } else { Ok(false) }
        }
    }
}

/// What tells one model from another: its program, and a little of each tensor (FNV-1a).
fn fingerprint(model: &Model) -> Result<u64> {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        bytes.iter().for_each(|byte| hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    };
    let (program, file) = (model.program(), model.file());
    add(program.architecture.as_bytes());
    add(&(program.vocabulary as u64).to_le_bytes());
    for weight in &program.weights {
        add(weight.name.as_bytes());
        if let Some(tensor) = file.tensor(&weight.name) {
            add(&tensor.size_bytes().to_le_bytes());
            add(&file.data_range(tensor, 0..SAMPLE_BYTES.min(tensor.size_bytes()))?);
        }
    }
    Ok(hash)
}

fn format_of(model: &Model) -> u8 {
    match model.shared.options.cache_format {
        CacheFormat::F32 => 0,
        CacheFormat::F16 => 1,
        CacheFormat::Q8_0 => 2,
    }
}

fn kind_of(holding: &Holding) -> [u8; 2] {
    [u8::from(matches!(holding.held, Held::State(_))), u8::from(holding.on_gpu)]
}

fn write_numbers(to: &mut impl Write, numbers: &[u32]) -> Result<()> {
    to.write_all(&(numbers.len() as u32).to_le_bytes())?;
    Ok(to.write_all(bytemuck::cast_slice(&numbers.iter().map(|number| number.to_le()).collect::<Vec<u32>>()))?)
}

fn read_numbers(from: &mut impl Read, most: u32, what: &str) -> Result<Vec<u32>> {
    let count = u32::from_le_bytes(read_array(from)?);
    if count > most {
        return Err(wrong(&format!("{count} {what}"), &format!("at most {most}")));
    }
    (0..count).map(|_| Ok(u32::from_le_bytes(read_array(from)?))).collect()
}

fn read_array<const N: usize>(from: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(cut_short)?;
    Ok(bytes)
}

fn cut_short(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => wrong("the end of the file", "more of it: it was cut short"),
        _ => error.into(),
    }
}

fn wrong(found: &str, expected: &str) -> Error {
    Error::Model { subject: "saved session".into(), found: found.into(), expected: expected.into() }
}
