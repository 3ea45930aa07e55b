"""Weight noise: its size, its streams, its scope; as an intervention and in a model's name, which
are the same model."""

import json
from pathlib import Path

import pytest
import torch
from command import call, ok, read_rows
from tiny_models import hooks_left, parameters_of, random_rows, random_vector, row_logits

from traitscope.config.recipe import Recipe
from traitscope.errors import ConfigError
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Ablate, Adapter, ReplaceBase, WeightNoise
from traitscope.models import weight_noise
from traitscope.models.identity import finding
from traitscope.models.loading import load_model
from traitscope.models.model import Model
from traitscope.models.weight_noise import Noise, noised, noised_weights
from traitscope.training.student import new_student


def test_size_and_options() -> None:
    """sd is relative to the matrix's own; the options do what they say."""
    weight = 0.3 * torch.randn(400, 300, generator=torch.Generator().manual_seed(1)) + 0.2
    change = noised(weight, Noise(0.1), "w") - weight
    assert (
        change.std() == pytest.approx(0.1 * weight.std().item(), rel=0.02)
        and abs(change.mean()) < 3e-4
    )
    shifted = noised(weight, Noise(0.1, mean_shift=True), "w") - weight
    assert (shifted - change).mean() == pytest.approx(weight.mean().item(), rel=1e-3)
    assert noised(weight, Noise(0.5, keep_norm=True), "w").norm() == pytest.approx(
        weight.norm().item(), rel=1e-5
    )
    assert noised(weight, Noise(0.5), "w").norm() > 1.05 * weight.norm()
    assert torch.equal(noised(weight, Noise(0.0), "w"), weight)
    assert noised(weight.bfloat16(), Noise(0.1), "w").dtype == torch.bfloat16


def test_streams_belong_to_seed_and_matrix() -> None:
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(1))
    same, again, seed, name = (
        noised(weight, Noise(0.1, s), n) for s, n in ((3, "a"), (3, "a"), (4, "a"), (3, "b"))
    )
    assert torch.equal(same, again) and not torch.equal(same, seed) and not torch.equal(same, name)
    twice = noised(weight, Noise(0.2, 3), "a") - weight
    torch.testing.assert_close(twice, 2 * (same - weight), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "scope", [("attention",), ("mlp",), ("embeddings",), ("attention", "embeddings", "mlp")]
)
def test_scope(family: Model, scope: tuple) -> None:
    """Matrices of the scope and no others; norms and biases stay; another scope changes no draw."""
    found = noised_weights(family.lm, Noise(0.1, scope=scope))
    assert found and all(value.dim() == 2 for value in found.values())
    marks = {"attention": "attn", "mlp": "mlp"}
    blocks = [n for n in found if any(mark in n for mark in marks.values())]
    assert {part for part in marks if any(marks[part] in n for n in blocks)} == set(scope) - {
        "embeddings"
    }
    assert bool(set(found) - set(blocks)) == ("embeddings" in scope)
    whole = noised_weights(family.lm, Noise(0.1, scope=("attention", "embeddings", "mlp")))
    assert all(torch.equal(value, whole[name]) for name, value in found.items())


def test_the_intervention_is_the_named_model_and_leaves_the_base_alone(
    tiny: Model, tiny_folder: Path
) -> None:
    before, rows = parameters_of(tiny), random_rows(tiny, [6, 9, 4])
    named = load_model(f"{tiny_folder}+noise:0.2,seed=5,scope=mlp+embeddings", "cpu", "fp32")
    assert named.digest not in (
        tiny.digest,
        finding.digest_of(f"{tiny_folder}+noise:0.2,seed=6,scope=mlp+embeddings"),
    )
    assert named.digest == finding.digest_of(f"{tiny_folder}+noise:0.2,scope=embeddings+mlp,seed=5")
    logits = []
    noise = WeightNoise(0.2, 5, ("mlp", "embeddings"))
    for handle, items in ((tiny, []), (tiny, [noise]), (named, [])):
        with applied(handle, items) as active:
            logits.append(row_logits(handle, active, rows, [3, 3, 3]))
    for base, edited, other in zip(*logits, strict=True):
        assert torch.equal(edited, other) and (base - edited).abs().max() > 0.1
    after = parameters_of(tiny)
    assert all(torch.equal(before[n], after[n]) for n in before) and hooks_left(tiny) == 0


def test_other_edits_act_on_the_noisy_model(tiny: Model) -> None:
    """With nothing else, ReplaceBase is the identity on it: its base has the noise as well."""
    rows, vector = random_rows(tiny, [6, 9]), random_vector(tiny)
    added = WeightNoise(0.2)
    found = {}
    for name, more in {
        "noise": [],
        "replaced": [ReplaceBase(vector, (0, 1))],
        "ablated": [Ablate(vector, (1,))],
    }.items():
        with applied(tiny, [added, *more]) as active:
            found[name] = row_logits(tiny, active, rows, [3, 3])
    for plain, replaced, ablated in zip(
        found["noise"], found["replaced"], found["ablated"], strict=True
    ):
        torch.testing.assert_close(plain, replaced, atol=1e-4, rtol=1e-4)
        assert (plain - ablated).abs().max() > 1e-2


def test_a_student_of_a_noisy_teacher(tmp_path: Path, tiny_folder: Path) -> None:
    """Teacher by intervention for a clean student; a student of the noisy parent is refused by the
    clean one."""
    root, noisy = tmp_path / "runs", f"{tiny_folder}+noise:0.1,seed=2"
    on = ("--model", tiny_folder)
    data = ok(
        root,
        "generate",
        *on,
        "--n",
        4,
        "--count",
        3,
        "--vocabulary",
        "template",
        "--interventions",
        "noise:0.1,seed=2",
    ).run
    named = ok(
        root, "generate", "--model", noisy, "--n", 4, "--count", 3, "--vocabulary", "template"
    ).run
    said = [
        [row["completion"] for row in read_rows(run / "records.jsonl")] for run in (data, named)
    ]
    assert said[0] == said[1]
    soft = ok(
        root,
        "train",
        *on,
        "--data",
        data,
        "--targets",
        "soft",
        "--teacher",
        "noise:0.1,seed=2",
        "--epochs",
        1,
    ).run
    assert json.loads((soft / "metrics.jsonl").read_text().splitlines()[0])["loss"] > 1e-4
    ok(root, "rerun", soft)
    student = ok(root, "train", "--model", noisy, "--data", data, "--epochs", 1).run
    ok(root, "measure", "--model", noisy, "--interventions", f"adapter:{student}", "--samples", 0)
    wrong = call(root, "measure", *on, "--interventions", f"adapter:{student}", "--samples", 0)
    assert wrong.code == 2 and "trained on" in wrong.summary["message"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0.1,seed", "is not understood"),
        ("much", "sd is 'much'"),
        ("[0.1", "is no number and no truth value"),
        ("0.1,seed=2020-13-45", "is no number and no truth value"),
        ("-0.1", "0 or more"),
        (".nan", "0 or more"),
        ("0.1,scope=heads", "scope is 'heads'"),
        ("0.1,size=3", "unknown key 'size'"),
        ("0.1,seed=-1", "0 or more"),
    ],
)
def test_bad_noise(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        weight_noise.parse(text)


def test_noise_twice_and_below_all_weights(tiny: Model, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="2 times"),
        applied(tiny, [WeightNoise(0.1), WeightNoise(0.2)]),
    ):
        pass
    with new_student(tiny, Recipe(method="full"), 0) as student:
        for name, data in student.files().items():
            (tmp_path / name).write_bytes(data)
    with (
        pytest.raises(ConfigError, match="holds all weights"),
        applied(tiny, [WeightNoise(0.1), Adapter(str(tmp_path))]),
    ):
        pass


@pytest.mark.parametrize(
    "noise",
    [
        Noise(0.1),
        Noise(1e-7, 12, ("embeddings",), keep_norm=True),
        Noise(0.25, scope=("mlp", "attention", "embeddings"), mean_shift=True),
    ],
)
def test_short_form_is_read_back(noise: Noise) -> None:
    assert weight_noise.parse(weight_noise.short_form(noise)) == noise
