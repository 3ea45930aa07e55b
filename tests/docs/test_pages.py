"""README and docs are true: commands parse, made pages are up to date, make targets exist."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from traitscope import studies
from traitscope.auditing import search
from traitscope.auditing.result import ANSWERS
from traitscope.cli import flags, main

HERE = Path(__file__).parents[2]
README = (HERE / "README.md").read_text(encoding="utf-8")
REPORT = (HERE / "src/traitscope/auditing/report.py").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
PAGES = [HERE / "README.md", HERE / "CONTRIBUTING.md", *sorted((HERE / "docs").rglob("*.md"))]
MADE = {
    "make_answers": "docs/reference/four-answers.md",
    "make_architecture": "docs/project/architecture.md",
    "make_cli": "docs/reference/cli.md",
    "make_costs": "docs/reference/costs.md",
    "make_formats": "docs/how-to/own-data.md",
    "make_models": "docs/reference/models.md",
}
"script and the page that it writes"


def command_lines() -> list[tuple[str, str]]:
    """Page and words of every command line of the package that a page shows."""
    lines = []
    for page in PAGES:
        for _, block in FENCED.findall(page.read_text(encoding="utf-8")):
            one_line = re.sub(r"\n\s+--", " --", block)
            for line in one_line.splitlines():
                if words := _words_behind_the_program(line):
                    lines.append((str(page.relative_to(HERE)), words))
    return lines


def _words_behind_the_program(line: str) -> str:
    """What a line of a code block gives to `traitscope`; empty if it is no such line."""
    text = line.split(" #")[0].strip().removeprefix("- run: >").strip()
    match = re.match(r"(?:\.venv/bin/|torchrun .* -m )?traitscope (.+)", text)
    return match.group(1) if match else ""


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_commands_parse(page: str, line: str) -> None:
    if "…" in line or "NAME" in line:
        pytest.skip("a form, not a command")
    command, words = main.command_of(shlex.split(line))
    flags.parse(command, words)


def test_pages_show_every_public_command() -> None:
    shown = {line.split()[0] for _, line in command_lines()}
    assert shown >= {"audit", "generate", "train", "measure", "judge", "study", "show"}


def test_files_and_tests_that_the_page_on_extending_names_exist() -> None:
    """`models/NAME.py` and the like are forms."""
    page = (HERE / "docs/project/extending.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w./]+/\w+\.(?:py|md|json))(?:::(\w+))?`", page)
    assert len(named) > 30
    for file, test in named:
        places = [HERE / file, HERE / "src/traitscope" / file]
        found = [place for place in places if place.is_file()]
        assert found or "NAME" in file, f"extending.md names {file}, which is not there"
        assert not test or f"def {test}(" in found[0].read_text(encoding="utf-8"), test


def test_make_targets_exist() -> None:
    named: set[str] = set()
    for page in (HERE / "README.md", HERE / "CONTRIBUTING.md"):
        named |= set(
            re.findall(r"\bmake ([a-z]+)\b(?=`|\s+#|\n)", page.read_text(encoding="utf-8"))
        )
    makefile = (HERE / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    assert {"demo", "test", "check"} <= named
    assert named <= targets, f"pages name targets that the Makefile lacks: {named - targets}"


def test_ci_runs_what_the_pages_say() -> None:
    run = (HERE / ".ci/run").read_text(encoding="utf-8")
    assert "make test" in run
    assert "make check" in run


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


def script(name: str) -> ModuleType:
    """A script of scripts/, loaded."""
    spec = importlib.util.spec_from_file_location(name, HERE / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", MADE)
def test_made_pages_are_up_to_date(name: str) -> None:
    page = (HERE / MADE[name]).read_text(encoding="utf-8")
    assert page == script(name).page(), f"run python scripts/{name}.py"


def test_matrix_of_shapes_is_up_to_date() -> None:
    page = (HERE / "docs/reference/file-formats.md").read_text(encoding="utf-8")
    assert page == script("make_formats").formats(), "run python scripts/make_formats.py"
    assert "| no |" not in page.split("end -->")[0].split("made by")[1]


def test_table_of_claims_is_up_to_date() -> None:
    page = (HERE / "docs/claims/index.md").read_text(encoding="utf-8")
    assert page == script("make_study").index(), "run python scripts/make_study.py STUDY_RUN"


@pytest.mark.parametrize("name", studies.names())
def test_heads_of_claims_are_the_texts_of_the_studies(name: str) -> None:
    made = script("make_study")
    page = (made.PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith("\n".join(made.claim(name)) + "\n**Command.**")


def test_recorded_outcomes_are_those_of_the_pages() -> None:
    made = script("make_study")
    assert made.RECORDED.read_text(encoding="utf-8") == made.recorded()


def test_every_page_stands_in_the_navigation() -> None:
    navigation = (HERE / "mkdocs.yml").read_text(encoding="utf-8")
    for page in sorted((HERE / "docs").rglob("*.md")):
        name = page.relative_to(HERE / "docs").as_posix()
        assert name in navigation or name == "reference/four-answers.md", name


def test_pages_say_how_many_teachers_the_search_tries_first() -> None:
    glossary = (HERE / "docs/reference/glossary.md").read_text(encoding="utf-8")
    (row,) = [line for line in glossary.splitlines() if line.startswith("| search |")]
    assert f"at most {search.FIRST_ROUND} pairs" in row
    concept = (HERE / "docs/concepts/how-the-audit-decides.md").read_text(encoding="utf-8")
    assert f"{search.FIRST_ROUND} at most" in concept


def test_quoted_titles_of_the_audit_page_are_its_titles() -> None:
    titles = set(re.findall(r'Table\(\s*"\w+", "([^"]+)"', REPORT))
    for answer in ANSWERS.values():
        quoted = set(re.findall("“([^”]+)”", answer.meaning + answer.advice))
        assert quoted <= titles, quoted - titles
