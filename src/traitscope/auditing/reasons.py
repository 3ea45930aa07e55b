"""Why the answer of an audit is what it is, in sentences for a reader."""

from collections.abc import Mapping, Sequence
from math import inf

from traitscope.auditing.detectors import fit_test
from traitscope.auditing.detectors.findings import (
    EValueFinding,
    Fit,
    GivenTeacherFinding,
    PredictionFinding,
    WordingFinding,
)
from traitscope.auditing.detectors.predictions import CHANGE
from traitscope.auditing.result import Call, SpikeIn
from traitscope.auditing.settings import DECIDING, Settings
from traitscope.inference.token_bins import BETAS, BY_PLACE, BY_RANK

NOT_EXCLUDED = (
    "smaller shares and other teachers are not excluded, such as those of another candidate, or"
    " fine-tuned ones, whose power is not measured here"
)
"what nothing-found does not say"
UNFIT = "rows do not fit the model"
"why a p-value has no error rate"
SHOWN_CALLS = 3
"called traits that the reasons list"
SHOWN_ALIKE = 6
"traits that cannot be told apart which the reasons list"


def why_no_rate(
    detector: str, fit: Fit, explained: Mapping[str, float] | None, has_reference: bool
) -> str:
    """Why a detector's p-values have no error rate, in a few words; empty where they have one.

    explained: What candidates explain of rows that do not fit the model; None for rows that do.
    has_reference: Whether the rows are compared with those of a reference.
    """
    if detector == WordingFinding.detector:
        return UNFIT if fit.off_model and not has_reference else ""
    if detector == EValueFinding.detector:
        is_unfit = explained is not None
    elif detector in (PredictionFinding.detector, GivenTeacherFinding.detector):
        is_unfit = fit.p < fit_test.FIT_ALPHA
    else:
        return ""
    if is_unfit:
        return UNFIT
    return "temperature is not tried" if is_beyond_the_grid(fit.temperature) else ""


def is_beyond_the_grid(temperature: float) -> bool:
    """Whether rows may have been sampled at a temperature that no null has."""
    return temperature in (1 / BETAS[0], 1 / BETAS[-1])


def beyond_the_grid(fit: Fit) -> str:
    """That the temperature of the rows is none of those that are tried."""
    return (
        f"the temperature that fits these rows best is {fit.temperature:g}, the last one that is"
        f" tried ({1 / BETAS[-1]:g} to {1 / BETAS[0]:g}): they are nearly noise, or were written"
        " greedily, so no error rate holds; audit rows that were sampled between"
    )


def of_calls(
    named: str | None, hits: Sequence[Call], finding: EValueFinding, alpha: float
) -> list[str]:
    """Why candidates call the rows, and which trait it is.

    named: The trait that is named, if one is.
    """
    source = _explaining(hits, finding)
    if named is None:
        reasons = [_unnamed(hits, finding, alpha)]
    elif source is not None:
        reasons = []
    elif hits[0].detector == finding.detector:
        reasons = [
            f"the trait is {named}: if one of the teachers that were tried wrote these rows, every"
            f" other candidate is excluded at an error rate of {alpha:.2g}; how often another"
            " teacher gets a wrong name is not measured"
        ]
    else:
        reasons = []
    if source is not None:
        reasons.append(_off_model(source, finding))
    has_reference = finding.reference_z is not None
    for call in hits[:SHOWN_CALLS]:
        no_rate = why_no_rate(call.detector, finding.fit, finding.explained, has_reference)
        reasons.append(_called(call, alpha, no_rate))
    return reasons


def _off_model(source: str, finding: EValueFinding) -> str:
    """Why a candidate is called for rows that do not fit the model."""
    return (
        f"{source} is called because its teacher explains {finding.explained[source]:.0%} of how"
        f" these rows differ from the model's (threshold: {fit_test.EXPLAINED:.0%}); the model"
        " alone did not write them, so no error rate holds, for the answer or for the name"
    )


def _unnamed(hits: Sequence[Call], finding: EValueFinding, alpha: float) -> str:
    """That candidates call the rows together, and that none of them is named."""
    p = min(1.0, len(DECIDING) * finding.joint_p)
    if p > alpha:  # called by a comparison with reference rows
        return (
            "trait unknown: candidates are called against clean rows, which excludes no other one"
        )
    text = (
        "trait unknown: one of the candidates, or a teacher like theirs, wrote these rows, or some"
        f" of them: log of the mean e-value {finding.joint_log_e:.1f}, corrected p {p:.2g}"
        f" (threshold: {alpha:.2g})"
    )
    if not hits:
        text += "; none is called by itself"
    untried = finding.candidates - len(finding.statistic)
    if untried > 0:
        text += f"; {untried} of {finding.candidates} candidates were not tried on all rows"
    kept = finding.not_excluded
    if len(kept) > 1:
        shown = ", ".join(kept[:SHOWN_ALIKE])
        further = len(kept) - SHOWN_ALIKE
        text += (
            f"; these rows do not tell which of {shown}{f' and {further} more' * (further > 0)} it"
            f" is: the others exclude none of them at an error rate of {alpha:.2g}"
        )
    return text


def _explaining(hits: Sequence[Call], finding: EValueFinding) -> str | None:
    """The candidate that rows are called for because it explains them, if that is why."""
    if finding.explained is None:
        return None
    if not hits:
        return max(finding.explained, key=finding.explained.__getitem__)
    by_e_values = [call.name for call in hits if call.detector == finding.detector]
    return by_e_values[0] if by_e_values else None


def of_change(change: PredictionFinding, finding: EValueFinding) -> list[str]:
    """Why predictions call the rows, and what is known of their writer."""
    reasons = [
        "trait unknown: students that predict each row before they learn it do better than this"
        " model with any temperature, sampler or plain prompt, or any mixture of them: log e-value"
        f" {change.statistic[CHANGE]:.1f} (threshold: {change.critical:.1f}); a changed model, or a"
        " plain prompt, sampler or filter that is not listed, wrote these rows or some of them"
    ]
    if change.learnt:
        reasons.append(
            f"a student gains {change.learnt['estimate']:.2f} nats a row"
            f" [{change.learnt['low']:.2f}, {change.learnt['high']:.2f}] in the later half, each"
            " row predicted from batches before"
        )
    if finding.fit.off_model or finding.set_aside:
        reasons.append(
            "the rows do not fit this model, and students that predict each from all batches before"
            f" it explain {change.explained:.0%} of that in the later half (threshold:"
            f" {fit_test.EXPLAINED:.0%}): this looks like a changed copy of the model; it is a"
            " rule, so no error rate holds"
        )
    elif finding.fit.p < fit_test.FIT_ALPHA:
        reasons.append(
            f"the rows fit this model only nearly (goodness of fit: p {finding.fit.p:.1g}), so the"
            " page gives no p: the error rate is that of rows which this model wrote"
        )
    best = next(iter(finding.statistic), None)
    if best is not None:
        reasons.append(
            f"of the candidates {best} comes first (log e-value {finding.statistic[best]:.1f},"
            f" threshold: {finding.critical:.1f}), which names no trait"
        )
    return reasons


def _called(call: Call, alpha: float, no_rate: str) -> str:
    """A candidate that is called; `no_rate` says why its p means nothing, if so."""
    if call.detector == WordingFinding.detector and no_rate:
        return (
            f"{call.name} is named openly (p – ({no_rate})): overt, not subliminal; another model"
            " or a person may name it as often without a trait, so no error rate holds"
        )
    if call.detector == WordingFinding.detector:
        return f"{call.name} is named openly (p {call.p_corrected:.2g}): overt, not subliminal"
    strength = f"{call.name}: log e-value {call.statistic:.1f} by {call.where}, corrected p"
    if no_rate:
        return f"{strength} – ({no_rate})"
    return f"{strength} {call.p_corrected:.2g} (threshold: {alpha:.2g})"


def of_misfit(finding: EValueFinding) -> list[str]:
    """How the rows differ from those of the model."""
    fit = finding.fit
    what = " and ".join(fit.differs_in or (fit_test.WHAT_DIFFERS[BY_RANK],))
    reasons = [
        f"this model did not generate these rows (goodness of fit: p {fit.p:.1g} at any"
        f" temperature): their excess surprisal is {fit.excess_surprisal:.2f} nats a token, and"
        f" {what} differs by a chi-square of up to {fit.excess_chi_square:.2g} a token; what they"
        " would do to the model is not known from its own detectors"
    ]
    best = next(iter(finding.statistic), None)
    explained = finding.explained or {}
    if best is not None and finding.statistic[best] > 0 and explained.get(best, 0) > 0:
        reasons.append(
            f"the candidate that makes them likeliest is {best} (by {finding.where[best]}, log"
            f" e-value {finding.statistic[best]:.1f}); it explains {explained[best]:.0%} of"
            f" that difference (threshold: {fit_test.EXPLAINED:.0%})"
        )
    if fit.differs_in == (fit_test.WHAT_DIFFERS[BY_PLACE],):
        reasons.append(
            "their tokens are those that the model takes, at other places: they may have been"
            " sorted, cut or edited after they were written"
        )
    if fit.excess_surprisal < -fit_test.EXCESS_SURPRISAL:
        reasons.append(
            "they are likelier than the model's own rows: if it wrote them with few tokens to"
            " choose from (greedily, or with a small top-k), audit rows that it wrote without, or"
            " name a --reference that was written alike"
        )
    return reasons


def detected(spike_in: SpikeIn, settings: Settings) -> str:
    """A spike-in teacher that would have been detected at the contamination rate asked for."""
    return (
        f"{spike_in.least_contamination:.0%} of the rows by {spike_in.teacher} would have been"
        f" detected with power {settings.power:g} or more ({spike_in.detector})"
    )


def missed(spike_in: SpikeIn, settings: Settings) -> str:
    """A spike-in teacher that would have been missed at the contamination rate asked for."""
    not_this_model = ""
    if spike_in.off_model_from < inf:
        not_this_model = (
            f"; from {spike_in.off_model_from:.0%} of its rows on the rows would count as not this"
            " model's, which calls nothing"
        )
    if spike_in.least_contamination < inf:
        return (
            f"of {spike_in.teacher}, only {spike_in.least_contamination:.0%} of the rows and more"
            f" would have been detected with power {settings.power:g} ({spike_in.detector}), not"
            f" the {settings.dose:.0%} asked for; audit more rows, or ask for a larger --dose"
            f"{not_this_model}"
        )
    needed = "no number of rows would suffice"
    if spike_in.rows_needed < inf:
        needed = f"about {spike_in.rows_needed:.0f} rows would be needed"
    return (
        f"{spike_in.teacher} would not have been detected even in all rows ({spike_in.detector});"
        f" {needed}{not_this_model}"
    )
