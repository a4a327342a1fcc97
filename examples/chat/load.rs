//! Opens the model: a file, one from the hub, or the one in the box.

use crate::progress::{Bar, Unit};
use crate::{Args, hub};
use kiln::gguf::Gguf;
use kiln::{LoadOptions, Model};
use std::error::Error;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The model in the box; `examples/model-in-the-box/MODEL_CARD.md` says what it is.
static BOX: &[u8] = include_bytes!("../model-in-the-box/box.gguf");

/// What is loaded in less time needs no bar.
const SOON: Duration = Duration::from_millis(300);

impl Args {
    /// Opens a model; without a file, the one that the flags name, or the one in the box.
    pub fn open(&self, file: Option<&Path>) -> Result<Model, Box<dyn Error>> {
        let options = with_bar(self.flags.load_options()?);
        if let Some(path) = file {
            return Ok(options.open(path)?);
        }
        if self.hub.hf.is_some() {
            let mut downloads = hub::Downloads::default();
            let path = hub::fetch(&self.hub, &mut |done, total, name| downloads.show(done, total, name))?;
            return Ok(options.open(path)?);
        }
        Ok(Model::load(Gguf::from_bytes(BOX.to_vec())?, &options)?)
    }

    /// What the model is called.
    pub fn name_of(&self, file: Option<&Path>) -> String {
        match (file, &self.hub.hf) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(repo)) => repo.to_string(),
            (None, None) => "the model in the box".into(),
        }
    }
}

/// Options that show how far loading is, if it takes a while.
fn with_bar(options: LoadOptions) -> LoadOptions {
    let (start, bar) = (Instant::now(), Mutex::new(None));
    options.progress(move |done, total| {
        let Ok(mut bar) = bar.lock() else { return };
        if done >= total {
            *bar = None;
        } else if start.elapsed() > SOON {
            bar.get_or_insert_with(|| Bar::new("loading", Unit::Bytes)).set(done, total);
        }
    })
}
