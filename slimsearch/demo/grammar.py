"""Text of our own making: short paragraphs written by a seeded stochastic grammar.

Every paragraph has a topic, a hero and a friend, and keeps its facts straight: who has how many
of which things, where a thing was put, and which pronoun and which verb form go with whom. So
there is something to learn at every range, from spelling to the facts of the paragraph.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SHE = ("Mira", "Anna", "Lena", "Ruth", "Ida", "Nora")
HE = ("Tom", "Otto", "Ben", "Hugo", "Finn", "Karl")
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
MOODS = ("happy", "tired", "proud", "calm", "angry", "sad", "hungry", "busy")
TIMES = (
    "In the morning",
    "At noon",
    "In the evening",
    "After the rain",
    "Before the storm",
    "On Monday",
    "On Friday",
    "Late at night",
)
MANNERS = ("slowly", "gladly", "quietly", "quickly", "often", "alone", "again", "well")
NEAR = ("behind", "under", "beside", "inside", "above", "near")


@dataclass(frozen=True)
class Topic:
    """Words that go together; the most frequent of each kind comes first."""

    places: tuple[str, ...]
    things: tuple[str, ...]
    qualities: tuple[str, ...]
    company: tuple[str, ...]
    doings: tuple[str, ...]  # the plural form; the singular adds an s


_WORDS = {
    "market": (
        "market stall basket scale corner",
        "apple pear onion lemon carrot melon",
        "fresh cheap sweet round heavy",
        "trader cook porter pigeon",
        "shout wait pay laugh bargain",
    ),
    "harbour": (
        "harbour pier boat lighthouse beach",
        "rope net anchor lamp shell hook",
        "wet long rusty strong salty",
        "sailor gull crab fisher",
        "sail swim float row drift",
    ),
    "garden": (
        "garden hedge pond gate shed",
        "rose seed spade bulb flower pot",
        "tall green dry wild pale",
        "bee frog robin gardener",
        "grow dig hum hide rest",
    ),
    "school": (
        "school desk board library yard",
        "book pencil map ruler pen letter",
        "new thin clever short clean",
        "pupil teacher painter writer",
        "read listen count draw sing",
    ),
    "forest": (
        "forest oak river cave hill",
        "stone twig nut feather acorn pebble",
        "dark old soft brown hollow",
        "fox owl badger hunter",
        "run howl sleep jump climb",
    ),
    "kitchen": (
        "kitchen oven table shelf window",
        "spoon cup plate knob bowl cake",
        "warm small broken hot white",
        "baker guest cat maid",
        "eat bake drink stir taste",
    ),
    "workshop": (
        "workshop anvil furnace ladder cellar",
        "hammer nail wheel screw chain engine",
        "loud sharp iron wooden oily",
        "smith robot joiner helper",
        "weld build lift hammer drill",
    ),
    "castle": (
        "castle tower throne bridge hall",
        "crown sword shield coin banner horn",
        "golden ancient silver noble grey",
        "king knight dragon guard",
        "dance fight kneel feast ride",
    ),
}
TOPICS = {name: Topic(*(tuple(words.split()) for words in lists)) for name, lists in _WORDS.items()}


def write_text(seed: int, words: int) -> str:
    """Paragraphs, one a line, `words` words in all."""
    rng = random.Random(f"text/{seed}")
    return gather(words, lambda: write_paragraph(rng))


def gather(words: int, next_paragraph: Callable[[], str]) -> str:
    """As many paragraphs as it takes, one a line, the last cut at word number `words`."""
    lines: list[str] = []
    left = words
    while left > 0:
        line = next_paragraph().split(" ")[:left]
        lines.append(" ".join(line))
        left -= len(line)
    return "\n".join(lines)


def write_paragraph(rng: random.Random) -> str:
    """An opening, four to seven sentences on one topic, and a closing."""
    story = begin_story(rng)
    sentences = [opening(story, rng), possession(story, rng)]
    for _ in range(rng.randint(4, 7)):
        sentences.append(rng.choice(MIDDLES)(story, rng))
    sentences.append(closing(story, rng))
    return " ".join(sentences)


@dataclass
class Story:
    """The facts of one paragraph, kept up to date as it is written."""

    topic: Topic
    hero: str
    friend: str
    thing: str
    quality: str
    time: str
    held: dict[str, int]
    kept_at: str = ""
    mood: str = ""
    seen: tuple[int, str, str] | None = None


def begin_story(rng: random.Random) -> Story:
    topic = TOPICS[rng.choice(list(TOPICS))]
    hero, friend = rng.sample(SHE + HE, 2)
    return Story(
        topic,
        hero,
        friend,
        common(topic.things, rng),
        common(topic.qualities, rng),
        common(TIMES, rng),
        {hero: rng.randint(2, 6), friend: rng.randint(0, 2)},
    )


def common(words: Sequence[str], rng: random.Random) -> str:
    """One of the words, the earlier ones more often, as in any language."""
    return rng.choices(words, [1 / (rank + 2) for rank in range(len(words))])[0]


def opening(story: Story, rng: random.Random) -> str:
    place = common(story.topic.places, rng)
    if rng.random() < 0.5:
        return f"{story.time} {story.hero} and {story.friend} meet at the {place}."
    return f"{story.time} {story.hero} goes to the {place} with {story.friend}."


def possession(story: Story, rng: random.Random) -> str:
    owned = counted(story.held[story.hero], f"{story.quality} {story.thing}")
    if rng.random() < 0.5:
        return f"{pronoun(story.hero)} has {owned}."
    other = story.held[story.friend]
    return f"{story.hero} has {owned} and {story.friend} has {NUMBERS[other] if other else 'none'}."


def gift(story: Story, rng: random.Random) -> str:
    """A gift from whoever has more, and what that leaves."""
    giver, taker = story.hero, story.friend
    if story.held[taker] > story.held[giver]:
        giver, taker = taker, giver
    number = rng.randint(1, min(2, story.held[giver]))
    story.held[giver] -= number
    story.held[taker] += number
    teller = rng.choice((giver, taker))
    return (
        f"{giver} gives {counted(number, story.thing)} to {taker}. "
        f"Now {teller} has {counted(story.held[teller], story.thing)}."
    )


def storing(story: Story, rng: random.Random) -> str:
    """Something is put somewhere, or found again where it was put."""
    if story.kept_at and rng.random() < 0.6:
        ending = rng.choice((f"is still {story.kept_at}", f"lies {story.kept_at}"))
        return f"The {story.quality} {story.thing} {ending}."
    story.kept_at = f"{rng.choice(NEAR)} the {common(story.topic.places, rng)}"
    return f"{story.hero} puts the {story.quality} {story.thing} {story.kept_at}."


def company(story: Story, rng: random.Random) -> str:
    """Animals or people doing something; their verb agrees, and they are remembered."""
    if story.seen and rng.random() < 0.5:
        number, who, doing = story.seen
        if number == 1:
            return f"{story.friend} sees the {who} that {doing}s{manner(rng)}."
        return f"{story.friend} sees the {NUMBERS[number]} {who}s that {doing}{manner(rng)}."
    number = rng.choice((1, 1, 2, 3, 4))
    who, doing = common(story.topic.company, rng), common(story.topic.doings, rng)
    story.seen = (number, who, doing)
    verb = f"{doing}s" if number == 1 else doing
    return (
        f"{counted(number, who).capitalize()} {verb}{manner(rng)} {rng.choice(NEAR)} "
        f"the {common(story.topic.places, rng)}."
    )


def feeling(story: Story, rng: random.Random) -> str:
    if story.mood and rng.random() < 0.5:
        return f"{story.hero} is still {story.mood}."
    story.mood = common(MOODS, rng)
    cause = common(story.topic.doings, rng)
    return (
        f"{pronoun(story.hero)} is {story.mood} because "
        f"{pronoun(story.friend).lower()} {cause}s{manner(rng)}."
    )


def question(story: Story, rng: random.Random) -> str:
    """A question about the facts so far, with its answer."""
    if story.kept_at and rng.random() < 0.5:
        return f"Where is the {story.thing}? It is {story.kept_at}."
    who = rng.choice((story.hero, story.friend))
    return (
        f"How many {story.thing}s does {who} have? {pronoun(who)} has {NUMBERS[story.held[who]]}."
    )


def closing(story: Story, rng: random.Random) -> str:
    doing = common(story.topic.doings, rng)
    return rng.choice(
        (
            f"Then {story.hero} and {story.friend} {doing} together.",
            f"At last {story.friend} takes {possessive(story.friend)} {story.thing} and goes home.",
            f"At last {story.hero} goes home and {story.friend} {doing}s{manner(rng)}.",
        )
    )


def remark(story: Story, rng: random.Random) -> str:
    """What the things are like, and what some place is like."""
    place, quality = common(story.topic.places, rng), common(story.topic.qualities, rng)
    return f"The {story.thing}s are {story.quality} and the {place} is {quality}."


def manner(rng: random.Random) -> str:
    """Now and then a word on how or how often."""
    return f" {common(MANNERS, rng)}" if rng.random() < 0.4 else ""


def counted(number: int, noun: str) -> str:
    return f"{NUMBERS[number]} {noun}" if number == 1 else f"{NUMBERS[number]} {noun}s"


def pronoun(name: str) -> str:
    return "She" if name in SHE else "He"


def possessive(name: str) -> str:
    return "her" if name in SHE else "his"


MIDDLES = (gift, gift, storing, storing, company, company, feeling, remark, question)
