"""The self-test passes, and each of its checks fails where what it checks is broken."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command import call, ok

from traitscope.cli import selftest
from traitscope.inference import forward, losses
from traitscope.interventions import applied
from traitscope.training import loop


def test_it_passes(tmp_path: Path, capsys: pytest.CaptureFixture):
    done = ok(tmp_path / "runs", "selftest")
    assert done.summary["failed"] == []
    assert list(done.summary["checks"]) == ["identity", "clean", "control", "planted", "resume"]
    assert len(capsys.readouterr().out.splitlines()) == 5


def no_steering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        applied, "adding", lambda row_D, current: lambda hidden_BTD, mask_BT1: hidden_BTD
    )


def steering_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        applied,
        "adding",
        lambda row_D, current: lambda hidden_BTD, mask_BT1: hidden_BTD * 1.0001,
    )


def hooks_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.hooks.RemovableHandle, "remove", lambda self: None)


def drifting_control(monkeypatch: pytest.MonkeyPatch) -> None:
    real = losses.soft_cross_entropy
    monkeypatch.setattr(losses, "soft_cross_entropy", lambda model, a, b: real(model, a, b * 1.1))


def forgotten_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", lambda self, state: None)


def no_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(forward, "hidden_states", broken)


@pytest.mark.parametrize(
    ("damage", "failed"),
    [
        (no_steering, {"planted"}),
        (steering_at_zero, {"identity", "planted"}),
        (hooks_that_stay, {"clean", "planted"}),
        (drifting_control, {"control"}),
        (forgotten_moments, {"resume"}),
        (no_forward, {"identity", "control", "planted", "resume"}),
    ],
)
def test_it_fails_where_something_is_broken(
    damage: Callable, failed: set[str], tmp_path, monkeypatch, capsys
):
    damage(monkeypatch)
    done = call(tmp_path / "runs", "selftest")
    assert done.code == 1
    assert done.summary["status"] == "failed"
    assert set(done.summary["failed"]) == failed
    assert capsys.readouterr().out.count("FAILED") == len(failed)


def test_a_cosine_that_finds_nothing_is_no_pass(monkeypatch: pytest.MonkeyPatch):
    """A student that was not trained has no shift; the planted vector must not be found in rounding
    noise."""
    monkeypatch.setattr(loop, "train_student", lambda *_: None)
    with pytest.raises(AssertionError, match="cosine with the added vector"):
        selftest.check_planted(selftest.tiny_model())
