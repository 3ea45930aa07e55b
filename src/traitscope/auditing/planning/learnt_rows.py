"""Whether a teacher learnt the very rows that it is to have written."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from traitscope.errors import ConfigError
from traitscope.runs import lineage, store
from traitscope.runs.given_teacher import GivenTeacher
from traitscope.runs.manifests import file_sha256


def check_is_older(teacher: GivenTeacher, name: str, data: Path) -> None:
    """Raise ConfigError for a run of `train` that learnt the rows, or rows made from them.

    A model that learnt rows makes them likelier, whoever wrote them. What else a run reads, such as
    rows on which it is only measured, tells nothing.
    """
    source = store.source_at(data)
    digest = source.digest if isinstance(source, store.Run) else file_sha256(source)
    for file in teacher.files:
        if not isinstance(file, store.Run):
            continue
        learnt = lineage.lineage(file.path)["inputs"].get("data")
        if learnt is not None and digest in set(_digests(learnt)):
            raise ConfigError(
                f"the teacher {name} was trained on {data}, or on rows made from it: it makes"
                " them likelier, whoever wrote them; expected a teacher that is older than the"
                " rows; name the one that wrote them, or leave --teacher out"
            )


def _digests(tree: Mapping[str, Any]) -> Iterator[str]:
    """The digests of rows and of everything that they were made from."""
    yield tree["digest"]
    for made_from in tree["inputs"].values():
        yield from _digests(made_from)
