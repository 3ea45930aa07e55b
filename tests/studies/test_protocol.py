"""What a study's file must hold, and that a file which lacks something is refused by name."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from traitscope import studies
from traitscope.errors import ConfigError
from traitscope.studies import protocol
from traitscope.studies.claims import context_gate
from traitscope.studies.design import CENTRED_TAG_VECTOR, QUESTION_VECTOR, TAG_VECTOR
from traitscope.workflow import standard_nodes


def copy_of_a_study() -> ModuleType:
    study = ModuleType("own_study")
    for name in (*protocol.TEXTS, *protocol.FUNCTIONS, "SIZES", "PROTOCOL"):
        setattr(study, name, getattr(context_gate, name))
    return study


@dataclass(frozen=True)
class UnmarkedSize:
    steered_block: int


@pytest.mark.parametrize("name", studies.names())
def test_every_study_is_complete(name: str) -> None:
    assert protocol.load(name).TITLE


def test_a_complete_copy_passes() -> None:
    study = copy_of_a_study()
    assert protocol.as_study(study) is study


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CLAIM", "", "CLAIM is ''; expected a text"),
        ("PUBLISHED", 0.3, "PUBLISHED is 0.3; expected a text"),
        ("nodes", None, r"expected the function nodes\(size, common\)"),
        (
            "conclude",
            lambda size, folders: None,
            r"conclude takes size, folders; expected conclude\(size, folders, model\)",
        ),
        ("PROTOCOL", "as published", "PROTOCOL is 'as published'; expected an Experiment"),
        ("design", None, r"expected the function design\(size\)"),
        ("SIZES", {"smoke": 1}, "expected sizes smoke, laptop, full"),
        ("SIZES", dict.fromkeys(protocol.SIZE_NAMES, 3), "a size is 3; expected a frozen"),
        (
            "SIZES",
            dict.fromkeys(protocol.SIZE_NAMES, UnmarkedSize(3)),
            "'steered_block' of .*UnmarkedSize names layers without a mark",
        ),
    ],
)
def test_a_study_that_lacks_a_part(name: str, value: object, says: str) -> None:
    study = copy_of_a_study()
    setattr(study, name, value)
    with pytest.raises(ConfigError, match=says):
        protocol.as_study(study)


@pytest.mark.parametrize("name", studies.names())
def test_a_study_says_which_vector_it_takes(name: str) -> None:
    """The vectors of its graph are taken over the prompts that its table of distance names."""
    study = protocol.load(name)
    size = study.SIZES["laptop"]
    common = {"model": "smollm2-135m", "device": "cpu", "dtype": "fp32"}
    over_numbers, centred = set(), set()
    for node in study.nodes(size, common):
        if node.name == standard_nodes.VECTORS:
            settings = node.config({})
            over_numbers.add(settings.prompt_set == "numbers")
            centred.add(len(settings.traits) > 1)
    said = study.design(size).here.vector
    if said == QUESTION_VECTOR:
        assert True not in over_numbers
    if said in (TAG_VECTOR, CENTRED_TAG_VECTOR):
        assert over_numbers == {True}
    if said in (QUESTION_VECTOR, CENTRED_TAG_VECTOR):
        assert False not in centred


def test_which_studies_ask_whether_their_teacher_has_its_trait() -> None:
    """docs/concepts/controls-and-intervals.md names those that do not."""
    without = set()
    for name in studies.names():
        source = Path(protocol.load(name).__file__).read_text(encoding="utf-8")
        if "have_traits(" not in source and "teacher_has_trait(" not in source:
            without.add(name)
    assert without == {"auxiliary_logits", "transfer_ratio"}
