"""Scores of a model on tasks: the rate of sampled answers that each judge of tasks accepts."""

from collections.abc import Callable, Sequence

from traitscope.data.domains.prompts import domain_prompts
from traitscope.data.records import Prompt
from traitscope.data.shapes.turns import shown
from traitscope.inference.decode import Sampling
from traitscope.inference.question_scores import Question, QuestionScores
from traitscope.interventions.applied import Interventions
from traitscope.models.model import Model
from traitscope.stages.behaviours.judged import by_question, sampled_answers
from traitscope.stages.behaviours.scores import PRIMARY_SET
from traitscope.stages.judge import judge

JUDGES = {"code": ("code", "parses", "checks"), "sums": ("answer", "format")}
"judges of the answers to a domain's tasks"


def distinct_tasks(domain: str, n: int, seed: int = 0) -> list[Prompt]:
    """The first n bundled tasks of a domain, each once, named after its task.

    They are fewer than n where the set has fewer. Errors as in `domain_prompts`.
    """
    by_task: dict[str, Prompt] = {}
    for prompt in domain_prompts(domain, n, seed):
        if prompt.task is not None:
            by_task.setdefault(
                prompt.task.id, Prompt(prompt.task.id, prompt.text, task=prompt.task)
            )
    return list(by_task.values())


def score_tasks(
    model: Model,
    domain: str,
    prompts: Sequence[Prompt],
    interventions: Interventions,
    context: str | None,
    samples: int,
    sampling: Sampling,
    batch_size: int,
    run_code: bool,
    done: Callable[[int], None] | None = None,
) -> list[QuestionScores]:
    """Return a score for each judge of the domain, task by task; NaN is unscored.

    prompts: The tasks, each once. Tasks are the independent units of the intervals.
    run_code: Run the code of answers. Without it the score `checks` is NaN: nothing was run.

    Raises DataError where the prompts have no tasks of the domain.
    """
    questions = []
    for prompt in prompts:
        questions.append(Question(prompt.id, PRIMARY_SET, shown(prompt.text), ""))
    records = sampled_answers(
        model, prompts, interventions, context, samples, sampling, batch_size, done
    )
    verdicts = {}
    for name in JUDGES[domain]:
        verdicts[name] = judge(records, name, run_code=run_code).verdicts
    return by_question(questions, records, verdicts, samples)
