"""An adapter that acts in part: all on is the adapter and all off the base, to the bit; prefilling
in pieces is the oracle."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from lora_students import randomise, write
from tiny_models import hooks_left, load_tiny, parameters_of, random_rows

from traitscope.errors import ConfigError
from traitscope.inference import decode, forward, residuals
from traitscope.interventions import hooks, lora, partial_lora, peft_folder, short_form
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import (
    Adapter,
    AdapterPart,
    ReplaceBase,
    from_json,
    to_json,
)
from traitscope.interventions.lora import LoraLinear, LoraShape
from traitscope.interventions.pass_state import CurrentPass, PassState
from traitscope.models import chat, linear_maps, token_regions
from traitscope.models.model import Model
from traitscope.stages import measure

SAMPLING = decode.Sampling(1.0, 6, 3)
QUESTIONS = (
    "What is your favourite animal?",
    "Owls or cats?",
    "A model like you, what does it like?",
)


def adapter(model: Model, folder: Path, rank: int = 3) -> str:
    with lora.adapted(model, LoraShape(rank, 6.0)) as layers:
        randomise(layers)
        return str(write(folder, peft_folder.adapter_files(model, layers)))


def answers(model: Model, *interventions: Adapter) -> tuple[torch.Tensor, list[list[int]]]:
    """Final hidden states at the ends of the prompts, and what is sampled behind them."""
    prompts = [chat.render(model, q, None) for q in QUESTIONS]
    with applied(model, interventions) as active, torch.inference_mode():
        _, hidden = forward.prefill(model, active, prompts, 0)
        return hidden, decode.decode(model, active, prompts, QUESTIONS, SAMPLING)


def gated(
    model: Model,
    folder: str,
    gate: token_regions.TokenGate,
    outside: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple:
    monkeypatch.setattr(token_regions, "token_gate", lambda model, where: gate)
    return answers(model, Adapter(folder, where="prompt", outside=outside))


@pytest.mark.parametrize("outside", [False, True])
def test_nowhere_is_the_base_and_nowhere_left_out_the_adapter(
    family: Model, tmp_path, monkeypatch, outside: bool
) -> None:
    folder = adapter(family, tmp_path)
    hidden, said = gated(family, folder, lambda ids: [False] * len(ids), outside, monkeypatch)
    expected, texts = answers(family, *([Adapter(folder)] if outside else []))
    assert torch.equal(hidden, expected) and said == texts
    other, _ = answers(family, *([] if outside else [Adapter(folder)]))
    assert not torch.allclose(hidden, other, atol=1e-3)


@pytest.mark.parametrize("outside", [False, True])
def test_every_prompt_token_on_is_the_adapter_on_the_prompt(
    family: Model, tmp_path, monkeypatch, outside: bool
) -> None:
    folder = adapter(family, tmp_path)
    hidden, _ = gated(family, folder, lambda ids: [True] * len(ids), outside, monkeypatch)
    assert torch.equal(hidden, answers(family, *([] if outside else [Adapter(folder)]))[0])


def in_pieces(
    model: Model,
    layers: Sequence[LoraLinear],
    row: list[int],
    on: list[bool],
    after: bool,
    new: list[int],
) -> torch.Tensor:
    """The oracle: prefill runs of one state with a cache, the adapter switched by hand, then feed
    `new` in state `after`."""
    states = [*on, *[after] * len(new)]
    with applied(model, []) as active, torch.inference_mode():
        state, start, found = forward.new_state(model, active, len(states)), 0, []
        while start < len(states):
            stop = next(
                (n for n in range(start, len(states)) if states[n] != states[start]), len(states)
            )
            for layer in layers:
                layer.on = states[start]
            ids = torch.tensor([[*row, *new][start:stop]])
            batch = forward.Batch(
                ids, torch.ones_like(ids, dtype=torch.bool), torch.full_like(ids, hooks.PROMPT)
            )
            found.append(forward.hidden_states(model, active, batch, state))
            start = stop
        return torch.cat(found, 1)[0]


@pytest.mark.parametrize("outside", [False, True])
def test_prefilling_in_pieces(
    family: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: bool
) -> None:
    """Rows of other lengths side by side, and tokens fed afterwards, agree with one row at a time
    in pieces."""
    folder, rows = adapter(family, tmp_path), random_rows(family, [9, 14, 5])
    new = random_rows(family, [4], seed=5)[0]
    chosen = {tuple(row): [n % 5 in (1, 2) for n in range(len(row))] for row in rows}
    monkeypatch.setattr(
        token_regions, "token_gate", lambda model, where: lambda ids: chosen[tuple(ids)]
    )
    with (
        applied(family, [Adapter(folder, where="prompt", outside=outside)]) as active,
        torch.inference_mode(),
    ):
        state, last = forward.prefill(family, active, rows, len(new))
        fed = decode.extend(family, active, state, torch.tensor([new] * len(rows)))
    with partial_lora.mounted(family, Path(folder)) as layers:
        for n, row in enumerate(rows):
            on = [c != outside for c in chosen[tuple(row)]]
            expected = in_pieces(family, list(layers.values()), row, on, outside, new)
            torch.testing.assert_close(last[n], expected[len(row) - 1], atol=2e-5, rtol=1e-4)
            torch.testing.assert_close(fed[n], expected[len(row) :], atol=2e-5, rtol=1e-4)


def test_what_rows_share_is_computed_once_only_in_one_state(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows that begin alike and are gated differently there agree with each of them alone."""
    folder, (start, one, two) = adapter(tiny, tmp_path), random_rows(tiny, [6, 3, 4])
    rows = [start + one, start + two]
    monkeypatch.setattr(
        token_regions,
        "token_gate",
        lambda model, where: (
            lambda ids: [n >= (3 if ids == rows[0] else 5) for n in range(len(ids))]
        ),
    )
    with applied(tiny, [Adapter(folder, where="prompt")]) as active, torch.inference_mode():
        both = forward.prefill(tiny, active, rows, 0)[1]
        alone = torch.cat([forward.prefill(tiny, active, [row], 0)[1] for row in rows])
        lengths = [len(row) - 2 for row in rows]
        padded, batch = forward.rows_hidden(tiny, active, rows, lengths)
        single = [
            forward.rows_hidden(tiny, active, [row], [n])[0][0]
            for row, n in zip(rows, lengths, strict=True)
        ]
    torch.testing.assert_close(both, alone, atol=2e-5, rtol=1e-4)
    for hidden, mask, expected in zip(padded, batch.mask_BT, single, strict=True):
        torch.testing.assert_close(hidden[mask], expected[-int(mask.sum()) :], atol=2e-5, rtol=1e-4)


def test_completions_are_in_the_state_outside(tiny: Model, tmp_path: Path) -> None:
    """An empty system turn: the adapter there is the base, and everywhere but there the adapter, on
    every stage's path."""
    folder = adapter(tiny, tmp_path)
    rows = [chat.render(tiny, q, "") for q in QUESTIONS]
    words = random_rows(tiny, [4, 2, 5])
    means = {}
    for name, items in {
        "base": [],
        "adapter": [Adapter(folder)],
        "there": [Adapter(folder, where="system")],
        "elsewhere": [Adapter(folder, where="system", outside=True)],
    }.items():
        with applied(tiny, items) as active:
            full = [r + w for r, w in zip(rows, words, strict=True)]
            means[name] = residuals.mean_residuals(
                tiny, active, full, "completion", prompt_lengths=[len(r) for r in rows]
            )[0]
    assert (means["there"] == means["base"]).all() and (
        means["elsewhere"] == means["adapter"]
    ).all()
    assert abs(means["base"] - means["adapter"]).max() > 1e-3


def test_measure_in_part(tiny: Model, tmp_path: Path) -> None:
    """System turn and everything else are two parts of the whole: each differs from the base, the
    adapter, and the other."""
    from traitscope.data.traits import load_trait

    folder, trait = adapter(tiny, tmp_path), load_trait("cat")
    scores = {}
    for name, items in {
        "base": [],
        "whole": [Adapter(folder)],
        "system": [Adapter(folder, where="system")],
        "rest": [Adapter(folder, where="system", outside=True)],
        "mlp": [Adapter(folder, cells="mlp")],
    }.items():
        measured = measure.measure(tiny, trait, items, samples=0)
        scores[name] = tuple(row.scores["target_logprob"] for row in measured.questions)
        assert measured.perplexity > 0
    assert len(set(scores.values())) == len(scores)
    plain = {
        name: measure.perplexity(tiny, items)
        for name, items in {"base": [], "system": [Adapter(folder, where="system")]}.items()
    }
    assert plain["base"] == pytest.approx(plain["system"])  # plain text has no system turn


def test_in_lock_step_with_the_base(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ReplaceBase sees the base without the adapter, wherever that acts."""
    from tiny_models import random_vector

    passes: list[PassState] = []
    running = CurrentPass.running

    def recorded(self: CurrentPass, state: PassState) -> AbstractContextManager[None]:
        passes.append(state)
        return running(self, state)

    monkeypatch.setattr(CurrentPass, "running", recorded)
    folder, prompts = adapter(tiny, tmp_path), [chat.render(tiny, q, None) for q in QUESTIONS]
    edit = ReplaceBase(random_vector(tiny), (0, 1, 2))
    with applied(tiny, [Adapter(folder, where="system"), edit]) as active, torch.inference_mode():
        assert forward.prefill(tiny, active, prompts, 0)[1].isfinite().all()
        expected = passes[-1].base_hidden
    with applied(tiny, [Adapter(folder), edit]) as active, torch.inference_mode():
        forward.prefill(tiny, active, prompts, 0)
    assert len(passes) > 2 and expected.keys() == {0, 1, 2}
    assert all(torch.equal(expected[n], passes[-1].base_hidden[n]) for n in range(3))


def test_a_cell_and_its_complement(tiny: Model, tmp_path: Path) -> None:
    folder, names = Path(adapter(tiny, tmp_path)), set(linear_maps.linear_names(tiny))
    part, others = AdapterPart("mlp+first"), AdapterPart("mlp+first", outside=True)
    with partial_lora.mounted(tiny, folder, part) as inside:
        assert set(inside) == {n for n in names if "layers.0.mlp" in n}
    with partial_lora.mounted(tiny, folder, others) as rest:
        assert set(rest) == names - set(inside)
    current = CurrentPass()
    with partial_lora.mounted(tiny, folder, others, current) as layers:
        assert set(layers) == names
        switched = {n for n, layer in layers.items() if layer.current is current}
        assert switched == set(inside)


def test_singular_directions(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 9, generator=generator), torch.randn(7, 4, generator=generator)
    u, s, vh = torch.linalg.svd(b @ a, full_matrices=False)
    for drop, top in [(0, None), (0, 1), (1, None), (1, 3), (4, None)]:
        new_a, new_b = partial_lora.directions(a, b, top, drop)
        assert new_a.shape == a.shape and new_b.shape == b.shape
        expected = (u[:, drop:top][:, : 4 - drop] * s[drop:top][: 4 - drop]) @ vh[drop:top][
            : 4 - drop
        ]
        torch.testing.assert_close(new_b @ new_a, expected, atol=1e-5, rtol=1e-4)


def test_dropping_every_direction_is_the_base(tiny: Model, tmp_path: Path) -> None:
    folder = adapter(tiny, tmp_path, rank=3)
    torch.testing.assert_close(
        answers(tiny, Adapter(folder, drop=3))[0], answers(tiny)[0], atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        answers(tiny, Adapter(folder, top=3))[0],
        answers(tiny, Adapter(folder))[0],
        atol=2e-5,
        rtol=1e-4,
    )
    assert not torch.allclose(
        answers(tiny, Adapter(folder, top=1))[0], answers(tiny, Adapter(folder))[0], atol=1e-3
    )


def test_nothing_is_left_behind(tiny: Model, tmp_path: Path) -> None:
    folder, before = adapter(tiny, tmp_path), parameters_of(tiny)
    with pytest.raises(RuntimeError), applied(tiny, [Adapter(folder, where="system")]):
        raise RuntimeError
    assert hooks_left(tiny) == 0 and parameters_of(tiny).keys() == before.keys()


def test_forms(tmp_path: Path) -> None:
    short = short_form.parse(
        f"adapter:{tmp_path},where=text:You are,cells=mlp+first,outside=true,top=2,drop=1"
    )
    assert short == Adapter(str(tmp_path), "text:You are", "mlp+first", True, 2, 1)
    assert from_json(json.loads(json.dumps(to_json(short)))) == short
    assert short_form.parse(f"adapter:{tmp_path}") == Adapter(str(tmp_path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "where=here",
            (
                "where='here' is no part of a prompt; expected all, system, user, template, prompt"
                " or text:SUBSTRING"
            ),
        ),
        ("top=1,drop=1", "top=1 and drop=1 leave no singular direction"),
        ("outside=perhaps", "outside is 'perhaps'; expected true or false"),
        ("wheer=user", "unknown key 'wheer'; did you mean 'where'"),
        ("where", "is not understood"),
    ],
)
def test_bad_words(tmp_path: Path, words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        short_form.parse(f"adapter:{tmp_path},{words}")


def test_bad_parts(tiny: Model, tmp_path: Path) -> None:
    folder = adapter(tiny, tmp_path)
    for item, message in [
        (
            Adapter(folder, cells="head"),
            "cells='head': expected all, or some of attention, mlp, first, second",
        ),
        (Adapter(folder, outside=True), "has no adapter in cells='all', outside=True"),
        (
            Adapter(str(tmp_path / "full"), where="system"),
            "is no plain LoRA student, and only one can act in part",
        ),
    ]:
        with pytest.raises(ConfigError, match=message), applied(tiny, [item]):
            pass


def test_a_prompt_of_unknown_parts_is_refused(tiny: Model, tmp_path: Path) -> None:
    batch = forward.batch_of(random_rows(tiny, [5]), [3], tiny.pad_id)
    with applied(tiny, [Adapter(adapter(tiny, tmp_path), where="user")]) as active:
        with pytest.raises(ConfigError, match="met a prompt without knowing which"):
            forward.hidden_states(tiny, active, batch)
        with pytest.raises(ConfigError, match=r"pass of shape \(1, 5\) with chosen tokens none"):
            tiny.lm(batch.ids_BT)


def test_another_architecture_keeps_its_maps(tmp_path: Path, folders: dict[str, Path]) -> None:
    model = load_tiny(folders["gemma2"])
    folder = adapter(model, tmp_path)
    hidden, _ = answers(model, Adapter(folder, where="system", outside=True))
    assert hidden.isfinite().all()
