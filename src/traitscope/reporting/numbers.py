"""Measurements as text, the same on pages and on the terminal."""

import math
from collections.abc import Iterable

from traitscope.stats.measurement import Measurement

NO_INTERVAL = "no interval"
MINUS = "−"
LEAST_DIGITS, MOST_DIGITS = 2, 6
"decimals that `digits_of` stays between"
LONGEST_LABEL = 28
"characters of a name on a terminal"


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """Return a number with `digits` decimals and a true minus sign; NaN is `undefined`.

    With `sign`, positive numbers carry a plus. Zero carries no sign.
    """
    if math.isnan(value):
        return "undefined"
    form = f"{'+' if sign else ''}.{digits}f"
    text = f"{value:{form}}".replace("-", MINUS)
    is_zero = not text.strip(f"+{MINUS}0.")
    return text.strip(f"+{MINUS}") if is_zero else text


def digits_of(measurement: Measurement) -> int:
    """Return the decimals that show two digits of the interval's width, from 2 to 6."""
    width = measurement.high - measurement.low
    if not 0 < width < math.inf:
        return 3
    return min(MOST_DIGITS, max(LEAST_DIGITS, 1 - math.floor(math.log10(width))))


def estimate(measurement: Measurement, sign: bool = False) -> str:
    """Return the point estimate, with as many digits as its interval supports."""
    return number(measurement.estimate, digits_of(measurement), sign)


def bounds(measurement: Measurement, sign: bool = False) -> str:
    """Return the interval in brackets, or `no interval`."""
    if math.isnan(measurement.low):
        return NO_INTERVAL
    digits = digits_of(measurement)
    low = number(measurement.low, digits, sign)
    high = number(measurement.high, digits, sign)
    return f"[{low}, {high}]"


def crossed_bounds(measurement: Measurement, sign: bool = False) -> str:
    """Return the interval for new questions in brackets; empty where there is none."""
    if math.isnan(measurement.crossed_low):
        return ""
    digits = digits_of(measurement)
    low = number(measurement.crossed_low, digits, sign)
    high = number(measurement.crossed_high, digits, sign)
    return f"[{low}, {high}]"


def reading(measurement: Measurement) -> str:
    """Say whether the interval includes zero."""
    if math.isnan(measurement.low):
        return NO_INTERVAL
    return "excludes zero" if measurement.excludes_zero else "includes zero"


def sentence(measurement: Measurement) -> str:
    """Return name, estimate, interval, unit, units, values and method of a measurement."""
    size = f"{size_of(measurement)}, {measurement.interval}"
    value = f"{estimate(measurement)} {bounds(measurement)} {measurement.unit}"
    crossed = crossed_bounds(measurement)
    new_questions = f"; for new questions, too: {crossed}" if crossed else ""
    return f"{measurement.name}: {value}, {size}{new_questions}"


def size_of(measurement: Measurement) -> str:
    """Return the independent units by name, and the values where they are others."""
    units = f"n = {measurement.n_clusters} {measurement.counted}"
    if measurement.n == measurement.n_clusters:
        return units
    return f"{units} ({measurement.n} values)"


def methods(measurements: Iterable[Measurement]) -> str:
    """Return a sentence that names the interval methods of some measurements, each once.

    A method whose text begins another one is left out: the fuller text says it, too.
    """
    texts: dict[str, None] = {}
    for measurement in measurements:
        if not math.isnan(measurement.low):
            texts[measurement.interval] = None
    fullest = [text for text in texts if not _begins_another(text, texts)]
    return f"Intervals: {'; '.join(fullest)}." if fullest else ""


def _begins_another(text: str, texts: Iterable[str]) -> bool:
    for other in texts:
        if other != text and other.startswith(text):
            return True
    return False


def label(name: str) -> str:
    """A name for a terminal, cut where it is long: a judge of words may list many."""
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"


def of_unit(unit: str) -> str:
    """Return how a number of a unit ends in a sentence: nats are named, rates are not."""
    return " nats" if unit == "nats" else ""
