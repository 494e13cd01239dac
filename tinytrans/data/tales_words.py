"""The word banks of the tales: what a story can be about.

A word stands in one bank only and never in a template, so a reader can tell from a word alone what fact it tells.
Names come from many languages; who someone is never depends on the pronoun.
"""

from __future__ import annotations


def bank(words: str) -> tuple[str, ...]:
    """The words of a text as a bank."""
    return tuple(words.split())


NAMES = {
    "she": bank(
        "Aiko Alma Amina Anya Awa Carla Dara Elif Esra Hana Ines Juno Kaya Lina Mei Nadia Olga Priya Sana Zuri"
    ),
    "he": bank(
        "Arlo Bruno Chidi Dev Emre Goran Hugo Ilya Jomo Kenji Luca Marek Nico Oskar Pavel Rafi Sven Tariq Wei Zoran"
    ),
}
PRONOUN = {name: pronoun for pronoun, names in NAMES.items() for name in names}
OBJECTIVE = {"she": "her", "he": "him"}
POSSESSIVE = {"she": "her", "he": "his"}

KINDS = bank(
    "fox cat dog rabbit bear mouse owl frog duck horse hedgehog squirrel "
    "turtle goat sheep hen monkey elephant lion panda otter beaver deer child"
)
ADJECTIVES = bank(
    "little kind brave shy clever funny quiet busy gentle curious patient playful "
    "careful lazy young old polite honest strong friendly"
)
COLORS = bank("red blue green yellow white orange purple brown pink silver")
THINGS = bank(
    "ball kite hat drum lamp bell book scarf cup basket key flute blanket wagon "
    "puzzle umbrella bucket ribbon whistle cushion"
)
FOODS = bank("apple pear carrot plum melon peach pumpkin tomato banana cherry lemon mango potato fig turnip radish")
PLACES = {
    "forest": "in the forest", "village": "in the village", "farm": "on the farm", "garden": "in the garden",
    "meadow": "in the meadow", "mountain": "on the mountain", "beach": "at the beach", "town": "in the town",
    "island": "on the island", "market": "at the market", "valley": "in the valley", "lake": "by the lake",
    "desert": "in the desert", "city": "in the city", "jungle": "in the jungle", "harbor": "at the harbor",
}  # fmt: skip
SPOTS = (
    "under a bush", "behind a big rock", "under the bridge", "beside the river", "inside a hollow tree",
    "near the deep well", "behind the fence", "on top of the hill", "below the stairs", "next to the tall gate",
    "under a pile of leaves", "behind the mill", "in the high grass", "beside the stone wall", "under a wooden bench",
    "at the end of the road",
)  # fmt: skip
WEATHER = {
    "sunny": "the sun was shining", "rainy": "drops were falling on the roof", "windy": "the trees were dancing",
    "snowy": "the ground was soft and bright", "cloudy": "the sky looked like wool",
    "foggy": "nobody could see very far", "stormy": "the sky was dark and loud", "frosty": "the air was cold and clear",
}  # fmt: skip

ENDS = {  # end -> the words that only a story with this end uses
    "happy": frozenset(bank("happy glad smiled laughed proud")),
    "sad": frozenset(bank("sad cried lonely sorry tears")),
}


def a(word: str) -> str:
    """The word with its article.

    >>> a("owl")
    'an owl'
    """
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"
