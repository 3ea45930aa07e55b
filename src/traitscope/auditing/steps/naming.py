"""Blind naming as a stage of an audit.

The method is in detectors/blind_naming.py.
"""

import numpy as np

from traitscope import atomic_files
from traitscope.auditing.detectors import blind_naming
from traitscope.auditing.detectors.blind_naming import ByBlock
from traitscope.auditing.detectors.row_gradients import RowGradients, read_row_gradients
from traitscope.auditing.settings import naming_blocks
from traitscope.config.audit import BlindNamingConfig
from traitscope.config.common import Output
from traitscope.errors import DataError
from traitscope.interventions.checks.vectors import check_vector
from traitscope.interventions.vector import load_vector
from traitscope.models.model import Model
from traitscope.plurals import counted
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry


def run_blind_naming(config: BlindNamingConfig, out: Output) -> store.Run:
    """The sealed run with `named.json` (answers, best first) and `free.json` (tokens of the whole
    vocabulary)."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config, model_cache.model_of(config))
    return run


def _write(run: store.Run, config: BlindNamingConfig, model: Model) -> None:
    directions = _directions(config, model)
    questions = blind_naming.lexicon(model, config.context)
    like = check_vector(load_vector(config.like), model, str(config.like))
    norms = like.residual_norms_L.tolist()
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


def _directions(config: BlindNamingConfig, model: Model) -> list[ByBlock]:
    """The direction of the data, then those of random halves of the rows, then random ones."""
    blocks = config.blocks or naming_blocks(model.n_layers)
    data, control = read_row_gradients(config.data), read_row_gradients(config.control)
    data_NLD, control_NLD = _paired(data, control)
    rng = np.random.default_rng(config.seed)
    directions = [blind_naming.feature_direction(data_NLD, control_NLD, blocks)]
    for _ in range(config.halves):
        half = rng.permutation(len(data_NLD))[: max(1, len(data_NLD) // 2)]
        direction = blind_naming.feature_direction(data_NLD[half], control_NLD[half], blocks)
        directions.append(direction)
    for _ in range(config.randoms):
        directions.append(blind_naming.random_direction(control_NLD, blocks, rng))
    return directions


def _paired(data: RowGradients, control: RowGradients) -> tuple[np.ndarray, np.ndarray]:
    """Mean residuals [N, L, D] of the rows that both runs have, of either run.

    Raises DataError for fewer than two: random directions are made of differences of clean rows.
    """
    place = {key: number for number, key in enumerate(control.ids)}
    data_index, control_index = [], []
    for number, key in enumerate(data.ids):
        if key in place:
            data_index.append(number)
            control_index.append(place[key])
    if len(data_index) < 2:
        raise DataError(
            f"{counted(len(data_index), 'row')} with a clean row beside it; expected two or more to"
            " draw random directions from; give more rows, or audit without --peer"
        )
    return data.features(data_index), control.features(control_index)
