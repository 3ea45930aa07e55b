"""Checks of this installation against known answers, on tiny random models and in seconds.

The checks are:

    identity   steering with alpha = 0 changes no bit
    clean      no hook is left after an exception
    control    a student distilled from the unmodified model stays where it is
    planted    a vector added to the teacher is found again in the student's residuals, above 200
               random directions
    resume     training stopped and continued gives the same bytes as training in one go
"""

import copy
import time
from collections.abc import Callable

import numpy as np
import torch

from traitscope.config.commands import SelftestConfig
from traitscope.config.common import Output
from traitscope.config.recipe import Recipe
from traitscope.inference import forward, losses, residuals
from traitscope.inference.token_rows import Row, completion_hidden, teacher_hidden
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Steer
from traitscope.interventions.vector import Vector
from traitscope.models.model import Model
from traitscope.training import loop
from traitscope.training.plan import plan_training

LAYER, VOCABULARY, WIDTH, DEPTH = 1, 64, 32, 3
RECIPE = Recipe(
    targets="soft",
    rank=4,
    alpha=16.0,
    lr=5e-3,
    epochs=6,
    batch_size=16,
    micro_batch=16,
    held_out=0.0,
)


def tiny_model(seed: int = 0) -> Model:
    """A random Llama with grouped keys: 3 blocks of width 32, 64 tokens, no tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from traitscope.models import attention

    attention.register()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=DEPTH,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        attn_implementation=attention.NAME,
        tie_word_embeddings=True,
    )
    lm = LlamaForCausalLM(config).eval().requires_grad_(False)
    return Model(lm, _NoTokenizer(), "selftest", "tiny-llama")


class _NoTokenizer:
    pad_token_id, eos_token_id, chat_template = 0, 1, None


def tiny_rows(n: int = 64, seed: int = 0) -> list[Row]:
    """Random prompts of 6 tokens with answers of 10."""
    ids = np.random.default_rng(seed).integers(2, VOCABULARY, size=(n, 16)).tolist()
    return [Row(tuple(row[:6]), tuple(row[6:])) for row in ids]


def planted_vector(model: Model, seed: int = 0) -> Vector:
    """A random direction of length 6 in the row of LAYER, zero elsewhere."""
    rows_LD = np.zeros((model.n_layers, model.d_model))
    drawn = np.random.default_rng(seed).standard_normal(model.d_model)
    rows_LD[LAYER] = 6 * drawn / np.linalg.norm(drawn)
    return Vector(rows_LD, model.digest)


def _require(holds: bool, problem: str) -> None:
    """An assertion that stays in place under python -O."""
    if not holds:
        raise AssertionError(problem)


def check_identity(model: Model) -> str:
    """Say that steering with alpha = 0 changes no bit, or raise AssertionError."""
    batch = _batch(model)
    with torch.inference_mode():
        with applied(model, []) as active:
            before = forward.hidden_states(model, active, batch)
        with applied(model, [Steer(planted_vector(model), (LAYER,), 0.0, scale="raw")]) as active:
            after = forward.hidden_states(model, active, batch)
    _require(torch.equal(before, after), "alpha = 0 changed a hidden state")
    return "bit-equal"


def check_clean(model: Model) -> str:
    """Say that no hook is left after an exception, or raise AssertionError."""
    try:
        with applied(model, [Steer(planted_vector(model), (LAYER,), 1.0, scale="raw")]):
            raise KeyError("planned")
    except KeyError:
        pass
    left = 0
    for module in model.lm.modules():
        left += len(module._forward_hooks)
    _require(left == 0, f"{left} hooks left after an exception")
    return "0 hooks left"


def check_control(model: Model) -> str:
    """Say how small the loss of distilling the unmodified model into itself is, or raise."""
    rows = tiny_rows()
    soft = teacher_hidden(model, [], rows, _prompts(rows))
    with applied(model, []) as active, torch.no_grad():
        hidden_ND, _ = completion_hidden(model, active, rows)
        loss = losses.soft_cross_entropy(model, hidden_ND, torch.cat(soft)).item() / len(hidden_ND)
    _require(abs(loss) < 1e-6, f"the unmodified model distils to itself with a loss of {loss}")
    return f"loss {loss:.1e} nats"


def check_planted(model: Model) -> str:
    """Say how well the added vector is found again in a student, or raise AssertionError."""
    rows, vector = tiny_rows(), planted_vector(model)
    teacher = [Steer(vector, (LAYER,), 1.0, scale="raw")]
    soft = teacher_hidden(model, teacher, rows, _prompts(rows))
    prompts = _prompts(tiny_rows(seed=9))
    with applied(model, []) as active:
        base_LD, _ = residuals.mean_residuals(model, active, prompts)
    with loop.new_student(model, RECIPE, 0) as student:
        loop.train_student(model, student, plan_training(rows, RECIPE, 0, soft))
        now_LD, _ = residuals.mean_residuals(model, student.active, prompts)
    shift_D = (now_LD - base_LD)[LAYER]
    cosine = _cosine(shift_D, vector.rows_LD[LAYER])
    others = [
        _cosine(shift_D, d) for d in np.random.default_rng(1).standard_normal((200, model.d_model))
    ]
    bound = max(others)
    _require(
        cosine > bound,
        f"cosine with the added vector {cosine:.2f}, with a random one up to {bound:.2f}",
    )
    return f"cosine {cosine:.2f}, largest of 200 random {bound:.2f}"


def check_resume(model: Model) -> str:
    """Say that a continued training gives the same bytes, or raise AssertionError."""
    rows = tiny_rows()
    whole = _trained(model, rows, stop=None)
    parts = _trained(model, rows, stop=9)
    _require(whole == parts, "a continued training gave other bytes")
    return "same bytes"


def _trained(model: Model, rows: list[Row], stop: int | None) -> dict[str, bytes]:
    """Files of a student trained in one go, or stopped after `stop` steps and continued from a copy
    of its state."""
    recipe = Recipe(rank=4, lr=1e-3, epochs=4, batch_size=16, held_out=0.0)
    saved: dict = {}

    def keep(metrics: dict, student: loop.Student) -> None:
        if student.step == stop:
            saved.update(
                copy.deepcopy(
                    {"step": stop, "params": student.params, "opt": student.optimizer.state_dict()}
                )
            )

    plan = plan_training(rows, recipe, 0)
    with loop.new_student(model, recipe, 0) as student:
        loop.train_student(model, student, plan, on_step=keep)
        if stop is None:
            return student.files()
    with loop.new_student(model, recipe, 0) as student:
        for p, value in zip(student.params, saved["params"], strict=True):
            p.data.copy_(value)
        student.optimizer.load_state_dict(saved["opt"])
        student.step = saved["step"]
        loop.train_student(model, student, plan)
        return student.files()


def _batch(model: Model) -> forward.Batch:
    ids, prompt_lengths = [], []
    for row in tiny_rows(8):
        ids.append(row.ids)
        prompt_lengths.append(len(row.prompt_ids))
    return forward.batch_of(ids, prompt_lengths, model.pad_id)


def _prompts(rows: list[Row]) -> list[tuple[int, ...]]:
    return [row.prompt_ids for row in rows]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms > 0 else 0.0


CHECKS: dict[str, Callable[[Model], str]] = {
    "identity": check_identity,
    "clean": check_clean,
    "control": check_control,
    "planted": check_planted,
    "resume": check_resume,
}

BROKEN = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"a check that cannot even run has failed too"


def run_selftest(config: SelftestConfig, out: Output) -> dict:
    """Every check with what it found; `failed` where one did not hold."""
    torch.set_num_threads(1)  # the models are too small for two
    results: dict[str, str] = {}
    failed = []
    for name, check in CHECKS.items():
        start = time.monotonic()
        try:
            results[name] = check(tiny_model())
        except BROKEN as error:
            results[name] = (
                f"FAILED: {error}" if isinstance(error, AssertionError) else f"FAILED: {error!r}"
            )
            failed.append(name)
        print(f"{name:<10} {results[name]} ({time.monotonic() - start:.1f} s)")
    return {"status": "failed" if failed else "ok", "checks": results, "failed": failed}
