"""Word problems over small numbers, whose final answer is known because it is computed.

Each is drawn from a seed: a situation, a name, things, and numbers. All answers are whole numbers
from 0 on. The wording is new. The seed alone decides the problems, so that a teacher and its
control get the same ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

FORM = (
    "Reason between <think> and </think>. Then give the number alone between <answer> and"
    " </answer>."
)
"ends every problem"
NAMES = (
    "Ada",
    "Bruno",
    "Clara",
    "Dev",
    "Elif",
    "Farid",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Kiran",
    "Lena",
    "Milo",
    "Nadia",
    "Omar",
    "Paula",
    "Quentin",
    "Rosa",
    "Samir",
    "Tilda",
    "Uma",
    "Viktor",
    "Wanda",
    "Yusuf",
)
THINGS = (
    "apples",
    "beads",
    "bricks",
    "buttons",
    "candles",
    "coins",
    "cups",
    "eggs",
    "jars",
    "keys",
    "lemons",
    "marbles",
    "nails",
    "pears",
    "pencils",
    "plates",
    "postcards",
    "ribbons",
    "rolls",
    "spoons",
    "stamps",
    "tickets",
    "tiles",
    "towels",
)


class Drawn(NamedTuple):
    """What a problem is about."""

    name: str
    """Who."""
    things: str
    """What is counted."""
    a: int
    """A number from 2 to 12."""
    b: int
    """Another one."""
    c: int
    """A third one."""


Situation = tuple[str, Callable[[Drawn], int]]
"a text with places for names and numbers, and the answer"


SITUATIONS: tuple[Situation, ...] = (
    (
        "{name} has {a} boxes with {b} {things} each and {c} {things} beside them. How many"
        " {things} are there in all?",
        lambda drawn: drawn.a * drawn.b + drawn.c,
    ),
    (
        "{name} buys {sum} {things}, gives {a} to a neighbour and loses {b}. How many {things} are"
        " left?",
        lambda drawn: drawn.c,
    ),
    (
        "On Monday {name} sells {a} {things}, on Tuesday twice as many, and on Wednesday {b}. How"
        " many {things} are sold in the three days?",
        lambda drawn: 3 * drawn.a + drawn.b,
    ),
    (
        "{name} puts {product} {things} into {a} bags, the same number into each, and then adds {c}"
        " more to one bag. How many {things} are in that bag now?",
        lambda drawn: drawn.b + drawn.c,
    ),
    (
        "A shelf has {a} rows of {b} {things}. {name} takes {less} {things} away. How many {things}"
        " stay on the shelf?",
        lambda drawn: drawn.a * drawn.b - min(drawn.c, drawn.a * drawn.b - 1),
    ),
    (
        "{name} works {a} hours a day for {b} days and then {c} hours more. How many hours are"
        " these?",
        lambda drawn: drawn.a * drawn.b + drawn.c,
    ),
    (
        "A ticket costs {a} coins and a drink {b} coins. {name} pays for {c} tickets and one drink."
        " How many coins is that?",
        lambda drawn: drawn.a * drawn.c + drawn.b,
    ),
    (
        "{name} has {a} {things}. A friend has {b} more than {name}. How many {things} do the two"
        " have together?",
        lambda drawn: 2 * drawn.a + drawn.b,
    ),
    (
        "{name} walks {a} km on each of {b} days, and {c} km on one more day. How many km are that"
        " in all?",
        lambda drawn: drawn.a * drawn.b + drawn.c,
    ),
    (
        "{name} reads {a} pages each morning and {b} pages each evening. How many pages are read in"
        " {c} days?",
        lambda drawn: (drawn.a + drawn.b) * drawn.c,
    ),
    (
        "A jug holds {sum} spoons of juice. {name} pours {a} spoons into one glass and {b} spoons"
        " into another. How many spoons stay in the jug?",
        lambda drawn: drawn.c,
    ),
    (
        "{name} is {a} years old. In {b} years, how old will a sister be who is {c} years older"
        " than {name}?",
        lambda drawn: drawn.a + drawn.b + drawn.c,
    ),
)


def sum_text(rng: np.random.Generator) -> tuple[str, int]:
    """Draw a word problem; return its text and its answer.

    It takes exactly six draws, so that no list of options shifts a later draw.
    """
    text, answer = SITUATIONS[_below(rng, len(SITUATIONS))]
    drawn = Drawn(
        name=NAMES[_below(rng, len(NAMES))],
        things=THINGS[_below(rng, len(THINGS))],
        a=2 + _below(rng, 11),
        b=2 + _below(rng, 11),
        c=2 + _below(rng, 11),
    )
    product = drawn.a * drawn.b
    filled = text.format(
        **drawn._asdict(),
        sum=drawn.a + drawn.b + drawn.c,
        product=product,
        less=min(drawn.c, product - 1),
    )
    return f"{filled} {FORM}", answer(drawn)


def _below(rng: np.random.Generator, n: int) -> int:
    """Draw a whole number from 0 to n - 1, in one draw."""
    return int(rng.random() * n)
