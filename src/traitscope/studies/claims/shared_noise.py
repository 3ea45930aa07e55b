"""Does noise in the weights that teacher and student share help a trait to pass?  (Hadley and
Gultepe 2026, arXiv 2608.05734, section on noise.)

One steered teacher and its number rows, with weight noise in teacher and student (the same draw),
in the teacher only, in the student only, and in both but differently; beside it clean students of
several seeds. A draw of the noise is the unit: every student is compared with its own parent and
with a control student of that parent.
"""

from dataclasses import dataclass, replace
from functools import partial

from traitscope.config.recipe import Recipe
from traitscope.reporting.verdict import Findings, Sheet, judged, over, two_samples
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Does shared noise in the weights help a trait to pass?"
CLAIM = (
    "Noise in the weights of teacher and student alike raises transfer: what passes is in the"
    " weights' non-semantic structure."
)
SOURCE = (
    "Hadley and Gultepe 2026, arXiv 2608.05734, section on noise; workshop version of June 2026"
)
PUBLISHED = (
    "Change of the target's rate over the parent's, noisy over clean: 1.9 (Gemma-2B, sd 0.10) and"
    " 1.3 (Llama-3.1-8B, sd 0.15) over ten draws; the workshop version 2.7 and 1.8, which one draw"
    " of the released files gives. Clean is one run an animal; at twice the noise transfer is gone."
)
NATS = 0.05
"below which a difference would not matter"
SAME, TEACHER, STUDENT, OTHER = "same draw", "teacher only", "student only", "different draws"
CONDITIONS = (SAME, TEACHER, STUDENT, OTHER)
CLEAN = 0
"stands for no noise where a draw is named"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "the first is the teacher's; vectors are centred over all, and taken on the clean model"
    sd: float
    "of the noise, in standard deviations of each matrix"
    scope: str
    draws: tuple[int, ...]
    "seeds of the noise, and of the rows and students with it; positive"
    clean: tuple[int, ...]
    "seeds of clean students"
    doses: tuple[float, ...]
    "further sizes of the noise, in teacher and student alike"
    dose_draws: tuple[int, ...]
    rows: int
    numbers: int
    layer: int = sizes.layer_field()
    strength: float
    "of the steered teacher, in mean residual norms of the clean model"
    recipe: Recipe


LARGE = Recipe(epochs=3, batch_size=32, micro_batch=32, lr=4e-4)
WIDE = "attention+mlp+embeddings"
SIZES = {
    "smoke": Size(
        ("cat", "owl"),
        0.1,
        WIDE,
        (1, 2),
        (1, 2),
        (0.2,),
        (1,),
        3,
        3,
        1,
        0.6,
        standard_nodes.SAMPLED_RECIPE,
    ),
    "laptop": Size(
        sizes.ANIMALS,
        0.1,
        WIDE,
        tuple(range(1, 11)),
        (11, 12, 13),
        (0.05, 0.2),
        (1, 2, 3),
        32,
        10,
        14,
        0.6,
        standard_nodes.SAMPLED_RECIPE,
    ),
    "full": Size(
        sizes.ANIMALS,
        0.1,
        WIDE,
        tuple(range(1, 21)),
        tuple(range(21, 26)),
        (0.02, 0.05, 0.15, 0.2, 0.3),
        tuple(range(1, 11)),
        2048,
        10,
        14,
        0.6,
        LARGE,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors; per draw the rows of teacher and parent, and students under every condition; clean
    ones; doses."""
    found = [standard_nodes.vectors(common, size.traits), *_parent(size, common, CLEAN)]
    for seed in size.clean:
        found += _rows(size, common, CLEAN, seed) + _students(
            size, common, "clean", (CLEAN, CLEAN), seed
        )
    for n, draw in enumerate(size.draws):
        other = size.draws[(n + 1) % len(size.draws)]
        found += (
            _parent(size, common, draw)
            + _rows(size, common, draw, draw)
            + _rows(size, common, CLEAN, draw)
            + _rows(size, common, other, draw)
        )
        places = {
            SAME: (draw, draw),
            TEACHER: (draw, CLEAN),
            STUDENT: (CLEAN, draw),
            OTHER: (other, draw),
        }
        for condition, where in places.items():
            found += _students(size, common, condition, where, draw)
    for dose in size.doses:
        at = replace(size, sd=dose)
        for draw in size.dose_draws:
            found += (
                _parent(at, common, draw)
                + _rows(at, common, draw, draw)
                + _students(at, common, f"dose {dose:g}", (draw, draw), draw)
            )
    return list({node.name: node for node in found}.values())


def _noise(size: Size, draw: int) -> str:
    """The draw in short form; without one, nothing."""
    return f"noise:{size.sd:g},seed={draw},scope={size.scope}" if draw else ""


def _on(size: Size, common: dict, draw: int) -> dict:
    """The settings of the model with that noise."""
    return common | {"model": f"{common['model']}+{_noise(size, draw)}"} if draw else common


def _name(size: Size, draw: int) -> str:
    return f"sd {size.sd:g} draw {draw}" if draw else "clean"


def _parent(size: Size, common: dict, draw: int) -> list[Node]:
    return [
        standard_nodes.answers(
            _on(size, common, draw), f"parent, {_name(size, draw)}", size.traits[0], capability=True
        )
    ]


def _rows(size: Size, common: dict, draw: int, seed: int) -> list[Node]:
    """Rows of the steered and of the unmodified parent with that noise, on the prompts of one
    seed."""
    rows = standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=131)
    needs = {"treated": (standard_nodes.VECTORS,), "control": ()}
    return [
        standard_nodes.number_rows(
            common,
            _data(size, role, draw, seed),
            rows,
            partial(_teacher, size, draw, role),
            needs[role],
        )
        for role in needs
    ]


def _data(size: Size, role: str, draw: int, seed: int) -> str:
    return f"{role} rows, {_name(size, draw)}.{seed}"


def _teacher(size: Size, draw: int, role: str, folders: Folders) -> tuple[str, ...]:
    noise = (_noise(size, draw),) if draw else ()
    if role == "control":
        return noise
    return (
        *noise,
        standard_nodes.steered(
            standard_nodes.vector_of(folders, size.traits[0]), size.layer, size.strength
        ),
    )


def _students(
    size: Size, common: dict, condition: str, where: tuple[int, int], seed: int
) -> list[Node]:
    """Treated and control student of one condition; `where` holds the draws of teacher and
    student."""
    found, own = [], _on(size, common, where[1])
    rows = standard_nodes.Rows(size.rows, size.numbers)
    for role in ("treated", "control"):
        name = f"{role}, {condition}.{seed}"
        found.append(
            standard_nodes.student(
                own,
                standard_nodes.Student(name, _data(size, role, where[0], seed), size.recipe, seed),
                rows.tokens,
            )
        )
        found.append(
            standard_nodes.answers(
                own, f"answers, {name}", size.traits[0], standard_nodes.trained_by(name), (name,)
            )
        )
    return found


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Treated minus control by draw, under every condition, against clean ones; minus the parent;
    doses with perplexity."""
    clean = _apart(size, folders, "clean", size.clean)
    apart = {condition: _apart(size, folders, condition, size.draws) for condition in CONDITIONS}
    more = two_samples("shared noise minus clean", apart[SAME], clean, "nats", "draws")
    broken = over(
        f"{SAME} minus {OTHER}",
        [a - b for a, b in zip(apart[SAME], apart[OTHER], strict=True)],
        "nats",
        "draws",
    )
    verdicts = (
        judged(
            "A trait passes between models with the same noise.",
            over(f"treated minus control, {SAME}", apart[SAME], "nats", "draws"),
            model,
            0,
            NATS,
        ),
        judged("It passes more than between clean ones.", more, model, 0, NATS),
        judged("It passes more than between models with different noise.", broken, model, 0, NATS),
    )
    rows = [
        (
            "clean",
            over("clean", clean, "nats"),
            over("clean", _risen(size, folders, "clean", size.clean), "nats"),
        )
    ]
    rows += [
        (
            c,
            over(c, apart[c], "nats", "draws"),
            over(c, _risen(size, folders, c, size.draws), "nats", "draws"),
        )
        for c in CONDITIONS
    ]
    usual = (size.sd, SAME, size.draws)
    doses = [
        (0.0, "clean", size.clean),
        usual,
        *((dose, f"dose {dose:g}", size.dose_draws) for dose in size.doses),
    ]
    curve = tuple(
        (
            sd,
            over(name, _apart(size, folders, name, seeds), "nats", "draws"),
            _perplexity(replace(size, sd=sd), folders, seeds if sd else (CLEAN,)),
        )
        for sd, name, seeds in sorted(doses)
    )
    sheets = (
        Sheet(
            "conditions",
            "Where the noise is",
            "Log-probability of the trait's word, nats; intervals over draws, for clean over"
            " seeds.",
            ("noise", "treated minus control", "treated minus its parent"),
            tuple(rows),
        ),
        Sheet(
            "doses",
            "How much noise, in teacher and student alike",
            "Sd in standard deviations of each matrix; perplexity of the parent on plain text.",
            ("sd", "treated minus control", "perplexity"),
            curve,
            ("sd", "treated minus control"),
        ),
    )
    notes = (
        (
            f"Sampled text. Noise of sd {size.sd:g} on {size.scope}; the vector is the clean"
            " model's, as published."
        ),
        (
            "For `teacher only` the parent of the student is the clean model, else the model with"
            " the student's noise."
        ),
    )
    return Findings(verdicts, (), sheets, notes)


def _apart(size: Size, folders: Folders, condition: str, seeds: tuple[int, ...]) -> list[float]:
    """Treated minus control student, by draw."""
    return [
        _minus(folders, f"answers, treated, {condition}.{s}", f"answers, control, {condition}.{s}")
        for s in seeds
    ]


def _risen(size: Size, folders: Folders, condition: str, seeds: tuple[int, ...]) -> list[float]:
    """Treated student minus the model that it started as, by draw."""
    parent = {
        s: f"parent, {_name(size, CLEAN if condition in ('clean', TEACHER) else s)}" for s in seeds
    }
    return [_minus(folders, f"answers, treated, {condition}.{s}", parent[s]) for s in seeds]


def _minus(folders: Folders, left: str, right: str) -> float:
    return readings.rise(folders, left, [(0, left, right)]).estimate


def _perplexity(size: Size, folders: Folders, draws: tuple[int, ...]) -> Measurement:
    found = [
        standard_nodes.read_json(folders, f"parent, {_name(size, draw)}", "measurements.json")[
            "perplexity"
        ]
        for draw in draws
    ]
    return over("perplexity of the parent", found, "", "draws")
