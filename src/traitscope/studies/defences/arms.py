"""The arms of the comparison of defences: plain training, defences, and what does as much blindly.

An arm says how the rows are changed, how the student is trained, and what acts on it afterwards.
Each defence names its matched arm. A defence may do no more than train less. So plain training,
stopped early or at lower rates, is a curve that every defence has to beat.

    knowledge    what the defender may use
    nothing      the rows alone
    base         the model before training
    clean        rows of the same kind that carry nothing
    known        which trait is feared, and a vector of it, which is not the teacher's
    wrong        the same of another trait: it must remove nothing
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Knowledge = Literal["nothing", "base", "clean", "known", "wrong"]
Use = Literal["project", "ablate", "steer", "afterwards"]
Direction = Literal["known", "wrong", "random"]
Prompt = Literal["known", "wrong", "neutral"]
UNDEFENDED = "undefended"
"arm of plain training on the rows as they are"


@dataclass(frozen=True)
class Arm:
    """One way to treat rows, training or student."""

    name: str
    """What tables call it; unique."""
    knowledge: Knowledge = "base"
    """What the defender may use."""
    by: tuple[str, ...] = ()
    """Methods of `defend`, in their order."""
    stopped: float = 1.0
    """Fraction of the steps after which the student is taken."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the recipe that differ."""
    rate: float = 1.0
    """Factor of the learning rate."""
    use: Use | None = None
    """What is done with a direction, where one is used."""
    direction: Direction = "known"
    """Which direction that is."""
    prompt: Prompt | None = None
    """System turn that the student trains under, where it trains under another one."""
    matched: str = ""
    """Name of the arm that does as much blindly; empty: plain training, which trains less."""
    is_defence: bool = True
    """Whether the arm is claimed to help; controls and plain training are not."""

    @property
    def is_plain(self) -> bool:
        """Whether the arm is plain training, of any length and rate."""
        return not (self.by or self.recipe or self.use or self.prompt)

    @property
    def trained_as(self) -> str:
        """Name of the arm whose student this one is."""
        is_undefended = self.use == "afterwards" or self.stopped < 1
        return UNDEFENDED if is_undefended else self.name


def plain() -> tuple[Arm, ...]:
    """Plain training: the whole, stopped early, and at lower rates."""
    return (
        Arm(UNDEFENDED, "nothing", is_defence=False),
        Arm("stopped after a quarter", "nothing", stopped=0.25, is_defence=False),
        Arm("stopped after half", "nothing", stopped=0.5, is_defence=False),
        Arm("stopped after three quarters", "nothing", stopped=0.75, is_defence=False),
        Arm("a quarter of the rate", "nothing", rate=0.25, is_defence=False),
        Arm("half the rate", "nothing", rate=0.5, is_defence=False),
    )


def on_rows() -> tuple[Arm, ...]:
    """Defences that change the rows, with the same changes drawn at random."""
    return (
        _rows("drop rows by student", "base", "drop:by=student,share=0.25", "drop rows at random"),
        _blind("drop rows at random", "drop:by=random,share=0.25"),
        _rows(
            "replace digits by student",
            "base",
            "replace:by=student,share=0.2",
            "replace digits at random",
        ),
        _rows(
            "replace digits where teachers diverge",
            "base",
            "replace:by=divergence,share=0.2",
            "replace digits at random",
        ),
        _blind("replace digits at random", "replace:by=random,share=0.2"),
        _rows(
            "mask tokens by student", "base", "mask:by=student,share=0.2", "mask tokens at random"
        ),
        _blind("mask tokens at random", "mask:by=random,share=0.2"),
        _rows("sort numbers", "nothing", "canonicalise:order=sort", ""),
        _blind("numbers drawn at random", "canonicalise:values=uniform"),
        _rows("wash", "base", "wash", ""),
        _rows("mix with clean rows", "clean", "mix:share=0.5", "drop half at random"),
        _blind("drop half at random", "drop:by=random,share=0.5"),
    )


def _rows(name: str, knowledge: Knowledge, method: str, matched: str) -> Arm:
    return Arm(name, knowledge, (method,), matched=matched)


def _blind(name: str, method: str) -> Arm:
    return Arm(name, "nothing", (method,), is_defence=False)


def in_training() -> tuple[Arm, ...]:
    """Defences in training, with the same by another direction or another prompt."""
    return (
        Arm("anchor to the base", recipe={"anchor": 1.0}),
        Arm(
            "early anchor",
            recipe={"anchor": 1.0, "anchor_until": 1 / 3, "anchor_temperature": 2.0},
        ),
        Arm("rank 1", recipe={"rank": 1, "alpha": 4.0}),
        *_by_direction("project out of gradients", "project"),
        *_by_direction("ablate in training", "ablate"),
        *_by_direction("steer in training", "steer"),
        Arm("inoculation prompt", "known", prompt="known", matched="neutral prompt"),
        Arm("another trait's prompt", "wrong", prompt="wrong", is_defence=False),
        Arm("neutral prompt", "nothing", prompt="neutral", is_defence=False),
    )


def afterwards() -> tuple[Arm, ...]:
    """What acts on the finished student."""
    return _by_direction("ablate afterwards", "afterwards")


def _by_direction(name: str, use: Use) -> tuple[Arm, ...]:
    """A defence by a vector of the trait, by another trait's, and by a random one."""
    random = f"{name}, random"
    return (
        Arm(name, "known", use=use, matched=random),
        Arm(f"{name}, another trait", "wrong", use=use, direction="wrong", is_defence=False),
        Arm(random, "nothing", use=use, direction="random", is_defence=False),
    )


ARMS = (*plain(), *on_rows(), *in_training(), *afterwards())
"all arms; `undefended` comes first"
BY_NAME = {arm.name: arm for arm in ARMS}
"the arms by name"
