"""Which claims a size can test: the expected z of a difference between students, before training.

Let d be the KL of a teacher from its control, nats a row. For teachers near their control, rows of
the two differ by about 2 d in the mean of their log-likelihood ratio. Its variance is about 2 d for
each. So the best statistic of n rows on either side has about

    z = sqrt(n d)

Far from the control this is only a scale, and a statistic may have more. Rows of 0 and 1, with
shares of 0.01 and 0.5, have d = 0.64 and sqrt(d) = 0.80. Their difference of means has z = 0.96 a
row. Students' answers have a ratio to this scale that was measured:

    z = efficiency * sqrt(n d)

Passes over the same rows are not in it: they add nothing that the rows do not hold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from traitscope.errors import ConfigError
from traitscope.reporting.tables import Table
from traitscope.stats.measurement import Measurement

LEVEL = 0.95
TITLE = "What this size can test"
"Heading of the table."
POWER = 0.8
"Power for which the table gives the number of rows."


@dataclass(frozen=True)
class Calibration:
    """Students that were trained, from whose differences the efficiency is estimated."""

    differences: tuple[tuple[float, float, float], ...]
    """Mean, lower and upper bound of treated minus control, one for each group of seeds; 95 %
    intervals by Student's t."""
    seeds: int
    """Seeds of each group."""
    rows: int
    """Rows a seed on either side."""
    nats: float
    """KL of their teacher from their control over digits, nats a row."""
    source: str
    """Where these numbers are from."""

    @property
    def n_seeds(self) -> int:
        """Seeds of all groups."""
        return self.seeds * len(self.differences)

    def efficiency(self) -> Measurement:
        """The efficiency, with the interval of the standardised mean of all seeds.

        The interval inverts the non-central t law. Source: Cumming and Finch 2001.
        """
        from scipy.special import nctdtrinc, stdtrit

        quantile = float(stdtrit(self.seeds - 1, (1 + LEVEL) / 2))
        mean = math.fsum(difference[0] for difference in self.differences) / len(self.differences)
        variance = 0.0
        for _, low, high in self.differences:
            error = (high - low) / 2 / quantile
            variance += error**2 * self.seeds / len(self.differences)
        n_seeds = self.n_seeds
        freedom = n_seeds - len(self.differences)
        z = mean / math.sqrt(variance)
        t = z * math.sqrt(n_seeds)
        tail = (1 - LEVEL) / 2
        low = float(nctdtrinc(freedom, 1 - tail, t)) / math.sqrt(n_seeds)
        high = float(nctdtrinc(freedom, tail, t)) / math.sqrt(n_seeds)
        scale = z_if_near(self.nats, self.rows)
        return Measurement(
            name="efficiency",
            estimate=z / scale,
            low=low / scale,
            high=high / scale,
            n=n_seeds,
            n_clusters=n_seeds,
            n_unscored=0,
            unit="ratio to √(n d)",
            interval=f"non-central t over {n_seeds} seeds of {self.source}",
        )


DEMO = Calibration(
    differences=((0.33, 0.23, 0.43), (0.28, 0.14, 0.43)),
    seeds=5,
    rows=32,
    nats=9.65,
    source="the demo (SmolLM2-135M, cat steered 0.6 at block 14, ten numbers a row)",
)
"""The two groups of seeds in float32 on docs/start/first-student.md, log-probability of cat.

The divergence is that of a run of `information`: 9.65 [7.62, 11.68] nats a row over 64 rows
(LOG.md).
"""


def z_if_near(nats: float, rows: int) -> float:
    """About the z of the best statistic of rows of two teachers that are near each other; see the
    module's docstring.

    Raises ConfigError for negative arguments.
    """
    if nats < 0 or rows < 0:
        raise ConfigError(f"{nats} nats a row in {rows} rows; expected 0 or more; correct it")
    return math.sqrt(nats * rows)


def power(z: float, seeds: int) -> float:
    """Probability that the 95 % t interval over seeds lies above 0, where one seed has `z`.

    NaN for fewer than two seeds, which have no interval.
    """
    from scipy.special import nctdtr, stdtrit

    if seeds < 2:
        return math.nan
    critical = float(stdtrit(seeds - 1, (1 + LEVEL) / 2))
    return 1 - float(nctdtr(seeds - 1, min(z * math.sqrt(seeds), 1e3), critical))


def rows_needed(nats: float, seeds: int, efficiency: float) -> float:
    """Rows a seed with which the power is POWER; infinite where nothing is carried.

    NaN for fewer than two seeds.
    """
    if seeds < 2:
        return math.nan
    if nats <= 0 or efficiency <= 0:
        return math.inf
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle, seeds) < POWER else (low, middle)
    return (high / efficiency) ** 2 / nats


@dataclass(frozen=True)
class Contrast:
    """A teacher whose students are compared with students of a control."""

    teacher: str
    """Name of the teacher."""
    nats: Measurement
    """KL of the teacher from the control over digits, nats a row."""
    rows: int
    """Rows that a student reads, on either side."""
    seeds: int
    """Independent seeds, each with rows of its own."""


def power_table(tested: Sequence[Contrast], calibration: Calibration = DEMO) -> Table:
    """The table of what a size can test; its name is `information`."""
    efficiency = calibration.efficiency()
    rows = []
    for item in tested:
        nats = max(0.0, item.nats.estimate)
        scale = z_if_near(nats, item.rows)
        at_power = Measurement(
            name="power",
            estimate=power(efficiency.estimate * scale, item.seeds),
            low=power(efficiency.low * scale, item.seeds),
            high=power(efficiency.high * scale, item.seeds),
            n=item.seeds,
            n_clusters=item.seeds,
            n_unscored=0,
            unit="probability",
            interval="of efficiency",
        )
        needed = rows_needed(nats, item.seeds, efficiency.estimate)
        rows.append(
            (
                item.teacher,
                item.nats,
                item.rows,
                item.seeds,
                round(efficiency.estimate * scale, 2),
                at_power if item.seeds > 1 else None,
                round(needed) if math.isfinite(needed) else None,
            )
        )
    caption = (
        f"Expected before training. z = {efficiency.estimate:.2f} · √(nats a row · rows); the"
        f" factor is {efficiency.estimate:.2f} [{efficiency.low:.2f}, {efficiency.high:.2f}],"
        f" measured on {calibration.n_seeds} seeds of {calibration.source}, and may differ for"
        " another recipe or trait. Power: chance that the 95 % t interval over seeds lies above 0,"
        " if each seed has rows of its own; its brackets are those of the factor. The control is"
        " the unmodified model. Passes over the same rows add nothing. Students of soft targets"
        " read distributions, not draws from them, and are not listed."
    )
    header = (
        "teacher",
        "nats a row in digits",
        "rows a student",
        "seeds",
        "expected z of a seed",
        "power",
        f"rows for power {POWER:g}",
    )
    return Table("information", TITLE, caption, header, tuple(rows))
