"""The stage `information`: what number rows can carry of each trait, before anything is trained.

Every pass is kept in scratch/ as soon as it is done, so an interrupted run goes on.

Shapes: K teachers, R rows, X exact rows, P sampled places, S places of a row, C tokens of a class,
D d_model.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from traitscope import array_files, atomic_files
from traitscope.config.analysis import InformationConfig
from traitscope.config.common import Output
from traitscope.data.records import Record, dump_records, read_records
from traitscope.data.trait_files import trait_names
from traitscope.data.traits import load_trait
from traitscope.errors import ConfigError
from traitscope.inference.decode import Constraint
from traitscope.information import influence_table, passes, summary, teachers
from traitscope.information.divergences import Readings
from traitscope.information.influence_table import Influence
from traitscope.information.summary import Measured
from traitscope.information.teachers import BASE, Teacher
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.stages.generate import number_constraint

ROWS = "records.jsonl"
"File of the rows that all teachers read."
DIGITS, EXACT = "digits", "exact"
"Names of the passes over all rows, and of those in float32 over the first ones."
EXACT_DTYPE = "fp32"


@dataclass(frozen=True)
class _Work:
    """What every step of a run needs."""

    run: store.Run
    config: InformationConfig
    group: list[Teacher]
    share_K: np.ndarray
    constraint: Constraint

    def kept(self, name: str) -> np.ndarray | None:
        """An array that an interrupted run left in scratch/, or None."""
        file = self._file(name)
        return array_files.read_array(file) if file.exists() else None

    def keep(self, name: str, array: np.ndarray) -> None:
        """Put an array into scratch/."""
        array_files.write_array(self._file(name), array)

    def _file(self, name: str) -> Path:
        return self.run.file(f"scratch/{name}.npy")


def run_information(config: InformationConfig, out: Output) -> store.Run:
    """Return the sealed run with `records.jsonl` (the rows), `pairs.jsonl` (divergences),
    `influence.jsonl`, `summary.json`, and a page with its tables."""
    config = opening.settled(config)
    group = teachers.teachers_of(config)
    if len(group) < 2:
        raise ConfigError(
            "only the unmodified model is left to compare; name --traits, --plain or --steered"
        )
    with registry.opened(config, out) as run:
        if not run.sealed:
            _compute(run, config, group)
    return run


def _compute(run: store.Run, config: InformationConfig, group: list[Teacher]) -> None:
    model = model_cache.model_of(config)
    constraint = number_constraint(model, config.count, config.separator, True, 0, config.context)
    work = _Work(run, config, group, teachers.shares(group), constraint)
    records = _rows(work, model)
    readings = _readings(work, model, records, DIGITS)
    exact = vocabulary_KKX = None
    found_influence: Influence | None = None
    names: list[str] = []
    if config.exact_rows:
        exact_model = model_cache.model_of(replace(config, dtype=EXACT_DTYPE))
        records = records[: config.exact_rows]
        if config.dtype == EXACT_DTYPE:
            exact = readings.first(config.exact_rows)
        else:
            exact = _readings(work, exact_model, records, EXACT)
        vocabulary_KKX = _vocabulary(work, exact_model, exact)
        names = _influenced(work)
        if names:
            found_influence = _influence(work, exact_model, records, exact, names)
    is_exact = config.dtype == EXACT_DTYPE
    measured = Measured(group, readings, exact, vocabulary_KKX, found_influence, names, is_exact)
    summary.write(run.path, config.model, measured)


def _rows(work: _Work, model: Model) -> list[Record]:
    """The rows; those of an interrupted run are read."""
    config, file = work.config, work.run.file(ROWS)
    if not file.exists():
        with progress("rows", config.rows, "rows") as advance:
            records = passes.written_rows(
                model,
                work.group,
                teachers.writers(work.share_K, config.rows, config.seed),
                work.constraint,
                context=config.context,
                count=config.count,
                prompt_seed=config.prompt_seed,
                seed=config.seed,
                done=advance,
            )
        atomic_files.write_text(file, dump_records(records))
    return read_records(file)


def _readings(work: _Work, model: Model, records: list[Record], name: str) -> Readings:
    """What every teacher says of the digits of the rows.

    In float32, its final hidden states [X, S, D] at the exact rows are kept, too.
    """
    places = passes.sampled_places(work.constraint)
    columns = passes.class_of(work.constraint)
    config = work.config
    by_teacher = []
    with progress(name, len(work.group) * len(records), "rows") as advance:
        for number, teacher in enumerate(work.group):
            log_p_RPC = work.kept(f"{name}-{number:03d}")
            if log_p_RPC is None:
                hidden_RSD = passes.hidden_of(
                    model, teacher, records, config.context, config.batch_size, advance
                )
                if name == EXACT or config.dtype == EXACT_DTYPE:
                    states_XSD = hidden_RSD[: config.exact_rows]
                    work.keep(f"states-{number:03d}", states_XSD.cpu().numpy())
                log_p_RPC = passes.class_log_probs(model, hidden_RSD[:, places], columns)
                work.keep(f"{name}-{number:03d}", log_p_RPC)
            else:
                advance(len(records))
            by_teacher.append(log_p_RPC.astype(np.float64))
    chosen_RP = passes.chosen_tokens(records, places, columns)
    return Readings(np.stack(by_teacher), chosen_RP, work.share_K)


def _vocabulary(work: _Work, model: Model, exact: Readings) -> np.ndarray:
    """KL [K, K, X] of every pair over the whole vocabulary, by row, over all places of a row."""
    places = np.array(passes.sampled_places(work.constraint))
    before_S = np.searchsorted(places, np.arange(len(work.constraint)))
    weights_KXS = exact.weights()[:, :, before_S]
    states = [work.kept(f"states-{number:03d}") for number in range(len(work.group))]
    hidden_KXSD = torch.from_numpy(np.stack(states))
    by_row = []
    with progress("vocabulary", work.config.exact_rows, "rows") as advance:
        for row in range(work.config.exact_rows):
            divergence_KK = work.kept(f"vocabulary-{row:04d}")
            if divergence_KK is None:
                hidden_KSD = hidden_KXSD[:, row].to(model.device)
                divergence_KK = passes.vocabulary_pairs(model, hidden_KSD, weights_KXS[:, row])
                work.keep(f"vocabulary-{row:04d}", divergence_KK)
            by_row.append(divergence_KK)
            advance(1)
    return np.stack(by_row, axis=2)


def _influenced(work: _Work) -> list[str]:
    """The traits on which influence is computed, by name or file, in the order of the teachers."""
    asked: list[str] = []
    for name in work.config.influence:
        asked += trait_names(work.config.traits) if name == "all" else [name]
    traits = {load_trait(name).name: name for name in asked}
    order = [teacher.name for teacher in work.group if teacher.has_trait]
    rest = [name for name in traits if name not in order]
    return [traits[name] for name in (*order, *rest) if name in traits]


def _influence(
    work: _Work, model: Model, records: list[Record], exact: Readings, names: list[str]
) -> Influence:
    """The influence of all teachers' rows on some traits."""
    base = [teacher.name for teacher in work.group].index(BASE)
    by_trait = []
    with progress("influence", len(names), "traits") as advance:
        for name in names:
            place = f"influence-{load_trait(name).name}"
            change_XPC = work.kept(place)
            if change_XPC is None:
                change_XPC = _change(work, model, records, name)
                work.keep(place, change_XPC)
            by_trait.append(change_XPC)
            advance(1)
    return influence_table.influence(exact, base, np.stack(by_trait))


def _change(work: _Work, model: Model, records: list[Record], name: str) -> np.ndarray:
    """The derivative [X, P, C] of the base's log-probabilities along the gradient of a trait."""
    return passes.change_along(
        model,
        load_trait(name),
        records,
        work.constraint,
        work.config.context,
        work.config.batch_size,
    )
