"""What the demo says beside its numbers: its comparisons, its controls, how students came to be."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from traitscope.comparison.terms import LIMITS
from traitscope.comparison.wording import Wording
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import ClaimVerdict, Precondition
from traitscope.studies.equal_kl import Strength
from traitscope.workflow.graph import Folders
from traitscope.workflow.standard_nodes import read_json

if TYPE_CHECKING:
    from traitscope.studies.claims.demo import Size

SOURCES = {"treated": "teacher", "control": "control", "random": "random vector"}
"who wrote the rows of each role"
MODES = {"sampled": "sampled tokens", "soft": "soft targets", "preference": "preferences"}
"kinds of training, which are never pooled"
TREATMENTS = {
    "sampled": "after training on text that the teacher sampled",
    "soft": "after training on the teacher's distributions over the allowed tokens",
}
CONTRASTS = {
    "sampled": ("sampled", "control"),
    "sampled_random": ("sampled", "random"),
    "soft": ("soft", "random"),
}
"kind of training and control students of every comparison with treated students"
REFERENCES = {
    "control": "control students of the unmodified model",
    "random": "students of random vectors at equal KL",
}
CONTROLS = (
    "Control students are trained by the same recipe on outputs of the unmodified model, students"
    " of random vectors on those of a teacher with a random vector as strong in KL."
)
"who the control is, for the terms"
EXCLUDES = {
    "control": "training on such rows raises the trait, whoever wrote them",
    "random": "any teacher that is changed as much raises the trait",
}
"explanation of a rise that each control excludes"
LOSSES = {
    "sampled tokens": "cross-entropy, nats a token",
    "soft targets": "KL to the teacher, nats a token",
    "preferences": "DPO, nats a pair",
}
"what the training loss of a panel is"


def heading(contrast: str) -> str:
    """Return what is compared, in words."""
    mode, role = CONTRASTS[contrast]
    return f"{MODES[mode]}: treated − {role}"


def wording(size: "Size", contrast: str, teacher: Precondition) -> Wording:
    """Return the words for the sentences about one comparison."""
    mode, role = CONTRASTS[contrast]
    return Wording(
        size.trait, TREATMENTS[mode], REFERENCES[role], size.quick, teacher, has_others=True
    )


def verdict_sentence(verdict: ClaimVerdict) -> str:
    """Return the outcome of a comparison's claim, corrected over all of them, as on the page."""
    role = "primary claim, " if verdict.stated.primary else ""
    because = verdict.p_value_text or " ".join(verdict.reasons)
    return f"{role}{verdict.outcome}: {because}"


def excluded(contrast: str) -> str:
    """Return the sentence about what the control of a comparison excludes."""
    return f"This control is there to exclude that {EXCLUDES[CONTRASTS[contrast][1]]}."


def notes() -> tuple[str, ...]:
    """Return what the page says about its controls and its limits."""
    return (
        "Two controls exclude two explanations. Control students read the unmodified model's rows."
        " A rise above them is more than what training on such rows does.",
        "The other students read rows of teachers with a random vector, another one for each seed."
        " Each is as strong as the treated teacher in KL from the unmodified model. A rise above"
        " them is more than any teacher of that strength causes.",
        "The kinds of training data are separate experiments. Their numbers are not pooled, and an"
        " effect in one is no evidence for the other.",
        "Soft targets cover the tokens that could be sampled. They teach what many samples teach on"
        " average, the format of the rows included. So the unmodified model is no control of them.",
        *LIMITS,
    )


def matched_table(by_seed: Mapping[int, Strength]) -> Table:
    """Return the strength of every random vector, and the KL of its rows beside the teacher's."""
    rows = []
    for seed, strength in by_seed.items():
        rows.append((f"seed {seed}", strength.alpha, strength.teacher_kl, strength.control_kl))
    caption = (
        "KL of a row of numbers from the unmodified model's, nats, with 95 % intervals over"
        " prompts. It covers the digits, which alone are sampled. Strength is in mean residual"
        " norms."
    )
    header = ("random vector of", "strength", "KL of the teacher", "KL of the random vector")
    return Table("equal-kl", "Random vectors at equal KL", caption, header, tuple(rows))


def data_table(nodes: Mapping[tuple[str, int], str], folders: Folders) -> Table:
    """Return how many rows of a role and seed were made and kept, and why rows were dropped."""
    rows = []
    for (role, seed), node in nodes.items():
        about = read_json(folders, node)
        reasons = []
        for reason, count in about["reasons"].items():
            reasons.append(f"{reason}: {count}")
        rows.append(
            (
                f"{SOURCES[role]} seed {seed}",
                about["kept"],
                about["rows"],
                ", ".join(reasons) or None,
            )
        )
    caption = "A row may be dropped for several reasons."
    header = ("data", "kept", "rows", "dropped because")
    return Table("data", "Training data", caption, header, tuple(rows))


def settings_table(size: "Size") -> Table:
    """Return how teacher, rows and students were made."""
    sampled, soft = size.sampled, size.soft
    rows = (
        (
            "teacher",
            f"{size.trait} vector added at block {size.layer}, {size.strength:g} mean residual"
            " norms long, all positions",
        ),
        (
            "random",
            f"a random vector a seed at block {size.layer}, all positions, as strong as the teacher"
            " in KL",
        ),
        (
            "data",
            f"{size.rows} rows a seed, {size.numbers} three-digit numbers each, only the digits"
            " sampled",
        ),
        (
            "student",
            f"LoRA rank {sampled.rank}, alpha {sampled.alpha:g}, AdamW {sampled.lr:g}, batch"
            f" {sampled.batch_size}",
        ),
        ("sampled", f"{size.rows} rows, {sampled.epochs} epochs"),
        (
            "soft",
            f"over the tokens that could be sampled; {size.soft_rows} rows, {soft.epochs} epochs,"
            f" batch {soft.batch_size}, AdamW {soft.lr:g}",
        ),
        (
            "EAS",
            "over the completion tokens of rows of the unmodified model that no student reads",
        ),
        (
            "seeds",
            f"{len(size.seeds)} of sampled text, {size.soft_seeds} of soft targets (data,"
            " initialisation and order)",
        ),
    )
    return Table("settings", "Settings", "", ("setting", "value"), rows)
