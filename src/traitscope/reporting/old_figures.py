"""Figures of a report: inline SVG with the data behind it as CSV.

One panel a mode, because modes are never mixed. Colours are those of Okabe and Ito, told apart by
the colour-blind; lines also differ in their dashes, for print. The same data gives the same bytes.

Shapes: L layers.  Nested dicts are mode -> role -> seed -> values.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from traitscope.reporting.verdict import Sheet
from traitscope.stats.measurement import Measurement

COLOURS = {
    "treated": "#D55E00",
    "control": "#0072B2",
    "base": "#555555",
    "teacher": "#009E73",
    "difference": "#8A2F7B",
}
DASHES = {"treated": "-", "control": (0, (4, 2)), "difference": "-"}
MODES = {"none": "no training", "sampled": "sampled tokens", "soft": "soft targets"}
LOSSES = {"sampled": "cross-entropy, nats a token", "soft": "KL to the teacher, nats a token"}
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#444444",
    "axes.titlelocation": "left",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "svg.fonttype": "none",
    "svg.hashsalt": "traitscope",
    "axes.formatter.useoffset": False,
}
MARK = "#888888"
LINES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
"colours of lines that have no role"
BySeed = Mapping[Hashable, Sequence[Any]]
Curves = Mapping[str, Mapping[str, BySeed]]


class Chart(NamedTuple):
    """A figure, ready for the page."""

    name: str
    "of its files"
    title: str
    "heading, also read out by screen readers"
    caption: str
    "what is drawn, with units"
    svg: str
    "inline"
    csv: str
    "the numbers drawn"


class Interval(NamedTuple):
    """Mean and interval bounds; bounds may be NaN."""

    mean: float
    low: float
    high: float


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """CSV with \\n line ends; floats with 8 significant digits, None and NaN as empty cells."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return stream.getvalue()


def _cell(value: object) -> object:
    if value is None or isinstance(value, float) and math.isnan(value):
        return ""
    return f"{value:.8g}" if isinstance(value, float) else value


def logprob_chart(found: Mapping[str, Mapping[str, Measurement]], trait: str) -> Chart:
    """Dots with intervals of the target log-probability on the positive set: mode -> role ->
    Measurement, nats."""

    def draw(ax: Any, mode: str) -> None:
        for place, (role, m) in enumerate(found[mode].items()):
            if not math.isnan(m.low):
                ax.plot(
                    [m.low, m.high],
                    [place, place],
                    color=COLOURS[role],
                    linewidth=2,
                    solid_capstyle="butt",
                )
            ax.plot([m.estimate], [place], "o", color=COLOURS[role], markersize=4.5)
            ax.annotate(
                f"{m.estimate:.2f}".replace("-", "−"),
                (m.estimate, place),
                (0, 6),
                fontsize=8,
                ha="center",
                textcoords="offset points",
                color=COLOURS[role],
            )
        ax.set_yticks(range(len(found[mode])), list(found[mode]))
        ax.set_ylim(max(map(len, found.values())) - 0.4, -0.7)
        ax.margins(x=0.12)
        ax.grid(axis="x", color="#e4e4e4", linewidth=0.6)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel(f"log-probability of “{trait}”, nats")

    rows = [
        [mode, role, m.estimate, m.low, m.high, m.n, m.n_clusters, m.unit, m.interval]
        for mode, roles in found.items()
        for role, m in roles.items()
    ]
    header = ["mode", "condition", "estimate", "low", "high", "n", "n_clusters", "unit", "interval"]
    kinds: dict[str, dict[str, None]] = {}
    for role, m in (item for roles in found.values() for item in roles.items()):
        kinds.setdefault(m.interval, {})[role] = None
    listed = "; ".join(f"{', '.join(roles)}: {interval}" for interval, roles in kinds.items())
    caption = (
        f"Log-probability of “{trait}” right after the answer's stem, questions about favourites,"
        f" with 95 % intervals. How they were made: {listed}. Treated and control are compared pair"
        " by pair in the tables; an overlap of two intervals here decides nothing."
    )
    about = ("target-logprob", "How likely the trait's word is, by condition", caption)
    return _chart(about, list(found), draw, csv_text(header, rows), height=2.6, sharex=True)


def forest_chart(found: Sequence[Measurement], name: str = "measurements") -> Chart:
    """Dots with intervals, one line a measurement of one unit, in the order given."""

    def draw(ax: Any, mode: str) -> None:
        ax.axvline(0, color=MARK, linewidth=0.7)
        for place, m in enumerate(found):
            if not math.isnan(m.low):
                ax.plot(
                    [m.low, m.high],
                    [place, place],
                    color=COLOURS["control"],
                    linewidth=2,
                    solid_capstyle="butt",
                )
            ax.plot([m.estimate], [place], "o", color=COLOURS["control"], markersize=4.5)
        ax.set_title("")
        ax.set_yticks(range(len(found)), [m.name for m in found])
        ax.set_ylim(len(found) - 0.4, -0.6)
        ax.grid(axis="x", color="#e4e4e4", linewidth=0.6)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel(found[0].unit)

    about = (
        name,
        "Measurements with 95 % intervals",
        "Dots: estimates. Lines: 95 % intervals, where there are any.",
    )
    return _chart(
        about,
        ["none"],
        draw,
        measurements_csv(found),
        height=0.7 + 0.27 * max(2, len(found)),
        width=8.4,
    )


def measurements_csv(found: Sequence[Measurement]) -> str:
    """Every measurement, one a row."""
    rows = [
        [m.name, m.estimate, m.low, m.high, m.n, m.n_clusters, m.unit, m.interval] for m in found
    ]
    return csv_text(
        ["name", "estimate", "low", "high", "n", "n_clusters", "unit", "interval"], rows
    )


def lines_chart(sheet: Sheet) -> Chart:
    """The figure of a sheet with a curve: a line a group and y column, with intervals where there
    are any."""
    x, *ys = (sheet.header.index(name) for name in sheet.curve)
    lines: dict[str, list[tuple[float, Any]]] = {}
    for row in sheet.rows:
        group = [str(cell) for cell in row[:x]]
        for y in ys:
            label = "; ".join([*group, *([sheet.header[y]] if len(ys) > 1 or not group else [])])
            lines.setdefault(label, []).append((float(row[x]), row[y]))

    def draw(ax: Any, mode: str) -> None:
        _zero_line(ax)
        for i, (label, points) in enumerate(lines.items()):
            style = {
                "color": LINES[i % len(LINES)],
                "linestyle": ("-", (0, (4, 2)))[i // len(LINES) % 2],
                "linewidth": 1.6,
            }
            places, cells = zip(*points, strict=True)
            values = [c.estimate if isinstance(c, Measurement) else c for c in cells]
            ax.plot(
                places,
                values,
                marker="o" if len(places) < 12 else "",
                markersize=3.5,
                label=label,
                **style,
            )
            for place, cell in points:
                if isinstance(cell, Measurement):
                    ax.plot(
                        [place, place], [cell.low, cell.high], color=style["color"], linewidth=1
                    )
        ax.set_title("")
        ax.set_xlabel(sheet.header[x])
        ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))

    rows = [
        [label, place, c.estimate if isinstance(c, Measurement) else c]
        for label, points in lines.items()
        for place, c in points
    ]
    text = csv_text(["line", sheet.header[x], "value"], rows)
    return _chart(
        (f"{sheet.name}-figure", sheet.title, sheet.caption), ["none"], draw, text, width=8.4
    )


def eas_chart(eas: Curves, layer: int | None, d_model: int | None) -> Chart:
    """EAS per layer: a thin line a seed, the mean bold; ±1/sqrt(D) where D is known."""

    def draw(ax: Any, mode: str) -> None:
        _zero_line(ax)
        if d_model:
            ax.axhspan(-(d_model**-0.5), d_model**-0.5, color="#000000", alpha=0.07, linewidth=0)
        _seed_lines(
            ax,
            {
                r: {s: list(enumerate(v)) for s, v in seeds.items()}
                for r, seeds in eas[mode].items()
            },
        )
        _mark_layer(ax, layer)
        ax.set_xlabel("layer")
        ax.set_ylabel("EAS, cosine")

    rows = [
        [mode, role, seed, i, v]
        for mode, role, seed, values in _flat(eas)
        for i, v in enumerate(values)
    ]
    chance = (
        f" Grey: ±1/√D (D = {d_model}), one standard deviation for directions drawn at random."
        if d_model
        else ""
    )
    caption = (
        "Empirical activation similarity (EAS): cosine between what training changed in a student"
        f" and the teacher's vector, layer by layer. Thin: one seed. Bold: mean over seeds.{chance}"
    )
    text = csv_text(["mode", "condition", "seed", "layer", "eas"], rows)
    about = ("eas-by-layer", "What training changed, compared with the teacher's vector", caption)
    return _chart(about, list(eas), draw, text, sharey=True)


def eas_difference_chart(
    by_layer: Mapping[str, Sequence[Interval]], layer: int | None, against: Mapping[str, str]
) -> Chart:
    """Treated minus control EAS per layer, with a 95 % t interval over seeds; mode -> Interval
    [L]."""
    caption = "Difference in EAS per layer: mean over seeds."
    if "zero" in against.values():
        caption += (
            " Where the control is the unmodified model, nothing was changed and EAS is compared"
            " with zero."
        )
    labels = {mode: f"treated − {other}, cosine" for mode, other in against.items()}
    about = ("eas-difference-by-layer", "EAS per layer: treated minus control", caption)
    return _band_chart(by_layer, layer, labels, about, "difference")


def shared_change_chart(by_layer: Mapping[str, Sequence[Interval]], layer: int | None) -> Chart:
    """cos(v_treated - v_control, v_teacher) per layer, with a 95 % t interval over seeds; mode ->
    Interval [L]."""
    caption = (
        "Cosine between the teacher's vector and the difference of what training changed in the"
        " treated and in the control student of the same seed: the shift that any numbers cause"
        " cancels before the cosine is taken."
    )
    labels = dict.fromkeys(by_layer, "cosine")
    about = (
        "difference-vector-by-layer",
        "What only the teacher's data changed, compared with its vector",
        caption,
    )
    return _band_chart(by_layer, layer, labels, about, "cosine")


def _band_chart(
    by_layer: Mapping[str, Sequence[Interval]],
    layer: int | None,
    labels: Mapping[str, str],
    about: tuple,
    column: str,
) -> Chart:
    def draw(ax: Any, mode: str) -> None:
        mean, low, high = zip(*by_layer[mode], strict=True)
        _zero_line(ax)
        ax.fill_between(
            range(len(mean)), low, high, color=COLOURS["difference"], alpha=0.2, linewidth=0
        )
        ax.plot(mean, color=COLOURS["difference"], linewidth=2)
        _mark_layer(ax, layer)
        ax.set_xlabel("layer")
        ax.set_ylabel(labels[mode])

    rows = [
        [mode, i, d.mean, d.low, d.high]
        for mode, found in by_layer.items()
        for i, d in enumerate(found)
    ]
    name, title, caption = about
    caption += (
        " Band: 95 % t interval over seeds (none for a single seed). The layers are not independent"
        " and the band is not corrected for their number."
    )
    text = csv_text(["mode", "layer", column, "low", "high"], rows)
    return _chart((name, title, caption), list(by_layer), draw, text, sharey=True)


def eas_steps_chart(steps: Curves, layer: int) -> Chart:
    """EAS at the steered layer while students train; values are (optimizer step, cosine)."""

    def draw(ax: Any, mode: str) -> None:
        _zero_line(ax)
        _seed_lines(ax, steps[mode], marker="o")
        ax.set_xlabel("optimizer step")
        ax.set_ylabel(f"EAS at layer {layer}, cosine")

    rows = [
        [mode, role, seed, *point] for mode, role, seed, points in _flat(steps) for point in points
    ]
    caption = (
        f"EAS at the steered layer ({layer}) during training. Thin: one seed. Bold: mean over"
        " seeds."
    )
    text = csv_text(["mode", "condition", "seed", "step", "eas"], rows)
    return _chart(
        ("eas-by-step", "EAS while students train", caption), list(steps), draw, text, sharey=True
    )


def loss_chart(losses: Curves) -> Chart:
    """Training loss; values are (optimizer step, loss, held-out loss or None)."""

    def draw(ax: Any, mode: str) -> None:
        _seed_lines(
            ax,
            {
                r: {s: [p[:2] for p in v] for s, v in seeds.items()}
                for r, seeds in losses[mode].items()
            },
        )
        for role, seeds in losses[mode].items():
            held = [(p[0], p[2]) for points in seeds.values() for p in points if p[2] is not None]
            ax.plot(
                *_columns(held), "o", color=COLOURS[role], markersize=3.5, markerfacecolor="white"
            )
        ax.set_xlabel("optimizer step")
        ax.set_ylabel(LOSSES[mode])

    rows = [
        [mode, role, seed, *point] for mode, role, seed, points in _flat(losses) for point in points
    ]
    caption = (
        "Training loss a completion token. Thin: one seed. Bold: mean over seeds. Open circles:"
        " held-out rows. The two kinds of loss have different meanings and are not to be compared"
        " with each other."
    )
    text = csv_text(["mode", "condition", "seed", "step", "loss", "held_out_loss"], rows)
    return _chart(("loss-by-step", "Training loss", caption), list(losses), draw, text)


def _chart(
    about: tuple[str, str, str],
    modes: Sequence[str],
    draw: Callable[[Any, str], None],
    text: str,
    height: float = 3.1,
    sharex: bool = False,
    sharey: bool = False,
    width: float = 6.4,
) -> Chart:
    """Draw one panel a mode and save; `about` is name, title and caption."""
    with _style():
        from matplotlib.figure import Figure

        figure = Figure(
            figsize=(4.8 * len(modes) if len(modes) > 1 else width, height), layout="constrained"
        )
        axes = figure.subplots(1, len(modes), squeeze=False, sharex=sharex, sharey=sharey)[0]
        for ax, mode in zip(axes, modes, strict=True):
            ax.set_title(MODES[mode])
            draw(ax, mode)
            if ax.get_xlabel() in ("layer", "optimizer step"):
                ax.xaxis.get_major_locator().set_params(integer=True)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return Chart(*about, _inline(stream.getvalue(), *about[:2]), text)


@contextmanager
def _style() -> Iterator[None]:
    """The look of all figures, whatever a user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _inline(svg: str, name: str, title: str) -> str:
    """The svg element alone: ids unique on the page, a title, no namespaces, no metadata, its width
    a maximum."""
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    head = f'<svg role="img" aria-labelledby="{name}-title" style="max-width:100%;height:auto"'
    return (
        svg.replace("<svg", head, 1)
        .replace(">", f'><title id="{name}-title">{title}</title>', 1)
        .strip()
    )


def _seed_lines(
    ax: Any, roles: Mapping[str, Mapping[Hashable, Sequence[tuple]]], marker: str = ""
) -> None:
    """Thin lines of every seed, the bold mean over seeds, and the role's name at its end."""
    ends = []
    for role, seeds in roles.items():
        look = {"color": COLOURS[role], "linestyle": DASHES[role], "marker": marker}
        for points in seeds.values() if len(seeds) > 1 else ():
            ax.plot(*_columns(points), linewidth=0.7, alpha=0.55, markersize=2, **look)
        mean = _mean_curve(list(seeds.values()))
        ax.plot(*_columns(mean), linewidth=2.2, markersize=4, **look)
        ends += [(mean[-1], role)] if mean else []
    _end_labels(ax, ends)


def _columns(points: Sequence[tuple]) -> tuple[list, list]:
    return [p[0] for p in points], [p[1] for p in points]


def _mean_curve(curves: Sequence[Sequence[tuple]]) -> list[tuple[float, float]]:
    """(x, mean y) at every x that all curves have."""
    tables = [dict(points) for points in curves]
    shared = sorted(set.intersection(*(set(t) for t in tables)))
    return [(x, sum(t[x] for t in tables) / len(tables)) for x in shared]


def _end_labels(
    ax: Any, ends: Sequence[tuple[tuple[float, float], str]], gap: float = 0.08
) -> None:
    """Names at the right ends of lines, moved apart vertically to at least `gap` of the axis."""
    ax.autoscale_view()
    low, high = ax.get_ylim()
    placed = -math.inf
    for (x, y), text in sorted(ends, key=lambda end: end[0][1]):
        placed = max(placed + gap, (y - low) / (high - low or 1))
        ax.annotate(
            text,
            (x, low + placed * (high - low)),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
            color=COLOURS[text],
            annotation_clip=False,
        )


def _zero_line(ax: Any) -> None:
    ax.axhline(0, color=MARK, linewidth=0.7)


def _mark_layer(ax: Any, layer: int | None) -> None:
    if layer is not None:
        ax.axvline(layer, color=MARK, linewidth=0.8, linestyle=(0, (1, 2)))
        left = 2 * layer > sum(ax.get_xlim())
        look = {"ha": "right" if left else "left", "va": "top", "fontsize": 8, "color": "#555555"}
        ax.annotate(
            f"steered layer {layer}",
            (layer, 1),
            (-4 if left else 4, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            **look,
        )


def _flat(curves: Curves) -> Iterator[tuple[str, str, Hashable, Sequence[Any]]]:
    for mode, roles in curves.items():
        for role, seeds in roles.items():
            for seed, values in seeds.items():
                yield mode, role, seed, values
