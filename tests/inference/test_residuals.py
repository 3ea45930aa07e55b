"""Mean residuals against a token-by-token reference."""

import numpy as np
import pytest
import torch
from tiny_models import load_tiny, random_rows, random_vector

from traitscope.errors import ConfigError
from traitscope.inference import forward
from traitscope.inference.residuals import components, difference, mean_residuals
from traitscope.interventions import hooks
from traitscope.interventions.applied import applied
from traitscope.interventions.checks.vectors import check_vector
from traitscope.interventions.intervention import Steer
from traitscope.models.model import Model

LENGTHS = [4, 7, 1, 5, 5, 2, 9]


def residuals_alone(model: Model, rows: list[list[int]], last: bool) -> np.ndarray:
    """Residuals [L, N, D], one row at a time, no padding."""
    found = []
    for row in rows:
        with torch.inference_mode(), hooks.captured(model.blocks) as store:
            model.lm(torch.tensor([row]))
        tokens = np.stack([store[n][0].double().numpy() for n in range(model.n_layers)])
        found.append(tokens[:, -1:] if last else tokens)
    return np.concatenate(found, 1)


def reference(model: Model, rows: list[list[int]], last: bool) -> tuple[np.ndarray, np.ndarray]:
    """Means over tokens; every token counts once."""
    whole = residuals_alone(model, rows, last)
    return whole.mean(1), np.linalg.norm(whole, axis=2).mean(1)


@pytest.mark.parametrize("tokens", [1, 12, 1024])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("position", ["last", "prompt", "all"])
def test_equals_the_reference_at_any_batch_and_pass(
    family: Model, monkeypatch: pytest.MonkeyPatch, position: str, shared: bool, tokens: int
) -> None:
    monkeypatch.setattr(forward, "PASS_TOKENS", {"cpu": tokens})
    rows = [([8, 9, 10] if shared else []) + row for row in random_rows(family, LENGTHS)]
    expected = reference(family, rows, position == "last")
    for batch_size in (1, 3, 32):
        seen: list[int] = []
        with applied(family, []) as active:
            found = mean_residuals(family, active, rows, position, batch_size, seen.append)
        np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
        assert sum(seen) == len(rows)


@pytest.mark.parametrize("shared", [False, True])
def test_completion_tokens_equal_the_reference_at_any_batch(family: Model, shared: bool) -> None:
    """Every token after the prompt counts once, seen in the context of its own row."""
    rows = [
        ([8, 9, 10] if shared else [7 + i]) + row
        for i, row in enumerate(random_rows(family, LENGTHS))
    ]
    prompts = [min(4, len(row) - 1) for row in rows]
    whole = [
        residuals_alone(family, [row], last=False)[:, n:]
        for row, n in zip(rows, prompts, strict=True)
    ]
    expected = np.concatenate(whole, 1)
    for batch_size in (1, 3, 32):
        with applied(family, []) as active:
            found = mean_residuals(
                family, active, rows, "completion", batch_size, prompt_lengths=prompts
            )
            last = mean_residuals(family, active, rows, "last", batch_size, prompt_lengths=prompts)
            cut = mean_residuals(
                family,
                active,
                [row[:n] for row, n in zip(rows, prompts, strict=True)],
                "last",
                batch_size,
            )
        np.testing.assert_allclose(found[0], expected.mean(1), atol=1e-5)
        np.testing.assert_allclose(found[1], np.linalg.norm(expected, axis=2).mean(1), rtol=1e-5)
        np.testing.assert_allclose(last[0], cut[0], atol=1e-5)


def test_edits_are_in_the_residuals(tiny: Model) -> None:
    rows, vector = random_rows(tiny, LENGTHS), random_vector(tiny)
    with applied(tiny, []) as active:
        clean, norms = mean_residuals(tiny, active, rows)
    with applied(tiny, [Steer(vector, (1,), 3.0, scale="unit")]) as active:
        steered, _ = mean_residuals(tiny, active, rows)
    found = difference(tiny, steered, clean, norms, {"position": "last"})
    np.testing.assert_allclose(found.rows_LD[0], 0, atol=1e-6)
    np.testing.assert_allclose(found.rows_LD[1], 3 * vector.rows_LD[1], atol=1e-5)
    check_vector(found, tiny)
    assert found.about["position"] == "last" and found.about["residual_norms"] == norms.tolist()


@pytest.mark.parametrize("batch_size", [2, 32])
@pytest.mark.parametrize("position", ["last", "all"])
def test_components_are_the_eigenvectors_of_the_covariance(
    family: Model, position: str, batch_size: int
) -> None:
    rows = random_rows(family, LENGTHS)
    with applied(family, []) as active:
        found_NLD, share_NL = components(family, active, rows, 3, position, batch_size)
    for layer, all_ND in enumerate(residuals_alone(family, rows, position == "last")):
        values, vectors = np.linalg.eigh(np.cov(all_ND.T))
        for i in range(3):
            own, theirs = found_NLD[i, layer], vectors[:, -1 - i]
            assert np.linalg.norm(own) == pytest.approx(values[-1 - i] ** 0.5, rel=1e-4)
            assert abs(own @ theirs) == pytest.approx(np.linalg.norm(own), rel=1e-3)
            assert own[np.abs(own).argmax()] > 0
            assert share_NL[i, layer] == pytest.approx(values[-1 - i] / values.sum(), rel=1e-4)


def test_more_components_than_tokens(tiny: Model) -> None:
    with (
        applied(tiny, []) as active,
        pytest.raises(ConfigError, match="7 components of 7 tokens; expected at least 8"),
    ):
        components(tiny, active, random_rows(tiny, LENGTHS), 7)


def test_unknown_position(tiny: Model) -> None:
    with applied(tiny, []) as active, pytest.raises(ConfigError, match="'middle' is unknown"):
        mean_residuals(tiny, active, [[5, 6]], "middle")


def test_what_a_layer_makes_once_and_keeps_serves_training_afterwards(tiny: Model) -> None:
    """Some layers convert a bias or stretch their angles in a first pass; a later backward pass
    needs the result."""
    model, kept = load_tiny(tiny.name), {}
    embedding = model.lm.get_input_embeddings()
    embedding.register_forward_hook(
        lambda module, args, out: out * kept.setdefault("scale", torch.ones(out.shape[-1]))
    )
    with applied(model, []) as active:
        mean_residuals(model, active, random_rows(model, LENGTHS))
    embedding.weight.requires_grad_(True)
    model.lm(torch.tensor([[5, 6]])).logits.sum().backward()
    assert kept and embedding.weight.grad.abs().max() > 0
