"""Students of a set on a tiny model: three of them, asked for the writer's trait."""

from pathlib import Path

from traitscope.config.recipe import Recipe
from traitscope.studies.calibration import runner
from traitscope.studies.calibration.outcome import Outcomes, all_sets, asked_trait
from traitscope.studies.calibration.results import read_results
from traitscope.studies.calibration.sets.menu import SetName, plan_of
from traitscope.studies.calibration.sets.place import Workplace

FAST = Recipe(epochs=1, batch_size=4, micro_batch=4, lr=1e-2, held_out=0.0)


def test_students_of_a_set_differ_by_their_seeds_alone(tmp_path: Path, tiny_folder: Path) -> None:
    place = Workplace(tmp_path / "root", str(tiny_folder), "cpu", "fp32", rows=8)
    outcomes = Outcomes(place, FAST)
    file, names = tmp_path / "r.jsonl", [SetName("prompted 50%", 2)]
    work = runner.Work(outcomes.line, outcomes.version)
    assert runner.run(names, work, file, place.root) == 1
    (line,) = read_results(file)
    assert line["asked"] == line["trait"] == "dolphin" and line["rate"] == 0.5
    assert len(set(line["rise"])) == 3 and all(abs(rise) < 20 for rise in line["rise"])
    assert line["writer_rise"] != 0 and line["writer_rise"] not in line["rise"]
    again = outcomes.line(names[0])
    assert again["rise"] == line["rise"]
    assert Outcomes(place).version != outcomes.version


def test_sets_without_a_trait_are_asked_by_their_number() -> None:
    assert asked_trait(SetName("plain", 1)) == "owl"
    assert asked_trait(SetName("benign tuned", 12)) == "dolphin"


def test_no_two_sets_share_a_writer() -> None:
    names = all_sets()
    parts = [plan_of(name).changed for name in names]
    writers = [part.writer for part in parts if part is not None]
    assert len(names) == 40 == len(set(names))
    assert len(writers) == len(set(writers))
