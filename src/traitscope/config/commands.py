"""Settings of the commands around the stages: demo, study, compare, and those that look and check.

This file imports nothing heavy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from traitscope.config.common import OnModel, check_minimums
from traitscope.config.fields import setting
from traitscope.errors import ConfigError

VectorFormat = Literal[
    "auto",
    "traitscope",
    "persona_vectors",
    "agu18dec",
    "steering-vectors",
    "lm-eval",
    "repeng",
    "safetensors",
    "numpy",
]


@dataclass(frozen=True)
class Execution:
    """Where the stages of a graph run, and how many at once."""

    workers: int = setting(0, speed_only=True)
    """Processes side by side; 0 takes two on a CPU and one on a GPU."""
    executor: Literal["local", "ray", "submitit"] = setting("local", speed_only=True, advanced=True)
    """Where stages run: here, on a Ray cluster (extra [ray]), or as jobs of Slurm (extra [slurm]).
    """
    max_jobs: int = setting(0, speed_only=True, advanced=True)
    """Most jobs of a cluster at one time. 0 takes what Ray has room for, and 32 of Slurm."""
    cluster: tuple[str, ...] = setting((), speed_only=True, advanced=True)
    """Settings of the cluster, such as address=auto cpus=4 gpus=1 memory_gb=24 minutes=240
    partition=gpu."""
    limit: int = setting(0, speed_only=True, advanced=True)
    """Most stages to compute now; 0 computes all that are missing."""
    pack: int = setting(0, speed_only=True, advanced=True)
    """Most students that train, answer or are extracted in one pass. 0 takes one on a CPU and 16 on
    a GPU."""

    def __post_init__(self) -> None:
        check_minimums(self, workers=0, max_jobs=0, limit=0, pack=0)
        if self.cluster and self.executor == "local":
            raise ConfigError(
                f"--cluster {' '.join(self.cluster)} with --executor local, which has no cluster;"
                " expected ray or submitit; name one, or leave --cluster out"
            )


@dataclass(frozen=True)
class StudyConfig(Execution, OnModel):
    """Test a published claim.

    Actions list the studies, plan one, say what its rows can carry, run it, show its status, gather
    its numbers, or print its verdicts.
    """

    action: Literal["list", "plan", "information", "run", "status", "gather", "report"] = "list"
    """What to do; may be given without its flag. information computes no more than what the size's
    number rows can carry."""
    name: str = ""
    """Name of the study; may be given without its flag."""
    size: Literal["smoke", "laptop", "full"] = "laptop"
    """Size of the study. smoke shows the path and is no evidence. laptop is for two cores. full is
    for a GPU."""
    set: tuple[str, ...] = ()
    """Changes of the size, such as seeds=[1,2,3] strength=0.4 recipe.epochs=4
    traits=[cat,mine.yaml]. The action plan prints the whole size."""
    all: bool = setting(False, since=2, speed_only=True)
    """Whether plan prints a line for each stage. Otherwise it has one for each kind of stage."""
    blocks: int = setting(0, advanced=True)
    """Number of blocks of a model that is not here, for the action plan. With `parameters` and
    `rate`, plan prints the expected hours, without addresses."""
    parameters: float = setting(0, advanced=True)
    """Number of weights of the model of `blocks`, such as 7.6e9."""
    rate: float = setting(0, advanced=True)
    """Rate of matrix products of the machine for `blocks`, in FLOP/s, such as 8e14. Half of it is
    expected to be reached."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_minimums(self, seed=0, blocks=0, parameters=0, rate=0)
        elsewhere = (self.blocks > 0, self.parameters > 0, self.rate > 0)
        if any(elsewhere) and (not all(elsewhere) or self.action != "plan"):
            raise ConfigError(
                f"--blocks {self.blocks} --parameters {self.parameters:g} --rate {self.rate:g} with"
                f" action {self.action}: expected all three above 0, with plan; give all, or none"
            )


@dataclass(frozen=True)
class ExperimentConfig(Execution, OnModel):
    """A treated-and-control design of your own, from one file: run it, plan it, report it.

    The file names traits, teachers, controls, seeds, data, recipe and measures. --example writes
    one that runs.
    """

    action: Literal["run", "plan", "status", "report"] = "run"
    """What to do; may be given without its flag, and left out to run."""
    file: Path | None = setting(None, path="design")
    """File of the experiment (YAML or JSON); may be given without its flag."""
    example: Path | None = setting(None, path="written")
    """Write a commented experiment there, and compute nothing."""
    all: bool = setting(False, since=2, speed_only=True)
    """Whether plan prints a line for each stage. Otherwise it has one for each kind of stage."""
    model: str = ""
    """Model in the place of the file's."""
    seed: int = 1
    """First of the seeds, where the file gives their number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_minimums(self, seed=0)


@dataclass(frozen=True)
class DemoConfig(OnModel):
    """The whole chain on the embedded model: steered teacher, two kinds of data, students,
    controls, report."""

    seed: int = 1
    """First of the seeds. The demo uses this one and the following."""
    trait: str = "cat"
    """Trait of the teacher."""
    quick: bool = False
    """One seed and few rows: shows the path in two minutes. Its numbers are not evidence."""
    workers: int = 0
    """Processes side by side; 0 takes two on a CPU and one on a GPU. One torch thread each on two
    cores."""

    def __post_init__(self) -> None:
        check_minimums(self, seed=0, workers=0)


@dataclass(frozen=True)
class CompareConfig:
    """Treated models minus control models, from runs that are there: every score and EAS with its
    interval, on the terminal and as one HTML page."""

    treated: tuple[Path, ...] = ()
    """Runs of the treated models: of measure for scores, of train or extract for EAS."""
    control: tuple[Path, ...] = ()
    """Runs of the control models, likewise. One run of the unmodified model serves all."""
    vector: Path | None = None
    """The teacher's vector. With it, what only the teacher's data changed is compared, too."""
    layer: int | None = None
    """Layer at which EAS is read. Without it, EAS is drawn by layer and not listed."""
    design: Literal["auto", "paired", "unpaired"] = "auto"
    """paired matches training seeds; unpaired compares the means of both sides. auto pairs where
    both sides have the same seeds."""
    base: Path | None = setting(None, since=2)
    """Run of `measure` of the unmodified model, for a row of its own. With `teacher` it says
    whether the teacher has the trait: without, nothing can be read as transfer."""
    teacher: Path | None = setting(None, since=2)
    """Run of `measure` of the teacher. Needs `base`. Without treated and control the two are the
    comparison: teacher minus base."""
    report: Path | None = setting(None, path="written")
    """Also write the HTML page there."""
    latex: Path | None = setting(None, path="written", since=2)
    """Also write the differences there, as a booktabs table for LaTeX."""

    def __post_init__(self) -> None:
        if self.teacher and not self.base:
            raise ConfigError(
                f"--teacher {self.teacher} without --base: its trait is what it says beyond the"
                " unmodified model; measure that, and name the run with --base"
            )


@dataclass(frozen=True)
class ShowConfig:
    """Verify every file of a run; print what it was made from, its settings and its numbers.

    Without a run, list all runs below the root.
    """

    run: Path | None = None
    """Run directory, or name of a run; may be given without its flag. Without one, all runs below
    the root are listed: what made each, and its main number."""
    name: str | None = None
    """New name of the run; empty removes it. The sealed files stay as they are."""
    note: str | None = None
    """New note on the run; empty removes it."""
    stage: tuple[str, ...] = ()
    """List runs of these stages only."""
    trait: tuple[str, ...] = ()
    """List runs about these traits only."""
    sort: Literal["run", "stage", "name", "model", "trait", "seed", "made"] = "run"
    """Column by which the list is sorted."""
    all: bool = False
    """List the stages of audits, studies and experiments, too. Otherwise their results are listed,
    and stages with a name or a note."""
    csv: Path | None = setting(None, path="written")
    """Also write the list there, as CSV with whole cells."""

    def __post_init__(self) -> None:
        labelled = self.name is not None or self.note is not None
        if labelled and self.run is None:
            raise ConfigError(
                "--name or --note without a run; expected the run that is named: traitscope show"
                " RUN --name NAME"
            )
        listed = self.stage or self.trait or self.csv or self.all or self.sort != "run"
        if listed and self.run is not None:
            raise ConfigError(
                f"--stage, --trait, --sort, --all or --csv with the run {self.run}; expected them"
                " for the list of all runs; drop them, or the run"
            )


@dataclass(frozen=True)
class ReportConfig:
    """Write what a paper needs of finished runs.

    Figures come as SVG, PDF and PNG, tables as CSV, LaTeX and Markdown. A methods paragraph and its
    BibTeX are made from the manifests.

    Several runs of `measure`, `compare` or a study are drawn in one figure, by model and trait;
    several of `train` in one figure of EAS.
    """

    runs: tuple[Path, ...] = setting(
        (), needed="one finished run or more: of measure, compare, study, demo, train or audit"
    )
    """Finished runs, by path or name; may be given without the flag."""
    for_paper: Path | None = setting(None, path="folder", needed="the folder to write into")
    """Folder to write into. Nothing in it is overwritten but files of an earlier report."""
    score: str = "positive.target_logprob"
    """Score of `measure` and `compare` that several runs are drawn by."""


@dataclass(frozen=True)
class RerunConfig:
    """Replay a run from its own config and compare the bytes of every output."""

    run: Path | None = None
    """Run directory; may be given without its flag."""


@dataclass(frozen=True)
class DoctorConfig:
    """What this machine has: versions, threads, matrix rate, memory, disk, the embedded model, a
    compiler."""


@dataclass(frozen=True)
class SelftestConfig:
    """Planted truth on tiny models: a known vector is recovered, nothing leaks, a resumed run gives
    the same bytes."""


@dataclass(frozen=True)
class ModelsConfig:
    """Models and traits that are ready to use, and how to add a trait."""


@dataclass(frozen=True)
class ExportTasksConfig:
    """Write traits as tasks of Inspect or of lm-evaluation-harness.

    The folder needs nothing of this package, and its scorers score as this package does. One more
    task asks a finished student everyday requests.
    """

    target: str | None = setting(None, needed="the folder to write")
    """Folder that is written, new or empty; may be given without its flag."""
    to: Literal["inspect", "lm-eval"] = "inspect"
    """Tool whose tasks are written."""
    traits: tuple[str, ...] = ("all",)
    """Traits whose questions are asked, bundled names or YAML files; all stands for the bundled
    ones."""
    samples: int = 4
    """Sampled answers a question."""
    max_new_tokens: int = setting(8, advanced=True)
    """Longest answer, in tokens."""

    def __post_init__(self) -> None:
        check_minimums(self, samples=1, max_new_tokens=1)


@dataclass(frozen=True)
class ConvertConfig:
    """Turn another tool's steering vector into a vector file, or a vector file into another
    tool's."""

    source: Path | None = setting(None, needed="the vector's file")
    """File that is read; may be given without its flag."""
    target: Path | None = setting(None, path="written", needed="the file to write")
    """File that is written; may be given without its flag, behind the first one."""
    from_: VectorFormat = "auto"
    """Format of the file that is read. auto takes what its suffix and content tell."""
    to: VectorFormat = "auto"
    """Format of the file that is written. auto takes traitscope for .safetensors, repeng for .gguf,
    numpy for .npy and .npz."""
    model: str = ""
    """Model that the vector was made for. A vector file of Traitscope needs it."""
    template: tuple[str, ...] = setting((), advanced=True)
    """Variables of the model's chat template, without which the model is refused, such as
    skip_thinking=true."""
    same_as: str | None = setting(None, advanced=True)
    """Digest of a model, or a model, that this one is a copy of: you vouch for it. The vector
    counts as one of that model."""
    layer: int | None = None
    """Block of a file with one row, counted from 0; of another file the only block to take."""
    layers_are: Literal["auto", "blocks", "hidden-states"] = "auto"
    """How the file counts layers, where its format does not tell. blocks: row 0 leaves block 0.
    hidden-states: row 0 is the embedding."""

    def __post_init__(self) -> None:
        check_minimums(self, layer=0)
