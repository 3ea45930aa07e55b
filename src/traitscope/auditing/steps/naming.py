"""Blind naming as a stage of an audit.

The method is in detectors/blind_naming.py.
"""

from collections.abc import Sequence

import numpy as np

from traitscope import atomic_files
from traitscope.auditing.artifacts import read_artifacts
from traitscope.auditing.detectors import blind_naming
from traitscope.auditing.detectors.blind_naming import ByBlock
from traitscope.auditing.evidence import AuditRuns
from traitscope.auditing.settings import naming_blocks
from traitscope.config.audit import BlindNamingConfig
from traitscope.config.common import Output
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry


def run_blind_naming(config: BlindNamingConfig, out: Output) -> store.Run:
    """The sealed run with `named.json` (answers, best first) and `free.json` (tokens of the whole
    vocabulary)."""
    config = opening.settled(config)
    artifacts = read_artifacts(config.parts)
    folder = config.parts.parent
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config, model_cache.model_of(config), AuditRuns(artifacts, folder))
    return run


def _write(run: store.Run, config: BlindNamingConfig, model: Model, runs: AuditRuns) -> None:
    directions = _directions(config, model, runs)
    questions = blind_naming.lexicon(model, config.context)
    norms = next(iter(runs.vectors.values())).about["residual_norms"]
    rises = []
    with progress("naming", len(directions), "directions") as advance:
        for rise in blind_naming.raised_by(model, directions, questions, config.strength, norms):
            rises.append(rise)
            advance(1)
    data, halves, randoms = rises[0], rises[1 : -config.randoms], rises[-config.randoms :]
    answers = blind_naming.named_answers(questions, data, halves, randoms)
    atomic_files.write_json(run.file("named.json"), answers)
    tokens = blind_naming.named_tokens(model, data, randoms)
    atomic_files.write_json(run.file("free.json"), tokens)


def _directions(config: BlindNamingConfig, model: Model, runs: AuditRuns) -> Sequence[ByBlock]:
    """The direction of the data, then those of its halves, or against each placebo, then random
    ones."""
    by_features = config.source == "features"
    blocks = config.blocks or naming_blocks(model.n_layers)
    clean_NLD = runs.clean_features() if by_features else runs.clean_gradients()
    rng = np.random.default_rng(config.seed)
    sides = [runs.paired]
    for _ in range(config.halves):
        sides.append(runs.paired.random_half(rng))
    directions = []
    for rows in sides:
        if by_features:
            directions.append(blind_naming.feature_direction(rows, blocks))
        else:
            directions.append(blind_naming.gradient_direction(rows, clean_NLD, blocks))
    for _ in range(config.randoms):
        random = blind_naming.random_direction(clean_NLD, blocks, rng, whiten=not by_features)
        directions.append(random)
    return directions
