"""Which part of the chat each token of a prompt belongs to, worked out from the token ids alone.

The template is rendered once with marks for the two contents, which gives the text around them; a
prompt is taken apart by that text. A token is of a content if it lies wholly inside it; one that
straddles a border is of the template, as in the reference code of Nief et al. (arXiv 2606.00831).
What follows the template's end (an answer's stem, a completion) is of none of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from traitscope.errors import ConfigError, ModelError
from traitscope.models import chat
from traitscope.models.model import Model

PARTS = ("all", "system", "user", "template", "prompt")
TEXT = "text:"
"before a substring: every token that overlaps one of its occurrences in the prompt"
SYSTEM, USER = "<<the system's content>>", "<<the user's content>>"
Gate = Callable[[Sequence[int]], list[bool]]
"from the token ids of a row, from its start, to which of them are chosen"


@dataclass(frozen=True)
class Frame:
    """The text that a chat template puts around its contents."""

    before_system: str | None
    "None where there is no system turn"
    between: str
    "from the end of the system's content to the start of the user's"
    before_user: str
    "of a prompt without a system turn"
    end: str
    "from the end of the user's content to the start of the answer"


Span = tuple[int, int]


@dataclass(frozen=True)
class Parts:
    """Character spans of a rendered prompt."""

    system: Span
    user: Span
    end: int
    "where the answer begins"


def check(where: str) -> None:
    """Raise ConfigError for a part of a prompt that is none of PARTS nor text:SUBSTRING."""
    if where not in PARTS and not (where.startswith(TEXT) and len(where) > len(TEXT)):
        raise ConfigError(
            f"where={where!r} is no part of a prompt; expected {', '.join(PARTS)} or"
            f" {TEXT}SUBSTRING"
        )


def gate(model: Model, where: str) -> Gate:
    """The function that tells which tokens of a row, given from its start, are at `where`.

    all: every token, of the completion, too. prompt: every token before the answer. system and
    user: their contents. template: the prompt's other tokens. Of a row that the chat template did
    not render only `all` chooses tokens. The function raises ConfigError for a prompt that the text
    is not in.
    """
    check(where)
    if where == "all":
        return lambda ids: [True] * len(ids)
    return partial(_chosen, model, frame(model), where)


def frame(model: Model) -> Frame:
    """How the model's template frames a system and a user turn. Raises ModelError for a model
    without a template."""
    plain = chat.render_text(model, USER, None)
    before_user, _, end = plain.partition(USER)
    try:
        full = chat.render_text(model, USER, SYSTEM)
    except ModelError:  # some templates refuse a system turn
        return Frame(None, "", before_user, end)
    before_system, _, rest = full.partition(SYSTEM)
    return Frame(before_system, rest.partition(USER)[0], before_user, end)


def parts(frame: Frame, text: str) -> Parts | None:
    """The spans of a prompt's contents; None for a text that the template did not render."""
    system, user = (0, 0), None
    if frame.before_system is not None and text.startswith(frame.before_system):
        start = len(frame.before_system)
        if (stop := text.find(frame.between, start)) >= 0:
            system, user = (start, stop), stop + len(frame.between)
    if user is None and text.startswith(frame.before_user):
        user = len(frame.before_user)
    stop = -1 if user is None else text.find(frame.end, user)
    return None if stop < 0 else Parts(system, (user, stop), stop + len(frame.end))


def spans(model: Model, ids: Sequence[int]) -> tuple[str, list[Span]]:
    """The text of some tokens and the characters of each; tokens inside one character share it."""
    texts = [
        model.tokenizer.decode(ids[:n], clean_up_tokenization_spaces=False)
        for n in range(len(ids) + 1)
    ]
    whole = texts[-1]
    ends = [min(len(t.rstrip("\ufffd")), len(whole)) for t in texts]
    return whole, [(a, max(b, a + 1)) for a, b in pairwise(ends)]


def _chosen(model: Model, frame: Frame, where: str, ids: Sequence[int]) -> list[bool]:
    text, places = spans(model, ids)
    found = parts(frame, text)
    if found is None:
        return [False] * len(ids)
    prompt = [b <= found.end for _, b in places]
    if where == "prompt":
        return prompt
    if where.startswith(TEXT):
        return _overlapping(text[: found.end], where.removeprefix(TEXT), places)
    inside = {
        part: [a >= s and b <= e for a, b in places]
        for part, (s, e) in {"system": found.system, "user": found.user}.items()
    }
    if where == "template":
        return [
            p and not (s or u)
            for p, s, u in zip(prompt, inside["system"], inside["user"], strict=True)
        ]
    return inside[where]


def _overlapping(prompt: str, wanted: str, places: list[Span]) -> list[bool]:
    starts = [n for n in range(len(prompt)) if prompt.startswith(wanted, n)]
    if not starts:
        raise ConfigError(
            f"where={TEXT}{wanted}: that text is not in the prompt {prompt[:200]!r}; name a text of"
            " its system or user turn"
        )
    return [any(a < n + len(wanted) and b > n for n in starts) for a, b in places]
