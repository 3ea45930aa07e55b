"""An estimate with its interval and what it was computed from."""

import math
from dataclasses import asdict, dataclass


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
    """Scored values, or pairs, that entered."""
    n_clusters: int
    """Independent units behind the interval (for crossed factors: the smaller number of levels)."""
    n_unscored: int
    """Values left out because they could not be scored."""
    unit: str
    """Unit of estimate and bounds, such as `nats` or `rate`."""
    level: float = 0.95
    """Confidence level of the interval."""
    interval: str = ""
    """How the interval was made and what it does not cover."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; False where a bound is undefined."""
        return self.low > 0 or self.high < 0

    def as_dict(self) -> dict[str, str | int | float | None]:
        """The fields by name; NaN becomes None because JSON has no NaN."""
        return {
            k: None if isinstance(v, float) and math.isnan(v) else v
            for k, v in asdict(self).items()
        }

    def __str__(self) -> str:
        width = self.high - self.low
        digits = max(2, 1 - math.floor(math.log10(width))) if 0 < width < math.inf else 2
        bounds = (
            "undefined" if math.isnan(width) else f"{self.low:.{digits}f}, {self.high:.{digits}f}"
        )
        number = (
            "undefined" if math.isnan(self.estimate) else f"{self.estimate:+.{digits}f} [{bounds}]"
        )
        unscored = f", unscored={self.n_unscored}" if self.n_unscored else ""
        return (
            f"{number} {self.unit}".rstrip()
            + f" (n={self.n}, clusters={self.n_clusters}{unscored})"
        )
