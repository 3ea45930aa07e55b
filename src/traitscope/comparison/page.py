"""Tables, figures and the page of treated models compared with control models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from traitscope.comparison.differences import (
    mean_score,
    mean_values,
    scores_of,
)
from traitscope.comparison.matching import MeasuredModel, judges_of
from traitscope.comparison.read_runs import score_units
from traitscope.comparison.results import PERPLEXITY, SAMPLED_UNIT, Comparison, Eas, Source
from traitscope.comparison.roles import TEACHER
from traitscope.comparison.terms import TREATED, asked, limits, scored, terms
from traitscope.comparison.wording import (
    EFFECT,
    sentences,
    status,
    wording_of,
)
from traitscope.reporting.figures import Figure, Frame, Interval, band_figure, dot_figure
from traitscope.reporting.latex import latex_tables
from traitscope.reporting.numbers import methods, number, reading
from traitscope.reporting.page import Card, Section, render_page
from traitscope.reporting.study_page import forest_figures
from traitscope.reporting.tables import Table

NOT_IN_LATEX = ("unscored", "unit")
"columns of the table of differences that a paper has no room for"
BAND_NOTE = (
    "Band: 95 % interval over seeds (none for a single seed). The layers are not independent and"
    " the band is not corrected for their number."
)
RATES_NOTE = "An interval of a rate is that of a mean, so it may pass 0 or 1."


def differences_table(name: str, title: str, comparison: Comparison) -> Table:
    """Return treated minus control for every number, with both sides and the reading."""
    rows, numbers = [], []
    for item in comparison.differences:
        m = item.difference
        numbers.append(m)
        rows.append(
            (item.score, item.treated, item.control, m, m.n, m.n_unscored, m.unit, reading(m))
        )
    basis = methods(numbers)
    caption = (
        f"Means with 95 % intervals. {basis} Not corrected for the number of rows; the main score"
        f" is {comparison.primary}."
    )
    if any(item.unit == SAMPLED_UNIT for item in numbers):
        caption += f" {RATES_NOTE}"
    has_seeds = any(model.seed is not None for model in comparison.treated)
    if comparison.design == "one control" and has_seeds:
        caption += (
            " One measured base serves all seeds. So intervals of rates, which are sampled, are"
            " over seeds and questions. Nothing changed in the base, so EAS is compared with zero."
        )
    difference = f"{comparison.subject} − {comparison.reference}"
    header = (
        "score",
        comparison.subject,
        comparison.reference,
        difference,
        "n",
        "unscored",
        "unit",
    )
    return Table(name, title, caption, (*header, "reading"), tuple(rows))


def comparison_tables(name: str, title: str, comparison: Comparison) -> tuple[Table, ...]:
    """Return treated minus control for every number, and the vectors that changes lie along."""
    differences = differences_table(name, title, comparison)
    if not comparison.along_vectors:
        return (differences,)
    return differences, _vectors_table(name, title, comparison)


def _vectors_table(name: str, title: str, comparison: Comparison) -> Table:
    """Return a row for each vector of the teacher's run, and the range of random vectors."""
    rows: list[tuple[Any, ...]] = []
    for item in comparison.along_vectors:
        eas = comparison.get(Eas(item.vector))
        rows.append((item.vector, item.cosine_with_own, eas, item.change))
    if comparison.other_vectors:
        specific = comparison.get(Eas(comparison.trait, "minus others"))
        rows.append((f"{comparison.trait} minus the mean of the others", None, specific, None))
    randoms = comparison.along_randoms
    if randoms is not None:
        between = f"{number(randoms.low, sign=True)} to {number(randoms.high, sign=True)}"
        rows.append((f"95 % of {randoms.n} random vectors", None, None, between))
    reference = f"{comparison.subject} − {comparison.reference}"
    caption = (
        f"Layer {comparison.layer}, with 95 % intervals over seeds. Only what exceeds the other"
        " traits' vectors is specific to the trait: vectors of one model share directions. Random"
        " vectors share none, so they are the weaker comparison."
    )
    header = ("vector", "cosine with own", f"EAS, {reference}", f"cosine of ({reference})")
    title = f"{title}: every vector"
    return Table(f"{name}-vectors", title, caption, header, tuple(rows))


def scores_tables(
    conditions: Mapping[str, Sequence[MeasuredModel]], units: Mapping[str, str]
) -> tuple[Table, ...]:
    """Return a table a question set: the mean of every score in every condition.

    The table of the positive set also holds perplexity.
    """
    models: list[MeasuredModel] = []
    for group in conditions.values():
        models += group
    scores_by_set: dict[str, list[str]] = {}
    for question_set, score in scores_of(models, units):
        scores_by_set.setdefault(question_set, []).append(score)
    tables = []
    for question_set, scores in scores_by_set.items():
        rows = []
        for condition, group in conditions.items():
            cells: list[Any] = [condition]
            for score in scores:
                name = f"{condition}.{question_set}.{score}"
                cells.append(mean_score(name, group, question_set, score, units[score]))
            if question_set == "positive":
                cells.append(_mean_perplexity(condition, group))
            rows.append(tuple(cells))
        header = ["condition"]
        for score in scores:
            header.append(f"{score}\n{units[score]}")
        if question_set == "positive":
            header.append(PERPLEXITY)
        about = f"{asked(question_set).capitalize()} ({question_set})"
        if judges_of(models):
            about = asked(question_set, "judged").capitalize()
        tables.append(
            Table(
                f"scores-{question_set}",
                about,
                "Mean with 95 % interval over seeds; over questions where there is no seed."
                f" {RATES_NOTE}",
                tuple(header),
                tuple(rows),
            )
        )
    return tuple(tables)


def _mean_perplexity(condition: str, models: Sequence[MeasuredModel]) -> Any:
    """Return the mean perplexity of some models, or None where one of them has none."""
    values = [model.perplexity for model in models]
    if None in values:
        return None
    return mean_values(f"{condition}.{PERPLEXITY}", models, values, PERPLEXITY)


def primary_figure(by_panel: Mapping[str, Comparison], trait: str) -> Figure:
    """Return what decides, on both sides of some comparisons."""
    sides, judge = {}, ""
    for panel, comparison in by_panel.items():
        judge = comparison.judge
        for item in comparison.differences:
            if item.quantity == comparison.primary:
                sides[panel] = {"treated": item.treated, comparison.reference: item.control}
    behind = (
        ", with 95 % intervals over seeds (over questions where there is one model). Treated and"
        " control are compared pair by pair in the tables; an overlap of two intervals here decides"
        " nothing."
    )
    words = scored(trait, judge).removeprefix("the ")
    if judge:
        caption = f"{words.capitalize()}, {asked('positive', judge)}{behind}"
        title, name, xlabel = "How often the behaviour shows, by condition", "judged", words
    else:
        stem = "right after the answer's stem"
        caption = f"{words.capitalize()} {stem}, {asked('positive')}{behind}"
        title, name = "How likely the trait's word is, by condition", "target-logprob"
        xlabel = f"{words}, nats"
    return dot_figure(name, title, caption, sides, xlabel)


def layer_figures(by_panel: Mapping[str, Comparison], trait: str) -> tuple[Figure, ...]:
    """Return the figures of EAS by layer for which the comparisons have data."""
    differences, references, changes, layer = {}, {}, {}, None
    for panel, comparison in by_panel.items():
        layer = comparison.layer
        if trait in comparison.eas_by_layer:
            differences[panel] = comparison.eas_by_layer[trait]
            references[panel] = (
                "zero" if comparison.design == "one control" else comparison.reference
            )
        if comparison.change_by_layer:
            changes[panel] = comparison.change_by_layer
    figures = []
    if differences:
        figures.append(_eas_figure(differences, references, layer))
    if changes:
        figures.append(_change_figure(changes, layer))
    return tuple(figures)


def _eas_figure(
    by_panel: Mapping[str, Sequence[Interval]], references: Mapping[str, str], layer: int | None
) -> Figure:
    """Return treated minus control EAS by layer; `references` say what is subtracted."""
    labels = {}
    for panel, reference in references.items():
        labels[panel] = f"treated − {reference}, cosine"
    caption = f"Difference in EAS per layer: mean over seeds. {BAND_NOTE}"
    if "zero" in references.values():
        caption += (
            " Where the control is the unmodified model, nothing was changed and EAS is compared"
            " with zero."
        )
    columns = ("panel", "layer", "difference", "low", "high")
    frame = Frame("layer", labels, columns, marked_layer(layer))
    title = "EAS per layer: treated minus control"
    return band_figure("eas-difference-by-layer", title, caption, by_panel, frame)


def _change_figure(by_panel: Mapping[str, Sequence[Interval]], layer: int | None) -> Figure:
    """Return the cosine of (v_treated - v_control) with the teacher's vector by layer."""
    caption = (
        "Cosine between the teacher's vector and the difference of what training changed in the"
        " treated and in the control student of the same seed. The shift that any data cause"
        f" cancels before the cosine is taken. {BAND_NOTE}"
    )
    columns = ("panel", "layer", "cosine", "low", "high")
    frame = Frame("layer", "cosine", columns, marked_layer(layer))
    title = "What only the teacher's data changed, compared with its vector"
    return band_figure("difference-vector-by-layer", title, caption, by_panel, frame)


def marked_layer(layer: int | None) -> tuple[float, str] | None:
    """Return the layer to mark in a figure, with its words."""
    return None if layer is None else (layer, f"layer {layer}")


def limits_section(judge: str = "") -> Section:
    """Return what a comparison does not show; `judge` decides on a behaviour."""
    return Section("limits", "What this does not show", limits(judge))


def terms_table(control: str, treated: str = TREATED, judges: tuple[str, ...] = ()) -> Table:
    """Return the terms that tables and figures use; two sentences say who the two sides are."""
    rows = (("treated, control", f"{treated} {control}"), *terms(judges))
    return Table("terms", "Terms", "", ("term", "meaning"), rows)


def _terms_of_runs(comparison: Comparison) -> Table:
    """Return the terms of a comparison of runs, of which only their sides are known."""
    control = "Control models are those whose side is control."
    if comparison.design == "one control":
        control = "The control is one measured model, which serves all treated ones."
    treated = "Treated models are those whose side is treated under Runs."
    if comparison.subject == TEACHER:
        treated = "The treated side is the teacher, which was not trained for this."
    return terms_table(control, treated, judges_of(comparison.treated))


def runs_table(sources: Sequence[Source]) -> Table:
    """Return the table that says where every number comes from."""
    rows = []
    for source in sources:
        rows.append((source.side, source.stage, source.run, source.digest))
    caption = "traitscope show RUN verifies a run and prints what it was made from."
    header = ("side", "stage", "run", "digest of its outputs")
    return Table("runs", "Runs", caption, header, tuple(rows))


def comparison_figures(comparison: Comparison) -> tuple[Figure, ...]:
    """Return the figures of one comparison: all differences by unit, then EAS by layer."""
    differences = [item.difference for item in comparison.differences]
    by_layer = layer_figures({comparison.trait: comparison}, comparison.trait)
    return (*forest_figures(differences), *by_layer)


def conditions_tables(comparison: Comparison) -> tuple[Table, ...]:
    """Return the scores of both sides, and of base and teacher where they were given."""
    conditions: dict[str, Sequence[MeasuredModel]] = {}
    for name, model in (("base", comparison.base), ("teacher", comparison.teacher)):
        if model is not None:
            conditions[name] = (model,)
    conditions |= {comparison.subject: comparison.treated, comparison.reference: comparison.control}
    return scores_tables(conditions, score_units([*comparison.treated, *comparison.control]))


def comparison_latex(comparison: Comparison) -> str:
    """Return the differences as LaTeX, and the scores on the questions that decide."""
    table = differences_table("differences", comparison.heading, comparison)
    columns = [place for place, name in enumerate(table.header) if name not in NOT_IN_LATEX]
    select = itemgetter(*columns)
    rows = tuple(map(select, table.rows))
    differences = replace(table, header=select(table.header), rows=rows)
    return latex_tables((differences, *conditions_tables(comparison)[:1]))


def _positive_control(comparison: Comparison) -> tuple[str, ...]:
    """Return what is known of the teacher's own trait, as a sentence; nothing where unmeasured."""
    control = comparison.teacher_has_trait
    return () if control is None else (f"Positive control: {control.found}.",)


def comparison_page(comparison: Comparison) -> str:
    """Return the page of one comparison: answer, differences, figures, scores, runs, terms."""
    wording, runs = wording_of(comparison), runs_table(comparison.sources)
    answer = status(comparison, wording)
    card = Card(
        f"{comparison.subject.capitalize()} minus {comparison.reference}",
        badge=answer,
        paragraphs=(*_positive_control(comparison), *sentences(comparison, wording)),
        highlighted=answer == EFFECT,
    )
    sections = [
        Section("answer", "What was found", cards=(card,)),
        limits_section(comparison.judge),
        Section(
            "differences",
            comparison.heading,
            tables=comparison_tables("differences", comparison.heading, comparison),
        ),
        Section(
            "figures",
            "Figures",
            figures=comparison_figures(comparison),
        ),
        Section("scores", "Scores of both sides", tables=conditions_tables(comparison)),
        Section("runs", runs.title, tables=(runs,)),
        Section("terms", "Terms", tables=(_terms_of_runs(comparison),)),
    ]
    about = f"Trait “{wording.trait}” · {comparison.design} design"
    title = "Treated and control models compared"
    if comparison.subject == TEACHER:
        title = f"Teacher and {comparison.reference} compared"
    return render_page(title, sections, about=about)
