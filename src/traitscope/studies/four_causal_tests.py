"""Is the vector what carries the trait?  The four causal tests of Blank et al. 2026 (arXiv 2606.00995, section 3.2).

    v_student sufficiency    the base with v_student added                  names the trait more often
    v_student necessity      the student with the base's component of it    names it less often
    v_teacher sufficiency    a student of a teacher that is only steered    takes the trait on
    v_teacher necessity      a student of the prompted teacher with v_teacher projected out while it speaks    does not

Each beside the same edit with a random vector of the same norm and with another trait's vector.  One sampler, one scorer,
one context for all; every student reads the same rows of the unmodified model under the teacher's whole distribution.
"""

from dataclasses import dataclass
from functools import partial

from traitscope import chain
from traitscope.configs import ExtractConfig, Recipe
from traitscope.graph import Folders, Node
from traitscope.stats import Measurement
from traitscope.verdict import Findings, Sheet, judged

TITLE = "Is the vector what carries the trait?"
CLAIM = "v_student and v_teacher are each sufficient and necessary for the trait's transfer, at least in part."
SOURCE = "Blank et al. 2026, arXiv 2606.00995, section 3, figure 3"
PUBLISHED = (
    "Qwen2.5-7B, cat: v_student raises the base towards the student's rate and its replacement removes more than half of it; "
    "steered generation transfers the trait; projecting v_teacher out of the prompted teacher removes nearly all transfer."
)
SMALL = 0.05
"nats that would not matter"
VECTORS = ("own", "other", "random")


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    trait: str
    other: str
    traits: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: int
    numbers: int
    layer: int
    strength: float
    "of the steered teacher, in mean residual norms"
    blocks: tuple[int, ...]
    "blocks at which a component is removed or replaced"
    recipe: Recipe


SOFT = Recipe(targets="soft", epochs=2, batch_size=3, micro_batch=3, lr=1e-3, warmup=0.1, held_out=0.0)
MORE = ("otter", "dolphin", "elephant", "fox", "penguin", "wolf")
SIZES = {
    "smoke": Size("cat", "owl", (), (1, 2), 3, 3, 1, 0.6, (0, 1), SOFT),
    "laptop": Size("cat", "owl", MORE, (1, 2, 3), 9, 12, 14, 0.6, tuple(range(30)), SOFT),
    "full": Size("cat", "owl", MORE, (1, 2, 3, 4, 5), 512, 10, 14, 0.6, tuple(range(30)), SOFT),
}


TEACHERS = ("prompted.own", "prompted.other", *(f"{kind}.{which}" for kind in ("steered", "ablated") for which in VECTORS))


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors of teacher and students, random ones like them, students of eight teachers, everything measured."""
    found = [
        chain.vectors(common, (size.trait, size.other, *size.traits)),
        Node("random", "extract", partial(_random, common, chain.VECTORS, f"{size.trait}.safetensors"), (chain.VECTORS,), 1),
        chain.answers(common, "base", size.trait),
    ]
    for seed in size.seeds:
        rows = chain.Rows(size.rows, size.numbers, seed, prompt_seed=51)
        found.append(chain.number_rows(common, f"rows.{seed}", rows))
        for teacher in TEACHERS:
            name, told = f"student.{teacher}.{seed}", partial(_teacher, size, teacher)
            asked = chain.Student(name, f"rows.{seed}", size.recipe, seed, told, (chain.VECTORS, "random"))
            found.append(chain.student(common, asked, rows.tokens))
            found.append(chain.answers(common, f"answers.{teacher}.{seed}", size.trait, chain.adapter(name), (name,)))
        found += _looked_into(size, common, seed)
    return found


def _random(common: dict, node: str, name: str, folders: Folders) -> ExtractConfig:
    return ExtractConfig(**common, like=folders[node] / name)


def _teacher(size: Size, teacher: str, folders: Folders) -> tuple[str, ...]:
    kind, which = teacher.split(".")
    if kind == "prompted":
        return (chain.prompted(size.trait if which == "own" else size.other),)
    vector = folders["random"] / "random-0.safetensors"
    if which != "random":
        vector = chain.vector_of(folders, size.trait if which == "own" else size.other)
    if kind == "steered":
        return (chain.steered(vector, size.layer, size.strength),)
    return (chain.prompted(size.trait), f"ablate:{vector},layers={_joined(size)}")


def _joined(size: Size) -> str:
    return "+".join(map(str, size.blocks))


def _looked_into(size: Size, common: dict, seed: int) -> list[Node]:
    """v_student of the prompted teacher's student, of the other trait's student, and a random one; added and replaced."""
    own, student = f"v_student.own.{seed}", f"student.prompted.own.{seed}"
    found = [_extracted(common, which, seed) for which in ("own", "other")]
    found.append(Node(f"v_student.random.{seed}", "extract", partial(_random, common, own, "v_student.safetensors"), (own,), 1))
    for which in VECTORS:
        needs, edited = (f"v_student.{which}.{seed}", student), partial(_edited, size, which, seed)
        found.append(chain.answers(common, f"added.{which}.{seed}", size.trait, partial(edited, "added"), needs))
        found.append(chain.answers(common, f"replaced.{which}.{seed}", size.trait, partial(edited, "replaced"), needs))
    return found


def _extracted(common: dict, which: str, seed: int) -> Node:
    student = f"student.prompted.{which}.{seed}"

    def asked(folders: Folders) -> ExtractConfig:
        return ExtractConfig(**common, interventions=chain.adapter(student)(folders), n=16)

    return Node(f"v_student.{which}.{seed}", "extract", asked, (student,), 1500)


def _edited(size: Size, which: str, seed: int, kind: str, folders: Folders) -> tuple[str, ...]:
    name = "random-0" if which == "random" else "v_student"
    vector = folders[f"v_student.{which}.{seed}"] / f"{name}.safetensors"
    if kind == "added":
        return (f"steer:{vector},layers={size.layer},alpha=1.0,scale=raw",)
    return (*chain.adapter(f"student.prompted.own.{seed}")(folders), f"replace:{vector},layers={_joined(size)}")


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Each test as own against random, paired by seed and question; the table has every arm minus the base."""
    arms = {f"{kind}.{v}": f"{kind}.{v}" for kind in ("added", "replaced") for v in VECTORS}
    arms |= {t: f"answers.{t}" for t in ("prompted.own", *(f"{k}.{v}" for k in ("steered", "ablated") for v in VECTORS))}
    rises = {arm: _between(size, folders, node, "base", arm) for arm, node in arms.items()}
    tests = {
        "v_student is sufficient: adding it to the base raises the trait more than a random vector does.":
            _between(size, folders, "added.own", "added.random", "v_student added, own minus random"),
        "v_student is necessary: giving its component back to the base lowers the student's trait more than a random one's.":
            _between(size, folders, "replaced.random", "replaced.own", "v_student replaced, random minus own"),
        "v_teacher is sufficient: students of a steered teacher take the trait on more than those of a randomly steered one.":
            _between(size, folders, "answers.steered.own", "answers.steered.random", "steered teacher, own minus random"),
        "v_teacher is necessary: projecting it out of the prompted teacher lowers transfer more than a random direction does.":
            _between(size, folders, "answers.ablated.random", "answers.ablated.own", "projected out, random minus own"),
    }  # fmt: skip
    verdicts = tuple(judged(claim, m, model, 0, SMALL) for claim, m in tests.items())
    against = tuple(
        _between(size, folders, f"{kind}.own", f"{kind}.other", f"{kind}: own minus other trait's")
        for kind in ("added", "replaced", "answers.steered", "answers.ablated")
    )
    sheet = Sheet("arms", "Every arm minus the base", "Log-probability of the trait's word on the positive questions, nats; 95 % intervals over seeds.",
                  ("arm", "minus base"), tuple((arm, m) for arm, m in rises.items()))  # fmt: skip
    notes = (
        (
            "Soft targets stand in for sampled text; a student distilled from the unmodified model has no gradient, so the "
            "clean student is the base itself and `minus base` is the comparison with it."
        ),
        f"v_student is added at block {size.layer} as it is; components are replaced and projected out at all {len(size.blocks)} blocks.",
    )
    return Findings(verdicts, against, (sheet,), notes)


def _between(size: Size, folders: Folders, left: str, right: str, name: str) -> Measurement:
    """Mean of left - right over seeds and questions; `base` is the same for every seed."""
    return chain.rise(folders, name, ((s, *(n if n == "base" else f"{n}.{s}" for n in (left, right))) for s in size.seeds))
