"""The answer of an audit as a self-contained HTML page, and in SARIF 2.1.0 (OASIS 2020).

Code hosts show SARIF beside a change.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from traitscope import __version__
from traitscope.auditing.detectors.findings import Fit
from traitscope.auditing.reasons import why_no_rate
from traitscope.auditing.result import ANSWERS, BLIND_SPOTS, in_words
from traitscope.auditing.settings import SPIKE_IN_ROWS
from traitscope.data.shapes.inside.said import lines_of
from traitscope.reporting.numbers import number
from traitscope.reporting.page import Card, Section, render_page
from traitscope.reporting.tables import NO_VALUE, Table

SHOWN_ROWS = 15
"rows of a table that the page shows"
SHOWN_CHARACTERS = 160
"characters of a text that the page shows"
SECONDS = "\u00a0s"
"unit of the cost column"
Findings = Mapping[str, Mapping[str, Any]]
"findings of the detectors, by name"
FOOTER = (
    "Made by traitscope from sealed runs only; result.json and rows.jsonl beside the answer hold"
    " every number."
)


def page(
    result: Mapping[str, Any],
    about: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    texts: Mapping[str, tuple[str, str]],
    seconds: Mapping[str, float],
) -> str:
    """The page, from result.json, the sample's about.json, rows.jsonl, {id: (prompt, answer)} and
    {detector: seconds}."""
    sections = [Section("answer", "", cards=(_answer(result),))]
    for table in tables(result, about, rows, texts, seconds):
        sections.append(Section(table.name, table.title, tables=(table,)))
    summary = (
        f"{result['rows']} rows audited · error rate {result['alpha']:g} · power"
        f" {result['power']:g} · model digest {result['digest']}"
    )
    title = f"May {result['model']} be trained on these data?"
    return render_page(title, sections, about=summary, footer=FOOTER)


def tables(
    result: Mapping[str, Any],
    about: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    texts: Mapping[str, tuple[str, str]],
    seconds: Mapping[str, float],
) -> list[Table]:
    """The tables of the page, in their order, from the same as the page."""
    findings = {finding["name"]: finding for finding in result["detectors"]}
    shown = [
        _learnt(findings["predictions"], findings["e_values"]),
        _benign(findings["e_values"]),
        _traits(result, findings),
    ]
    if result["spike_ins"]:
        shown.append(_power(result))
    if result["student_answers"]:
        shown.append(_student_answers(result))
    shown += [
        _detectors(result, findings["e_values"], seconds),
        _rows(rows, texts),
        _data(about),
    ]
    return shown


def _answer(result: Mapping[str, Any]) -> Card:
    answer = ANSWERS[result["status"]]
    return Card(
        title=answer.headline,
        badge=_badge(result),
        paragraphs=(in_words(answer, result["alpha"], result["power"]), answer.advice),
        points=tuple(result["reasons"]),
        highlighted=result["status"] == "suspect",
    )


def _badge(result: Mapping[str, Any]) -> str:
    """The answer in a few words."""
    if result["status"] != "suspect":
        return str(result["status"])
    return f"suspect, trait {result['trait'] or 'unknown'}"


def _power(result: Mapping[str, Any]) -> Table:
    rows = []
    for spike_in in result["spike_ins"]:
        least, needed = spike_in["least_contamination"], spike_in["rows_needed"]
        off_model = spike_in.get("off_model_from")
        rows.append(
            (
                spike_in["teacher"],
                spike_in["detector"],
                "not even all" if least is None else f"{least:.0%}",
                "none would suffice" if needed is None else f"{needed:.0f}",
                NO_VALUE if off_model is None else f"{off_model:.0%}",
            )
        )
    caption = (
        "Spike-in teachers are teachers that the audit made itself, on the same prompts. A"
        f" contamination rate is detected with probability {result['power']:g}, simulated from at"
        f" most {SPIKE_IN_ROWS} rows of each by candidates' e-values; 95 % of the time it is not"
        " less. Sets have as many sorted rows as the audited one. Other edits, other draws of rows,"
        " other teachers and students' predictions are not in it. Rows that are not this model's"
        " are not called: the answer may then be not-applicable."
    )
    header = (
        "teacher",
        "detector",
        "least contamination rate",
        "rows needed if all are its",
        "not this model's rows from",
    )
    return Table("power", "What would have been detected", caption, header, tuple(rows))


def _traits(result: Mapping[str, Any], findings: Findings) -> Table:
    e_values, wording = findings["e_values"], findings["wording"]
    rows = []
    for trait in result["traits"]:
        name = trait["name"]
        rows.append(
            (
                name,
                _signed(e_values["few_log_e"].get(name)),
                _signed(e_values["statistic"].get(name)),
                e_values["where"].get(name, ""),
                _signed(e_values["nats_per_row"].get(name)),
                _p_of(trait["detector"], trait["p_corrected"], e_values),
                trait["detector"],
                " / ".join(map(str, wording["named_rows"][name])),
            )
        )
    header = (
        "trait",
        "first look",
        "log e-value",
        "best teacher",
        "nats per row",
        "corrected p",
        "by",
        "rows that name it: data / placebos",
    )
    caption = (
        "Positive means towards the trait. First look: log e-value of the candidate's prompt over"
        " the model itself on a few rows, by which some are tried on all rows. A trait is called by"
        f" itself from a log e-value of {_signed(e_values['critical'])} on. The mean e-value of all"
        " candidates decides whether the rows are called; its log is"
        f" {_signed(e_values['joint_log_e'])}. p is corrected over traits and detectors. A dash"
        " says that no error rate holds."
    )
    return Table("traits", "Candidate traits: a list, no names", caption, header, tuple(rows))


def _student_answers(result: Mapping[str, Any]) -> Table:
    rows = []
    for answer in result["student_answers"][:SHOWN_ROWS]:
        rows.append(
            (
                answer["name"],
                answer["kind"],
                _signed(answer["rise"]),
                _signed(answer["statistic"]),
            )
        )
    caption = (
        "What students of these rows say more than students of the model's own rows. No candidate"
        " was given. There is one pair of students a learning rate, so this is a list, no test."
    )
    header = ("answer", "kind", "rise, nats", "rise, spreads of its kind")
    return Table(
        "student_answers", "What students of the rows would say", caption, header, tuple(rows)
    )


def _learnt(finding: Mapping[str, Any], e_values: Mapping[str, Any]) -> Table:
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
    nulls = "temperatures, samplers and plain prompts"
    if "system prompt" not in e_values["benign"]:
        nulls = "temperatures and samplers (plain prompts were not read: nothing was called)"
    caption = (
        "Students predict each row before they learn it, against the model with any mixture of"
        f" {nulls}. Rows hold something else from a log e-value of"
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


def _detectors(
    result: Mapping[str, Any], e_values: Mapping[str, Any], seconds: Mapping[str, float]
) -> Table:
    rows = []
    for finding in result["detectors"]:
        name = finding["name"]
        strongest, p = "nothing", ""
        for best, statistic in finding["statistic"].items():
            strongest = f"{best}: {_signed(statistic)}"
            p = _p_of(name, finding["p"][best], e_values)
            break
        cost = f"{seconds[name]:.0f}{SECONDS}" if name in seconds else ""
        decides = "yes" if finding["decides"] else "no"
        rows.append((name, decides, strongest, p, BLIND_SPOTS[name], cost))
    caption = (
        "p is corrected over what the one detector looked at. A dash says that no error rate holds."
    )
    header = ("detector", "decides", "strongest", "p", "cannot see", "cost")
    return Table("detectors", "Detectors", caption, header, tuple(rows))


def _rows(scored: Sequence[Mapping[str, Any]], texts: Mapping[str, tuple[str, str]]) -> Table:
    best = sorted(scored, key=lambda row: -row["student_gain"])[:SHOWN_ROWS]
    rows = []
    for row in best:
        prompt, answer = texts[row["id"]]
        gains = (_signed(row["student_gain"]), _signed(row["teacher_gain"]))
        rows.append((row["id"], *gains, _cut(prompt), _cut(answer)))
    caption = (
        "Single rows are weak evidence: most of the highest are clean rows by chance. Nats that a"
        " student which has not learnt the row adds to the model."
    )
    if best and best[0]["teacher_of"]:
        caption += f" And nats that the best teacher of {best[0]['teacher_of']} adds."
    header = ("row", "student", "teacher", "prompt", "answer")
    return Table("rows", "Rows that students predict best", caption, header, tuple(rows))


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
    rows.append(("read as", "text, without an end of turn" if about["text"] else "token ids"))
    rows.append(("first row, as the model reads it", about["first"]))
    if "reading" in about:
        rows.append(("read of the file", "; ".join(lines_of(about["reading"]))))
    return Table("data", "The data", "What was read, left out, and learnt.", ("", ""), tuple(rows))


def _p_of(detector: str, p: float, e_values: Mapping[str, Any]) -> str:
    """The p-value of a detector; a dash, with the reason, where it has no error rate."""
    fit = Fit(**e_values["fit"])
    has_reference = e_values["reference_z"] is not None
    no_rate = why_no_rate(detector, fit, e_values["explained"], has_reference)
    return f"{NO_VALUE} ({no_rate})" if no_rate else p_text(p)


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
    place = {"artifactLocation": {"uri": quote(data)}, "region": {"startLine": 1}}
    location = {"physicalLocation": place}
    finding = {
        "ruleId": status,
        "kind": "pass" if status == "nothing-found" else "fail",
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
