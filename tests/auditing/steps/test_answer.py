"""What the reasons of an answer say of texts besides answers."""

from types import SimpleNamespace

from traitscope.auditing.detectors.findings import TextRow
from traitscope.auditing.detectors.wording import detect
from traitscope.auditing.steps import answer
from traitscope.data.traits import load_trait


def test_traits_in_system_turns_are_a_reason() -> None:
    traits = [load_trait(name) for name in ("owl", "cat", "dog")]
    rows = [TextRow(str(n), "Cat?" if n == 0 else "1?", "2", "You love owls.") for n in range(36)]
    evidence = SimpleNamespace(wording=detect(traits, rows, [], 0.01))
    assert answer._named_outside(evidence) == [
        "owl is named in 36 of 36 system turns: it is overt there",
        "cat is named in 1 of 36 prompts: it is overt there",
    ]
    assert answer._named_outside(SimpleNamespace(wording=None)) == []
