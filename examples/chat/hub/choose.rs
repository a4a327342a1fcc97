//! Which of a repository's files are the model that is asked for.
//!
//! A model is one `.gguf` file, or all shards of one (`NAME-00001-of-00003.gguf`). What lies beside models
//! (projectors of images, importance matrices) is never chosen, except by its name.

use crate::progress;
use std::collections::BTreeMap;

/// Taken where nothing is asked for and there are several: the best trade of size for quality, and nearly all have it.
const USUAL: &str = "Q4_K_M";

/// A file of a repository, as far as it is known.
#[derive(Debug, Clone)]
pub struct File {
    /// Where it lies in the repository, with `/` between folders.
    pub path: String,
    pub size_bytes: Option<u64>,
    /// What its content is called: the SHA-256 of a large file, the id that git gives a small one; hexadecimal.
    pub etag: Option<String>,
}

impl File {
    /// Without its folders.
    pub fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or(&self.path, |(_, name)| name)
    }
}

/// What a person asks for.
#[derive(Debug, Clone, Copy)]
pub enum Wish<'a> {
    /// A model by the name of one of its files.
    Named(&'a str),
    /// The model with this part in its name.
    Quant(&'a str),
    Any,
}

/// A model: one file, or several shards, the first one first.
#[derive(Debug, Clone)]
pub struct Model<'a> {
    /// The path that its files share, without the number of the shard and the ending.
    stem: &'a str,
    /// How many there have to be.
    shards: usize,
    /// Those that there are, each with its number from 1.
    files: Vec<(usize, &'a File)>,
}

impl<'a> Model<'a> {
    pub fn files(&self) -> impl Iterator<Item = &'a File> {
        self.files.iter().map(|&(_, file)| file)
    }

    /// Whether a part of its name, between dashes, dots or slashes, is this, in whatever case. (It may be several parts
    /// in a row: `UD-Q4_K_XL`.)
    fn is_called(&self, quant: &str) -> bool {
        let (name, quant) = (self.stem.to_lowercase(), quant.to_lowercase());
        let is_end = |c: Option<char>| c.is_none_or(|c| "-./".contains(c));
        !quant.is_empty()
            && name.match_indices(&quant).any(|(at, _)| {
                let (before, after) = (name.get(..at), name.get(at + quant.len()..));
                is_end(before.and_then(|text| text.chars().next_back())) && is_end(after.and_then(|t| t.chars().next()))
            })
    }

    /// What a person adds to the repository's name to get this model and no other, if one part of its name does.
    fn quant(&self, models: &[Model]) -> Option<&'a str> {
        let mut parts = self.stem.rsplit(['-', '.', '/']);
        parts.find(|part| !part.is_empty() && models.iter().filter(|model| model.is_called(part)).count() == 1)
    }

    /// Says which shards are missing.
    fn check(&self) -> Result<(), String> {
        let missing = |number: &usize| self.files.iter().all(|(n, _)| n != number);
        let Some(first) = (1..=self.shards).find(missing) else { return Ok(()) };
        let (stem, shards, found) = (self.stem, self.shards, self.files.len());
        let name = format!("{stem}-{first:05}-of-{shards:05}.gguf");
        Err(format!("{name} is missing: found {found} of the {shards} shards that the model has"))
    }

    fn size(&self) -> String {
        let sizes: Option<Vec<u64>> = self.files().map(|file| file.size_bytes).collect();
        sizes.map_or("?".into(), |sizes| progress::bytes(sizes.iter().fold(0, |sum, &size| sum.saturating_add(size))))
    }
}

/// The model that is wished for. If it was chosen by habit, out of several, the second is a word about that.
///
/// # Errors
/// If there is none, or not one only; then it says what there is and how to choose. `place` is what has the files,
/// `repo` what a person calls the repository.
pub fn choose<'a>(
    files: &'a [File],
    wish: Wish,
    place: &str,
    repo: &str,
) -> Result<(Model<'a>, Option<String>), String> {
    let everything = models(files);
    let usual: Vec<Model> = everything.iter().filter(|model| !is_beside_models(model.stem)).cloned().collect();
    let called = |quant: &str| usual.iter().filter(|model| model.is_called(quant)).cloned().collect();
    let is_habit = matches!(wish, Wish::Any) && usual.len() > 1;
    let found: Vec<Model> = match wish {
        Wish::Named(name) => {
            everything.iter().filter(|model| model.files().any(|file| is_named(file, name))).cloned().collect()
        }
        Wish::Quant(quant) => called(quant),
        Wish::Any if is_habit => called(USUAL),
        Wish::Any => usual.clone(),
    };
    let [model] = found.as_slice() else { return Err(undecided(&usual, wish, found.len(), place, repo)) };
    model.check().map_err(|error| format!("{place}: {error}"))?;
    let size = model.size();
    let note = || format!("{repo}: took {USUAL} ({size}) of {} models; {repo}:QUANT takes another", usual.len());
    Ok((model.clone(), is_habit.then(note)))
}

/// By its path, or by its name without folders.
fn is_named(file: &File, name: &str) -> bool {
    file.path == name || file.name() == name
}

/// Projectors of images and importance matrices are GGUF files too.
fn is_beside_models(stem: &str) -> bool {
    let name = stem.rsplit('/').next().unwrap_or(stem).to_lowercase();
    name.contains("mmproj") || name.starts_with("imatrix") || name.ends_with("imatrix")
}

/// The models that the files make up, by name.
fn models(files: &[File]) -> Vec<Model<'_>> {
    let mut models: BTreeMap<(&str, usize), Model> = BTreeMap::new();
    for file in files {
        let Some((stem, ending)) = file.path.rsplit_once('.') else { continue };
        if !ending.eq_ignore_ascii_case("gguf") {
            continue;
        }
        let (stem, number, shards) = shard(stem).unwrap_or((stem, 1, 1));
        models.entry((stem, shards)).or_insert(Model { stem, shards, files: Vec::new() }).files.push((number, file));
    }
    for model in models.values_mut() {
        model.files.sort_by_key(|&(number, _)| number);
    }
    models.into_values().collect()
}

/// What `NAME-00001-of-00003` says: the name, which shard, and of how many.
fn shard(stem: &str) -> Option<(&str, usize, usize)> {
    let (rest, shards) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let count = |digits: &str| digits.parse().ok().filter(|_| digits.len() == 5 && !digits.starts_with('+'));
    let (number, shards) = (count(number)?, count(shards)?);
    (1..=shards).contains(&number).then_some((name, number, shards))
}

/// Why no model was chosen, what there is, and how to choose.
fn undecided(models: &[Model], wish: Wish, found: usize, place: &str, repo: &str) -> String {
    let what = match (wish, found) {
        (Wish::Named(name), 0) => format!("{place} has no GGUF file {name}"),
        (Wish::Named(name), _) => format!("{place} has {found} files of the name {name}; expected the path of one"),
        (Wish::Quant(quant), 0) => format!("no model in {place} is called {quant}"),
        (Wish::Quant(quant), _) => format!("{found} models in {place} are called {quant}; expected one"),
        (Wish::Any, _) if models.is_empty() => format!("{place} has no GGUF model; expected a .gguf file"),
        (Wish::Any, _) => format!("{place} has {} models, and which one was not said", models.len()),
    };
    let mut text = format!("{what}{}", if models.is_empty() { "" } else { "; choose one:" });
    for model in models {
        let Some(file) = model.files().next() else { continue };
        let (size, path) = (model.size(), &file.path);
        let how = match model.quant(models) {
            Some(quant) => format!("--hf {repo}:{quant}"),
            None => format!("--hf {repo} --hf-file {path}"),
        };
        text += &format!("\n  {size:>9}  {path}  ({how})");
    }
    text
}
