"""Arithmetic to twenty, in digits and in words, with pairs that only the test has."""

from .grammar import ask, expand
from .words import BOYS, GIRLS, THINGS, fresh_name

NAMES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
         "eighteen nineteen twenty").split()

# Never asked in the corpus, in no form: (a, b) of a + b and of a - b. The other order of a sum may appear.
HELD_SUMS = {(7, 5), (8, 6), (13, 4), (9, 8), (6, 5), (11, 3), (4, 9), (2, 12), (15, 3), (6, 7), (3, 8), (10, 9)}
HELD_DIFFERENCES = {(15, 6), (17, 9), (12, 5), (14, 3), (13, 8), (18, 7), (11, 4), (20, 6), (16, 12), (9, 2)}

PLAIN = [
    "[What is|What's|How much is|Calculate|Compute|What does|Please compute|Please calculate|Work out|Solve|Tell me|Do you know|] {x} [and|plus] {y}[| please| equal| make|]?",
    "[What is|What's|How much is|Calculate|Compute|Please compute|Please work out|] {x} + {y}[| please|]?",
    "{x} [plus|and|+] {y} [is what|equals what|makes what|is|equals|=|is how much]?",
    "[Can|Could|Will] you [add|work out|calculate|compute|tell me] {x} [plus|and|+] {y}[| please|]?",
    "[Add|Please add|Now add] {x} [and|to|plus] {y}[| for me| please|].",
    "[What is the sum|Sum|The sum|Tell me the sum|Give me the sum|I need the sum|What's the sum] of {x} and {y}?",
    "What do you get [if you add|when you add|by adding] {x} [and|to] {y}?",
]
MINUS = [
    "[What is|What's|How much is|Calculate|Compute|What does|Please compute|Please calculate|Work out|Solve|Tell me|Do you know|] {x} [minus|less|take away] {y}[| please| equal| make|]?",
    "[What is|What's|How much is|Calculate|Compute|Please compute|Please work out|] {x} - {y}[| please|]?",
    "{x} [minus|less|take away|-] {y} [is what|equals what|makes what|is|equals|=|is how much]?",
    "[Can|Could|Will] you [work out|calculate|compute|tell me] {x} [minus|-] {y}[| for me| please|]?",
    "[Subtract|Take|Take away|Please subtract|Now subtract] {y} from {x}[| for me| please|].",
    "[What is the difference|The difference|Tell me the difference|I need the difference] [between|of] {x} and {y}?",
    "What [do you get|is left|remains] [if you take|when you take|if you subtract|if I take|when you subtract|by taking|if we take] {y} [away |]from {x}?",
]
GAIN = [
    "[I have|I had|There are|We have] {x} {things} and [get|buy|find|receive|pick|then get|then find] {y} more. How many [{things} |][do I have|are there|are that|have I got|do I have now|are there now][| altogether| in total|]?",
    "{name} [has|had] {x} {things} and [gets|buys|finds|got|bought|found|was given] {y} more. How many [{things} |][does {name} have|are there|has {name} now|does {name} have now][| altogether| in total|]?",
    "[If I have|If you have|Say I have] {x} {things} and {y} more, how many [{things} |][are there|is that|do I have]?",
]
LOSS = [
    "[I have|I had|There are|We have|There were] {x} {things} and [lose|lost|eat|give away|gave away|sold|sell] {y}. How many [{things} |][are left|do I have left|remain|do I have now|are there now]?",
    "{name} [has|had] {x} {things} and [loses|lost|gives away|gave away|sold|sells|eats|breaks|broke] {y}[| of them]. How many [{things} |][are left|does {name} have now|remain|does {name} have left|are there now]?",
    "[If I have|If you have|Say I have] {x} {things} and [lose|give away|eat] {y}, how many [{things} |][are left|remain|do I have left]?",
]


def pair(rng, minus):
    """Two numbers that the corpus may ask about, the answer within 0 to 20."""
    while True:
        x, y = rng.randint(0, 20), rng.randint(0, 20)
        if min(x, y) == 0 and rng.random() < 0.6:
            continue
        if minus and x >= y and (x, y) not in HELD_DIFFERENCES:
            return x, y
        if not minus and x + y <= 20 and (x, y) not in HELD_SUMS:
            return x, y


def as_form(rng):
    """Digits mostly, else words: a function from a number to its text."""
    return str if rng.random() < 0.65 else lambda n: NAMES[n]


def calculation(rng):
    minus = rng.random() < 0.5
    x, y = pair(rng, minus)
    form, result = as_form(rng), x - y if minus else x + y
    values = dict(x=form(x), y=form(y))
    if rng.random() < 0.22:
        thing = rng.choice(THINGS)
        name = rng.choice(GIRLS + BOYS) if rng.random() < 0.7 else fresh_name(rng)
        question = ask(rng, rng.choice(LOSS if minus else GAIN), things=thing, name=name, **values)
        thing = thing[:-1] if result == 1 else thing
        sign = "minus" if minus else "plus"
        answer = f"{form(x)} {sign} {form(y)} is {form(result)}, so there {'is' if result == 1 else 'are'} {form(result)} {thing}."
        return [(question, expand(rng, answer))]
    question = ask(rng, rng.choice(MINUS if minus else PLAIN), **values)
    if form is str and rng.random() < 0.25:
        # The same without spaces, as people type it.
        question = question.replace(f"{x} + {y}", f"{x}+{y}").replace(f"{x} - {y}", f"{x}-{y}")
    sign = ("-" if minus else "+") if f"{x} {'-' if minus else '+'}" in question or f"{x}{'-' if minus else '+'}" in question else "minus" if minus else "plus"
    answer = f"{values['x']} {sign} {values['y']} {'=' if sign in '+-' else 'is'} {form(result)}."
    return [(question, expand(rng, answer))]


def compare(rng):
    x, y = rng.sample(range(21), 2)
    form = as_form(rng)
    larger = rng.random() < 0.5
    word = rng.choice(["bigger", "larger", "greater", "more"] if larger else ["smaller", "less"])
    if rng.random() < 0.5:
        winner = max(x, y) if larger else min(x, y)
        question = ask(rng, f"[Which is|Which number is|What is|Tell me which is] {word}[,|:|] {form(x)} or {form(y)}?")
        return [(question, expand(rng, f"{form(winner)} is {word} than {form(x + y - winner)}."))]
    truth = (x > y) == larger
    question = ask(rng, f"Is {form(x)} {word} than {form(y)}?")
    return [(question, expand(rng, f"{'Yes' if truth else 'No'}, {form(x)} is {'' if truth else 'not '}{word} than {form(y)}."))]


def count(rng):
    form = as_form(rng)
    if rng.random() < 0.5:
        x = rng.randint(1, 19)
        after = rng.random() < 0.5
        side = "after" if after else "before"
        question = ask(rng, f"[What|Which number|What number] [comes|is|comes right] {side} {form(x)}?")
        return [(question, expand(rng, f"{form(x + 1 if after else x - 1)} comes {side} {form(x)}."))]
    start = rng.choice([1, 1, 1, rng.randint(0, 12)])
    end = min(20, start + rng.randint(3, 10))
    whence = "" if start == 1 and rng.random() < 0.5 else f"from {form(start)}"
    question = ask(rng, f"[Count|Please count|Can you count|Now count] {whence} to {form(end)}.")
    return [(question, expand(rng, ", ".join(form(n) for n in range(start, end + 1)) + "."))]


def numbers(rng):
    roll = rng.random()
    if roll < 0.84:
        exchange = calculation(rng)
        # Often several in a row, so that answers come from the last question.
        while rng.random() < 0.5:
            exchange += calculation(rng)
        return exchange
    return compare(rng) if roll < 0.9 else count(rng)
