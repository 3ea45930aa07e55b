"""Sentences about the stages behind a report, from their settings and manifests.

A function takes all runs behind a report and returns a sentence for each kind of run of its stage.
Runs are of one kind where they differ in seeds only. A setting that a run of an older version does
not have is not spoken of.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitscope.papers.lineage import Made

PLACES = {
    "last": "the last prompt token",
    "prompt": "all prompt tokens",
    "completion": "all completion tokens",
    "all": "all tokens",
}
"tokens at which residuals are read or changed, in words"
SCALES = {"residual": "mean residual norms", "unit": "units of length", "raw": "times the vector"}
"what a strength of steering counts"
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


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the sources that it cites."""

    text: str
    """The sentence, with its full stop."""
    keys: tuple[str, ...] = ()
    """Keys of sources."""


def listed(values: Iterable[Any]) -> str:
    """Values as text, each once, in their order: 1, 2 and 3."""
    texts = list(dict.fromkeys(map(shown, values)))
    return " and ".join(filter(None, (", ".join(texts[:-1]), texts[-1]))) if texts else ""


def counted(name: str, values: Iterable[Any]) -> str:
    """A name with its values: seed 1, or seeds 1 and 2."""
    each = list(dict.fromkeys(values))
    return f"{name}{'s' if len(each) > 1 else ''} {listed(each)}"


def shown(value: Any) -> str:
    """A setting as text."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def of_stage(made: Sequence[Made], *stages: str) -> list[Made]:
    """The runs of some stages."""
    return [item for item in made if item.run.stage in stages]


def kinds(runs: Iterable[Made], about: Callable[[Made], Any]) -> list[list[Made]]:
    """Runs in groups that are alike in what `about` says, in their order."""
    groups: dict[str, list[Made]] = {}
    for run in runs:
        groups.setdefault(json.dumps(about(run), sort_keys=True), []).append(run)
    return list(groups.values())


def without(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Settings without some."""
    return {name: value for name, value in settings.items() if name not in names}


def values_of(runs: Iterable[Made], name: str) -> list[Any]:
    """The values of a setting in some runs, each once."""
    return list(dict.fromkeys(run.settings[name] for run in runs if name in run.settings))


def changes(run: Made, setting: str = "interventions") -> str:
    """How the model of a run was changed, in words; empty for the unmodified model."""
    return changes_of([run], setting)


def changes_of(runs: Sequence[Made], setting: str = "interventions") -> str:
    """How the models of replicates were changed, in words, with the strengths of all of them."""
    words = []
    for number, item in enumerate(runs[0].settings.get(setting) or ()):
        strengths = [run.settings[setting][number].get("alpha", 0) for run in runs]
        words.append(_change(runs[0], item, list(map(float, strengths))))
    return " and ".join(words)


def replicates(
    runs: Iterable[Made], about: Callable[[Made], Any], setting: str = "interventions"
) -> list[list[Made]]:
    """Runs in groups that are alike in what `about` says and in how their models were changed.

    Vectors that are drawn anew for every seed have strengths of their own, and are alike.
    """
    groups = []
    for alike in kinds(runs, lambda run: (_but_strength(run, setting), about(run))):
        parts: list[list[Made]] = []
        for run in alike:
            fitting = [part for part in parts if _is_one_strength([*part, run], setting)]
            if fitting:
                fitting[0].append(run)
            else:
                parts.append([run])
        groups += parts
    return groups


def _is_one_strength(runs: Iterable[Made], setting: str) -> bool:
    """Whether no vector acts in these runs with two strengths."""
    strengths: dict[Path, Any] = {}
    for run in runs:
        for item in run.settings.get(setting) or ():
            if item["kind"] == "Steer":
                vector = run.input(item["vector"])
                if strengths.setdefault(vector, item["alpha"]) != item["alpha"]:
                    return False
    return True


def _but_strength(run: Made, setting: str) -> list[str]:
    """How the model of a run was changed, without the strengths of steering."""
    return [_change(run, item, []) for item in run.settings.get(setting) or ()]


def _change(run: Made, item: Mapping[str, Any], strengths: Sequence[float]) -> str:
    kind = item["kind"]
    if kind == "SystemPrompt":
        return f"the system prompt “{item['text']}”"
    if kind == "WeightNoise":
        return f"weight noise of standard deviation {shown(item['sd'])}"
    if kind == "Adapter":
        return f"the student {_name(run.input(item['folder']))}"
    vector = run.input(item["vector"]).stem
    blocks = counted("block", item["layers"])
    tokens = PLACES.get(item.get("position", "all"), "")
    if kind == "Steer":
        scale = SCALES.get(item.get("scale", ""), "")
        strength = f"{counted('strength', strengths)} {scale}".strip()
        return f"the vector {vector} added behind {blocks} at {tokens} with {strength}"
    verb = "projected out" if kind == "Ablate" else "set to the base's component"
    return f"the vector {vector} {verb} behind {blocks} at {tokens}"


def _name(place: Path) -> str:
    """The run that a place lies in, or the place's own name."""
    return place.parent.name if place.name == "student" else place.name


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


def measures(made: Sequence[Made]) -> list[Sentence]:
    """Which questions were asked, and how answers were sampled."""

    def about(run: Made) -> Any:
        return without(run.settings, "interventions", "model", "device", "dtype", "seed")

    sentences = []
    for group in kinds(of_stage(made, "measure"), about):
        settings = group[0].settings
        context = settings["context"]
        under = f"the context “{context}”" if context else "an empty context"
        if context is None:
            under = "the template's default context"
        asked = f"the questions of the trait {group[0].measured_trait}"
        asked += f" ({listed(settings['sets'])})"
        if settings.get("domain", "trait") != "trait":
            asked = f"tasks of the domain {settings['domain']}"
        text = f"Models were asked {asked} under {under}"
        if settings["samples"]:
            text += (
                f", with {settings['samples']} sampled answers a question at temperature"
                f" {shown(settings['temperature'])} and at most {settings['max_new_tokens']} tokens"
            )
        sentences.append(Sentence(f"{text}{_judged(group[0])}."))
    return sentences


def _judged(run: Made) -> str:
    """Which judges read the answers, and what those that ask a model asked; empty without any."""
    if not run.judges or run.settings.get("domain", "trait") != "trait":
        return ""
    asked = f" with the question “{run.judge_question}”" if run.judge_question else ""
    return f", which {counted('judge', run.judges)} read{asked}"


def comparisons(made: Sequence[Made]) -> list[Sentence]:
    """How treated and control models were matched, and what is known of the teacher."""
    sentences = []
    for run in of_stage(made, "compare"):
        summary = run.numbers("summary.json")
        keys = ("welch1947",) if summary["design"] == "unpaired" else ("miller2024errorbars",)
        who = "Treated models were" if run.settings.get("treated") else "A teacher was"
        text = f"{who} compared with {summary['reference']} models (design: {summary['design']})."
        sentences.append(Sentence(text, keys))
        if summary["positive_control"]:
            sentences.append(Sentence(f"Positive control: {summary['positive_control']}."))
    return sentences


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
