"""The kinds of figures that pages show: inline SVG with the numbers behind it as CSV.

    forest_figure    measurements of one unit: a dot and an interval each
    line_figure      columns of a table as lines
    dot_figure       one measurement a condition, panel by panel
    curve_figure     a thin line a seed and the bold mean, condition by condition
    band_figure      a mean with its interval along x, such as layers

The last three draw one panel for each key of their data, because kinds of training are never
pooled.
"""

import math
import textwrap
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from traitscope.reporting import drawing
from traitscope.reporting.drawing import Drawing, Shape
from traitscope.reporting.numbers import MINUS
from traitscope.reporting.tables import Table, csv_text, measurements_csv
from traitscope.stats.measurement import Measurement

NAME_WIDTH = 48
"characters of a line of a name"
MARKED_POINTS = 12
"a line with fewer points has a marker at each"
Point = tuple[float, float]
Curves = Mapping[str, Mapping[str, Mapping[Hashable, Sequence[Point]]]]
"panel -> condition -> seed -> points (x, y)"


@dataclass(frozen=True)
class Figure:
    """A figure, ready for a page."""

    name: str
    """Name of the CSV file and of the link to the figure; unique on a page."""
    title: str
    """Heading, also read out by screen readers."""
    caption: str
    """What is drawn, with units."""
    drawing: Drawing = field(compare=False, repr=False)
    """What is drawn, in the formats of `Drawing`."""
    csv: str
    """The numbers drawn."""

    @cached_property
    def svg(self) -> str:
        """The SVG element."""
        return self.drawing.svg()


class Interval(NamedTuple):
    """A mean and the bounds of its interval, in one unit."""

    mean: float
    """The point estimate."""
    low: float
    """Lower bound; NaN where no interval can be given."""
    high: float
    """Upper bound; NaN where no interval can be given."""


@dataclass(frozen=True)
class Frame:
    """What surrounds the curves of a figure."""

    xlabel: str
    """Label of the x axis."""
    ylabel: str | Mapping[str, str]
    """Label of the y axis, or one for every panel."""
    columns: tuple[str, ...]
    """Header of the CSV."""
    marked: tuple[float, str] | None = None
    """An x to mark, and the words beside it."""
    chance: float = 0.0
    """Half-width of a grey band around zero; 0 draws none."""
    marker: str = ""
    """Marker of the points, as matplotlib calls it; empty: lines only."""
    zero: bool = True
    """Whether a thin line marks y = 0."""

    def put_on(self, axes: Any, panel: str) -> None:
        """Write the labels and the mark on the axes of a panel."""
        axes.set_xlabel(self.xlabel)
        ylabel = self.ylabel if isinstance(self.ylabel, str) else self.ylabel[panel]
        axes.set_ylabel(ylabel)
        if self.marked:
            drawing.mark_x(axes, *self.marked)


def forest_figure(
    measurements: Sequence[Measurement], name: str = "measurements", title: str = ""
) -> Figure:
    """Return a figure of measurements of one unit: a dot with its interval on a line each."""

    names = [textwrap.fill(measurement.name, NAME_WIDTH) for measurement in measurements]
    lines = max(len(names) + 1, sum(name.count("\n") + 1 for name in names))

    def draw(axes: Any, panel: str) -> None:
        axes.axvline(0, color=drawing.MARK, linewidth=0.7)
        for place, measurement in enumerate(measurements):
            dot_with_interval(axes, measurement, place, drawing.COLOURS["control"])
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(measurements) - 0.4, -0.6)
        rows_only(axes)
        axes.set_xlabel(measurements[0].unit)

    title = title or "Measurements with 95 % intervals"
    caption = "Dots: estimates. Lines: 95 % intervals, where there are any."
    if any(not math.isnan(measurement.crossed_low) for measurement in measurements):
        caption += " Thin lines: the same for new questions, too."
    shape = Shape(width=8.4, height=0.7 + 0.27 * max(2, lines))
    drawn = Drawing(name, title, ("",), draw, shape)
    return Figure(name, title, caption, drawn, measurements_csv(measurements))


def dot_with_interval(axes: Any, measurement: Measurement, place: float, colour: str) -> None:
    """Draw an estimate with its interval at a height; a thin line is for new questions, too."""
    if not math.isnan(measurement.crossed_low):
        ends = [measurement.crossed_low, measurement.crossed_high]
        axes.plot(ends, [place, place], color=colour, linewidth=0.7)
    if not math.isnan(measurement.low):
        ends = [measurement.low, measurement.high]
        axes.plot(ends, [place, place], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot([measurement.estimate], [place], "o", color=colour, markersize=4.5)


def rows_only(axes: Any) -> None:
    """Show a grid along x and no ticks along y, where every row has a name."""
    axes.grid(axis="x", color=drawing.GRID, linewidth=0.6)
    axes.tick_params(axis="y", length=0)


def line_figure(table: Table) -> Figure:
    """Return the figure of a table with a `curve`: a line for each group and column of y.

    Measurements are drawn with their intervals.
    """
    x_name = table.curve[0]
    lines = _lines_of(table)

    def draw(axes: Any, panel: str) -> None:
        drawing.zero_line(axes)
        for place, (label, points) in enumerate(lines.items()):
            _draw_line(axes, place, label, points)
        axes.set_xlabel(x_name)
        if len(lines) == 1:
            axes.set_ylabel(next(iter(lines)))
        else:
            axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))

    rows = []
    for label, points in lines.items():
        for x, cell in points:
            rows.append([label, x, _value(cell)])
    name = f"{table.name}-figure"
    drawn = Drawing(name, table.title, ("",), draw, Shape(width=8.4))
    csv = csv_text(["line", x_name, "value"], rows)
    return Figure(name, table.title, table.caption, drawn, csv)


def _lines_of(table: Table) -> dict[str, list[tuple[float, Any]]]:
    """Return the points (x, cell) of every line of a table, by the line's label."""
    x_place, *y_places = map(table.header.index, table.curve)
    lines: dict[str, list[tuple[float, Any]]] = {}
    for row in table.rows:
        group = list(map(str, row[:x_place]))
        for y_place in y_places:
            needs_column = len(y_places) > 1 or not group
            words = [*group, table.header[y_place]] if needs_column else group
            label = "; ".join(words)
            lines.setdefault(label, []).append((float(row[x_place]), row[y_place]))
    return lines


def _draw_line(axes: Any, place: int, label: str, points: Sequence[tuple[float, Any]]) -> None:
    colours = drawing.LINES
    colour = colours[place % len(colours)]
    places, values = [], []
    for x, cell in points:
        places.append(x)
        values.append(_value(cell))
        if isinstance(cell, Measurement):
            axes.plot([x, x], [cell.low, cell.high], color=colour, linewidth=1)
    axes.plot(
        places,
        values,
        marker=drawing.MARKERS[place % len(drawing.MARKERS)] if len(points) < MARKED_POINTS else "",
        markersize=3.5,
        label=label,
        color=colour,
        linestyle=drawing.dashes_of(label, place),
        linewidth=1.6,
    )


def _value(cell: Any) -> float:
    return cell.estimate if isinstance(cell, Measurement) else cell


def dot_figure(
    name: str,
    title: str,
    caption: str,
    by_panel: Mapping[str, Mapping[str, Measurement]],
    xlabel: str,
) -> Figure:
    """Return a figure of one measurement a condition; panel -> condition -> Measurement."""
    most = max(map(len, by_panel.values()))

    def draw(axes: Any, panel: str) -> None:
        conditions = by_panel[panel]
        for place, (condition, measurement) in enumerate(conditions.items()):
            colour = drawing.colour_of(condition, place)
            dot_with_interval(axes, measurement, place, colour)
            axes.annotate(
                f"{measurement.estimate:.2f}".replace("-", MINUS),
                (measurement.estimate, place),
                (0, 6),
                fontsize=8,
                ha="center",
                textcoords="offset points",
                color=colour,
            )
        axes.set_yticks(range(len(conditions)), list(conditions))
        axes.set_ylim(most - 0.4, -0.7)
        axes.margins(x=0.12)
        rows_only(axes)
        axes.set_xlabel(xlabel)

    rows = []
    for panel, conditions in by_panel.items():
        for condition, m in conditions.items():
            size = [m.n, m.n_clusters, m.unit, m.interval]
            rows.append([panel, condition, m.estimate, m.low, m.high, *size])
    header = ["panel", "condition", "estimate", "low", "high", "n", "n_clusters", "unit"]
    drawn = Drawing(name, title, tuple(by_panel), draw, Shape(height=2.6, sharex=True))
    return Figure(name, title, caption, drawn, csv_text([*header, "interval"], rows))


def curve_figure(
    name: str,
    title: str,
    caption: str,
    curves: Curves,
    frame: Frame,
    circles: Curves | None = None,
    sharey: bool = True,
) -> Figure:
    """Return a figure of curves over x: a thin line a seed, the mean over seeds bold.

    `circles` are further points, drawn as open marks without a line.
    """

    def draw(axes: Any, panel: str) -> None:
        if frame.zero:
            drawing.zero_line(axes)
        if frame.chance:
            axes.axhspan(-frame.chance, frame.chance, color="#000000", alpha=0.07, linewidth=0)
        _draw_seeds(axes, curves[panel], frame.marker)
        if circles:
            _draw_circles(axes, circles.get(panel, {}))
        frame.put_on(axes, panel)

    rows = list(_curve_rows(curves, circles))
    drawn = Drawing(name, title, tuple(curves), draw, Shape(sharey=sharey))
    return Figure(name, title, caption, drawn, csv_text(frame.columns, rows))


def _curve_rows(curves: Curves, circles: Curves | None) -> Iterator[list]:
    """Yield the CSV rows of curves; a circle at the same x is the last column."""
    for panel, conditions in curves.items():
        for condition, seeds in conditions.items():
            for seed, points in seeds.items():
                extra = _points_of(circles, panel, condition, seed)
                for x, y in points:
                    row = [panel, condition, seed, x, y]
                    yield row if circles is None else [*row, extra.get(x)]


def _points_of(
    curves: Curves | None, panel: str, condition: str, seed: Hashable
) -> dict[float, float]:
    if curves is None:
        return {}
    return dict(curves.get(panel, {}).get(condition, {}).get(seed, ()))


def _draw_seeds(
    axes: Any, conditions: Mapping[str, Mapping[Hashable, Sequence[Point]]], marker: str
) -> None:
    """Draw thin lines of every seed, the bold mean, and the condition's name at its end."""
    ends = []
    for place, (condition, seeds) in enumerate(conditions.items()):
        look = {
            "color": drawing.colour_of(condition, place),
            "linestyle": drawing.dashes_of(condition, place),
            "marker": marker,
        }
        if len(seeds) > 1:
            for points in seeds.values():
                axes.plot(*_columns(points), linewidth=0.7, alpha=0.55, markersize=2, **look)
        mean = _mean_curve(list(seeds.values()))
        axes.plot(*_columns(mean), linewidth=2.2, markersize=4, **look)
        if mean:
            ends.append((*mean[-1], condition, look["color"]))
    drawing.label_ends(axes, ends)


def _draw_circles(axes: Any, conditions: Mapping[str, Mapping[Hashable, Sequence[Point]]]) -> None:
    for place, (condition, seeds) in enumerate(conditions.items()):
        colour = drawing.colour_of(condition, place)
        for points in seeds.values():
            look = {"color": colour, "markersize": 3.5, "markerfacecolor": "white"}
            marker = drawing.MARKERS[place % len(drawing.MARKERS)]
            axes.plot(*_columns(points), marker, **look)


def _columns(points: Sequence[Point]) -> np.ndarray:
    """Return the x and the y of points [2, N]."""
    return np.array(points, dtype=float).reshape(-1, 2).T


def _mean_curve(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """Return (x, mean y) at every x that all curves have."""
    values_by_x: dict[float, list[float]] = {}
    for points in curves:
        for x, y in points:
            values_by_x.setdefault(x, []).append(y)
    means = []
    for x in sorted(values_by_x):
        values = values_by_x[x]
        if len(values) == len(curves):
            means.append((x, sum(values) / len(values)))
    return means


def band_figure(
    name: str,
    title: str,
    caption: str,
    by_panel: Mapping[str, Sequence[Interval]],
    frame: Frame,
) -> Figure:
    """Return a figure of means with their intervals at x = 0, 1, ...; panel -> Interval [x].

    `frame.columns` are the CSV's header: panel, x, mean, lower and upper bound.
    """
    colour = drawing.COLOURS["difference"]

    def draw(axes: Any, panel: str) -> None:
        mean, low, high = np.array(by_panel[panel]).T
        drawing.zero_line(axes)
        axes.fill_between(range(len(low)), low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(mean, color=colour, linewidth=2)
        frame.put_on(axes, panel)

    rows = []
    for panel, intervals in by_panel.items():
        for x, interval in enumerate(intervals):
            rows.append([panel, x, interval.mean, interval.low, interval.high])
    drawn = Drawing(name, title, tuple(by_panel), draw, Shape(sharey=True))
    return Figure(name, title, caption, drawn, csv_text(frame.columns, rows))
