//! The table of pre-tokenizers: which names there are, how each cuts, and what else a name implies.

use super::chars::{
    BLANK, BREAK, Chars, HAN, HAN_GAP, LETTERS, MARK, NUMBER, OTHER, PUNCT, SIGNS, SPACE, SYMBOL, Set, WHITE,
};
use super::classes::{
    BOPOMOFO, CASED_LETTERS, DIGITS, EAST_ASIAN, HANGUL, KANJI_KANA, PLAIN_SIGNS, STOPS, UNSPACED, WIDE_PUNCT,
};
use super::stages::{Runs, Thirds, image_len, indent_len};
use super::words::{Blanks, Breaks, Contractions, Shape, Words};
use super::{Splitter, Stage};

/// What the name of a pre-tokenizer says about a vocabulary. The flags are defaults: metadata keys of the same meaning
/// come first.
#[derive(Debug)]
pub struct Family {
    /// The values of `tokenizer.ggml.pre` that mean this.
    pub names: &'static [&'static str],
    /// How text is cut into words.
    pub splitter: Splitter,
    /// A word that is a token is that token, whatever the merges would make of it.
    pub ignore_merges: bool,
    /// A token that begins the text is put before it.
    pub add_bos: bool,
    /// A separator is put between and after texts.
    pub add_sep: bool,
    /// Spaces before punctuation are taken out when decoding.
    pub clean_spaces: bool,
    /// Spaces become U+2581 before cutting, and spaces again when decoding.
    pub escape_whitespace: bool,
    /// Words are spelt with the 256 stand-ins of bytes; if not, with the characters themselves.
    pub byte_level: bool,
    /// There is no token that begins a text unless the metadata names one.
    pub no_default_bos: bool,
    /// The rules of Gemma 4: a word of line feeds that is a token is that token, and `add_bos` cannot be turned off.
    pub gemma4: bool,
    /// Files may come without merges: a word is a token or falls apart.
    pub merges_optional: bool,
    /// Where white space is dropped, letters are made small too.
    pub lowercase: bool,
}

/// Every name of a pre-tokenizer.
pub fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|family| family.names.iter().copied())
}

/// `[of]`
const fn stage_each(of: Chars) -> Stage {
    Stage::Runs(Runs { of, lead: 0, min: 1, max: 1 })
}

/// `[of]+`
const fn stage_runs(of: Chars) -> Stage {
    Stage::Runs(Runs { of, lead: 0, min: 1, max: usize::MAX })
}

/// `\s?[of]+`
const fn stage_led(of: Chars) -> Stage {
    Stage::Runs(Runs { of, lead: WHITE, min: 1, max: usize::MAX })
}

const NUMBERS: Chars = Chars::new(NUMBER, &[]);
const ONE_NUMBER: Stage = stage_each(NUMBERS);
const THREE_NUMBERS: Stage = Stage::Runs(Runs { of: NUMBERS, lead: 0, min: 1, max: 3 });
const THREE_DIGITS: Stage = Stage::Runs(Runs { of: Chars::new(0, DIGITS), lead: 0, min: 3, max: 3 });
const LINE_FEEDS: Stage = stage_runs(Chars::new(0, &[('\n', '\n')]));
const EACH_BREAK: Stage = stage_each(Chars::new(BREAK, &[]));

/// `[^\r\n\p{L}\p{N}]`
const BUT_BREAKS_LETTERS_NUMBERS: Set = SIGNS | SPACE | BLANK;
const NEWLINES: (&[u8], usize) = (b"\r\n", usize::MAX);
const NEWLINES_SLASHES: (&[u8], usize) = (b"\r\n/", usize::MAX);
const NO_TAIL: (&[u8], usize) = (b"", 0);

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
const GPT2: Words = Words {
    contractions: Contractions::Lowercase,
    ideographs: 0,
    coupled: false,
    prefix: SPACE,
    letters: LETTERS,
    shape: Shape::Run,
    numbers_max: usize::MAX,
    spaced_numbers: true,
    signs: SIGNS,
    tail: NO_TAIL,
    breaks: Breaks::Ignored,
    blanks: Blanks::Whole,
};

/// `(?i:'s|'t|…)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
const LLAMA3: Words = Words {
    contractions: Contractions::AnyCase,
    prefix: BUT_BREAKS_LETTERS_NUMBERS,
    numbers_max: 3,
    spaced_numbers: false,
    tail: NEWLINES,
    breaks: Breaks::AfterLast,
    ..GPT2
};
const QWEN2: Words = Words { numbers_max: 1, ..LLAMA3 };
const QWEN35: Words = Words { letters: LETTERS | MARK, signs: SIGNS & !MARK, ..QWEN2 };

/// Contractions belong to the word before them, slashes and line breaks to the signs. The published classes of capital
/// and small letters are, as in llama.cpp, all letters but `a-z` and all but `A-Z`.
const GPT4O: Words =
    Words { contractions: Contractions::Suffix, shape: Shape::Cased, tail: NEWLINES_SLASHES, ..LLAMA3 };
const TEKKEN: Words = Words { contractions: Contractions::None, numbers_max: 1, ..GPT4O };
const MARKED_SUFFIXED: Words = Words { letters: LETTERS | MARK, shape: Shape::Run, ..GPT4O };
const KIMI: Words =
    Words { contractions: Contractions::Suffix, ideographs: HAN | HAN_GAP, letters: LETTERS & !HAN, ..LLAMA3 };

/// `[ASCII sign][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
///
/// Numbers are cut out before; here nothing matches them.
const DEEPSEEK3: Words = Words {
    contractions: Contractions::None,
    coupled: true,
    prefix: MARK | NUMBER | OTHER | HAN_GAP | SPACE | BLANK,
    letters: LETTERS | MARK,
    numbers_max: 0,
    signs: PUNCT | SYMBOL,
    ..LLAMA3
};

/// ` ?[^(\s|.,!?…。，、।۔،)]+`
const TO_THE_STOP: Stage =
    Stage::Runs(Runs { of: Chars::new(WHITE, STOPS).not(), lead: SPACE, min: 1, max: usize::MAX });
const KANJI_KANA_RUNS: Stage = stage_runs(Chars::new(0, KANJI_KANA));
const EAST_ASIAN_RUNS: Stage = stage_runs(Chars::new(0, EAST_ASIAN));

/// Cuts by each stage in turn.
const fn cut(stages: &'static [Stage]) -> Splitter {
    Splitter { stages }
}

/// Flags of most families.
const PLAIN: Family = Family {
    names: &[],
    splitter: Splitter { stages: &[] },
    ignore_merges: false,
    add_bos: false,
    add_sep: false,
    clean_spaces: false,
    escape_whitespace: false,
    byte_level: true,
    no_default_bos: false,
    gemma4: false,
    merges_optional: false,
    lowercase: true,
};
/// The same, with [`clean_spaces`](Family::clean_spaces).
const CLEAN: Family = Family { clean_spaces: true, ..PLAIN };

const SPLIT_GPT2: Splitter = cut(&[Stage::Words(GPT2)]);
const SPLIT_LLAMA3: Splitter = cut(&[Stage::Words(LLAMA3)]);
const SPLIT_QWEN2: Splitter = cut(&[Stage::Words(QWEN2)]);
const SPLIT_STARCODER: Splitter = cut(&[ONE_NUMBER, Stage::Words(GPT2)]);
const SPLIT_DEEPSEEK3: Splitter = cut(&[THREE_NUMBERS, KANJI_KANA_RUNS, Stage::Words(DEEPSEEK3)]);
const SPLIT_GPT4O: Splitter = cut(&[Stage::Words(GPT4O)]);
const SPLIT_LINE_FEEDS: Splitter = cut(&[LINE_FEEDS]);

/// One row for each set of names that mean the same.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        names: &["default"],
        splitter: cut(&[
            stage_runs(Chars::new(PUNCT, &[('$', '$'), ('+', '+'), ('<', '>'), ('^', '^'), ('|', '|'), ('~', '~')])),
            Stage::Words(GPT2),
            stage_runs(NUMBERS),
            THREE_DIGITS,
        ]),
        ..CLEAN
    },
    Family {
        names: &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        splitter: SPLIT_LLAMA3,
        ignore_merges: true,
        add_bos: true,
        ..CLEAN
    },
    Family { names: &["dbrx", "smaug-bpe"], splitter: SPLIT_LLAMA3, ..CLEAN },
    Family { names: &["chatglm-bpe"], splitter: SPLIT_LLAMA3, no_default_bos: true, ..CLEAN },
    Family { names: &["glm4", "glm5"], splitter: SPLIT_LLAMA3, no_default_bos: true, ignore_merges: true, ..CLEAN },
    Family { names: &["jais-2"], splitter: cut(&[Stage::Words(Words { blanks: Blanks::Halving, ..LLAMA3 })]), ..CLEAN },
    Family {
        names: &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "gigachat",
            "jina-v2-es",
            "jina-v2-de",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "mpt",
            "olmo",
            "jais",
        ],
        splitter: SPLIT_GPT2,
        ..CLEAN
    },
    Family { names: &["jina-v1-en", "jina-v2-code", "roberta-bpe"], splitter: SPLIT_GPT2, add_sep: true, ..CLEAN },
    Family { names: &["trillion", "granite-docling"], splitter: SPLIT_GPT2, ..PLAIN },
    Family {
        names: &["starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
        splitter: SPLIT_STARCODER,
        ..CLEAN
    },
    Family { names: &["command-r", "smollm"], splitter: SPLIT_STARCODER, ..PLAIN },
    Family {
        names: &["falcon"],
        splitter: cut(&[
            stage_runs(Chars::new(
                PUNCT,
                &[('$', '$'), ('+', '+'), ('<', '>'), ('^', '^'), ('`', '`'), ('|', '|'), ('~', '~')],
            )),
            Stage::Words(GPT2),
            THREE_DIGITS,
        ]),
        ..CLEAN
    },
    Family {
        names: &["chameleon"],
        splitter: cut(&[
            // The published list starts with `<sentinel:[0-9]+>`, at both ends of which punctuation is cut anyway.
            Stage::Matches(image_len),
            Stage::Matches(indent_len),
            ONE_NUMBER,
            stage_each(Chars::new(PUNCT, &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')])),
            Stage::Words(GPT2),
        ]),
        add_bos: true,
        ..PLAIN
    },
    Family {
        names: &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "hunyuan", "solar-open", "grok-2"],
        splitter: SPLIT_QWEN2,
        ..PLAIN
    },
    Family { names: &["megrez", "stablelm2"], splitter: SPLIT_QWEN2, ..CLEAN },
    Family { names: &["bailingmoe", "bailingmoe2", "llada-moe"], splitter: SPLIT_QWEN2, ..PLAIN },
    Family { names: &["qwen35"], splitter: cut(&[Stage::Words(QWEN35)]), ..PLAIN },
    Family { names: &["laguna"], splitter: cut(&[LINE_FEEDS, Stage::Words(QWEN2)]), ..PLAIN },
    Family { names: &["seed-coder"], splitter: cut(&[Stage::Words(Words { tail: NO_TAIL, ..QWEN2 })]), ..PLAIN },
    Family {
        names: &["ufakzeka"],
        splitter: cut(&[Stage::Words(Words { contractions: Contractions::None, ..QWEN2 })]),
        ..PLAIN
    },
    Family {
        names: &["exaone-moe"],
        splitter: cut(&[Stage::Words(Words {
            letters: LETTERS | MARK,
            shape: Shape::Joined,
            tail: (b"\r\n/", 1),
            ..QWEN2
        })]),
        ..CLEAN
    },
    Family {
        names: &["minicpm5"],
        splitter: cut(&[THREE_NUMBERS, Stage::Words(LLAMA3)]),
        ignore_merges: true,
        ..CLEAN
    },
    Family { names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], splitter: SPLIT_GPT4O, ..PLAIN },
    Family {
        names: &["granite-embed-multi-97m"],
        splitter: cut(&[Stage::Words(Words { letters: LETTERS | MARK, ..GPT4O })]),
        ignore_merges: true,
        ..PLAIN
    },
    Family { names: &["tekken"], splitter: cut(&[Stage::Words(TEKKEN)]), ignore_merges: true, add_bos: true, ..PLAIN },
    Family {
        names: &["tiny_aya", "cohere2moe"],
        splitter: cut(&[Stage::Thirds(Thirds { of: NUMBERS, after: true }), Stage::Words(MARKED_SUFFIXED)]),
        ..PLAIN
    },
    Family {
        names: &["youtu"],
        splitter: cut(&[
            stage_runs(Chars::new(0, HANGUL)),
            stage_runs(Chars::new(0, WIDE_PUNCT)),
            stage_runs(Chars::new(0, BOPOMOFO)),
            KANJI_KANA_RUNS,
            Stage::Words(Words { numbers_max: 1, ..MARKED_SUFFIXED }),
        ]),
        ignore_merges: true,
        ..PLAIN
    },
    Family { names: &["kimi-k2"], splitter: cut(&[Stage::Words(KIMI)]), merges_optional: true, ..PLAIN },
    Family {
        names: &["deepseek-llm"],
        splitter: cut(&[
            EACH_BREAK,
            stage_led(Chars::new(0, CASED_LETTERS)),
            stage_led(Chars::new(0, PLAIN_SIGNS)),
            Stage::TrailingWhite,
            EAST_ASIAN_RUNS,
            stage_runs(NUMBERS),
        ]),
        ..PLAIN
    },
    Family {
        names: &["deepseek-coder"],
        splitter: cut(&[
            EACH_BREAK,
            stage_led(Chars::new(LETTERS, &[])),
            stage_led(Chars::new(PUNCT, &[])),
            EAST_ASIAN_RUNS,
            ONE_NUMBER,
        ]),
        ..PLAIN
    },
    Family { names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], splitter: SPLIT_DEEPSEEK3, ..PLAIN },
    Family {
        names: &["spark2_5"],
        splitter: cut(&[
            ONE_NUMBER, // published as up to three first, and one by one at the end
            KANJI_KANA_RUNS,
            Stage::Words(Words { tail: NO_TAIL, breaks: Breaks::Single, ..DEEPSEEK3 }),
        ]),
        ..PLAIN
    },
    Family {
        names: &["afmoe"],
        splitter: cut(&[
            Stage::Thirds(Thirds { of: NUMBERS, after: true }),
            stage_runs(Chars::new(0, UNSPACED)),
            Stage::Words(DEEPSEEK3),
        ]),
        ..PLAIN
    },
    Family {
        names: &["superbpe"],
        splitter: cut(&[stage_runs(NUMBERS), Stage::Thirds(Thirds { of: Chars::new(0, DIGITS), after: false })]),
        ..PLAIN
    },
    Family { names: &["poro-chat"], splitter: cut(&[TO_THE_STOP]), ..PLAIN },
    Family { names: &["bloom", "gpt3-finnish"], splitter: cut(&[TO_THE_STOP]), ..CLEAN },
    Family { names: &["viking"], splitter: cut(&[TO_THE_STOP, ONE_NUMBER]), ..PLAIN },
    Family {
        names: &["gemma4", "granite-embed-multi-311m"],
        splitter: SPLIT_LINE_FEEDS,
        escape_whitespace: true,
        byte_level: false,
        gemma4: true,
        ..CLEAN
    },
    Family { names: &["sarvam-moe"], splitter: SPLIT_LINE_FEEDS, escape_whitespace: true, byte_level: false, ..PLAIN },
    Family {
        names: &["whitespace"],
        splitter: cut(&[stage_runs(Chars::new(WHITE, &[]).not())]),
        byte_level: false,
        lowercase: false,
        ..CLEAN
    },
];
