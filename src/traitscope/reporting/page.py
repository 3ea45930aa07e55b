"""One self-contained HTML page, the same for studies, comparisons and audits.

A page is made of sections, a section of paragraphs, cards, figures and tables, in this order:

    table = Table("rows", "Rows", "What was read.", ("row", "score"), (("a", 0.5), ("b", 0.25)))
    card = Card("Do not train on these data.", badge="suspect", highlighted=True)
    sections = [Section("answer", "The answer", cards=(card,)),
                Section("rows", "Rows", tables=(table,))]
    html = render_page("May this model be trained on these data?", sections, about="2 rows")

Give cells as they are: texts, numbers, Measurements (reporting.tables), not as formatted texts.
The page aligns columns of words to the left and columns of numbers to the right, and folds long
tables. It offers the numbers behind every table and figure as CSV. Everything that it prints is
escaped, and it loads nothing from elsewhere. A page of a new kind needs no template of its own.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitscope.reporting.figures import Figure, line_figure
from traitscope.reporting.tables import Cell, Table, shown, table_csv, text_columns

if TYPE_CHECKING:
    from jinja2 import Template

FOLDED_ROWS = 24
"a table with more rows is folded on the page"
FOOTER = "Made by traitscope from sealed runs only."


@dataclass(frozen=True)
class Card:
    """A finding that stands out from the page."""

    title: str
    """What is answered."""
    badge: str = ""
    """The answer in a word or two."""
    paragraphs: tuple[str, ...] = ()
    """What the answer means."""
    points: tuple[str, ...] = ()
    """Single reasons, as a list."""
    rule: str = ""
    """The rule by which the answer was given."""
    highlighted: bool = False
    """Whether the card is coloured: an effect, a suspicion."""


@dataclass(frozen=True)
class Section:
    """A part of a page under one heading."""

    name: str
    """Name of the link to the section; unique on a page."""
    title: str
    """Heading; empty: none."""
    paragraphs: tuple[str, ...] = ()
    """Plain texts."""
    cards: tuple[Card, ...] = ()
    """Findings."""
    figures: tuple[Figure, ...] = ()
    """Figures."""
    tables: tuple[Table, ...] = ()
    """Tables; the line figure of a table with a `curve` stands above it."""
    notes: tuple[str, ...] = ()
    """Plain texts behind everything else."""


def render_page(
    title: str,
    sections: Sequence[Section],
    about: str = "",
    alert: str = "",
    footer: str = FOOTER,
) -> str:
    """Return the HTML of a page.

    `about` is the line under the title, such as model and size. `alert` is a warning in a box, such
    as that a run is no evidence. See the docstring of this module.
    """
    text = template("page.html.jinja").render(
        title=title,
        about=about,
        alert=alert,
        sections=sections,
        footer=footer,
        figure_view=_figure_view,
        table_view=_table_view,
        cell_lines=_cell_lines,
    )
    return text + "\n"


@cache
def template(name: str) -> "Template":
    """Return a template that escapes what it prints."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(str(Path(__file__).parent / "templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _figure_view(figure: Figure, heading: str) -> Mapping[str, Any]:
    """Return what the template reads of a figure; a title that repeats the heading is left out."""
    from markupsafe import Markup

    return {
        "name": figure.name,
        "title": "" if figure.title == heading else figure.title,
        "caption": figure.caption,
        "svg": Markup(figure.svg),
        "link": _data_link(figure.csv),
    }


def _table_view(table: Table, heading: str) -> Mapping[str, Any]:
    """Return what the template reads of a table; a title that repeats the heading is left out."""
    return {
        "name": table.name,
        "title": "" if table.title == heading else table.title,
        "caption": table.caption,
        "header": table.header,
        "rows": table.rows,
        "is_text": text_columns(table),
        "is_folded": len(table.rows) > FOLDED_ROWS,
        "figure": _figure_view(line_figure(table), table.title) if table.curve else None,
        "link": _data_link(table_csv(table)),
    }


def _cell_lines(cell: Cell) -> list[str]:
    """Return the lines of a cell; all but the first are set small."""
    return shown(cell).split("\n")


def _data_link(csv: str) -> str:
    """Return a link that holds a CSV file itself."""
    encoded = base64.b64encode(csv.encode()).decode()
    return f"data:text/csv;charset=utf-8;base64,{encoded}"
