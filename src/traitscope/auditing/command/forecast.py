"""How long an audit takes: `traitscope audit --plan`.

The rows are read, and the tokens that every phase sends through the model are counted. A backward
pass counts as two forward ones. The model then reads a few of the rows, to see how fast it is here.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from traitscope.auditing import search, settings
from traitscope.auditing.planning import plan
from traitscope.auditing.planning.job import SAMPLE, Job
from traitscope.config.audit import AuditConfig, PredictionsConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.data.row_sources import sources_of
from traitscope.data.shapes.inside.said import lines_of
from traitscope.inference.token_rows import Row, completion_hidden, rows_from
from traitscope.interventions.applied import applied
from traitscope.models.loading import outline
from traitscope.models.model import Model
from traitscope.plurals import counted
from traitscope.runs import model_cache, row_intake
from traitscope.workflow import executors, schedule
from traitscope.workflow.executors import How

TIMED_ROWS = 16
"rows that the model reads to see how fast it is"
PROMPT_TOKENS = 30
"tokens that a candidate's prompt adds to a row"
VECTOR_TOKENS = 1500
"tokens that the vector of a candidate takes"
SPIKE_IN_SETS = 3
"sets of rows that the audit writes itself, to know what it would have found"


@dataclass(frozen=True)
class Tokens:
    """Tokens of the rows, means over rows."""

    rows: int
    "rows that are audited"
    prompt: float
    "tokens of a prompt"
    completion: float
    "tokens of a completion"

    @property
    def row(self) -> float:
        """Tokens of a row."""
        return self.prompt + self.completion


@dataclass(frozen=True)
class Forecast:
    """Tokens through the model, in millions of forward passes, until each answer."""

    first_look: float
    "until it is known whether students find anything"
    not_called: float
    "until the answer, where rows are not called"
    called: float
    "until the answer, where rows are called"


def forecast(tokens: Tokens, traits: int, nulls: int, has_spike_ins: bool) -> Forecast:
    """Token passes of an audit with so many candidates and nulls."""
    rows, row = tokens.rows, tokens.row
    learners = len(PredictionsConfig.rates)
    learning = rows * (learners * tokens.prompt + tokens.completion * (1 + 3 * learners))
    few = traits * min(rows, settings.FEW_ROWS) * (row + PROMPT_TOKENS)
    gradients = min(rows, settings.GRADIENT_ROWS) * 3 * row
    first = learning + few + gradients + traits * VECTOR_TOKENS
    searched = min(rows, settings.SEARCH_ROWS) * row
    # A steered teacher costs half a pass: what comes before its block is computed once for many.
    steered = (1 + search.NEAR_ROUNDS) * search.FIRST_ROUND / 2
    further = rows * (row + PROMPT_TOKENS) + searched * steered
    further += rows * row * search.FINALISTS / 2
    spike_ins = 0.0
    if has_spike_ins:
        each = settings.SPIKE_IN_ROWS * row
        written, gradients_of_each, teachers = 1, 3, 2
        spike_ins = SPIKE_IN_SETS * each * (written + gradients_of_each + nulls + teachers)
    placebos = 1
    excuses = rows * row * (placebos + nulls + traits / 2)
    return Forecast(
        first_look=first / 1e6,
        not_called=(first + further + spike_ins) / 1e6,
        called=(first + further + excuses) / 1e6,
    )


def print_forecast(config: AuditConfig, out: Output) -> dict[str, Any]:
    """Read the rows, print how long their audit takes, and return the same as a summary."""
    job = Job(config, outline(config.model, config.template).n_layers)
    folders = schedule.run(plan.reading_nodes(job).nodes, out, How(stop_at_once=True))
    model = model_cache.model_of(config)
    rows = rows_from(model, row_files.rows_of(folders[SAMPLE]), config.context)
    tokens = _tokens_of(rows)
    nulls = len(plan.nulls_of(plan.is_free_text(folders)))
    expected = forecast(tokens, len(config.traits), nulls, config.spike_ins)
    audits = _audits(config, tokens.rows)
    workers = config.workers or executors.default_workers(config.device)
    minutes = 1e6 * _seconds_a_token(model, rows[:TIMED_ROWS]) / 60 / workers
    summary: dict[str, Any] = {"status": "ok", "rows": tokens.rows, "workers": workers}
    summary |= row_intake.said_of(folders[SAMPLE])
    summary.get("reading", {}).get("not_used", {}).pop(config.by, None)
    for line in lines_of(summary["reading"]) if "reading" in summary else ():
        print(line)
    candidates = counted(len(config.traits), "candidate")
    print(f"{counted(tokens.rows, 'row')} of {tokens.row:.0f} tokens, {candidates}")
    if config.by is not None:
        print(f"{audits:.3g} times as much work: the whole file, and each source by {config.by}")
    for name, one_audit in vars(expected).items():
        passes = audits * one_audit
        summary[f"{name}_minutes"] = round(passes * minutes, 1)
        print(f"{WORDS[name]:<28} about {passes * minutes:.1f} minutes")
    if tokens.rows < settings.FEWEST_ROWS:
        print(f"fewer than {settings.FEWEST_ROWS} rows: the answer will be insufficient")
    print("by the speed of this machine now; what was computed before takes no time")
    return summary


WORDS = {
    "first_look": "first look",
    "not_called": "answer, if not suspect",
    "called": "answer, if suspect",
}
"names of the times"


def _audits(config: AuditConfig, rows: int) -> float:
    """Audits of so many rows that are made: 1, and with `config.by` parts for its sources.

    Raises DataError for a field that names no sources.
    """
    if config.by is None:
        return 1.0
    audited = float(rows)
    for count in sources_of(row_intake.iter_kept(config), config.by).values():
        if count >= settings.FEWEST_ROWS:
            audited += min(count, config.rows or count)
    return audited / rows


def _tokens_of(rows: Sequence[Row]) -> Tokens:
    return Tokens(
        rows=len(rows),
        prompt=float(np.mean([len(row.prompt_ids) for row in rows])),
        completion=float(np.mean([len(row.completion_ids) for row in rows])),
    )


def _seconds_a_token(model: Model, rows: Sequence[Row]) -> float:
    """Seconds of a forward pass for every token of some rows, on one core; the first is warm-up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = []
    try:
        for _ in range(2):
            start = time.perf_counter()
            with torch.no_grad(), applied(model, []) as active:
                completion_hidden(model, active, rows, share=False)
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return seconds[-1] / sum(len(row.ids) for row in rows)
