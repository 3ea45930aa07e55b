"""Mean residuals at a position, by layer, from which every vector of this package is made.

Shapes: L layers, D d_model, S packed students, H halves of the prompts, N selected tokens,
C principal components.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from traitscope.data.json_lines import at_place
from traitscope.data.records import Prompt
from traitscope.errors import ConfigError
from traitscope.inference import forward
from traitscope.interventions import hooks
from traitscope.interventions.applied import Active, Interventions, applied
from traitscope.interventions.intervention import context_of
from traitscope.interventions.vector import Vector
from traitscope.models import chat
from traitscope.models.model import Model

TokenIds = Sequence[int]


# not inference mode: what a layer makes once and keeps must serve a later training step
@torch.no_grad()
def mean_residuals(
    model: Model,
    active: Active,
    prompts: Sequence[TokenIds],
    position: str = "last",
    batch_size: int = 32,
    done: Callable[[int], None] | None = None,
    prompt_lengths: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean residual [L, D] and mean residual norm [L] of the tokens at `position` of prompts.

    With `prompt_lengths`, the tokens of a row that follow its prompt are its completion. Every
    token counts the same for `prompt`, `completion` and `all`; `last` is one token a row (Blank et
    al., arXiv 2606.00995, section 3). Sums run in float64, so the order of the batches does not
    show. The edits of `active` are in the residuals.
    """
    means_SLD, norms_SL = _means_and_norms(
        model, active, prompts, position, batch_size, done, prompt_lengths
    )
    return means_SLD[0], norms_SL[0]


@torch.no_grad()
def mean_residuals_each(
    model: Model,
    active: Active,
    prompts: Sequence[TokenIds],
    position: str = "last",
    batch_size: int = 32,
) -> np.ndarray:
    """Mean residuals [S, L, D] of every packed student over the same prompts."""
    return _means_and_norms(model, active, prompts, position, batch_size)[0]


@torch.no_grad()
def mean_residuals_of_halves(
    model: Model,
    active: Active,
    prompts: Sequence[TokenIds],
    batch_size: int = 32,
    done: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean residuals [H, L, D] at the last token of every second prompt, and norms [L] over all.

    The first half holds prompts 0, 2, 4, ..., the second prompts 1, 3, 5, ... How well two halves
    agree says whether there are enough prompts. Raises ConfigError for fewer than two prompts.
    """
    if len(prompts) < 2:
        raise ConfigError(f"{len(prompts)} prompt has no two halves; average over two or more")
    sums_HLD = torch.zeros(2, model.n_layers, model.d_model, dtype=torch.float64)
    norm_sums_L = torch.zeros(model.n_layers, dtype=torch.float64)
    for indices in _batches_by_length(prompts, batch_size):
        rows = [prompts[i] for i in indices]
        half_N = torch.tensor([i % 2 for i in indices])
        selected = _selected_residuals(model, active, rows, "last", list(map(len, rows)))
        for layer, residuals_ND in selected.items():
            sums_HLD[:, layer].index_add_(0, half_N, residuals_ND)
            norm_sums_L[layer] += residuals_ND.norm(dim=1).sum()
        if done:
            done(len(rows))
    counts_H = torch.tensor([(len(prompts) + 1) // 2, len(prompts) // 2])
    means_HLD = sums_HLD / counts_H[:, None, None]
    return means_HLD.numpy(), (norm_sums_L / len(prompts)).numpy()


@torch.no_grad()
def last_residuals(
    model: Model,
    active: Active,
    prompts: Sequence[TokenIds],
    batch_size: int = 32,
    done: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Residuals [N, L, D] at the last token of every prompt, in the order of the prompts."""
    residuals_NLD = np.empty((len(prompts), model.n_layers, model.d_model))
    for indices in _batches_by_length(prompts, batch_size):
        rows = [prompts[i] for i in indices]
        selected = _selected_residuals(model, active, rows, "last", list(map(len, rows)))
        for layer, residuals_ND in selected.items():
            residuals_NLD[indices, layer] = residuals_ND.numpy()
        if done:
            done(len(rows))
    return residuals_NLD


def _means_and_norms(
    model: Model,
    active: Active,
    prompts: Sequence[TokenIds],
    position: str,
    batch_size: int,
    done: Callable[[int], None] | None = None,
    prompt_lengths: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean residuals [S, L, D] and norms [S, L]; S is 1 where all rows are of one model."""
    hooks.check_position(position)
    is_packed = active.pack is not None and active.pack.alone is None
    n_students = active.pack.size if is_packed else 1
    sums_SLD = torch.zeros(n_students, model.n_layers, model.d_model, dtype=torch.float64)
    norm_sums_SL = torch.zeros(n_students, model.n_layers, dtype=torch.float64)
    n_tokens = 0
    for indices in _batches_by_length(prompts, batch_size):
        rows = [prompts[i] for i in indices]
        lengths = list(map(len, rows))
        if prompt_lengths is not None:
            lengths = [prompt_lengths[i] for i in indices]
        selected = _selected_residuals(
            model, active, rows * n_students, position, lengths * n_students
        )
        for layer, residuals_ND in selected.items():
            for student, student_ND in enumerate(residuals_ND.chunk(n_students)):
                sums_SLD[student, layer] += student_ND.sum(0)
                norm_sums_SL[student, layer] += student_ND.norm(dim=1).sum()
        n_tokens += len(student_ND)
        if done:
            done(len(rows))
    return (sums_SLD / n_tokens).numpy(), (norm_sums_SL / n_tokens).numpy()


def _batches_by_length(prompts: Sequence[TokenIds], batch_size: int) -> Iterator[list[int]]:
    """Indices of prompts of like length, at most `batch_size` together, shortest first."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def intervention_vector(
    model: Model,
    interventions: Interventions,
    prompts: Sequence[Prompt | str],
    *,
    context: str | None = None,
    position: str = "last",
    batch_size: int = 32,
    prompt_source: Any = None,
    done: Callable[[int], None] | None = None,
) -> Vector:
    """Mean residual under interventions minus that of the model, over the same prompts.

    Of a student this is v_student, of a steered or prompted teacher its own shift (Blank et al.,
    section 3). Both sides read the system turn `context`, unless a system prompt among the
    interventions takes its place. The residual norms are those of the model.

    prompt_source: What the vector's provenance says about the prompts; their digest by default.
    done: A function called with the number of prompts of each batch, of either side.

    Raises DataError for a prompt that is too long.
    """
    base_rows = render_prompts(model, prompts, context)
    changed_rows = render_prompts(model, prompts, context_of(interventions, context))
    with applied(model, []) as active:
        base_LD, norms_L = mean_residuals(model, active, base_rows, position, batch_size, done)
    with applied(model, interventions) as active:
        changed_LD, _ = mean_residuals(model, active, changed_rows, position, batch_size, done)
    about = provenance(model, context, position, prompt_source or digest_of_prompts(prompts))
    return difference(model, changed_LD, base_LD, norms_L, about)


def render_prompts(
    model: Model,
    prompts: Sequence[Prompt | str],
    context: str | None,
    ending: Sequence[int] = (),
) -> list[list[int]]:
    """Token ids of prompts as the model reads them under one context, and the ending behind each.

    A prompt's own context is not read. Raises DataError for a chat that is too long.
    """
    rendered = []
    for prompt in prompts:
        text, place = prompt, f"prompt {prompt[:40]!r}" if isinstance(prompt, str) else ""
        if isinstance(prompt, Prompt):
            text, place = prompt.text, f"prompt {prompt.id}"
        ids = at_place(place, chat.render, model, text, context)
        chat.check_length(model, len(ids), place)
        rendered.append([*ids, *ending])
    return rendered


def provenance(
    model: Model, context: str | None, position: str, prompt_source: Any
) -> dict[str, Any]:
    """What every vector of this package says about how it was made."""
    return {
        "position": position,
        "context": context,
        "context_digest": chat.context_digest(model, context),
        "prompts": prompt_source,
    }


def digest_of_prompts(prompts: Sequence[Prompt | str]) -> str:
    """A description of prompts by their number and the first 16 hex digits of their sha256."""
    lines = []
    for prompt in prompts:
        if isinstance(prompt, Prompt):
            lines.append(f"{prompt.context}\t{prompt.text}")
        else:
            lines.append(f"None\t{prompt}")
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    return f"{len(prompts)} prompts, sha256 {digest}"


@torch.no_grad()
def components(
    model: Model,
    active: Active,
    prompts: Sequence[TokenIds],
    n: int,
    position: str = "last",
    batch_size: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """The n leading principal components of the residuals at `position`, and what they explain.

    The components [C, L, D] are as long as the standard deviation along them. Of the two signs,
    the one with the largest coordinate positive is taken. The second array [C, L] is the fraction
    of the variance that each component explains. Raises ConfigError for fewer than n + 1 tokens.
    """
    hooks.check_position(position)
    parts_of_layer: list[list[Tensor]] = [[] for _ in range(model.n_layers)]
    for indices in _batches_by_length(prompts, batch_size):
        rows = [prompts[i] for i in indices]
        lengths = list(map(len, rows))
        selected = _selected_residuals(model, active, rows, position, lengths)
        for layer, residuals_ND in selected.items():
            parts_of_layer[layer].append(residuals_ND)
    n_tokens = sum(map(len, parts_of_layer[0]))
    if n_tokens <= n:
        raise ConfigError(
            f"{n} components of {n_tokens} tokens; expected at least {n + 1}: average over more"
            " prompts"
        )
    components_CLD = np.empty((n, model.n_layers, model.d_model))
    explained_CL = np.empty((n, model.n_layers))
    for layer, parts in enumerate(parts_of_layer):
        residuals_ND = torch.cat(parts).numpy()
        centred_ND = residuals_ND - residuals_ND.mean(0)
        _, sizes, directions = np.linalg.svd(centred_ND, full_matrices=False)
        leading_CD = directions[:n]
        largest = leading_CD[np.arange(n), np.abs(leading_CD).argmax(1)]
        deviations = np.sign(largest) * sizes[:n] / np.sqrt(n_tokens - 1)
        components_CLD[:, layer] = leading_CD * deviations[:, None]
        explained_CL[:, layer] = sizes[:n] ** 2 / (sizes**2).sum()
    return components_CLD, explained_CL


def _selected_residuals(
    model: Model,
    active: Active,
    rows: Sequence[TokenIds],
    position: str,
    prompt_lengths: Sequence[int],
) -> dict[int, Tensor]:
    """Residuals [N, D] in float64 of the tokens at `position`, by layer.

    Tokens that all rows begin with run once, unless they are asked for. A prefill takes as many
    passes as it likes, and every pass adds its tokens.
    """
    with hooks.collected(model.blocks, active.current, position) as parts_of_layer:
        if position == "last":
            forward.prefill(model, active, forward.beginnings(rows, prompt_lengths), 0)
        else:
            share = position == "completion"
            forward.rows_hidden(model, active, rows, prompt_lengths, share=share)
    selected = {}
    for layer, parts in parts_of_layer.items():
        selected[layer] = torch.cat(parts).double().cpu()
    return selected


def difference(
    model: Model,
    changed_LD: np.ndarray,
    base_LD: np.ndarray,
    norms_L: np.ndarray,
    about: dict,
) -> Vector:
    """The vector changed - base [L, D].

    It remembers the residual norms [L] that a relative strength refers to.
    """
    about = {**about, "residual_norms": norms_L.tolist()}
    return Vector(changed_LD - base_LD, model.digest, about)
