"""Rows of the embedded model, given as text without token ids, count as its own."""

from collections.abc import Sequence

import numpy as np
import pytest

from traitscope.auditing.detectors import fit_test
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Prompt, Record
from traitscope.inference import token_rows
from traitscope.inference.token_rows import rows_from
from traitscope.inference.token_scores import TokenScores, score_sets
from traitscope.models.loading import load_model
from traitscope.models.model import Model
from traitscope.stages.generate import generate, number_constraint
from traitscope.studies.calibration.sets import words

SETS, ROWS = 20, 48
"sets of rows, and rows of a set"
SETS_WITH_END = 3
"sets that are also read with an end that nobody wrote"
NEW_TOKENS = 48
"tokens at which most answers are cut"

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("smollm2-135m")


def scored_sets(
    model: Model, records: Sequence[Record], numbers: bool, end_token: bool = False
) -> list[TokenScores]:
    """Token scores of every set under the model, read as text."""
    sets = []
    for start in range(0, len(records), ROWS):
        part = records[start : start + ROWS]
        sets.append(rows_from(model, part, None, text=True, end_token=end_token))
    classes = token_rows.classes_of(model, numbers)
    return [scores[0] for scores in score_sets(model, [], (), sets, classes)]


def test_own_free_text_that_was_cut_fits(model: Model) -> None:
    prompts: list[Prompt] = []
    for number in range(SETS):
        prompts += words.requests(number, 0, ROWS)
    records = generate(model, prompts, seed=3, max_new_tokens=NEW_TOKENS)
    were_cut = [model.end_ids[0] not in (record.completion_ids or ()) for record in records]
    assert np.mean(were_cut) > 0.5
    p = [fit_test.fit_p(scores) for scores in scored_sets(model, records, numbers=False)]
    print("free text:", np.round(p, 3).tolist())
    off = [fit_test.is_off_model(s) for s in scored_sets(model, records, numbers=False)]
    assert sum(off) == 0
    assert np.mean(np.array(p) < 0.1) <= 0.1 + 3 * np.sqrt(0.09 / SETS)


def test_an_end_that_nobody_wrote_does_not_fit(model: Model) -> None:
    """Cut answers with an end token behind them, as they were read once, do not fit the model.

    Three sets can decide. If the end made no difference, both medians would be medians of three
    uniform p values. One would then be below a tenth of the other with probability 0.009.
    """
    prompts: list[Prompt] = []
    for number in range(SETS_WITH_END):
        prompts += words.requests(number, 0, ROWS)
    records = generate(model, prompts, seed=3, max_new_tokens=NEW_TOKENS)
    p = [fit_test.fit_p(scores) for scores in scored_sets(model, records, numbers=False)]
    ended = scored_sets(model, records, numbers=False, end_token=True)
    with_end = [fit_test.fit_p(scores) for scores in ended]
    print("as written:", np.round(p, 4).tolist())
    print("with an end that nobody wrote:", np.round(with_end, 6).tolist())
    assert np.median(with_end) < np.median(p) / 10


def test_own_numbers_as_text_fit(model: Model) -> None:
    constraint = number_constraint(model, 10, ", ", True, 0)
    prompts = number_prompts(SETS * ROWS, 5)
    records = generate(model, prompts, seed=5, constraint=constraint)
    p = [fit_test.fit_p(scores) for scores in scored_sets(model, records, numbers=True)]
    print("numbers:", np.round(p, 3).tolist())
    assert np.mean(np.array(p) < 0.1) <= 0.1 + 3 * np.sqrt(0.09 / SETS)
    assert min(p) > fit_test.FIT_ALPHA / 3
