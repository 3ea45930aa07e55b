"""The command line and the calibration give the same answer, e-values and reasons on the same rows:
of the model itself, of a prompted teacher, of a fine-tuned model, and in free text."""

from pathlib import Path

import pytest
from command import call

from traitscope.studies.calibration.audited import Audits, said
from traitscope.studies.calibration.sets.menu import SetName, seed_of
from traitscope.studies.calibration.sets.place import Workplace

ROWS = 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One root for all kinds: what is found of the model alone is found once."""
    return tmp_path_factory.mktemp("root")


@pytest.mark.parametrize("kind", ["plain", "prompted", "benign tuned", "text"])
def test_the_command_says_what_the_calibration_keeps(
    kind: str, root: Path, tiny_folder: Path
) -> None:
    place = Workplace(root, str(tiny_folder), "cpu", "fp32", rows=ROWS)
    name = SetName(kind, 0)
    line = Audits(place, changes={"traits": ("cat", "owl")}).line(name)
    data = place.root / "texts" / f"{name.file_name}.jsonl"
    done = call(
        place.root,
        "audit",
        data,
        f"--model {tiny_folder} --device cpu --dtype fp32 --traits cat owl --workers 1",
        f"--no-spike-ins --seed {seed_of(name, 'audit')} --study again",
    )
    assert done.summary["rows"] == line["audited_rows"]
    expected = said(done.summary, line["trait"])
    assert {key: line[key] for key in expected} == expected
    assert line["predictions"] is not None
