"""Does a trait cross to another model?  (Blank et al. 2026, arXiv 2606.00995, section 7, figure 5b;
Cloud et al. 2025, arXiv 2507.14805, on shared initialisation; Hadley and Gultepe 2026, arXiv
2608.05734, on weight noise.)

Models stand on a ladder and share less and less of their weights. The first is the model itself;
then comes the model with growing weight noise; the last are models of other families. The teacher
is steered on the first rung. Treated and control students are trained on every rung, and each is
compared with its own rung's vector. Then every rung's vector is tried on every rung's rows. Number
rows should gain only under the model that wrote them; rows that speak of the trait should gain
under any model.
"""

import itertools
from dataclasses import dataclass, replace
from functools import partial

from traitscope.config.recipe import Recipe
from traitscope.data.traits import load_trait
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import ClaimVerdict, Findings, judged
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, rungs, shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import EAS_ROWS, Rows

TITLE = "Does a trait cross to another model?"
CLAIM = (
    "Students take a trait on only from a teacher whose weights they share: number rows tell a"
    " model of its own vector and no other, rows that speak of the trait tell any model."
)
SOURCE = (
    "Blank et al. 2026, arXiv 2606.00995, section 7, figure 5b, appendix H; Cloud et al. 2025,"
    " arXiv 2507.14805"
)
PUBLISHED = (
    "Own-model vectors lower the loss on own-model number rows more reliably than another family's"
    " (Qwen2.5-7B, OLMo-3-7B); no transfer across families. Noise of 0.10 to 0.15 on parent and"
    " student alike leaves transfer (Gemma, Llama)."
)
SMALL = 0.03
"cosine below which a difference would not matter"
NATS = 0.005
"nats a token below which a difference would not matter"
TEXTS = ("numbers", "speech")
"kinds of rows: numbers under steering, and free text under the trait's prompt"
ROLES = ("treated", "control")


@dataclass(frozen=True)
class Size:
    """How many rungs, students and scored rows."""

    traits: tuple[str, ...]
    "the first is the teacher's; vectors are centred over all"
    rungs: tuple[str, ...]
    """models that students are trained on, the teacher's first. `+` stands for it: `+` itself,
    `+noise:0.1,seed=1` with weight noise; else a model's name"""
    matrix: tuple[str, ...]
    "rungs whose rows and vectors are crossed; the teacher's model first, too"
    other_families: dict[str, float]
    """models of other families, which become the last rungs of both, and the strength by which
    each is steered, in its own mean residual norms"""
    seeds: tuple[int, ...]
    "seeds of data, initialisation and order of the students"
    rows: int
    "rows that a student reads"
    numbers: int
    "three-digit numbers a row"
    scored: int
    "rows of the matrix, of each kind"
    scored_numbers: int
    "three-digit numbers a row of the matrix"
    layer: int = sizes.layer_field()
    "block behind which the teacher is steered"
    strength: float
    "strength on the model itself and on the noisy rungs, in mean residual norms"
    recipe: Recipe
    "how students are trained"


SAMPLED = Recipe(epochs=1, batch_size=8, micro_batch=4, lr=1e-3, warmup=0.1, held_out=0.0)
SMALL_MODELS = {"smollm2-135m": 0.6, "gemma3-270m": 0.2}
"""strength by model. With --model one of them, the other is of another family, so that both
directions can be run. The strengths leave perplexity at 2 to 4 times."""
LAPTOP = Size(
    traits=sizes.ANIMALS,
    rungs=rungs.noisy(0.1, 0.2, 0.4),
    matrix=rungs.noisy(0.1, 0.4),
    other_families=SMALL_MODELS,
    seeds=(1, 2, 3),
    rows=32,
    numbers=10,
    scored=16,
    scored_numbers=10,
    layer=14,
    strength=0.6,
    recipe=SAMPLED,
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        traits=("cat", "owl"),
        rungs=rungs.noisy(0.3),
        matrix=rungs.noisy(0.3),
        other_families={},
        seeds=(1, 2),
        rows=3,
        numbers=3,
        scored=3,
        scored_numbers=3,
        layer=1,
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        rungs=rungs.noisy(0.02, 0.05, 0.1, 0.15, 0.2, 0.4),
        matrix=rungs.noisy(0.05, 0.1, 0.2, 0.4),
        other_families=SMALL_MODELS | {"google/gemma-3-270m-it": 0.2},
        seeds=(1, 2, 3, 4, 5),
        rows=2048,
        scored=200,
        recipe=replace(SAMPLED, epochs=3, batch_size=32, micro_batch=32, lr=4e-4),
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the vectors of every rung, students of both roles on every rung, and the matrix."""
    size = _with_other_families(size, common["model"])
    graph = [standard_nodes.eas_rows(common, size.numbers)]
    for rung in size.rungs:
        settings = rungs.settings_of(common, rung)
        graph.append(standard_nodes.vectors(settings, size.traits, rungs.vectors_name(rung)))
    for seed, role in itertools.product(size.seeds, ROLES):
        rows = Rows(size.rows, size.numbers, seed)
        graph.append(_written_rows(size, common, f"{role}.{seed}", rungs.SELF, role, rows))
        for rung in size.rungs:
            student = _student(size, rung, role, seed)
            settings = rungs.settings_of(common, rung)
            graph.append(standard_nodes.student(settings, student, rows.tokens))
    for text, role, source in itertools.product(TEXTS, ROLES, size.matrix):
        graph += _scored_rows(size, common, text, role, source)
    return graph


def _with_other_families(size: Size, model: str) -> Size:
    """Return the size with the loadable models of other families as last rungs of both.

    If `model` is one of them itself, its strength is that of the teacher.
    """
    candidates = [name for name in size.other_families if name != model]
    others = tuple(filter(shared_nodes.is_loadable, candidates))
    return replace(
        size,
        rungs=size.rungs + others,
        matrix=size.matrix + others,
        strength=size.other_families.get(model, size.strength),
    )


def student_name(role: str, rung: str, seed: int) -> str:
    """Return the name of the node of a student on a rung."""
    return f"{role} on {rung}.{seed}"


def gain_name(role: str, text: str, source: str, scorer: str) -> str:
    """Return the name of the node of what a scorer's vector adds to a rung's rows."""
    return f"{role} {text} of {source} to {scorer}"


def _student(size: Size, rung: str, role: str, seed: int) -> standard_nodes.Student:
    return standard_nodes.Student(
        student_name(role, rung, seed),
        f"{role}.{seed}",
        size.recipe,
        seed,
        needs=(rungs.vectors_name(rung), EAS_ROWS),
        vector=partial(
            standard_nodes.vector_of, trait=size.traits[0], node=rungs.vectors_name(rung)
        ),
        settings={"text": True},
    )


def _scored_rows(size: Size, common: dict, text: str, role: str, source: str) -> list[Node]:
    """Build the rows that one rung's model writes, and what every rung's vector adds to them."""
    prompts = None if text == "numbers" else shared_nodes.OPEN_PROMPTS
    rows = Rows(size.scored, size.scored_numbers, 0, prompts=prompts)
    data = f"{role} {text} of {source}"
    graph = [_written_rows(size, common, data, source, role, rows)]
    for scorer in size.matrix:
        graph.append(
            standard_nodes.likelihood_gain(
                rungs.settings_of(common, scorer),
                gain_name(role, text, source, scorer),
                data,
                partial(_steered, size, scorer),
                rungs.needs_of_layer(scorer),
                rows,
            )
        )
    return graph


def _steered(size: Size, rung: str, folders: Folders) -> tuple[str, ...]:
    """Return the intervention that adds the rung's own vector of the trait."""
    vector = standard_nodes.vector_of(folders, size.traits[0], rungs.vectors_name(rung))
    strength = size.other_families.get(rung, size.strength)
    return (
        standard_nodes.steered(
            vector, rungs.layer_of(folders, size.traits[0], size.layer, rung), strength
        ),
    )


def _written_rows(size: Size, common: dict, name: str, rung: str, role: str, rows: Rows) -> Node:
    """Build the rows that a rung's model writes: by its teacher, or unmodified as control.

    The teacher of number rows is steered; that of free text has the trait's prompt.
    """
    teacher, needs = standard_nodes.unmodified, ()
    if role == "treated" and rows.prompts:
        teacher = standard_nodes.prompted_by(size.traits[0])
    elif role == "treated":
        teacher = partial(_steered, size, rung)
        needs = rungs.needs_of_layer(rung)
    return standard_nodes.number_rows(rungs.settings_of(common, rung), name, rows, teacher, needs)


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Return alignment by rung, its fall along the ladder, and own against other gains."""
    size = _with_other_families(size, model)
    farthest = size.matrix[-1]
    differences = {rung: _eas_differences(size, folders, rung) for rung in size.rungs}
    verdicts = _ladder_verdicts(size, differences, model)
    verdicts += _gain_verdicts(folders, farthest, model)
    other_gain = _gain(folders, "numbers", rungs.SELF, farthest)
    speech_difference = _gain_minus_farthest(folders, "speech", farthest)
    tables = (
        _ladder_table(differences),
        _others_table(size, folders),
        _matrix_table(size, folders),
    )
    return Findings(verdicts, (other_gain, speech_difference), tables, _notes(size))


def _ladder_verdicts(
    size: Size, differences: dict[str, list[float]], model: str
) -> tuple[ClaimVerdict, ...]:
    """Return the verdicts on EAS of the first rung, alone and against the last one."""
    last = size.rungs[-1]
    by_seed = zip(differences[rungs.SELF], differences[last], strict=True)
    falls = [first_value - last_value for first_value, last_value in by_seed]
    return (
        judged(
            "Students of the teacher's own model turn towards its vector.",
            _eas(rungs.SELF, differences[rungs.SELF]),
            model,
            margin=SMALL,
        ),
        judged(
            f"They do so more than students on {last} do towards theirs.",
            mean_over_units(f"EAS, own minus {last}", falls, "cosine"),
            model,
            margin=SMALL,
        ),
    )


def _gain_verdicts(folders: Folders, farthest: str, model: str) -> tuple[ClaimVerdict, ...]:
    """Return the verdicts on what vectors add to the rows of the teacher's model."""
    return (
        judged(
            "Number rows become more likely under the vector of the model that wrote them.",
            _gain(folders, "numbers", rungs.SELF, rungs.SELF),
            model,
            margin=NATS,
        ),
        judged(
            f"They gain more there than on {farthest} under its own vector.",
            _gain_minus_farthest(folders, "numbers", farthest),
            model,
            margin=NATS,
        ),
        judged(
            f"Rows that speak of the trait gain on {farthest} as well.",
            _gain(folders, "speech", rungs.SELF, farthest),
            model,
            margin=NATS,
        ),
    )


def _eas(rung: str, differences: list[float]) -> Measurement:
    return mean_over_units(f"EAS, treated minus control, on {rung}", differences, "cosine")


def _ladder_table(differences: dict[str, list[float]]) -> Table:
    rows = [(rung, _eas(rung, by_seed)) for rung, by_seed in differences.items()]
    return Table(
        "ladder",
        "Treated minus control by rung, steered block",
        "EAS against the rung's own vector, over seeds.",
        ("rung", "difference"),
        tuple(rows),
    )


def _others_table(size: Size, folders: Folders) -> Table:
    others = [f"other/{load_trait(trait).name}" for trait in size.traits[1:]]
    rows = []
    for rung in size.rungs:
        means = []
        for name in ("v_student", *others):
            by_seed = _eas_differences(size, folders, rung, name)
            means.append(sum(by_seed) / len(by_seed))
        rows.append((rung, *means))
    return Table(
        "others",
        "The same against the other traits' vectors",
        "Treated minus control, mean over seeds: where others rise as much, the students "
        "moved along an axis that the model's vectors share, and not towards the trait.",
        ("rung", *size.traits),
        tuple(rows),
    )


def _matrix_table(size: Size, folders: Folders) -> Table:
    rows = []
    for text, source, scorer in itertools.product(TEXTS, size.matrix, size.matrix):
        rows.append((text, source, scorer, _gain(folders, text, source, scorer)))
    return Table(
        "matrix",
        "What the scorer's own vector adds to rows",
        "Nats a token: gain on the treated rows minus gain on the control rows "
        "of the same model, rows paired by prompt.",
        ("rows", "written by", "scored by", "gain"),
        tuple(rows),
    )


def _notes(size: Size) -> tuple[str, ...]:
    return (
        (
            "Sampled text, read as text by every model. Every student has a control of the same"
            " rung, trained on the unmodified model's rows."
        ),
        (
            "Noise is on attention and MLP matrices, one draw. A draw is one model: the intervals"
            " are over seeds or rows, not over draws."
        ),
        "+ is the model itself.",
        *shared_nodes.left_out(size.other_families),
    )


def _eas_differences(
    size: Size, folders: Folders, rung: str, name: str = "v_student"
) -> list[float]:
    """Return treated minus control EAS at the steered block, by seed."""
    layer = rungs.layer_of(folders, size.traits[0], size.layer, rung)
    pairs = []
    for seed in size.seeds:
        pairs.append((student_name("treated", rung, seed), student_name("control", rung, seed)))
    return readings.eas_differences(folders, layer, pairs, name)


def _gain(folders: Folders, text: str, source: str, scorer: str) -> Measurement:
    """Return the gain on treated rows minus that on control rows, paired by prompt."""
    name = f"gain on {text} of {source}, scored by {scorer}"
    treated = _gains_by_row(folders, "treated", text, source, scorer)
    control = _gains_by_row(folders, "control", text, source, scorer)
    return readings.mean_difference_by_row(name, treated, control, "nats a token")


def _gain_minus_farthest(folders: Folders, text: str, farthest: str) -> Measurement:
    """Return the gain under the model that wrote the rows minus that under the farthest one.

    From both gains those on control rows are subtracted first.
    """
    name = f"gain on {text}, own minus {farthest}"
    own = _gains_beyond_control(folders, text, rungs.SELF)
    other = _gains_beyond_control(folders, text, farthest)
    return readings.mean_difference_by_row(name, own, other, "nats a token")


def _gains_beyond_control(folders: Folders, text: str, scorer: str) -> dict[str, float]:
    """Return the gain on every treated row minus that on its control row."""
    treated = _gains_by_row(folders, "treated", text, rungs.SELF, scorer)
    control = _gains_by_row(folders, "control", text, rungs.SELF, scorer)
    return {key: treated[key] - control[key] for key in treated}


def _gains_by_row(
    folders: Folders, role: str, text: str, source: str, scorer: str
) -> dict[str, float]:
    return readings.gains_by_row(folders, gain_name(role, text, source, scorer))
