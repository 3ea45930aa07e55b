"""Names of teachers and of groups of students, which their nodes are called by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CausalTeacher:
    """A teacher: how it gets its trait, and from which vector or prompt."""

    kind: str
    """prompted, steered, or ablated: prompted, with a vector projected out."""
    which: str
    """The vector or prompt: own, other (another trait's), or random."""

    @property
    def name(self) -> str:
        """The name of the teacher in the names of nodes."""
        return f"{self.kind}.{self.which}"


@dataclass(frozen=True)
class StudentKind:
    """Students that differ only in their seed."""

    teacher: str
    """Who teaches: a kind of teacher, or another vector."""
    method: str
    """How the students are trained: lora or vector."""
    rate: float
    """Learning rate."""

    @property
    def training(self) -> str:
        """How the student is trained, as tables show it."""
        return f"{self.method} at {self.rate:g}"

    @property
    def name(self) -> str:
        """The name of the students without their seed."""
        return f"{self.teacher}.{self.training}"
