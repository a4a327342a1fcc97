"""Text from templates: `[a|b|]` picks one of the choices (they nest), `{name}` is filled from the given values."""

import functools
import json
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent


@functools.lru_cache(maxsize=None)
def parse(template):
    """A template as nested lists: a sequence of strings and of tuples of sequences to choose from."""

    def sequence(at, inside):
        parts, text = [], ""
        while at < len(template):
            char = template[at]
            if char == "[":
                parts.append(text)
                text = ""
                choices, at = choice(at + 1)
                parts.append(choices)
                continue
            if inside and char in "|]":
                break
            text += char
            at += 1
        parts.append(text)
        return parts, at

    def choice(at):
        choices = []
        while True:
            parts, at = sequence(at, True)
            assert at < len(template), f"no closing bracket: {template}"
            choices.append(parts)
            at += 1
            if template[at - 1] == "]":
                return tuple(choices), at

    return sequence(0, False)[0]


def expand(rng, template, **values):
    """One text of the template. Spaces that empty choices leave are closed, and the first letter is large."""

    def walk(parts):
        return "".join(part if isinstance(part, str) else walk(rng.choice(part)) for part in parts)

    text = walk(parse(template))
    if "{" in text:
        text = text.format(**values)
    text = re.sub(r" +", " ", text).strip()
    text = re.sub(r" ([.,!?;:])", r"\1", text)
    return text[:1].upper() + text[1:]


def plain(text):
    """What counts as the same words: letters and digits only, small, single spaces."""
    return " ".join(re.sub(r"[^a-z0-9+\-]+", " ", text.lower()).split())


def held_out():
    """The questions of the test, and what is said before them."""
    with open(HERE.parent / "questions.json") as file:
        questions = json.load(file)
    return {plain(q["question"]) for q in questions}


HELD_OUT = held_out()


def ask(rng, template, **values):
    """A user's turn: a text of the template as people type it, and never one of the test's questions."""
    while True:
        text = expand(rng, template, **values)
        if plain(text) not in HELD_OUT:
            return typed(rng, text)


LEADS = ["Tell me: ", "Okay, ", "Hey, ", "Now, ", "Sorry, ", "And ", "So, ", "Well, ", "Quick question: ", "I have a question: ", "One more thing: ", "Then "]
TAILS = [" I would like to know.", " Please tell me.", " Thanks.", " I am curious.", " Just wondering.", " Do you know?"]


def typed(rng, text):
    """Questions sometimes with a lead or a tail; sometimes all small letters, sometimes without the mark at the end."""
    if text.endswith("?") and rng.random() < 0.12:
        longer = rng.choice(LEADS) + text[0].lower() + text[1:] if rng.random() < 0.6 else text + rng.choice(TAILS)
        text = text if plain(longer) in HELD_OUT else longer
    if rng.random() < 0.12:
        text = text.lower()
    if rng.random() < 0.2:
        text = text.rstrip("?.!")
    return text


def listing(items, last="and"):
    """`a, b and c`."""
    items = list(items)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" {last} " + items[-1]


def an(noun):
    """The noun with its article."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun
