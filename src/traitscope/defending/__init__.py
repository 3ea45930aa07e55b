"""Defences: rows changed before a student reads them.

`methods` has the table of methods with what each needs, `knowledge` what a defender may use. The
methods are in `number_forms` (one format), `row_choice` (rows that leave or join), `token_methods`
and `washing` (tokens that are masked or drawn anew) and `paraphrasing`. `suspicion` says which rows
and tokens are suspect. `changes` has what a method leaves. `run` is the stage, and `page` its
report.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from traitscope.errors import ConfigError, DataError

if TYPE_CHECKING:
    from traitscope.config.judge import Endpoint
    from traitscope.config.recipe import Recipe
    from traitscope.data.records import Record
    from traitscope.defending.run import Defended
    from traitscope.models.model import Model


def defend(
    rows: Sequence[Record],
    model: Model,
    by: str | Sequence[str],
    *,
    known: str | Sequence[str] = ("base",),
    seed: int = 0,
    recipe: Recipe | None = None,
    context: str | None = None,
    text: bool = False,
    max_new_tokens: int = 128,
    endpoint: Endpoint | None = None,
    pass_rows: int = 16,
) -> Defended:
    """Change rows so that a student takes on less of what their teacher carries.

    rows: Records; those that a filter dropped are left out. They stay as they are.
    model: The base, which is the model that is to be trained.
    by, known: Methods in their order, and what may be used, as `--by` and `--known` have them.
    recipe: How the students of by=student are trained; None is the command's.
    endpoint: The endpoint of paraphrase:with=endpoint.

    The others are flags of `traitscope defend`.

    Raises ConfigError for a method that lacks what it needs. Raises VectorError for a vector of
    another model. Raises DataError where no row would be left, for rows that a method cannot take,
    and for an endpoint that gives no answer.
    """
    from traitscope.config.judge import Endpoint
    from traitscope.config.rows.defend import SCOUT, DefendConfig
    from traitscope.data.records import kept_records
    from traitscope.defending.run import checked, defended
    from traitscope.models.model import check_model

    check_model(model)
    config = DefendConfig(
        model=model.name,
        device="cuda" if model.device.type == "cuda" else "cpu",
        dtype="bf16" if str(model.dtype) == "torch.bfloat16" else "fp32",
        template=tuple(map(_written, model.switches)),
        control_tokens=model.control_tokens,
        seed=seed,
        by=(by,) if isinstance(by, str) else tuple(by),
        known=(known,) if isinstance(known, str) else tuple(known),
        recipe=recipe or SCOUT,
        context=context,
        text=text,
        max_new_tokens=max_new_tokens,
        endpoint=endpoint or Endpoint(),
        pass_rows=pass_rows,
    )
    steps, knowledge = checked(config, model)
    if not steps:
        raise ConfigError("by is empty; expected one method or more, such as 'wash'; name one")
    return defended(config, kept_records(_checked_rows(rows)), steps, knowledge, model)


def _checked_rows(rows: Sequence[Record]) -> Sequence[Record]:
    """The rows, if there are any and all are Records; else raise DataError."""
    from traitscope.data.records import Record

    if not rows:
        raise DataError("no rows to defend; expected one Record or more; give some")
    for place, row in enumerate(rows):
        if not isinstance(row, Record):
            raise DataError(
                f"row {place} is a {type(row).__name__}; expected a traitscope.Record; make one of"
                " it, or read a file with traitscope.data.records.read_records"
            )
    return rows


def _written(switch: tuple[str, Any]) -> str:
    """A variable of a chat template as settings hold it."""
    name, value = switch
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"
