"""How a measurement prints, and what its JSON holds."""

import json
import math
from dataclasses import replace

import pytest

from traitscope.stats.measurement import Measurement


def test_measurement_prints_sign_bounds_and_counts():
    found = Measurement("m", 0.21, 0.1, 0.32, 150, 3, 0, "nats")
    assert str(found) == "+0.21 [0.10, 0.32] nats (n = 3 units, 150 values)"
    assert found.value == "+0.21 [0.10, 0.32] nats"
    assert found.level == 0.95


def test_measurement_shows_unscored_small_widths_and_undefined():
    assert (
        str(Measurement("m", -0.0012, -0.0031, 0.0007, 9, 3, 2, ""))
        == "-0.0012 [-0.0031, 0.0007] (n = 3 units, 9 values, unscored: 2)"
    )
    assert (
        str(Measurement("m", math.nan, math.nan, math.nan, 0, 0, 5, "nats"))
        == "undefined nats (n = 0 units, unscored: 5)"
    )
    assert (
        str(Measurement("m", 0.5, math.nan, math.nan, 1, 1, 0, "rate"))
        == "+0.50 [undefined] rate (n = 1 unit)"
    )


def test_the_units_have_their_name_and_stand_before_the_values():
    seeds = Measurement("m", 0.21, 0.1, 0.32, 250, 5, 0, "nats", counted="seeds")
    assert str(seeds) == "+0.21 [0.10, 0.32] nats (n = 5 seeds, 250 values)"
    assert replace(seeds, n=5).size == "5 seeds"
    assert replace(seeds, n=8, n_clusters=1).size == "1 seed, 8 values"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.2, True),
        (-0.2, -0.1, True),
        (-0.1, 0.1, False),
        (0.0, 0.1, False),
        (math.nan, math.nan, False),
    ],
)
def test_excludes_zero(low, high, expected):
    assert Measurement("m", 0.0, low, high, 3, 3, 0, "").excludes_zero is expected


def test_measurement_as_dict_is_strict_json():
    found = Measurement(
        "m", math.nan, math.nan, math.nan, 0, 0, 4, "nats", interval="no scored value"
    ).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "name": "m",
        "estimate": None,
        "low": None,
        "high": None,
        "n": 0,
        "n_clusters": 0,
        "n_unscored": 4,
        "unit": "nats",
        "level": 0.95,
        "interval": "no scored value",
        "counted": "units",
    }
    crossed = Measurement("m", 0, -1, 1, 9, 3, 0, "nats", crossed_low=-2, crossed_high=2)
    assert Measurement.from_dict(crossed.as_dict()) == crossed
    again = Measurement.from_dict(found)
    assert math.isnan(again.estimate) and again.interval == "no scored value"
