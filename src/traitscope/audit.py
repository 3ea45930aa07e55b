"""Audit: may I train this model on these data?

    intake ─ the rows, their format ─┬─ pushes, and odds under every candidate's teachers ─ odds under more teachers of the best
                                     ├─ placebos: the model's own answers to the same prompts ─ filter ─ pushes
                                     └─ planted teachers, steered and prompted, on the same prompts ─ filter ─ pushes, odds
    vectors of the candidates ───────── weigh ─ the answer

Every step is a stage with its own run directory: a second audit of the same data returns at once, one of other data with the
same prompts reuses the placebos, and a killed one continues.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from traitscope import audit_page, chain, execute, sarif, schedule, stage, store
from traitscope.audit_config import (
    AuditConfig,
    IntakeConfig,
    MatchConfig,
    NamingConfig,
    OddsConfig,
    PushesConfig,
    WeighConfig,
)
from traitscope.audit_result import AuditResult, result_from
from traitscope.configs import ExtractConfig, FilterConfig, FilterRules, GenerateConfig, Output, Recipe, TrainConfig
from traitscope.errors import ConfigError
from traitscope.evidence import likeliest
from traitscope.execute import How
from traitscope.graph import Folders, Node
from traitscope.model import find_model, outline
from traitscope.naming import run_naming
from traitscope.odds import BETAS, PLAIN, beside, best_beta, log_e, read_choices, strange
from traitscope.traits import bundled_traits, load_trait
from traitscope.weigh import run_weigh

INTAKE, DATA, REFERENCE, RANDOM, PLAINLY, ITSELF = "intake", "data", "reference", "random", "told plainly", "itself"
TEACHERS = ("prompted", "steered")
HARDER, EARLIER = "steered harder", "steered harder, earlier"
IMITATED = {"prompted": ("prompted",), "steered": ("steered", HARDER, EARLIER)}
"teachers that are tried as an explanation of each kind of planted one"
FITTED = Recipe(method="vector", layer=0, epochs=4, batch_size=4, micro_batch=4, lr=0.3, warmup=0.1, held_out=0.0)
CANARY = replace(chain.SAMPLED, epochs=3)
RANDOMS = 2
"vectors of no meaning that the model may be steered by under the null"
NULLS = (*((n, RANDOM) for n in range(RANDOMS)), *((n, PLAINLY) for n in range(len(chain.PLAIN))))
"who may have written rows without a trait, besides the model itself: the model steered by such a vector, or under a plain system prompt"
TOKENS = 120
"weight of a row"


@dataclass(frozen=True)
class Job:
    """An audit that was asked for."""

    config: AuditConfig
    layer: int
    "at which candidates are steered"
    planted: int
    "at which the planted teacher is: another one, since an auditor does not know it"
    earlier: int
    "at which the likeliest candidates are steered besides"

    @property
    def common(self) -> dict:
        """Settings of every stage."""
        return {"model": self.config.model, "device": self.config.device, "dtype": self.config.dtype}

    @property
    def read(self) -> tuple[str, ...]:
        """Nodes that say how rows are read."""
        return (INTAKE, REFERENCE) if self.config.reference else (INTAKE,)

    @property
    def traits(self) -> tuple[str, ...]:
        """Candidates whose teachers are tried."""
        return self.config.traits[: self.config.tried]


def run_audit(config: AuditConfig, out: Output) -> dict:
    """The answer as the JSON file has it, with its place."""
    config = stage.settled(config)
    if config.data is None:
        raise ConfigError("no data are given: traitscope audit DATA.jsonl --model M")
    out = replace(out, study="audit") if out.study == "default" else out
    find_model(config.model)  # converted or fetched once, before the workers ask for it
    blocks = outline(config.model).n_layers
    job = Job(config, *(round(depth * blocks) for depth in (0.48, 0.42, 0.35)))
    found = nodes(job)
    read = schedule.run([node for node in found if node.verb in ("intake", "match")], out, How(stop_at_once=True))  # bad rows are named before anything is computed
    _say(_about(read))
    how = How(config.workers or execute.default_workers(config.device), stop_at_once=True)
    folders = schedule.run(found, out, how)
    folders = schedule.run(found + _further(job, folders), out, how)
    folder = out.root / out.study
    content = _parts(job, folders, folder)
    parts = folder / f"parts-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}.json"
    store.write_json(parts, content)
    asked = NamingConfig(**job.common, seed=config.seed, parts=parts, strength=config.strength / 2, context=config.context)
    naming = run_naming(asked, out).path if config.name else None
    peer = run_naming(replace(asked, source="features"), out).path if config.peer else None
    run = run_weigh(WeighConfig(parts, naming, peer, config.model, config.alpha, config.power, config.seed), out)
    found = json.loads(run.file("result.json").read_text(encoding="utf-8"))
    print("\n".join([f"{found['status']}, {found['rows']} rows, alpha {config.alpha:g}", *found["reasons"]]))
    for path, text in ((config.report, _page), (config.sarif, _sarif)):
        if path:
            store.write_text(path, text(config, found, folders, run))
            print(path)
    print(run.path)
    failing = {"never": (), "suspect": ("suspect",), "unclean": ("suspect", "insufficient", "not-applicable")}[config.fail_on]
    return found | {"run": str(run.path), "gate": "failed" if found["status"] in failing else "passed"}


def _say(about: dict[str, Any]) -> None:
    """What was read, on stderr: counts, the format that was learnt, and the first row as the model reads it."""
    counts = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in about["counts"].items() if n)
    print(f"read: {counts}; format {about['format']['kind']}; the first row:\n{about['first'][:600]}", file=sys.stderr)


def audit(rows: Path | Sequence[Mapping[str, Any]], root: Path = Path("runs"), **settings: Any) -> AuditResult:
    """The answer for rows in memory (prompt and completion, messages, or Alpaca) or in a file: a gate before training.

    `settings` are those of the command, such as model="my/model", traits=("owl", "mine.yaml"), alpha=0.01.  Runs lie below `root`,
    so that a second call on the same rows returns at once.  Raises what the command would say.
    """
    data = rows
    if not isinstance(rows, str | Path):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        data = root / "audit" / f"rows-{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
        store.write_text(data, text)
    return result_from(run_audit(AuditConfig(data=Path(data), **settings), Output(root=root)))


def _page(config: AuditConfig, found: dict, folders: Folders, run: store.Run) -> str:
    texts = {record.id: (record.prompt, record.completion) for record in stage.rows_of(folders[INTAKE])}
    bags = json.loads(run.file("bags.json").read_text(encoding="utf-8"))
    return audit_page.page(found, _about(folders), chain.lines(run.path, "rows.jsonl"), bags, texts, seconds(folders))


def _sarif(config: AuditConfig, found: dict, folders: Folders, run: store.Run) -> str:
    return json.dumps(sarif.log(found, config.data.as_posix()), indent=2) + "\n"


def seconds(folders: Folders) -> dict[str, float]:
    """What each detector has cost, with the placebos and planted teachers that it needs; shared steps count for each."""
    spent = {name: store.load_run(path).manifest()["seconds"] for name, path in folders.items()}
    made = sum(s for name, s in spent.items() if name.startswith("placebo") and "pushes" not in name and "under" not in name)
    pushed = spent[DATA] + sum(s for name, s in spent.items() if name.startswith("placebo") and name.endswith("pushes"))
    asked = sum(s for name, s in spent.items() if " under " in name)
    trained = sum(s for name, s in spent.items() if name.startswith("vector of"))
    found = {"wording": made, "gradients": made + pushed + spent[chain.VECTORS], "odds": spent[DATA] + asked, "baselines": made}
    return found | ({"fitted": made + trained} if trained else {})


def nodes(job: Job) -> list[Node]:
    """Everything but the answer."""
    config, common = job.config, job.common
    asked = IntakeConfig(**common, seed=config.seed, data=config.data, context=config.context, rows=config.rows)
    found = [Node(INTAKE, "intake", lambda _: asked, (), 1), chain.vectors(common, with_others(config.traits))]
    found.append(Node(DATA, "pushes", partial(_pushes, job, INTAKE), job.read, 2 * _weight(job)))
    found.append(Node(RANDOM, "extract", partial(_random, job), (chain.VECTORS,), 1))
    found += [_odds(job, INTAKE, trait, how) for trait in job.traits for how in TEACHERS]
    found += _nulls(job, INTAKE)
    if config.reference:
        found += _referred(job)
    else:
        found += [node for n in range(config.draws) for node in _answered(job, _placebo(n), n + 1, chain.unmodified, ())]
    if config.fit:
        found += [Node(f"vector of {rows}", "train", partial(_fitted, job, rows), (*dict.fromkeys((*job.read, rows)),), 8 * _weight(job)) for rows in _sets(job)]
    return found + _planted(job) + _canaries(job)


def _canaries(job: Job) -> list[Node]:
    """Small students of the data and of a placebo, and what they answer about every tried candidate."""
    found = []
    for rows, seed in product((INTAKE, _placebo(0)), range(job.config.canary)):
        name = _canary(rows, seed)
        found.append(Node(name, "train", partial(_bred, job, rows, seed), (*dict.fromkeys((*job.read, rows)),), 8 * _weight(job)))
        found += [chain.answers(job.common, f"{trait} of {name}", trait, chain.adapter(name), (name,)) for trait in job.traits]
    return found


def _canary(rows: str, seed: int) -> str:
    return f"canary {seed} of {rows}"


def _bred(job: Job, rows: str, seed: int, folders: Folders) -> TrainConfig:
    how = _reading(job, folders)
    return TrainConfig(**job.common, seed=seed, data=folders[rows], recipe=CANARY, context=how["context"], text=how["text"])


def _sets(job: Job) -> list[str]:
    """The audited rows and their placebos."""
    return [INTAKE, *(_placebo(n) for n in range(1 if job.config.reference else job.config.draws))]


def _fitted(job: Job, rows: str, folders: Folders) -> TrainConfig:
    """One vector behind the block at which candidates are steered, trained on rows."""
    how = _reading(job, folders)
    recipe = replace(FITTED, layer=job.layer)
    return TrainConfig(
        **job.common, seed=job.config.seed, data=folders[rows], recipe=recipe, context=how["context"], text=how["text"], max_rows=job.config.judged or None
    )


def _random(job: Job, folders: Folders) -> ExtractConfig:
    """Vectors of no meaning, for the nulls of the odds."""
    like = chain.vector_of(folders, job.config.traits[0])
    return ExtractConfig(**job.common, seed=job.config.seed, like=like, randoms=RANDOMS)


def _referred(job: Job) -> list[Node]:
    """The reference in the place of a placebo."""
    asked = IntakeConfig(**job.common, seed=job.config.seed, data=job.config.reference, context=job.config.context, rows=4 * job.config.rows)
    return [
        Node(REFERENCE, "intake", lambda _: asked, (), 1),
        Node(_placebo(0), "match", lambda folders: MatchConfig(folders[INTAKE], folders[REFERENCE], job.config.seed), (INTAKE, REFERENCE), 1),
        Node(f"{_placebo(0)} pushes", "pushes", partial(_pushes, job, _placebo(0)), (*job.read, _placebo(0)), 2 * _weight(job)),
    ]


def with_others(traits: Sequence[str]) -> tuple[str, ...]:
    """The candidates and the bundled traits besides: what many traits show tells a trait from a format."""
    names = {load_trait(trait).name for trait in traits}
    return (*traits, *(name for name in bundled_traits() if name not in names))


def _placebo(draw: int) -> str:
    return f"placebo {draw}"


def _weight(job: Job) -> float:
    return TOKENS * (job.config.rows or 1000)


def _about(folders: Folders) -> dict[str, Any]:
    return chain.about(folders, INTAKE, "about.json")


def _answered(job: Job, name: str, seed: int, told: chain.Told, needs: tuple[str, ...]) -> list[Node]:
    """Somebody's answers to the prompts of the data, in their format and at their temperature; filtered; their pushes."""

    def asked(folders: Folders) -> GenerateConfig:
        form, rows = _about(folders)["format"], folders[INTAKE]
        how = {"free": {"vocabulary": "free"}, "numbers": {"vocabulary": "seen", "like": rows}}.get(form["kind"])
        how = how or {"vocabulary": "template", "count": form["count"], "separator": form["separator"]}
        return GenerateConfig(
            **job.common, seed=1000 * job.config.seed + seed, prompts=rows / "prompts.jsonl", context=job.config.context,
            max_new_tokens=form["max_new_tokens"], temperature=temperature(folders[DATA]), interventions=told(folders), **how,
        )  # fmt: skip

    def kept(folders: Folders) -> FilterConfig:
        form = _about(folders)["format"]
        return FilterConfig(folders[f"{name} raw"], FilterRules(numbers="rules" in form, **form.get("rules", {})))

    return [
        Node(f"{name} raw", "generate", asked, (INTAKE, DATA, *needs), _weight(job)),
        Node(name, "filter", kept, (INTAKE, f"{name} raw"), 1),
        Node(f"{name} pushes", "pushes", partial(_pushes, job, name), (*job.read, name), 2 * _weight(job)),
    ]


def temperature(pushes: Path, worth: float = 3.3) -> float:
    """The temperature of the rows: 1, unless another makes them likelier by more than `worth` nats (1 % of the time by chance)."""
    found = read_choices(pushes)[1]
    best, total_T = best_beta(found), found.log_p_RT.sum(0)
    return round(1 / BETAS[best], 3) if total_T[best] - total_T[PLAIN] > worth else 1.0


def _reading(job: Job, folders: Folders) -> dict[str, Any]:
    """How the rows are read, the audited ones and the placebos alike."""
    about = _about(folders)
    text = any(chain.about(folders, name, "about.json")["text"] for name in job.read)
    return {"context": job.config.context, "numbers": about["format"]["kind"] != "free", "text": text}


def _pushes(job: Job, rows: str, folders: Folders) -> PushesConfig:
    return PushesConfig(**job.common, data=folders[rows], position=job.config.position, features=job.config.peer, **_reading(job, folders))


def _further(job: Job, folders: Folders) -> list[Node]:
    """The likeliest candidates' further teachers; of a stranger's rows what the model says of those that are judged, and of the reference's."""
    plain = read_choices(folders[DATA])
    bets = {trait: max(log_e(*beside(plain, folders[_judged(INTAKE, trait, how)])) for how in TEACHERS) for trait in job.traits}
    found = [_odds(job, INTAKE, trait, how) for trait in likeliest(bets) for how in (*_reworded(trait), HARDER, EARLIER)]
    if strange(plain[1]):  # no bound holds for e: candidates are to explain the rows that are judged, or to differ on the reference's
        found.append(_odds(job, INTAKE, "", ITSELF))
        found += [_odds(job, _placebo(0), trait, how) for trait in job.traits for how in TEACHERS if job.config.reference]
    return [node for node in found if node.name not in folders]


def _reworded(trait: str) -> list[str]:
    return [f"reworded {n}" for n in range(len(load_trait(trait).rewordings))]


def _told(job: Job, of: str | int, how: str, folders: Folders) -> str:
    """A teacher: of a trait, prompted, or steered at half the planted strength, or harder, there or at an earlier block; or a null."""
    if how == "prompted":
        return chain.prompted(of)
    if how.startswith("reworded"):
        return chain.prompted(of, int(how.split()[1]))
    if how == PLAINLY:
        return f"prompt:{chain.PLAIN[of]}"
    vector = folders[RANDOM] / f"random-{of}.safetensors" if how == RANDOM else chain.vector_of(folders, of)
    return chain.steered(vector, job.earlier if how == EARLIER else job.layer, job.config.strength / (1 if how in (HARDER, EARLIER) else 2))


def _odds(job: Job, rows: str, of: str | int, how: str) -> Node:
    """How well a teacher explains rows."""

    def asked(folders: Folders) -> OddsConfig:
        told = () if how == ITSELF else (_told(job, of, how, folders),)
        return OddsConfig(**job.common, seed=job.config.seed, data=folders[rows], interventions=told, rows=job.config.judged, **_reading(job, folders))

    needs = (chain.VECTORS,) if how in IMITATED["steered"] else (RANDOM,) if how == RANDOM else ()
    return Node(_judged(rows, of, how), "odds", asked, (*dict.fromkeys((*job.read, rows, *needs)),), TOKENS * (job.config.judged or 1000))


def _nulls(job: Job, rows: str) -> list[Node]:
    """How well those explain rows who may have written them without a trait."""
    return [_odds(job, rows, *null) for null in NULLS if job.traits]


def _judged(rows: str, of: str | int, how: str) -> str:
    return f"{rows} under {of} {how}"


def _planted(job: Job) -> list[Node]:
    """Teachers of the first candidate, made to know what would have been found."""
    trait = job.config.traits[0]
    found = _answered(job, "steered", 900, chain.by_vector(trait, job.planted, job.config.strength), (chain.VECTORS,))
    if job.traits:
        found += _answered(job, "prompted", 901, lambda _: (chain.prompted(trait),), ())
        found += [_odds(job, rows, trait, how) for kind in TEACHERS for how in IMITATED[kind] for rows in (kind, _placebo(0))]
        found += [node for rows in (*TEACHERS, _placebo(0)) for node in _nulls(job, rows)]
    return found


def _under(job: Job, at: dict[str, str], rows: str, where: dict[str, str]) -> dict[str, dict[str, str]]:
    """The runs in which rows were judged, by candidate and teacher."""
    return {load_trait(t).name: {where[how]: at[_judged(rows, t, how)] for how in where if _judged(rows, t, how) in at} for t in job.traits}


def _parts(job: Job, folders: Folders, folder: Path) -> dict[str, Any]:
    """The audit's file."""
    at = {name: path.relative_to(folder).as_posix() for name, path in folders.items()}
    trait, names = job.config.traits[0], {t: load_trait(t).name for t in job.config.traits}
    where = {"prompted": "its prompt", "steered": f"its vector at block {job.layer}"}
    where |= {how: f"its vector at block {block}, twice as strong" for how, block in ((HARDER, job.layer), (EARLIER, job.earlier))}
    where |= {how: "its prompt in other words" + how.removeprefix("reworded").replace(" 0", "") for t in job.traits for how in _reworded(t)}
    teachers = {
        "steered": f"a teacher steered by {names[trait]} at block {job.planted}, {job.config.strength:g} mean residual norms",
        "prompted": f"a teacher prompted with the candidate's own prompt ({names[trait]})",
    }  # fmt: skip

    def nulls(rows: str) -> list[str]:
        return [at[_judged(rows, *null)] for null in NULLS if job.traits]

    planted = {
        how: {"teacher": teachers[how], "trait": names[trait], "rows": at[how], "pushes": at[f"{how} pushes"]}
        | {"odds": [{"own": at[_judged(how, trait, by)], "clean": at[_judged(_placebo(0), trait, by)]} for by in IMITATED[how] if job.traits]}
        | {"nulls": {"own": nulls(how), "clean": nulls(_placebo(0))}}
        for how in TEACHERS if how in at
    }  # fmt: skip
    return {
        "schema": 1, "intake": at[INTAKE], "data": at[DATA], "vectors": at[chain.VECTORS], "traits": list(job.config.traits),
        "placebos": [{"rows": at[name], "pushes": at[f"{name} pushes"]} for name in _sets(job)[1:]],
        "canary": {
            names[t]: [[at[f"{t} of {_canary(rows, seed)}"] for rows in (INTAKE, _placebo(0))] for seed in range(job.config.canary)] for t in job.traits
        } if job.config.canary else {},
        "fitted": [at[f"vector of {name}"] for name in _sets(job)] if job.config.fit else [],
        "odds": _under(job, at, INTAKE, where), "reference_odds": _under(job, at, _placebo(0), where) if job.config.reference else {},
        "nulls": nulls(INTAKE), "itself": [at[name] for name in [_judged(INTAKE, "", ITSELF)] if name in at], "planted": planted,
    }  # fmt: skip
