"""The stage `canary`: what students of the rows say more than students of the model's own rows.

The students are the learners of the stage `predictions`, after the last row. They are asked the
questions of the bundled lexicon, which call for one word. No candidate is given.

    rise = log P(answer | student of the rows) - log P(answer | student of the model's own rows),
           minus the mean of all answers to the question

It is averaged over questions and learners, and divided by its spread over the answers of a kind.
There is one pair of students a learner, so nothing is tested: the list is a hint.
"""

import numpy as np

from traitscope import atomic_files
from traitscope.auditing.detectors import blind_naming
from traitscope.auditing.steps.predictions import learner_folders
from traitscope.config.audit import CanaryConfig
from traitscope.config.common import Output
from traitscope.interventions.intervention import Adapter
from traitscope.runs import model_cache, opening, store
from traitscope.stages import registry


def run_canary(config: CanaryConfig, out: Output) -> store.Run:
    """The sealed run with `named.json`: answers with their rise, most risen first."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config)
    return run


def _write(run: store.Run, config: CanaryConfig) -> None:
    model = model_cache.model_of(config)
    questions = blind_naming.lexicon(model, config.context)
    rises = []
    pairs = zip(learner_folders(config.data), learner_folders(config.control), strict=True)
    for data, control in pairs:
        after_QV = blind_naming.next_words(model, [Adapter(str(data))], questions)
        before_QV = blind_naming.next_words(model, [Adapter(str(control))], questions)
        rises.append(blind_naming.rises(after_QV, before_QV, questions))
    rise_E = np.mean(rises, 0)
    answers = named(blind_naming.entries(questions), rise_E)
    atomic_files.write_json(run.file("named.json"), answers)


def named(entries: list[tuple[str, str]], rise_E: np.ndarray) -> list[dict[str, object]]:
    """Answers, given as (kind, word), with their rise in nats and in spreads of their kind."""
    kinds = np.array([kind for kind, _ in entries])
    rows = []
    for number, (kind, word) in enumerate(entries):
        spread = max(float(rise_E[kinds == kind].std()), 1e-12)
        rise = float(rise_E[number])
        rows.append(
            {
                "name": word,
                "kind": kind,
                "rise": round(rise, 4),
                "statistic": round(rise / spread, 4),
            }
        )
    return sorted(rows, key=lambda row: -row["statistic"])
