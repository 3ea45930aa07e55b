"""Audits drawn from a bank of rows: planted truth, by a steered tiny model."""

from dataclasses import replace

import numpy as np
import pytest
from scored_rows import judged, written
from tiny_models import random_vector

from traitscope.auditing.detectors.text_features import order_of
from traitscope.interventions.intervention import Intervention, Steer
from traitscope.interventions.short_form import parse
from traitscope.models.model import Model
from traitscope.studies.claims import audit_rows

ROWS = 200
SIZE = replace(audit_rows.SIZES["smoke"], rows=ROWS)


@pytest.fixture(scope="module")
def banks(tiny: Model) -> dict[str, audit_rows.Bank]:
    """What two candidates say of clean rows, of the first one's, and of those of a model with noise
    in its weights."""
    one, other = ([Steer(random_vector(tiny, n, norm=3.0), (1,), 1.0, scale="raw")] for n in (1, 2))

    def bank(told: list[Intervention], seed: int) -> audit_rows.Bank:
        rows = written(tiny, told, ROWS, seed)
        plain, cat, owl = (judged(tiny, told, rows, True) for told in ([], one, other))
        return audit_rows.Bank(
            plain,
            {"cat": {"prompted": cat}, "owl": {"prompted": owl}},
            [],
            np.array([order_of(tiny.tokenizer.decode(row.completion_ids)) for row in rows]),
        )

    return {
        "clean": bank([], 21),
        "steered": bank(one, 22),
        "noisy": bank([parse("noise:0.3,seed=3")], 23),
    }


def test_clean_rows_are_not_called_and_teachers_are_by_their_name(
    banks: dict[str, audit_rows.Bank],
) -> None:
    clean = banks["clean"]
    blocks = list(audit_rows._blocks(SIZE, 50))
    assert sorted(np.concatenate(blocks)) == list(range(ROWS))
    assert not any(
        audit_rows._audit(SIZE, clean, clean, block, np.zeros(50, bool)).called for block in blocks
    )
    calls = {
        dose: audit_rows._repeated(SIZE, clean, banks["steered"], 100, dose) for dose in (0.01, 1.0)
    }
    assert all(call.called and call.named and call.kept for call in calls[1.0])
    assert max(call.ln_e for call in calls[0.01]) < min(call.ln_e for call in calls[1.0])


def test_rows_that_nobody_tried_explains_are_not_called(banks: dict[str, audit_rows.Bank]) -> None:
    """However much likelier a candidate makes them: here one without any of their excess of
    tokens."""
    clean, noisy = banks["clean"], banks["noisy"]
    lifted = replace(noisy.told["cat"]["prompted"], log_p_RT=noisy.plain.log_p_RT + 1.0)
    told = {"cat": {"prompted": lifted}, "owl": noisy.told["owl"]}
    every = np.arange(ROWS), np.ones(ROWS, bool)
    call = audit_rows._audit(SIZE, clean, replace(noisy, told=told), *every)
    assert call.ln_e > 100 and not call.called
    # the same nats for rows that the model may have written are a teacher's
    told = {
        "cat": {
            "prompted": replace(clean.told["cat"]["prompted"], log_p_RT=clean.plain.log_p_RT + 1.0)
        },
        "owl": clean.told["owl"],
    }
    assert audit_rows._audit(SIZE, clean, replace(clean, told=told), *every).called


def test_rows_picked_by_their_order_are_no_trait(banks: dict[str, audit_rows.Bank]) -> None:
    """A candidate that likes rising rows is called where they are more frequent than the model's;
    not where they were picked, by odds that know it."""
    clean, every = banks["clean"], np.ones(ROWS, bool)
    rising = clean.order == 1
    assert 0.005 < rising.mean() < 0.2
    taken = np.concatenate(
        [np.flatnonzero(rising).repeat(ROWS)[:60], np.flatnonzero(~rising)[:140]]
    )
    likes = np.where(rising, 1.0, np.log((1 - np.e * rising.mean()) / (1 - rising.mean())))[:, None]
    told = {
        "cat": {
            "prompted": replace(
                clean.told["cat"]["prompted"], log_p_RT=clean.plain.log_p_RT + likes
            )
        },
        "owl": clean.told["owl"],
    }
    for order, called in ((np.zeros(ROWS, int), True), (clean.order, False)):
        bank = replace(clean, told=told, order=order)
        assert audit_rows._audit(SIZE, bank, bank, taken, every).called == called


def test_a_poisoned_share_is_other_rows_each_time(banks: dict[str, audit_rows.Bank]) -> None:
    """All tenths together are all rows: a tenth that is the teacher's is called, or not, ten times
    without a row in common."""
    found = audit_rows._claimed(SIZE, banks["clean"], banks["steered"], 10)
    assert len(found) == 10 and set(found) <= {0.0, 1.0}
    assert audit_rows._claimed(SIZE, banks["clean"], banks["clean"], 10) == [0.0] * 10
