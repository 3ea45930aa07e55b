"""The command `report`: finished runs as the files of a paper.

    traitscope report RUN ... --for-paper DIR

    figures/NAME.svg, .pdf, .png, .csv     every figure, and the numbers that it draws
    figures.tex                            floats of all figures, with their captions
    tables/NAME.csv, .tex, .md             every table: the same cells three times
    methods.md, methods.tex                how the numbers were made, from the manifests alone
    references.bib                         the sources that the methods cite

The same runs give the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traitscope.config.commands import ReportConfig
from traitscope.config.common import Output, check_needed
from traitscope.errors import ConfigError
from traitscope.papers import recomputed, sealed
from traitscope.papers.bibliography import bibtex
from traitscope.papers.contents import Contents
from traitscope.papers.folder import INDEX, write_report
from traitscope.papers.lineage import Made, behind, model_name
from traitscope.papers.methods import as_latex, as_markdown, keys_of, sentences
from traitscope.papers.together import put_together
from traitscope.papers.wording.basics import listed
from traitscope.papers.wording.changes import DIGEST, said_of
from traitscope.papers.wording.measurements import sides
from traitscope.reporting.drawing import standalone
from traitscope.reporting.latex import latex_figures, latex_tables
from traitscope.reporting.markdown import markdown_table
from traitscope.reporting.tables import Table, table_csv
from traitscope.runs import store

RUNS = "runs"
"name of the table of all runs behind a report"
ALONE = ("measure", "compare", "study", "experiment", "train", "decision")
"stages that are reported"


def run_report(config: ReportConfig, out: Output) -> dict[str, Any]:
    """Write the files of a report, print their names, and return them as a summary."""
    check_needed(config)
    runs = []
    for path in dict.fromkeys(config.runs):
        runs.append(store.load_run(path))
    made = behind(runs)
    asked = {run.path.resolve() for run in runs}
    reported = [item for item in made if item.run.path in asked]
    contents = contents_of(reported, config.score)
    files = files_of(contents, made, reported)
    folder = config.for_paper
    about = {"runs": {item.run.path.name: item.run.digest for item in reported}}
    deleted = write_report(folder, files, about)
    names = [*files, INDEX]
    for name in names:
        print(folder / name)
    for name in deleted:
        print(f"deleted {folder / name}: this report has no such file")
    return {"status": "ok", "folder": str(folder), "files": names, "deleted": deleted}


def contents_of(runs: Sequence[Made], score: str) -> Contents:
    """Return what one run gives a paper, or several together.

    Raises ConfigError for a stage that is not reported, DataError for runs that cannot stand
    together.
    """
    for run in runs:
        if run.run.stage not in ALONE:
            raise ConfigError(
                f"{run.run.path} is a run of {run.run.stage}; expected one of {', '.join(ALONE)}"
                " (decision is the run of an audit); name such a run"
            )
    if all(run.run.stage == "train" for run in runs):
        return sealed.trained(runs)
    if len(runs) > 1:
        return put_together(runs, score)
    (run,) = runs
    if run.run.stage == "compare":
        return recomputed.compared(run.run)
    if run.run.stage in ("study", "experiment"):
        return recomputed.concluded(run.run)
    return sealed.measured(run) if run.run.stage == "measure" else sealed.audited(run)


def runs_table(made: Sequence[Made], reported: Sequence[Made]) -> Table:
    """Return every run behind a report: its side in a comparison, and how its model was changed."""
    sides_of: dict[Path, list[str]] = {}
    for run in reported:
        for place, side in sides(run).items() if run.run.stage == "compare" else ():
            sides_of.setdefault(place, []).append(side)
    rows = []
    for run in made:
        side = (listed(sides_of.get(run.run.path, ())),) if sides_of else ()
        model = model_name(run.settings.get("model") or "")
        about = (run.run.stage, run.run.path.name, *side, run.run.digest[:DIGEST], model)
        rows.append((*about, said_of(run)))
    about_side = ("side",) if sides_of else ()
    header = ("stage", "run", *about_side, "digest of its outputs", "model", "interventions")
    caption = "traitscope show RUN verifies a run and prints what it was made from."
    return Table(RUNS, "Runs", caption, header, tuple(rows))


def files_of(
    contents: Contents, made: Sequence[Made], reported: Sequence[Made]
) -> dict[str, bytes]:
    """Return the files of a report by name."""
    files: dict[str, bytes] = {}
    for figure in contents.figures:
        place = f"figures/{figure.name}"
        files[f"{place}.svg"] = standalone(figure.svg).encode()
        files[f"{place}.pdf"] = figure.drawing.pdf()
        files[f"{place}.png"] = figure.drawing.png()
        files[f"{place}.csv"] = figure.csv.encode()
    if contents.figures:
        files["figures.tex"] = latex_figures(contents.figures, "figures").encode()
    tables = [table for table in contents.tables if table.name != RUNS]
    for table in (*tables, runs_table(made, reported)):
        place = f"tables/{table.name}"
        files[f"{place}.csv"] = table_csv(table).encode()
        files[f"{place}.tex"] = latex_tables([table]).encode()
        files[f"{place}.md"] = markdown_table(table).encode()
    said = sentences(contents, made, reported)
    files["methods.md"] = as_markdown(said).encode()
    files["methods.tex"] = as_latex(said).encode()
    files["references.bib"] = bibtex(keys_of(said)).encode()
    return files
