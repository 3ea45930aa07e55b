"""The stage `verify`: what finished students carry, beside their base and beside controls.

Each model is asked by the stage `ask`, once under each system turn, and once more while it
relearns. These runs are the inputs of this one. So what was asked is not asked again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from traitscope import atomic_files
from traitscope.config.common import Output, check_needed
from traitscope.config.students.verify import RELEARNING as RECIPE
from traitscope.config.students.verify import AskConfig, VerifyConfig
from traitscope.data.trait_files import trait_names
from traitscope.data.traits import load_trait
from traitscope.runs import model_cache, opening, row_intake, store
from traitscope.screening import answers, coherence
from traitscope.stages import registry
from traitscope.stats import estimates
from traitscope.verifying import contrasts, page, results, rows, sentences
from traitscope.verifying.ask import ModelAnswers, read_answers
from traitscope.verifying.contrasts import RELEARNING, Asking, Group
from traitscope.verifying.results import Rate, Return, Verified, Wholeness
from traitscope.verifying.students import BASE, Participant, participants

NOT_KNOWN = "not known"
"""The set of rows of students whose rows are not known: several may have learnt the same ones."""
FILE, PAGE = "verify.json", "report.html"
"""Files of a run."""
Asked = Mapping[str, ModelAnswers]
"""What models say, by the name of the input that it is read from."""


def verified(config: VerifyConfig, out: Output) -> store.Run:
    """Return the sealed run with `verify.json` and `report.html`.

    With `report`, the page is also written there. Raises what `participants` raises, before
    anything is computed.
    """
    settings = settled(config)
    asked = settings_of_models(settings, participants(settings))
    for ask in asked.values():
        registry.address(ask, out)
    runs = {name: registry.run_stage(ask, out) for name, ask in asked.items()}
    run = _concluded(settings, out, runs)
    if config.report is not None:
        text = run.file(PAGE).read_text(encoding="utf-8")
        atomic_files.write_text(config.report, text)
    return run


def settled(config: VerifyConfig) -> VerifyConfig:
    """The settings that decide the answer. Raises ConfigError where students are missing."""
    check_needed(config)
    return opening.settled(replace(config, report=None, fail_on="never", plan=False))


def replay(config: VerifyConfig, inputs: Mapping[str, Path], out: Output) -> store.Run:
    """Return the run of a config again, from the recorded runs of `ask`."""
    runs = {}
    for name, path in inputs.items():
        if name.startswith("asked-"):
            runs[name.removeprefix("asked-")] = store.load_run(path)
    return _concluded(opening.settled(config), out, runs)


def settings_of_models(config: VerifyConfig, models: Sequence[Participant]) -> dict[str, AskConfig]:
    """The settings of every stage `ask`, by model and system turn; students come first."""
    asked = {}
    for model in models:
        common = AskConfig(
            model=model.made_of.model,
            device=config.device,
            dtype=config.dtype,
            template=config.template,
            control_tokens=config.control_tokens,
            same_as=config.same_as if model.made_of.model == config.model else None,
            seed=config.seed,
            interventions=model.made_of.short_forms,
            traits=config.traits,
            pass_rows=config.pass_rows,
            reading=config.reading,
        )
        for number, context in enumerate(config.turns):
            asked[f"{model.name}-turn{number}"] = replace(
                common, context=context, samples=config.samples
            )
        if config.relearn is not None and (model.role != BASE or not config.controls):
            asked[f"{model.name}-{RELEARNING}"] = replace(
                common,
                context=config.turns[0],
                data=config.relearn,
                max_rows=config.relearn_rows,
                recipe=replace(RECIPE, lr=config.relearn_lr),
            )
    return asked


def _concluded(config: VerifyConfig, out: Output, runs: Mapping[str, store.Run]) -> store.Run:
    """The sealed run of the conclusion from what models were asked."""
    models = participants(config)
    inputs: dict[str, Path | store.Run] = {f"asked-{name}": run for name, run in runs.items()}
    inputs |= _compared_rows(models)
    with registry.opened(config, out, inputs) as run:
        if not run.sealed:
            asked = {name: read_answers(of_model) for name, of_model in runs.items()}
            digests = model_cache.model_digests(config.model, config.same_as)
            shared, sets = shared_rows(models, digests), row_sets(models, digests)
            found = conclusion(config, models, asked, shared, sets)
            in_words = sentences.sentences(config, found)
            content = results.as_json(config, digests[0], found, in_words)
            atomic_files.write_text(run.file(PAGE), page.verify_page(content))
            atomic_files.write_json(run.file(FILE), content)
            row_intake.write_again(run, runs.values())
    return run


def _compared_rows(models: Sequence[Participant]) -> dict[str, Path | store.Run]:
    """The rows that are compared, as inputs of the run; none where there are no controls."""
    sources: dict[str, Path | store.Run] = {}
    if any(model.role == "control" for model in models):
        for model in models:
            if model.rows is not None:
                sources[f"rows-{model.name}"] = model.rows.source
    return sources


def shared_rows(models: Sequence[Participant], digests: Sequence[str]) -> list[rows.SharedRows]:
    """What controls learnt of the students' rows.

    digests: Those of the base.
    """
    students, controls = [], []
    for model in models:
        if not model.learnt_answers:
            continue
        if model.role == "student":
            students.append((model.name, model.rows))
        elif model.role == "control":
            controls.append((model.name, model.rows))
    return rows.shared_rows(students, controls, digests)


def row_sets(models: Sequence[Participant], digests: Sequence[str]) -> dict[str, str | None]:
    """The set of rows of every student and control, by name; None where it is not known.

    digests: Those of the base.
    """
    sets: dict[str, str | None] = {}
    for role in ("student", "control"):
        names, labelled = [], []
        for model in models:
            if model.role == role:
                names.append(model.name)
                labelled.append((model.data, model.rows))
        sets |= dict(zip(names, rows.sets_of_rows(labelled, digests), strict=True))
    return sets


def conclusion(
    config: VerifyConfig,
    models: Sequence[Participant],
    asked: Asked,
    shared: Sequence[rows.SharedRows] = (),
    sets: Mapping[str, str | None] | None = None,
) -> Verified:
    """Everything that follows from what models said.

    shared: What controls learnt of the students' rows. Controls that learnt too much of them, and
    broken ones, silence the verdict.
    sets: The set of rows of every student and control, by name. Of controls that are not named each
    counts as one of its own. Of students they count as one.
    """
    sets = sets or {}
    turns, alike = _distinct(config, asked)
    askings = []
    for number in turns:
        context = config.contexts[number]
        askings.append(_asking(context, f"turn{number}", models, asked, sets))
    relearning = None
    if config.relearn is not None:
        relearning = _asking(RELEARNING, RELEARNING, models, asked, sets)
        askings.append(relearning)
    has_controls = bool(config.controls)
    first = askings[0]
    wholeness = _wholeness(models, asked)
    is_silenced = results.is_silenced(models, wholeness, shared)
    return Verified(
        participants=models,
        matching=contrasts.matching_of(first, has_controls),
        contexts=[config.contexts[number] for number in turns],
        alike=alike,
        contrasts=contrasts.contrasts_of(askings, has_controls, config.alpha, is_silenced),
        wholeness=wholeness,
        shared=shared,
        sets=sets,
        rates=_rates(config, first) if config.samples else [],
        returns=_returns(relearning) if relearning is not None else [],
    )


def _distinct(config: VerifyConfig, asked: Asked) -> tuple[list[int], dict[str, str]]:
    """Places of the system turns that render differently, and those that another one stands for."""
    first: dict[str, int] = {}
    alike = {}
    for number, context in enumerate(config.contexts):
        digest = asked[f"{BASE}-turn{number}"].context_digest
        if digest in first:
            alike[context] = config.contexts[first[digest]]
        else:
            first[digest] = number
    return list(first.values()), alike


def _asking(
    context: str,
    key: str,
    models: Sequence[Participant],
    asked: Asked,
    sets: Mapping[str, str | None],
) -> Asking:
    """Both sides under one system turn, or while they relearn."""
    base = asked.get(f"{BASE}-{key}")
    controls = _group("control", key, models, asked, sets)
    reference = controls if controls.answers else _group("base", key, models, asked, sets)
    return Asking(context, _group("student", key, models, asked, sets), reference, base)


def _group(
    role: str,
    key: str,
    models: Sequence[Participant],
    asked: Asked,
    sets: Mapping[str, str | None],
) -> Group:
    answers_of_role, seeds, of_rows = [], [], []
    for model in models:
        if model.role == role and f"{model.name}-{key}" in asked:
            answers_of_role.append(asked[f"{model.name}-{key}"])
            seeds.append(model.seed)
            rows_of_model = sets.get(model.name)
            is_student = role == "student"
            of_rows.append(NOT_KNOWN if is_student and rows_of_model is None else rows_of_model)
    return Group(tuple(answers_of_role), tuple(seeds), tuple(of_rows))


def _wholeness(models: Sequence[Participant], asked: Asked) -> list[Wholeness]:
    """Whether each model is whole, under the first system turn."""
    base = asked[f"{BASE}-turn0"]
    base_perplexity, base_on_topic = base.perplexity or np.nan, _on_topic(base)
    wholeness = []
    for model in models:
        said = asked[f"{model.name}-turn0"]
        perplexity, on_topic = said.perplexity or np.nan, _on_topic(said)
        is_coherent = coherence.is_coherent(perplexity, on_topic, base_perplexity, base_on_topic)
        wholeness.append(Wholeness(model.name, perplexity, on_topic, is_coherent))
    return wholeness


def _on_topic(said: ModelAnswers) -> float:
    """Mean probability that an answer begins with any answer of its kind."""
    by_question = [np.exp(kind.log_p_SQE[0]).sum(1) for kind in said.kinds.values()]
    return float(np.concatenate(by_question).mean())


def _rates(config: VerifyConfig, asking: Asking) -> list[Rate]:
    """How often sampled answers name each trait, largest difference first."""
    rates = []
    for name in trait_names(config.traits):
        trait = load_trait(name)
        sides = []
        for group in (asking.students, asking.reference):
            of_models = []
            for said in group.answers:
                kind = next(item for item in said.kinds.values() if trait.name in item.traits)
                of_models.append(answers.question_rates(trait, kind.texts))
            sides.append(np.mean(of_models, axis=0))
        values = (*sides, sides[0] - sides[1])
        measured = []
        for what, value_Q in zip(("students", "reference", "difference"), values, strict=True):
            measured.append(
                estimates.measure(
                    f"{trait.name}, {what}",
                    value_Q.tolist(),
                    questions=range(len(value_Q)),
                    unit="rate",
                    method="bootstrap",
                )
            )
        rates.append(Rate(trait.name, *measured))
    return sorted(rates, key=lambda rate: -rate.difference.estimate)


def _returns(asking: Asking) -> list[Return]:
    """How each trait comes back, largest mean gain of all models first."""
    first = asking.students.answers[0]
    returns = []
    for name, kind in first.kinds.items():
        for trait, word in kind.traits.items():
            if word in kind.words and len(kind.words) > 1:
                curves = contrasts.curves_of(asking, trait, name)
                returns.append(Return(trait, first.steps, curves))
    return sorted(returns, key=lambda item: -item.gain())
