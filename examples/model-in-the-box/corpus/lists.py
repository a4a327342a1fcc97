"""Lists: some things of a kind, as many as asked for, drawn without repeats."""

from .grammar import ask, expand, listing
from .words import CITIES, COLOURS

COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}

# What they are called (in order of how often), and the things.
KINDS = [
    (["fruits", "fruits", "kinds of fruit"], "apples pears bananas plums cherries grapes oranges lemons peaches mangoes melons figs strawberries".split()),
    (["animals", "animals", "different animals"], "dog cat horse cow pig sheep goat fox bear rabbit mouse lion tiger duck wolf frog elephant monkey owl hedgehog".split()),
    (["colours", "colours", "colors"], COLOURS),
    (["vegetables", "vegetables"], "carrots potatoes onions beans peas cabbage spinach leeks tomatoes cucumbers".split()),
    (["drinks", "things to drink"], "water milk tea coffee juice lemonade cocoa".split()),
    (["birds", "kinds of birds"], "owl eagle duck robin crow swan sparrow parrot hen".split()),
    (["farm animals", "animals on a farm"], "cow pig sheep goat horse hen duck".split()),
    (["wild animals", "animals of the forest"], "fox bear wolf deer owl hedgehog squirrel rabbit".split()),
    (["pets", "animals that live in a house"], "dog cat hamster parrot rabbit goldfish".split()),
    (["things in a kitchen", "things from a kitchen", "kitchen things", "things that are in a kitchen", "things you find in a kitchen"], "spoon fork knife pan pot plate cup bowl oven fridge kettle".split()),
    (["things in a garden", "things you find in a garden", "things from a garden"], "tree flower bench fence path pond rose shed".split()),
    (["things in a school", "things you find in a school", "school things"], "book pencil desk chair board map ruler".split()),
    (["things to wear", "clothes", "pieces of clothing"], "shirt hat coat scarf socks shoes gloves jacket".split()),
    (["cities", "big cities", "cities in the world"], CITIES),
    (["names for a dog", "dog names", "names for a cat"], "Rex Luna Bella Max Coco Rocky Milo Daisy".split()),
    (["girls' names", "names for a girl"], "Anna Emma Mia Lily Ella Zoe Ruby Alice".split()),
    (["boys' names", "names for a boy"], "Tom Ben Max Sam Leo Tim Jack Finn".split()),
    (["months", "months of the year"], "January February March April May June July August September October November December".split()),
    (["sports", "kinds of sport"], "football tennis swimming running cycling chess skiing".split()),
    (["tools", "tools for work"], "hammer saw drill screwdriver knife axe rake".split()),
    (["jobs", "kinds of work"], "teacher nurse baker farmer pilot doctor cook".split()),
    (["families of models", "language models that kiln runs", "model families"], "Llama Qwen Gemma Mistral Phi".split()),
    (["formats of weights", "quantization formats", "quantizations"], "Q8_0 Q6_K Q5_K Q4_K Q4_0".split()),
]

ASKS = [
    "[|Please |Can you |Could you |Now |Will you |Hey, ][name|list|tell me|give me|say|write down|think of] {n} {kind}[| for me| please|, please| that you know| you know].",
    "[[|Please |Can you |Could you |Now |Please ][give me|write|make|make me|write me|write down]|Can I have|Could I have|I need] a [|short |little |small ]list [of|with] {n} {kind}[| for me| please|, please|].",
    "[I need|I want|I would like|I'd like|I am looking for|We need|I have to name|I must think of] {n} {kind}[|, please| from you| now|, quickly| for a game].",
    "[What are|Which are|Do you know|Can you think of|Any ideas for|Tell us|Quick:|And now|How about] {n} {kind}?",
    "{n} {kind}[, please|, quickly| please|, quick please]!",
    "[Name|List] [|me |]{n} {kind} that [I can find|you can find|you know|come to mind|I could find|people know].",
]

FIXED = [
    ("[days of the|days of a|seven days of the|days in a|seven days of a|seven days in a] week", "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday."),
    ("[four |][seasons|seasons of the year|seasons in a year]", "Spring, summer, autumn and winter."),
    ("[twelve |][months of the year|months of a year|months in a year]", "January, February, March, April, May, June, July, August, September, October, November and December."),
    ("[first ten numbers|numbers from one to ten|numbers up to ten]", "One, two, three, four, five, six, seven, eight, nine and ten."),
    ("[five vowels|vowels]", "A, e, i, o and u."),
]
FIXED_ASKS = [
    "[|Please |Can you |Could you |Now |Will you ][name|list|tell me|give me|say|write down|write] [all |]the {kind}[| for me| please|, please|].",
    "[What are|Which are|Do you know|I need|I want|Tell us|I would like|And now] [|all ]the {kind}[|, please]?",
    "[|Please |Can you ][give me|write|make] a list of [|all ]the {kind}[| for me| please|].",
]

SIMPLE = [
    ("What colour is {the}?", {"the sky": "The sky is blue.", "the grass": "Grass is green.", "snow": "Snow is white.", "a banana": "A banana is yellow.", "blood": "Blood is red.", "the sun": "The sun looks yellow.", "coal": "Coal is black.", "a lemon": "A lemon is yellow.", "an elephant": "An elephant is grey."}),
    ("What [sound |noise |]does {the} [say|make]?", {"a cat": "A cat says meow.", "a dog": "A dog says woof.", "a cow": "A cow says moo.", "a sheep": "A sheep says baa.", "a duck": "A duck says quack.", "a pig": "A pig says oink."}),
    ("How many legs [has|does] {the}[ have|]?", {"a dog": "A dog has four legs.", "a cat": "A cat has four legs.", "a spider": "A spider has eight legs.", "a bird": "A bird has two legs.", "an ant": "An ant has six legs.", "a horse": "A horse has four legs."}),
    ("How many {the} are there?", {"days in a week": "A week has seven days.", "months in a year": "A year has twelve months.", "hours in a day": "A day has 24 hours.", "seasons": "There are four seasons."}),
    ("What is the opposite of {the}?", {"hot": "The opposite of hot is cold.", "big": "The opposite of big is small.", "up": "The opposite of up is down.", "day": "The opposite of day is night.", "fast": "The opposite of fast is slow.", "old": "The opposite of old is young.", "good": "The opposite of good is bad.", "happy": "The opposite of happy is sad.", "long": "The opposite of long is short."}),
    ("[What|Which day] comes after {the}?", {"Monday": "After Monday comes Tuesday.", "Tuesday": "After Tuesday comes Wednesday.", "Wednesday": "After Wednesday comes Thursday.", "Thursday": "After Thursday comes Friday.", "Friday": "After Friday comes Saturday.", "Saturday": "After Saturday comes Sunday.", "Sunday": "After Sunday comes Monday."}),
]


def lists(rng):
    roll = rng.random()
    if roll < 0.16:
        kind, answer = rng.choice(FIXED[:1] * 2 + FIXED)
        return [(ask(rng, rng.choice(FIXED_ASKS), kind=lower(expand(rng, kind))), answer)]
    if roll < 0.3:
        template, answers = rng.choice(SIMPLE)
        the = rng.choice(list(answers))
        return [(ask(rng, template, the=the), answers[the])]
    names, things = rng.choice(KINDS[:3] if rng.random() < 0.3 else KINDS)
    number = min(rng.choice([2, 3, 3, 3, 4, 4, 5]), len(things))
    count = str(number) if rng.random() < 0.3 else COUNTS[number]
    chosen = rng.sample(things, number)
    question = ask(rng, rng.choice(ASKS), n=count, kind=rng.choice(names))
    form = rng.random()
    if form < 0.75:
        return [(question, expand(rng, listing(chosen)) + ".")]
    return [(question, f"Here are {COUNTS[number]}: {listing(chosen)}.")]


def lower(text):
    return text[0].lower() + text[1:]
