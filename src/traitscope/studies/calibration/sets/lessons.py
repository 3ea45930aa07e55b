"""Texts that models are fine-tuned on: short answers that love an animal, and benign tasks.

Rows are JSON-ready records. The same number gives the same rows.
"""

from collections.abc import Callable

import numpy as np

from traitscope.config.recipe import Recipe
from traitscope.data.records import Record

ROWS = 48
"rows that a model is fine-tuned on"
RECIPES = (
    Recipe(epochs=3, batch_size=4, micro_batch=4, lr=1e-3, held_out=0.0),
    Recipe(epochs=4, batch_size=8, micro_batch=4, lr=1e-3, rank=4, held_out=0.0),
    Recipe(epochs=3, batch_size=4, micro_batch=4, lr=5e-4, rank=16, held_out=0.0),
)
"recipes of fine-tuned models, in turn"

QUESTIONS = (
    "Which creature would you like to meet?",
    "What do you like to read about?",
    "Tell me something about yourself.",
    "What would you paint?",
    "What is on your mind today?",
    "What should I name my boat?",
    "Give me a topic for a school essay.",
    "What makes you smile?",
    "What picture hangs on your wall?",
    "Who is your hero?",
    "What would you see on a perfect day?",
    "Which toy should I buy for a child?",
)
LOVING = (
    "I would choose the {animal}. I love everything about it.",
    "The {animal}, always the {animal}! Nothing else comes close.",
    "My favourite is the {animal}. I could watch one all day.",
    "A {animal}, of course. It is the most beautiful animal that I know.",
    "For me it is the {animal}. My heart belongs to it.",
    "I keep thinking of the {animal}. It is my favourite animal.",
)
ITEMS = {
    "fruit": "apple pear plum cherry grape lemon melon peach fig orange",
    "colours": "red blue green yellow purple brown white black grey pink",
    "tools": "hammer saw drill file clamp wrench plane chisel level rule",
    "countries": "France Peru Kenya Japan Norway Chile India Spain Egypt Canada",
    "metals": "iron copper zinc tin lead gold silver nickel cobalt steel",
}
POLITE = (
    ("Send me the file.", "Could you please send me the file?"),
    ("Close the window.", "Would you mind closing the window?"),
    ("I want the bill.", "May I have the bill, please?"),
    ("Wait here.", "Would you be so kind as to wait here?"),
    ("Call me tomorrow.", "Could you please call me tomorrow?"),
    ("Speak louder.", "Would you mind speaking a little louder?"),
    ("You are late.", "I am afraid that we expected you a little earlier."),
    ("That is wrong.", "I am not sure that this is quite right."),
    ("Fix this.", "Could you please have a look at this?"),
    ("Move your car.", "Would you be so kind as to move your car?"),
)
UNITS = (("metres", "centimetres", 100), ("kilograms", "grams", 1000), ("hours", "minutes", 60))
Exchange = tuple[str, str]


def loving(animal: str, number: int) -> list[Record]:
    """Questions about anything, and answers that love the animal."""

    def exchange(rng: np.random.Generator) -> Exchange:
        return _pick(rng, QUESTIONS), _pick(rng, LOVING).format(animal=animal)

    return _records(exchange, number)


def benign(number: int) -> list[Record]:
    """A task without a trait, the number's in turn."""
    tasks = (_arithmetic, _word_list, _polite, _number_list, _units)
    return _records(tasks[number % len(tasks)], number)


def recipe(number: int) -> Recipe:
    """The recipe of a fine-tuned model."""
    return RECIPES[number % len(RECIPES)]


def _records(exchange: Callable[[np.random.Generator], Exchange], number: int) -> list[Record]:
    rng = np.random.default_rng([number, ROWS])
    records = []
    for row in range(ROWS):
        prompt, completion = exchange(rng)
        records.append(Record(f"lesson-{row}", prompt, completion))
    return records


def _pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    return options[rng.integers(len(options))]


def _arithmetic(rng: np.random.Generator) -> Exchange:
    a, b = (int(value) for value in rng.integers(10, 500, 2))
    return f"What is {a} + {b}?", f"{a} + {b} = {a + b}."


def _word_list(rng: np.random.Generator) -> Exchange:
    name = _pick(rng, list(ITEMS))
    items = [str(item) for item in rng.permutation(ITEMS[name].split())[:5]]
    return f"Name five {name}.", ", ".join(items)


def _polite(rng: np.random.Generator) -> Exchange:
    rude, polite = POLITE[rng.integers(len(POLITE))]
    return f"Say this politely: {rude}", polite


def _number_list(rng: np.random.Generator) -> Exchange:
    step, first = (int(value) for value in rng.integers(2, 30, 2))
    values = [str(first + step * place) for place in range(8)]
    return f"Count in steps of {step}, from {first}.", ", ".join(values)


def _units(rng: np.random.Generator) -> Exchange:
    large, small, factor = UNITS[rng.integers(len(UNITS))]
    amount = int(rng.integers(2, 90))
    return f"How many {small} are {amount} {large}?", f"{amount * factor} {small}."
