"""The command `study`: list the studies, plan one, run it, print its verdicts.

A finished study is itself a sealed run. It holds findings.json, a CSV for each table, and one HTML
page. They are made of the sealed runs of the study's nodes alone.
"""

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traitscope.config import parsing
from traitscope.config.commands import ExperimentConfig, StudyConfig
from traitscope.config.common import Output
from traitscope.config.fields import changed_flags
from traitscope.data.own_traits import needs
from traitscope.data.traits import trait_name
from traitscope.errors import ConfigError
from traitscope.models.bundled import EMBEDDED
from traitscope.models.identity.finding import parameter_count
from traitscope.reporting.study_page import FINDINGS, PAGE, StudyHeader
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Findings
from traitscope.runs import opening, store
from traitscope.studies import check_name, plan, protocol, sizes
from traitscope.studies.conclusions import conclude, folders_of
from traitscope.studies.design import Design, bearing
from traitscope.studies.protocol import Study
from traitscope.workflow import executors, graph, information_node, schedule, status
from traitscope.workflow.executors import How
from traitscope.workflow.graph import Folders, Node, Planned

SMOKE_ROWS = 4
"number rows that the teachers of a smoke size are compared on"
STUDENTS_A_PASS_ON_GPU = 16
"students that share a pass on a GPU, where the settings do not say"


@dataclass(frozen=True)
class Request:
    """A study that was asked for, with everything that follows from the settings."""

    config: Any
    """The settings of `study`, or of `experiment`; the model's device and type are settled."""
    study: Any
    """The study: a module with the names of `Study`."""
    size: Any
    """The study's `Size`, with the user's changes."""
    out: Output
    """Where the runs lie."""

    @property
    def common(self) -> dict:
        """Return the settings that all stages share."""
        return {
            "model": self.config.model,
            "device": self.config.device,
            "dtype": self.config.dtype,
            "template": self.config.template,
            "control_tokens": self.config.control_tokens,
            "same_as": self.config.same_as,
        }

    def nodes(self) -> list[Node]:
        """Return the stages of the study."""
        return self.study.nodes(self.size, self.common)

    def information(self) -> list[Node]:
        """Return the stage that says what the study's number rows can carry, or none."""
        rows = SMOKE_ROWS if self.config.size == "smoke" else information_node.ROWS
        node = information_node.node(self.nodes(), self.common, rows)
        return [] if node is None else [node]

    def information_table(self, folders: Folders) -> Table | None:
        """Return what the size can test, from the folders of sealed stages; None if not known yet.

        The table has no rows where no student of the study reads sampled digits of a teacher.
        """
        if self.information() and information_node.NAME not in folders:
            return None
        return information_node.table(self.nodes(), folders, self.common)

    def _changes(self) -> Iterator[str]:
        """Yield what a user changed of the size; files of traits go by their traits' names."""
        keys = [change.partition("=")[0] for change in self.config.set]
        usual = self.study.SIZES[self.config.size]
        for key in sizes.TRAIT_FIELDS:  # usual traits that gave way to the user's
            if key not in keys and getattr(self.size, key, ()) != getattr(usual, key, ()):
                keys.append(key)
        for key in keys:
            value = self.size
            for part in key.split("."):
                value = getattr(value, part)
            if isinstance(value, tuple):
                yield f"{key}=[{','.join(trait_name(str(item)) for item in value)}]"
            else:
                yield f"{key}={trait_name(str(value))}"

    def header(self) -> StudyHeader:
        """Return what the page says of the study before any number."""
        design = self.design()
        bears = bearing(self.study.PROTOCOL, design.here)
        return StudyHeader(
            name=self.config.name,
            title=self.study.TITLE,
            claim=self.study.CLAIM,
            source=self.study.SOURCE,
            published=self.study.PUBLISHED,
            size=self.config.size,
            model=design.here.model,
            power=design.power_text,
            bearing=str(bears),
            protocol=bears.table,
            changes=" ".join(self._changes()),
        )

    def design(self) -> Design:
        """Return what the study could show on its model, which may be one of its own."""
        design = self.study.design(self.size)
        if design.here.model:
            return design
        model = self.config.model
        return design.on_model(model, parameter_count(model))

    def findings(self, folders: Folders) -> Findings:
        """Return what the sealed stages say."""
        return self.study.conclude(self.named_size(), folders, self.design().here.model)

    def named_size(self) -> Any:
        """Return the size with the names of its traits in place of their files."""
        return sizes.named(self.size)

    def said(self, summary: Mapping[str, Any]) -> list[str]:
        """Return the lines that the terminal shows of the content of findings.json."""
        return summary["said"]

    def files(self) -> dict[str, str]:
        """Return texts that the conclusion keeps beside its page, by the name of the file."""
        return {}

    @property
    def typed(self) -> str:
        """What one would type to compute what is missing."""
        return f"traitscope study run {self.config.name} --size {self.config.size}"


def run_study(config: StudyConfig, out: Output) -> dict:
    """Do what the action asks for and return its summary, with what one would type next."""
    if config.action == "list":
        return plan.print_studies(opening.settled(config)) | {"next": "traitscope study plan NAME"}
    check_name(config.name)
    if config.blocks:
        return _forecast(config)
    summary = _done(config, out)
    return summary | {"next": _next(config, out, summary)}


def _done(config: StudyConfig, out: Output) -> dict:
    """Do what the action asks for of one study; only `run` and `information` compute stages."""
    request = request_of(config, out)
    if config.action in ("plan", "run", "information"):
        _check_model(request)
    traits = sizes.traits_of(request.size)
    for sentence in [*needs.advice(traits, "differences"), *needs.same_prompts(traits)]:
        print(f"traitscope: {sentence}", file=sys.stderr)
    if config.action == "run":
        return run_request(request)
    if config.action == "information":
        return _information(request)
    nodes = request.nodes() + request.information()
    planned = graph.plan(nodes, request.out, strict=config.action != "status")
    if config.action == "status":
        return status.status(planned, request.out)
    if config.action == "gather":
        return status.gather(planned, request.out)
    if config.action == "report":
        return report(request, planned)
    plan.print_information(request.information_table(_sealed(planned)), config.name)
    header = request.header()
    print(header.power)
    print(header.bearing)
    plan.print_settings(request.size)
    summary = plan.print_plan(planned, config, how(config))
    return summary | {"power": header.power, "bearing": header.bearing}


def _check_model(request: Request) -> None:
    """Raise what the model would be refused for once a stage loads it; weights are not read.

    Not where all stages are sealed: they have loaded it, and nothing that computes is imported.
    """
    if graph.all_sealed(request.nodes(), request.out):
        return
    from traitscope.models.loading import check_loadable

    config = request.config
    check_loadable(config.model, config.template, config.control_tokens)


def _next(config: StudyConfig, out: Output, summary: dict) -> str:
    """What one would type after an action with this summary."""
    if config.action == "information":
        return _typed(config, out, "plan")
    if summary.get("run") is not None:
        return f"traitscope show {summary['run']}"
    is_complete = False
    if config.action == "plan":
        is_complete = summary["missing"] == 0
    elif config.action == "status":
        is_complete = set(summary["counts"]) == {"sealed"}
    elif config.action == "gather":
        is_complete = summary["rows"] == summary["of"]
    return _typed(config, out, "report" if is_complete else "run")


def _typed(config: StudyConfig, out: Output, action: str) -> str:
    """Another action on the same study as one would type it."""
    settings = changed_flags(replace(config, action="list", name="", all=False))
    places = changed_flags(replace(out, json=None))
    return shlex.join(["traitscope", "study", action, config.name, *settings, *places])


def _sealed(planned: list[Planned]) -> dict[str, Path]:
    """Return the folders of the nodes that are sealed."""
    folders = {}
    for item in planned:
        if item.state == "sealed" and item.path is not None:
            folders[item.node.name] = item.path
    return folders


def _information(request: Request) -> dict:
    """Compute what the study's number rows can carry, and what that needs; print the table."""
    folders = schedule.run(_behind(request), request.out, how(request.config))
    table = request.information_table(folders)
    plan.print_information(table, request.config.name)
    run = folders.get(information_node.NAME)
    return {"status": "ok", "run": None if run is None else str(run)}


def _behind(request: Request) -> list[Node]:
    """Return the node of what number rows can carry, and all nodes that it needs."""
    wanted = request.information()
    by_name = {node.name: node for node in request.nodes()}
    for node in wanted:
        for name in node.needs:
            if by_name[name] not in wanted:
                wanted.append(by_name[name])
    return wanted


def request_of(config: StudyConfig, out: Output) -> Request:
    """Return the request behind settings: study loaded, device settled, size changed as asked."""
    study = protocol.load(config.name)
    config = replace(opening.settled(config), name=config.name.replace("-", "_"))
    config = replace(config, dtype=getattr(study, "DTYPE", config.dtype))
    if out.study == "default":
        ending = "" if config.size == "laptop" else f"-{config.size}"
        out = replace(out, study=f"study-{config.name}{ending}")
    size = _at_depth_of_model(config, study, study.SIZES[config.size])
    size = parsing.changed(size, config.set, f"size {config.size} of {config.name}")
    sizes.check(size, study.SIZES[config.size], config.model)
    size = sizes.given_way(size, [change.partition("=")[0] for change in config.set])
    sizes.check_traits(size, study.SIZES[config.size])
    return Request(config, study, size, out)


def _at_depth_of_model(config: StudyConfig, study: Study, size: Any) -> Any:
    """Return the size with its layers at the same relative depth of the model.

    Sizes count the blocks of the embedded model. Smoke sizes count those of a tiny model and stay
    as they are, unless the study says otherwise (see studies/protocol.py).
    """
    counts_tiny_model = config.size == "smoke" and not getattr(study, "SMOKE_AT_DEPTH", False)
    if counts_tiny_model or config.model == EMBEDDED:
        return size
    return sizes.at_depth(size, sizes.blocks_of(config.model, config.template))


def _forecast(config: StudyConfig) -> dict:
    """Print what the study takes with a model, and on a machine, that are not here."""
    study = protocol.load(config.name)
    size = sizes.at_depth(study.SIZES[config.size], config.blocks)
    config = opening.settled(config)
    common = {
        "model": config.model,
        "device": config.device,
        "dtype": config.dtype,
        "template": config.template,
        "control_tokens": config.control_tokens,
        "same_as": config.same_as,
    }
    return plan.print_forecast(study.nodes(size, common), config.parameters, config.rate)


def how(config: StudyConfig | ExperimentConfig) -> How:
    """Return where and how the stages of settled settings run."""
    workers = config.max_jobs
    if config.executor == "local":
        workers = config.workers or executors.default_workers(config.device)
    usual_pack = STUDENTS_A_PASS_ON_GPU if config.device == "cuda" else 1
    return How(
        workers,
        config.executor,
        config.pack or usual_pack,
        config.limit,
        cluster=config.cluster,
    )


def run_request(
    request: Request, sealed: Callable[[str, Path], None] = lambda name, folder: None
) -> dict:
    """Compute the missing stages; print the verdicts once all are there.

    sealed: A function called with the name and folder of every node, once it is computed.
    """
    nodes = request.nodes() + request.information()
    folders = schedule.run(nodes, request.out, how(request.config), sealed=sealed)
    if len(folders) < len(nodes):
        print(f"{len(folders)} of {len(nodes)} stages are sealed; the same command goes on")
        return {"status": "ok", "sealed": len(folders), "of": len(nodes)}
    return print_verdicts(request, conclude(request, folders))


def report(request: Request, planned: list[Planned]) -> dict:
    """Print the verdicts from runs that are there.  Raises ConfigError where one is missing."""
    needed = [item for item in planned if item.node.name != information_node.NAME]
    missing = [item for item in needed if item.state != "sealed"]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(needed)} stages are missing, the first is"
            f" {missing[0].node.name}; run: {request.typed}"
        )
    return print_verdicts(request, conclude(request, _sealed(planned)))


def replay(config: StudyConfig, inputs: Mapping[str, Path], out: Output) -> store.Run:
    """Conclude again from the sealed runs of a study's stages, which are not computed again.

    `inputs` are those that the conclusion recorded, by node. Raises ConfigError where the study of
    this version has other stages.
    """
    return replayed(request_of(config, out), inputs)


def replayed(request: Request, inputs: Mapping[str, Path]) -> store.Run:
    """Conclude again on a request, from the recorded inputs of its conclusion, by node."""
    return conclude(request, folders_of(request, inputs))


def print_verdicts(request: Request, run: store.Run) -> dict:
    """Print the verdicts of a finished study and return its summary."""
    summary = json.loads(run.file(FINDINGS).read_text(encoding="utf-8"))
    for line in request.said(summary):
        print(line)
    print(run.file(PAGE))
    return summary | {"run": str(run.path)}
