"""Sentences with their sources, and words for values, runs and tokens."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from traitscope.papers.lineage import Made

PLACES = {
    "last": "the last prompt token",
    "prompt": "all prompt tokens",
    "completion": "all completion tokens",
    "all": "all tokens",
}
"tokens at which residuals are read or changed, in words"


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the sources that it cites."""

    text: str
    """The sentence, with its full stop."""
    keys: tuple[str, ...] = ()
    """Keys of sources."""


def listed(values: Iterable[Any]) -> str:
    """Values as text, each once, in their order: 1, 2 and 3."""
    texts = list(dict.fromkeys(map(shown, values)))
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1]))) if texts else ""


def counted(name: str, values: Iterable[Any]) -> str:
    """A name with its values: seed 1, or seeds 1 and 2."""
    each = list(dict.fromkeys(values))
    return f"{name}{'s' if len(each) > 1 else ''} {listed(each)}"


def shown(value: Any) -> str:
    """A setting as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def of_stage(made: Sequence[Made], *stages: str) -> list[Made]:
    """The runs of some stages."""
    return [item for item in made if item.run.stage in stages]


def kinds(runs: Iterable[Made], about: Callable[[Made], Any]) -> list[list[Made]]:
    """Runs in groups that are alike in what `about` says, in their order."""
    groups: dict[str, list[Made]] = {}
    for run in runs:
        groups.setdefault(json.dumps(about(run), sort_keys=True), []).append(run)
    return list(groups.values())


def without(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Settings without some."""
    return {name: value for name, value in settings.items() if name not in names}


def values_of(runs: Iterable[Made], name: str) -> list[Any]:
    """The values of a setting in some runs, each once."""
    return list(dict.fromkeys(run.settings[name] for run in runs if name in run.settings))
