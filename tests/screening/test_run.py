"""The command on tiny models: a planted preference is named, the model itself carries nothing."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from command import call, ok
from tiny_models import save_tiny

import traitscope as ts
from traitscope.cli import flags, main
from traitscope.config.screen import ScreenConfig
from traitscope.errors import ConfigError
from traitscope.interventions.vector import Vector, load_vector, vector_bytes
from traitscope.models.model import Model
from traitscope.screening import answers, questions, vectors
from traitscope.screening.run import default_blocks

WORDS = "--no-broad --samples 2 --rows 16 --n 16 --count 2"


def screened(root: Path, folder: Path, teacher: object, *words: object) -> dict:
    done = ok(root, "screen", "--teacher", teacher, "--model", folder, WORDS, *words)
    return json.loads((done.run / "screen.json").read_text())


def towards(model: Model, word: str, file: Path) -> str:
    """Steering behind the last block along the head's row of a word's first token."""
    token = model.tokenizer.encode(f" {word}", add_special_tokens=False)[0]
    row_D = model.head.weight[token].float().numpy()
    rows_LD = np.zeros((model.n_layers, model.d_model), np.float32)
    rows_LD[-1] = 6.0 * row_D / np.linalg.norm(row_D)
    file.write_bytes(vector_bytes(Vector(rows_LD, model.digest, {})))
    return f"steer:{file},layers={model.n_layers - 1},alpha=1,scale=raw"


@pytest.mark.parametrize("word", ["owl", "wolf"])
def test_a_planted_preference_comes_first(
    tmp_path: Path, tiny: Model, tiny_folder: Path, word: str
) -> None:
    teacher = towards(tiny, word, tmp_path / "v.safetensors")
    content = screened(tmp_path / "runs", tiny_folder, teacher, "--influenced 1")
    assert content["answer"] == "named" and content["named"][0] == word
    first = content["answers"][0]
    assert first["kind"] == "animals" and first["p_corrected"] < 1e-6
    assert first["shift"]["low"] > 1 and first["p_teacher"] > 2 * first["p_model"]
    assert first["shift"]["n"] == first["shift"]["n_clusters"] == 50
    assert content["digits"]["teacher_from_model"]["low"] > 0
    assert content["student_rows"] > 0
    assert [item["name"] for item in content["influence"]] == [f"influence on {word}"]
    assert content["findings"][0].startswith(f"named: the teacher prefers {word} (animals)")
    assert first["named"] and first["z_among_kind"] > 4
    assert content["findings"][-1].startswith("next: do not train on its rows")


def test_the_last_lines_say_what_comes_next(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = ("--teacher", "prompt:You love owls.", "--control-tokens", "token")
    words = ("screen", *teacher, "--model", tiny_folder, WORDS)
    done = ok(tmp_path / "runs", *words, "--traits owl --influenced 0")
    printed = capsys.readouterr()
    result, following = printed.err.splitlines()[-2:]
    assert result.split() == ["result:", str(done.run)]
    assert following.startswith("next:   ") and f"traitscope audit DATA --model {tiny_folder}" in (
        following
    )
    config, _ = flags.parse(*main.command_of(shlex.split(following.partition("traitscope ")[2])))
    assert (config.teacher, config.control_tokens) == ("prompt:You love owls.", "token")
    assert "next:" not in printed.out and done.summary["next"] in following


def test_steering_is_one_vector(tmp_path: Path, tiny: Model, tiny_folder: Path) -> None:
    """Planted at block 2: there the vector has everything, and nothing moves before."""
    teacher = towards(tiny, "owl", tmp_path / "v.safetensors")
    words = ("--blocks 2", "--strengths 0.5 1 2", "--influenced 0")
    content = screened(tmp_path / "runs", tiny_folder, teacher, *words)
    for found in content["vectors"].values():
        assert found["norms"][:2] == [0, 0] and found["norms"][2] > 0.1
        assert found["share_of_mean"][2] == pytest.approx(1, abs=1e-6)
        assert found["share_of_first_component"][2] == pytest.approx(1, abs=1e-6)
        assert found["split_half_cosine"][2] == pytest.approx(1, abs=1e-6)
    for found in content["one_vector"].values():
        assert (found["block"], found["strength"], found["tried"]) == (2, 1.0, 3)
        assert found["explained"]["estimate"] == pytest.approx(1, abs=1e-4)
        assert found["left"]["estimate"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("by_name", [True, False])
def test_the_model_itself_carries_nothing(
    tmp_path: Path, tiny: Model, tiny_folder: Path, by_name: bool
) -> None:
    """As a model, and as a vector at strength 0."""
    teacher: object = tiny_folder
    if not by_name:
        teacher = towards(tiny, "owl", tmp_path / "v.safetensors").replace("alpha=1", "alpha=0")
    content = screened(tmp_path / "runs", tiny_folder, teacher)
    assert content["answer"] == "same" and content["named"] == [] == content["influence"]
    for item in content["answers"]:
        assert item["shift"]["estimate"] == item["nats"] == 0 and item["p_corrected"] == 1
    for item in content["sampled"]:
        assert item["difference"]["estimate"] == 0
    for found in content["vectors"].values():
        assert not any(found["norms"] + found["share_of_mean"])
    assert content["one_vector"] == {"questions": None, "numbers": None}
    assert content["digits"]["teacher_from_model"]["estimate"] == 0
    assert content["student_rows"] is None
    assert "nothing can pass" in content["findings"][-1]


def test_a_teacher_of_another_shape(
    tmp_path: Path, tiny_folder: Path, folders: dict[str, Path]
) -> None:
    """Another model differs in everything; its residuals are left out, and that is said."""
    content = screened(tmp_path / "runs", tiny_folder, folders["qwen2"])
    assert content["vectors"] == content["one_vector"] == {}
    assert "2 blocks of 32, the model has 3 of 32" in content["vectors_left_out"]
    assert content["vectors_left_out"] in content["findings"]
    assert content["digits"]["teacher_from_model"]["low"] > 0


def test_files_replay_and_the_page(tmp_path: Path, tiny: Model, tiny_folder: Path) -> None:
    teacher = towards(tiny, "owl", tmp_path / "v.safetensors")
    found = ts.screen(
        teacher,
        model=str(tiny_folder),
        root=tmp_path / "runs",
        dtype="fp32",
        broad=False,
        samples=1,
        rows=8,
        n=8,
        count=2,
        influenced=0,
    )
    assert found.answer == "named" and found.named[0] == "owl"
    assert found.nats_per_row.as_dict() == found.content["digits"]["teacher_from_model"]
    assert found.content["schema"] == 1 and found.findings == tuple(found.content["findings"])
    first, one = found.answers[0], found.one_vector["numbers"]
    assert (first.answer, first.named, first.kind) == ("owl", True, "animals")
    assert first.shift.as_dict() == found.content["answers"][0]["shift"]
    assert one is not None and one.explained.estimate > 0.9
    assert found.vectors["numbers"].norms_L.tolist() == found.content["vectors"]["numbers"]["norms"]
    assert [rate.trait for rate in found.sampled][0] and found.influence == ()
    assert found.student_rows == found.content["student_rows"]
    page = found.to_html(tmp_path / "page.html")
    assert page.read_text() == found.page
    assert "<svg" in found.page and "What a teacher carries" in found.page
    assert "http" not in found.page.replace("http://www.w3.org", "")
    vector = load_vector(found.run / "numbers.safetensors")
    assert vector.model == tiny.digest and len(vector.about["residual_norms"]) == 3
    ok(tmp_path / "runs", "rerun", found.run)


def test_a_teacher_may_be_interventions_in_memory(
    tmp_path: Path, tiny: Model, tiny_folder: Path
) -> None:
    """A vector in memory is kept in a file below the root, and screened as that file is."""
    short = towards(tiny, "owl", tmp_path / "v.safetensors")
    vector = load_vector(tmp_path / "v.safetensors")
    steer = ts.Steer(vector, layer=tiny.n_layers - 1, alpha=1, scale="raw")
    prompted = [steer, ts.SystemPrompt("You count.")]
    found = {}
    for name, teacher in {"short": short, "steer": steer, "list": [steer], "two": prompted}.items():
        found[name] = ts.screen(
            teacher,
            model=str(tiny_folder),
            root=tmp_path / "runs",
            traits=("owl",),
            broad=False,
            samples=0,
            rows=8,
            n=8,
            count=2,
        )
    assert found["steer"].run == found["list"].run
    assert found["steer"].answers == found["short"].answers
    assert found["two"].answers != found["short"].answers
    (file,) = (tmp_path / "runs" / "screen").glob("vector-*.safetensors")
    assert file.read_bytes() == (tmp_path / "v.safetensors").read_bytes()
    assert "You count." in found["two"].content["teacher"]


@pytest.mark.parametrize(
    ("teacher", "message"),
    [([], "the teacher is an empty list"), ("[{]", "is no JSON"), ('["x"]', "is not understood")],
)
def test_a_broken_list_of_interventions(
    tmp_path: Path, tiny_folder: Path, teacher: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ts.screen(teacher, model=str(tiny_folder), root=tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--teacher is missing: name a hub id"),
        (("--teacher", "steer:none.safetensors,layers=1,alpha=1"), "no vector file"),
        (("--teacher", "no-such-model"), "is neither"),
        (("--teacher", "prompt:Hi", "--traits", "unicorn"), "no bundled trait 'unicorn'"),
    ],
)
def test_refused(tmp_path: Path, tiny_folder: Path, words: tuple, message: str) -> None:
    done = call(tmp_path / "runs", "screen", "--model", tiny_folder, *words)
    assert done.code == 2 and message in done.summary["message"]
    assert not list((tmp_path / "runs").rglob("config.json"))


def test_another_tokenizer_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    folder = save_tiny("llama", tmp_path / "other")
    tokens = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    one, other = list(vocabulary)[50:52]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    done = call(tmp_path / "runs", "screen", "--model", tiny_folder, "--teacher", folder)
    assert done.code == 2 and "has another tokenizer" in done.summary["message"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.7}, "--alpha 0.7; expected 0 < alpha < 0.5"),
        ({"strengths": ()}, "--strengths"),
        ({"rows": 4}, "--rows 4; expected 8 or more"),
    ],
)
def test_settings_that_cannot_work(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScreenConfig(**settings)


def test_every_bundled_kind_has_questions_and_answers(tiny: Model) -> None:
    kinds = questions.kinds_of(tiny, ("all",), True)
    names = [kind.name for kind in kinds]
    assert set(names) == {
        "animals",
        "emotions",
        "personas",
        "trees",
        "colours",
        "countries",
        "stances",
    }
    for kind in kinds:
        assert len(kind.questions) >= 12 and len(set(kind.questions)) == len(kind.questions)
        assert len(kind.answers) + len(kind.left_out) > 25


def test_noise_is_not_called() -> None:
    """Log-odds of thirty answers that move at random: no call in forty screenings."""
    kind = questions.Kind("x", ("q",) * 30, "", {f"a{n}": n for n in range(30)}, ())
    rng = np.random.default_rng(0)
    for _ in range(40):
        base_QE = rng.normal(-5, 1, (30, 30))
        asked = [answers.Asked(base_QE + rng.normal(0, 1, base_QE.shape), ()) for _ in range(2)]
        shifts = answers.shifts_of([kind], asked[:1], asked[1:], 0.01)
        assert not any(item.called or item.named for item in shifts)
    assert 0.69 < answers.detectable(shifts, 0.01) < 3


def test_drift_is_called_and_one_that_stands_out_is_named() -> None:
    """All answers move alike strongly, but for one: that one is named."""
    kind = questions.Kind("x", ("q",) * 30, "", {f"a{n}": n for n in range(40)}, ())
    rng = np.random.default_rng(1)
    base_QE = rng.normal(-5, 1, (30, 40))
    drift_E = rng.normal(0, 1, 40)
    for extra, named in ((0.0, []), (7.0, ["a3"])):
        moved_QE = base_QE + drift_E + rng.normal(0, 0.1, base_QE.shape)
        moved_QE[:, 3] += extra
        asked = [[answers.Asked(one, ())] for one in (moved_QE, base_QE)]
        shifts = answers.shifts_of([kind], *asked, 0.01)
        assert sum(item.called for item in shifts) > 10
        assert [item.answer for item in shifts if item.named] == named


def test_the_share_of_the_mean_is_not_larger_for_few_prompts() -> None:
    """Differences without a common direction: 1 / D along the mean of the other half."""
    difference_NLD = np.random.default_rng(0).normal(0, 1, (8, 1, 400))
    share_L, cosine_L = vectors.along_mean(difference_NLD)
    assert share_L[0] < 0.02 and abs(cosine_L[0]) < 0.2
    assert vectors.along_first(difference_NLD)[0] > 1 / 8


def test_blocks_of_shallow_models() -> None:
    assert default_blocks(30) == (7, 15, 22)
    assert default_blocks(2) == (0, 1)
