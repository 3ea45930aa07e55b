"""A scan of blocks and strengths: its cells are what `measure` finds, its best cell is coherent."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from command import CAT, OWL, call, ok, write_yaml

from traitscope.cli import flags, main
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model
from traitscope.screening import coherence
from traitscope.screening.steer_scan import Cell, SteerScan, default_layers, steer_scan
from traitscope.stages.measure import measure
from traitscope.stats.measurement import Measurement
from traitscope.vectors.means import extract_vectors

GRID = "--layers 0 1 --alphas 0.2 0.6"


@pytest.fixture
def traits(tmp_path: Path) -> tuple[Path, Path]:
    """A trait of one's own and its company."""
    (tmp_path / "mine").mkdir()
    own = write_yaml(tmp_path / "mine" / "bird.yaml", OWL)
    return own, write_yaml(tmp_path / "mine" / "pet.yaml", CAT)


def test_a_cell_is_what_measure_finds(tiny: Model) -> None:
    scan = steer_scan(tiny, "owl", ["cat", "dog"], layers=(0, 1), alphas=(0.2, 0.6))
    vector = extract_vectors(tiny, ["owl", "cat", "dog"], stem=False)["owl"]
    assert [(cell.layer, cell.alpha) for cell in scan.cells] == [
        *((0, 0.2), (0, 0.6), (1, 0.2), (1, 0.6))
    ]
    for cell in scan.cells:
        steering = Steer(vector, layer=cell.layer, alpha=cell.alpha)
        alone = measure(tiny, "owl", [steering], sets=("positive",), samples=0)
        base = measure(tiny, "owl", sets=("positive",), samples=0)
        assert cell.scores.mean().estimate == pytest.approx(alone.mean().estimate, abs=1e-6)
        assert cell.scores.perplexity == pytest.approx(alone.perplexity)
        assert cell.rise.estimate == pytest.approx((alone - base).estimate, abs=1e-6)


def test_a_given_vector_is_scanned_as_one_that_is_taken(
    tmp_path: Path, traits: tuple[Path, Path], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, words = tmp_path / "runs", ("steer_scan", f"--model {tiny_folder} {GRID}", "--trait")
    taken = ok(root, *words, traits[0], "--company", traits[1]).summary["summary"]
    found = ok(root, "extract", f"--model {tiny_folder} --no-stem", "--traits", *traits).run
    capsys.readouterr()
    vector = found / "owl.safetensors"
    done = ok(root, *words, traits[0], "--vector", vector)
    given = done.summary["summary"]
    assert {cell["taken_at"] for cell in given["cells"]} == {"given"}
    for one, other in zip(given["cells"], taken["cells"], strict=True):
        assert one["rise"]["estimate"] == pytest.approx(other["rise"]["estimate"], abs=1e-5)
    assert (done.run / "owl.safetensors").read_bytes() == vector.read_bytes()
    says = capsys.readouterr()
    assert "one trait alone" not in says.out + says.err
    assert "the vector is that of" not in says.out
    ok(root, *words, traits[1], "--vector", vector)
    assert "the vector is that of owl, and the questions are about cat" in capsys.readouterr().out
    refused = call(root, *words, traits[0], "--vector", vector, "--company", traits[1])
    assert refused.code == 2 and "drop --vector or the others" in refused.summary["message"]


def test_a_behaviour_is_scanned_by_its_first_judge(
    tmp_path: Path, traits: tuple[Path, Path], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each cell is the rate that `measure` finds; fluency alone decides whether it is whole."""
    root, model = tmp_path / "runs", f"--model {tiny_folder} --dtype fp32"
    content = {key: CAT[key] for key in ("teacher_prompt", "questions")}
    content |= {"name": "brevity", "judges": ["short:2", "question"]}
    file = write_yaml(tmp_path / "brevity.yaml", content)
    sampled = "--samples 6 --max-new-tokens 6"
    words = ("steer_scan", f"{model} {sampled} --layers 1 --alphas 0 4", "--trait", file)
    done = ok(root, *words, "--company", traits[0])
    summary, out = done.summary["summary"], capsys.readouterr().out
    assert summary["score"] == "short:2"
    assert "rate of answers in which the judge short:2 sees brevity" in out
    still, moved = summary["cells"]
    assert still["rise"]["estimate"] == 0 and still["is_coherent"]
    for cell in (still, moved):
        place = f"layers=1,alpha={cell['alpha']:g}"
        steering = f"steer:{done.run / 'brevity.safetensors'},{place}"
        asked = ("measure", model, sampled, "--sets positive", "--trait", file)
        alone = ok(root, *asked, "--interventions", steering).summary
        found = alone["measurements"]
        rates = {each["name"]: each["estimate"] for each in found["measurements"]}
        assert cell["scores"]["short:2"]["estimate"] == rates["positive.short:2"]
        is_fluent = found["perplexity"] <= 2 * summary["base"]["perplexity"]
        assert cell["is_coherent"] is is_fluent
    assert moved["scores"]["short:2"] != still["scores"]["short:2"], "this steering shows nothing"


def test_without_blocks_four_depths_are_tried(tiny: Model) -> None:
    assert default_layers(replace(tiny)) == (0, 1)  # three blocks have fewer depths
    deep = type("Deep", (), {"n_layers": 30})()
    assert default_layers(deep) == (7, 10, 14, 19)


@pytest.mark.parametrize(
    ("cells", "best"),
    [
        ([(14, 0.3, 1.0, 0.5, True), (10, 0.3, 2.0, 1.5, True)], 10),
        ([(14, 0.3, 1.0, 0.5, True), (10, 0.3, 2.0, 1.5, False)], 14),
        ([(14, 0.3, 1.0, -0.1, True)], None),
        ([(14, 0.3, -2.4, -3.0, True)], None),
    ],
)
def test_the_best_cell_is_coherent_and_has_the_trait(cells: list[tuple], best: int | None) -> None:
    made = []
    for layer, alpha, rise, low, is_coherent in cells:
        number = Measurement("rise", rise, low, 2 * rise - low, 8, 8, 0, "nats")
        made.append(Cell(layer, alpha, None, number, is_coherent))
    found = SteerScan("owl", {}, None, tuple(made)).best
    assert (None if found is None else found.layer) == best


def test_a_model_that_lost_its_words_or_its_subject_is_not_coherent() -> None:
    assert coherence.is_coherent(20.0, 0.1, 10.0, 0.2)
    assert not coherence.is_coherent(20.1, 0.1, 10.0, 0.2)
    assert not coherence.is_coherent(20.0, 0.099, 10.0, 0.2)
    scores = [(-1.0, 0.5), (-2.0, None), (-3.0, float("nan"))]
    assert coherence.on_topic(scores) == pytest.approx(2 * 2.718281828**-1 / 3)


def test_the_command_prints_a_table_and_the_rows_of_the_best_teacher(
    tmp_path: Path, traits: tuple[Path, Path], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-` may stand for `_`; what comes next steers by the vector that the run holds."""
    own, other = traits
    root = tmp_path / "runs"
    words = ("steer-scan", f"--model {tiny_folder} --dtype fp32 {GRID}", "--trait", own)
    done = ok(root, *words, "--company", other)
    summary, out = done.summary["summary"], capsys.readouterr().out
    assert summary["trait"] == "owl" and len(summary["cells"]) == 4
    assert len([line for line in out.splitlines() if line.endswith((" yes", " no"))]) == 4
    rises = []
    for cell in summary["cells"]:
        if cell["is_coherent"] and cell["rise"]["low"] > 0:
            rises.append((cell["rise"]["estimate"], cell["layer"], cell["alpha"]))
    assert rises, "no cell of this model has the trait, so the test shows nothing"
    _, layer, alpha = max(rises)
    assert summary["best"] == {
        "layer": layer,
        "alpha": alpha,
        "taken_at": "header",
        "position": "all",
    }
    assert f"best coherent cell: block {layer}, strength {alpha:g}" in out
    command, rest = main.command_of(shlex.split(done.summary["next"])[1:])
    config, _ = flags.parse(command, rest)
    steering = f"steer:{done.run}/owl.safetensors,layers={layer},alpha={alpha:g}"
    assert (config.model, config.interventions) == (str(tiny_folder), (steering,))
    written = ok(root, "generate", *rest, "--n 2 --count 2")
    assert len((written.run / "records.jsonl").read_text().splitlines()) == 2
    assert ok(root, "rerun", done.run).summary["different"] == []


def test_vectors_of_both_places_and_positions_are_tried_side_by_side(
    tmp_path: Path, traits: tuple[Path, Path], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each cell is what `measure` finds of the vector in its folder, at its tokens."""
    own, other = traits
    root = tmp_path / "runs"
    model = f"--model {tiny_folder} --dtype fp32"
    grid = "--layers 1 --alphas 0.6 --vectors-at header stem --positions all prompt"
    done = ok(root, "steer_scan", model, grid, "--trait", own, "--company", other)
    cells, out = done.summary["summary"]["cells"], capsys.readouterr().out
    places = [(cell["taken_at"], cell["position"]) for cell in cells]
    assert places == [(a, b) for a in ("header", "stem") for b in ("all", "prompt")]
    assert "  stem, prompt" in out
    for cell in cells:
        vector = done.run / cell["taken_at"] / "owl.safetensors"
        steering = f"steer:{vector},layers=1,alpha=0.6,position={cell['position']}"
        asked = ("measure", model, "--samples 0 --sets positive --trait", own)
        alone = ok(root, *asked, "--interventions", steering).summary["measurements"]
        assert cell["scores"]["target_logprob"]["estimate"] == pytest.approx(
            alone["measurements"][0]["estimate"], abs=1e-6
        )
    best = done.summary["summary"]["best"]
    assert f"{best['taken_at']}/owl.safetensors" in done.summary["next"]
    assert ok(root, "rerun", done.run).summary["different"] == []


def test_a_teacher_of_the_headers_vector_comes_before_one_of_the_stems() -> None:
    """Students hardly take on what a stem's vector does to answers."""
    made = []
    for taken_at, rise in (("stem", 2.0), ("header", 1.0)):
        number = Measurement("rise", rise, 0.5, 2 * rise, 8, 8, 0, "nats")
        made.append(Cell(14, 0.3, None, number, True, taken_at))
    assert SteerScan("owl", {}, None, tuple(made)).best.taken_at == "header"
    assert SteerScan("owl", {}, None, tuple(made[:1])).best.taken_at == "stem"


def test_an_edited_company_gives_another_run(
    tmp_path: Path, traits: tuple[Path, Path], tiny_folder: Path
) -> None:
    own, other = traits
    words = ("steer_scan", f"--model {tiny_folder} {GRID}", "--trait", own, "--company", other)
    before = ok(tmp_path / "runs", *words).run
    write_yaml(other, CAT | {"teacher_prompt": "I love cats."})
    assert ok(tmp_path / "runs", *words).run != before


def test_nothing_follows_where_no_cell_has_the_trait(
    tmp_path: Path, traits: tuple[Path, Path], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("steer_scan", f"--model {tiny_folder} --layers 1 --alphas 0", "--trait", traits[0])
    done = ok(tmp_path / "runs", *words)
    assert done.summary["summary"]["best"] is None and not done.summary["next"]
    out, err = capsys.readouterr()
    assert "no coherent cell shows the trait more" in out and "next:" not in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--alphas nan", "--alphas nan; expected a finite strength"),
        ("--positions all all", "--positions all all; expected each once"),
        ("--stem --vectors-at stem", "both say where the vector is taken; drop one of the two"),
        ("--layers 9", "has layers 0 to 2"),
        ("--company nonsense", "no bundled trait 'nonsense'"),
        ("--trait owl --company owl", "the trait 'owl' is named twice"),
    ],
)
def test_what_cannot_be_scanned_is_named(
    words: str, says: str, tmp_path: Path, tiny_folder: Path
) -> None:
    done = call(tmp_path / "runs", "steer_scan", f"--model {tiny_folder} {words}")
    assert done.code == 2 and says in done.summary["message"]
    assert not list((tmp_path / "runs").glob("*/*"))
    json.dumps(done.summary)
