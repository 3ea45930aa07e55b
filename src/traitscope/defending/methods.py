"""The table of defences: what each does, what it needs, and how it is written.

A method is written as NAME or NAME:OPTION=VALUE,OPTION=VALUE, such as drop:by=student,share=0.1.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from traitscope.config.rows.defend import DefendConfig
from traitscope.defending import knowledge
from traitscope.defending.knowledge import BASE, CLEAN, NOTHING, TEACHER, TRAIT, VECTOR
from traitscope.errors import ConfigError
from traitscope.models.identity.digest import deciding_files
from traitscope.models.identity.finding import find_model
from traitscope.runs import store

RANDOM, LENGTH, LOSS, STUDENT, DIVERGENCE = "random", "length", "loss", "student", "divergence"
SUSPICIONS = {
    RANDOM: NOTHING,
    LENGTH: NOTHING,
    LOSS: BASE,
    DIVERGENCE: BASE,
    STUDENT: BASE,
    TRAIT: TRAIT,
    VECTOR: VECTOR,
    TEACHER: TEACHER,
}
"""What the orders by suspicion need, by name."""
OF_TOKENS = tuple(name for name in SUSPICIONS if name != LENGTH)
"""Orders that tokens have."""
DISAGREE = "disagree"
"""Value of `where` for washing a part of the tokens."""
OF_DISAGREEMENT = tuple(name for name in OF_TOKENS if name != LOSS)
"""Orders by how much a suspect's distribution differs from the base's."""
HERE, ENDPOINT = "here", "endpoint"
"""Values of `with` that name no model."""
KEEP_TEXT = ("deduplicate", "drop", "mask", "mix")
"""Methods that change no answer, and so may come after `mask`."""


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
    "mask": Method(
        "keeps the most suspect tokens in the text, and `train` does not learn them",
        NOTHING,
        {"by": "", "share": "0.1"},
        {"by": OF_TOKENS},
        "by=random: as many tokens at random",
    ),
    "replace": Method(
        "draws the most suspect digits of number lists anew; with draw=base also other tokens",
        NOTHING,
        {"by": "", "share": "0.1", "draw": "uniform"},
        {"by": OF_TOKENS, "draw": ("uniform", "base")},
        "by=random: as many tokens at random",
    ),
    "wash": Method(
        "draws all digits of number lists, and all other answers, anew from the base",
        BASE,
        {"where": "all", "by": STUDENT, "share": "0.1"},
        {"where": ("all", DISAGREE), "by": OF_DISAGREEMENT},
        "as many fresh rows of the base; of where=disagree: by=random",
    ),
    "paraphrase": Method(
        "has answers said in other words by a model",
        NOTHING,
        {"with": HERE, "by": RANDOM, "share": "1"},
        {"by": tuple(SUSPICIONS)},
        "wash: answers of the base; of a share: by=random",
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
        if "by" in self.options and self.options.get("where") != "all":
            needed.append(SUSPICIONS[self.options["by"]])
        if self.options.get("draw") == "base" or self.options.get("with") == HERE:
            needed.append(BASE)
        return tuple(kind for kind in dict.fromkeys(needed) if kind != NOTHING) or (NOTHING,)

    @property
    def share(self) -> float:
        """The option `share`."""
        return float(self.options["share"])

    @property
    def model(self) -> str | None:
        """The model that its option `with` names; None for the base and for an endpoint."""
        name = self.options.get("with", HERE)
        return None if name in (HERE, ENDPOINT) else name


def steps_of(texts: Sequence[str]) -> list[Step]:
    """Methods from their texts.

    Raises ConfigError for an unknown method or option, for a value that it does not take, and for a
    method behind `mask` that changes answers.
    """
    steps = list(map(_step, texts))
    mask = ""
    for step in steps:
        if mask and step.name not in KEEP_TEXT:
            raise ConfigError(
                f"--by {mask} {step.text}: {step.name} changes answers whose tokens are masked;"
                f" expected {mask} behind it; put it last"
            )
        mask = step.text if step.name == "mask" else mask
    return steps


def _step(text: str) -> Step:
    name, _, rest = text.partition(":")
    if name not in METHODS:
        raise ConfigError(
            f"--by {text}: no such method; {nearest(name, METHODS)}expected some of"
            f" {', '.join(METHODS)}; name one"
        )
    method = METHODS[name]
    options = dict(method.options)
    given: set[str] = set()
    for pair in filter(None, rest.split(",")):
        option, mark, value = pair.partition("=")
        if option not in options or not mark:
            expected = ", ".join(f"{each}=..." for each in options) or "no option"
            raise ConfigError(
                f"--by {text}: {pair!r}; {nearest(option, options)}{name} takes {expected}; write"
                " it so"
            )
        if option in given:
            raise ConfigError(f"--by {text}: {option} stands twice; expected it once; drop one")
        given.add(option)
        options[option] = value
    for option, value in options.items():
        _check(text, method, option, value)
    idle = given.intersection(("by", "share")) if options.get("where") == "all" else set()
    if idle:
        raise ConfigError(
            f"--by {text}: {', '.join(sorted(idle))} acts with where={DISAGREE} only; expected that"
            " beside it; add it, or leave the option out"
        )
    return Step(text, name, options)


def nearest(name: str, names: Iterable[str]) -> str:
    """A question whether the nearest of some names was meant; empty where none is near."""
    near = get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]}? " if near and near[0] != name else ""


def _check(text: str, method: Method, option: str, value: str) -> None:
    """Raise ConfigError for a value that an option does not take."""
    if option in method.allowed:
        allowed = method.allowed[option]
        if value not in allowed:
            found = f"{option}={value}" if value else f"{option} is missing"
            raise ConfigError(
                f"--by {text}: {found}; {nearest(value, allowed)}expected one of"
                f" {', '.join(allowed)}; name one"
            )
        return
    if option == "with":
        if not value.strip():
            raise ConfigError(
                f"--by {text}: with is empty; expected {HERE}, {ENDPOINT} or a model; name one"
            )
        return
    may_be_whole = float(method.options[option]) == 1
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not (0 <= share < 1 or (may_be_whole and share == 1)):
        most = "to 1" if may_be_whole else "to below 1"
        raise ConfigError(
            f"--by {text}: {option}={value}; expected a fraction from 0 {most}; give one"
        )


def inputs(config: DefendConfig) -> dict[str, Path | store.Run]:
    """The files behind what is known, and behind models that paraphrase, as inputs of the run."""
    files = knowledge.inputs(config)
    for place, step in enumerate(steps_of(config.by)):
        if step.model is not None:
            deciding = deciding_files(find_model(step.model))
            files |= {f"paraphraser{place}-{n}": file for n, file in enumerate(deciding)}
    return files
