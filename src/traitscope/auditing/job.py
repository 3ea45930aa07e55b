"""An audit that was asked for: its settings, and the names and groups of its nodes."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from traitscope.auditing import settings
from traitscope.config.audit import AuditConfig
from traitscope.workflow.graph import Node

SAMPLE, REFERENCE, RANDOM_VECTORS = "sample", "reference", "random vectors"
"names of nodes: the audited rows, the reference rows, the vectors of the random nulls"
PROMPTED, STEERED = SPIKE_INS = "prompted", "steered"
"names of the nodes with rows of spike-in teachers"
ROW_TOKENS = 120
"tokens of a row, for the estimate of the work"
ALL_ROWS = 1000
"rows of a file whose number is not known, for the estimate of the work"


class Group(StrEnum):
    """What a node's work is for."""

    SAMPLE = "sample"
    VECTORS = "vectors"
    DATA_GRADIENTS = "data gradients"
    PLACEBO_ROWS = "placebo rows"
    PLACEBO_GRADIENTS = "placebo gradients"
    SPIKE_INS = "spike-ins"
    TEACHER_SCORES = "teacher scores"
    PREDICTIONS = "predictions"
    CANARIES = "canaries"


@dataclass
class AuditNodes:
    """Nodes of an audit, and what each is for."""

    nodes: list[Node] = field(default_factory=list)
    "the nodes"
    groups: dict[str, Group] = field(default_factory=dict)
    "the group of every node, by its name"

    def add(self, group: Group, *nodes: Node) -> None:
        """Add nodes of one group."""
        for node in nodes:
            self.nodes.append(node)
            self.groups[node.name] = group


@dataclass(frozen=True)
class Job:
    """An audit that was asked for."""

    config: AuditConfig
    "its settings"
    blocks: int
    "blocks of the model"

    @property
    def null_block(self) -> int:
        """Block at which random nulls are steered, and candidates are steered
        beside a reference."""
        return settings.block_at(settings.NULL_DEPTH, self.blocks)

    @property
    def spike_in_block(self) -> int:
        """Block of the steered spike-in teacher."""
        return settings.block_at(settings.SPIKE_IN_DEPTH, self.blocks)

    @property
    def common(self) -> dict[str, Any]:
        """Settings of every stage."""
        return {
            "model": self.config.model,
            "device": self.config.device,
            "dtype": self.config.dtype,
        }

    @property
    def reading_nodes(self) -> tuple[str, ...]:
        """Nodes that say how rows are read."""
        return (SAMPLE, REFERENCE) if self.config.reference else (SAMPLE,)

    @property
    def traits(self) -> tuple[str, ...]:
        """Candidates whose prompts are tried."""
        return self.config.traits[: self.config.tried]

    @property
    def placebos(self) -> list[str]:
        """Names of the nodes with placebo rows."""
        return [placebo(n) for n in range(1 if self.config.reference else self.config.draws)]

    @property
    def row_sets(self) -> list[str]:
        """Names of the nodes with the audited rows and with placebos."""
        return [SAMPLE, *self.placebos]

    @property
    def weight(self) -> float:
        """Tokens of all rows."""
        return ROW_TOKENS * (self.config.rows or ALL_ROWS)

    @property
    def scoring_weight(self) -> float:
        """Tokens of the scored rows."""
        return ROW_TOKENS * (self.config.judged or ALL_ROWS)


def placebo(draw: int) -> str:
    """Name of the node with a placebo set."""
    return f"placebo {draw}"


def gradients_of(rows: str) -> str:
    """Name of the node with the row gradients of a node's rows."""
    return f"{rows} gradients"


def predictions_of(rows: str) -> str:
    """Name of the node with what learners predict of a node's rows."""
    return f"{rows} predictions"


def prompt_scores(rows: str, trait: str, paraphrase: int | None = None) -> str:
    """Name of the node with the scores of rows under a candidate's prompt."""
    words = "prompt" if paraphrase is None else f"paraphrase {paraphrase}"
    return f"{rows} under {trait} {words}"


def null_scores(rows: str, number: int) -> str:
    """Name of the node with the scores of rows under a null."""
    return f"{rows} under null {number}"


def canary_student(rows: str, seed: int) -> str:
    """Name of the node that trains a canary student on rows."""
    return f"canary {seed} of {rows}"


def canary_answers(rows: str, seed: int, trait: str) -> str:
    """Name of the node with a canary student's answers about a trait."""
    return f"{trait} of {canary_student(rows, seed)}"
