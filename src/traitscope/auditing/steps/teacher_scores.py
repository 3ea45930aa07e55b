"""Teacher scores: the token scores of audited rows under candidate teachers, as a stage."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from traitscope.auditing import score_files
from traitscope.config.audit import TeacherScoresConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.data.records import Record
from traitscope.inference import token_rows, token_scores
from traitscope.inference.token_rows import rows_from
from traitscope.inference.token_scores import TokenScores
from traitscope.interventions import short_form
from traitscope.interventions.intervention import Intervention, Steer
from traitscope.interventions.vector import Vector, load_vector
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry


def _loaded(item: Intervention) -> Intervention:
    """The intervention with its vector in memory: it enters the model once a batch."""
    if isinstance(item, Steer) and not isinstance(item.vector, Vector):
        return replace(item, vector=load_vector(Path(item.vector)))
    return item


def run_teacher_scores(config: TeacherScoresConfig, out: Output) -> store.Run:
    """The sealed run with token scores (score_files.py), and `tokens.npz` with --keep-tokens.

    The scores of every other set of rows, and under every steered teacher, lie in a folder of
    their own (`other_set_folder` and `steered_folder`).
    """
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            sets = []
            for path in (config.data, *config.beside):
                sets.append(
                    row_files.random_subset(row_files.kept_rows(path), config.rows, config.seed)
                )
            scores = _scores(config, sets)
            for n, (records, by_teacher) in enumerate(zip(sets, scores, strict=True)):
                folder = other_set_folder(run.path, n - 1) if n else run.path
                _write_set(folder, [record.id for record in records], by_teacher)
    return run


def _scores(
    config: TeacherScoresConfig, sets: Sequence[Sequence[Record]]
) -> list[list[TokenScores]]:
    model = model_cache.model_of(config)
    interventions = short_form.parse_all(config.interventions)
    steered = [_loaded(item) for item in short_form.parse_all(config.steered)]
    rows = []
    for records in sets:
        of_set = rows_from(
            model, records, config.context, config.text, interventions, config.end_token
        )
        rows.append(of_set)
    classes = token_rows.classes_of(model, config.numbers)
    with progress("candidate teachers", sum(map(len, rows)), "rows") as advance:
        return token_scores.score_sets(
            model,
            interventions,
            steered,
            rows,
            classes,
            config.batch_size,
            advance,
            config.keep_tokens,
        )


def _write_set(folder: Path, ids: Sequence[str], by_teacher: Sequence[TokenScores]) -> None:
    """Write one set's scores: without steering first, then under every steered teacher."""
    for n, scores in enumerate(by_teacher):
        place = steered_folder(folder, n - 1) if n else folder
        score_files.write_token_scores(place, ids, scores)


def steered_folder(run: Path, n: int) -> Path:
    """The folder of the scores under the n-th of `--steered`.

    `run` is a run of the stage `teacher_scores`, or the folder of one of its other sets.
    """
    return run / f"steered-{n}"


def other_set_folder(run: Path, n: int) -> Path:
    """The folder of the scores of the n-th of `--beside`, in a run of `teacher_scores`."""
    return run / f"beside-{n}"
