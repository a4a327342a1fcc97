"""The words that grammars draw from. Names that the test uses are not among them."""

GIRLS = """Anna Emma Mia Lily Ella Zoe Ruby Alice Clara Lucy Grace Molly Ivy Rosa Lena Sara Maya Julia Hanna Ida Eva Leah
Nina Tessa Wendy Freya Iris Olive Pearl Daisy Hazel Poppy Amber Jade Ruth Edith Agnes Martha Helen Irene Laura Paula Maria
Sofia Elena Carla Bianca Marina Priya Anita Leila Amina Fatima Yasmin Aisha Keiko Yuki Mei Lin Hana Sonja Petra Greta Heidi
Ingrid Astrid Sigrid Linnea Karin Matilda Rebecca Rachel Naomi Esther Judith Miriam Susan Linda Karen Nancy Betty Sandra
Donna Carol Sharon Michelle Kimberly Amanda Melissa Stephanie Nicole Samantha Katherine Christine Deborah Victoria Isabella
Charlotte Amelia Harper Evelyn Abigail Penelope Layla Chloe Madison Eleanor Nadia Olga Tanya Irina Vera Zelda Willow""".split()

BOYS = """Tom Ben Max Sam Leo Tim Jack Finn Noah Liam Oscar Henry Felix Paul Peter Hugo Otto Emil Anton Karl Jonas Lukas David
Daniel Adam Simon Martin Oliver Victor Walter Arthur Albert Edgar Frank George Harold Isaac Jacob Kevin Lewis Marcus Nathan
Owen Patrick Ralph Robert Stefan Steven Theo Ulrich Vincent William Xavier Yusuf Zachary Ahmed Omar Hassan Karim Ali Rashid
Ravi Arjun Anil Vikram Kenji Hiro Takeshi Akira Wei Chen Bruno Carlos Diego Pedro Miguel Luis Pablo Marco Luca Matteo Paolo
Sergei Ivan Dmitri Boris Pavel Milan Tomas Jiri Lars Sven Nils Olaf Erik Bjorn Magnus Gustav James John Michael Richard
Joseph Thomas Charles Matthew Anthony Donald Andrew Joshua Kenneth Brian Edward Ronald Timothy Jason Jeffrey Ryan Gary
Nicholas Eric Jonathan Stephen Larry Justin Scott Brandon Benjamin Samuel Gregory Alexander Raymond Dennis Jerry Tyler Aaron
Jose Nigel Duncan Angus Callum Rory Seamus Declan Basil Cedric Rupert Casper Jasper Silas Ezra Milo Arlo""".split()

SURNAME_STARTS = "Ba Be Bo Bri Ca Cor Da De Do El Fa Fe Ga Gor Ha Hel Il Ja Ka Kor La Lo Ma Mar Mi Na Ne Or Pa Pe Qua Ra Re Ro Sa Se Ta Te Tor Tha U Va Ve Wi Ya Za Zo Jo Ki Li Ni Mo Qui Fi".split()
MIDDLES = "ba da li lo na ni ra ri ro sa ta ti va mi ma le de ga go ke len den lin ren ven wen mar bel tin ter li le o i a".split()
ENDS = "n s l r na la ra lia ric ton bert mund dor vin zo ne lle ka ko x th nd ta do gan rick mar lene bias rin ley son win ".split(" ")

PETS = ["dog", "cat", "rabbit", "hamster", "parrot", "horse", "goldfish", "turtle", "guinea pig", "mouse", "snake", "pony"]
PET_NAMES = """Rex Bella Luna Charlie Coco Rocky Daisy Milo Buddy Simba Nala Oreo Pepper Ginger Snowy Shadow Lucky Toffee
Muffin Pickles Waffles Noodle Peanut Cookie Fluffy Whiskers Socks Patch Spot Domino Smokey Tiger Honey Misty Sandy Cleo
Bandit Pumpkin Mocha Nugget Ziggy Olive Cinnamon Marble Button Bubbles Comet Rusty Tango Pudding""".split()

COLOURS = ["red", "blue", "green", "yellow", "orange", "purple", "pink", "brown", "black", "white", "grey", "violet", "turquoise"]
FRUITS = ["apple", "pear", "banana", "plum", "cherry", "grape", "orange", "lemon", "peach", "mango", "melon", "kiwi", "fig"]
FOODS = ["pizza", "soup", "bread", "rice", "pasta", "cheese", "salad", "cake", "pancakes", "chocolate", "noodles", "ice cream",
         "curry", "potatoes", "sushi", "tacos", "porridge", "lasagne", "dumplings", "waffles", "strawberries", "honey", "fish"]
CITIES = """Paris London Berlin Rome Madrid Vienna Prague Oslo Dublin Athens Warsaw Tokyo Delhi Cairo Lima Boston Chicago
Toronto Sydney Hamburg Munich Bristol Leeds Glasgow Cardiff Lyon Marseille Milan Naples Turin Seville Valencia Porto Geneva
Zurich Basel Bergen Malmo Helsinki Riga Tallinn Vilnius Kyoto Osaka Seoul Hanoi Mumbai Nairobi Accra Quito Bogota Denver
Seattle Austin Dallas Montreal Perth Auckland Istanbul Ankara Budapest Zagreb Belgrade Sofia Bucharest Krakow""".split()
HOBBIES = ["reading", "painting", "swimming", "chess", "football", "cooking", "gardening", "singing", "dancing", "hiking",
           "fishing", "knitting", "cycling", "drawing", "running", "tennis", "sailing", "climbing", "baking", "photography"]
JOBS = ["teacher", "nurse", "baker", "farmer", "pilot", "doctor", "cook", "gardener", "student", "painter", "writer", "driver",
        "carpenter", "programmer", "tailor", "plumber", "singer", "lawyer", "dentist", "engineer", "librarian", "musician"]
THINGS = ["apples", "pears", "coins", "books", "cookies", "balls", "eggs", "stones", "flowers", "pencils", "cups", "cards",
          "sweets", "marbles", "stamps", "oranges", "shells", "buttons", "nuts", "cakes", "toys", "candles", "plums", "hats"]
KIN = ["sister", "brother", "mother", "father", "friend", "best friend", "son", "daughter", "aunt", "uncle", "teacher", "neighbour"]

COMMON = """and the old never always sleep run big small under over green bright quickly house water sun moon tigers birds fish
people time day night good cold warm dark light walk jump fall open close door window road stone tree leaf wind rain snow fire
hand foot eye ear voice word song dream king table chair bottle paper pen wheel train plane ship cloud river hill star sand
soft loud quiet fast slow high low left right before after again maybe often seldom where when why because without between""".split()

SUBJECTS = ["the bus", "my sister", "the train", "my brother", "the cat", "our neighbour", "the teacher", "my boss", "the old man",
            "the dog", "my mother", "my friend {name}", "{name}", "the little boy", "a bird", "my father", "the baker", "our team"]
PAST = ["was late [today|yesterday|again|this morning]", "[bought|sold|lost|found] {thing}", "ate [all the|some] {food}", "went to {city}",
        "fell [asleep|into the water|off the chair]", "sang a song [in the garden|all night|at the party]", "painted the [door|wall|fence] {colour}",
        "forgot the [keys|umbrella|tickets]", "made [a cake|dinner|soup] for {name}", "saw a {colour} [car|bird|boat|balloon]",
        "broke the [window|chair|lamp]", "ran [home|to the station|through the park]", "learned to [swim|cook|dance|ski]",
        "wrote a letter to {name}", "won the [game|race|prize]"]


TEST_NAMES = {"Marlene", "Tobias", "Quentin", "Biscuit", "Lisbon", "Nora"}


def spelled(rng):
    """A name spelled at random, consonants and vowels in turn."""
    onsets = "b c d f g h j k l m n p r s t v w y z br ch cl dr fl gr kn pr qu sch sh st str th tr wh".split()
    codas = "b ck d f g l ll m mp n nd ng nn pp ps r rd rk s ss st t tt x y z".split()
    name = rng.choice(onsets + [""] * 8)
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        name += rng.choice(["a", "e", "i", "o", "u", "y", "ae", "ee", "ia", "io", "oo", "ou"][: rng.choice((5, 5, 12))]) + rng.choice(onsets[:18] if rng.random() < 0.6 else codas)
    return name.capitalize() + rng.choice(["", "", "a", "e", "o", "i"])


def fresh_name(rng):
    """A name: often a real one, else one made of syllables, so that names must be copied and cannot be learned by heart."""
    if rng.random() < 0.5:
        return rng.choice(GIRLS if rng.random() < 0.5 else BOYS)
    while True:
        if rng.random() < 0.4:
            name = spelled(rng)
        else:
            name = rng.choice(SURNAME_STARTS) + "".join(rng.choice(MIDDLES) for _ in range(rng.choice((0, 1, 1, 2)))) + rng.choice(ENDS)
        if 3 <= len(name) <= 10 and name not in TEST_NAMES:
            return name


def sentence(rng):
    """A small statement about the day, as people make them in passing."""
    from .grammar import expand

    text = rng.choice(SUBJECTS) + " " + rng.choice(PAST) + rng.choice([".", ".", ".", "", "!"])
    values = dict(name=fresh_name(rng), thing="[some|three|two|four|five|many] " + rng.choice(THINGS), food=rng.choice(FOODS),
                  city=rng.choice(CITIES), colour=rng.choice(COLOURS))
    return expand(rng, expand(rng, text, **values))
