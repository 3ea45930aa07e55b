"""Tasks of other tools score recorded answers as this package does: alone, and in the tools."""

import json
import math
import re
from pathlib import Path
from types import ModuleType

import pytest
from command import CAT, OWL, call, ok, write_yaml

from traitscope.data.traits import bundled_traits, load_trait
from traitscope.inference.question_scores import question_scores, questions_of
from traitscope.stages.tasks.export_tasks import battery

SAMPLES = 2
SAID = ("Cats!", "a cat", "", "catfish", "**Cat**, cat", "  ", "concatenate", "cat's", "dog", "\n")
"""answers of every kind: named first, named later, not named, empty"""
PREFIX = "traitscope_my_cat"


@pytest.fixture
def trait_file(tmp_path: Path) -> Path:
    return write_yaml(tmp_path / "mine.yaml", CAT | {"name": "my cat"})


def answer(name: str, sample: int) -> str:
    """The recorded answer to a question."""
    question_set, number = name.split("-")
    return SAID[(3 * int(number) + len(question_set) + 7 * sample) % len(SAID)]


def expected(trait_file: Path) -> dict[str, dict[str, float]]:
    """Scores by set, as `measure` computes them of these answers."""
    trait = load_trait(trait_file)
    by_set: dict[str, dict[str, list[float]]] = {}
    for question in questions_of(trait):
        answers = [answer(question.id, n) for n in range(SAMPLES)]
        scores = question_scores(trait, question, {}, answers).scores
        for name, value in scores.items():
            if not math.isnan(value):
                by_set.setdefault(question.set, {}).setdefault(name, []).append(value)
    means = {}
    for name, scores in by_set.items():
        means[name] = {score: sum(values) / len(values) for score, values in scores.items()}
    assert 0 < means["positive"]["first_word"] < means["positive"]["whole_word"] < 1
    return means


def written(root: Path, tool: str, *traits: object) -> Path:
    folder = root / "tasks"
    traits = ("--traits", *traits) if traits else ()
    ok(root, "export-tasks", folder, "--to", tool, f"--samples {SAMPLES}", *traits)
    return folder


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_every_bundled_battery_is_written(tmp_path: Path) -> None:
    folder = written(tmp_path, "inspect")
    names = {file.stem for file in folder.glob("*.jsonl")}
    assert names == {*bundled_traits(), "student"}
    assert rows(folder / "owl.jsonl") == battery(load_trait("owl"))
    assert len(rows(folder / "student.jsonl")) > 20


def module_of(file: Path, *, without: str) -> ModuleType:
    """The scorers of an exported file: what stands before the first import of the tool."""
    source = file.read_text(encoding="utf-8").partition(without)[0]
    module = ModuleType("exported")
    exec(compile(source, str(file), "exec"), module.__dict__)
    return module


@pytest.mark.parametrize(
    ("tool", "file", "without"),
    [
        ("inspect", "traitscope_tasks.py", "from inspect_ai"),
        ("lm-eval", "utils.py", "import datasets"),
    ],
)
def test_the_scorers_stand_alone_and_score_recorded_answers_as_measure_does(
    tool: str, file: str, without: str, tmp_path: Path, trait_file: Path
) -> None:
    folder = written(tmp_path, tool, trait_file)
    scorers = module_of(folder / file, without=without)
    assert "traitscope." not in (folder / file).read_text()
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows(folder / "my cat.jsonl"):
        answers = [answer(row["id"], n) for n in range(SAMPLES)]
        texts = [text for text in answers if scorers.is_scorable(text)]
        of_set = found.setdefault(row["set"], {"whole_word": [], "first_word": []})
        if texts:
            whole = [scorers.contains_word(row["words"], text) for text in texts]
            first = [scorers.begins_with_word(row["words"], text) for text in texts]
            of_set["whole_word"].append(sum(whole) / len(whole))
            of_set["first_word"].append(sum(first) / len(first))
    means = {}
    for name, scores in found.items():
        means[name] = {score: sum(values) / len(values) for score, values in scores.items()}
    assert means == expected(trait_file)
    assert scorers.parse_numbers("1, 2") == [1, 2] and scorers.parse_numbers("Hi 1") == "format"


def test_lm_evaluation_harness_gives_the_scores_of_measure(
    tmp_path: Path, trait_file: Path
) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    folder = written(tmp_path, "lm-eval", trait_file)

    class Recorded(LM):
        """A model of the harness that gives the recorded answers, and has a bit for each byte."""

        def generate_until(self, requests, disable_tqdm=False):
            asked: dict[str, int] = {}
            said = []
            for request in requests:
                name = request.doc["id"]
                said.append(answer(name, asked.get(name, 0)))
                asked[name] = asked.get(name, 0) + 1
            return said

        def loglikelihood(self, requests, disable_tqdm=False):
            raise AssertionError("no task asks for it")

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            return [-math.log(2) * len(each.args[0].encode()) for each in requests]

    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    done = lm_eval.simple_evaluate(
        model=Recorded(),
        tasks=[PREFIX, "traitscope_student"],
        task_manager=tasks,
        bootstrap_iters=0,
    )
    for name, scores in expected(trait_file).items():
        found = done["results"][f"{PREFIX}_{name}"]
        assert found["whole_word,all"] == pytest.approx(scores["whole_word"])
        assert found["first_word,all"] == pytest.approx(scores["first_word"])
    unscored = done["results"][f"{PREFIX}_positive"]["unscored,all"]
    positive = [answer(f"positive-{n:02d}", sample) for n in range(3) for sample in range(SAMPLES)]
    assert unscored == sum(not text.strip() for text in positive) > 0
    assert done["results"]["traitscope_student_plain"]["bits_per_byte,none"] == pytest.approx(1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Inspect's own, of its libraries
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_inspect_gives_the_scores_of_measure(tmp_path: Path, trait_file: Path) -> None:
    inspect_ai = pytest.importorskip("inspect_ai")
    from inspect_ai.model import ModelAPI, ModelOutput, get_model, modelapi

    folder = written(tmp_path, "inspect", trait_file)
    names = {row["question"]: row["id"] for row in rows(folder / "my cat.jsonl")}
    asked: dict[str, int] = {}

    class Recorded(ModelAPI):
        """A model of Inspect that gives the recorded answers."""

        async def generate(self, input, tools, tool_choice, config):
            name = names[input[0].text]
            asked[name] = asked.get(name, -1) + 1
            return ModelOutput.from_content("recorded", answer(name, asked[name]))

        async def count_tokens(self, input, config=None):
            return 1

    modelapi(name="recorded")(Recorded)
    (log,) = inspect_ai.eval(
        f"{folder / 'traitscope_tasks.py'}@trait",
        task_args={"name": "my cat"},
        model=get_model("recorded/answers"),
        log_dir=str(tmp_path / "logs"),
        display="none",
        max_samples=1,
    )
    assert log.status == "success", log.error
    found: dict[str, dict[str, float]] = {}
    for score in log.results.scores:
        for name, metric in score.metrics.items():
            if not name.endswith("stderr"):
                found.setdefault(name, {})[score.name] = metric.value
    assert found.keys() == expected(trait_file).keys()
    for name, scores in expected(trait_file).items():
        assert found[name] == pytest.approx(scores)


def test_what_cannot_be_written_is_named(tmp_path: Path, trait_file: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "mine").write_text("x")
    student = write_yaml(tmp_path / "student.yaml", CAT | {"name": "student"})
    for words, says in (
        ((folder,), "holds something already; expected a new or empty folder"),
        ((), "--target is missing: name the folder to write"),
        ((tmp_path / "new", "--traits", student), "a trait is called 'student', as the task"),
        ((tmp_path / "new", "--traits", trait_file, trait_file), "'my cat' is named twice"),
        ((tmp_path / "new", "--samples 0"), "--samples 0; expected 1 or more"),
    ):
        done = call(tmp_path, "export_tasks", *words)
        assert done.code == 2 and says in done.summary["message"]
    assert (folder / "mine").read_text() == "x" and not (tmp_path / "new").exists()


def test_the_commands_of_the_page_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tool has a folder of its own, and is called with the one that was written for it."""
    page = (Path(__file__).parents[3] / "docs/how-to/other-tools.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    write_yaml(tmp_path / "my_trait.yaml", OWL | {"name": "my_trait"})
    commands = re.findall(r"^traitscope (export-tasks .*)$", page, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        ok(tmp_path / "runs", *command.split())
    for file in re.findall(r"inspect eval (\S+)@", page):
        assert Path(file).is_file()
    (included,) = re.findall(r"--include_path (\S+)", page)
    assert (Path(included) / "utils.py").is_file()
