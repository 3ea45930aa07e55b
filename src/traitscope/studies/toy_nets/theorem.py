"""Single small steps: does a student's step on its teacher's outputs lower the teacher's own loss?

Cloud et al. 2025, arXiv 2507.14805, theorem 1: it does not raise it, on any inputs. Teacher and
student must start alike, the teacher must be one small gradient step away, and the student's step
small. At another start nothing is promised. All is computed in double precision.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from traitscope.studies.toy_nets.fitting import gradient
from traitscope.studies.toy_nets.nets import Params

Loss = Callable[[Params], Tensor]


def small_step(start: Params, loss: Loss, rate: float) -> Params:
    """Return networks after one gradient step on a loss [M]."""
    params = [p.clone().requires_grad_() for p in start]
    step = gradient(loss(params), params)
    return [p.detach() - rate * g for p, g in zip(params, step, strict=True)]


def rises(
    start: Params, trait: Loss, distillation: Callable[[Params], Loss], teacher: Params, rate: float
) -> Tensor:
    """Return the rise [M] of the teacher's own loss in students, after one step of imitation.

    start: Where students begin.
    trait: The teacher's own loss.
    distillation: A function that returns the loss of imitating some teachers.
    """
    with torch.no_grad():
        before = trait(start)
    student = small_step(start, distillation(teacher), rate)
    with torch.no_grad():
        return trait(student) - before


def grid(
    starts: dict[str, Params],
    trait: Loss,
    distillation: Callable[[Params], Loss],
    teacher_rates: Sequence[float],
    student_rates: Sequence[float],
) -> list[dict]:
    """Return the rises by start of the student and by both rates; teachers leave the first start.

    starts: Networks by a name; the first are those that teachers start as.
    """
    first = next(iter(starts.values()))
    rows = []
    for teacher_rate in teacher_rates:
        teacher = small_step(first, trait, teacher_rate)
        for name, start in starts.items():
            for rate in student_rates:
                rise_M = rises(start, trait, distillation, teacher, rate)
                rows.append(
                    {
                        "start": name,
                        "teacher_rate": teacher_rate,
                        "student_rate": rate,
                        "rises": rise_M.tolist(),
                    }
                )
    return rows
