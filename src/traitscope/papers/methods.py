"""A methods paragraph: how numbers were made, in sentences that say what the manifests hold."""

from collections.abc import Iterable, Sequence

from traitscope.models.bundled import EMBEDDED
from traitscope.papers.bibliography import keys_in
from traitscope.papers.contents import Contents
from traitscope.papers.lineage import Made, model_name
from traitscope.papers.wording import changes, measurements, networks, stages, training_data
from traitscope.papers.wording.basics import Sentence, listed
from traitscope.papers.wording.changes import DIGEST
from traitscope.reporting import latex, markdown
from traitscope.runs.opening import TEMPLATE_DATE
from traitscope.stats.measurement import Measurement

STAGES = (
    stages.vectors,
    stages.rows,
    stages.matched,
    stages.filters,
    training_data.selections,
    networks.sentences,
    training_data.sentences,
    stages.students,
    changes.elsewhere,
    measurements.models,
    measurements.measures,
    measurements.comparisons,
    stages.audits,
)
"what is said of stages, in the order of an experiment"
INTERVALS = {"welch": "welch1947", "wilson": "wilson1927", "bootstrap": "efron1993"}
"words of the description of an interval, and their sources"
PACKAGES = {
    "traitscope": ("Traitscope", "traitscope"),
    "torch": ("PyTorch", "paszke2019pytorch"),
    "transformers": ("transformers", "wolf2020transformers"),
    "numpy": ("NumPy", ""),
    "python": ("Python", ""),
}
"packages that a manifest records: their names and sources"


def sentences(contents: Contents, made: Sequence[Made], reported: Sequence[Made]) -> list[Sentence]:
    """Return the methods paragraph of a report.

    made: All runs behind the report. reported: The runs that were reported.
    """
    said = [*_models(made), *_templates(made)]
    for stage in STAGES:
        said += stage(made)
    said += _claim(contents)
    said += _intervals(contents.measurements)
    said += _versions(made)
    runs = [f"{run.run.path.name} (digest {run.run.digest[:DIGEST]})" for run in reported]
    return [*said, Sentence(f"The numbers are those of {listed(runs)}.")]


def _models(made: Sequence[Made]) -> list[Sentence]:
    """Which models were used, by name and digest, and what a user said that they are copies of."""
    models: dict[tuple[str, str], str] = {}
    used = [run for run in made if "model" in run.settings and not _has_own_networks(run)]
    for run in used:
        digest = run.manifest.get("model")
        if digest:
            own_digest = run.manifest.get("same_as", {}).get("own_digest", digest)
            models[own_digest, "" if own_digest == digest else digest] = run.settings["model"]
    texts = []
    for (own_digest, vouched), name in models.items():
        copy = f", taken as a copy of the model {vouched[:DIGEST]}" if vouched else ""
        texts.append(f"{model_name(name)} (digest {own_digest[:DIGEST]}{copy})")
    if not texts:
        return []
    keys = ("allal2025smollm2",) if EMBEDDED in models.values() else ()
    dtypes = listed(run.settings["dtype"] for run in used if "dtype" in run.settings)
    what = "Models" if len(texts) > 1 else "The model"
    verb = "are" if len(texts) > 1 else "is"
    return [Sentence(f"{what} {verb} {listed(texts)}, computed in {dtypes}.", keys)]


def _templates(made: Sequence[Made]) -> list[Sentence]:
    """What the chat templates were given beside the turns: their variables, and the day."""
    variables: list[str] = []
    days: list[str] = []
    for run in made:
        variables += run.settings.get("template", ())
        days += filter(None, [run.manifest.get(TEMPLATE_DATE)])
    said = []
    if variables:
        said.append(f"The chat template was given {listed(variables)}.")
    if days:
        said.append(f"The chat template reads today's date, which was set to {listed(days)}.")
    return list(map(Sentence, said))


def _has_own_networks(run: Made) -> bool:
    """Whether a conclusion is about networks of its study, not about the model of its settings."""
    model = run.settings["model"]
    return run.numbers("findings.json").get("model", model) != model


def _claim(contents: Contents) -> list[Sentence]:
    """What a study claims, by which rule, and how its tests are corrected."""
    if not contents.claim:
        return []
    published = keys_in(contents.published)
    correction = (
        "Tests of all claims are corrected together by Holm's procedure; a negligible effect is"
        " tested by two one-sided tests."
    )
    corrected = Sentence(correction, ("holm1979", "schuirmann1987"))
    return [Sentence(f"The study's claim: {contents.claim}", published), corrected]


def _intervals(measurements: Iterable[Measurement]) -> list[Sentence]:
    """How intervals were made, and over how many units."""
    units: dict[str, dict[str, None]] = {}
    for item in measurements:
        if item.low == item.low:  # not NaN
            units.setdefault(item.interval, {})[f"{item.n_clusters} {item.counted}"] = None
    said = []
    for interval, counted in units.items():
        keys = [key for word, key in INTERVALS.items() if word in interval.lower()]
        said.append((f"{interval}, n = {listed(counted)}", keys))
    if not said:
        return []
    keys = tuple(dict.fromkeys(key for _, more in said for key in more))
    return [Sentence(f"Intervals are at 95 %: {'; '.join(text for text, _ in said)}.", keys)]


def _versions(made: Sequence[Made]) -> list[Sentence]:
    """Which versions computed the runs."""
    texts, keys = [], []
    for package, (name, key) in PACKAGES.items():
        found = [run.manifest.get("versions", {}).get(package) for run in made]
        versions = listed(filter(None, found))
        if versions:
            texts.append(f"{name} {versions}")
            keys += [key] if key else []
    return [Sentence(f"Software: {listed(texts)}.", tuple(keys))] if texts else []


def keys_of(said: Iterable[Sentence]) -> list[str]:
    """The sources that sentences cite, each once."""
    keys: dict[str, None] = {}
    for sentence in said:
        keys.update(dict.fromkeys(sentence.keys))
    return list(keys)


def as_markdown(said: Iterable[Sentence]) -> str:
    """Sentences as Markdown, sources as pandoc cites them: [@key; @other]."""
    texts = []
    for sentence in said:
        text = markdown.escaped(sentence.text)
        cited = "; ".join(f"@{key}" for key in sentence.keys)
        texts.append(f"{text.removesuffix('.')} [{cited}]." if cited else text)
    return "\n".join(texts) + "\n"


def as_latex(said: Iterable[Sentence]) -> str:
    """Sentences as LaTeX, with citations of references.bib."""
    texts = []
    for sentence in said:
        text = latex.escaped(sentence.text)
        cited = ",".join(sentence.keys)
        texts.append(f"{text.removesuffix('.')}~\\cite{{{cited}}}." if cited else text)
    return "\n".join(texts) + "\n"
