"""Do the gradients of the data point towards the teacher's vector?  (Blank et al. 2026, arXiv
2606.00995, section 6 and figure 7a; Hadley and Gultepe 2026, arXiv 2608.05734, section on gradient
auditing.)

Number rows of a steered and of a prompted teacher are paired with rows of the unmodified model on
the same prompts. The mean steering gradient of the difference is compared with v_teacher and with
other traits' vectors (stage `gradients`).
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from traitscope.config.analysis import GROUPS, GradientsConfig
from traitscope.data.traits import trait_name
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Claim, Findings, Precondition, verdicts_of
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import sizes
from traitscope.studies.design import (
    CENTRED_TAG_VECTOR,
    HADLEY,
    Design,
    MeanPlan,
    rows_here,
    untrained,
)
from traitscope.studies.teachers import positive_control, scanned
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS

TITLE = "Does the gradient direction of number data point at the teacher's vector?"
CLAIM = (
    "The activation gradients of teacher data have a small, consistent component along v_teacher: "
    "cos(g_clean - g_teacher, v_teacher) > 0."
)
SOURCE = (
    "Blank et al. 2026, arXiv 2606.00995, section 6, figure 7a; Hadley and Gultepe 2026, arXiv"
    " 2608.05734"
)
PUBLISHED = (
    "Prompted teacher, Qwen2.5-7B, gradient at the tag token: 0.05 to 0.10 at 1,024 rows (readers"
    " differ). Steered teachers, Gemma and Llama, over completion tokens and without control rows:"
    " 0.118 and 0.058. The matching animal wins its row of eight vectors 8 of 8 times. Prompted"
    " teachers there: 0.000 and 0.012, with 2 and 1 of 8."
)
PROTOCOL = untrained(HADLEY, 512, "steered and prompted")
SMALL = 0.02
"cosine below which an alignment would not matter"
TEACHERS = ("steered", "prompted")
CONTROL = "control"
"node of the unmodified model's rows"
OTHERS = ("dolphin", "tiger", "fox", "wolf", "eagle", "panda")
"traits of no teacher, over which vectors are centred"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "traits of the teachers"
    others: tuple[str, ...]
    "further traits that the vectors are centred over"
    vector_prompts: int
    "number prompts that vectors are averaged over"
    rows: int
    "rows a teacher"
    numbers: int
    "three-digit numbers a row"
    layer: int = sizes.layer_field()
    "block at which the gradients of prompted teachers' rows are compared"
    blocks: tuple[int, ...] = sizes.layer_field()
    "blocks that are tried for steered teachers"
    strengths: tuple[float, ...]
    "strengths that are tried for steered teachers, in mean residual norms"


LAPTOP = Size(
    traits=("cat", "owl", "penguin", "lion", "dog", "octopus", "elephant", "otter"),
    others=OTHERS,
    vector_prompts=128,
    rows=32,
    numbers=10,
    layer=14,
    blocks=(10, 14, 18),
    strengths=(0.15, 0.3, 0.45),
)
SIZES = {
    "smoke": Size(
        traits=("cat", "owl"),
        others=(),
        vector_prompts=4,
        rows=4,
        numbers=3,
        layer=1,
        blocks=(1,),
        strengths=(0.3,),
    ),
    "laptop": LAPTOP,
    "full": replace(
        LAPTOP,
        vector_prompts=1024,
        rows=1024,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build vectors, control rows, and rows and gradients by teacher and trait."""
    rows = standard_nodes.Rows(size.rows, size.numbers, prompt_seed=22)
    graph = [
        standard_nodes.vectors(
            common, size.traits + size.others, number_prompts=size.vector_prompts
        ),
        standard_nodes.number_rows(common, CONTROL, rows),
    ]
    for trait in size.traits:
        graph.append(scanned.scan(common, trait, size.blocks, size.strengths))
        by_kind = {teacher: _teacher(teacher, trait) for teacher in TEACHERS}
        graph += positive_control.nodes(common, trait, by_kind, scanned.needs(trait))
    for teacher in TEACHERS:
        for trait in size.traits:
            name = f"{teacher}.{trait_name(trait)}"
            interventions, needs = _teacher(teacher, trait), scanned.needs(trait)
            graph += [
                standard_nodes.number_rows(common, name, rows, interventions, needs),
                _gradients(common, name, rows),
            ]
    return graph


def _teacher(teacher: str, trait: str) -> standard_nodes.InterventionsFrom:
    if teacher == "prompted":
        return standard_nodes.prompted_by(trait)
    return scanned.teacher(trait)


def _layer(size: Size, folders: Folders, teacher: str, trait: str) -> int:
    """The block where a teacher's gradients are compared: that of its steering, if it has one."""
    return size.layer if teacher == "prompted" else scanned.place(folders, trait)[0]


def _gradients(common: dict, name: str, rows: standard_nodes.Rows) -> Node:
    """The gradients of a teacher's rows minus those of the control's."""

    def config(folders: Folders) -> GradientsConfig:
        return GradientsConfig(
            **common, data=folders[name], control=folders[CONTROL], vectors=folders[VECTORS]
        )

    needs = (VECTORS, CONTROL, name)
    return Node(f"gradients.{name}", GradientsConfig, config, needs, 4 * rows.tokens)


@dataclass(frozen=True)
class TeacherGradients:
    """The gradients of one teacher's rows, compared with every vector at one block."""

    teacher: str
    """steered or prompted."""
    trait: str
    """The teacher's trait."""
    layer: int
    """The block."""
    summary: dict
    """What the stage `gradients` wrote."""

    @property
    def by_layer(self) -> dict:
        """The comparison with the teacher's vector; lists are by layer."""
        return self.summary["vectors"][self.trait]

    @property
    def alignment(self) -> Measurement:
        """Cosine of the mean gradient with the teacher's vector, with its interval over rows."""
        n_rows = max(int(n) for n in self.by_layer["growth"])
        low = self.by_layer["low"][self.layer] if self.by_layer["low"] else math.nan
        high = self.by_layer["high"][self.layer] if self.by_layer["high"] else math.nan
        return Measurement(
            name=f"{self.teacher}.{self.trait}.alignment",
            estimate=self.by_layer["alignment"][self.layer],
            low=low,
            high=high,
            n=n_rows,
            n_clusters=min(n_rows, GROUPS),
            n_unscored=0,
            unit="cosine",
            interval=f"jackknife over {min(n_rows, GROUPS)} groups of rows",
        )

    @property
    def alignment_with_others(self) -> float:
        """Mean cosine with the vectors of all other traits."""
        cosines = []
        for name, vector in self.summary["vectors"].items():
            if name != self.trait:
                cosines.append(vector["alignment"][self.layer])
        return sum(cosines) / len(cosines)

    @property
    def wins(self) -> bool:
        """Whether no vector is more aligned than the teacher's."""
        vectors = self.summary["vectors"]
        return self.trait == max(vectors, key=lambda name: vectors[name]["alignment"][self.layer])

    @property
    def best_layer(self) -> int:
        """The block where the alignment is greatest."""
        return int(np.argmax(self.by_layer["alignment"]))


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Test alignment at the steered block: above zero, and above that of other traits' vectors."""
    claims: list[Claim] = []
    teachers: list[Measurement] = []
    alignment, growth, energy = [], [], []
    for teacher in TEACHERS:
        compared = []
        for trait in size.traits:
            summary = standard_nodes.read_json(folders, f"gradients.{teacher}.{trait}")
            layer = _layer(size, folders, teacher, trait)
            compared.append(TeacherGradients(teacher, trait, layer, summary))
        rises = [positive_control.rise(folders, teacher, trait) for trait in size.traits]
        teachers += rises
        claims += _claims(size, teacher, compared, positive_control.have_traits(rises, teacher))
        n_wins = sum(gradients.wins for gradients in compared)
        for gradients in compared:
            alignment.append(_alignment_row(gradients, f"{n_wins} of {len(compared)}"))
            growth += _growth_rows(gradients)
            energy.append(_energy_row(gradients))
    sign_note = (
        "Sign: positive means that one descent step on the teacher's rows, minus one on the"
        " control's, moves the residual stream towards the vector."
    )
    interval_note = (
        f"Vectors are centred over {len(size.traits + size.others)} traits. Rows of both sides"
        " share prompts and random numbers. Intervals of single alignments are over rows, those of"
        " the verdicts over traits."
    )
    tables = (
        _alignment_table(alignment),
        Table(
            "growth",
            "Alignment by number of rows",
            "Cosine of the gradient direction of the first n rows.",
            ("teacher", "trait", "rows", "alignment"),
            tuple(growth),
            ("rows", "alignment"),
        ),
        _energy_table(energy),
    )
    return Findings(
        verdicts_of(claims, model), (), tables, (sign_note, interval_note), teachers=tuple(teachers)
    )


def _claims(
    size: Size, teacher: str, compared: list[TeacherGradients], has_trait: Precondition
) -> list[Claim]:
    cosines, differences = [], []
    for gradients in compared:
        cosines.append(gradients.alignment.estimate)
        differences.append(gradients.alignment.estimate - gradients.alignment_with_others)
    return [
        Claim(
            f"The gradient direction of a {teacher} teacher's rows points at its own vector more"
            " than at other traits' vectors.",
            mean_over_units(f"{teacher}.own minus others", differences, "cosine", "traits"),
            SMALL,
            needs=(has_trait,),
            primary=teacher == TEACHERS[0],
        ),
        Claim(
            f"The gradient direction of a {teacher} teacher's rows points at its vector.",
            mean_over_units(f"{teacher}.alignment", cosines, "cosine", "traits"),
            SMALL,
            needs=(has_trait,),
        ),
    ]


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    expected = MeanPlan(
        effect=0.09,
        sd=0.03,
        unit="cosine",
        n=len(size.traits),
        counted="traits",
        source="Four traits at the laptop size gave 0.091 with an sd of 0.029.",
    )
    here = rows_here(PROTOCOL.teacher, size.rows, CENTRED_TAG_VECTOR)
    return Design(2 * len(TEACHERS), expected, here)


def _alignment_row(gradients: TeacherGradients, winners: str) -> tuple:
    best_layer = gradients.best_layer
    return (
        gradients.teacher,
        gradients.trait,
        gradients.layer,
        gradients.alignment,
        gradients.alignment_with_others,
        gradients.by_layer["signal_to_noise"][gradients.layer],
        best_layer,
        gradients.by_layer["alignment"][best_layer],
        winners,
    )


def _alignment_table(rows: list[tuple]) -> Table:
    header = (
        "teacher",
        "trait",
        "block",
        "own",
        "mean of others",
        "signal / noise",
        "best block",
        "alignment there",
        "winners",
    )
    caption = (
        "Cosine of the gradient direction with the trait's vector, at the steered block;"
        " winners: rows whose own vector is the most aligned of all."
    )
    return Table("alignment", "Alignment", caption, header, tuple(rows))


def _growth_rows(gradients: TeacherGradients) -> list[tuple]:
    """Alignment of the first n rows, for several n."""
    rows = []
    for n_rows, alignment in gradients.by_layer["growth"].items():
        aligned = alignment[gradients.layer]
        rows.append((gradients.teacher, gradients.trait, int(n_rows), aligned))
    return rows


def _energy_row(gradients: TeacherGradients) -> tuple:
    """Fractions of the squared gradient, and what is left without the top coordinates."""
    layer = gradients.layer
    fractions = gradients.summary["concentration"]
    without_top = gradients.by_layer["without_top"]
    norm = max(without_top["norm.all"][layer], 1e-12)
    return (
        gradients.teacher,
        gradients.trait,
        fractions["coordinates"]["0.01"][layer],
        fractions["rows"]["0.1"][layer],
        without_top["alignment.all"][layer],
        without_top["alignment.rest"][layer],
        without_top["alignment.top"][layer],
        without_top["norm.rest"][layer] / norm,
    )


def _energy_table(rows: list[tuple]) -> Table:
    header = (
        "teacher",
        "trait",
        "top 1 % coordinates",
        "top 10 % rows",
        "alignment",
        "without top",
        "top alone",
        "norm left",
    )
    caption = (
        "Shares of the squared gradient of the top 1 % of coordinates and of the top 10 % of"
        " rows; alignment of the gradient direction: whole, without those coordinates, and of them"
        " alone; norm left without them."
    )
    return Table("energy", "Who carries the gradient", caption, header, tuple(rows))
