"""The README's commands parse, its make targets exist."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from traitscope.cli import main
from traitscope.workflow import standard_nodes

HERE = Path(__file__).parents[2]
README = (HERE / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```[a-z]*\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for block in BLOCKS
    for line in block.splitlines()
    if re.match(r"(\.venv/bin/)?traitscope ", line)
]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line: str) -> None:
    _, verb, *words = shlex.split(line)
    main.parse(verb, main.VERBS[verb], words)


def test_there_are_commands() -> None:
    assert {shlex.split(line)[1] for line in COMMANDS} >= {
        "generate",
        "filter",
        "train",
        "measure",
        "extract",
        "show",
    }


def test_make_targets_exist() -> None:
    named = set(re.findall(r"\bmake ([a-z]+)", README)) - {"make"}
    found = set(
        re.findall(
            r"^([a-z]+):", (HERE / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE
        )
    )
    assert {"demo", "test"} <= named
    assert named <= found, f"README names targets that the Makefile lacks: {named - found}"


def test_page_of_the_architecture_is_up_to_date() -> None:
    page = (HERE / "docs/project/architecture.md").read_text(encoding="utf-8")
    assert page == maker("make_architecture").page(), "run python scripts/make_architecture.py"


def test_ci_runs_what_the_readme_says() -> None:
    assert "make test" in (HERE / ".ci/run").read_text(encoding="utf-8")


def maker(name: str) -> ModuleType:
    """A script of scripts/, loaded."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_line_page_is_up_to_date() -> None:
    assert (HERE / "docs/cli.md").read_text(encoding="utf-8") == maker("make_cli").page(), (
        "run python scripts/make_cli.py"
    )


def test_page_of_costs_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted with the optional second family at hand, as the page is."""
    monkeypatch.setattr(standard_nodes, "at_hand", lambda _: True)
    assert (HERE / "docs/costs.md").read_text(encoding="utf-8") == maker("make_costs").page(), (
        "run python scripts/make_costs.py"
    )


def test_list_of_studies_is_up_to_date() -> None:
    found = (HERE / "docs/studies/README.md").read_text(encoding="utf-8")
    assert found == maker("make_study").index(), "run python scripts/make_study.py STUDY_RUN"
