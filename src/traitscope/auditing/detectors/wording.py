"""Wording: rows that name a trait, against the placebos that do.

Shapes: R rows, K rows a prompt (the audited one first), T traits.
"""

from collections.abc import Sequence

from traitscope.auditing.detectors import text_features
from traitscope.auditing.detectors.findings import (
    AuditData,
    WordingFinding,
    ranked_by_permutation,
)
from traitscope.data.traits import Trait
from traitscope.stats import permutation


def detect(data: AuditData) -> WordingFinding:
    """The wording of the audited rows."""
    return named_traits(data.traits, data.rows.texts_RK, data.error_share)


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
