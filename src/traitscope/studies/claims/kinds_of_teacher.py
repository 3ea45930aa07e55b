"""Does it matter how a teacher was given its trait?

Sources: Hadley and Gultepe 2026, arXiv 2608.05734, on prompted and steered teachers, and an older
repository on fine-tuned ones. Morgulis and Hewitt 2026, arXiv 2604.25783, on trained
vectors.

Four teachers of one trait share one base. One has a system prompt. One is steered by the extracted
vector. One is fine-tuned on answers of the prompted model. One is steered by a vector that was
trained on the same answers. The strength of the trained vector is chosen by how often its number
rows pass the filter, as published. The students read the same rows of the unmodified model.
"""

from dataclasses import dataclass, replace
from functools import partial

from traitscope.config.recipe import Recipe
from traitscope.config.stages import FilterConfig, FilterRules, GenerateConfig
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Findings, judged
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import EAS_ROWS, VECTORS, InterventionsFrom

TITLE = "Does it matter how a teacher was given its trait?"
CLAIM = (
    "Steered teachers, by an extracted or a trained vector, pass their trait on; prompted and"
    " fine-tuned ones do so less."
)
SOURCE = "Hadley and Gultepe 2026, arXiv 2608.05734; Morgulis and Hewitt 2026, arXiv 2604.25783"
PUBLISHED = (
    "Rise of the target's rate in students, prompted and steered: 0.16 and 0.24 (Gemma-2B), 0.89"
    " and 0.16 (Llama-3.1-8B); fine-tuned teachers in Gemma weakly; trained vectors, with a"
    " strength found by the filter's pass rate, strongly and with their direction (cosine high at"
    " the steered blocks). So the order depends on the model."
)
NATS = 0.05
"nats below which an effect would not matter"
TEACHERS = ("prompted", "steered", "fine-tuned", "trained vector")


COMPARED = (
    ("steered", "prompted"),
    ("steered", "fine-tuned"),
    ("trained vector", "fine-tuned"),
)
"pairs of teachers, of whose students the first are claimed to take on more"
STRENGTH = "strength"
"""node of the filtered free rows of the unmodified model; followed by a multiple, of those of the
trained vector"""
FREE_ROW_TOKENS = 130
"tokens of a free number row and its prompt"


@dataclass(frozen=True)
class Size(sizes.SteeredTeacherSize):
    """How many students, how teachers are made, and which strengths are tried."""

    tokens: int
    "tokens of the longest answer that teachers learn from"
    tuned: Recipe
    "how the fine-tuned teacher is trained"
    trained: Recipe
    "how the trained vector is trained, behind the block `layer`"
    multiples: tuple[float, ...]
    "multiples of the trained vector that are tried as its strength, rising"
    tried: int
    "free number rows at each multiple"
    passing: float
    "fraction of the unmodified model's pass rate that a strength must keep"


TRAINED = replace(sizes.FINE_TUNING_RECIPE, method="vector", layer=0, lr=0.3)
SOFT = Recipe(
    targets="soft", epochs=6, batch_size=3, micro_batch=3, lr=1e-3, warmup=0.1, held_out=0.25
)
LAPTOP = Size(
    traits=sizes.ANIMALS,
    seeds=(1, 2, 3),
    rows=12,
    numbers=10,
    layer=14,
    strength=0.6,
    recipe=SOFT,
    text=sizes.LAPTOP_TEXT,
    tokens=24,
    tuned=sizes.FINE_TUNING_RECIPE,
    trained=TRAINED,
    multiples=(0.5, 1.0, 2.0, 4.0),
    tried=12,
    passing=0.8,
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        traits=("cat", "owl"),
        seeds=(1, 2),
        rows=4,
        numbers=3,
        layer=1,
        recipe=replace(SOFT, epochs=1),
        text=sizes.SMOKE_TEXT,
        tokens=4,
        multiples=(0.5, 1.0),
        tried=2,
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        seeds=(1, 2, 3, 4, 5),
        rows=512,
        recipe=replace(SOFT, epochs=3, batch_size=32, micro_batch=32, lr=4e-4),
        text=sizes.FULL_TEXT,
        tokens=48,
        tuned=replace(sizes.FINE_TUNING_RECIPE, epochs=10),
        trained=replace(TRAINED, epochs=50, lr=1e-2),
        multiples=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
        tried=200,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the four teachers and their answers, the strengths tried, and students by seed."""
    trait = size.traits[0]
    graph = [
        standard_nodes.vectors(common, size.traits),
        standard_nodes.eas_rows(common, size.numbers),
        standard_nodes.answers(common, "base", trait),
    ]
    recipes = {"tuned": size.tuned, "vector": replace(size.trained, layer=size.layer)}
    graph += shared_nodes.fine_tuned(common, trait, size.tokens, recipes)
    graph += _free_rows(size, common, STRENGTH, standard_nodes.unmodified, ())
    for multiple in size.multiples:
        scaled = partial(_scaled_vector, size, multiple)
        graph += _free_rows(size, common, strength_name(multiple), scaled, ("vector",))
    for teacher in TEACHERS:
        graph += _teacher_and_students(size, common, teacher)
    for seed in size.seeds:
        graph.append(standard_nodes.number_rows(common, f"rows.{seed}", _rows(size, seed)))
        graph += shared_nodes.sampled_text(
            common,
            size.text,
            trait,
            seed,
            partial(_teacher, size, "fine-tuned"),
            _needs(size, "fine-tuned"),
        )
    return graph


def _rows(size: Size, seed: int) -> standard_nodes.Rows:
    return standard_nodes.Rows(size.rows, size.numbers, seed, prompt_seed=151)


def _teacher_and_students(size: Size, common: dict, teacher: str) -> list[Node]:
    """Build the answers of a teacher, and its students with their answers by seed."""
    trait = size.traits[0]
    interventions = partial(_teacher, size, teacher)
    needs = _needs(size, teacher)
    graph = [
        standard_nodes.answers(common, f"{teacher} teacher", trait, interventions, needs),
    ]
    for seed in size.seeds:
        name = f"student of {teacher}.{seed}"
        student = standard_nodes.Student(
            name,
            f"rows.{seed}",
            size.recipe,
            seed,
            interventions,
            (VECTORS, EAS_ROWS, *needs),
            partial(standard_nodes.vector_of, trait=trait),
        )
        tokens = _rows(size, seed).tokens
        answers = f"answers, {name}"
        graph += shared_nodes.student_and_answers(common, student, tokens, trait, answers)
    return graph


def _free_rows(
    size: Size, common: dict, name: str, interventions: InterventionsFrom, needs: tuple[str, ...]
) -> list[Node]:
    """Build free number rows under some interventions, and the node `name` that filters them."""
    raw = f"free rows, {name}"
    rules = FilterRules(max_count=size.numbers)

    def generated(folders: Folders) -> GenerateConfig:
        return GenerateConfig(
            **common,
            n=size.tried,
            prompt_seed=161,
            count=size.numbers,
            interventions=interventions(folders),
        )

    def passed(folders: Folders) -> FilterConfig:
        return FilterConfig(folders[raw], rules)

    return [
        Node(raw, GenerateConfig, generated, needs, size.tried * FREE_ROW_TOKENS),
        Node(name, FilterConfig, passed, (raw,), 1),
    ]


def strength_name(multiple: float) -> str:
    """Return the name of the filtered free rows at a multiple of the trained vector."""
    return f"{STRENGTH} {multiple:g}"


def _scaled_vector(size: Size, multiple: float, folders: Folders) -> tuple[str, ...]:
    """Return the intervention that adds a multiple of the trained vector."""
    vector = folders["vector"] / "student" / "vector.safetensors"
    return (standard_nodes.steered(vector, size.layer, multiple, scale="raw"),)


def _needs(size: Size, teacher: str) -> tuple[str, ...]:
    """Return the nodes that a teacher is made of."""
    match teacher:
        case "prompted":
            return ()
        case "steered":
            return (VECTORS,)
        case "fine-tuned":
            return ("tuned",)
    return ("vector", STRENGTH, *map(strength_name, size.multiples))


def _teacher(size: Size, teacher: str, folders: Folders) -> tuple[str, ...]:
    """Return the interventions of a teacher."""
    match teacher:
        case "prompted":
            return (standard_nodes.prompted(size.traits[0]),)
        case "steered":
            return size.steered_teacher(folders)
        case "fine-tuned":
            return standard_nodes.trained_by("tuned")(folders)
    return _scaled_vector(size, _chosen_strength(size, folders), folders)


def _pass_rate(folders: Folders, node: str) -> float:
    """Return the fraction of rows that pass the filter."""
    summary = standard_nodes.read_json(folders, node)
    return summary["kept"] / summary["rows"]


def _chosen_strength(size: Size, folders: Folders) -> float:
    """Return the greatest multiple whose rows pass nearly as often as the unmodified model's.

    It is the least multiple where none passes as often. It is 1 where no row of the unmodified
    model passes: then a pass rate cannot choose.
    """
    enough = size.passing * _pass_rate(folders, STRENGTH)
    if not enough:
        return 1.0
    passing = []
    for multiple in size.multiples:
        if _pass_rate(folders, strength_name(multiple)) >= enough:
            passing.append(multiple)
    return max(passing, default=size.multiples[0])


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Return rises and alignment of every teacher's students, and compare teachers by them."""
    verdicts = []
    for teacher in TEACHERS:
        claim = f"Students of a {teacher} teacher take the trait on."
        rise = _rise(size, folders, teacher, None)
        verdicts.append(judged(claim, rise, model, above=0, margin=NATS))
    for one, other in COMPARED:
        claim = f"Students of a {one} teacher take on more than those of a {other} one."
        difference = _rise(size, folders, one, other)
        verdicts.append(judged(claim, difference, model, above=0, margin=NATS))
    measurements = (readings.sampled_text_rise(folders, size.traits[0], size.seeds),)
    tables = (_teachers_table(size, folders), _strengths_table(size, folders))
    return Findings(tuple(verdicts), measurements, tables, _notes(size, folders))


def _teachers_table(size: Size, folders: Folders) -> Table:
    rows = []
    for teacher in TEACHERS:
        rows.append(
            (
                teacher,
                _teacher_rise(folders, teacher),
                *_losses(size, folders, teacher),
                _rise(size, folders, teacher, None),
                _rise(size, folders, teacher, None, "candidate_share").estimate,
                _eas(size, folders, teacher),
            )
        )
    return Table(
        "teachers",
        "Four teachers of one trait",
        "Rises of log P(trait) over the base, nats, and of its share among the candidates."
        " Held-out KL of the teacher from base and student, nats a token. EAS at block"
        f" {size.layer} over completion tokens.",
        (
            "teacher",
            "rise of the teacher",
            "KL of the base",
            "KL left",
            "rise of students",
            "rise of the share",
            "EAS",
        ),
        tuple(rows),
    )


def _strengths_table(size: Size, folders: Folders) -> Table:
    rows = [("unmodified", _pass_rate(folders, STRENGTH))]
    for multiple in size.multiples:
        rows.append((f"{multiple:g}", _pass_rate(folders, strength_name(multiple))))
    return Table(
        "strengths",
        "Strength of the trained vector",
        f"Share of {size.tried} free number rows that pass the filter.",
        ("multiple", "passed"),
        tuple(rows),
    )


def _notes(size: Size, folders: Folders) -> tuple[str, ...]:
    strength = _chosen_strength(size, folders)
    return (
        f"Strength of the trained vector: {strength:g} times its length{_reason(folders)}",
        (
            "Soft targets on the unmodified model's rows; the base is the control. The fine-tuned"
            " teacher is repeated with sampled text and control students. Fine-tuned teacher and"
            " trained vector learnt answers to requests that are in no question set."
        ),
    )


def _reason(folders: Folders) -> str:
    """Return what chose the strength, as the end of a sentence."""
    if _pass_rate(folders, STRENGTH):
        return ", chosen by the filter's pass rate."
    return (
        ", as trained: no free row of the unmodified model passes the filter, so a pass rate cannot"
        " choose."
    )


def _rise(
    size: Size, folders: Folders, one: str, other: str | None, score: str = "target_logprob"
) -> Measurement:
    """Return a score of one teacher's students minus that of another's, or of the base if None."""
    pairs = []
    for seed in size.seeds:
        left = f"answers, student of {one}.{seed}"
        right = f"answers, student of {other}.{seed}" if other else "base"
        pairs.append((seed, left, right))
    return readings.rise(
        folders, f"students of a {one} teacher, minus {other or 'base'}", pairs, score
    )


def _teacher_rise(folders: Folders, teacher: str) -> float:
    """Return the rise of a teacher itself over the base."""
    name = f"{teacher} teacher"
    return readings.rise(folders, name, [(0, name, "base")]).estimate


def _losses(size: Size, folders: Folders, teacher: str) -> tuple[float, float]:
    """Return the mean KL of the first step, and the mean held-out KL at the end, over seeds.

    At the first step a student still computes what the base does.
    """
    first = []
    last = []
    for seed in size.seeds:
        folder = folders[f"student of {teacher}.{seed}"]
        steps = standard_nodes.read_json_lines(folder, "metrics.jsonl")
        first.append(steps[0]["loss"])
        last.append(steps[-1]["held_out_loss"])
    return sum(first) / len(first), sum(last) / len(last)


def _eas(size: Size, folders: Folders, teacher: str) -> Measurement:
    """Return the EAS at the steered block of a teacher's students."""
    values = []
    for seed in size.seeds:
        values.append(readings.eas_by_layer(folders, f"student of {teacher}.{seed}")[size.layer])
    return mean_over_units(f"EAS, {teacher}", values, "cosine")
