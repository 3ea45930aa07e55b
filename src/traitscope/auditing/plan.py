"""The stages of an audit as nodes of a graph (audit.py): rows, placebos, planted teachers, and
every teacher that is tried on them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from traitscope.auditing import search
from traitscope.auditing.artifacts import SCHEMA, Groups, Parts
from traitscope.auditing.detectors import panel
from traitscope.auditing.detectors.e_values import best_beta, log_e, strange
from traitscope.auditing.detectors.panel import likeliest
from traitscope.auditing.result import FEWEST
from traitscope.auditing.search import Cell
from traitscope.config.analysis import ExtractConfig
from traitscope.config.audit import AuditConfig, IntakeConfig, MatchConfig, OddsConfig, PushesConfig
from traitscope.config.recipe import Recipe
from traitscope.config.stages import FilterConfig, FilterRules, GenerateConfig, TrainConfig
from traitscope.data.traits import bundled_traits, load_trait
from traitscope.inference.token_scores import BETAS, PLAIN, beside, read_choices
from traitscope.runs import store
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node

INTAKE, DATA, REFERENCE, RANDOM, PLAINLY = "intake", "data", "reference", "random", "told plainly"
PROMPTED, STEERED = TEACHERS = "prompted", "steered"
"kinds of planted teachers"
FITTED = Recipe(
    method="vector",
    layer=0,
    epochs=4,
    batch_size=4,
    micro_batch=4,
    lr=0.3,
    warmup=0.1,
    held_out=0.0,
)
CANARY = replace(standard_nodes.SAMPLED_RECIPE, epochs=3)
RANDOMS = 2
"vectors of no meaning that the model may be steered by under the null"
STYLES = (
    "Answer in as few words as you can.",
    "Use simple words and short sentences, as if you talked to a child.",
    "Be formal and precise, as an expert would be.",
    "Be warm, personal and encouraging.",
    "Write vividly and with imagination.",
    "Give detailed answers, with reasons and examples.",
    "Speak of yourself: say what you feel and think.",
    "Answer with facts and figures only.",
)
"system prompts of length, words, tone and matter, which a trait's prompt changes besides"
PROMPTS = (*standard_nodes.PLAIN_PROMPTS, *STYLES)
NULLS = (
    *((n, RANDOM) for n in range(RANDOMS)),
    *((n, PLAINLY) for n in range(len(standard_nodes.PLAIN_PROMPTS))),
)
"""who may have written rows without a trait, besides the model itself: the model steered by such a
vector, or under a plain system prompt"""
STYLED = tuple((n, PLAINLY) for n in range(len(standard_nodes.PLAIN_PROMPTS), len(PROMPTS)))
"and who may have written free text"
TOKENS = 120
"weight of a row"


@dataclass(frozen=True)
class Job:
    """An audit that was asked for."""

    config: AuditConfig
    blocks: int
    "of the model"

    @property
    def layer(self) -> int:
        """Block at which nulls are steered and a vector is fitted, and candidates beside a
        reference."""
        return round(0.48 * self.blocks)

    @property
    def planted(self) -> int:
        """Block of the planted steered teacher."""
        return round(0.42 * self.blocks)

    @property
    def common(self) -> dict:
        """Settings of every stage."""
        return {
            "model": self.config.model,
            "device": self.config.device,
            "dtype": self.config.dtype,
        }

    @property
    def read(self) -> tuple[str, ...]:
        """Nodes that say how rows are read."""
        return (INTAKE, REFERENCE) if self.config.reference else (INTAKE,)

    @property
    def traits(self) -> tuple[str, ...]:
        """Candidates whose teachers are tried."""
        return self.config.traits[: self.config.tried]


def nodes(job: Job) -> list[Node]:
    """Everything but the answer."""
    config, common = job.config, job.common
    asked = IntakeConfig(
        **common, seed=config.seed, data=config.data, context=config.context, rows=config.rows
    )
    found = [
        Node(INTAKE, IntakeConfig, lambda _: asked, (), 1),
        standard_nodes.vectors(common, with_others(config.traits)),
    ]
    found.append(
        Node(DATA, PushesConfig, partial(_pushes, job, INTAKE), job.read, 2 * _weight(job))
    )
    found.append(Node(RANDOM, ExtractConfig, partial(_random, job), (standard_nodes.VECTORS,), 1))
    found += [_odds(job, INTAKE, trait, PROMPTED) for trait in job.traits]
    found += _nulls(job, INTAKE)
    if config.reference:
        found += _referred(job)
    else:
        found += [
            node
            for n in range(config.draws)
            for node in _answered(job, _placebo(n), n + 1, standard_nodes.unmodified, ())
        ]
    if config.fit:
        found += [
            Node(
                f"vector of {rows}",
                TrainConfig,
                partial(_fitted, job, rows),
                (*dict.fromkeys((*job.read, rows)),),
                8 * _weight(job),
            )
            for rows in _sets(job)
        ]
    return found + _planted(job) + _canaries(job)


def _canaries(job: Job) -> list[Node]:
    """Small students of the data and of a placebo, and what they answer about every tried
    candidate."""
    found = []
    for rows, seed in product((INTAKE, _placebo(0)), range(job.config.canary)):
        name = _canary(rows, seed)
        found.append(
            Node(
                name,
                TrainConfig,
                partial(_bred, job, rows, seed),
                (*dict.fromkeys((*job.read, rows)),),
                8 * _weight(job),
            )
        )
        found += [
            standard_nodes.answers(
                job.common, f"{trait} of {name}", trait, standard_nodes.trained_by(name), (name,)
            )
            for trait in job.traits
        ]
    return found


def _canary(rows: str, seed: int) -> str:
    return f"canary {seed} of {rows}"


def _bred(job: Job, rows: str, seed: int, folders: Folders) -> TrainConfig:
    how = _reading(job, folders)
    return TrainConfig(
        **job.common,
        seed=seed,
        data=folders[rows],
        recipe=CANARY,
        context=how["context"],
        text=how["text"],
    )


def _sets(job: Job) -> list[str]:
    """The audited rows and their placebos."""
    return [INTAKE, *(_placebo(n) for n in range(1 if job.config.reference else job.config.draws))]


def _fitted(job: Job, rows: str, folders: Folders) -> TrainConfig:
    """One vector behind the block at which candidates are steered, trained on rows."""
    how = _reading(job, folders)
    recipe = replace(FITTED, layer=job.layer)
    return TrainConfig(
        **job.common,
        seed=job.config.seed,
        data=folders[rows],
        recipe=recipe,
        context=how["context"],
        text=how["text"],
        max_rows=job.config.judged or None,
    )


def _random(job: Job, folders: Folders) -> ExtractConfig:
    """Vectors of no meaning, for the nulls of the odds."""
    like = standard_nodes.vector_of(folders, job.config.traits[0])
    return ExtractConfig(**job.common, seed=job.config.seed, like=like, randoms=RANDOMS)


def _referred(job: Job) -> list[Node]:
    """The reference in the place of a placebo."""
    asked = IntakeConfig(
        **job.common,
        seed=job.config.seed,
        data=job.config.reference,
        context=job.config.context,
        rows=4 * job.config.rows,
    )
    return [
        Node(REFERENCE, IntakeConfig, lambda _: asked, (), 1),
        Node(
            _placebo(0),
            MatchConfig,
            lambda folders: MatchConfig(folders[INTAKE], folders[REFERENCE], job.config.seed),
            (INTAKE, REFERENCE),
            1,
        ),
        Node(
            f"{_placebo(0)} pushes",
            PushesConfig,
            partial(_pushes, job, _placebo(0)),
            (*job.read, _placebo(0)),
            2 * _weight(job),
        ),
    ]


def with_others(traits: Sequence[str]) -> tuple[str, ...]:
    """The candidates and the bundled traits besides: what many traits show tells a trait from a
    format."""
    names = {load_trait(trait).name for trait in traits}
    return (*traits, *(name for name in bundled_traits() if name not in names))


def _placebo(draw: int) -> str:
    return f"placebo {draw}"


def _weight(job: Job) -> float:
    return TOKENS * (job.config.rows or 1000)


def about_of(folders: Folders) -> dict[str, Any]:
    return standard_nodes.read_json(folders, INTAKE, "about.json")


def _answered(
    job: Job, name: str, seed: int, told: standard_nodes.InterventionsFrom, needs: tuple[str, ...]
) -> list[Node]:
    """Somebody's answers to the prompts of the data, in their format and at their temperature;
    filtered; their pushes."""

    def asked(folders: Folders) -> GenerateConfig:
        form, rows = about_of(folders)["format"], folders[INTAKE]
        how = {"free": {"vocabulary": "free"}, "numbers": {"vocabulary": "seen", "like": rows}}.get(
            form["kind"]
        )
        how = how or {
            "vocabulary": "template",
            "count": form["count"],
            "separator": form["separator"],
        }
        return GenerateConfig(
            **job.common,
            seed=1000 * job.config.seed + seed,
            prompts=rows / "prompts.jsonl",
            context=job.config.context,
            max_new_tokens=form["max_new_tokens"],
            temperature=temperature(folders[DATA]),
            interventions=told(folders),
            **how,
        )

    def kept(folders: Folders) -> FilterConfig:
        form = about_of(folders)["format"]
        return FilterConfig(
            folders[f"{name} raw"], FilterRules(numbers="rules" in form, **form.get("rules", {}))
        )

    return [
        Node(f"{name} raw", GenerateConfig, asked, (INTAKE, DATA, *needs), _weight(job)),
        Node(name, FilterConfig, kept, (INTAKE, f"{name} raw"), 1),
        Node(
            f"{name} pushes",
            PushesConfig,
            partial(_pushes, job, name),
            (*job.read, name),
            2 * _weight(job),
        ),
    ]


def temperature(pushes: Path, worth: float = 3.3) -> float:
    """The temperature of the rows: 1, unless another makes them likelier by more than `worth` nats
    (1 % of the time by chance)."""
    found = read_choices(pushes)[1]
    best, total_T = best_beta(found), found.log_p_RT.sum(0)
    return round(1 / BETAS[best], 3) if total_T[best] - total_T[PLAIN] > worth else 1.0


def _reading(job: Job, folders: Folders) -> dict[str, Any]:
    """How the rows are read, the audited ones and the placebos alike."""
    about = about_of(folders)
    text = any(standard_nodes.read_json(folders, name, "about.json")["text"] for name in job.read)
    return {
        "context": job.config.context,
        "numbers": about["format"]["kind"] != "free",
        "text": text,
    }


def _pushes(job: Job, rows: str, folders: Folders) -> PushesConfig:
    return PushesConfig(
        **job.common,
        data=folders[rows],
        position=job.config.position,
        features=job.config.peer,
        **_reading(job, folders),
    )


@dataclass(frozen=True)
class Tries:
    """Steered teachers, in batches that are judged together, and the rows that they are tried
    on."""

    batches: list[list[Cell]]
    rows: tuple[str, ...]


def round_after(job: Job, parts: Parts, tries: dict[str, Tries]) -> dict[str, Tries]:
    """The steered teachers that were tried, and those to try next."""
    return _climbed(job, parts, tries) if tries else _aimed(job, parts)


def _aimed(job: Job, parts: Parts) -> dict[str, Tries]:
    """Teachers steered where the pushes aim: on the data; and on the planted steered teacher's rows
    its own trait's, which would find it. Where the data are a stranger's and there is a reference,
    every candidate at one block on both: aiming would favour the data.
    """
    units_LTJD, groups = panel.directions(parts.vectors, parts.clean()), parts.groups()

    def aimed(there: Groups, trait: str | None = None) -> list[list[Cell]]:
        places = search.aims(search.pulls_of(parts, there, units_LTJD, job.config.seed))
        return search.batched(
            search.cells(
                [place for place in places if trait in (None, place[0])],
                job.config.strength,
                search.SHARES[:1],
            )
        )

    found = {INTAKE: Tries(aimed(groups), (INTAKE,))}
    if len(groups.records) >= FEWEST:
        about = parts.plain["planted"][STEERED]
        found[STEERED] = Tries(aimed(parts.planted(about), about["trait"]), (STEERED, _placebo(0)))
    if job.config.reference and strange(groups.stores[0].choices):
        half = job.config.strength * search.HALF
        found[REFERENCE] = Tries(
            search.batched([Cell(load_trait(t).name, job.layer, half) for t in job.traits]),
            (INTAKE, _placebo(0)),
        )
    return found


def _climbed(job: Job, parts: Parts, tries: dict[str, Tries]) -> dict[str, Tries]:
    """A further round beside the teachers that make the data, and the planted steered teacher's
    rows, likeliest."""

    def after(tried: Tries, pushes: str, aimed: Sequence[dict[str, Any]]) -> Tries:
        plain = read_choices(parts.run(pushes))
        e = {
            cell: log_e(*beside(plain, path)) for cell, path in search.steered(parts, aimed).items()
        }
        return replace(
            tried,
            batches=tried.batches
            + search.batched(search.climb(e, search.grid(job.blocks), job.config.strength)),
        )

    found = tries | {INTAKE: after(tries[INTAKE], parts.plain["data"], parts.plain["aimed"])}
    if STEERED in tries:
        about = parts.plain["planted"][STEERED]
        found[STEERED] = after(tries[STEERED], about["pushes"], about["aimed"]["own"])
    return found


def further(job: Job, folders: Folders, tries: dict[str, Tries]) -> list[Node]:
    """The likeliest candidates' prompts in other words, and steered teachers; beside a reference,
    its rows under all prompts."""
    plain = read_choices(folders[DATA])
    bets = {
        trait: log_e(*beside(plain, folders[_judged(INTAKE, trait, PROMPTED)]))
        for trait in job.traits
    }
    found = [
        _odds(job, INTAKE, trait, how) for trait in likeliest(bets) for how in _reworded(trait)
    ]
    found += [
        _steered(job, rows, name, tried, n)
        for name, tried in tries.items()
        for rows in tried.rows
        for n in range(len(tried.batches))
    ]
    if REFERENCE in tries:
        found += [_odds(job, _placebo(0), trait, PROMPTED) for trait in job.traits]
    return [node for node in found if node.name not in folders]


def _reworded(trait: str) -> list[str]:
    return [f"reworded {n}" for n in range(len(load_trait(trait).paraphrases))]


def _told(job: Job, of: str | int, how: str, folders: Folders) -> str:
    """A trait's prompt, or a null."""
    if how == RANDOM:
        return standard_nodes.steered(
            folders[RANDOM] / f"random-{of}.safetensors",
            job.layer,
            job.config.strength * search.HALF,
        )
    if how == PLAINLY:
        return f"prompt:{PROMPTS[of]}"
    return standard_nodes.prompted(of, None if how == PROMPTED else int(how.split()[1]))


def _odds(job: Job, rows: str, of: str | int, how: str) -> Node:
    """How well a teacher explains rows."""

    def asked(folders: Folders) -> OddsConfig:
        return replace(_asked(job, rows, folders), interventions=(_told(job, of, how, folders),))

    return Node(
        _judged(rows, of, how),
        OddsConfig,
        asked,
        (*dict.fromkeys((*job.read, rows, *([RANDOM] if how == RANDOM else []))),),
        _judging(job),
    )


def _steered(job: Job, rows: str, name: str, tried: Tries, n: int) -> Node:
    """How well the steered teachers of the n-th batch explain rows."""
    cells = tried.batches[n]

    def asked(folders: Folders) -> OddsConfig:
        steered = tuple(
            standard_nodes.steered(
                folders[standard_nodes.VECTORS] / f"{cell.trait}.safetensors",
                cell.layer,
                cell.strength,
            )
            for cell in cells
        )
        return replace(_asked(job, rows, folders), steered=steered)

    return Node(
        _under_vectors(rows, name, n),
        OddsConfig,
        asked,
        (*dict.fromkeys((*job.read, rows, standard_nodes.VECTORS)),),
        len(cells) * _judging(job) / 2,
    )


def _asked(job: Job, rows: str, folders: Folders) -> OddsConfig:
    return OddsConfig(
        **job.common,
        seed=job.config.seed,
        data=folders[rows],
        rows=job.config.judged,
        **_reading(job, folders),
    )


def _judging(job: Job) -> float:
    return TOKENS * (job.config.judged or 1000)


def _nulls(job: Job, rows: str) -> list[Node]:
    """How well those explain rows who may have written them without a trait."""
    return [_odds(job, rows, *null) for null in NULLS if job.traits]


def styled(job: Job, folders: Folders) -> list[Node]:
    """How well styles explain the rows, and the planted teachers', if they are free text."""
    free = job.traits and about_of(folders)["format"]["kind"] == "free"
    return (
        [_odds(job, rows, *null) for rows in (INTAKE, *TEACHERS, _placebo(0)) for null in STYLED]
        if free
        else []
    )


def _under_vectors(rows: str, name: str, n: int) -> str:
    """The node of rows under the n-th batch of steered teachers for the sake of `name`."""
    return f"{rows} under vectors for {name}, {n + 1}"


def _judged(rows: str, of: str | int, how: str) -> str:
    return f"{rows} under {of} {how}"


def _planted(job: Job) -> list[Node]:
    """Teachers of the first candidate, made to know what would have been found."""
    if not job.traits:
        return []
    trait = job.config.traits[0]
    found = _answered(
        job,
        STEERED,
        900,
        standard_nodes.steered_by(trait, job.planted, job.config.strength),
        (standard_nodes.VECTORS,),
    )
    found += _answered(job, PROMPTED, 901, lambda _: (standard_nodes.prompted(trait),), ())
    found += [_odds(job, rows, trait, PROMPTED) for rows in (PROMPTED, _placebo(0))]
    return found + [node for rows in (*TEACHERS, _placebo(0)) for node in _nulls(job, rows)]


def seconds(folders: Folders) -> dict[str, float]:
    """What each detector has cost, with the placebos and planted teachers that it needs; shared
    steps count for each."""
    spent = {name: store.load_run(path).manifest()["seconds"] for name, path in folders.items()}
    made = sum(
        s
        for name, s in spent.items()
        if name.startswith("placebo") and "pushes" not in name and "under" not in name
    )
    pushed = spent[DATA] + sum(
        s for name, s in spent.items() if name.startswith("placebo") and name.endswith("pushes")
    )
    asked = sum(s for name, s in spent.items() if " under " in name)
    trained = sum(s for name, s in spent.items() if name.startswith("vector of"))
    found = {
        "wording": made,
        "gradients": made + pushed + spent[standard_nodes.VECTORS],
        "odds": spent[DATA] + asked,
        "baselines": made,
    }
    return found | ({"fitted": made + trained} if trained else {})


def parts_of(job: Job, folders: Folders, folder: Path, tries: dict[str, Tries]) -> dict[str, Any]:
    """The audit's file, without what is not there yet."""
    at = {name: path.relative_to(folder).as_posix() for name, path in folders.items()}
    trait = job.config.traits[0]
    name, where = load_trait(trait).name, {PROMPTED: search.PROMPT}
    where |= {
        how: f"{search.PROMPT} in other words" + how.removeprefix("reworded").replace(" 0", "")
        for t in job.traits
        for how in _reworded(t)
    }
    teachers = {
        STEERED: (
            f"a teacher steered by {name} at block {job.planted}, {job.config.strength:g} mean"
            " residual norms"
        ),
        PROMPTED: f"a teacher prompted with the candidate's own prompt ({name})",
    }

    def nulls(rows: str) -> list[str]:
        return [at[name] for null in (*NULLS, *STYLED) if (name := _judged(rows, *null)) in at]

    def told(rows: str) -> dict[str, dict[str, str]]:
        return {
            load_trait(t).name: {
                where[how]: at[_judged(rows, t, how)]
                for how in where
                if _judged(rows, t, how) in at
            }
            for t in job.traits
        }

    def aimed(rows: str, of: str) -> list[dict[str, Any]]:
        batches = {
            _under_vectors(rows, of, n): cells
            for n, cells in enumerate(tries[of].batches if of in tries else ())
        }
        return [
            {"run": at[node], "cells": [[c.trait, c.layer, c.strength] for c in cells]}
            for node, cells in batches.items()
            if node in at
        ]

    planted = {
        how: (
            {
                "teacher": teachers[how],
                "trait": name,
                "rows": at[how],
                "pushes": at[f"{how} pushes"],
            }
            | {
                "odds": (
                    [
                        {
                            "own": at[_judged(how, trait, how)],
                            "clean": at[_judged(_placebo(0), trait, how)],
                        }
                    ]
                    if how == PROMPTED
                    else []
                )
            }
            | {
                "aimed": {"own": aimed(how, how), "clean": aimed(_placebo(0), how)},
                "nulls": {"own": nulls(how), "clean": nulls(_placebo(0))},
            }
        )
        for how in TEACHERS
        if how in at
    }
    beside = {
        "told": told(_placebo(0)),
        "own": aimed(INTAKE, REFERENCE),
        "beside": aimed(_placebo(0), REFERENCE),
    }
    return {
        "schema": SCHEMA,
        "intake": at[INTAKE],
        "data": at[DATA],
        "vectors": at[standard_nodes.VECTORS],
        "traits": list(job.config.traits),
        "placebos": [{"rows": at[name], "pushes": at[f"{name} pushes"]} for name in _sets(job)[1:]],
        "canary": (
            {
                load_trait(t).name: [
                    [at[f"{t} of {_canary(rows, seed)}"] for rows in (INTAKE, _placebo(0))]
                    for seed in range(job.config.canary)
                ]
                for t in job.traits
            }
            if job.config.canary
            else {}
        ),
        "fitted": [at[f"vector of {name}"] for name in _sets(job)] if job.config.fit else [],
        "odds": told(INTAKE),
        "aimed": aimed(INTAKE, INTAKE),
        "reference_odds": beside if REFERENCE in tries else {},
        "nulls": nulls(INTAKE),
        "planted": planted,
    }
