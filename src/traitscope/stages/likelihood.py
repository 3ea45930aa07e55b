"""Likelihood: how probable rows are to a model, and what an intervention adds to that.

    gain = (log p(completion | interventions, prompt) - log p(completion | prompt)) / completion
      tokens

in nats a token: above 0 where the intervention helps the model to predict the rows. Blank et al.
(arXiv 2606.00995, section 7) ask it of a teacher's rows and each model's own vector: only the model
that wrote the rows gains from them.
"""

from collections.abc import Callable, Sequence

import torch

from traitscope import atomic_files
from traitscope.config.analysis import LikelihoodConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.errors import ConfigError
from traitscope.inference import losses
from traitscope.inference.token_rows import Row, completion_hidden, rows_from
from traitscope.interventions import short_form
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Intervention
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.stats.estimates import measure


@torch.no_grad()
def log_likelihoods(
    model: Model,
    interventions: Sequence[Intervention],
    rows: Sequence[Row],
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> list[float]:
    """log p of each row's completion in nats, summed over its tokens."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    found: dict[int, float] = {}
    with applied(model, interventions) as active:
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            picked = [rows[i] for i in index]
            log_p_N = losses.log_likelihood(model, *completion_hidden(model, active, picked))
            parts = log_p_N.double().split([len(row.completion_ids) for row in picked])
            found |= {i: part.sum().item() for i, part in zip(index, parts, strict=True)}
            if done:
                done(len(index))
    return [found[i] for i in range(len(rows))]


def run_likelihood(config: LikelihoodConfig, out: Output) -> store.Run:
    """The sealed run with `rows.jsonl` (log-likelihoods by row) and `summary.json` (means with
    intervals over rows)."""
    config = opening.settled(config)
    if config.data is None:
        raise ConfigError(
            "--data is missing: name a run of `filter` or `generate`, or a JSONL file"
        )
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config, model_cache.model_of(config))
    return run


def _write(run: store.Run, config: LikelihoodConfig, model: Model) -> None:
    records = row_files.kept_rows(config.data)[: config.max_rows]
    told = short_form.parse_all(config.interventions)
    plain, under = (
        rows_from(model, records, config.context, config.text, interventions)
        for interventions in ((), told)
    )
    with progress("likelihood", (2 if told else 1) * len(records), "rows") as advance:
        base = log_likelihoods(model, [], plain, config.batch_size, advance)
        now = log_likelihoods(model, told, under, config.batch_size, advance) if told else base
    tokens = [len(row.completion_ids) for row in plain]
    for record, n, before, after in zip(records, tokens, base, now, strict=True):
        row = {"id": record.id, "tokens": n, "base": round(before, 6), "under": round(after, 6)}
        atomic_files.append_jsonl(run.file("rows.jsonl"), row)
    ids = [record.id for record in records]
    per_token = {
        "log p of the base": [b / n for b, n in zip(base, tokens, strict=True)],
        "gain": [(a - b) / n for a, b, n in zip(now, base, tokens, strict=True)],
    }
    means = [
        measure(name, values, questions=ids, unit="nats a token")
        for name, values in per_token.items()
    ]
    atomic_files.write_json(
        run.file("summary.json"), {"rows": len(ids), "measurements": [m.as_dict() for m in means]}
    )
