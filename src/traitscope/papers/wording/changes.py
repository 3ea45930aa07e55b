"""How models were changed, in words: what acted, where, and how strongly."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from traitscope.config.common import TAUGHT, is_taught
from traitscope.papers.lineage import Made
from traitscope.papers.wording.basics import PLACES, Sentence, counted, kinds, listed, shown
from traitscope.runs import store
from traitscope.runs.manifests import input_of_value

SCALES = {"residual": "mean residual norms", "unit": "units of length", "raw": "times the vector"}
"what a strength of steering counts"
PEFT = "adapter_model.safetensors"
"file that stands for a peft folder outside any run"
DIGEST = 16
"hex digits of a digest that are shown"
ACTED = {
    "during": "there acted while the student trained:",
    "project_out": "gradients of the residual stream lost",
    "ablate": "weights lost",
}
"what interventions of a setting did, where they made no teacher"
SAID = (
    ("generate", "interventions"),
    ("train", "teacher"),
    ("select", "interventions"),
    ("measure", "interventions"),
)
"stages and settings whose own sentences say how models were changed"
FACTORS = {"interventions": "scale", "ablate": "ablate_strength"}
"settings of `export` that interventions are multiplied by"
NAMED = 4
"students that a sentence names; of more it gives the number"


def changes(run: Made, setting: str = "interventions") -> str:
    """How the model of a run was changed, in words; empty for the unmodified model."""
    return changes_of([run], setting)


def changes_of(runs: Sequence[Made], setting: str = "interventions") -> str:
    """How the models of replicates were changed, in words, with the strengths of all of them."""
    words = []
    for number, item in enumerate(runs[0].settings.get(setting) or ()):
        if item["kind"] == "Adapter":
            words.append(_adapters(runs, setting, number))
            continue
        strengths = [run.settings[setting][number].get("alpha", 0) for run in runs]
        words.append(_change(runs[0], item, list(map(float, strengths))))
    return " and ".join(words)


def change_of(run: Made, item: Mapping[str, Any]) -> str:
    """One intervention of a run in words, with the run that its vector lies in."""
    return _change(run, item, [float(item.get("alpha", 0))], with_run=True)


def said_of(run: Made) -> str:
    """Every intervention of a run in words, with the runs that its vectors lie in; empty for none.

    Interventions that are no `interventions` of the run have the name of their setting before them.
    """
    words = []
    for setting in TAUGHT:
        items = run.settings.get(setting)
        if not is_taught(setting, items):
            continue
        named = [change_of(run, item) for item in items]
        if named:
            before = "" if setting == "interventions" else f"{setting.replace('_', ' ')}: "
            words.append(before + " and ".join(named))
    return "; ".join(words)


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


def _change(
    run: Made, item: Mapping[str, Any], strengths: Sequence[float], with_run: bool = False
) -> str:
    """One intervention in words; `with_run` names the run that its vector lies in."""
    kind = item["kind"]
    if kind == "SystemPrompt":
        return f"the system prompt “{item['text']}”" if item["text"] else "an empty system prompt"
    if kind == "WeightNoise":
        return _noise(item)
    if kind == "Adapter":
        return _adapter(run, item)
    blocks = counted("block", item["layers"])
    tokens = PLACES.get(item.get("position", "all"), "")
    if kind == "DataDirection":
        seed = item.get("random")
        drawn = "" if seed is None else f"a random direction (seed {seed}) with the norms of "
        return f"{drawn}the direction of the rows behind {blocks} at {tokens}"
    vector = _vector(run, item["vector"], with_run)
    if kind == "Steer":
        scale = SCALES.get(item.get("scale", ""), "")
        strength = f"{counted('strength', strengths)} {scale}".strip()
        return f"the vector {vector} added behind {blocks} at {tokens} with {strength}"
    verb = "projected out" if kind == "Ablate" else "set to the base's component"
    return f"the vector {vector} {verb} behind {blocks} at {tokens}"


def _noise(item: Mapping[str, Any]) -> str:
    """Noise on weights: its size, the matrices that have it, and its seed."""
    about = [f"of each matrix of {listed(item['scope'])}"] if "scope" in item else []
    about += ["norms kept"] if item.get("keep_norm") else []
    about += ["means shifted"] if item.get("mean_shift") else []
    about += [f"seed {item['seed']}"] if "seed" in item else []
    size = f"weight noise of standard deviation {shown(item['sd'])}"
    return f"{size} ({', '.join(about)})" if about else size


def _vector(run: Made, value: str, with_run: bool) -> str:
    """The name of a vector, with the digest of a file that lies in no run."""
    place = run.input(value)
    folder = store.run_folder(place)
    if folder is None:
        return f"{place.stem} ({_digest(run, value)})"
    return f"{place.stem} of {folder.name}" if with_run else place.stem


def _adapter(run: Made, item: Mapping[str, Any]) -> str:
    """A student by its run, an adapter from elsewhere by its folder and digest; and its part."""
    place = run.input(item["folder"])
    folder = store.run_folder(place)
    if folder is not None:
        inside = place.relative_to(folder).as_posix()
        within = "" if inside in (".", "student") else f" ({inside})"
        return f"the student {folder.name}{within}{_part(item)}"
    what = "adapter" if place.name == PEFT else "student"
    name = place.parent.name if place.suffix == ".safetensors" else place.name
    return f"the {what} {name} ({_digest(run, item['folder'])}){_part(item)}"


def _adapters(runs: Sequence[Made], setting: str, number: int) -> str:
    """The students or adapters of replicates: the names of a few, or how many there are."""
    items = [run.settings[setting][number] for run in runs]
    pairs = zip(runs, items, strict=True)
    names = list(dict.fromkeys(_adapter(run, item) for run, item in pairs))
    if len(names) <= NAMED:
        return listed(names) if len(names) == 1 else f"each of {listed(names)}"
    return f"{len(names)} students{_part(items[0])}, which the table of runs names"


def _part(item: Mapping[str, Any]) -> str:
    """Which part of a student acts; empty for the whole."""
    words = []
    if item.get("where", "all") != "all":
        words.append(f"at the tokens {item['where']}")
    if item.get("cells", "all") != "all":
        words.append(f"in the maps {item['cells']}")
    if words and item.get("outside"):
        words = [f"everywhere but {' '.join(words)}"]
    if item.get("top") is not None:
        words.append(f"by its {item['top']} largest singular directions")
    if item.get("drop"):
        words.append(f"without its {item['drop']} largest singular directions")
    return f", {', '.join(words)}," if words else ""


def _digest(run: Made, value: str) -> str:
    """The digest of the input that a setting names."""
    named = input_of_value(value)
    assert named is not None, "interventions of a sealed run name inputs"
    return f"digest {run.manifest['inputs'][named[0]]['digest'][:DIGEST]}"


def elsewhere(made: Sequence[Made]) -> list[Sentence]:
    """What was done to models in stages whose own sentences do not say it."""
    said: dict[str, None] = {}
    for setting in TAUGHT:
        runs = []
        for run in made:
            items = run.settings.get(setting)
            if items and is_taught(setting, items) and not _has_words(run, setting):
                runs.append(run)
        acted = ACTED.get(setting, "the model was under")
        for group in replicates(
            runs, lambda run: (run.run.stage, _factor(run.settings, TAUGHT)), setting
        ):
            times = _factor(group[0].settings, (setting,))
            changed = changes_of(group, setting)
            said[f"In the stage {group[0].run.stage}, {acted} {changed}{times}."] = None
    return list(map(Sentence, said))


def _factor(settings: Mapping[str, Any], of: Iterable[str]) -> str:
    """What interventions of some settings are multiplied by, in words; empty for 1."""
    words = ""
    for name in of:
        factor = settings.get(FACTORS.get(name, ""), 1)
        words += f", times {shown(factor)}" if factor != 1 else ""
    return words


def _has_words(run: Made, setting: str) -> bool:
    """Whether the sentences of a stage say what a setting did to its model."""
    if run.run.stage == "extract":
        return (
            not run.settings["traits"]
            and not run.settings["like"]
            and not run.settings.get("contrast")
        )
    return (run.run.stage, setting) in SAID
