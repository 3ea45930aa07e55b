"""Sentences about what students were trained on, and about rows that were only watched."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from traitscope.papers.lineage import Made
from traitscope.papers.wording.basics import Sentence, counted, listed, of_stage
from traitscope.papers.wording.changes import DIGEST, changes_of, replicates
from traitscope.runs import store


@dataclass(frozen=True)
class Source:
    """Where the rows of a student come from."""

    words: str
    """Who wrote them: a file with its digest, or a model, and which other one it is."""
    writer: Made | None
    """The run that wrote them; None for a file."""
    kept: int | None
    """Rows that the last filter kept; None where there was none."""
    runs: tuple[Path, ...]
    """Runs that the rows passed through, the student's own not among them."""


def sentences(made: Sequence[Made]) -> list[Sentence]:
    """Return a sentence for each source of rows, and one for rows that were only watched."""
    said = []
    for students in _groups(made):
        seeds = counted("seed", [student.settings["seed"] for student, _ in students])
        text = f"Students of {seeds} were trained on {_counts(students)}{_by_whom(students)}."
        said.append(Sentence(text))
    watched = watched_only(made)
    if watched:
        text = (
            f"EAS was watched on rows {listed(map(_whose, watched))}, which are no training data."
        )
        said.append(Sentence(text))
    return said


def selections(made: Sequence[Made]) -> list[Sentence]:
    """Return who chose among pairs of answers, by what, and how many were kept."""
    said = []
    for group in replicates(of_stage(made, "select"), _rule_of_selection):
        by, relabel, per_token = _rule_of_selection(group[0])
        counts = []
        for run in group:
            summary = run.numbers("summary.json")
            counts.append(f"{summary['kept']} of {summary['rows']}")
        if by == "random":
            rule = "labelled and kept at random" if relabel else "kept at random"
        else:
            norm = ", each log-probability divided by its tokens" if per_token else ""
            rule = (
                f"kept by how far the model under {changes_of(group)} moved the log-odds of the"
                f" chosen answer over the rejected one{norm}"
            )
            rule += "; its sign said which answer is preferred" if relabel else ""
        said.append(Sentence(f"Pairs of answers were {rule} (kept: {listed(counts)})."))
    return said


def _rule_of_selection(run: Made) -> tuple[str, bool, bool]:
    """Return who chose, whether labels were set anew, and whether answers count per token."""
    settings = run.settings
    return settings["by"], settings["relabel"], settings["per_token"]


def _groups(made: Sequence[Made]) -> list[list[tuple[Made, Source]]]:
    """Return the students of each source; writers that are replicates are one source."""
    of_files: dict[str, list[tuple[Made, Source]]] = {}
    of_writers: dict[Path, list[tuple[Made, Source]]] = {}
    writers: dict[Path, Made] = {}
    for student in of_stage(made, "train"):
        source = source_of(student)
        if source.writer is None:
            of_files.setdefault(source.words, []).append((student, source))
        else:
            place = source.writer.run.path.resolve()
            writers[place] = source.writer
            of_writers.setdefault(place, []).append((student, source))
    groups = list(of_files.values())
    for alike in replicates(
        writers.values(), lambda run: of_writers[run.run.path.resolve()][0][1].words
    ):
        groups.append([pair for run in alike for pair in of_writers[run.run.path.resolve()]])
    return groups


def _by_whom(students: Sequence[tuple[Made, Source]]) -> str:
    """Return who wrote the rows of students, in words, with all strengths."""
    writers = [source.writer for _, source in students if source.writer is not None]
    return f"{_writer(writers)}{students[0][1].words}" if writers else students[0][1].words


def _counts(students: Sequence[tuple[Made, Source]]) -> str:
    """Return how many rows a student read, where a filter or a setting says so."""
    counts = []
    for student, source in students:
        limit = student.settings.get("max_rows")
        known = [count for count in (source.kept, limit) if count is not None]
        if known:
            at_most = "" if source.kept is not None else "at most "
            counts.append(f"{at_most}{min(known)}")
    return f"{listed(counts)} rows " if counts else "rows "


def source_of(student: Made) -> Source:
    """Follow the rows of a student back to the run or the file that they come from."""
    runs: list[Path] = []
    kept, step = None, student
    while "data" in step.manifest["inputs"]:
        place = step.inputs["data"]
        folder = store.run_folder(place)
        if folder is None:
            digest = step.manifest["inputs"]["data"]["digest"][:DIGEST]
            return Source(f"of {place.name} (digest {digest})", None, kept, tuple(runs))
        step = Made(store.load_run(folder))
        runs.append(step.run.path.resolve())
        if kept is None:
            kept = step.numbers("summary.json").get("kept")
    model = step.settings.get("model")
    other = f" {Path(model).name}" if model and model != student.settings["model"] else ""
    return Source(other, step, kept, tuple(runs))


def _writer(rows: Sequence[Made]) -> str:
    """Return who wrote the rows of runs, which are replicates, in words."""
    changed = changes_of(rows)
    return f"by the model under {changed}" if changed else "by the unmodified model"


def _whose(place: Path) -> str:
    """Return whose rows lie at a place, in words."""
    if store.run_folder(place) is None:
        return f"of {place.name}"
    run = Made(store.load_run(place))
    if run.settings.get("prompts", True):
        return f"of {place.name}"
    return f"{_writer([run])} ({counted('prompt seed', [run.settings['prompt_seed']])})"


def watched_only(made: Sequence[Made]) -> list[Path]:
    """Return the runs on whose rows EAS is taken, and on which no student is trained."""
    trained: set[Path] = set()
    watched: dict[Path, None] = {}
    for student in of_stage(made, "train"):
        trained.update(source_of(student).runs)
        if "eas_data" in student.manifest["inputs"]:
            place = student.inputs["eas_data"]
            watched[(store.run_folder(place) or place).resolve()] = None
    return [path for path in watched if path not in trained]
