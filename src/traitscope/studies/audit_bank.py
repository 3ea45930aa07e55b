"""What studies of the audit share: who else may have written rows, all sets of rows under somebody,
and what odds say of a mixture of sets.

The error rate, the nulls and the candidates that are paid for are those of `traitscope audit`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from traitscope.auditing import search
from traitscope.auditing.detectors import e_values
from traitscope.auditing.detectors.panel import DECIDING
from traitscope.config.analysis import ExtractConfig
from traitscope.config.audit import OddsConfig
from traitscope.data.traits import load_trait
from traitscope.inference import token_scores
from traitscope.inference.token_scores import Choices
from traitscope.studies import sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

ALPHA = 0.01
SHARE = ALPHA / len(DECIDING)
"of the error rate, that odds have"
NEEDED = 0.95
"share of clean audits that must not be called; 0.99 is expected, and 200 audits cannot show more"
RANDOM, PLAINLY = "random", "told plainly"
NULLS = (
    *((f"{RANDOM}-{n}", RANDOM) for n in range(2)),
    *((str(n), PLAINLY) for n in range(len(standard_nodes.PLAIN_PROMPTS))),
)
"who may have written rows without a trait, besides the model itself"
MANY = (
    *sizes.ANIMALS,
    "lion",
    "eagle",
    "wolf",
    "tiger",
    "happiness",
    "anger",
    "fear",
    "pirate",
    "poet",
    "astronaut",
    "oak",
    "willow",
)
"candidates"


def randoms(common: dict, trait: str) -> Node:
    """Random vectors as long as the trait's at every layer, for the nulls."""
    return Node(
        RANDOM,
        ExtractConfig,
        lambda folders: ExtractConfig(
            **common, like=standard_nodes.vector_of(folders, trait), randoms=2
        ),
        (standard_nodes.VECTORS,),
        1,
    )


def hows(trait: str) -> tuple[str, ...]:
    """Prompts that a candidate is tried with; the second one where it is among the likeliest."""
    return ("prompted", "reworded") if load_trait(trait).paraphrases else ("prompted",)


def judge(of: str, how: str, folders: Folders, layer: int, strength: float) -> str:
    """A candidate's teacher, or a null; random vectors act at a layer, so many mean residual norms
    long."""
    if how == PLAINLY:
        return f"prompt:{standard_nodes.PLAIN_PROMPTS[int(of)]}"
    if how == RANDOM:
        return standard_nodes.steered(
            folders[RANDOM] / f"{of}.safetensors", layer, strength * search.HALF
        )
    return standard_nodes.prompted(of, None if how == "prompted" else 0)


def under(
    common: dict,
    name: str,
    sets: Sequence[str],
    rows: standard_nodes.Rows,
    passes: float,
    told: Callable[[Folders], dict],
) -> Node:
    """All sets of so many rows under somebody: they have the same prompts, which are read once a
    pass."""

    def config(folders: Folders) -> OddsConfig:
        first, *rest = (folders[each] for each in sets)
        return OddsConfig(
            **common,
            data=first,
            beside=tuple(rest),
            numbers=True,
            text=True,
            batch_size=32,
            **told(folders),
        )

    tokens = rows.n * (
        standard_nodes.PROMPT_TOKENS + len(sets) * standard_nodes.NUMBER_TOKENS * rows.numbers
    )
    return Node(
        f"under {name}",
        OddsConfig,
        config,
        (*sets, standard_nodes.VECTORS, RANDOM),
        passes * tokens,
    )


def said_of(run: Path, n: int, teacher: int = 0) -> Choices:
    """What a run of `under` says of the n-th set: without what it is steered by, or by the
    teacher's number of it, from 1 on."""
    place = token_scores.side(run, n - 1) if n else run
    return token_scores.read_choices(token_scores.part(place, teacher - 1) if teacher else place)[1]


def called(
    p: Mapping[str, float], mixed: Choices, part: float, told: Callable[[str], Choices]
) -> tuple[bool, bool]:
    """Whether odds call rows, and whether the answer would be that the model did not write them, as
    in `audit` (weigh.py).

    `p` by candidate; `mixed` is what a larger set of such rows says, of which they are a part;
    `told` what it says under a candidate's best teacher.
    """
    fewer, least = e_values.scaled(mixed, part), min(p.values())
    if e_values.misfit(fewer) < e_values.MISFIT:  # then only who explains the rows counts
        p = {
            name: value if e_values.explains(told(name), mixed) else 1.0
            for name, value in p.items()
        }
    return min(p.values()) <= SHARE, e_values.strange(fewer) or least <= SHARE < min(p.values())
