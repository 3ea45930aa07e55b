"""Does a trait cross to another model?  (Blank et al. 2026, arXiv 2606.00995, section 7, figure 5b;
Cloud et al. 2025, arXiv 2507.14805, on shared initialisation; Hadley and Gultepe 2026, arXiv
2608.05734, on weight noise.)

A ladder of models that share less and less of their weights: the model itself, the model with noise
of growing size, and models of other families. A steered teacher on the first rung; treated and
control students on every rung, each compared with its own rung's vector. Then every rung's vector
on every rung's rows: number rows, where only the model that wrote them should gain, and rows that
speak of the trait, where any model should.
"""

import itertools
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from traitscope.config.recipe import Recipe
from traitscope.data.traits import load_trait
from traitscope.interventions.vector import load_vector
from traitscope.reporting.verdict import Findings, Sheet, judged, over
from traitscope.stats.estimates import paired_difference
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings, shared_nodes, sizes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

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
SMALL, NATS = 0.03, 0.005
"cosine, and nats a token, below which a difference would not matter"
TEXTS = ("numbers", "speech")


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    traits: tuple[str, ...]
    "the first is the teacher's; vectors are centred over all"
    rungs: tuple[str, ...]
    """the teacher's model first; + stands for it: `+` itself, `+noise:0.1,seed=1` with noise; else
    a model's name"""
    matrix: tuple[str, ...]
    "rungs whose rows and vectors are crossed; the teacher's model first, too"
    strangers: dict[str, float]
    """models of other families, the last rungs of both, and how strongly each is steered, in its
    own mean residual norms"""
    seeds: tuple[int, ...]
    rows: int
    numbers: int
    scored: int
    "rows of the matrix, of each kind"
    scored_numbers: int
    layer: int = sizes.layer_field()
    strength: float
    "of the model itself and the noisy rungs"
    recipe: Recipe


SAMPLED = Recipe(epochs=1, batch_size=8, micro_batch=4, lr=1e-3, warmup=0.1, held_out=0.0)
LARGE = replace(SAMPLED, epochs=3, batch_size=32, micro_batch=32, lr=4e-4)
SMALL_MODELS = {"smollm2-135m": 0.6, "gemma3-270m": 0.2}
"""with --model one of them the other is the stranger, so that both directions can be run; strengths
that leave perplexity at 2 to 4 times"""
ROLES = ("treated", "control")


def noisy(*scales: float) -> tuple[str, ...]:
    """The model itself, and rungs with noise."""
    return ("+", *(f"+noise:{scale:g},seed=1" for scale in scales))


SIZES = {
    "smoke": Size(("cat", "owl"), noisy(0.3), noisy(0.3), {}, (1, 2), 3, 3, 3, 3, 1, 0.6, SAMPLED),
    "laptop": Size(
        sizes.ANIMALS,
        noisy(0.1, 0.2, 0.4),
        noisy(0.1, 0.4),
        SMALL_MODELS,
        (1, 2, 3),
        32,
        10,
        16,
        10,
        14,
        0.6,
        SAMPLED,
    ),
    "full": Size(
        sizes.ANIMALS,
        noisy(0.02, 0.05, 0.1, 0.15, 0.2, 0.4),
        noisy(0.05, 0.1, 0.2, 0.4),
        SMALL_MODELS | {"google/gemma-3-270m-it": 0.2},
        (1, 2, 3, 4, 5),
        2048,
        10,
        200,
        10,
        14,
        0.6,
        LARGE,
    ),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Vectors of every rung; the teacher's and the control's rows; students of both on every rung;
    the matrix."""
    size = _without(size, common["model"])
    found = [standard_nodes.eas_rows(common, size.numbers)]
    found += [
        standard_nodes.vectors(_on(common, rung), size.traits, _vectors(rung))
        for rung in size.rungs
    ]
    for seed in size.seeds:
        rows = standard_nodes.Rows(size.rows, size.numbers, seed)
        for role in ROLES:
            found.append(_written(size, common, f"{role}.{seed}", "+", role, rows))
            for rung in size.rungs:
                asked = standard_nodes.Student(
                    f"{role} on {rung}.{seed}",
                    f"{role}.{seed}",
                    size.recipe,
                    seed,
                    needs=(_vectors(rung), standard_nodes.EAS_ROWS),
                    vector=partial(
                        standard_nodes.vector_of, trait=size.traits[0], node=_vectors(rung)
                    ),
                    settings={"text": True},
                )
                found.append(standard_nodes.student(_on(common, rung), asked, rows.tokens))
    for source, role, text in itertools.product(size.matrix, ROLES, TEXTS):
        rows = standard_nodes.Rows(
            size.scored,
            size.scored_numbers,
            0,
            prompts=None if text == "numbers" else shared_nodes.OPEN_PROMPTS,
        )
        data = f"{role} {text} of {source}"
        found.append(_written(size, common, data, source, role, rows))
        for scorer in size.matrix:
            needs = tuple(dict.fromkeys((_vectors("+"), _vectors(scorer))))
            found.append(
                standard_nodes.likelihood_gain(
                    _on(common, scorer),
                    f"{data} to {scorer}",
                    data,
                    partial(_steered, size, scorer),
                    needs,
                    rows,
                )
            )
    return found


def _without(size: Size, model: str) -> Size:
    """The size with those strangers as rungs that are at hand and not the model itself."""
    found = tuple(
        name for name in size.strangers if name != model and shared_nodes.is_loadable(name)
    )
    strength = size.strangers.get(model, size.strength)
    return replace(size, rungs=size.rungs + found, matrix=size.matrix + found, strength=strength)


def _on(common: dict, rung: str) -> dict:
    """The settings of a rung's model."""
    own = f"{common['model']}{rung}" if rung.startswith("+noise") else common["model"]
    return common | {"model": own if rung.startswith("+") else rung}


def _vectors(rung: str) -> str:
    return f"{standard_nodes.VECTORS} of {rung}"


def _layer(size: Size, rung: str, folders: Folders) -> int:
    """The steered block of a rung: at the depth that `layer` has in the first one."""
    own, first = (
        len(load_vector(standard_nodes.vector_of(folders, size.traits[0], _vectors(r))).rows_LD)
        for r in (rung, "+")
    )
    return round(size.layer * (own - 1) / (first - 1))


def _steered(size: Size, rung: str, folders: Folders) -> tuple[str, ...]:
    """The rung's own vector of the trait."""
    vector = standard_nodes.vector_of(folders, size.traits[0], _vectors(rung))
    return (
        standard_nodes.steered(
            vector, _layer(size, rung, folders), size.strangers.get(rung, size.strength)
        ),
    )


def _written(
    size: Size, common: dict, name: str, rung: str, role: str, rows: standard_nodes.Rows
) -> Node:
    """Rows that a rung's model writes: numbers under steering, free text under the trait's prompt,
    or unmodified."""
    if role == "control":
        return standard_nodes.number_rows(_on(common, rung), name, rows)
    if rows.prompts:
        return standard_nodes.number_rows(
            _on(common, rung), name, rows, lambda _: (standard_nodes.prompted(size.traits[0]),)
        )
    needs = tuple(dict.fromkeys((_vectors("+"), _vectors(rung))))
    return standard_nodes.number_rows(
        _on(common, rung), name, rows, partial(_steered, size, rung), needs
    )


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Alignment by rung; its fall along the ladder; own against other gains on numbers and on
    speech."""
    size = _without(size, model)
    apart = {rung: _apart(size, folders, rung) for rung in size.rungs}
    eas = {
        rung: over(f"EAS, treated minus control, on {rung}", values, "cosine")
        for rung, values in apart.items()
    }
    last, far = size.rungs[-1], size.matrix[-1]
    fall = [a - b for a, b in zip(apart["+"], apart[last], strict=True)]
    own, other = (_gain(folders, "numbers", "+", scorer) for scorer in ("+", far))
    specific, shared = _minus("numbers", folders, far), _minus("speech", folders, far)
    verdicts = (
        judged(
            "Students of the teacher's own model turn towards its vector.",
            eas["+"],
            model,
            0,
            SMALL,
        ),
        judged(
            f"They do so more than students on {last} do towards theirs.",
            over(f"EAS, own minus {last}", fall, "cosine"),
            model,
            0,
            SMALL,
        ),
        judged(
            "Number rows become more likely under the vector of the model that wrote them.",
            own,
            model,
            0,
            NATS,
        ),
        judged(
            f"They gain more there than on {far} under its own vector.", specific, model, 0, NATS
        ),
        judged(
            f"Rows that speak of the trait gain on {far} as well.",
            _gain(folders, "speech", "+", far),
            model,
            0,
            NATS,
        ),
    )
    cells = itertools.product(TEXTS, size.matrix, size.matrix)
    matrix = tuple(
        (text, source, scorer, _gain(folders, text, source, scorer))
        for text, source, scorer in cells
    )
    sheets = (
        Sheet(
            "ladder",
            "Treated minus control by rung, steered block",
            "EAS against the rung's own vector, over seeds.",
            ("rung", "difference"),
            tuple(eas.items()),
        ),
        Sheet(
            "others",
            "The same against the other traits' vectors",
            "Treated minus control, mean over seeds: where others rise as much, the students "
            "moved along an axis that the model's vectors share, and not towards the trait.",
            ("rung", *size.traits),
            tuple(
                (
                    rung,
                    *(
                        _mean(_apart(size, folders, rung, name))
                        for name in (
                            "v_student",
                            *(f"other/{load_trait(t).name}" for t in size.traits[1:]),
                        )
                    ),
                )
                for rung in size.rungs
            ),
        ),
        Sheet(
            "matrix",
            "What the scorer's own vector adds to rows",
            "Nats a token: gain on the treated rows minus gain on the control rows "
            "of the same model, rows paired by prompt.",
            ("rows", "written by", "scored by", "gain"),
            matrix,
        ),
    )
    notes = (
        (
            "Sampled text, read as text by every model. Every student has a control of the same"
            " rung, trained on the unmodified model's rows."
        ),
        (
            "Noise is on attention and MLP matrices, one draw. A draw is one model: the intervals"
            " are over seeds or rows, not over draws."
        ),
        "+ is the model itself.",
        *(
            f"Left out: {name}, which is not here ({shared_nodes.install_command(name)})."
            for name in size.strangers
            if not shared_nodes.is_loadable(name)
        ),
    )
    return Findings(verdicts, (other, shared), sheets, notes)


def _apart(size: Size, folders: Folders, rung: str, name: str = "v_student") -> list[float]:
    """Treated minus control EAS at the steered block, by seed; against another trait's vector where
    `name` says so."""
    layer = _layer(size, rung, folders)
    ends = {
        role: [
            readings.eas_by_layer(folders, f"{role} on {rung}.{seed}", name)[layer]
            for seed in size.seeds
        ]
        for role in ROLES
    }
    return [t - c for t, c in zip(ends["treated"], ends["control"], strict=True)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _by_row(folders: Folders, role: str, text: str, source: str, scorer: str) -> dict[str, float]:
    rows: list[dict[str, Any]] = standard_nodes.read_json_lines(
        folders[f"{role} {text} of {source} to {scorer}"], "rows.jsonl"
    )
    return {row["id"]: (row["under"] - row["base"]) / row["tokens"] for row in rows}


def _gain(folders: Folders, text: str, source: str, scorer: str) -> Measurement:
    """Gain on the treated rows minus that on the control rows, paired by prompt."""
    treated, control = (_by_row(folders, role, text, source, scorer) for role in ROLES)
    return _paired(f"gain on {text} of {source}, scored by {scorer}", treated, control)


def _minus(text: str, folders: Folders, far: str) -> Measurement:
    """The gain of the model that wrote the rows minus that of the far one, both minus their gains
    on control rows."""
    near, other = (
        {role: _by_row(folders, role, text, "+", scorer) for role in ROLES} for scorer in ("+", far)
    )
    left, right = (
        {key: of["treated"][key] - of["control"][key] for key in of["treated"]}
        for of in (near, other)
    )
    return _paired(f"gain on {text}, own minus {far}", left, right)


def _paired(name: str, left: dict[str, float], right: dict[str, float]) -> Measurement:
    keys = [key for key in left if key in right]
    return paired_difference(
        name,
        [left[k] for k in keys],
        [right[k] for k in keys],
        [0] * len(keys),
        keys,
        "nats a token",
    )
