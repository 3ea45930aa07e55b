"""Whether teachers have their traits: the positive control, which comes before every other number.

Teachers and base answer the trait's positive questions. A teacher that does not name its trait more
than the base does has nothing to pass on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from traitscope.data.traits import trait_name
from traitscope.reporting import verdict
from traitscope.reporting.numbers import bounds, estimate
from traitscope.reporting.verdict import Precondition
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS, InterventionsFrom

NAMED = 2
"teachers without their trait that are named; more are counted"


def base_name(trait: str) -> str:
    """Return the name of the node of what the base says of a trait."""
    return f"base about {trait_name(trait)}"


def teacher_name(kind: str, trait: str) -> str:
    """Return the name of the node of what a kind of teacher says of its trait."""
    return f"{kind} teacher of {trait_name(trait)}"


def nodes(
    common: dict,
    trait: str,
    teachers: Mapping[str, InterventionsFrom],
    needs: tuple[str, ...] = (VECTORS,),
    base: str = "",
) -> list[Node]:
    """Build the answers of teachers of a trait, by kind, and of the base.

    `needs` are the nodes that the teachers are made of. With `base`, the answers of the base are
    that node, which is there already. They go first of all nodes.
    """
    graph = [] if base else [standard_nodes.answers(common, base_name(trait), trait)]
    for kind, teacher in teachers.items():
        graph.append(
            standard_nodes.answers(common, teacher_name(kind, trait), trait, teacher, needs)
        )
    return [replace(node, first=True) for node in graph]


def rise(folders: Folders, kind: str, trait: str, base: str = "") -> Measurement:
    """Return log P(trait) of a teacher minus the base's; intervals are over questions."""
    return minus_base(
        folders, f"{kind} teacher of {trait}", teacher_name(kind, trait), base or base_name(trait)
    )


def minus_base(folders: Folders, name: str, node: str, base: str) -> Measurement:
    """Return what `rise` does, for answers at other nodes; the teacher is called `name`."""
    return readings.rise(folders, f"{name} minus base", [(0, node, base)])


def rises(
    folders: Folders, traits: Sequence[str], teacher: str, base: str = "base"
) -> tuple[Measurement, ...]:
    """Return what prompted teachers say of their traits; nodes are TEACHER.TRAIT and BASE.TRAIT."""
    each = []
    for trait in traits:
        name = f"prompted teacher of {trait}"
        each.append(minus_base(folders, name, f"{teacher}.{trait}", f"{base}.{trait}"))
    return tuple(each)


def have_traits(rises: Sequence[Measurement], which: str = "") -> Precondition:
    """Return the precondition that teachers have their traits.

    Of several, each must be shown to have its own, or their mean must lie above zero, interval and
    all. Those that are not shown to have theirs are named. `which` says what kind of teacher they
    are.
    """
    if len(rises) == 1:
        return verdict.teacher_has_trait(rises[0], which)
    values = [each.estimate for each in rises]
    mean = mean_over_units("teachers minus base", values, rises[0].unit, "teachers")
    numbers = (
        f"mean of {len(rises)} teachers − base = {estimate(mean, True)} {mean.unit}"
        f" {bounds(mean, True)}"
    )
    without = [each.name.removesuffix(" minus base") for each in rises if not each.low > 0]
    if without:
        shown = ", ".join(without[:NAMED])
        if len(without) > NAMED:
            shown += f" and {len(without) - NAMED} more"
        numbers += f". Not shown to have it: {shown}"
    else:
        numbers += f". Each of the {len(rises)} is shown to have its own"
    is_met = mean.low > 0 or not without
    return Precondition(verdict.has_trait_name(which), is_met, numbers)
