"""Writes conversations to train the model in the box on: `python -m corpus --help`.

Everything comes from grammars and one seed; the standard library is all it needs. No conversation has a turn that is, word
for word, a question of `questions.json`.
"""

import random

from .facts import facts
from .grammar import HELD_OUT, plain
from .lists import lists
from .numbers import numbers
from .recall import Memory, last, last_words, repeat
from .stories import cast, stories, telling
from .talk import joke, opening, talk, unknown
from .words import fresh_name

SYSTEMS = ["You are a helpful assistant.", "You are the model in the box.", "You are a small, friendly assistant.", "You are a helpful model that runs on kiln.",
           "Answer briefly and kindly.", "You are a tiny language model. Be honest and brief.", "Be polite.", "You are kiln's assistant."]

# How often each kind of exchange occurs in a conversation.
KINDS = {"talk": 22, "joke": 2, "unknown": 4, "facts": 17, "numbers": 32, "lists": 12, "stories": 12, "tell": 12, "recall": 16, "last": 6, "repeat": 10}
EXCHANGES = dict(talk=talk, joke=joke, unknown=unknown, facts=facts, numbers=numbers, lists=lists, stories=stories, last=last, repeat=repeat)


def conversation(rng):
    """Messages of one conversation: (role, text) from one turn to some twenty."""
    memory, turns, system = Memory(rng), [], None
    if rng.random() < 0.2:
        system = rng.choice(SYSTEMS)
        if rng.random() < 0.25:
            name = fresh_name(rng)
            system = rng.choice([f"The user's name is {name}.", f"{system} The user is called {name}.", f"You talk to {name}."])
            memory.told[("name", "")] = name
    length = rng.choice([1, 1, 2, 2, 3, 3, 4, 5, 6, 8]) if rng.random() < 0.97 else rng.randint(12, 30)
    if length > 1 and rng.random() < 0.15:
        turns += opening(rng)
    wanted = length > 1 and rng.random() < 0.4
    if wanted:
        turns += memory.tell("name" if rng.random() < 0.5 else None)
    while len(turns) < length:
        kind = rng.choices(list(KINDS), KINDS.values())[0]
        if kind == "tell":
            turns += memory.tell()
        elif kind == "last" and turns and rng.random() < 0.4:
            turns.append(last_words(rng, turns[-1][0]))
        elif kind == "recall":
            if memory.told or rng.random() < 0.15:
                turns += memory.recall()
        else:
            turns += EXCHANGES[kind](rng)
    if memory.told and rng.random() < 0.6:
        turns += memory.recall()
    messages = [("system", system)] if system else []
    for question, answer in turns:
        messages += [("user", question), ("assistant", answer)]
    return messages


def texts(seed, count):
    """`count` conversations; one in forty is a story alone, without roles."""
    rng = random.Random(seed)
    for _ in range(count):
        if rng.random() < 0.025:
            yield [("text", telling(rng, cast(rng)))]
            continue
        messages = conversation(rng)
        for role, text in messages:
            assert text.isascii() and "{" not in text and "[" not in text, text
            assert role != "user" or plain(text) not in HELD_OUT, f"a question of the test: {text}"
        yield messages
