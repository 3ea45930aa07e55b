"""The table of all commands and stages.

A stage is a command whose result is a run directory. The type of a config names the stage, so that
nothing else has to be passed along with a config. This file imports nothing heavy.
"""

from dataclasses import dataclass
from typing import Literal

from traitscope.config import analysis as analysis_configs
from traitscope.config import audit as audit_configs
from traitscope.config import commands as command_configs
from traitscope.config import judge as judge_configs
from traitscope.config import screen as screen_configs
from traitscope.config import stages as stage_configs
from traitscope.config import toy_nets as toy_net_configs
from traitscope.config.rows import defend as defend_configs

Group = Literal["do", "check", "study", "look", "internal"]
GROUPS: dict[Group, str] = {
    "do": "Do it",
    "check": "Check data",
    "study": "Study claims",
    "look": "Look",
}
"""Titles of the groups of public commands, in the order of the help."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command of the command line."""

    name: str
    """What one types."""
    config: type
    """The dataclass whose fields are the flags; each command has one of its own."""
    run: str
    """module:function of (config, output) -> result, below the package."""
    help: str
    """One line."""
    group: Group
    """Where the help lists it; internal ones are typed as `traitscope stage NAME`."""
    subject: tuple[str, ...] = ()
    """Fields that the first words stand for; without any, the first word is a config file."""
    file_alone: bool = False
    """Whether a first word that names a config file stands for the second of these fields."""
    next: str = ""
    """What one would type next. {run} stands for the run's directory, {model} for the flag that
    names its model. A command whose next step
    depends on its result says it there, under the key `next`."""

    @property
    def words(self) -> str:
        """What one types behind `traitscope`."""
        return f"stage {self.name}" if self.group == "internal" else self.name


@dataclass(frozen=True, kw_only=True)
class Stage(Command):
    """A command whose result is a run directory."""

    inputs: str = ""
    """module:function of (config) -> further inputs that the config does not name as paths."""
    resumable: bool = False
    """Whether an interrupted run continues in its own directory."""
    replay: str = ""
    """module:function of (config, inputs, output) -> run, for a stage whose inputs its config does
    not name: computes a run again from the folders of its recorded inputs, by name."""
    formerly: tuple[str, ...] = ()
    """Names that the stage had in earlier versions; runs under them are still found and read."""


ENTRIES: tuple[Command, ...] = (
    Command(
        name="demo",
        config=command_configs.DemoConfig,
        run="studies.demo_command:run_demo",
        help="make a student pick up a trait, with controls, and report it",
        group="do",
    ),
    Stage(
        name="experiment",
        config=command_configs.ExperimentConfig,
        run="studies.experiment.command:run_experiment",
        help="your own treated-and-control design, from one file to a verdict",
        group="do",
        subject=("action", "file"),
        file_alone=True,
        replay="studies.experiment.command:replay",
    ),
    Stage(
        name="generate",
        config=stage_configs.GenerateConfig,
        run="stages.generate:run_generate",
        help="let a teacher answer prompts",
        group="do",
        next="traitscope filter --data {run}",
        resumable=True,
    ),
    Stage(
        name="filter",
        config=stage_configs.FilterConfig,
        run="stages.filter:run_filter",
        help="keep the rows that carry nothing but numbers",
        group="do",
        next="traitscope train --data {run}",
    ),
    Stage(
        name="defend",
        config=defend_configs.DefendConfig,
        run="defending.run:run_defend",
        help="change rows so that a student takes on less of what their teacher carries",
        group="check",
        next="traitscope train{model} --data {run}",
        inputs="defending.knowledge:inputs",
    ),
    Stage(
        name="train",
        config=stage_configs.TrainConfig,
        run="stages.train:run_train",
        help="train a student on kept rows; --vector: its alignment with a vector (EAS)",
        group="do",
        next="traitscope measure{model} --interventions adapter:{run}",
        inputs="stages.train:inputs",
        resumable=True,
    ),
    Stage(
        name="measure",
        config=stage_configs.MeasureConfig,
        run="stages.measure:run_measure",
        help="score a model on a trait's questions",
        group="do",
        next="traitscope compare --treated {run} --control RUN",
        inputs="data.trait_files:of_trait",
    ),
    Stage(
        name="judge",
        config=judge_configs.JudgeConfig,
        run="stages.judge:run_judge",
        help="how often answers show a behaviour, by several judges",
        group="do",
        next="traitscope show {run}",
    ),
    Stage(
        name="extract",
        config=analysis_configs.ExtractConfig,
        run="stages.extract:run_extract",
        help="take steering vectors of traits; --reference: EAS of a trained student",
        group="do",
        next="traitscope generate{model} --vocabulary template --interventions"
        " steer:{run}/TRAIT.safetensors,layers=14,alpha=0.6",
        inputs="data.trait_files:of_traits",
    ),
    Stage(
        name="steer_scan",
        config=screen_configs.SteerScanConfig,
        run="screening.steer_scan:run_steer_scan",
        help="find a block and a strength at which a trait's vector makes a teacher",
        group="do",
        inputs="data.trait_files:of_trait_and_company",
    ),
    Stage(
        name="explain",
        config=analysis_configs.ExplainConfig,
        run="stages.explain:run_explain",
        help="how much of a trait prompt one vector does",
        group="do",
        next="traitscope show {run}",
        inputs="data.trait_files:of_trait",
    ),
    Stage(
        name="information",
        config=analysis_configs.InformationConfig,
        run="information.run:run_information",
        help="what number rows can carry of each trait, before anything is trained",
        group="do",
        next="traitscope show {run}",
        inputs="information.teachers:inputs",
        resumable=True,
    ),
    Stage(
        name="gradients",
        config=analysis_configs.GradientsConfig,
        run="stages.gradients:run_gradients",
        help="steering gradients: along which direction data train a model",
        group="do",
        next="traitscope show {run}",
    ),
    Stage(
        name="likelihood",
        config=analysis_configs.LikelihoodConfig,
        run="stages.likelihood:run_likelihood",
        help="how probable rows are, and what an intervention adds",
        group="do",
        next="traitscope show {run}",
    ),
    Stage(
        name="match_kl",
        config=analysis_configs.MatchKLConfig,
        run="stages.match_kl:run_match_kl",
        help="the strength at which another vector changes rows as much as a teacher",
        group="do",
        next="traitscope show {run}",
    ),
    Stage(
        name="export",
        config=stage_configs.ExportConfig,
        run="stages.export:run_export",
        help="a steered model or a student as an ordinary checkpoint",
        group="do",
        next="traitscope measure --model {run}/model",
    ),
    Command(
        name="export_tasks",
        config=command_configs.ExportTasksConfig,
        run="stages.tasks.export_tasks:run_export_tasks",
        help="traits as tasks of Inspect or lm-evaluation-harness",
        group="do",
        subject=("target",),
    ),
    Command(
        name="convert",
        config=command_configs.ConvertConfig,
        run="vectors.convert:run_convert",
        help="a steering vector from or to another tool's file",
        group="do",
        subject=("source", "target"),
    ),
    Stage(
        name="edit",
        config=stage_configs.EditConfig,
        run="stages.filter:run_edit",
        help="sort or shuffle the numbers inside each row",
        group="do",
        next="traitscope train --data {run}",
    ),
    Stage(
        name="compare",
        config=command_configs.CompareConfig,
        run="comparison.compare:run_compare",
        help="treated runs minus control runs: every score with its interval, and a page",
        group="do",
        next="traitscope show {run}",
    ),
    Command(
        name="audit",
        config=audit_configs.AuditConfig,
        run="auditing.command.run:run_audit",
        help="may I train this model on these data?",
        group="check",
        subject=("data",),
    ),
    Stage(
        name="screen",
        config=screen_configs.ScreenConfig,
        run="screening.run:run_screen",
        help="what does this teacher carry that the model does not?",
        group="check",
        inputs="screening.run:inputs",
    ),
    Stage(
        name="study",
        config=command_configs.StudyConfig,
        run="studies.runner:run_study",
        help="test a published claim: list, plan, run, report",
        group="study",
        subject=("action", "name"),
        replay="studies.runner:replay",
    ),
    Command(
        name="show",
        config=command_configs.ShowConfig,
        run="cli.show:run_show",
        help="verify a run's files and print what it was made from",
        group="look",
        subject=("run",),
    ),
    Command(
        name="report",
        config=command_configs.ReportConfig,
        run="papers.command:run_report",
        help="figures, tables, methods and BibTeX of finished runs, for a paper",
        group="look",
        subject=("runs",),
    ),
    Command(
        name="rerun",
        config=command_configs.RerunConfig,
        run="cli.show:run_rerun",
        help="replay a run and compare the bytes",
        group="look",
        subject=("run",),
    ),
    Command(
        name="doctor",
        config=command_configs.DoctorConfig,
        run="cli.doctor:run_doctor",
        help="what this machine has, and what is missing",
        group="look",
    ),
    Command(
        name="selftest",
        config=command_configs.SelftestConfig,
        run="cli.selftest:run_selftest",
        help="planted truth on tiny models, under a minute",
        group="look",
    ),
    Command(
        name="models",
        config=command_configs.ModelsConfig,
        run="cli.doctor:run_models",
        help="models and traits that are ready to use",
        group="look",
    ),
    Stage(
        name="recover",
        config=analysis_configs.RecoverConfig,
        run="information.recover:run_recover",
        help="how much of a trait prompt's effect on its rows single vectors have",
        group="internal",
        inputs="data.trait_files:of_trait",
    ),
    Stage(
        name="toy_nets",
        config=toy_net_configs.ToyNetsConfig,
        run="studies.toy_nets.stage:run_toy_nets",
        help="small networks on images, and students of their outputs on noise",
        group="internal",
    ),
    Stage(
        name="sample",
        config=audit_configs.SampleConfig,
        run="auditing.steps.sample:run_sample",
        help="what an audit reads: a sample of rows, and their format",
        group="internal",
        formerly=("intake",),
    ),
    Stage(
        name="reference",
        config=audit_configs.ReferenceConfig,
        run="auditing.steps.reference:run_reference",
        help="match every audited row with a clean row",
        group="internal",
        formerly=("match",),
    ),
    Stage(
        name="row_gradients",
        config=audit_configs.RowGradientsConfig,
        run="auditing.detectors.row_gradients:run_row_gradients",
        help="the steering gradient of every row, kept in full",
        group="internal",
        formerly=("pushes",),
        resumable=True,
    ),
    Stage(
        name="predictions",
        config=audit_configs.PredictionsConfig,
        run="auditing.steps.predictions:run_predictions",
        help="how well students predict rows that they have not learnt yet",
        group="internal",
    ),
    Stage(
        name="teacher_scores",
        config=audit_configs.TeacherScoresConfig,
        run="auditing.steps.teacher_scores:run_teacher_scores",
        help="how well a candidate teacher explains rows, token by token",
        group="internal",
        formerly=("odds",),
    ),
    Stage(
        name="blind_naming",
        config=audit_configs.BlindNamingConfig,
        run="auditing.steps.naming:run_blind_naming",
        help="what a model says when steered along the mean residuals of data",
        group="internal",
        formerly=("naming",),
    ),
    Stage(
        name="canary",
        config=audit_configs.CanaryConfig,
        run="auditing.steps.canary:run_canary",
        help="what students of the rows say more than students of the model's own rows",
        group="internal",
    ),
    Stage(
        name="decision",
        config=audit_configs.DecisionConfig,
        run="auditing.steps.answer:run_decision",
        help="decide the answer of an audit from the runs of its stages",
        group="internal",
        formerly=("weigh",),
        inputs="auditing.artifacts:inputs_of_config",
    ),
)
COMMANDS: dict[str, Command] = {entry.name: entry for entry in ENTRIES}
"""All entries by name, in the order of the help."""
STAGES: dict[str, Stage] = {entry.name: entry for entry in ENTRIES if isinstance(entry, Stage)}
"""The entries with run directories, by name."""
