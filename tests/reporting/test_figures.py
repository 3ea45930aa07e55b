"""Figures: the numbers drawn are in the CSV, labels are in the SVG, the same data gives the same
bytes."""

import math
from dataclasses import replace

import pytest

from traitscope.reporting import figures
from traitscope.reporting.figures import Figure, Frame, Interval
from traitscope.reporting.tables import Table
from traitscope.stats.measurement import Measurement


def measured(name: str, low: float, high: float) -> Measurement:
    return Measurement(name, (low + high) / 2, low, high, 5, 5, 0, "cosine")


def csv_rows(figure: Figure) -> list[str]:
    return figure.csv.splitlines()[1:]


def test_a_line_figure_has_a_line_a_group_and_column() -> None:
    rows = (
        ("a", 1, 0.5, measured("m", 0.1, 0.3)),
        ("a", 2, 0.6, measured("m", 0.2, 0.4)),
        ("b", 1, 0.7, measured("m", 0.0, 1.0)),
    )
    header = ("who", "step", "one", "two")
    table = Table("t", "Title", "Caption", header, rows, ("step", "one", "two"))
    figure = figures.line_figure(table)
    assert csv_rows(figure) == [
        "a; one,1,0.5",
        "a; one,2,0.6",
        "a; two,1,0.2",
        "a; two,2,0.3",
        "b; one,1,0.7",
        "b; two,1,0.5",
    ]
    for label in ("a; one", "a; two", "b; one", "b; two", "step"):
        assert f">{label}</text>" in figure.svg
    assert figures.line_figure(table).svg == figure.svg


def test_a_forest_has_a_row_a_measurement_with_or_without_interval() -> None:
    found = [measured("first", 0.1, 0.3), measured("second", math.nan, math.nan)]
    figure = figures.forest_figure(found, "forest", "Cosines & <more>")
    assert csv_rows(figure)[0].startswith("first,0.2,0.1,0.3,5,5,cosine")
    assert csv_rows(figure)[1].startswith("second,,,,5")
    assert ">second</text>" in figure.svg and ">cosine</text>" in figure.svg
    assert '<title id="forest-title">Cosines &amp; &lt;more&gt;</title>' in figure.svg
    crossed = replace(found[0], crossed_low=0.0, crossed_high=0.4)
    wider = figures.forest_figure([crossed, found[1]], "forest", "Cosines")
    assert "new questions" in wider.caption and "new questions" not in figure.caption
    assert wider.svg.count("<path") > figure.svg.count("<path")


def test_dots_keep_panels_apart() -> None:
    by_panel = {
        "sampled": {"treated": measured("m", 0, 1), "control": measured("m", -1, 0)},
        "soft": {"treated": measured("m", 1, 2)},
    }
    figure = figures.dot_figure("dots", "Dots", "", by_panel, "nats")
    assert [row.split(",")[:3] for row in csv_rows(figure)] == [
        ["sampled", "treated", "0.5"],
        ["sampled", "control", "-0.5"],
        ["soft", "treated", "1.5"],
    ]
    assert ">sampled</text>" in figure.svg and ">soft</text>" in figure.svg
    assert ">−0.50</text>" in figure.svg


def test_curves_hold_every_seed_and_circles_their_own_column() -> None:
    curves = {"sampled": {"treated": {1: [(1, 0.5), (2, 0.7)], 2: [(1, 0.1)]}}}
    circles = {"sampled": {"treated": {1: [(2, 0.9)]}}}
    frame = Frame("optimizer step", "loss", ("panel", "condition", "seed", "step", "loss", "held"))
    figure = figures.curve_figure("loss", "Loss", "", curves, frame, circles)
    assert csv_rows(figure) == [
        "sampled,treated,1,1,0.5,",
        "sampled,treated,1,2,0.7,0.9",
        "sampled,treated,2,1,0.1,",
    ]
    assert ">treated</text>" in figure.svg


def test_the_bold_curve_is_the_mean_where_all_seeds_have_points() -> None:
    curves = [[(1, 0.0), (2, 1.0)], [(2, 3.0), (3, 5.0)]]
    assert figures._mean_curve(curves) == [(2, 2.0)]


@pytest.mark.parametrize("low", [0.0, math.nan])
def test_a_band_is_drawn_with_and_without_an_interval(low: float) -> None:
    by_panel = {"": [Interval(0.5, low, 1.0), Interval(0.25, low, 0.5)]}
    frame = Frame("layer", "cosine", ("panel", "layer", "cosine", "low", "high"), (1, "here"))
    figure = figures.band_figure("band", "Band", "", by_panel, frame)
    shown_low = "" if math.isnan(low) else "0"
    assert csv_rows(figure) == [f",0,0.5,{shown_low},1", f",1,0.25,{shown_low},0.5"]
    assert ">here</text>" in figure.svg


def test_a_figure_is_the_same_as_svg_pdf_and_png_each_time() -> None:
    def drawn() -> Figure:
        return figures.forest_figure([measured("first", 0.1, 0.3)], "forest", "Cosines")

    for one, other in zip(_files(drawn()), _files(drawn()), strict=True):
        assert one == other
    pdf, png = _files(drawn())[1:]
    assert b"/FontFile2" in pdf and b"Date" not in pdf and b"matplotlib" not in png
    assert png[16:20] == round(8.4 * 300).to_bytes(4, "big")


def _files(figure: Figure) -> tuple[bytes, bytes, bytes]:
    return figure.svg.encode(), figure.drawing.pdf(), figure.drawing.png()


def test_lines_differ_in_more_than_their_colour() -> None:
    rows = tuple((name, x, float(x)) for name in "abcdefgh" for x in (1, 2))
    table = Table("t", "Title", "", ("who", "x", "y"), rows, ("x", "y"))
    (axes,) = _axes_of(figures.line_figure(table))
    looks = {(str(line._unscaled_dash_pattern), line.get_marker()) for line in axes.lines[1:]}
    assert len(looks) == 8


def _axes_of(figure: Figure) -> list:
    """The axes as the figure draws them."""
    from matplotlib.figure import Figure as Canvas

    axes = Canvas().subplots()
    figure.drawing.draw(axes, "")
    return [axes]
