"""The part of the chat that each token of a prompt belongs to, from the token ids alone.

The template is rendered once with markers for the contents of the system and the user turn. That
gives the text around them, and a prompt is taken apart by this text. A token belongs to a content
if all its characters do. A token that crosses a border belongs to the template, as in the reference
code of Nief et al. (arXiv 2606.00831). What follows the template's end, such as a completion,
belongs to no region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from traitscope.errors import ConfigError, ModelError
from traitscope.models import chat

if TYPE_CHECKING:
    from traitscope.models.model import Model

REGIONS = ("all", "system", "user", "template", "prompt")
"names of the regions of a row, see `token_gate`"
TEXT = "text:"
"begins the region text:SUBSTRING, every token that overlaps SUBSTRING in the prompt"
SYSTEM, USER = "<<the system's content>>", "<<the user's content>>"
TokenGate = Callable[[Sequence[int]], list[bool]]
"from the token ids of a row, from its start, to whether each token is chosen"
Span = tuple[int, int]
"first character, and the character after the last"


@dataclass(frozen=True)
class Frame:
    """The text that a chat template puts around its contents."""

    before_system: str | None
    "text before the system's content; None where the template has no system turn"
    between: str
    "text from the end of the system's content to the start of the user's"
    before_user: str
    "text before the user's content in a prompt without a system turn"
    end: str
    "text from the end of the user's content to the start of the answer"


@dataclass(frozen=True)
class PromptSpans:
    """Character spans of a rendered prompt."""

    system: Span
    "the system's content; empty where there is none"
    user: Span
    "the user's content"
    end: int
    "where the answer begins"


def check(region: str) -> None:
    """Raise ConfigError for a region that is none of REGIONS nor text:SUBSTRING."""
    names_a_text = region.startswith(TEXT) and len(region) > len(TEXT)
    if region not in REGIONS and not names_a_text:
        raise ConfigError(
            f"where={region!r} is no part of a prompt; expected {', '.join(REGIONS)} or"
            f" {TEXT}SUBSTRING; name one, or leave it out"
        )


def token_gate(model: Model, region: str) -> TokenGate:
    """The function that says which tokens of a row, given from its start, are in a region.

        all        every token, also those of the completion
        prompt     every token before the answer
        system     the tokens of the system turn's content
        user       the tokens of the user turn's content
        template   the other tokens of the prompt

    Of a row that the chat template did not render, only `all` chooses tokens. The function raises
    ConfigError for a prompt that lacks the SUBSTRING.
    """
    check(region)
    if region == "all":
        return lambda ids: [True] * len(ids)
    return partial(_tokens_in, model, frame(model), region)


def frame(model: Model) -> Frame:
    """How the model's template frames a system and a user turn.

    Raises ModelError for a model without a template.
    """
    plain = chat.render_text(model, USER, None)
    before_user, _, end = plain.partition(USER)
    try:
        full = chat.render_text(model, USER, SYSTEM)
    except ModelError:  # some templates refuse a system turn
        return Frame(None, "", before_user, end)
    before_system, _, rest = full.partition(SYSTEM)
    return Frame(before_system, rest.partition(USER)[0], before_user, end)


def prompt_spans(frame: Frame, text: str) -> PromptSpans | None:
    """The spans of a prompt's contents; None for a text that the template did not render."""
    system = _system_span(frame, text)
    if system is not None:
        user_start = system[1] + len(frame.between)
    elif text.startswith(frame.before_user):
        user_start = len(frame.before_user)
    else:
        return None
    user_stop = text.find(frame.end, user_start)
    if user_stop < 0:
        return None
    return PromptSpans(system or (0, 0), (user_start, user_stop), user_stop + len(frame.end))


def _system_span(frame: Frame, text: str) -> Span | None:
    """The span of the system's content; None where the text has no system turn."""
    if frame.before_system is None or not text.startswith(frame.before_system):
        return None
    start = len(frame.before_system)
    stop = text.find(frame.between, start)
    return None if stop < 0 else (start, stop)


def token_spans(model: Model, ids: Sequence[int]) -> tuple[str, list[Span]]:
    """The text of some tokens, and the characters of each token.

    Tokens that are parts of one character share it.
    """
    beginnings = [list(ids[:count]) for count in range(len(ids) + 1)]
    texts = _decoded(model, beginnings)
    whole = texts[-1]
    ends = [min(len(text.rstrip("\ufffd")), len(whole)) for text in texts]
    return whole, [(start, max(end, start + 1)) for start, end in pairwise(ends)]


def _decoded(model: Model, many_ids: Sequence[list[int]]) -> list[str]:
    """The text of each list of token ids, as the tokenizer has it."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is not None:  # the same text, without checks of every id
        texts: list[str] = backend.decode_batch(many_ids, skip_special_tokens=False)
        return texts
    return [model.tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in many_ids]


def _tokens_in(model: Model, frame: Frame, region: str, ids: Sequence[int]) -> list[bool]:
    """Whether each token of a row is in a region other than `all`."""
    text, places = token_spans(model, ids)
    spans = prompt_spans(frame, text)
    if spans is None:
        return [False] * len(ids)
    if region.startswith(TEXT):
        return _overlapping(text[: spans.end], region.removeprefix(TEXT), places)
    if region == "system":
        return _inside(places, spans.system)
    if region == "user":
        return _inside(places, spans.user)
    in_prompt = [end <= spans.end for _, end in places]
    if region == "prompt":
        return in_prompt
    in_system, in_user = _inside(places, spans.system), _inside(places, spans.user)
    in_template = []
    for prompt, system, user in zip(in_prompt, in_system, in_user, strict=True):
        in_template.append(prompt and not system and not user)
    return in_template


def _inside(places: list[Span], span: Span) -> list[bool]:
    """Whether each of some places lies wholly inside a span."""
    return [start >= span[0] and end <= span[1] for start, end in places]


def _overlapping(prompt: str, wanted: str, places: list[Span]) -> list[bool]:
    """Whether each of some places overlaps an occurrence of a text in the prompt."""
    occurrences: list[Span] = []
    for start in range(len(prompt)):
        if prompt.startswith(wanted, start):
            occurrences.append((start, start + len(wanted)))
    if not occurrences:
        raise ConfigError(
            f"where={TEXT}{wanted}: that text is not in the prompt {prompt[:200]!r}; name a text of"
            " its system or user turn"
        )
    overlaps = []
    for start, end in places:
        overlaps.append(any(start < last and end > first for first, last in occurrences))
    return overlaps
