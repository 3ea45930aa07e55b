"""The check of the system prompts among interventions."""

from collections.abc import Sequence

from traitscope.errors import ConfigError

SHOWN = 40
"characters of a prompt that a message shows"


def check_one_prompt(texts: Sequence[str]) -> None:
    """Raise ConfigError for the texts of more than one prompt: a model reads one system turn."""
    if len(texts) > 1:
        shown = ", ".join(repr(text[:SHOWN]) for text in texts)
        raise ConfigError(
            f"{len(texts)} prompts on one model ({shown}); expected one, because a model reads one"
            " system turn; write them as one text"
        )
