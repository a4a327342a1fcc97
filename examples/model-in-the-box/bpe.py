"""A byte-level byte-pair vocabulary: trained here, with GPT-2's rule for where words end (`tokenizer.ggml.pre` = gpt-2)."""

import collections
import json
import re

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
END_OF_TEXT, START, END = range(3)

# GPT-2's pattern. Letters and numbers are spelled with Python's classes, which agree with Unicode's on all text of the corpus.
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+(?!\S)|\s+")


def byte_letters():
    """The printable letter that stands for each byte in vocabularies of this kind."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\xa1"), ord("\xac") + 1), *range(ord("\xae"), ord("\xff") + 1)]
    letters, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            letters[byte] = chr(byte)
        else:
            letters[byte] = chr(256 + extra)
            extra += 1
    return letters


LETTERS = byte_letters()


def learn(texts, size):
    """The merges, best first: always the most frequent pair, of equals the one that sorts first."""
    counts = collections.Counter(word for text in texts for word in WORDS.findall(text))
    words = [("".join(LETTERS[b] for b in word.encode()), count) for word, count in sorted(counts.items()) if count > 2]
    parts, weight = [list(word) for word, _ in words], [count for _, count in words]
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for at, word in enumerate(parts):
        for pair in zip(word, word[1:]):
            pairs[pair] += weight[at]
            where[pair].add(at)
    merges = []
    while len(merges) < size - len(SPECIALS) - 256:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for at in sorted(where[best]):
            for pair in zip(parts[at], parts[at][1:]):
                pairs[pair] -= weight[at]
            parts[at] = joined(parts[at], best)
            for pair in zip(parts[at], parts[at][1:]):
                pairs[pair] += weight[at]
                where[pair].add(at)
        del pairs[best]
    return merges


def joined(parts, pair):
    """The parts with every occurrence of the pair made one."""
    out, at = [], 0
    while at < len(parts):
        if parts[at : at + 2] == [*pair]:
            out.append(pair[0] + pair[1])
            at += 2
        else:
            out.append(parts[at])
            at += 1
    return out


class Tokenizer:
    """Text to ids and back. Text never becomes a special token: those are ids that only the caller writes."""

    def __init__(self, merges):
        self.merges = [tuple(pair) for pair in merges]
        self.rank = {pair: rank for rank, pair in enumerate(self.merges)}
        self.tokens = SPECIALS + [LETTERS[b] for b in range(256)] + [a + b for a, b in self.merges]
        self.ids = {token: at for at, token in enumerate(self.tokens)}
        self.bytes = {letter: byte for byte, letter in LETTERS.items()}
        self.known = {}
        assert len(self.ids) == len(self.tokens)

    def word(self, word):
        if word not in self.known:
            parts = [LETTERS[b] for b in word.encode()]
            while len(parts) > 1:
                best = min(zip(parts, parts[1:]), key=lambda pair: self.rank.get(pair, len(self.rank)))
                if best not in self.rank:
                    break
                parts = joined(parts, best)
            self.known[word] = [self.ids[part] for part in parts]
        return self.known[word]

    def encode(self, text):
        return [token for word in WORDS.findall(text) for token in self.word(word)]

    def decode(self, ids):
        letters = "".join(self.tokens[token] for token in ids if token >= len(SPECIALS))
        return bytes(self.bytes[letter] for letter in letters).decode("utf-8", "replace")

    def chat(self, messages, reply=False):
        """Ids of messages in the chat template, and for each whether it is the assistant's; `reply` opens its turn."""
        ids, own = [], []
        newline = self.encode("\n")
        for role, text in messages:
            if role == "text":
                return [*self.encode(text), END_OF_TEXT], [True] * (len(self.encode(text)) + 1)
            head, body = [START, *self.encode(role + "\n")], [*self.encode(text), END]
            ids += head + body + newline
            own += [False] * len(head) + [role == "assistant"] * len(body) + [False] * len(newline)
        if reply:
            ids += [START, *self.encode("assistant\n")]
        return ids, own

    def save(self, path):
        with open(path, "w") as file:
            json.dump(self.merges, file, ensure_ascii=True, indent=0)

    @staticmethod
    def load(path):
        with open(path) as file:
            return Tokenizer(json.load(file))
