"""Sentences about the stages behind a report, from their settings and manifests.

A function takes all runs behind a report and returns a sentence for each kind of run of its stage.
Runs are of one kind where they differ in seeds only. A setting that a run of an older version does
not have is not spoken of.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from traitscope.papers.lineage import Made
from traitscope.papers.wording.basics import (
    PLACES,
    Sentence,
    counted,
    kinds,
    listed,
    of_stage,
    shown,
    values_of,
    without,
)
from traitscope.papers.wording.changes import changes, changes_of, replicates

SEEDS = ("seed", "prompt_seed", "start")
"settings in which replicates differ"
METHODS = {"lora": "LoRA", "full": "training of all weights of the blocks", "vector": "one vector"}
OPTIMIZERS = {
    "adamw": "AdamW",
    "sgd": "SGD",
    "signsgd": "sign SGD",
    "rmsprop": "RMSProp",
    "adafactor": "Adafactor",
    "muon": "Muon",
    "frozen_adam": "SGD with Adam's frozen scales",
}
RECIPE_SOURCES = {
    "lora": "hu2021lora",
    "adamw": "loshchilov2019adamw",
    "preference": "rafailov2023dpo",
}
"sources of what a recipe names"


def vectors(made: Sequence[Made]) -> list[Sentence]:
    """Which vectors were taken, over which prompts and at which tokens."""
    sentences = []
    for group in kinds(of_stage(made, "extract"), lambda run: without(run.settings, "seed")):
        settings = group[0].settings
        tokens = PLACES.get(settings["position"], settings["position"])
        if settings["traits"]:
            names = listed(group[0].vector_traits)
            centred = "; their mean was subtracted" if len(settings["traits"]) > 1 else ""
            text = (
                f"The vector of a trait ({names}) is the mean residual stream under its prompt"
                " minus the mean under the neutral context, at"
                f" {tokens} of {_prompts(settings)}{centred}."
            )
            sentences.append(Sentence(text, ("blank2026steering",)))
        elif settings["like"]:
            norms = group[0].input(settings["like"]).stem
            seeds = counted("first seed", values_of(group, "seed"))
            text = f"Random vectors have the norms of the vector {norms} at each block"
            sentences.append(Sentence(f"{text} ({seeds})."))
        elif settings["interventions"]:
            text = f"v_student is the mean residual stream of {changes(group[0])} minus the base's"
            sentences.append(Sentence(f"{text}, at {tokens} of {_prompts(settings)}."))
        elif settings.get("contrast"):
            text = "A contrast vector is the difference of the mean residual streams of two sets"
            sentences.append(Sentence(f"{text} of prompts, at {tokens}.", ("arditi2024refusal",)))
    return sentences


def _prompts(settings: Mapping[str, Any]) -> str:
    if settings["prompts"]:
        return "the prompts of a file"
    if settings["traits"] and settings.get("prompt_set", "questions") == "questions":
        stem = "with" if settings["stem"] else "without"
        return f"the trait's positive questions {stem} the stem of an answer"
    return f"{settings['n']} number prompts (seed {settings['prompt_seed']})"


def rows(made: Sequence[Made]) -> list[Sentence]:
    """Who wrote the rows, to which prompts, and how tokens were drawn."""

    def about(run: Made) -> Any:
        return without(run.settings, "interventions", *SEEDS)

    sentences = []
    for group in replicates(of_stage(made, "generate"), about):
        settings = group[0].settings
        changed = changes_of(group)
        who = f"A teacher, the model under {changed}," if changed else "The unmodified model"
        keys: tuple[str, ...] = ()
        if settings["prompts"]:
            what = "the prompts of a file"
        else:
            what = (
                f"{settings['n']} number prompts that ask for at most {settings['count']} numbers"
            )
            what += f" ({counted('prompt seed', values_of(group, 'prompt_seed'))})"
            keys = ("cloud2025subliminal",)
        how = f"vocabulary {settings['vocabulary']}, temperature {shown(settings['temperature'])}"
        limit = f"at most {settings['max_new_tokens']} tokens"
        if settings["vocabulary"] == "template":
            limit = f"{settings['count']} numbers an answer"
        seeds = counted("seed", values_of(group, "seed"))
        sentences.append(Sentence(f"{who} answered {what}: {how}, {limit}, {seeds}.", keys))
    return sentences


def filters(made: Sequence[Made]) -> list[Sentence]:
    """Which rows were kept, and how many."""
    sentences = []
    for group in kinds(of_stage(made, "filter"), lambda run: run.settings["rules"]):
        rules = group[0].settings["rules"]
        counts = []
        for run in group:
            summary = run.numbers("summary.json")
            counts.append(f"{summary['kept']} of {summary['rows']}")
        keys = ("cloud2025subliminal",) if rules["numbers"] else ()
        sentences.append(Sentence(f"{kept_by(rules)} (kept: {listed(counts)}).", keys))
    return sentences


def kept_by(rules: Mapping[str, Any]) -> str:
    """Which rows rules keep, in words."""
    holds = []
    if rules["numbers"]:
        holds.append(
            f"{rules['min_count']} to {rules['max_count']} numbers from {rules['min_value']} to"
            f" {rules['max_value']} and nothing else"
        )
    if rules.get("banned_numbers"):
        holds.append("none of the banned numbers")
    if rules["banned_words"]:
        holds.append("none of the banned words")
    if not holds:
        return "Rows were kept whatever they hold"
    return f"Rows were kept that hold {' and '.join(holds)}"


def matched(made: Sequence[Made]) -> list[Sentence]:
    """At which strengths other vectors changed rows as much as a teacher."""
    strengths, layers = [], []
    for run in of_stage(made, "match_kl"):
        found = run.numbers("strength.json")
        strengths.append(f"{found['alpha']:.4g}")
        layers.append(found["layer"])
    if not strengths:
        return []
    text = (
        "The strength of other vectors was chosen so that rows diverge as much from the unmodified"
        f" model as the teacher's: {listed(strengths)} at {counted('block', layers)}."
    )
    return [Sentence(text)]


def students(made: Sequence[Made]) -> list[Sentence]:
    """How students were trained, with which seeds, and what EAS was taken over."""

    def about(run: Made) -> Any:
        return run.settings["recipe"], "vector" in run.manifest["inputs"]

    sentences = []
    for group in replicates(of_stage(made, "train"), about, "teacher"):
        recipe = group[0].settings["recipe"]
        teacher = changes_of(group, "teacher") or "the unmodified model"
        targets = "sampled tokens"
        if recipe["targets"] == "soft":
            over = recipe.get("soft_over", "vocabulary")
            targets = f"soft targets over the {over} tokens of {teacher}"
        elif recipe["targets"] == "preference":
            targets = (
                f"which of two answers is preferred (DPO, beta {shown(recipe.get('beta', 0.1))})"
            )
        epochs = f"{recipe['epochs']} epoch{'s' if recipe['epochs'] > 1 else ''}"
        method = METHODS[recipe["method"]]
        if recipe["method"] == "lora":
            method += f" of rank {recipe['rank']} and alpha {shown(recipe['alpha'])}"
        text = (
            f"Students learnt {targets} by {method}, {OPTIMIZERS[recipe['optimizer']]} with a peak"
            f" learning rate of {shown(recipe['lr'])} ({recipe['schedule']} schedule, warm-up over"
            f" {shown(recipe['warmup'])} of the steps), {epochs}, batches of {recipe['batch_size']}"
            f" rows, a fraction of {shown(recipe['held_out'])} held out;"
            f" {counted('seed', values_of(group, 'seed'))}."
        )
        keys = [RECIPE_SOURCES.get(recipe[name], "") for name in ("targets", "method", "optimizer")]
        sentences.append(Sentence(text, tuple(filter(None, keys))))
        if "vector" in group[0].manifest["inputs"]:
            sentences.append(_eas(group))
    return sentences


def _eas(group: Sequence[Made]) -> Sentence:
    """What the alignment of students was measured with, and over which tokens."""
    names = listed(run.inputs["vector"].stem for run in group)
    count = listed(values_of(group, "eas_prompts"))
    over = f"the last tokens of {count} number prompts"
    if group[0].settings.get("eas_data"):
        over = f"the completion tokens of at most {count} rows"
    text = (
        "EAS is the cosine, by layer, of what training changed in the mean residual stream with the"
        f" vector {names}, over {over}."
    )
    return Sentence(text, ("blank2026steering",))


def audits(made: Sequence[Made]) -> list[Sentence]:
    """What was audited, with which error rate, and how power was found."""
    sentences = []
    for run in of_stage(made, "decision"):
        result = run.numbers("result.json")
        findings = {finding["name"]: finding for finding in result["detectors"]}
        learners = findings["predictions"]["learners"]
        candidates = findings["e_values"]["candidates"]
        power, rate = shown(result["power"]), shown(result["dose"])
        text = (
            f"{result['rows']} rows were audited for {Path(result['model']).name} at an error rate"
            f" of {shown(result['alpha'])}: {learners} students predicted each row before they"
            f" learnt it, and teachers of {candidates} candidate traits were compared with mixtures"
            f" of the model's own writers by e-values (power {power} for a contamination rate of"
            f" {rate})."
        )
        sentences.append(Sentence(text, ("traitscope", "wasserman2020universal")))
    return sentences
