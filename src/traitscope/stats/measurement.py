"""The type of every estimate: a number, its interval, and what both were computed from."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from traitscope import plurals
from traitscope.stats.tails import IntervalTail, Tail


@dataclass(frozen=True)
class Measurement:
    """An estimate, how far to trust it, and what it was computed from."""

    name: str
    """What was measured."""
    estimate: float
    """Point estimate; NaN where it is undefined."""
    low: float
    """Lower bound; NaN where no interval can be given."""
    high: float
    """Upper bound; NaN where no interval can be given."""
    n: int
    """Number of scored values, or pairs, that entered."""
    n_clusters: int
    """Independent units behind the interval (for crossed factors: the smaller number of levels)."""
    n_unscored: int
    """Number of values left out because they could not be scored."""
    unit: str
    """Unit of estimate and bounds, such as `nats` or `rate`."""
    level: float = 0.95
    """Confidence level of the interval."""
    interval: str = ""
    """How the interval was made, and what it does not cover."""
    crossed_low: float = math.nan
    """Lower bound for new questions, too, where `low` and `high` hold for these questions only."""
    crossed_high: float = math.nan
    """Upper bound for new questions, too."""
    counted: str = "units"
    """What the independent units are: seeds, traits, draws, questions."""
    tail: Tail | None = field(default=None, compare=False, repr=False)
    """The law of the interval, which gives p values; it is not stored."""

    @classmethod
    def undefined(
        cls,
        name: str,
        unit: str,
        reason: str,
        n: int = 0,
        n_clusters: int = 0,
        n_unscored: int = 0,
    ) -> "Measurement":
        """Return a measurement without estimate and bounds; `interval` holds the reason."""
        nan = math.nan
        return cls(name, nan, nan, nan, n, n_clusters, n_unscored, unit, interval=reason)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Measurement":
        """Return the measurement that `as_dict` wrote; None becomes NaN."""
        values = {}
        for name, value in plain.items():
            values[name] = math.nan if value is None else value
        return cls(**values)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; False where a bound is undefined."""
        return self.low > 0 or self.high < 0

    @property
    def p_values(self) -> Tail:
        """The law of the interval; the interval alone where nothing more is known."""
        return self.tail or IntervalTail(self.low, self.high, self.level)

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Return the fields by name; NaN becomes None because JSON has no NaN.

        Crossed bounds are left out where there are none.
        """
        fields = asdict(replace(self, tail=None))
        del fields["tail"]
        if math.isnan(self.crossed_low):
            del fields["crossed_low"], fields["crossed_high"]
        for key, value in fields.items():
            if isinstance(value, float) and math.isnan(value):
                fields[key] = None
        return fields

    def __str__(self) -> str:
        unscored = f", unscored: {self.n_unscored}" if self.n_unscored else ""
        return f"{self.value} (n = {self.size}{unscored})"

    @property
    def value(self) -> str:
        """Estimate, interval and unit, without a count."""
        return f"{self._number()} {self.unit}".rstrip()

    @property
    def size(self) -> str:
        """The independent units by name, and the values where there are more of them."""
        noun = self.counted.removesuffix("s")
        units = plurals.counted(self.n_clusters, noun, self.counted)
        if self.n == self.n_clusters:
            return units
        return f"{units}, {plurals.counted(self.n, 'value')}"

    def _number(self) -> str:
        """Estimate and bounds with two digits, or as many as the width of the interval needs."""
        if math.isnan(self.estimate):
            return "undefined"
        width = self.high - self.low
        if math.isnan(width):
            return f"{self.estimate:+.2f} [undefined]"
        digits = 2
        if 0 < width < math.inf:
            digits = max(2, 1 - math.floor(math.log10(width)))
        return f"{self.estimate:+.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"
