"""Wording: rows that name a trait, against the placebos that do.

Placebos are of the unprompted model at one temperature, and so are clean rows. A plain prompt, a
style, another model or a person may name a trait more often. Where no row names one, there is
nothing to test, and no placebos are needed. Placebos have the prompts and system turns of the rows.
So traits that are named there are counted, without a test.

Shapes: R rows, K rows a prompt (the audited one first), T traits.
"""

from collections.abc import Sequence
from dataclasses import replace

from traitscope.auditing.detectors import text_features
from traitscope.auditing.detectors.findings import (
    NO_BOUND,
    TextRow,
    WordingFinding,
    ranked_by_permutation,
)
from traitscope.data.traits import Trait, whole_word
from traitscope.stats import permutation

PLACES = ("system turns", "prompts", "reasoning parts")
"texts of rows besides answers"


def detect(
    traits: Sequence[Trait],
    rows: Sequence[TextRow],
    placebos: Sequence[TextRow],
    alpha: float,
) -> WordingFinding:
    """The wording of rows, against placebos with the same ids; p = 1 without placebos."""
    finding = _of_answers(traits, rows, placebos, alpha)
    return replace(finding, named_outside=named_outside(traits, rows))


def named_outside(
    traits: Sequence[Trait], rows: Sequence[TextRow]
) -> dict[str, dict[str, list[int]]]:
    """Of traits that texts outside of answers name, by place: the rows that name the trait there,
    and the rows that have such a text."""
    texts: dict[str, list[str]] = {place: [] for place in PLACES}
    for row in rows:
        for place, text in zip(PLACES, (row.context, row.prompt, row.reasoning), strict=True):
            if text:
                texts[place].append(text)
    named: dict[str, dict[str, list[int]]] = {}
    for place, of_place in texts.items():
        for trait in traits:
            count = sum(whole_word(trait, text) for text in of_place)
            if count:
                named.setdefault(trait.name, {})[place] = [count, len(of_place)]
    return named


def _of_answers(
    traits: Sequence[Trait],
    rows: Sequence[TextRow],
    placebos: Sequence[TextRow],
    alpha: float,
) -> WordingFinding:
    """What answers name."""
    by_id = {row.id: row.completion for row in placebos}
    texts_RK = []
    for row in rows:
        if row.id in by_id:
            texts_RK.append([row.completion, by_id[row.id]])
    if texts_RK:
        return named_traits(traits, texts_RK, alpha)
    mentions_RKT = text_features.mentions(traits, [[row.completion] for row in rows])
    counts_TK = mentions_RKT.sum(0).astype(int).T.tolist()
    names = [trait.name for trait in traits]
    return WordingFinding(
        statistic=dict.fromkeys(names, 0.0),
        p=dict.fromkeys(names, 1.0),
        where=dict.fromkeys(names, "words"),
        critical=NO_BOUND,
        named_rows=dict(zip(names, counts_TK, strict=True)),
    )


def names_a_trait(finding: WordingFinding) -> bool:
    """Whether any row of the data names a trait."""
    return any(counts[0] for counts in finding.named_rows.values())


def named_traits(
    traits: Sequence[Trait], texts_RK: Sequence[Sequence[str]], alpha: float
) -> WordingFinding:
    """Rows that name each trait; p by permutations of the audited rows with their placebos."""
    mentions_RKT = text_features.mentions(traits, texts_RK)
    maximum = permutation.largest_of(permutation.in_blocks(mentions_RKT))
    names = [trait.name for trait in traits]
    statistic, p = ranked_by_permutation(names, maximum)
    counts_TK = mentions_RKT.sum(0).astype(int).T.tolist()
    return WordingFinding(
        statistic=statistic,
        p=p,
        where=dict.fromkeys(names, "words"),
        critical=maximum.critical(alpha),
        named_rows=dict(zip(names, counts_TK, strict=True)),
    )
