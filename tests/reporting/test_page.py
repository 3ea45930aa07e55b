"""Pages: self-contained, balanced, escaped, and with the numbers behind what they show."""

import base64
import re
from html.parser import HTMLParser

from traitscope.reporting.figures import forest_figure
from traitscope.reporting.page import FOLDED_ROWS, Card, Section, render_page
from traitscope.reporting.tables import Table, table_csv
from traitscope.stats.measurement import Measurement

MEASURED = Measurement("m", 0.2, 0.1, 0.3, 5, 5, 0, "cosine")
CURVED = Table("curved", "Curved", "Caption", ("x", "y"), ((1, 0.5), (2, MEASURED)), ("x", "y"))
LONG = Table("long", "Long", "", ("n", "word"), tuple((n, "word") for n in range(FOLDED_ROWS + 1)))
VOID = {"meta", "link", "br", "hr", "img", "input", "col"}
LINKS = ("href", "src", "xlink:href", "srcset", "data", "action")


class Page(HTMLParser):
    """Collects tags, links and text; insists on balanced tags and unique ids."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.tags, self.links, self.ids, self.words = [], [], [], [], []
        self.feed(html)
        self.close()
        assert not self.open and len(self.ids) == len(set(self.ids))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in LINKS:
                self.links.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)


def sections() -> list[Section]:
    card = Card("Is it <so>?", "suspect", ("It is.",), ("one reason",), "by this rule", True)
    figure = forest_figure([MEASURED], "forest")
    return [
        Section("answer", "Answer", cards=(card,), notes=("a note & more",)),
        Section("numbers", "Numbers", ("before",), figures=(figure,), tables=(CURVED, LONG)),
    ]


def html() -> str:
    return render_page("Cats & <numbers>", sections(), about="1 row", alert="not evidence")


def test_everything_that_was_given_is_shown_and_escaped() -> None:
    page = Page(html())
    for words in ("Cats & <numbers>", "Is it <so>?", "suspect", "one reason", "by this rule"):
        assert words in page.text
    for words in ("a note & more", "before", "1 row", "not evidence", "0.20 [0.10, 0.30]"):
        assert words in page.text
    assert page.tags.count("h1") == 1 and page.tags.count("svg") == 2


def test_the_page_loads_nothing_from_elsewhere() -> None:
    text = html()
    page = Page(text)
    assert "script" not in page.tags and "http:" not in text and "https:" not in text
    assert "@import" not in text and not re.search(r"\son\w+=", text)
    for link in page.links:
        assert link.startswith(("data:", "#"))


def test_tables_and_figures_carry_their_numbers() -> None:
    links = [link for link in Page(html()).links if link.startswith("data:text/csv")]
    files = [base64.b64decode(link.partition("base64,")[2]).decode() for link in links]
    assert len(files) == 4, "two figures and two tables"
    assert table_csv(CURVED) in files and table_csv(LONG) in files


def test_long_tables_are_folded_and_short_ones_are_not() -> None:
    page = Page(html())
    assert page.tags.count("details") == 1 and f"{FOLDED_ROWS + 1} rows" in page.text


def test_the_same_page_has_the_same_bytes() -> None:
    assert html() == html()
