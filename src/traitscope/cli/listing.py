"""The list of runs below a root: a line for each, with what made it and its main number.

Of every run it reads config.json, manifest.json, label.json and one small file with numbers. Large
files are looked at from their ends, or not at all.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from traitscope.cli.printed import runs as printed
from traitscope.cli.printed import values
from traitscope.cli.run_files import RunFiles
from traitscope.config.commands import ShowConfig
from traitscope.config.common import Output
from traitscope.errors import TraitscopeError
from traitscope.plurals import counted
from traitscope.reporting.tables import csv_text
from traitscope.runs import store
from traitscope.runs.names.labels import Label, label_of
from traitscope.stages import registry

WIDEST = 34
"""Characters of a cell; of a longer one the beginning is shown."""
WHOLE = ("result", "run")
"""Columns whose cells are always whole."""
UNREADABLE = "cannot be read"
"""What stands in place of the result of a run whose files are damaged or of another version."""
COMPARED = "positive.target_logprob"
"""The difference that decides a comparison of an earlier version, which does not say so."""
RESULTS = ("decision", "study", "experiment")
"""Stages that conclude an audit, a study or an experiment."""
FOLDERS = ("audit", "experiments", "demo", "demo-quick")
"""Study folders that commands choose for their stages, beside `study-NAME`."""
HEADINGS = {"made_by": "teacher or student"}
"""Columns whose heading is not the name of their field."""


@dataclass(frozen=True)
class Listed:
    """A run in the list; what it has not is empty."""

    stage: str
    """The stage."""
    name: str = ""
    """The name that somebody gave the run."""
    model: str = ""
    """The model."""
    made_by: str = ""
    """Its interventions in words; of a student those of its teacher."""
    trait: str = ""
    """Traits by name."""
    block: str = ""
    """Blocks at which the model is changed, such as 14 or 14+15; of a student, its teacher."""
    strength: str = ""
    """Strength of steering; of a student, of its teacher's."""
    seed: str = ""
    """Seed; of what a student said, the seed of its training."""
    result: str = ""
    """The number that the run was made for, or `unfinished`."""
    note: str = ""
    """The note that somebody gave the run."""
    made: str = ""
    """When it was sealed, UTC."""
    run: str = ""
    """The run directory."""

    def cells(self) -> tuple[str, ...]:
        """The cells of the line; long ones are cut, but for the result and the run."""
        cells = []
        for name in COLUMNS:
            cell = getattr(self, name)
            cells.append(cell if name in WHOLE else _short(cell))
        return tuple(cells)


CONCLUDED = ("compare", "study", "experiment")
"stages whose traits are those that their models were asked about"
COLUMNS = tuple(field.name for field in fields(Listed))
"""The columns, in their order."""


def listed(runs: Sequence[store.Run], config: ShowConfig) -> list[Listed]:
    """The runs that the settings ask for, sorted as they say."""
    names = set(config.stage)
    for name in config.stage:
        stage = registry.stage_named(name)
        names.update((stage.name, *stage.formerly) if stage else ())
    files = RunFiles()
    rows = []
    for run in runs:
        if names and run.stage not in names:
            continue
        row = _listed(run, files)
        if not config.trait or set(config.trait) & set(row.trait.split()):
            rows.append(row)
    rows.sort(key=lambda row: getattr(row, config.sort))
    return rows


def asked_for(runs: Sequence[store.Run]) -> list[store.Run]:
    """The runs that somebody asked for, and not the stages of audits, studies and experiments.

    Those lie in folders of their own. What they concluded was asked for, and so was what has a name
    or a note.
    """
    of_commands = set()
    for run in runs:
        folder = run.path.parent
        is_usual = folder.name in FOLDERS or folder.name.startswith("study-")
        if is_usual or (run.stage in RESULTS and folder.name != Output.study):
            of_commands.add(folder)
    asked = []
    for run in runs:
        if run.path.parent not in of_commands or run.stage in RESULTS or _is_labelled(run.path):
            asked.append(run)
    return asked


def _is_labelled(folder: Path) -> bool:
    """Whether somebody gave a run a name or a note."""
    try:
        return label_of(folder) != Label()
    except TraitscopeError:
        return True


def table(rows: Sequence[Listed]) -> list[str]:
    """The lines of the list, with a header. Columns are as wide as their widest cell; a column of
    empty cells is left out."""
    header = tuple(HEADINGS.get(name, name) for name in COLUMNS)
    columns = []
    for heading, *cells in zip(header, *(row.cells() for row in rows), strict=True):
        if any(cells):
            width = max(map(len, (heading, *cells)))
            columns.append([cell.ljust(width) for cell in (heading, *cells)])
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def as_csv(rows: Sequence[Listed]) -> str:
    """The list as CSV, every cell whole."""
    return csv_text(COLUMNS, [tuple(asdict(row).values()) for row in rows])


def _listed(run: store.Run, files: RunFiles) -> Listed:
    row = Listed(stage=run.stage, run=str(run.path))
    try:
        label = label_of(run.path)
        row = replace(row, name=label.name, note=label.note)
        if not run.sealed:
            return replace(row, result="unfinished")
        settings = files.settings(run.path)
        interventions, inputs = _interventions(run, settings, files)
        student = None if run.stage == "train" else _student(run, interventions, files)
        changes, seed = interventions, settings.get("seed", "")
        if student is not None:
            seed = files.settings(student)["seed"]
            if files.manifest(student)["stage"] == "train":
                changes = files.teacher_of(student)[1]
        return replace(
            row,
            model=Path(settings.get("model", "")).name,
            made_by=", ".join(_in_words(item, inputs) for item in interventions),
            trait=_trait(run, settings, files),
            block="+".join(_once(item.get("layers") or () for item in changes)),
            strength=", ".join(_once([item["alpha"]] for item in changes if "alpha" in item)),
            seed=str(seed),
            result=main_number(run, files),
            made=files.manifest(run.path)["created"][:16].replace("T", " "),
        )
    except (TraitscopeError, OSError, ValueError, KeyError, TypeError, IndexError):
        return replace(row, result=UNREADABLE)


def _short(cell: str) -> str:
    one_line = " ".join(cell.split())
    return one_line if len(one_line) <= WIDEST else f"{one_line[: WIDEST - 3]}..."


def _once(groups: Any) -> list[str]:
    """The numbers of all groups as texts, each once, in their order."""
    texts: dict[str, None] = {}
    for group in groups:
        for value in group:
            texts[f"{value:g}"] = None
    return list(texts)


def _trait(run: store.Run, settings: dict[str, Any], files: RunFiles) -> str:
    """Return the traits of a run by name."""
    if run.stage == "measure" and settings.get("domain", "trait") != "trait":
        return str(settings["domain"])
    named = settings.get("trait") or settings.get("traits") or ()
    if not named and run.stage in CONCLUDED:
        return " ".join(_measured_traits(run, files))
    names = []
    for number, trait in enumerate((named,) if isinstance(named, str) else named):
        names.append(files.trait_name(run.path, number, str(trait)))
    return " ".join(names)


def _measured_traits(run: store.Run, files: RunFiles) -> list[str]:
    """Return the traits that the models of a comparison, a study or an experiment were asked."""
    names: dict[str, None] = {}
    for name in files.manifest(run.path)["inputs"]:
        folder = files.input_folder(run.path, name)
        if folder is None or not folder.name.startswith("measure-"):
            continue
        asked = files.settings(folder)
        if asked.get("domain", "trait") == "trait":
            names[files.trait_name(folder, 0, str(asked["trait"]))] = None
    return list(names)


def _student(
    run: store.Run, interventions: Iterable[dict[str, Any]], files: RunFiles
) -> Path | None:
    """Return the run that trained the student of a run; None where it has none."""
    for item in interventions:
        if item["kind"] == "Adapter":
            return files.input_folder(run.path, _input(item))
    return None


def _input(item: dict[str, Any]) -> str:
    """Return the input of a run that the vector or the adapter of an intervention is."""
    value = item["vector" if "vector" in item else "folder"]
    return value.partition(":")[2].partition("/")[0]


def _interventions(
    run: store.Run, settings: dict[str, Any], files: RunFiles
) -> tuple[list[dict[str, Any]], dict[str, dict]]:
    """Return the interventions of a model, of a student those of its teacher, and the inputs of the
    run that names them."""
    folder = run.path
    found = settings.get("interventions") or settings.get("teacher") or []
    if run.stage == "train":
        folder, found = files.teacher_of(run.path)
    return [item for item in found if isinstance(item, dict)], files.manifest(folder)["inputs"]


def _in_words(item: dict[str, Any], inputs: dict[str, dict]) -> str:
    """Return one intervention in a few words, such as `steer cat 0.6 at 14`."""
    kind = item["kind"]
    if kind == "SystemPrompt":
        return f"prompt “{item['text']}”"
    if kind == "WeightNoise":
        return f"noise {item['sd']:g}"
    path = Path(inputs[_input(item)]["path"])
    if kind == "Adapter":  # a run, or the file that stands for a folder from elsewhere
        return path.parent.name if path.suffix == ".safetensors" else path.name
    blocks = "+".join(map(str, item["layers"])) or "all"
    strength = f" {item['alpha']:g}" if "alpha" in item else ""
    return f"{kind.lower()} {path.stem}{strength} at {blocks}"


def main_number(run: store.Run, files: RunFiles) -> str:
    """Return the number that a run was made for, with its interval where it has one."""
    if run.stage in OF_STAGE:
        return OF_STAGE[run.stage](run, files)
    for name in ("measurements.json", "summary.json"):
        content = files.numbers(run.path, name)
        for measurement in content.get("measurements", [])[:1]:
            name = measurement["name"].rpartition(".")[2]
            return f"{name} {values.value(measurement, 2)}"
    return ""


def _generated(run: store.Run, files: RunFiles) -> str:
    settings = files.settings(run.path)
    if settings["prompts"] is None:
        return f"{settings['n']} rows"
    return files.counted(run.path, "records.jsonl")


def _trained(run: store.Run, files: RunFiles) -> str:
    last = files.last_row(run.path, printed.METRICS)
    if not last:
        return "0 steps"
    steps = last["step"]
    return f"{steps} optimizer step{'s' if steps > 1 else ''}, loss {last['loss']:.4g}"


def _kept(run: store.Run, files: RunFiles) -> str:
    summary = files.numbers(run.path, "summary.json")
    return f"kept {summary['kept']} of {summary['rows']}"


def _matched(run: store.Run, files: RunFiles) -> str:
    return f"strength {files.numbers(run.path, 'strength.json')['alpha']:.4g}"


def _explained(run: store.Run, files: RunFiles) -> str:
    summary = files.numbers(run.path, "summary.json")
    share = next(iter(summary["kinds"].values()))["share"]
    return f"share {values.value(share, 2)}"


def _aligned(run: store.Run, files: RunFiles) -> str:
    summary = files.numbers(run.path, "summary.json")
    rows = counted(summary["rows"], "row")
    return f"{rows}, {counted(len(summary['vectors']), 'vector')}"


def _scanned(run: store.Run, files: RunFiles) -> str:
    best = files.numbers(run.path, "summary.json")["best"]
    return "no cell" if best is None else f"block {best['layer']}, {best['alpha']:g}"


def _compared(run: store.Run, files: RunFiles) -> str:
    summary = files.numbers(run.path, "summary.json")
    decides = summary.get("decides", COMPARED)
    for item in summary["differences"]:
        if item["score"] == decides:
            return f"{summary['answer']}: {values.value(item['difference'], 2)}"
    return summary["answer"]


def _concluded(run: store.Run, files: RunFiles) -> str:
    """Return the outcome of the primary claim of a study or an experiment."""
    for verdict in files.numbers(run.path, printed.FINDINGS)["verdicts"]:
        if verdict["primary"]:
            return f"{verdict['outcome']}: {values.value(verdict['decided_by'], 2)}"
    return ""


def _answered(run: store.Run, files: RunFiles) -> str:
    """Return the answer of an audit, and the trait that it names."""
    result = files.numbers(run.path, "result.json")
    named = f", {result['trait']}" if result.get("trait") else ""
    return f"{result['status']}{named}, {result['rows']} rows"


OF_STAGE: dict[str, Callable[[store.Run, RunFiles], str]] = {
    "generate": _generated,
    "train": _trained,
    "filter": _kept,
    "match_kl": _matched,
    "explain": _explained,
    "gradients": _aligned,
    "steer_scan": _scanned,
    "compare": _compared,
    "study": _concluded,
    "decision": _answered,
    "experiment": _concluded,
}
"""The main number of a run of each stage that has no measurements of its own."""
