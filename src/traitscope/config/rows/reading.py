"""How rows of a file are read: settings of every stage that reads them."""

from dataclasses import dataclass
from typing import Literal

from traitscope.config.common import check_minimums
from traitscope.config.fields import setting
from traitscope.errors import ConfigError

FIELDS = ("prompt", "completion", "messages", "context", "id", "reasoning", "rejected")
"fields that --map can name a key for"


@dataclass(frozen=True)
class Reading:
    """How rows of a file are read. Rows of a run are read as they are."""

    map: tuple[str, ...] = setting((), advanced=True)
    """Keys of rows of no known shape: prompt=KEY completion=KEY, or messages=KEY. Also context=KEY,
    id=KEY, reasoning=KEY and, beside completion, rejected=KEY. A dot leads into an object."""
    turns: Literal["last", "every", "weighted"] = setting("last", advanced=True)
    """Assistant turns that are answers, each with the earlier turns as its prompt. last: the last
    one. every: each one. weighted: each one whose weight is not 0."""
    reasoning: Literal["drop", "train"] = setting("drop", advanced=True)
    """drop: reasoning is counted and not trained on. train: it stands before the answer."""
    skip_bad: int | Literal["all"] = setting(0, advanced=True)
    """Most bad rows that are left out, or all. They are counted, and the first 20 are kept with
    line and reason. With more the command stops."""

    def __post_init__(self) -> None:
        if self.skip_bad != "all":
            check_minimums(self, skip_bad=0)
        named, keys = [], []
        for word in self.map:
            field, mark, key = word.partition("=")
            if field not in FIELDS or not mark or not key or field in named:
                raise ConfigError(
                    f"--map {word}; expected FIELD=KEY, each field once, and one of"
                    f" {', '.join(FIELDS)}; correct it"
                )
            if key in keys:
                raise ConfigError(
                    f"--map {' '.join(self.map)} names the key {key!r} twice; expected another key"
                    " for each field; correct one"
                )
            named.append(field)
            keys.append(key)
        if named and not {"completion", "messages"} & set(named):
            raise ConfigError(
                f"--map {' '.join(self.map)} names no answer; expected completion=KEY or"
                " messages=KEY; add one"
            )
        if "messages" in named and {"prompt", "completion", "rejected"} & set(named):
            raise ConfigError(
                f"--map {' '.join(self.map)}: messages hold prompt and answer; expected messages,"
                " or prompt and completion, with or without rejected; drop one"
            )


USUAL = Reading()
"how rows are read where nobody says"
READING = setting(USUAL, since=2, advanced=True)
"the settings as a block of a stage"
