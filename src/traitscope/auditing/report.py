"""The answer of an audit as a self-contained HTML page, and in SARIF 2.1.0 (OASIS 2020).

Code hosts show SARIF beside a change.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from traitscope import __version__
from traitscope.auditing.result import ANSWERS, BLIND_SPOTS
from traitscope.reporting.numbers import number
from traitscope.reporting.page import Card, Section, render_page
from traitscope.reporting.tables import Table

SHOWN_ROWS = 15
"rows of a table that the page shows"
SHOWN_CHARACTERS = 160
"characters of a text that the page shows"
BAG_P = 0.01
"p-value below which a bag of rows is counted"
SECONDS = "\u00a0s"
"unit of the cost column"
Findings = Mapping[str, Mapping[str, Any]]
"findings of the detectors, by name"
FOOTER = (
    "Made by traitscope from sealed runs only; result.json, rows.jsonl and bags.json beside the"
    " answer hold every number."
)


def page(
    result: Mapping[str, Any],
    about: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    bags: Mapping[str, Sequence[Mapping[str, float]]],
    texts: Mapping[str, tuple[str, str]],
    seconds: Mapping[str, float],
) -> str:
    """The page, from result.json, the sample's about.json, rows.jsonl, bags.json, {id: (prompt,
    answer)} and {detector: seconds}."""
    findings = {finding["name"]: finding for finding in result["detectors"]}
    tables = [
        _power(result),
        _learnt(findings["predictions"]),
        _benign(findings["e_values"]),
        _traits(result, findings),
    ]
    if result["named"]:
        tables.append(_named(result))
    tables += [
        _detectors(result, seconds),
        _baselines(findings["baselines"]),
        _rows(rows, texts),
        _bags(bags),
        _data(about),
    ]
    sections = [Section("answer", "", cards=(_answer(result),))]
    for table in tables:
        sections.append(Section(table.name, table.title, tables=(table,)))
    summary = (
        f"{result['rows']} rows audited · error rate {result['alpha']:g} · power"
        f" {result['power']:g} · model digest {result['digest']}"
    )
    title = f"May {result['model']} be trained on these data?"
    return render_page(title, sections, about=summary, footer=FOOTER)


def _answer(result: Mapping[str, Any]) -> Card:
    answer = ANSWERS[result["status"]]
    return Card(
        title=answer.headline,
        badge=result["status"],
        paragraphs=(answer.meaning.format(once=round(1 / result["alpha"])),),
        points=tuple(result["reasons"]),
        highlighted=result["status"] == "suspect",
    )


def _power(result: Mapping[str, Any]) -> Table:
    rows = []
    for spike_in in result["spike_ins"]:
        least, needed = spike_in["least_contamination"], spike_in["rows_needed"]
        rows.append(
            (
                spike_in["teacher"],
                spike_in["detector"],
                "not even all" if least is None else f"{least:.0%}",
                "none would suffice" if needed is None else f"{needed:.0f}",
            )
        )
    caption = (
        "Spike-in teachers are teachers that the audit made itself, on the same prompts. A"
        f" contamination rate is detected with probability {result['power']:g}."
    )
    header = (
        "teacher",
        "detector",
        "least contamination rate",
        "rows needed if all are its",
    )
    return Table("power", "What would have been detected", caption, header, tuple(rows))


def _traits(result: Mapping[str, Any], findings: Findings) -> Table:
    gradients, e_values, wording = (
        findings["gradients"],
        findings["e_values"],
        findings["wording"],
    )
    rows = []
    for trait in result["traits"]:
        name = trait["name"]
        rows.append(
            (
                name,
                _signed(e_values["statistic"].get(name)),
                e_values["where"].get(name, ""),
                _signed(e_values["nats_per_row"].get(name)),
                p_text(trait["p_corrected"]),
                trait["detector"],
                _signed(gradients["statistic"][name]),
                gradients["where"][name],
                _signed(gradients["beyond_surface"][name]),
                " / ".join(map(str, wording["named_rows"][name])),
            )
        )
    header = (
        "trait",
        "log e-value",
        "best teacher",
        "nats per row",
        "corrected p",
        "by",
        "gradient, z",
        "block",
        "gradient beyond surface, z",
        "rows that name it: data / placebos",
    )
    caption = (
        "Positive means towards the trait. A trait is called by itself from a log e-value of"
        f" {_signed(e_values['critical'])} on. The mean e-value of all candidates decides whether"
        f" the rows are called; its log is {_signed(e_values['joint_log_e'])}. p is corrected over"
        " traits and detectors. Gradients decide nothing: they say where the search begins. In"
        f" clean data they rarely exceed z = {gradients['critical']:.1f}, but formats move them,"
        " too."
    )
    return Table("traits", "Candidate traits", caption, header, tuple(rows))


def _named(result: Mapping[str, Any]) -> Table:
    rows = []
    for answer in result["named"][:SHOWN_ROWS]:
        rows.append(
            (
                answer["name"],
                _signed(answer["statistic"]),
                p_text(answer["p_corrected"]),
                f"{answer['agreement']:.0%}",
            )
        )
    caption = (
        "What the model says when the gradient direction of the data is added to it, against random"
        " directions of the same length. No candidate was given."
    )
    header = ("answer", "rise, z", "corrected p", "halves or placebos that agree")
    return Table("named", "Blind naming", caption, header, tuple(rows))


def _learnt(finding: Mapping[str, Any]) -> Table:
    rows = []
    for n, log_e in finding["curve"]:
        rows.append((str(n), _signed(log_e)))
    gain = "too few rows to say what a student gains"
    if finding["learnt"]:
        estimate, low, high = (_signed(value) for value in finding["learnt"].values())
        gain = (
            f"in the later half of the rows the best student gains {estimate} nats a row"
            f" [{low}, {high}] over the model at its best temperature"
        )
    caption = (
        "Students predict each row before they learn it, against the model with any mixture of"
        " temperatures, samplers and plain prompts. Rows hold something else from a log e-value of"
        f" {_signed(finding['critical'])} on; {gain}."
    )
    return Table("learnt", "What students learn", caption, ("rows", "log e-value"), tuple(rows))


def _benign(finding: Mapping[str, Any]) -> Table:
    by_size = sorted(finding["benign"].items(), key=lambda item: -item[1])
    rows = [(kind, _signed(nats)) for kind, nats in by_size]
    caption = (
        "What changes of the plain model explain of the rows, beyond its best single temperature. A"
        " few nats are chance."
        f" {finding['sorted_rows']} of {finding['scored_rows']} rows are sorted, and no evidence."
    )
    header = ("kind", "nats explained")
    return Table("benign", "Benign explanations", caption, header, tuple(rows))


def _detectors(result: Mapping[str, Any], seconds: Mapping[str, float]) -> Table:
    rows = []
    for finding in result["detectors"]:
        name = finding["name"]
        strongest, p = "nothing", ""
        for best, statistic in finding["statistic"].items():
            strongest, p = f"{best}: {_signed(statistic)}", p_text(finding["p"][best])
            break
        cost = f"{seconds[name]:.0f}{SECONDS}" if name in seconds else ""
        decides = "yes" if finding["decides"] else "no"
        rows.append((name, decides, strongest, p, BLIND_SPOTS[name], cost))
    caption = "p is corrected over what the one detector looked at."
    header = ("detector", "decides", "strongest", "p", "cannot see", "cost")
    return Table("detectors", "Detectors", caption, header, tuple(rows))


def _baselines(finding: Mapping[str, Any]) -> Table:
    by_size = sorted(finding["statistic"].items(), key=lambda item: -abs(item[1]))
    rows = []
    for name, z in by_size[:SHOWN_ROWS]:
        rows.append((name, _signed(z), p_text(finding["p"][name])))
    caption = (
        "What differs without any model, or in how well the model predicts. A bag of words tells"
        f" data from placebos with AUROC {finding['words_auroc']:.2f}; 0.5 is chance."
    )
    header = ("feature", "data minus placebos, z", "p that it is larger")
    return Table("baselines", "Baselines", caption, header, tuple(rows))


def _rows(scored: Sequence[Mapping[str, Any]], texts: Mapping[str, tuple[str, str]]) -> Table:
    best = sorted(scored, key=lambda row: -row["gradient"])[:SHOWN_ROWS]
    rows = []
    for row in best:
        prompt, answer = texts[row["id"]]
        gain = _signed(row["log_likelihood_gain"])
        rows.append((row["id"], _signed(row["gradient"]), gain, _cut(prompt), _cut(answer)))
    trait, candidate = "", ""
    if best:
        trait, candidate = best[0]["along"], best[0]["teacher_of"]
    caption = (
        "Single rows are weak evidence: most of the highest are clean rows by chance. Gradient"
        f" along {trait}, in standard deviations of placebos; nats that the best teacher of"
        f" {candidate} adds, for rows that were scored."
    )
    header = ("row", "gradient", "nats added", "prompt", "answer")
    return Table("rows", "Rows with the largest gradients", caption, header, tuple(rows))


def _bags(bags: Mapping[str, Sequence[Mapping[str, float]]]) -> Table:
    rows = []
    for size, bags_of_size in bags.items():
        p_values = np.array([bag["p"] for bag in bags_of_size])
        largest = max(bags_of_size, key=lambda bag: bag["z"])
        rows.append(
            (
                size,
                str(len(bags_of_size)),
                _signed(largest["z"]),
                p_text(min(1.0, len(p_values) * float(p_values.min()))),
                str(int((p_values <= BAG_P).sum())),
                f"{BAG_P * len(p_values):.1f}",
            )
        )
    caption = (
        "Gradients of consecutive rows of the file together, along the first candidate's vector,"
        " against permutations with their placebos. The candidate was chosen on the same rows, so"
        " this is for looking only."
    )
    header = (
        "rows a bag",
        "bags",
        "highest z",
        "its p, corrected over the bags",
        f"bags with p at most {BAG_P:g}",
        "expected in clean data",
    )
    return Table("bags", "Bags of rows", caption, header, tuple(rows))


def _data(about: Mapping[str, Any]) -> Table:
    form = about["format"]
    described = []
    for key, value in form.items():
        if key != "rules":
            described.append(f"{key} {value}")
    rows = []
    for name, count in about["counts"].items():
        rows.append((name.replace("_", " "), str(count)))
    rows.append(("format", ", ".join(described)))
    rows.append(("rules", str(form.get("rules", "none"))))
    rows.append(("read as", "text" if about["text"] else "token ids"))
    rows.append(("first row, as the model reads it", about["first"]))
    return Table("data", "The data", "What was read, left out, and learnt.", ("", ""), tuple(rows))


def p_text(p: float) -> str:
    """A p-value with two digits, or a bound below one in ten thousand."""
    return "<\u00a00.0001" if p < 1e-4 else f"{p:.2g}"


def _signed(value: float | None) -> str:
    return "–" if value is None else number(float(value), 2, sign=True)


def _cut(text: str) -> str:
    """A text on one line, cut to the characters that the page shows."""
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_CHARACTERS else flat[: SHOWN_CHARACTERS - 1] + "…"


def sarif_log(result: Mapping[str, Any], data: str) -> dict[str, Any]:
    """A SARIF log with one result: the answer and its reasons, located at the data file."""
    status = result["status"]
    message = (
        f"{status} at error rate {result['alpha']:g} on {result['rows']} rows for"
        f" {result['model']}: {'; '.join(result['reasons'])}"
    )
    rules = []
    for name, answer in ANSWERS.items():
        rules.append({"id": name, "shortDescription": {"text": answer.rule}})
    location = {"physicalLocation": {"artifactLocation": {"uri": data}, "region": {"startLine": 1}}}
    finding = {
        "ruleId": status,
        "level": ANSWERS[status].level,
        "message": {"text": message},
        "locations": [location],
    }
    driver = {"name": "traitscope", "version": __version__, "rules": rules}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": [finding]}],
    }
