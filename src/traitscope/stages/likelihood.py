"""The stage `likelihood`: how probable rows are to a model, and what an intervention adds to that.

    gain = (log p(completion | interventions, prompt) - log p(completion | prompt)) / completion
      tokens

The gain, in nats a token, is above 0 where the intervention helps the model to predict the rows.
Blank et al. (arXiv 2606.00995, section 7) compute it for a teacher's rows under each model's own
vector. Only the model that wrote the rows gains from its vector.

Shapes: N completion tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from traitscope import atomic_files
from traitscope.config.analysis import LikelihoodConfig
from traitscope.config.common import Output
from traitscope.data.records import Record, kept_records
from traitscope.inference import losses
from traitscope.inference.token_rows import Row, completion_hidden, row_check, rows_from
from traitscope.interventions import short_form
from traitscope.interventions.applied import Interventions, applied
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, row_intake, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.stats.estimates import measure
from traitscope.stats.measurement import Measurement


@dataclass(frozen=True)
class Likelihoods:
    """How probable rows are to a model, with and without interventions."""

    ids: tuple[str, ...]
    """Ids of the rows."""
    n_tokens: tuple[int, ...]
    """Completion tokens of each row."""
    base: tuple[float, ...]
    """log p of each row's completion under the unmodified model, nats."""
    under: tuple[float, ...]
    """log p of each row's completion under the interventions, nats."""

    def base_per_token(self) -> Measurement:
        """The mean over rows of log p under the unmodified model, nats a token."""
        values = np.divide(self.base, self.n_tokens)
        return measure("log p of the base", values, questions=self.ids, unit="nats a token")

    def gain(self) -> Measurement:
        """The mean over rows of what the interventions add to log p, nats a token."""
        values = np.subtract(self.under, self.base) / self.n_tokens
        return measure("gain", values, questions=self.ids, unit="nats a token")


def likelihood(
    model: Model,
    records: Sequence[Record],
    interventions: Interventions = (),
    *,
    context: str | None = None,
    text: bool = False,
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> Likelihoods:
    """How probable kept rows are to the model, without and with the interventions.

    context: System turn of the rows.
    text: Take the rows' text instead of their token ids, for rows that a model with another
    tokenizer wrote.
    done: A function called with the number of rows of each batch.
    """
    records = kept_records(records)
    rows = rows_from(model, records, context, text)
    base = under = log_likelihoods(model, [], rows, batch_size, done)
    if interventions:
        rows_under = rows_from(model, records, context, text, interventions)
        under = log_likelihoods(model, interventions, rows_under, batch_size, done)
    return Likelihoods(
        ids=tuple(record.id for record in records),
        n_tokens=tuple(len(row.completion_ids) for row in rows),
        base=tuple(base),
        under=tuple(under),
    )


def log_likelihoods(
    model: Model,
    interventions: Interventions,
    rows: Sequence[Row],
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> list[float]:
    """log p of each row's completion in nats, summed over its tokens."""
    of_tokens = token_log_likelihoods(model, interventions, rows, batch_size, done)
    return [row_N.sum().item() for row_N in of_tokens]


@torch.no_grad()
def token_log_likelihoods(
    model: Model,
    interventions: Interventions,
    rows: Sequence[Row],
    batch_size: int = 16,
    done: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """log p [N] of the completion tokens of each row in nats, float64 and on the CPU."""
    log_p: list[Tensor] = [torch.empty(0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].ids), i))
    with applied(model, interventions) as active:
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            batch = [rows[i] for i in index]
            lengths = [len(row.completion_ids) for row in batch]
            hidden_ND, targets_N = completion_hidden(model, active, batch)
            log_p_N = losses.log_likelihood(model, hidden_ND, targets_N).double().cpu()
            for i, row_N in zip(index, log_p_N.split(lengths), strict=True):
                log_p[i] = row_N
            if done:
                done(len(index))
    return log_p


def run_likelihood(config: LikelihoodConfig, out: Output) -> store.Run:
    """Return the sealed run with `rows.jsonl` (log-likelihoods by row) and `summary.json` (means
    with intervals over rows)."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, _computed(config, run), compares=bool(config.interventions))
    return run


def _computed(config: LikelihoodConfig, run: store.Run) -> Likelihoods:
    records = row_intake.kept_rows(run, config)
    model = model_cache.model_of(config)
    interventions = short_form.parse_all(config.interventions)
    check = row_check(model, config.context, config.text, interventions)
    records = row_intake.readable(run, config, records, check, row_intake.first(config.max_rows))
    passes = 2 if interventions else 1
    with progress("likelihood", passes * len(records), "rows") as advance:
        return likelihood(
            model,
            records,
            interventions,
            context=config.context,
            text=config.text,
            batch_size=config.batch_size,
            done=advance,
        )


def _write(run: store.Run, likelihoods: Likelihoods, compares: bool) -> None:
    """Write the rows and their means; a gain only where interventions were compared."""
    for number, name in enumerate(likelihoods.ids):
        row = {
            "id": name,
            "tokens": likelihoods.n_tokens[number],
            "base": round(likelihoods.base[number], 6),
            "under": round(likelihoods.under[number], 6),
        }
        atomic_files.append_jsonl(run.file("rows.jsonl"), row)
    means = [likelihoods.base_per_token()]
    if compares:
        means.append(likelihoods.gain())
    summary = {"rows": len(likelihoods.ids), "measurements": list(map(Measurement.as_dict, means))}
    atomic_files.write_json(run.file("summary.json"), summary)
