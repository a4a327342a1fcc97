//! What is said about architectures that have no program: what they would need, and what comes closest to them.

use super::architectures;

/// What some families need that no family here has, and their names.
const NEEDS: &[(&str, &str)] = &[
    (
        "recurrent layers of another kind",
        "arwkv7 falcon-h1 jamba kimi-k3 kimi-linear mamba minimax-01 nemotron_h \
         nemotron_h_moe plamo2 rwkv6 rwkv6qwen2 rwkv7",
    ),
    (
        "experts that are wired in a way of their own",
        "afmoe arctic bailingmoe bailingmoe3 cohere2moe dbrx deepseek deepseek32 dots1 \
         exaone-moe grok grovemoe qwen3vlmoe smallthinker",
    ),
    ("an encoder with cross attention", "t5"),
    ("attention to later tokens", "dream eurobert jina-bert-v3 llada llada-moe llama-embed neo-bert rnd1 t5encoder"),
    ("positions that are learnt, not rotated", "gpt2 starcoder"),
    ("attention that fades with distance", "baichuan bloom jais mpt refact"),
    ("latent attention", "minicpm3 mistral4 plm"),
    ("several streams between its layers", "gemma3n"),
    ("pictures instead of text", "clip cogvlm"),
    ("sound instead of text", "pockettts qwen3tts wavtokenizer-dec"),
    ("another model that it drafts for", "dflash eagle3 gemma4-assistant"),
];

/// Names with at least so many letters in common at the beginning are related.
const RELATED_LETTERS: usize = 3;

/// What to say behind the list of what there is.
pub(super) fn hint(architecture: &str) -> String {
    let needs = NEEDS.iter().find(|(_, names)| names.split(' ').any(|name| name == architecture));
    let needs = needs.map_or(String::new(), |(what, _)| format!("; `{architecture}` needs {what}: not supported yet"));
    format!("{}{needs}", closest(architecture).map_or(String::new(), |name| format!("; the closest is `{name}`")))
}

/// The architecture whose name begins most alike; of several the one of about that length, and the latest.
fn closest(architecture: &str) -> Option<&'static str> {
    let alike =
        |name: &str| architecture.bytes().zip(name.bytes()).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
    let related = architectures().filter(|name| alike(name) >= RELATED_LETTERS);
    related.max_by_key(|name| (alike(name), std::cmp::Reverse(name.len().abs_diff(architecture.len())), *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_program_is_not_said_to_need_anything() {
        let known: Vec<&str> = architectures().collect();
        let mut named = NEEDS.iter().flat_map(|(_, names)| names.split(' '));
        assert_eq!(named.find(|name| known.contains(name)), None);
    }
}
