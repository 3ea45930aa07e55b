"""The table of defences: what each does, what it needs, and how it is written.

A method is written as NAME or NAME:OPTION=VALUE,OPTION=VALUE, such as drop:by=student,share=0.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from traitscope.defending.knowledge import BASE, CLEAN, NOTHING, TEACHER, TRAIT, VECTOR
from traitscope.errors import ConfigError

RANDOM, LENGTH, LOSS, STUDENT = "random", "length", "loss", "student"
SUSPICIONS = {
    RANDOM: NOTHING,
    LENGTH: NOTHING,
    LOSS: BASE,
    STUDENT: BASE,
    TRAIT: TRAIT,
    VECTOR: VECTOR,
    TEACHER: TEACHER,
}
"""What the orders by suspicion need, by name."""


@dataclass(frozen=True)
class Method:
    """One defence on rows."""

    about: str
    """What it does, for people."""
    needs: str
    """Kind of knowledge that it needs, beside that of its option `by`."""
    options: Mapping[str, str]
    """Options with their defaults; an empty default must be given."""
    allowed: Mapping[str, tuple[str, ...]]
    """Allowed values of options that are words."""
    control: str
    """What does as much blindly."""


METHODS = {
    "canonicalise": Method(
        "writes number lists in one format: numbers separated by a comma and a space",
        NOTHING,
        {"order": "keep", "values": "keep"},
        {"order": ("keep", "sort"), "values": ("keep", "hundreds", "uniform")},
        "values=uniform: numbers drawn at random",
    ),
    "deduplicate": Method(
        "drops rows whose prompt and answer came before",
        NOTHING,
        {},
        {},
        "drop:by=random with as many rows",
    ),
    "drop": Method(
        "drops the most suspect rows",
        NOTHING,
        {"by": "", "share": "0.1"},
        {"by": tuple(SUSPICIONS)},
        "by=random: as many rows at random",
    ),
    "replace": Method(
        "draws the most suspect digits of number lists anew",
        NOTHING,
        {"by": "", "share": "0.1", "draw": "uniform"},
        {"by": tuple(name for name in SUSPICIONS if name != LENGTH), "draw": ("uniform", "base")},
        "by=random: as many digits at random",
    ),
    "wash": Method(
        "draws all digits of number lists, and all other answers, anew from the base",
        BASE,
        {},
        {},
        "as many fresh rows of the base",
    ),
    "mix": Method(
        "puts clean rows among the rows",
        CLEAN,
        {"share": "0.5", "total": "keep"},
        {"total": ("keep", "grow")},
        "drop:by=random with as many rows",
    ),
}
"""All methods, by name."""


@dataclass(frozen=True)
class Step:
    """A method with its options."""

    text: str
    """As it was written."""
    name: str
    """Name in METHODS."""
    options: Mapping[str, str]
    """All options with their values."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Kinds of knowledge that it needs."""
        needed = [METHODS[self.name].needs]
        if "by" in self.options:
            needed.append(SUSPICIONS[self.options["by"]])
        if self.options.get("draw") == "base":
            needed.append(BASE)
        return tuple(kind for kind in dict.fromkeys(needed) if kind != NOTHING) or (NOTHING,)

    @property
    def share(self) -> float:
        """The option `share`."""
        return float(self.options["share"])


def steps_of(texts: Sequence[str]) -> list[Step]:
    """Methods from their texts.

    Raises ConfigError for an unknown method or option, and for a value that it does not take.
    """
    return list(map(_step, texts))


def _step(text: str) -> Step:
    name, _, rest = text.partition(":")
    if name not in METHODS:
        near = get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"--by {text}: no such method; {hint}expected some of {', '.join(METHODS)}; name one"
        )
    method = METHODS[name]
    options = dict(method.options)
    given: set[str] = set()
    for pair in filter(None, rest.split(",")):
        option, mark, value = pair.partition("=")
        if option not in options or not mark:
            expected = ", ".join(f"{each}=..." for each in options) or "no option"
            raise ConfigError(f"--by {text}: {pair!r}; {name} takes {expected}; write it so")
        if option in given:
            raise ConfigError(f"--by {text}: {option} stands twice; expected it once; drop one")
        given.add(option)
        options[option] = value
    for option, value in options.items():
        _check(text, method, option, value)
    return Step(text, name, options)


def _check(text: str, method: Method, option: str, value: str) -> None:
    """Raise ConfigError for a value that an option does not take."""
    if option in method.allowed:
        if value not in method.allowed[option]:
            expected = ", ".join(method.allowed[option])
            found = f"{option}={value}" if value else f"{option} is missing"
            raise ConfigError(f"--by {text}: {found}; expected one of {expected}; name one")
        return
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise ConfigError(
            f"--by {text}: {option}={value}; expected a fraction from 0 to below 1; give one"
        )
