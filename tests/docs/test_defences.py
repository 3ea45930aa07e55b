"""The page about defences lists every method with what the code says of it."""

from pathlib import Path

from traitscope.defending.knowledge import EXAMPLES
from traitscope.defending.methods import METHODS, SUSPICIONS

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "defend-data.md").read_text()


def test_every_method_has_its_row() -> None:
    for name, method in METHODS.items():
        assert f"| `{name}` | {method.about} | {method.needs} | {method.control} |" in PAGE


def test_every_suspicion_and_every_kind_of_knowledge_has_its_row() -> None:
    for name, needs in SUSPICIONS.items():
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
        assert row.endswith(f"| {needs} |")
    for example in EXAMPLES.values():
        assert f"| `{example}` |" in PAGE
