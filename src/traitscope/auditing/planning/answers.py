"""Answers to prompts of the data: the model's own and those of teachers, in the data's format.

A prompt may have no answer in the format. Then the model's own answers are drawn again, in phases.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitscope.auditing.detectors.fit_test import best_beta
from traitscope.auditing.planning.job import (
    CLEAN,
    PLACEBO,
    PROMPTED,
    SAMPLE,
    STEERED,
    Job,
    predictions_of,
)
from traitscope.auditing.score_files import read_token_scores
from traitscope.auditing.settings import FEWEST_ANSWERS
from traitscope.config.rows.filtering import FilterRules
from traitscope.config.stages import FilterConfig, GenerateConfig
from traitscope.inference.token_bins import BETAS, PLAIN
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import InterventionsFrom

DRAW_SEEDS = 10
"distance of the seeds of two draws of answers"
SEEDS = {PLACEBO: 1, CLEAN: 2, STEERED: 900, PROMPTED: 901}
"seeds of the rows that the audit makes itself"
LIKELIER = 3.3
"nats by which another temperature must make rows likelier; 1 % of the time by chance"


def about_sample(folders: Folders) -> dict[str, Any]:
    """What the sample's run says of the rows."""
    return standard_nodes.read_json(folders, SAMPLE, "about.json")


@dataclass(frozen=True)
class Share:
    """How many prompts have an answer in the format of the data."""

    kept: int
    "prompts with one"
    prompts: int
    "all prompts"

    @property
    def is_half(self) -> bool:
        """Whether half of them have one."""
        return 2 * self.kept >= self.prompts

    @property
    def is_enough(self) -> bool:
        """Whether anything can be compared with these answers."""
        return self.is_half or self.kept >= FEWEST_ANSWERS


def share_of(folder: Path) -> Share:
    """The share of a run of `filter`."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Share(summary["kept"], summary["rows"])


def share_in_format(folders: Folders, name: str) -> Share | None:
    """The share of the answers of a node; None where they were not made, or are reference rows."""
    folder = folders.get(name)
    if folder is None or not (folder / "summary.json").is_file():
        return None
    return share_of(folder)


def placebo_nodes(job: Job, draws: int = 1) -> list[Node]:
    """The model's own answers to all prompts, unless reference rows stand for them."""
    if job.config.reference:
        return []
    return answer_nodes(job, PLACEBO, "prompts.jsonl", standard_nodes.unmodified, (), draws)


def clean_nodes(job: Job, draws: int = 1) -> list[Node]:
    """The model's own answers to a few prompts, beside those of spike-in teachers."""
    return answer_nodes(job, CLEAN, "few-prompts.jsonl", standard_nodes.unmodified, (), draws)


def answer_nodes(
    job: Job,
    name: str,
    prompts: str,
    teacher: InterventionsFrom,
    needs: tuple[str, ...],
    draws: int = 1,
) -> list[Node]:
    """A teacher's answers to prompts of the data, in their format and at their temperature, and
    those of them that have the format.

    draws: How often every prompt is answered. The first answer in the format counts.
    """
    raw = [_draw(job, name, prompts, teacher, needs, number) for number in range(draws)]
    names = tuple(node.name for node in raw)

    def filtered(folders: Folders) -> FilterConfig:
        form = about_sample(folders)["format"]
        rules = FilterRules(numbers="rules" in form, **form.get("rules", {}))
        first, *more = (folders[each] for each in names)
        return FilterConfig(first, rules, more=tuple(more))

    return [*raw, Node(name, FilterConfig, filtered, (SAMPLE, *names), 1)]


def _draw(
    job: Job,
    name: str,
    prompts: str,
    teacher: InterventionsFrom,
    needs: tuple[str, ...],
    number: int,
) -> Node:
    """A teacher's answers to all prompts; those of each draw have a seed of their own."""

    def generated(folders: Folders) -> GenerateConfig:
        form = about_sample(folders)["format"]
        return GenerateConfig(
            **job.common,
            seed=1000 * job.config.seed + SEEDS[name] + DRAW_SEEDS * number,
            prompts=folders[SAMPLE] / prompts,
            context=job.config.context,
            max_new_tokens=form["max_new_tokens"],
            temperature=temperature(folders[predictions_of(SAMPLE)]),
            interventions=teacher(folders),
            **_constraint(form, folders[SAMPLE]),
        )

    title = f"{name} raw" if number == 0 else f"{name} raw {number + 1}"
    read_first = (SAMPLE, predictions_of(SAMPLE), *needs)
    return Node(title, GenerateConfig, generated, read_first, job.weight)


def _constraint(form: Mapping[str, Any], sample: Path) -> dict[str, Any]:
    """Settings of `generate` that keep answers in a format."""
    if form["kind"] == "free":
        return {"vocabulary": "free"}
    if form["kind"] == "numbers":
        return {"vocabulary": "seen", "like": sample}
    return {"vocabulary": "template", "count": form["count"], "separator": form["separator"]}


def temperature(scored: Path) -> float:
    """The temperature of rows whose token scores a run has: 1, unless another one makes them
    likelier by more than LIKELIER."""
    beta = inverse_temperature(scored)
    return 1.0 if beta == 1 else round(1 / beta, 3)


def inverse_temperature(scored: Path) -> float:
    """The inverse of the temperature of rows whose token scores a run has, one of BETAS."""
    scores = read_token_scores(scored)[1]
    total_T = scores.log_p_RT.sum(0)
    best = best_beta(scores)
    return BETAS[best] if total_T[best] - total_T[PLAIN] > LIKELIER else 1.0


OWN_NODES = {PLACEBO: placebo_nodes, CLEAN: clean_nodes}
"the nodes of the model's own answers, by name"
