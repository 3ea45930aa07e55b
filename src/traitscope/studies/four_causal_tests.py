"""Is the vector what carries the trait?  The four causal tests of Blank et al. 2026 (arXiv 2606.00995, section 3.2).

    v_student sufficiency    the base with v_student added                  names the trait more often
    v_student necessity      the student with the base's component of it    names it less often
    v_teacher sufficiency    a student of a teacher that is only steered    takes the trait on
    v_teacher necessity      a student of the prompted teacher with v_teacher projected out while it speaks    does not

Each beside the same edit with a random vector of the same norm and with another trait's vector.  One sampler, one scorer,
one context for all; every student reads the same rows of the unmodified model under the teacher's whole distribution.
"""

import json
from dataclasses import dataclass
from functools import partial

from traitscope.configs import ExtractConfig, GenerateConfig, MeasureConfig, Recipe, TrainConfig
from traitscope.graph import Folders, Node
from traitscope.stats import Measurement, paired_difference
from traitscope.traits import load_trait
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
    blocks: tuple[int, ...]
    "blocks at which a component is removed or replaced"
    recipe: Recipe


SOFT = Recipe(targets="soft", epochs=2, batch_size=3, micro_batch=3, lr=1e-3, warmup=0.1, held_out=0.0)
MORE = ("otter", "dolphin", "elephant", "fox", "penguin", "wolf")
SIZES = {
    "smoke": Size("cat", "owl", (), (1, 2), 3, 3, 1, 80.0, (0, 1), SOFT),
    "laptop": Size("cat", "owl", MORE, (1, 2, 3), 9, 12, 14, 80.0, tuple(range(30)), SOFT),
    "full": Size("cat", "owl", MORE, (1, 2, 3, 4, 5), 512, 10, 14, 80.0, tuple(range(30)), SOFT),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors of teacher and students, random ones like them, students of seven teachers, everything measured."""
    traits = (size.trait, size.other, *size.traits)
    plain = MeasureConfig(**common, trait=size.trait, samples=0, capability=False)
    found = [
        Node("vectors", "extract", lambda _: ExtractConfig(**common, traits=traits, stem=False), (), 750 * len(traits)),
        Node("random", "extract", partial(_random, common, "vectors", f"{size.trait}.safetensors"), ("vectors",), 1),
        Node("base", "measure", lambda _: plain, (), 2500),
    ]
    for seed in size.seeds:
        asked = GenerateConfig(
            **common, seed=seed, n=size.rows, count=size.numbers, vocabulary="template", separator=" ", prompt_seed=51 + seed
        )
        found.append(Node(f"rows.{seed}", "generate", lambda _, asked=asked: asked, (), size.rows * (65 + 4 * size.numbers)))
        for teacher in ("prompted.own", "prompted.other", *(f"{kind}.{v}" for kind in ("steered", "ablated") for v in VECTORS)):
            found += _student(size, common, plain, teacher, seed)
        found += _looked_into(size, common, plain, seed)
    return found


def _random(common: dict, node: str, name: str, folders: Folders) -> ExtractConfig:
    return ExtractConfig(**common, like=folders[node] / name)


def _vector(size: Size, folders: Folders, which: str) -> str:
    """The file of a teacher's vector."""
    names = {"own": f"{size.trait}.safetensors", "other": f"{size.other}.safetensors"}
    return str(folders["random"] / "random-0.safetensors") if which == "random" else str(folders["vectors"] / names[which])


def _teacher(size: Size, folders: Folders, teacher: str) -> tuple[str, ...]:
    kind, which = teacher.split(".")
    trait = size.other if teacher == "prompted.other" else size.trait
    prompt = f"prompt:{load_trait(trait).teacher_prompt}"
    if kind == "prompted":
        return (prompt,)
    vector = _vector(size, folders, which)
    if kind == "steered":
        return (f"steer:{vector},layers={size.layer},alpha={size.strength},scale=unit",)
    return (prompt, f"ablate:{vector},layers={_joined(size)}")


def _joined(size: Size) -> str:
    return "+".join(map(str, size.blocks))


def _student(size: Size, common: dict, plain: MeasureConfig, teacher: str, seed: int) -> list[Node]:
    name = f"student.{teacher}.{seed}"

    def trained(folders: Folders) -> TrainConfig:
        told = _teacher(size, folders, teacher)
        return TrainConfig(**common, seed=seed, data=folders[f"rows.{seed}"], recipe=size.recipe, teacher=told)

    def measured(folders: Folders) -> MeasureConfig:
        return MeasureConfig(**vars(plain) | {"interventions": (f"adapter:{folders[name]}",)})

    weight = (1 + 2.2 * size.recipe.epochs) * size.rows * (65 + 4 * size.numbers)
    return [
        Node(name, "train", trained, ("vectors", "random", f"rows.{seed}"), weight),
        Node(f"answers.{teacher}.{seed}", "measure", measured, (name,), 2500),
    ]


def _looked_into(size: Size, common: dict, plain: MeasureConfig, seed: int) -> list[Node]:
    """v_student of the prompted teacher's student, of the other trait's student, and a random one; added and replaced."""
    student = f"student.prompted.own.{seed}"
    found = []
    for which in ("own", "other"):

        def extracted(folders: Folders, which: str = which) -> ExtractConfig:
            return ExtractConfig(**common, interventions=(f"adapter:{folders[f'student.prompted.{which}.{seed}']}",), n=16)

        found.append(Node(f"v_student.{which}.{seed}", "extract", extracted, (f"student.prompted.{which}.{seed}",), 1500))
    own = f"v_student.own.{seed}"
    found.append(Node(f"v_student.random.{seed}", "extract", partial(_random, common, own, "v_student.safetensors"), (own,), 1))
    for which in VECTORS:
        name = "random-0" if which == "random" else "v_student"

        def edited(folders: Folders, kind: str, which: str = which, name: str = name) -> MeasureConfig:
            vector = folders[f"v_student.{which}.{seed}"] / f"{name}.safetensors"
            edits = {
                "added": (f"steer:{vector},layers={size.layer},alpha=1.0,scale=raw",),
                "replaced": (f"adapter:{folders[student]}", f"replace:{vector},layers={_joined(size)}"),
            }
            return MeasureConfig(**vars(plain) | {"interventions": edits[kind]})

        for kind in ("added", "replaced"):
            needs = (f"v_student.{which}.{seed}", student)
            found.append(Node(f"{kind}.{which}.{seed}", "measure", partial(edited, kind=kind), needs, 3500))
    return found


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


def _scores(folders: Folders, node: str) -> dict[str, float]:
    lines = (folders[node] / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row["target_logprob"] for row in map(json.loads, lines) if row["set"] == "positive"}


def _between(size: Size, folders: Folders, left: str, right: str, name: str) -> Measurement:
    """Mean of left - right over seeds and questions; `base` is the same for every seed."""
    rows = []
    for seed in size.seeds:
        a, b = (_scores(folders, node if node == "base" else f"{node}.{seed}") for node in (left, right))
        rows += [(a[key], b[key], seed, key) for key in a]
    after, before, seeds, questions = zip(*rows, strict=True)
    return paired_difference(name, after, before, seeds, questions, "nats")
