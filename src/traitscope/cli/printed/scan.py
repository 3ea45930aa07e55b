"""What the terminal says of a scan of steering strengths, and the command that follows it."""

import shlex
from collections.abc import Iterator
from typing import Any

from traitscope.cli.printed.values import value
from traitscope.runs import drawn_rows, store
from traitscope.stages.behaviours.scores import PRIMARY_SCORE


def cells(run: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    """Yield a row for each cell of a scan, and the best one."""
    summary = numbers["summary"]
    settings = drawn_rows.settings_of(run)
    if is_given := bool(settings.get("vector")):
        yield from _whose_vector(run, summary["trait"])
    elif not settings["company"]:
        yield "one trait alone: much of its vector is the form of its prompt; name --company"
    several = len({_taken(cell) for cell in summary["cells"]}) > 1
    score = summary.get("score", PRIMARY_SCORE)
    named = summary["trait"]
    what, about = " log P", f"log P: of {named}, nats; share: of {named} among its candidates"
    if score != PRIMARY_SCORE:
        what, about = "  rate", f"rate of answers in which the judge {score} sees {named}"
    yield f"strength: in mean residual norms; {about}"
    header = f"block  strength  {what}   minus base [95 %]         share   perplexity  coherent"
    yield f"{header}  vector, tokens" if several else header
    yield f"{'base':<15}  {_scan_cells(summary['base'], None, score)}"
    for cell in summary["cells"]:
        coherent = "yes" if cell["is_coherent"] else "no"
        if several:
            coherent = f"{coherent:<8}  {', '.join(_taken(cell))}"
        place = f"{cell['layer']:>5}  {cell['alpha']:>8g}"
        yield f"{place}  {_scan_cells(cell, cell['rise'], score)}  {coherent}"
    if summary["best"] is None:
        yield (
            "no coherent cell shows the trait more than the base does: try other --layers and"
            f" --alphas, {'another vector' if is_given else 'more --company'}, or another prompt"
        )
        return
    best = summary["best"]
    yield (
        f"best coherent cell: block {best['layer']}, strength {best['alpha']:g}"
        f"{', ' + ', '.join(_taken(best)) if several else ''}; chosen on these questions, so its"
        " rise is optimistic"
    )
    if not is_given and _taken(best) == ("header", "all"):
        made = f"{{steer: {best['alpha']:g}, layer: {best['layer']}}}"
        yield f"teacher of an experiment with the same company: {named}: {made}"
    if _taken(best)[0] == "stem":
        yield "its vector is taken at the answer's stem: students hardly take such a trait on"


def _whose_vector(run: store.Run, trait: str) -> Iterator[str]:
    """Yield a sentence where a given vector says that it is another trait's."""
    from traitscope.interventions.vector import load_vector

    named = load_vector(run.file(f"{trait}.safetensors")).about.get("trait")
    if named not in (None, trait):
        yield f"the vector is that of {named}, and the questions are about {trait}"


def _taken(cell: dict[str, Any]) -> tuple[str, str]:
    """Return where the vector of a cell was taken, and the tokens that are steered."""
    return cell.get("taken_at", "header"), cell.get("position", "all")


def _scan_cells(cell: dict[str, Any], rise: dict[str, Any] | None, score: str) -> str:
    """Return score, rise, share and perplexity of the base or of a cell, in columns."""
    scores = cell["scores"]
    share = scores.get("candidate_share", {}).get("estimate")
    shown = "–" if share is None else f"{share:.3f}"
    log_p = scores[score]["estimate"]
    risen = "" if rise is None else value(rise, 2)
    return f"{log_p:>6.2f}   {risen:<24}  {shown:<6}  {cell['perplexity']:>9.4g}"


def next_of_scan(run: store.Run, summary: dict[str, Any]) -> str:
    """Return the command that writes rows of the best teacher; empty where there is none."""
    from traitscope.interventions.intervention import Steer
    from traitscope.interventions.short_form import to_short
    from traitscope.models.identity.words import model_words
    from traitscope.runs.names import following

    if summary["best"] is None:
        return ""
    place, position = _taken(summary["best"])
    vector = run.file(f"{summary['trait']}.safetensors")
    if not vector.exists():
        vector = run.file(f"{place}/{vector.name}")
    layer, alpha = summary["best"]["layer"], summary["best"]["alpha"]
    steering = to_short(Steer(vector, layer=layer, alpha=alpha, position=position))
    words = [*model_words(drawn_rows.settings_of(run)), *following.place_words(run.path)]
    words += ["--vocabulary", "template", "--interventions", steering]
    return shlex.join(["traitscope", "generate", *words])
