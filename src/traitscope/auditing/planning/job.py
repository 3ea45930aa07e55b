"""An audit that was asked for: its settings, and the names and groups of its nodes."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from traitscope.auditing import settings
from traitscope.config.audit import AuditConfig
from traitscope.workflow.graph import Node

SAMPLE, REFERENCE, RANDOM_VECTORS = "sample", "reference", "random vectors"
"names of nodes: the audited rows, the reference rows, the vectors of the random nulls"
PLACEBO = "placebo"
"name of the node with placebos: the model's own answers to all prompts, or matched reference rows"
CLEAN, PROMPTED, STEERED = SPIKE_INS = "clean", "prompted", "steered"
"""names of the nodes with rows from which the power is simulated: the model's own, and those of two
spike-in teachers"""
CANARY, BLIND_NAMING = "canary", "blind naming"
"names of the nodes with answers about the rows"
GIVEN = "given teacher"
"name of the node with the scores of the audited rows under a teacher that was given"
ROW_TOKENS = 120
"tokens of a row, for the estimate of the work"
ALL_ROWS = 1000
"rows of a file whose number is not known, for the estimate of the work"


class Group(StrEnum):
    """What a node's work is for."""

    SAMPLE = "sample"
    VECTORS = "vectors"
    GRADIENTS = "gradients"
    PLACEBOS = "placebos"
    SPIKE_INS = "spike-ins"
    TEACHER_SCORES = "teacher scores"
    NULLS = "nulls"
    PREDICTIONS = "predictions"
    GIVEN_TEACHER = "given teacher"
    CANARY = "canary"
    FEATURES = "features"


@dataclass
class AuditNodes:
    """Nodes of an audit, and what each is for."""

    nodes: list[Node] = field(default_factory=list)
    "the nodes"
    groups: dict[str, Group] = field(default_factory=dict)
    "the group of every node, by its name"

    def add(self, group: Group, *nodes: Node) -> None:
        """Add nodes of one group, as far as they are not there."""
        for node in nodes:
            if node.name not in self.groups:
                self.nodes.append(node)
                self.groups[node.name] = group

    def replace(self, *nodes: Node) -> None:
        """Put nodes in the place of those with their names; others come at the end of the group of
        the last one."""
        group = self.groups[nodes[-1].name]
        by_name = {node.name: node for node in nodes}
        self.nodes = [by_name.pop(node.name, node) for node in self.nodes]
        self.add(group, *by_name.values())


@dataclass(frozen=True)
class Job:
    """An audit that was asked for."""

    config: AuditConfig
    "its settings"
    blocks: int
    "blocks of the model"
    source: str | None = None
    "the only source whose rows are audited, by the field `config.by`; None for all rows"
    room: int = 0
    "tokens that rows leave free for the prompts of candidates"

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
            "template": self.config.template,
            "control_tokens": self.config.control_tokens,
            "same_as": self.config.same_as,
        }

    @property
    def reading_nodes(self) -> tuple[str, ...]:
        """Nodes that say how rows are read."""
        return (SAMPLE, REFERENCE) if self.config.reference else (SAMPLE,)

    @property
    def weight(self) -> float:
        """Tokens of all rows."""
        return ROW_TOKENS * (self.config.rows or ALL_ROWS)


def gradients_of(rows: str) -> str:
    """Name of the node with the row gradients of a node's rows."""
    return f"{rows} gradients"


def features_of(rows: str) -> str:
    """Name of the node with the mean residuals of a node's rows."""
    return f"{rows} features"


def predictions_of(rows: str) -> str:
    """Name of the node with what learners predict of a node's rows."""
    return f"{rows} predictions"


def prompt_scores(
    rows: str, trait: str, paraphrase: int | None = None, is_few: bool = False
) -> str:
    """Name of the node with the scores of rows, or of a few of them, under a candidate's prompt."""
    words = "prompt" if paraphrase is None else f"paraphrase {paraphrase}"
    few = "a few of " if is_few else ""
    return f"{few}{rows} under {trait} {words}"


def steered_scores(rows: str, key: str, number: int) -> str:
    """Name of the node with the scores of rows under a batch of steered teachers of a search."""
    return f"{rows} under batch {number} of the search on {key}"


def null_scores(rows: str, number: int) -> str:
    """Name of the node with the scores of rows under a null."""
    return f"{rows} under null {number}"
