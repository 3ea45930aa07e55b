"""What a report holds, before it is written: figures, tables, and what was estimated."""

from dataclasses import dataclass

from traitscope.reporting.figures import Figure
from traitscope.reporting.tables import Table
from traitscope.stats.measurement import Measurement


@dataclass(frozen=True)
class Contents:
    """What one run, or several together, give a paper."""

    figures: tuple[Figure, ...]
    """Figures, with unique names."""
    tables: tuple[Table, ...]
    """Tables, with unique names."""
    measurements: tuple[Measurement, ...]
    """What was estimated; the paragraph names the intervals and n of these."""
    claim: str = ""
    """Of a study, the claim and its rule in sentences."""
    published: str = ""
    """Of a study, where the claim was published; the sources are found by their numbers."""


def measurements_table(name: str, title: str, measurements: tuple[Measurement, ...]) -> Table:
    """Return measurements as a table: a row each, with n and how the interval was made."""
    rows = []
    for m in measurements:
        rows.append((m.name, m, m.unit, m.n_clusters, m.counted, m.n, m.interval))
    caption = "Estimates with 95 % intervals. n counts independent units, values what was scored."
    header = ("quantity", "estimate", "unit", "n", "units", "values", "interval")
    return Table(name, title, caption, header, tuple(rows))
