"""Short stories: a hero, a place, a wish or a trouble, somebody or something that helps, and an end; four to seven sentences.

The hero, the name, the place and the thing that a request speaks of are those of the story.
"""

from .grammar import an, ask, expand
from .words import BOYS, GIRLS, fresh_name

ANIMALS = """fox rabbit bear mouse cat dog frog hedgehog owl duck wolf squirrel pig goat sheep horse lion tiger elephant monkey
turtle crow hen cow penguin beaver otter mole snail bee ant butterfly kitten puppy bird fish whale dragon robot""".split()
PEOPLE = ["girl", "boy", "king", "queen", "farmer", "sailor", "baker", "old man", "old woman", "knight", "princess", "prince", "wizard",
          "teacher", "fisherman", "painter", "shepherd", "gardener"]
HERS = {"girl", "queen", "old woman", "princess"}
TRAITS = ["small", "brave", "shy", "clever", "lazy", "kind", "hungry", "curious", "lonely", "old", "young", "happy", "tiny", "proud", "sleepy", "gentle"]
PLACES = ["forest", "village", "garden", "meadow", "mountain", "river", "lake", "island", "castle", "lighthouse", "farm", "desert", "cave",
          "mill", "harbour", "tower", "valley", "beach", "city", "swamp", "ship", "bridge", "school", "library", "windmill", "market"]
IN = {"mountain": "on a high mountain", "river": "by a wide river", "lake": "by a quiet lake", "island": "on a green island", "farm": "on a farm",
      "desert": "in the hot desert", "beach": "on a sunny beach", "ship": "on a ship", "bridge": "under a bridge", "market": "near the market",
      "lighthouse": "in an old lighthouse", "tower": "in a tall tower", "mill": "in an old mill", "windmill": "in an old windmill", "castle": "in a castle",
      "school": "near a school", "library": "in a library", "harbour": "by the harbour"}
OBJECTS = ["key", "lamp", "book", "map", "ring", "bell", "ball", "kite", "boat", "hat", "box", "coin", "drum", "candle", "feather", "stone",
           "apple", "umbrella", "letter", "clock", "red scarf", "flute", "basket", "mirror", "balloon", "blue shoe", "star", "seed"]

OPENINGS = ["[Once upon a time|Long ago|Once|One day, long ago], there [lived|was] {ahero} {inplace}.", "[In those days|Many years ago], {ahero} lived {inplace}."]

PLOTS = [
    # A lost thing.
    ["[One morning|One day|One evening|One rainy day], {who} lost {his} {object}.", "{He} looked [under the bed and behind the door|everywhere|in every corner|high and low], but it was gone.|{He} was very sad and [sat down on a stone|began to cry|could not sleep].",
     "[Then|Soon|After a while] {ahelper} came by and [asked what was wrong|said, \"Let us look together\"|offered to help].", "[Together|At last] they found the {object} [under an old tree|in a nest|behind the house|in the tall grass|near the water].",
     "[From that day on|After that], {who} and the {helper} were [good|best] friends."],
    # A found thing.
    ["One [day|morning|night], {who} found {aobject} [under a tree|in the grass|near the water|on the road|by the door].", "{He} [wondered|did not know] whose it was, so {he} [asked everyone|went from door to door|set out to ask].",
     "[At last|In the end] {he} met {ahelper} who said, \"[That is mine|I lost it last week|I have looked for it all day]!\"", "{who} gave it back [with a smile|at once|gladly].", "The {helper} [was so happy that they had a feast|thanked {him} and shared some cake|danced for joy], and [both|the two] became friends."],
    # Fear overcome.
    ["{who} was afraid of [the dark|deep water|thunder|high places|loud noises|the cold wind].", "[But one night|One day] {he} heard {ahelper} [call for help|crying outside|shouting in the storm].", "{who} took [a deep breath|a lantern|all {his} courage] and [ran out|went out|set off] to help.",
     "{He} [found the {helper} in a hole and pulled it out|brought the {helper} home, safe and warm|showed the {helper} the way home].", "[Since then|From that day on], {who} was [not afraid any more|never afraid again|the bravest of all]."],
    # A journey.
    ["{who} [wanted|wished|had always wanted] to see [the sea|the snow|the big city|the stars from a hill|the end of the world].", "So {he} took {aobject} and [some bread|an apple|a bag] and [set off|went on {his} way|started walking].", "On the road {he} met {ahelper}, and they [went on together|walked side by side|sang as they walked].",
     "[After three days|After a long walk|When the sun went down] they [came to the place|arrived|were there], and it was [more beautiful than any dream|very beautiful|bigger than they had thought].", "[Tired but happy|Full of joy], {who} [went home and told everyone|fell asleep under the moon|wrote a long letter home]."],
    # Sharing.
    ["{who} had [a big cake|a basket of apples|a pot of soup|a bag of nuts], and did not want to share it.", "Then winter came, and {ahelper} [knocked on the door|came by], cold and hungry.", "{who} thought [for a moment|about it] and said, \"[Come in|Sit down], there is enough for two.\"",
     "They ate [together|by the fire] and [told stories|laughed] [all night|until the morning].", "[So|That is how] {who} learned that [sharing makes things better|food tastes better with a friend|a friend is worth more than a full plate]."],
    # A contest.
    ["One day there was a [race|contest|great game] {inplace2}.", "The {helper} laughed and said, \"[You will never win|I am much better than you|You are too slow]!\"", "{who} [did not listen and did {his} best|only smiled and went on|worked hard every day].", "[In the end|At the end], the {helper} [stopped to rest and fell asleep|got tired and gave up|tripped over {aobject}], and {who} won.",
     "\"[Well done|You were better]!\" said the {helper}, and they [shook hands|shared the prize|became friends]."],
    # Wanting to learn.
    ["{who} wanted to learn to [fly|sing|swim|dance|play the flute|paint|read].", "[Every day|Each morning] {he} tried, but it [never worked|was too hard|went wrong].", "{Ahelper} saw it and said, \"[Do not give up|Try once more|Let me show you]!\"", "{who} tried [again and again|for seven days|once more], and [suddenly|one day] it worked.",
     "[Everyone clapped|The whole {place} cheered|They were all proud], and {who} [smiled|was the happiest of all|bowed]."],
    # A magic thing.
    ["One night {who} found {aobject} that [shone like gold|could talk|glowed in the dark].", "\"[Make a wish|You may wish for one thing],\" said the {object}.", "{who} [thought long|thought hard] and wished [for rain for the dry {place}|that nobody would be hungry|for a friend|for a warm home for everyone].", "[The next morning|When {he} woke up], the wish had come true[| and {ahelper} stood at the door].",
     "{who} [thanked the {object} and put it back|kept the {object} for ever|never forgot the {object}]."],
    # A storm.
    ["[One night|One evening], a great storm came, and [the wind broke the roof|the water rose and rose|all the lights went out].", "{who} [held on to {aobject}|lit a candle|rang a bell] so that [everyone could find the way|the others would hear it|no one got lost].", "{Ahelper} [saw it|heard it] and [came quickly|was saved|brought help].",
     "In the morning the sun [came out|shone again], and [all were safe|nobody was hurt].", "[They thanked {who} and repaired the house|Everyone thanked {who}|They had a big breakfast together]."],
]

REQUESTS = [
    "[Tell|Please tell|Can you tell|Could you tell|Will you tell|Would you tell|Now tell] [me|us] [a|another|a short|a little|a nice|a very short|one more] [story|tale][{about}][|, please| please].",
    "[Write|Please write|Can you write|Make up|Invent|Please make up|Can you make up|Think of|Could you write|Write me|Write down] [a|a short|a little|a very short|a nice|a small] [story|tale][{about}][|, please| for me].",
    "[I want|I would like|I'd like|I would love|I'd love|My child wants] to [hear|read|have] [a|another|a short|a nice] [story|tale][{about}][|, please].",
    "[A|One|Another|A short|A little] [story|tale|bedtime story]{about}[, please|| please|, if you like].",
    "[Do you know|Have you got|Is there|Can I have|May I hear|Give me|Let me hear|How about|Let us have] [a|another|a short|a good] [story|tale]{about}[|, please].",
]


def cast(rng):
    """Who and what a story is about."""
    hero = rng.choice(ANIMALS) if rng.random() < 0.55 else rng.choice(PEOPLE + ["girl", "boy"] * 4)
    helper = rng.choice([a for a in ANIMALS + PEOPLE if a != hero])
    her = hero in HERS or (hero not in PEOPLE and rng.random() < 0.3)
    name = None
    if rng.random() < (0.75 if hero in ("girl", "boy") else 0.4):
        name = rng.choice(GIRLS if her else BOYS) if rng.random() < 0.6 else fresh_name(rng)
    trait = rng.choice(TRAITS) if rng.random() < 0.7 else ""
    return dict(hero=hero, helper=helper, her=her, name=name, trait=trait, place=rng.choice(PLACES), object=rng.choice(OBJECTS))


def telling(rng, c):
    """The story."""
    he, him, his = ("she", "her", "her") if c["her"] else ("he", "him", "his")
    inplace = IN.get(c["place"], f"in a {c['place']}")
    whole = f"{c['trait']} {c['hero']}".strip()
    values = dict(ahero=an(whole), inplace=inplace, inplace2=inplace.replace("in a ", "in the ").replace("in an ", "in the "), place=c["place"], helper=c["helper"], ahelper=an(c["helper"]),
                  Ahelper=an(c["helper"]).capitalize(), object=c["object"], aobject=an(c["object"]), he=he, him=him, his=his, He=he.capitalize(), name=c["name"])
    opening = rng.choice(OPENINGS)
    if c["name"] and rng.random() < 0.5:
        sentences = [expand(rng, opening.replace("{ahero}", "{ahero} [called|named] {name}"), **values)]
    else:
        sentences = [expand(rng, opening, **values)]
        if c["name"]:
            naming = f"[{his.capitalize()} name was|Everyone called {him}|People called {him}] {{name}}."
            sentences.append(expand(rng, naming, **values))
    for step in rng.choice(PLOTS):
        who = c["name"] or f"the {c['hero']}"
        text = expand(rng, pick(rng, step).replace("{who}", "\1"), **values)
        text = text.replace("\1", who)
        sentences.append(text[:1].upper() + text[1:])
    return " ".join(sentences)


def pick(rng, step):
    """Of whole sentences that are choices (`One.|Another.`) one."""
    return rng.choice(step.split(".|")).rstrip(".") + "." if ".|" in step else step


def asking(rng, c):
    """What a request says of the story; empty for any story."""
    whole = f"{c['trait']} {c['hero']}".strip()
    hero = an(whole if rng.random() < 0.6 else c["hero"])
    called = f" [called|named|whose name is|with the name] {c['name']}" if c["name"] else ""
    ways = [""] * 2 + [f" [about|with|of] {hero}{called}"] * 5
    ways += [f" [about|with|of] {hero} and {an(c['helper'])}", f" [about|with] {hero} and {an(c['object'])}", f" [about|with] {an(c['object'])}"]
    adjective = "old " if c["place"] in ("lighthouse", "mill", "windmill") else ""
    ways += [f" [about|in|from] [a|the] {c['place']}", f" [about|in] {an(adjective + c['place'])}", f" [about|with] {hero} [in|from] [a|the] {c['place']}"]
    if c["name"]:
        ways += [f" about {c['name']}", f" [about|with] {c['name']} [the|, the] {c['hero']}", f" about {c['name']} and {an(c['object'])}"]
    return rng.choice(ways)


def stories(rng):
    c = cast(rng)
    about = asking(rng, c)
    request = rng.choice(REQUESTS).replace("[{about}]", about).replace("{about}", about)
    question = ask(rng, request)
    # What is asked for by a thing or a place must occur: draw plots until it does.
    wanted = [word for word in (c["object"], c["place"], c["helper"]) if f" {word}" in question.lower()]
    if c["name"] and c["name"].lower() not in question.lower() and rng.random() < 0.4:
        c["name"] = None
    while True:
        text = telling(rng, c)
        if all(word in text for word in wanted):
            break
    name = c["name"]
    if name and name not in question and name.lower() in question:
        question = question.replace(name.lower(), name)
    return [(question, text)]
