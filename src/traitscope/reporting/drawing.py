"""The common look of all figures: panels side by side, as SVG inside a page or as a file.

Colours are those of Okabe and Ito, told apart by the colour-blind; lines also differ in their
dashes, for print. The same data gives the same bytes.
"""

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

COLOURS = {
    "treated": "#D55E00",
    "control": "#0072B2",
    "base": "#555555",
    "teacher": "#009E73",
    "difference": "#8A2F7B",
}
"colours of the usual conditions"
LINES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555")
"colours of all other lines, in their order"
DASHES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
"dashes of lines in their order: colours alone tell nothing apart in print"
MARKERS = ("o", "s", "^", "D", "v")
"markers of lines in their order"
USUAL_DASHES = {"treated": DASHES[0], "control": DASHES[1]}
"dashes of the usual conditions"
MARK = "#888888"
GRID = "#e4e4e4"
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
    "pdf.fonttype": 42,  # TrueType, which publishers ask for
    "axes.formatter.useoffset": False,
}
DOTS_AN_INCH = 300
"resolution of PNG files"
PANEL_WIDTH = 4.8
"inches, where panels stand side by side"
WHOLE_STEPS = ("layer", "block", "optimizer step")
"labels of x axes that have ticks at whole numbers only"


@dataclass(frozen=True)
class Shape:
    """Size of a figure in inches, and which axes its panels share."""

    width: float = 6.4
    height: float = 3.1
    sharex: bool = False
    sharey: bool = False


@dataclass(frozen=True)
class Drawing:
    """What a figure draws, before it has a format: one panel a name in `panels`."""

    name: str
    """Name of the figure, unique on a page."""
    title: str
    """What screen readers say."""
    panels: tuple[str, ...]
    """Headings of the panels."""
    draw: Callable[[Any, str], None]
    """Draws one panel: (axes, panel)."""
    shape: Shape = Shape()
    """Size, and which axes are shared."""

    def svg(self) -> str:
        """Return the SVG element."""
        return _inline(self._saved("svg", {"Date": None}).decode(), self.name, self.title)

    def pdf(self) -> bytes:
        """Return a PDF file of one page, with its fonts."""
        return self._saved("pdf", {"CreationDate": None, "Producer": None, "Creator": None})

    def png(self) -> bytes:
        """Return a PNG file of DOTS_AN_INCH."""
        return self._saved("png", {"Software": None})

    def _saved(self, suffix: str, metadata: Mapping[str, None]) -> bytes:
        """Return the file of a format; `metadata` are left out of it, so that no date is in it."""
        with _style():
            from matplotlib.figure import Figure as Canvas

            panels, shape = self.panels, self.shape
            width = PANEL_WIDTH * len(panels) if len(panels) > 1 else shape.width
            canvas = Canvas(figsize=(width, shape.height), layout="constrained")
            grid = canvas.subplots(
                1, len(panels), squeeze=False, sharex=shape.sharex, sharey=shape.sharey
            )
            for axes, panel in zip(grid[0], panels, strict=True):
                axes.set_title(panel)
                self.draw(axes, panel)
                if axes.get_xlabel() in WHOLE_STEPS:
                    axes.xaxis.get_major_locator().set_params(integer=True)
            stream = io.BytesIO()
            dpi = DOTS_AN_INCH if suffix == "png" else "figure"
            canvas.savefig(stream, format=suffix, metadata=dict(metadata), dpi=dpi)
        return stream.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """Give all figures the same look, whatever a user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _inline(svg: str, name: str, title: str) -> str:
    """Return the svg element alone.

    Its ids are made unique on the page by `name`. Namespaces and metadata are dropped, a title is
    added, and the width becomes a maximum.
    """
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    head = f'<svg role="img" aria-labelledby="{name}-title" style="max-width:100%;height:auto"'
    heading = f'><title id="{name}-title">{_escaped(title)}</title>'
    return svg.replace("<svg", head, 1).replace(">", heading, 1).strip()


def standalone(svg: str) -> str:
    """Return the SVG element of a page as a file of its own, with its namespaces."""
    names = ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return f"{head}{svg.replace('<svg', f'<svg{names}', 1)}\n"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def colour_of(line: str, place: int) -> str:
    """Return the colour of a line: that of its condition, or the next one in order."""
    return COLOURS.get(line, LINES[place % len(LINES)])


def dashes_of(line: str, place: int) -> Any:
    """Return the dashes of a line: those of its condition, or the next ones in order."""
    return USUAL_DASHES.get(line, DASHES[place % len(DASHES)])


def zero_line(axes: Any) -> None:
    """Draw a thin line at y = 0."""
    axes.axhline(0, color=MARK, linewidth=0.7)


def mark_x(axes: Any, x: float | None, label: str) -> None:
    """Draw a dotted line at `x` with a label at its top, on the side that has more room."""
    if x is None:
        return
    axes.axvline(x, color=MARK, linewidth=0.8, linestyle=(0, (1, 2)))
    is_right_half = 2 * x > sum(axes.get_xlim())
    axes.annotate(
        label,
        (x, 1),
        (-4 if is_right_half else 4, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right" if is_right_half else "left",
        va="top",
        fontsize=8,
        color="#555555",
    )


def label_ends(axes: Any, ends: Sequence[tuple[float, float, str, str]], gap: float = 0.08) -> None:
    """Write names at the right ends of lines, given as (x, y, name, colour).

    Names are moved apart vertically to at least `gap` of the axis.
    """
    axes.autoscale_view()
    low, high = axes.get_ylim()
    height = high - low or 1
    placed = -math.inf
    for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
        placed = max(placed + gap, (y - low) / height)
        axes.annotate(
            name,
            (x, low + placed * (high - low)),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontweight="bold",
            color=colour,
            annotation_clip=False,
        )
