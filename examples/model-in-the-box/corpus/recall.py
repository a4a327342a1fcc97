"""What the user said earlier: names, likes, pets, and the last words themselves.

A `Memory` belongs to one conversation. It holds what the user told, so that questions can be asked about it later, and
about what was never told.
"""

from .grammar import ask, expand
from .words import BOYS, CITIES, COLOURS, COMMON, FOODS, FRUITS, GIRLS, HOBBIES, JOBS, KIN, PETS, PET_NAMES, fresh_name, sentence

# fact: (ways to tell it, answers, ways to ask, answers to that, where it was never told)
FACTS = {
    "name": (
        ["[Hello, |Hi, |Hi! |Hey, |Hello! |By the way, |||]my name is {v}[.|!||, and yours?| and I have a question.| and I am new here.]", "[Hello, |Hi, |Hey, |||]I am {v}[.|!|, nice to meet you.|, hello.|. How are you?|, by the way.| and I am new here.| and I like kiln.| and this is my first visit.]",
         "[Hello, |Hi, |Hey, |Please |||][you can |]call me {v}[.|!|, please.]", "[Hello, |Hi, |Hey, |||]I'm {v}[.|!|, nice to meet you!]", "[They call me|People call me|Everyone calls me|My friends call me|My parents named me] {v}[.|!|]", "[Hi, |Hello, |]{v} [is my name|here|speaking][.|!]", "[Hi|Hello], this is {v}[.|!|]"],
        ["[Hello, {v}!|Hi, {v}!|Nice to meet you, {v}!|Welcome, {v}!|It is nice to meet you, {v}.] [How are you?|What can I do for you?|What shall we talk about?|How can I help you?|]"],
        ["[So, |And |Well, |Now, |Hey, |Okay, ||||][what is|what's|what was] my name[| again|, please| then| now]?", "[Do you|Do you still|Can you|Could you|Will you] [remember|know|recall|tell me|say] [my name|who I am|what my name is|what I am called|the name I gave you][| now| again|, please]?",
         "[Who am I|What am I called|How am I called|What do people call me|What should you call me|Which name did I give you|What name did I tell you|What did I say my name was|Who is talking to you|Who are you talking to]?", "[Say|Please say|Tell me|Please tell me|Repeat|Write|Can you say|I forgot] [my name|my own name|what my name is|what I am called|who I am][| again| now|, please].", "Have you [forgotten|kept] my name?"],
        ["Your name is {v}.", "Your name is {v}.", "You are {v}.", "You told me that your name is {v}."],
        ["You have not told me your name yet.", "I do not know your name yet. What is it?"],
    ),
    "colour": (
        ["My favourite colour is {v}[.|!|]", "[I like|I love] {v} [best|most] of all colours.", "[I like|I love] the colour {v}[| very much| the most].", "{v} is my favourite colour[.|!|]", "The colour [that |]I like [best|most] is {v}."],
        ["[{v} is a nice colour!|{v} is a lovely colour!|What a nice colour, {v}!|I will remember: {v}.]"],
        ["[So, |And |Well, |Now, |Hey, |||][what is|what's|what was|which is|which one is] my favourite colour[| again]?", "[Which|What] colour [do I like|did I say I like|do I love] [|best|most|the most]?", "[Do you remember|Do you know|Tell me|Please tell me|Can you tell me|Say] [my favourite colour|what my favourite colour is|which colour I like|which colour I like most|what colour I like|the colour I like best].", "What did I say [is my favourite colour|my favourite colour was]?"],
        ["Your favourite colour is {v}.", "You like {v} best."],
        ["You have not told me your favourite colour yet."],
    ),
    "food": (
        ["My favourite food is {v}[.|!|]", "[I like|I love] to eat {v}[.|!|]", "[I like|I love] {v} [best|most|more than any other food][.|!|]", "{v} is my favourite food[.|!|]", "The food [that |]I like [best|most] is {v}."],
        ["[{v}, that sounds good!|I cannot eat, but {v} sounds good.|{v} is a good choice!]"],
        ["[So, |And |Well, |Now, |Hey, |||][what is|what's|what was] my favourite food[| again]?", "[Which food|What|Which dish] do I [like|love] to eat[| most| best]?", "[Do you remember|Do you know|Tell me|Please tell me|Can you tell me|Say] [my favourite food|what my favourite food is|what I like to eat|which food I like best].", "What food did I say I like?"],
        ["Your favourite food is {v}.", "You like {v} best."],
        ["You have not told me your favourite food yet."],
    ),
    "city": (
        ["I live in {v}[.|!|]", "[I am|I come|I'm] from {v}[.|!|]", "[My home is|My house is|We live|I have lived for years] in {v}[.|!|]", "{v} is [my home|where I live|my city][.|!|]"],
        ["[{v} must be nice.|I have never been to {v}.|Is it nice in {v}?|How is life in {v}?]"],
        ["[So, |And |Well, |Now, |Hey, |||]where do I live[| again]?", "[In which|In what|Which|What] city [do I live|is my home|did I say is my home][| in|]?", "[Do you remember|Do you know|Tell me|Please tell me|Can you tell me|Say] [where I live|in which city I live|what city I live in|where my home is|where I am from|which city I live in].", "Where [am I from|is my home|did I say I live|did I say that I live|do I come from]?"],
        ["You live in {v}.", "You told me that you live in {v}."],
        ["You have not told me where you live."],
    ),
    "hobby": (
        ["My hobby is {v}[.|!|]", "[I like|I love|I enjoy] {v} [very much|in my free time|on Sundays][.|!|]", "In my free time I [like|love|enjoy] {v}."],
        ["[{v} sounds like fun!|{v} is a nice hobby!|How long have you been doing that?]"],
        ["[So, |And |Well, |Hey, |||][what is|what's|what was] my hobby[| again]?", "What do I [like|enjoy|love] [|to do ]in my free time?", "[Do you remember|Do you know|Tell me|Please tell me|Can you tell me] [my hobby|what my hobby is|what I enjoy|what I do in my free time]."],
        ["Your hobby is {v}.", "You like {v}."],
        ["You have not told me your hobby yet."],
    ),
    "job": (
        ["I am {av}[.|!|]", "[I work|I earn my money] as {av}[.|!|]", "My job is to be {av}.", "My job: I am {av}."],
        ["[That is a good job!|Do you like being {av}?|Being {av} must be interesting.|I see, {av}!]"],
        ["[So, |And |Well, |Hey, |||][what is|what's|what was] my [job|work|profession][| again]?", "What do I [work as|do for a living|do for work]?", "[Do you remember|Do you know|Tell me|Please tell me|Can you tell me] [my job|what my job is|what I work as|what I do for a living]."],
        ["You are {av}.", "You told me that you are {av}."],
        ["You have not told me your job yet."],
    ),
    "age": (
        ["I am {v} years old[.|!|]", "I am {v}[| this year].", "My age is {v}.", "[I turned|I just turned] {v} [today|last week|this year|in May]."],
        ["[{v} is a good age!|{v} years, I see.|I am much younger than that.|{v}, how nice!]"],
        ["[So, |And |Well, |Hey, |||]how old am I[| again]?", "What is my age?", "[Do you remember|Do you know|Tell me|Please tell me|Can you tell me] [my age|how old I am].", "How old did I say I am?"],
        ["You are {v} years old.", "You told me that you are {v}."],
        ["You have not told me how old you are."],
    ),
    "pet": (
        ["[I have|I've got|We have|There is] a {k} [called|named|and its name is] {v}[.|!|]", "My {k} [is called|is named|has the name] {v}[.|!|]", "My {k}'s name is {v}[.|!|]", "[The name of my {k} is|My {k} is] {v}[.|!|]", "{v} is [my {k}|the name of my {k}][.|!|]"],
        ["[{v} is a nice name for a {k}!|Say hello to {v}!|How lovely! Is {v} a good {k}?|A {k} called {v}, how nice!]"],
        ["[So, |And |Well, |Now, |Hey, |||][what is|what's|what was] [the name of my {k}|my {k}'s name|my {k} called][| again]?", "How [do I call my {k}|did I say my {k} is called|was my {k} called]?", "[Do you remember|Do you know|Tell me|Please tell me|Can you tell me|Say] [the name of my {k}|my {k}'s name|what my {k} is called|how my {k} is called|what I call my {k}].", "What [did I call my {k}|is my {k} called|name does my {k} have|name has my {k}]?", "Who is {v}?"],
        ["Your {k} is called {v}.", "Your {k}'s name is {v}."],
        ["You have not told me about [a|your] {k}."],
    ),
    "kin": (
        ["My {k} is called {v}[.|!|]", "My {k}'s name is {v}[.|!|]", "[I have a|I've got a] {k} [called|named] {v}[.|!|]", "{v} is my {k}[.|!|]", "My {k} is {v}."],
        ["[{v} is a nice name!|Say hello to {v} from me!|I see! How is {v}?|How is your {k} {v}?]"],
        ["[So, |And |Well, |Now, |Hey, |||][what is|what's|what was] [the name of my {k}|my {k}'s name|my {k} called][| again]?", "How [is my {k} called|did I say my {k} is called]?", "[Do you remember|Do you know|Tell me|Please tell me|Can you tell me|Say] [the name of my {k}|my {k}'s name|what my {k} is called|how my {k} is called].", "What [is my {k} called|name does my {k} have]?", "Who is {v}?"],
        ["Your {k} is called {v}.", "Your {k}'s name is {v}."],
        ["You have not told me the name of your {k}."],
    ),
}
WEIGHTS = {"name": 8, "colour": 3, "food": 2, "city": 3, "hobby": 1, "job": 1, "age": 2, "pet": 4, "kin": 3}

LAST_ASKS = [
    "[So, |And |Well, |Hey, |Okay, |||]what did I [just say|say just now|say|just tell you|say last|say before|tell you a moment ago|say a moment ago]?",
    "[What was|Tell me|So what was] [my last message|my last sentence|the last thing I said|the thing I just said]?", "What was it [I just said|I said just now|that I said]?", "What were my last words?",
    "[Repeat|Please repeat|Can you repeat|Say again|Tell me|Do you remember|Do you know] what I [just said|said|told you|said just now|said last|just told you].",
]
REPEAT_ASKS = ["[Repeat|Please repeat|Repeat after me|Say|Please say|Say this|Now say|Write|Copy this|Can you say]: {v}", "[Repeat this|Say this after me|Please repeat after me|Say the following]: {v}"]


class Memory:
    """What one user told in one conversation."""

    def __init__(self, rng):
        self.rng = rng
        self.told = {}

    def tell(self, fact=None):
        """The user tells something: one exchange."""
        rng = self.rng
        fact = fact or rng.choices(list(WEIGHTS), WEIGHTS.values())[0]
        if (fact, "") in self.told:
            fact = "kin"
        kind, value = "", value_of(rng, fact)
        if fact in ("pet", "kin"):
            kind = rng.choice(PETS if fact == "pet" else KIN)
        self.told[(fact, kind)] = value
        tells, answers = FACTS[fact][:2]
        values = filling(kind, value)
        return [(keep_name(ask(rng, rng.choice(tells), **values), value, fact), expand(rng, rng.choice(answers), **values))]

    def recall(self, only=None):
        """The user asks for something told before, or now and then for something never told."""
        rng = self.rng
        known = [key for key in self.told if only is None or key[0] == only]
        if not known or rng.random() < 0.06:
            fact = rng.choices(list(WEIGHTS), WEIGHTS.values())[0]
            kind = rng.choice(PETS if fact == "pet" else KIN) if fact in ("pet", "kin") else ""
            if (fact, kind) not in self.told:
                asks = [a for a in FACTS[fact][2] if "{v}" not in a]
                return [(ask(rng, rng.choice(asks), k=kind), expand(rng, rng.choice(FACTS[fact][4]), k=kind))]
            known = [(fact, kind)]
        fact, kind = rng.choice(known)
        value = self.told[(fact, kind)]
        asks, answers = FACTS[fact][2:4]
        template, values = rng.choice(asks), filling(kind, value)
        if "Who is" in template and "{v}" in template:
            answers = ["{v} is your {k}."]
        return [(keep_name(ask(rng, template, **values), value, fact), expand(rng, rng.choice(answers), **values))]


def value_of(rng, fact):
    pools = dict(colour=COLOURS, food=FOODS, city=CITIES, hobby=HOBBIES, job=JOBS, age=[str(n) for n in range(5, 100)])
    if fact == "name":
        return fresh_name(rng)
    if fact == "kin":
        return rng.choice(GIRLS + BOYS) if rng.random() < 0.5 else fresh_name(rng)
    if fact == "pet":
        return rng.choice(PET_NAMES) if rng.random() < 0.5 else fresh_name(rng)
    if fact == "city" and rng.random() < 0.3:
        return fresh_name(rng)
    return rng.choice(pools[fact])


def filling(kind, value):
    return dict(k=kind, v=value, av=("an " if value[0] in "aeiou" else "a ") + value)


def keep_name(text, value, fact):
    """Names keep their large letter where a text was made small, as most people write them."""
    if fact in ("name", "pet", "kin", "city") and value not in text:
        at = text.lower().find(value.lower())
        text = text[:at] + value + text[at + len(value):] if at >= 0 else text
    return text


def last_words(rng, said):
    """`What did I just say?`, and the words."""
    return ask(rng, rng.choice(LAST_ASKS)), f'You said: "{said}"'


def last(rng):
    """A statement that has some small answer, and the question what it was."""
    said = sentence(rng)
    answer = expand(rng, "[I see.|Oh, really?|Is that so?|Interesting!|How nice!|Oh!|Tell me more.|Thank you for telling me.|Aha.|Oh dear!]")
    return [(said, answer), last_words(rng, said)]


def repeat(rng):
    """Words to say again: what teaches copying, on which names in stories and in recall depend."""
    if rng.random() < 0.4:
        said = sentence(rng)
    else:
        pools = (COMMON, COMMON, COMMON, COLOURS, FRUITS, FOODS, HOBBIES, CITIES, PET_NAMES, JOBS)
        said = " ".join(fresh_name(rng) if rng.random() < 0.4 else rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 9)))
    return [(ask(rng, rng.choice(REPEAT_ASKS), v="\0").replace("\0", said), said)]
