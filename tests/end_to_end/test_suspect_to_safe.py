"""From rows of a teacher to a student that was looked at, by the commands and the Python of
docs/how-to/from-suspect-to-safe.md, on a tiny model."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from command import CAT, OWL, Ran, call, ok, write_yaml

from traitscope.auditing import settings

PAGE = Path(__file__).parents[2] / "docs/how-to/from-suspect-to-safe.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def _few_others() -> Any:
    """Fewer styles: the same path in less time."""
    patch = pytest.MonkeyPatch()
    patch.setattr(settings, "STYLED", settings.STYLED[:2])
    yield
    patch.undo()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("safe")


@pytest.fixture(scope="module")
def traits(place: Path) -> list[Path]:
    return [write_yaml(place / f"{trait['name']}.yaml", trait) for trait in (OWL, CAT)]


@pytest.fixture(scope="module")
def rows(place: Path, tiny_folder: Path) -> Path:
    """A user's file: prompts and answers of a prompted teacher, without its token ids."""
    prompts = place / "prompts.txt"
    prompts.write_text("".join(f"{number}, {3 * number % 97}:\n" for number in range(96)))
    made = ok(
        place / "runs",
        "generate",
        "--model",
        tiny_folder,
        "--count 6 --vocabulary template --prompts",
        prompts,
        "--interventions",
        "prompt:" + OWL["teacher_prompt"],
    ).run
    file = place / "rows.jsonl"
    lines = []
    for line in (made / "records.jsonl").read_text().splitlines():
        row = json.loads(line)
        lines.append(json.dumps({key: row[key] for key in ("id", "prompt", "completion")}) + "\n")
    file.write_text("".join(lines))
    return file


def audited(place: Path, folder: Path, data: Path, traits: list[Path]) -> Ran:
    words = ("--workers 1 --dose 1", "--no-spike-ins")
    return call(place / "runs", "audit", data, "--model", folder, "--traits", *traits, *words)


@pytest.fixture(scope="module")
def defended(place: Path, tiny_folder: Path, rows: Path, traits: list[Path]) -> Path:
    """Steps 1 and 2: the rows are suspect, and are changed."""
    asked = audited(place, tiny_folder, rows, traits)
    assert asked.summary["status"] == "suspect" and asked.summary["trait"] == "owl"
    page = place / "defended.html"
    by = ["--by", "canonicalise:order=sort", "wash", "--report", page]
    run = ok(place / "runs", "defend", "--data", rows, "--model", tiny_folder, *by).run
    assert page.is_file()
    return run


def test_changed_rows_are_no_longer_suspect(
    place: Path, tiny_folder: Path, defended: Path, traits: list[Path]
) -> None:
    before = [json.loads(line) for line in (place / "rows.jsonl").read_text().splitlines()]
    kept = [json.loads(line) for line in (defended / "kept.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in kept] == [row["prompt"] for row in before]
    assert [row["completion"] for row in kept] != [row["completion"] for row in before]
    assert audited(place, tiny_folder, defended, traits).summary["status"] != "suspect"


def screened(place: Path, folder: Path, student: Path, traits: list[Path]) -> dict[str, Any]:
    few = "--no-broad --samples 1 --rows 8 --n 8 --count 2"
    words = ["--teacher", student, "--model", folder, "--traits", *traits, few]
    run = ok(place / "runs", "screen", *words).run
    return json.loads((run / "screen.json").read_text())


def test_a_student_is_trained_and_looked_at(
    place: Path, tiny_folder: Path, defended: Path, rows: Path, traits: list[Path]
) -> None:
    few = "--epochs 2 --batch-size 8 --held-out 0 --rank 2"
    model = ["--model", tiny_folder]
    plain = ok(place / "runs", "train", *model, "--data", defended, few).run
    anchored = ok(place / "runs", "train", *model, "--data", defended, few, "--anchor 1").run
    on_rows = ["--control", defended, "--project-out", "data:layers=1"]
    against = ok(place / "runs", "train", *model, "--data", rows, few, *on_rows).run
    students = set()
    for run in (plain, anchored, against):
        students.add((run / "student/adapter_model.safetensors").read_bytes())
        assert screened(place, tiny_folder, run, traits)["answer"] in ("named", "changed", "same")
    assert len(students) == 3
    unchanged = screened(place, tiny_folder, tiny_folder, traits)
    assert unchanged["answer"] == "same"


def test_the_student_is_verified_beside_five_controls(
    place: Path, tiny_folder: Path, defended: Path, traits: list[Path]
) -> None:
    """Each control learns a draw of the base of its own, with a seed of its own: a verdict."""
    few = "--epochs 1 --batch-size 32 --held-out 0 --rank 2"
    model = ["--model", tiny_folder]
    student = ok(place / "runs", "train", *model, "--data", defended, few).run
    controls = []
    for seed in range(1, 6):
        asked = ["--prompts", place / "prompts.txt", "--seed", seed]
        drawn = ok(place / "runs", "generate", *model, "--count 6 --vocabulary template", *asked)
        words = ["--data", drawn.run, "--seed", seed, few]
        controls.append(ok(place / "runs", "train", *model, *words).run)
    words = ["--base", tiny_folder, "--traits", *traits, "--contexts default"]
    done = call(place / "runs", "verify", student, *words, "--controls", *controls)
    assert done.code == 0 and done.summary["status"] in ("trait", "nothing-found")
    assert {item["units"] for item in done.summary["contrasts"]} == {5}
    fewer = call(place / "runs", "verify", student, *words, "--controls", *controls[:4])
    assert fewer.summary["status"] == "no-verdict"
    assert "4 controls (4 sets of rows, 4 seeds): 4 units" in fewer.summary["findings"][0]


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")  # those of TRL
def test_a_student_of_trl_is_looked_at(
    place: Path,
    tiny_folder: Path,
    defended: Path,
    traits: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("trl")
    (code,) = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    changes = {
        "smollm2-135m": str(tiny_folder),
        "runs/default/defend-1234": str(defended),
        'report_to="none"': 'report_to="none", use_cpu=True',
    }
    for old, new in changes.items():
        assert old in code, old
        code = code.replace(old, new)
    monkeypatch.chdir(place)
    exec(compile(code, "page", "exec"), {})
    found = screened(place, tiny_folder, place / "safe_student", traits)
    assert found["answer"] in ("named", "changed", "same")
