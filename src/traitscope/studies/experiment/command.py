"""The command `experiment`: a user's own design from one file, run, planned, reported.

It runs as a study does: the same stages, schedule, page and summary (studies/runner.py).
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.config.commands import ExperimentConfig
from traitscope.config.common import Output
from traitscope.config.fields import changed_flags
from traitscope.data.own_traits import needs as own_needs
from traitscope.data.package_files import bundled_file
from traitscope.data.traits import load_trait, trait_name
from traitscope.errors import ConfigError, StoreError
from traitscope.models.identity import finding
from traitscope.models.identity.words import model_words
from traitscope.reporting.numbers import bounds, estimate
from traitscope.reporting.study_page import StudyHeader, teachers_said
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import HAS_TRAIT, SHOWS_BEHAVIOUR, Findings, Precondition
from traitscope.runs import opening, store
from traitscope.stats.decision import ALPHA, MIN_UNITS
from traitscope.stats.measurement import Measurement
from traitscope.stats.power import detectable
from traitscope.studies import plan, runner, sizes
from traitscope.studies.design import over_seeds
from traitscope.studies.experiment import arms, conclusion, early, nodes, page
from traitscope.studies.experiment.checks import check_models, check_teacher, said_of_traits
from traitscope.studies.experiment.file import (
    PROMPT,
    USUAL_LAYER,
    Experiment,
    judge_of,
)
from traitscope.studies.experiment.given import advice_of_the_file, check_files, said_of_files
from traitscope.studies.experiment.needs import lacks
from traitscope.studies.experiment.reading import plain_of, read_experiment, text_of
from traitscope.studies.runner import Request
from traitscope.workflow import graph, status
from traitscope.workflow.graph import Folders, Node

EXAMPLE = bundled_file("experiment.yaml")
"a commented experiment that runs"
COPY = "experiment.yaml"
"file of a conclusion that holds the experiment as it was read"
FOLDER = "experiments"
"study folder of all experiments, which so share their stages"
MEBIBYTE = 2**20


@dataclass(frozen=True)
class ExperimentRequest(Request):
    """An experiment that was asked for; `size` is the experiment, `study` its conclusion."""

    text: str = ""
    """The experiment's file as it was read."""

    def nodes(self) -> list[Node]:
        """Return the stages."""
        return nodes.nodes(self.size, self.common)

    def information(self) -> list[Node]:
        """Return no stage: what number rows can carry is asked for by `study information`."""
        return []

    def information_table(self, folders: Folders) -> Table | None:
        """Return no table."""
        return None

    def header(self) -> StudyHeader:
        """Return what the page says before any number."""
        experiment: Experiment = self.size
        primary = conclusion.primary_contrast(experiment)
        claim = conclusion.claim_text(experiment, primary)
        return StudyHeader(
            name=experiment.name,
            title=experiment.name,
            claim=f"Primary claim: {claim}",
            source="",
            published="",
            size="",
            model=self.config.model,
            power=power_text(experiment),
            bearing="",
            protocol=page.design_table(experiment),
        )

    def findings(self, folders: Folders) -> Findings:
        """Return what the sealed stages say."""
        return conclusion.conclude(self.size, folders, self.config.model)

    def named_size(self) -> Experiment:
        """Return the experiment, which knows its traits by their names."""
        return self.size

    def files(self) -> dict[str, str]:
        """Return the experiment's file as it was read, which the conclusion keeps.

        Raises ConfigError where the file is another one now: the stages are not those of its text.
        """
        file = self.config.file
        if text_of(file) != self.text:
            raise ConfigError(
                f"experiment {file} changed while its stages ran; expected the file as it was read;"
                f" type {self.typed} for the file as it is, which computes only what is missing"
            )
        return {COPY: self.text}

    def said(self, summary: Mapping[str, Any]) -> list[str]:
        """Return what was found, claim by claim, without the sentences that stand on the page."""
        lines = [f"{summary['study']}, {summary['model']}, seeds {list(self.size.all_seeds)}"]
        lines += teachers_said(list(map(Measurement.from_dict, summary["teachers"])))
        file = self.config.file
        verdicts = sorted(summary["verdicts"], key=lambda verdict: not verdict["primary"])
        for verdict in verdicts:
            role = "primary claim: " if verdict["primary"] else "claim: "
            number = Measurement.from_dict(verdict["decided_by"])
            lines.append(f"{role}{verdict['claim']}")
            lines.append(
                f"  {verdict['outcome']}: {estimate(number, True)} {number.unit}"
                f" {bounds(number, True)}, {number.interval}; n = {number.n}"
            )
            lines += [f"  {reason}" for reason in verdict["reasons"]]
        for need in verdicts[0]["preconditions"]:
            lines.append(f"it needs, {Precondition(**need)}")
        if verdicts[0]["outcome"] == "undecided":
            lines.append(f"more seeds or rows may decide: raise seeds or data.rows in {file}")
        return [*lines, *lacks(self.size)]

    @property
    def typed(self) -> str:
        """What one would type to compute what is missing."""
        return _typed(self.config, self.out, "run")


@advice_of_the_file()
def run_experiment(config: ExperimentConfig, out: Output) -> dict:
    """Do what the action asks for and return its summary, with what one would type next."""
    if (config.file is None) == (config.example is None):
        raise ConfigError(
            f"the file is {config.file}, --example {config.example}; expected one of the two:"
            " traitscope experiment FILE.yaml, or traitscope experiment --example FILE.yaml"
        )
    if config.example is not None:
        return _write_example(config.example)
    request = request_of(config, out)
    summary = _done(config, request)
    if summary.get("run") is not None:
        return summary | {"next": _after_run(config, request, summary)}
    return summary | {"next": _next(config, out, summary)}


def _done(config: ExperimentConfig, request: ExperimentRequest) -> dict:
    """Do what the action asks for; only `run` computes stages."""
    is_asked = config.action in ("plan", "run")
    if is_asked and not graph.all_sealed(request.nodes(), request.out):
        check_models(request.size, request.config)
    if config.action == "run":
        for sentence in _said_before(request.size):
            print(f"traitscope: {sentence}", file=sys.stderr)
        tell = early.teller(request.size, request.nodes(), request.out)
        return _concluded(runner.run_request(request, tell), request)
    planned = graph.plan(request.nodes(), request.out, strict=config.action != "status")
    if config.action == "status":
        return status.status(planned, request.out)
    if config.action == "report":
        return _concluded(runner.report(request, planned), request)
    summary = plan.print_plan(planned, request.config, runner.how(request.config))
    return summary | _printed_design(request)


def _said_before(experiment: Experiment) -> list[str]:
    """Return what a reader should know before anything is computed: of files, traits and design."""
    return [*said_of_files(experiment), *said_of_traits(experiment), *lacks(experiment)]


def _printed_design(request: ExperimentRequest) -> dict:
    """Print design, claims, power and what is lacking; return the last three as a summary."""
    header = request.header()
    for part, how in header.protocol.rows:
        print(f"  {part}: {how}")
    for line in said_of_files(request.size):
        print(line)
    claims = []
    for contrast in arms.contrasts(request.size):
        claims.append(conclusion.claim_text(request.size, contrast))
        print(f"claim: {claims[-1]}")
    print(header.claim)
    print(header.power)
    missing = [*said_of_traits(request.size), *lacks(request.size)]
    for sentence in missing:
        print(f"lacks: {sentence}")
    return {"power": header.power, "claims": claims, "lacks": missing}


def _concluded(summary: dict, request: ExperimentRequest) -> dict:
    """Return the summary of a conclusion with its file, and with what its stages took."""
    if "run" not in summary:
        return summary
    seconds, memory = 0.0, 0.0
    for item in graph.plan(request.nodes(), request.out):
        if item.path is not None:
            manifest = store.load_run(item.path).manifest()
            seconds += manifest["seconds"] / manifest.get("packed", 1)
            memory = max(memory, manifest["peak_memory_mib"])
    minutes = round(seconds / 60, 1)
    print(f"its stages took {minutes:g} minutes of one worker, and at most {memory:.0f} MiB")
    return summary | {
        "file": str(request.config.file),
        "minutes": minutes,
        "memory": round(memory * MEBIBYTE),
    }


def _after_run(config: ExperimentConfig, request: ExperimentRequest, summary: dict) -> str:
    """What helps after a conclusion: a stronger teacher, more seeds or rows, or a report."""
    run = str(summary["run"])
    verdict = next(each for each in summary["verdicts"] if each["primary"])
    again = _typed(config, _without_label(request.out), "run")
    n_seeds = len(request.size.all_seeds)
    if verdict["outcome"] == "undecided":
        return f"more than {n_seeds} `seeds`, or more rows, in {config.file}; then {again}"
    if verdict["outcome"] != "no verdict":
        return shlex.join(["traitscope", "report", run, "--for-paper", "paper"])
    unmet = [need["name"] for need in verdict["preconditions"] if not need["met"]]
    about = conclusion.primary_contrast(request.size).trait
    if HAS_TRAIT in unmet or (SHOWS_BEHAVIOUR in unmet and request.size.judge_about(about)):
        return _scan_typed(request)
    if not unmet and n_seeds < MIN_UNITS:
        return f"{MIN_UNITS} `seeds` or more in {config.file}, which has {n_seeds}; then {again}"
    return shlex.join(["traitscope", "show", run])


def _scan_typed(request: ExperimentRequest) -> str:
    """The scan for a stronger teacher, by the vector of the experiment's own teacher."""
    contrast = conclusion.primary_contrast(request.size)
    words = ["--trait", contrast.trait, *model_words(vars(request.config))]
    vector = request.size.teachers[contrast.treated].vector
    company = []
    for trait in nodes.vector_traits(request.size):
        if trait_name(trait) != trait_name(contrast.trait):
            company.append(trait)
    if vector is not None:
        words += ["--vector", str(vector)]
    elif company:
        words += ["--company", *company]
    places = changed_flags(replace(_without_label(request.out), json=None))
    return shlex.join(["traitscope", "steer-scan", *words, *places])


def _without_label(out: Output) -> Output:
    """The place for a further run: a name is that of one run alone."""
    return Output(out.root, out.study, out.track, out.json)


def _next(config: ExperimentConfig, out: Output, summary: dict) -> str:
    """What one would type after an action with this summary, which concluded nothing."""
    is_complete = summary.get("missing") == 0
    if config.action == "status":
        is_complete = set(summary["counts"]) == {"sealed"}
    return _typed(config, out, "report" if is_complete else "run")


def _typed(config: ExperimentConfig, out: Output, action: str) -> str:
    """An action on the same experiment as one would type it."""
    settings = changed_flags(replace(config, action="run", all=False))
    place = settings.index("--file")
    file = settings[place + 1]
    others = [*settings[:place], *settings[place + 2 :]]
    words = [file] if action == "run" else [action, file]
    places = changed_flags(replace(out, json=None))
    return shlex.join(["traitscope", "experiment", *words, *others, *places])


def _write_example(file: Path) -> dict:
    """Write the commented example. Raises StoreError where there is a file already."""
    if file.exists():
        raise StoreError(f"--example {file} is there already; expected a new file; name another")
    atomic_files.write_text(file, EXAMPLE.read_text(encoding="utf-8"))
    print(f"an experiment that runs: {file}")
    return {"status": "ok", "file": str(file), "next": f"traitscope experiment plan {file}"}


@advice_of_the_file()
def request_of(
    config: ExperimentConfig, out: Output, copy: Path | None = None
) -> ExperimentRequest:
    """Return the request behind a file: defaults filled in, everything checked.

    copy: What a conclusion kept of the file. It is read in the file's place, under the file's name;
    the user may have changed the file since.

    Raises what is wrong with the file, or with one that it names, before anything is computed.
    """
    file = config.file
    assert file is not None, "the settings were checked"
    name = file.stem
    if copy is not None:
        file, config = copy, replace(config, file=copy)
    text = text_of(file)
    experiment = read_experiment(plain_of(text, file), str(file), config.seed)
    config = replace(
        config,
        model=config.model or experiment.model,
        template=config.template or experiment.template,
        dtype=experiment.dtype if config.dtype == "auto" else config.dtype,
    )
    config = opening.settled(config)
    blocks = sizes.blocks_of(config.model, config.template)
    experiment = nodes.with_layer(experiment, blocks, sizes.DEPTH, USUAL_LAYER)
    experiment = replace(experiment, name=experiment.name or name)
    if out.study == "default":
        out = replace(out, study=FOLDER)
    request = ExperimentRequest(config, conclusion, experiment, out, text)
    _check(request, str(file))
    return request


def _check(request: ExperimentRequest, where: str) -> None:
    """Raise what cannot work: a trait, layer, arm or file that is not there or cannot be read."""
    experiment: Experiment = request.size
    _check_traits(experiment, where)
    finding.check_layers([experiment.layer or 0], request.config.model, f"{where}: layer")
    for name, teacher in experiment.teachers.items():
        place, config = f"{where}: teachers.{name}", request.config
        check_teacher(teacher, config.model, place, config.same_as, config.template)
    for control in experiment.all_controls:
        if isinstance(control, dict) and PROMPT in control and not control[PROMPT].strip():
            raise ConfigError(f"{where}: a control's prompt is blank; expected a text; fill it in")
    check_files(experiment, where)
    if wrong := arms.ambiguous(experiment):
        raise ConfigError(
            f"{where}: {wrong} name a teacher and a control, or two controls; expected distinct"
            " names; rename the teacher, the trait or the file"
        )
    conclusion.primary_contrast(experiment)
    graph.ordered(request.nodes())
    graph.check_settings(request.nodes(), request.out)


def _check_traits(experiment: Experiment, where: str) -> None:
    """Raise what is wrong with the traits: one that is none, or none of the words that decide."""
    named = list(dict.fromkeys((*nodes.vector_traits(experiment), *experiment.traits)))
    if judge_of(experiment.traits[0]):
        own_needs.check(named, "vectors")
        own_needs.check(experiment.traits, "teachers")
        return
    for trait in named:
        load_trait(trait)
    own_needs.check(named, "differences")
    for trait in experiment.traits:
        if experiment.primary.score == "candidate_share" and not load_trait(trait).candidates:
            raise ConfigError(
                f"{where}: primary.score is candidate_share, and {trait} names no candidates;"
                " expected some; add them to the trait, or decide by target_logprob"
            )


def power_text(experiment: Experiment) -> str:
    """Return the power of the primary claim, or the smallest effect that it could see."""
    asked, treated = experiment.primary, conclusion.primary_contrast(experiment).treated
    students = arms.arm_of(experiment, treated)
    seeds = students.seeds
    claims = len(arms.contrasts(experiment))
    alpha = ALPHA / claims
    unit = "nats" if asked.score == "target_logprob" else "of a rate"
    together = f" {claims} claims are tested together." if claims > 1 else ""
    if asked.expected is not None and asked.spread is not None:
        source = "Both stand in the experiment's file."
        stated = over_seeds(seeds, (asked.expected, asked.spread), unit, source)
        return f"Power of the primary claim: {stated.text(alpha)}{together}"
    if len(seeds) < 2:
        return f"One seed alone has no power.{together}"
    least = detectable(1.0, len(seeds), alpha=alpha)
    known = ""
    if asked.score == "target_logprob" and students.recipe.targets == "sampled":
        known = "; the demo's five seeds of sampled targets gave 0.39 and 0.26 nats for cat"
    return (
        f"With {len(seeds)} seeds an effect of {least:.1f} standard deviations between seeds is"
        f" found with power 0.80. State primary.expected and primary.spread for the power{known}."
        f"{together}"
    )


def replay(config: ExperimentConfig, inputs: Mapping[str, Path], out: Output) -> store.Run:
    """Conclude again from the sealed stages, which are not computed again.

    inputs: Where the recorded inputs lie; `file` is what the conclusion kept of the experiment.
    """
    return runner.replayed(request_of(config, out, inputs["file"]), inputs)
