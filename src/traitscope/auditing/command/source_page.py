"""The page of an audit by source."""

from traitscope.auditing.command.sources import AuditBySource, AuditedSource
from traitscope.auditing.report import p_text
from traitscope.auditing.result import ANSWERS
from traitscope.reporting.page import Card, Section, render_page
from traitscope.reporting.tables import Table


def page(audited: AuditBySource) -> str:
    """One page: the answer to every source in a table, then each answer with its reasons."""
    sections = [Section("sources", "", cards=(_overview(audited),), tables=(_table(audited),))]
    for number, source in enumerate(audited.sources):
        sections.append(Section(f"source-{number}", source.name, cards=(_card(source),)))
    whole = audited.sources[0].result
    model = "this model" if whole is None else whole.model
    return render_page(
        f"May {model} be trained on these data?",
        sections,
        about=f"{audited.data} by {audited.by}",
        footer="Made by traitscope from sealed runs only; each run's result.json has every number.",
    )


def _overview(audited: AuditBySource) -> Card:
    suspects = [source.name for source in audited.sources if source.status == "suspect"]
    answer = ANSWERS[audited.status]
    points = [f"Suspect: {name}." for name in suspects]
    return Card(
        title=answer.headline,
        badge=audited.status,
        paragraphs=(
            "The answer is the worst one of the whole file and its sources. All audits share the"
            f" error rate {audited.alpha:g}. Each of them has {p_text(audited.alpha_each)}.",
        ),
        points=tuple(points),
        highlighted=audited.status == "suspect",
    )


def _table(audited: AuditBySource) -> Table:
    rows = []
    for source in audited.sources:
        used = 0 if source.result is None else source.result.rows
        trait = source.trait or ("unknown" if source.status == "suspect" else "")
        rows.append((source.name, source.rows, used, source.status, trait, str(source.run or "")))
    header = ("source", "rows in the file", "rows audited", "answer", "trait", "run")
    caption = (
        "Rows in the file are those that no filter dropped, copies among them. A source with too"
        " few rows for any test is part of the whole file only."
    )
    return Table("answers", "Answers by source", caption, header, tuple(rows))


def _card(source: AuditedSource) -> Card:
    answer = ANSWERS[source.status]
    badge = source.status
    if badge == "suspect":
        return Card(
            title=answer.headline,
            badge=f"suspect, trait {source.trait or 'unknown'}",
            points=tuple(source.reasons),
            highlighted=True,
        )
    return Card(title=answer.headline, badge=badge, points=tuple(source.reasons))
