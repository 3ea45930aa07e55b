"""Another vector at a teacher's KL: planted strengths are found; the KL is that of whole rows."""

import json
import math
from pathlib import Path

import pytest
import torch
from command import OWL, call, ok, write_yaml
from tiny_models import random_vector
from train_runs import self_distilled

from traitscope.data.prompts import number_prompts
from traitscope.errors import ConfigError
from traitscope.inference.token_rows import Row
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model
from traitscope.stages import match_kl
from traitscope.stages.match_kl import KLMeter
from traitscope.training.soft_targets import allowed_targets

ALLOWED = [list(range(40, 47)), [60], list(range(40, 47))]
PROMPT = (21, 22, 23)


def meter_of(model: Model, n: int = 8) -> KLMeter:
    return KLMeter(model, number_prompts(n, 3, 2), 2, " ")


def test_the_mean_over_rows_is_the_divergence_of_whole_rows(tiny: Model) -> None:
    """Over all 49 rows that the teacher can write: sum of p log(p / q)."""
    rows = []
    for first in ALLOWED[0]:
        for last in ALLOWED[2]:
            rows.append(Row(PROMPT, (first, 60, last)))
    sides = []
    for interventions in ([Steer(random_vector(tiny), (1,), 0.5)], []):
        states = self_distilled(tiny, rows, interventions)
        sides.append([allowed_targets(tiny, states_ND, ALLOWED, 1.0) for states_ND in states])
    mean = divergence = 0.0
    for row, left, right in zip(rows, *sides, strict=True):
        places = [ALLOWED[step].index(token) for step, token in enumerate(row.completion_ids)]
        p = float(left.p_NK[torch.arange(3), places].double().prod())
        q = float(right.p_NK[torch.arange(3), places].double().prod())
        divergence += p * math.log(p / q)
        mean += p * match_kl._kl(left, right)
    assert mean == pytest.approx(divergence, rel=1e-4) and divergence > 0.001


def test_the_unmodified_model_is_at_no_distance(tiny: Model) -> None:
    kl_R = meter_of(tiny).kl([])
    assert kl_R.shape == (8,) and abs(kl_R).max() < 1e-6


def test_a_planted_strength_is_found(tiny: Model) -> None:
    """The teacher's own vector has the teacher's KL at the teacher's strength."""
    meter, vector = meter_of(tiny), random_vector(tiny)
    for alpha in (0.12, 0.9):
        matched = match_kl.match_kl(meter, [Steer(vector, (1,), alpha)], vector, 1, 0.01)
        assert matched.best.alpha == pytest.approx(alpha, rel=0.03)
        assert matched.best.kl == pytest.approx(matched.teacher_kl_R.mean(), rel=0.01)


def test_another_vector_gets_the_same_kl(tiny: Model) -> None:
    meter = meter_of(tiny)
    teacher = [Steer(random_vector(tiny, 1), (0,), 0.6)]
    done = []
    matched = match_kl.match_kl(meter, teacher, random_vector(tiny, 2), 1, 0.02, done.append)
    assert matched.best.kl == pytest.approx(matched.teacher_kl_R.mean(), rel=0.02)
    assert tuple(done) == matched.tries and matched.best in done
    again = match_kl.match_kl(meter, teacher, random_vector(tiny, 2), 1, 0.02)
    assert again.best.alpha == matched.best.alpha
    teacher_kl, own_kl = matched.measurements([p.id for p in meter.prompts])
    assert teacher_kl.n == 8 and own_kl.low < own_kl.estimate < own_kl.high


@pytest.mark.parametrize("zero", [0.02, 0.5, 0.63, 7.0])
@pytest.mark.parametrize("power", [0.5, 2.0, 4.0])
def test_the_search_ends_at_the_zero(zero: float, power: float) -> None:
    """Also where the logarithm of the KL is no line, as where it saturates."""
    for shape in (lambda x: x, lambda x: math.tanh(x) + 0.1 * x):
        tried = []

        def excess(alpha: float, tried: list = tried, shape=shape) -> float:
            tried.append(alpha)
            return shape(power * math.log(alpha / zero))

        match_kl.search(excess, 0.03)
        assert abs(shape(power * math.log(tried[-1] / zero))) <= 0.03
        assert len(tried) <= match_kl.MOST_TRIES


def test_what_cannot_be_matched_is_refused(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    meter, vector = meter_of(tiny), random_vector(tiny)
    with pytest.raises(ConfigError, match="expected more than 0"):
        match_kl.match_kl(meter, [], vector, 1)
    monkeypatch.setattr(match_kl, "LARGEST", 0.5)
    with pytest.raises(ConfigError, match="no strength of the vector has the teacher's KL"):
        match_kl.match_kl(meter, [Steer(vector, (1,), 6.0)], vector, 1)


def test_the_stage(tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture) -> None:
    root, model = tmp_path / "runs", ("--model", tiny_folder)
    owl = write_yaml(tmp_path / "owl.yaml", OWL)
    vectors = ok(root, "extract", *model, "--traits", owl).run
    teacher = f"steer:{vectors}/owl.safetensors,layers=1,alpha=0.6"
    random = ok(root, "extract", *model, "--like", vectors / "owl.safetensors").run
    command = ("match_kl", *model, "--n 4 --count 2 --layer 1 --teacher", teacher)
    run = ok(root, *command, "--vector", random / "random-0.safetensors").run
    found = json.loads((run / match_kl.STRENGTH).read_text())
    teacher_kl, vector_kl = (item["estimate"] for item in found["measurements"])
    assert vector_kl == pytest.approx(teacher_kl, rel=0.06) and found["alpha"] > 0
    tries = (run / "tries.jsonl").read_text().splitlines()
    assert len(tries) == found["tries"]
    assert found["alpha"] in [json.loads(line)["alpha"] for line in tries]
    call(root, *command)
    assert "--vector is missing" in capsys.readouterr().err
    call(root, "match_kl", *model, "--vector", vectors / "owl.safetensors")
    assert "--teacher is missing" in capsys.readouterr().err
