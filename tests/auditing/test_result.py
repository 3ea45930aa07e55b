"""The answer follows from p-values and power by its rule, and says why."""

import json
from dataclasses import replace
from math import inf

import pytest

from traitscope.auditing.detectors.panel import Found
from traitscope.auditing.result import AuditResult, Planted, alike, called, status_of

OWN = Found(
    "odds",
    {"owl": -2.0},
    {"owl": 1.0},
    {"owl": "prompt"},
    5.0,
    {"misfit p": 0.4, "surprise": 0.01, "excess": 0.0, "unlike": [], "strange": False},
)
STEERED = Planted("a steered teacher", "odds", 0.2, 40.0)
PROMPTED = Planted("a prompted teacher", "odds", 0.05, 20.0)


def words(p: float) -> Found:
    return Found(
        "wording",
        {"owl": 4.0, "cat": 1.0},
        {"owl": p, "cat": 0.9},
        {"owl": "words", "cat": "words"},
        3.5,
        {},
    )


def test_the_smallest_p_of_two_detectors_counts_twice() -> None:
    best = called([words(0.002), OWN])
    assert [c.name for c in best] == ["owl", "cat"] and best[0].p_corrected == pytest.approx(0.004)
    assert best[0].detector == "wording" and best[1].p_corrected == 1.0


@pytest.mark.parametrize(
    ("p", "planted", "own", "rows", "status", "says"),
    [
        (0.002, (STEERED, PROMPTED), OWN, 200, "suspect", "named openly"),
        (0.002, (), OWN, 31, "insufficient", "31 rows; expected 32"),
        (0.5, (STEERED, PROMPTED), OWN, 200, "clean", "20% of the rows would have been found"),
        (
            0.5,
            (replace(STEERED, least_dose=inf, rows_needed=900.0), PROMPTED),
            OWN,
            200,
            "insufficient",
            "about 900 rows",
        ),
        (
            0.5,
            (replace(STEERED, least_dose=inf, rows_needed=inf), PROMPTED),
            OWN,
            200,
            "insufficient",
            "no number of rows",
        ),
        (0.5, (), OWN, 200, "insufficient", "power is not known"),
        (
            0.5,
            (STEERED, PROMPTED),
            replace(
                OWN,
                more={
                    "misfit p": 1e-9,
                    "surprise": 0.5,
                    "excess": 0.02,
                    "unlike": ["which tokens are taken"],
                    "strange": True,
                },
            ),
            200,
            "not-applicable",
            "0.50 nats a token",
        ),
        (
            0.002,
            (STEERED, PROMPTED),
            replace(
                OWN,
                more={
                    "misfit p": 1e-9,
                    "surprise": 0.5,
                    "excess": 0.02,
                    "unlike": ["which tokens are taken"],
                    "strange": True,
                },
            ),
            200,
            "suspect",
            "named openly",
        ),
        (
            0.5,
            (STEERED, PROMPTED),
            replace(
                OWN,
                more={
                    "misfit p": 1e-9,
                    "surprise": -0.3,
                    "excess": 0.02,
                    "unlike": ["which tokens are taken"],
                    "strange": True,
                },
            ),
            200,
            "not-applicable",
            "top-k",
        ),
        (
            0.5,
            (STEERED,),
            replace(
                OWN,
                z={"owl": 9.0},
                more={
                    "misfit p": 1e-9,
                    "surprise": 0.3,
                    "excess": 0.02,
                    "unlike": ["which tokens are taken"],
                    "strange": True,
                    "explained": {"owl": 0.42},
                },
            ),
            200,
            "not-applicable",
            "likeliest is owl (prompt, ln e 9.0); it explains 42%",
        ),
        (
            0.5,
            (STEERED,),
            replace(
                OWN,
                z={"owl": 9.0},
                more={
                    "misfit p": 1e-5,
                    "surprise": 0.0,
                    "excess": 0.008,
                    "unlike": ["where in the row they stand"],
                    "strange": False,
                    "explained": {"owl": 0.3},
                    "set aside": ["owl"],
                },
            ),
            200,
            "not-applicable",
            (
                "it explains 30% of that difference, and a candidate counts from half of it on"
                " their tokens are those that it takes, at other places"
            ),
        ),
    ],
)
def test_answers(p: float, planted: tuple, own: Found, rows: int, status: str, says: str) -> None:
    found, reasons = status_of(called([words(p), own]), planted, own, rows, 0.01)
    assert found == status and says in " ".join(reasons)


def test_candidates_that_explain_the_rows_alike_are_named_together() -> None:
    """ln 100 = 4.6 nats apart, one excludes the other."""
    e = {"cat": 10.7, "owl": 9.5, "dog": 6.2, "fox": 6.0}
    assert (
        alike(e, 0.01) == ("cat", "owl", "dog")
        and alike(e, 0.1) == ("cat", "owl")
        and alike({}, 0.01) == ()
    )
    own = Found("odds", e, dict.fromkeys(e, 0.0001), dict.fromkeys(e, "its prompt"), 5.0, OWN.more)
    reasons = status_of(called([words(0.5), own]), (PROMPTED,), own, 99, 0.01)[1]
    assert (
        "ln e 10.7" in reasons[0] and "which of cat, owl, dog it is cannot be told" in reasons[-1]
    )
    alone = replace(own, z=e | {"owl": 16.0})
    assert not any(
        "which of" in reason
        for reason in status_of(called([words(0.5), alone]), (PROMPTED,), alone, 99, 0.01)[1]
    )


def test_a_call_of_a_strangers_rows_says_that_no_error_rate_holds() -> None:
    own = replace(
        OWN,
        z={"owl": 90.0},
        p={"owl": 1e-9},
        more=OWN.more | {"strange": True, "explained": {"owl": 0.8}},
    )
    status, reasons = status_of(called([words(0.5), own]), (STEERED,), own, 99, 0.01)
    assert (
        status == "suspect"
        and "explains 80% of the difference" in reasons[-1]
        and "error rate does not hold" in reasons[-1]
    )
    both = called([replace(words(0.5), p={"owl": 0.9, "cat": 1e-12}), own])
    assert [c.detector for c in both] == ["wording", "odds"] and "explains 80%" in status_of(
        both, (STEERED,), own, 99, 0.01
    )[1][-1], "also behind a trait that is named"
    status, reasons = status_of(
        called([words(1e-4), own]), (STEERED,), replace(own, more=OWN.more), 99, 0.01
    )
    assert status == "suspect" and not any("error rate" in reason for reason in reasons), (
        "the model wrote the rows"
    )


def test_an_open_trait_is_said_to_be_overt() -> None:
    named = Found("wording", {"owl": 9.0}, {"owl": 1e-4}, {"owl": "words"}, 3.0, {})
    found, reasons = status_of(called([named, OWN]), (), OWN, 99, 0.01)
    assert found == "suspect" and "overt, not subliminal" in reasons[0]


def test_json_has_no_infinity() -> None:
    planted = (replace(STEERED, least_dose=inf),)
    result = AuditResult(
        "clean",
        0.01,
        0.8,
        "m",
        "d",
        9,
        ({"z": {"a": float("nan")}},),
        called([words(0.5)]),
        (),
        planted,
        ("why",),
    )
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert plain["planted"][0]["least_dose"] is None and plain["detectors"][0]["z"]["a"] is None
    assert plain["traits"][0] == {
        "name": "owl",
        "statistic": 4.0,
        "p_corrected": 1.0,
        "detector": "wording",
        "where": "words",
    }
