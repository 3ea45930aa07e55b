"""The scores of a teacher that was given are paired with the rows that students predicted."""

import numpy as np
import pytest
from scored_rows import scored, written

from traitscope.auditing.evidence import places_of
from traitscope.auditing.steps.predictions import StoredPredictions
from traitscope.errors import DataError
from traitscope.inference.token_scores import TokenScores
from traitscope.models.model import Model

IDS = [f"row-{n}" for n in range(12)]


@pytest.fixture
def stored(tiny: Model) -> StoredPredictions:
    scores = scored(tiny, [], written(tiny, [], 12, 3), True)
    return StoredPredictions(IDS, scores, np.zeros((0, 12, 1)), None, ())


def test_rows_are_paired_by_id(stored: StoredPredictions) -> None:
    order = np.random.default_rng(0).permutation(12)
    ids = [IDS[place] for place in order]
    index = places_of(stored, ids, stored.model, "T")
    assert [ids[place] for place in index] == IDS


def test_other_tokens_are_refused(stored: StoredPredictions, tiny: Model) -> None:
    other: TokenScores = scored(tiny, [], written(tiny, [], 12, 3), True)
    other.tokens_R[3] += 1
    with pytest.raises(DataError, match="1 of 12 rows are other tokens .*row row-3: 13 and 12"):
        places_of(stored, IDS, other, "T")
