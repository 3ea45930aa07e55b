"""The commands `show` and `rerun`, and what every command prints of a finished run."""

import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from traitscope import atomic_files
from traitscope.cli import flags, listing, naming
from traitscope.cli.printed import runs as printed
from traitscope.cli.printed import scan
from traitscope.config.commands import RerunConfig, ShowConfig
from traitscope.config.common import Output
from traitscope.errors import ConfigError, StoreError
from traitscope.models.identity.words import model_words
from traitscope.plurals import counted
from traitscope.runs import lineage, store
from traitscope.runs.manifests import TRAINED_ON, check_unchanged
from traitscope.runs.names import following, labels
from traitscope.runs.opening import REMARKS, TEMPLATE_DATE
from traitscope.stages import registry
from traitscope.workflow import failure_notes
from traitscope.workflow.replay import input_places, replayed_config

TREE_LINES = 40
"lines of what a run was made from"
NOTHING_KEPT = (
    "the filter kept 0 of {rows} rows; expected one or more, since a student cannot be trained on"
    " none; read why in {run}/records.jsonl, then filter with other rules"
    " (traitscope filter --help) or generate other rows (--vocabulary template gives numbers only)"
)
"""What to say of a filter that kept nothing."""


def describe(run: store.Run) -> dict:
    """Print a finished run and return its summary: its place, its files, its numbers.

    The status is `failed`, with a message, for a filter that kept no row, because nothing can be
    trained on it. The last finding of a screening says what one would type next. Raises StoreError
    for numbers that were damaged.
    """
    manifest = run.manifest()
    summary = {
        "status": "ok",
        "stage": run.stage,
        "run": str(run.path),
        "address": run.address,
        "digest": run.digest,
        "computed": not run.sealed,
        "seconds": manifest["seconds"],
        "peak_memory_mib": manifest["peak_memory_mib"],
    }
    if "not_adapted" in manifest:
        summary["not_adapted"] = manifest["not_adapted"]
    for key in (TRAINED_ON, TEMPLATE_DATE, REMARKS):
        if key in manifest:
            summary[key] = manifest[key]
    numbers = printed.numbers_of(run)
    summary |= numbers
    print(run.path)
    if run.sealed:  # a run that was just computed has said them
        _print_remarks(run)
    for line in printed.lines(run, numbers):
        print(line)
    if run.stage == "filter" and not summary["summary"]["kept"]:
        summary["status"] = "failed"
        summary["message"] = NOTHING_KEPT.format(run=run.path, **summary["summary"])
    if run.stage == "steer_scan":
        summary["next"] = scan.next_of_scan(run, summary["summary"])
    if run.stage == "export" and not run.file("model").exists():
        summary["next"] = _next_of_student(run, summary["summary"]["base"])
    if "screen" in summary:
        summary["next"] = summary["screen"]["findings"][-1].removeprefix(printed.NEXT)
    return summary


def _next_of_student(run: store.Run, base: str) -> str:
    """The command that verifies a student that was scaled down."""
    settings = {**following.settings_for(run), "model": None}
    words = model_words(settings, with_context=False)
    words += following.place_words(run.path)
    return shlex.join(["traitscope", "verify", str(run.file("student")), "--base", base, *words])


def _print_remarks(run: store.Run) -> None:
    for remark in run.manifest().get(REMARKS, ()):
        print(f"remark: {remark}")


def run_show(config: ShowConfig, out: Output) -> dict:
    """Problems and lineage of one run, or the list of what lies below the root."""
    if config.run is None:
        return _list_runs(config, out.root)
    label = labels.label_of(config.run)
    if config.name is not None or config.note is not None:
        store.load_run(config.run)
        if config.name:
            naming.check_reachable(config.name)
        label = labels.set_label(out.root, config.run, config.name, config.note)
    tree = lineage.lineage(config.run)
    problems = lineage.verify(config.run)
    for problem in problems:
        print(f"DAMAGED {problem}")
    _print_tree(tree)
    for what, text in asdict(label).items():
        if text:
            print(f"{what}: {text}")
    typed = ""
    if not problems:
        run = store.load_run(config.run)
        typed = _typed(run)
        print(f"settings: {typed}")
        for sentence in lineage.edited_since(config.run):
            print(sentence)
        for line in (*printed.lines(run, printed.numbers_of(run)), *printed.said(run)):
            print(line)
        _print_remarks(run)
    print(counted(len(problems), "problem") if problems else "every file is as it was sealed")
    status = "failed" if problems else "ok"
    about = {"status": status, **asdict(label), "problems": problems}
    return about | {"command": typed, "lineage": tree}


def _typed(run: store.Run) -> str:
    """Return the command that made a run, with the settings that do not stand at their defaults.

    For a run of another version it says why there is none.
    """
    try:
        config = replayed_config(run)
    except ConfigError as error:
        return f"not known to this version ({error})"
    return flags.typed(registry.stage_of(type(config)), config)


def _list_runs(config: ShowConfig, root: Path) -> dict:
    """Print the runs below the root, what interrupted runs left, and which stages failed.

    Stages of audits, studies and experiments are counted, unless the settings ask for them. The
    list is also written as CSV, where the settings say so.
    """
    folders = list(store.folders_below(root))
    runs = store.runs_among(folders)
    shown = runs if config.all or config.stage else listing.asked_for(runs)
    rows = listing.listed(shown, config)
    is_whole = not (config.stage or config.trait)
    aside = store.moved_aside_among(folders) if is_whole else []
    failed = {}
    above_runs = set(folders) - {run.path for run in runs}
    for folder in sorted(above_runs) if is_whole else ():
        if notes := failure_notes.read(folder):
            failed[str(folder)] = notes
    for line in listing.table(rows) if rows else ():
        print(line)
    if left_out := len(runs) - len(shown):
        whose = "of audits, studies and experiments"
        stages = counted(left_out, f"stage {whose} is", f"stages {whose} are")
        print(f"{stages} not listed: --all")
    for path in aside:
        print(f"moved aside {path}")
    for folder, notes in failed.items():
        for name, note in notes.items():
            print(f"failed     {folder}: {name}, {note['when']}: {note['message']}")
    if not (rows or aside or failed or left_out):
        which = "runs" if is_whole else "such runs"
        print(f"no {which} below {root}; expected some; name the folder with --root FOLDER")
    if config.csv is not None:
        atomic_files.write_text(config.csv, listing.as_csv(rows))
        print(config.csv)
    return {
        "status": "ok",
        "runs": [row.run for row in rows],
        "listed": [asdict(row) for row in rows],
        "not_listed": left_out,
        "moved_aside": list(map(str, aside)),
        "failed": failed,
    }


def _print_tree(tree: dict) -> None:
    """Print what a run was made from, the first lines of it where that is much."""
    lines = list(tree_lines(tree, "", 0, set()))
    for line in lines[:TREE_LINES]:
        print(line)
    if len(lines) > TREE_LINES:
        left = counted(len(lines) - TREE_LINES, "more line")
        print(f"… and {left}; --json FILE writes all, under lineage")


def tree_lines(node: dict, name: str, depth: int, shown: set[str]) -> Iterator[str]:
    """A line for each input; what an input was made from stands at its first place alone."""
    label = f"{name}: " if name else ""
    is_known = node["path"] in shown
    above = ", as above" if is_known and node.get("inputs") else ""
    yield f"{'  ' * depth}{label}{node['path']} ({node['state']}{above})"
    shown.add(node["path"])
    for child, tree in node.get("inputs", {}).items() if not is_known else ():
        yield from tree_lines(tree, child, depth + 1, shown)


def run_rerun(config: RerunConfig, out: Output) -> dict:
    """Compute a sealed run again in a temporary folder and compare every output.

    The status is `failed` where a byte differs. Raises ConfigError for a run that this version
    cannot replay, StoreError for one that is not as it was sealed.
    """
    if config.run is None:
        raise ConfigError("rerun needs a run directory: traitscope rerun DIR")
    run = store.load_run(config.run)
    manifest = run.manifest()
    check_unchanged(run.path, manifest)
    settings = replayed_config(run)
    for name, place in input_places(run).items():
        if not place.exists():
            raise StoreError(
                f"{place} is not there, which {run.path} read as {name}; expected it where it was;"
                " put it back, then run this again"
            )
    with (
        tempfile.TemporaryDirectory(prefix="traitscope-rerun-") as folder,
        _torch_threads(manifest.get("threads")),
    ):
        again = registry.replayed(settings, input_places(run), Output(root=Path(folder)))
        before, after = manifest["outputs"], again.manifest()["outputs"]
    names = sorted(before.keys() | after.keys())
    different = [name for name in names if before.get(name) != after.get(name)]
    print("same bytes" if not different else "different: " + ", ".join(different))
    if different:
        _print_reasons(run, again.address, manifest.get("packed", 1))
    return {"status": "failed" if different else "ok", "run": str(run.path), "different": different}


def _print_reasons(run: store.Run, address: str, packed: int) -> None:
    """Say what is known of why a replay came out differently."""
    if address != run.address:
        print(
            "the model, an input, the device or a default is not what it was: the replay has"
            " another address"
        )
    if packed > 1:
        print(
            f"the run was made in a pack of {packed}: alone it comes out the same to rounding, not"
            " to the byte"
        )


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """torch with as many threads as a run had, because sums differ with their number; None leaves
    it as it is."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
