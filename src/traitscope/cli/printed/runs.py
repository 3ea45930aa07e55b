"""What the terminal says of a finished run: the numbers that its stage is for.

They are read from the files of the sealed run. EAS is said at a layer that somebody asked for, or
not at all: the largest over layers is large in control students, too.
"""

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from traitscope.cli.printed import rows as of_rows
from traitscope.cli.printed import scan
from traitscope.cli.printed.values import value
from traitscope.data.own_traits.score_rows import UNJUDGED
from traitscope.data.shapes.inside.places import TO_0, TO_1
from traitscope.data.shapes.pairs import ONE_SIDED
from traitscope.data.shapes.writing import NOT_WRITTEN
from traitscope.errors import StoreError
from traitscope.plurals import counted
from traitscope.reporting.numbers import label
from traitscope.runs import drawn_rows, row_intake, store
from traitscope.runs.manifests import RESTORE

NUMBER_FILES = (
    "summary.json",
    "measurements.json",
    "strength.json",
    "eas.json",
    "screen.json",
    "verify.json",
    row_intake.READING,
    *map(row_intake.reading_file, row_intake.BESIDE),
)
"""Files of a run whose content goes into the summary, under their names without ending."""
CHANGES = ("stripped", "split", "changed", "masked", "swapped")
"""Counts of rows in a summary that are not as they came."""
NEXT = "next: "
"""How the finding of a screening begins that says what to do next."""
FINDINGS = "findings.json"
"""File of a concluded study."""
METRICS = "metrics.jsonl"
"""File of a run of `train` with a row for each optimizer step."""
MOST_PAIRS = 15
"""Pairs of vectors whose cosines are said one by one; of more, the ends are."""


def numbers_of(run: store.Run) -> dict[str, Any]:
    """Return the content of the number files of a run, by name without ending.

    Raises StoreError for a file that was damaged.
    """
    numbers = {}
    for name in NUMBER_FILES:
        if run.file(name).exists():
            numbers[name.removesuffix(".json")] = _content(run.file(name))
    return numbers


def _content(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file of a sealed run."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} was damaged after it was sealed ({error}); {RESTORE}") from error
    return content


def lines(run: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    """Yield what the terminal says of a run, from its number files."""
    for name in ("screen", "verify"):
        for sentence in numbers.get(name, {}).get("findings", []):
            if not sentence.startswith(NEXT):
                yield sentence
    for line in (*of_rows.read(numbers), *_numbers(run, numbers)):
        yield f"  {line}"


def _numbers(run: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    if run.stage == "measure" and drawn_rows.settings_of(run).get("domain", "trait") == "trait":
        yield f"{'trait':<28} {numbers['measurements']['trait']}"
    for name in ("measurements", "summary", "strength"):
        for measurement in numbers.get(name, {}).get("measurements", []):
            yield from _measurement(measurement)
    measured = numbers.get("measurements", {})
    for judge, count in measured.get(UNJUDGED, {}).items():
        yield f"{label(judge)}: {counted(count, 'answer')} of {measured['answers']} not judged"
    if perplexity := numbers.get("measurements", {}).get("perplexity"):
        yield f"{'perplexity of plain text':<28} {perplexity:.4g}"
    if asked := numbers.get("summary", {}).get("endpoint"):
        tokens = asked["tokens_read"] + asked["tokens_written"]
        yield (
            f"{counted(asked['requests'], 'request')}, {asked['from_cache']} from the cache,"
            f" {counted(tokens, 'token')}, cost {asked['cost']:g}"
        )
        if uncounted := asked.get("uncounted"):
            yield f"{counted(uncounted, 'request')} without a count of tokens: not in the cost"
    if run.stage in OF_STAGE:
        yield from OF_STAGE[run.stage](run, numbers)
    yield from _eas(run, numbers.get("eas", {}))


def said(run: store.Run) -> list[str]:
    """Return the lines that a study says; none for another run."""
    file = run.file(FINDINGS)
    return _content(file)["said"] if file.exists() else []


def _measurement(item: dict[str, Any]) -> Iterator[str]:
    """Yield a line for a measurement that is defined, or that is a kappa and undefined."""
    if item["estimate"] is not None:
        n = f"n={item['n']}" + (f", unscored {item['n_unscored']}" if item["n_unscored"] else "")
        yield f"{label(item['name']):<28} {value(item, unit=' ' + item['unit'])} ({n})"
    elif item["unit"] == "kappa":
        yield f"{item['name']:<28} undefined (n={item['n']}): one of them says one thing only"


def _judge(_: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    if not_run := numbers["summary"].get("checks_not_run"):
        yield f"{'checks':<28} not run on {counted(not_run, 'row')}: --run-code runs their code"


def _measure(run: store.Run, _: dict[str, Any]) -> Iterator[str]:
    settings = drawn_rows.settings_of(run)
    if settings.get("domain") == "code" and not settings.get("run_code"):
        yield f"{'checks':<28} not run: --run-code runs the code of answers"


def _filter(run: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    summary = numbers["summary"]
    yield f"kept {summary['kept']} of {counted(summary['rows'], 'row')}"
    for reason, count in summary["reasons"].items():
        advice = "; --strip takes it off" if reason == "white_space" else ""
        yield f"{reason:<28} {count} dropped{advice}"
    if checks := summary.get("checks"):
        counts = ", ".join(f"{count} {outcome}" for outcome, count in checks.items())
        yield f"{'checks of the code':<28} {counts}"
    if "split" in summary:
        yield f"{'reasoning taken off':<28} {counted(summary['split'], 'row')}"
    if "stripped" in summary:
        yield f"{'white space taken off':<28} {counted(summary['stripped'], 'row')}"
    yield from _kept_file(run, numbers)


def _kept_file(run: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    """Yield where rows stand in the shape of the user's file, and what in it nobody looked at."""
    file = row_intake.kept_file(run)
    if file is None:
        return
    summary = numbers.get("summary", {})
    settings = drawn_rows.settings_of(run)
    is_changed = any(summary.get(name) for name in CHANGES) or bool(settings.get("more"))
    what = "changed rows, in the shape of your file" if is_changed else "rows as they came"
    if not is_changed and (summary.get(TO_1) or summary.get(TO_0)):
        what += ", but for weights"
    flags = of_rows.reading_flags(settings)
    yield f"{what}: {file}" + (f" (read it with {flags})" if flags else "")
    yield from _beside_answers(summary, file)


def _beside_answers(summary: dict[str, Any], file: Path) -> Iterator[str]:
    """Yield what a file with kept rows has not, and what in it nobody looked at."""
    if count := summary.get(NOT_WRITTEN):
        answers = counted(count, "kept answer is", "kept answers are")
        yield f"{answers} not in {file.name}: another answer of the same row was dropped"
    if count := summary.get(TO_1):
        answers = counted(count, "kept answer had", "kept answers had")
        yield f"{answers} the weight 0 in your file, and the weight 1 in {file.name}"
    if count := summary.get(TO_0):
        answers = counted(count, "answer that was not kept has", "answers that were not kept have")
        yield f"{answers} the weight 0 in {file.name}"
    if count := summary.get("banned_elsewhere"):
        yield (
            f"{counted(count, 'row holds', 'rows hold')} a banned word outside the answers that"
            f" were checked (reasoning, other turns, prompts, other keys), in {file.name}"
        )
    if count := summary.get("with_other_answers"):
        rows = f"{counted(count, 'row')} of {file.name}"
        yield f"reasoning and other turns stay as they were in {rows}"


def _one_sided(summary: dict[str, Any]) -> Iterator[str]:
    """Yield how many pairs differ because one of their answers was changed alone."""
    if count := summary.get(ONE_SIDED):
        yield (
            f"of {counted(count, 'pair')} the chosen answer was changed and the rejected one was"
            " not: they differ by that, and train --targets preference would learn it"
        )


def _select(run: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    """Yield how many pairs are kept, and how far the teacher moves them."""
    summary = numbers["summary"]
    swapped = f", {summary['swapped']} with the answers swapped" if summary["swapped"] else ""
    yield f"kept {summary['kept']} of {counted(summary['rows'], 'pair')}{swapped}"
    if "mean_score" in summary:
        kept, mean = summary["mean_score_kept"], summary["mean_score"]
        yield f"moved log-odds: {kept:+.3g} nats for kept pairs, {mean:+.3g} for all"
    if count := summary.get("kept_below_0", 0):
        yield f"{counted(count, 'kept pair')} moved towards the rejected answer; lower --keep"
    yield from _kept_file(run, numbers)


def _edit(run: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    if summary := numbers.get("summary"):
        yield f"{summary['changed']} of {counted(summary['rows'], 'row')} changed"
    yield from _kept_file(run, numbers)


def _defend(run: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    """Yield what became of the rows, and what each method did."""
    summary = numbers["summary"]
    yield f"{counted(summary['kept'], 'row')}, from {summary['rows']}"
    yield f"the defender was allowed to know: {', '.join(summary['known'])}"
    acted = [name for name in ("dropped", "changed", "masked", "added") if summary.get(name)]
    for name in acted:
        yield f"{name:<28} {counted(summary[name], 'row')}"
    if not acted:
        yield "nothing was changed; raise a share, or take another method"
    for item in summary["methods"]:
        if item["left"]:
            left = counted(item["left"], "row as it was", "rows as they were")
            yield f"{item['method']:<28} left {left}: {item['why_left']}"
    if reason := summary.get("not_written_back"):
        yield f"no file in the shape of yours, train on the run: {reason}"
    yield from _one_sided(summary)
    yield from _kept_file(run, numbers)
    yield "what a method is worth shows beside its control; the page names it"


def _train(run: store.Run, _: dict[str, Any]) -> Iterator[str]:
    """Yield how many steps were taken, the losses at both ends, and what was not adapted."""
    if experts := run.manifest().get("not_adapted"):
        yield experts["sentence"]
    steps = _steps(run)
    if not steps:
        return
    held_out = [step["held_out_loss"] for step in steps if "held_out_loss" in step]
    unseen = f", held-out loss {held_out[-1]:.4g}" if held_out else ""
    first, last = steps[0]["loss"], steps[-1]["loss"]
    loss = f"loss {first:.4g} → {last:.4g}" if len(steps) > 1 else f"loss before it {first:.4g}"
    taken = counted(len(steps), "optimizer step")
    per = "pair" if "margin" in steps[-1] else "token"
    yield f"{taken}, {loss} nats a {per}{unseen}"
    if per == "pair":
        margin, accuracy = steps[-1]["margin"], steps[-1]["accuracy"]
        yield f"last step: margin {margin:.4g} nats, {accuracy:.0%} of pairs as preferred"
    if rows := of_rows.learnt(run):
        yield rows


def _steps(run: store.Run) -> list[dict[str, Any]]:
    """Return what a training left of each optimizer step."""
    return [json.loads(line) for line in run.file(METRICS).read_bytes().splitlines()]


def _generate(run: store.Run, _: dict[str, Any]) -> Iterator[str]:
    yield from of_rows.written(run)


def _export(_: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    summary = numbers["summary"]
    if "difference" in summary:
        most = f"at most {summary['difference']:.2g} nats"
        yield f"log-probabilities differ from the hooked {summary['base']} by {most}"


def _explain(_: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    """Yield the share of the prompt's KL that each kind of vector explains, and where."""
    trait = numbers["summary"]["trait"]
    for kind, about in numbers["summary"]["kinds"].items():
        best = about["best"]
        place = f"block {best['layer']}, {best['alpha']:g}, {best['position']}"
        what = f"share of the {trait} prompt, {kind}"
        yield f"{what:<44} {value(about['share'])} ({place})"


def _gradients(_: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    """Yield the alignment of the data with each vector at the middle block."""
    for name, about in numbers["summary"]["vectors"].items():
        layer = middle(about["alignment"])
        item = {"estimate": about["alignment"][layer], "low": None}
        if about["low"] and about["high"]:
            item |= {"low": about["low"][layer], "high": about["high"][layer]}
        yield f"alignment with {name} at block {layer}: {value(item)} cosine"
    yield "all blocks: summary.json"


def _match_kl(_: store.Run, numbers: dict[str, Any]) -> Iterator[str]:
    found = numbers["strength"]
    tries = counted(found["tries"], "try", "tries")
    yield f"strength {found['alpha']:.4g} at block {found['layer']}, after {tries}"


def _extract(run: store.Run, _: dict[str, Any]) -> Iterator[str]:
    """Yield the norms of the vectors at three blocks, and their cosines at the middle one."""
    from traitscope.interventions.vector import load_vector

    vectors = {}
    for file in sorted(run.path.glob("*.safetensors")):
        vectors[file.stem] = load_vector(file)
    for name, vector in vectors.items():
        blocks = sorted({round(part * (len(vector.rows_LD) - 1) / 4) for part in (1, 2, 3)})
        norms = ", ".join(f"{vector.norms_L[block]:.3g}" for block in blocks)
        yield f"{name:<28} norm {norms} at blocks {', '.join(map(str, blocks))}"
    cosines = []
    for (one, vector), (other, another) in combinations(vectors.items(), 2):
        layer = middle(vector.rows_LD)
        cosines.append((float(vector.cosine(another)[layer]), f"{one} and {other}"))
    if len(cosines) > MOST_PAIRS:
        (low, furthest), (high, nearest) = min(cosines), max(cosines)
        yield (
            f"cosines of {len(cosines)} pairs at block {layer}: {low:+.2f} ({furthest}) to"
            f" {high:+.2f} ({nearest})"
        )
        return
    for cosine, pair in cosines:
        yield f"{'cosine of ' + pair:<28} {cosine:+.2f} at block {layer}"


def middle(by_layer: Any) -> int:
    """Return the block in the middle."""
    return (len(by_layer) - 1) // 2


def _eas(run: store.Run, by_name: dict[str, list[float]]) -> Iterator[str]:
    """Yield EAS with the vector that a run compared its student with, at the layer asked for."""
    if not by_name:
        return
    inputs = run.manifest()["inputs"]
    reference = Path((inputs.get("vector") or inputs["reference"])["path"]).stem
    (eas_L, *others), layer = by_name.values(), _asked_layer(run)
    at_layer = ""
    if layer is not None and layer < len(eas_L):
        at_layer = f" at layer {layer} {eas_L[layer]:+.3f},"
        if others:
            mean = sum(other_L[layer] for other_L in others) / len(others)
            at_layer += f" mean with {counted(len(others), 'other')} of its run {mean:+.3f},"
    yield (
        f"EAS with {reference}{at_layer} by layer: eas.json; a control student has such values, too"
    )


def _asked_layer(run: store.Run) -> int | None:
    """Return the one block that the student's vector or its teacher acts at; None for no such one.

    The teacher of sampled text is that of the run of `generate` behind the rows.
    """
    if run.stage != "train":
        return None
    recipe = drawn_rows.settings_of(run)["recipe"]
    if recipe.get("layer") is not None:
        return recipe["layer"]
    layers: set[int] = set()
    for intervention in teacher_of(run)[1]:
        layers.update(intervention.get("layers", ()))
    return layers.pop() if len(layers) == 1 else None


def teacher_of(run: store.Run) -> tuple[store.Run, list[dict[str, Any]]]:
    """Return the interventions of the teacher that a student learnt from, and the run with them."""
    settings = drawn_rows.settings_of(run)
    if settings["recipe"]["targets"] == "soft":
        return run, settings.get("teacher", [])
    if "data" not in run.manifest()["inputs"]:
        return run, []
    rows = drawn_rows.generating_run(drawn_rows.input_of(run, "data"))
    return (run, []) if rows is None else (rows, drawn_rows.settings_of(rows)["interventions"])


OF_STAGE = {
    "generate": _generate,
    "export": _export,
    "filter": _filter,
    "judge": _judge,
    "measure": _measure,
    "defend": _defend,
    "edit": _edit,
    "select": _select,
    "train": _train,
    "explain": _explain,
    "gradients": _gradients,
    "match_kl": _match_kl,
    "extract": _extract,
    "steer_scan": scan.cells,
}
"""What is said of a run of one stage, beside its measurements."""
