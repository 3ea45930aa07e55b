"""The check of a loaded model: rendered prompt and answer are what its template writes.

A student learns rows that are put together: a prompt up to the assistant's header, an answer, the
end of the turn. If the template writes the same exchange in other tokens, the student learns what
it never reads later. Templates that open or fill a part for thinking do so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from traitscope.data.shapes.turns import Turn, prompt_of
from traitscope.errors import DataError, ModelError
from traitscope.models import chat
from traitscope.models.templates import facts, faults
from traitscope.models.templates.reasoning import tags_before_an_answer, with_reasoning
from traitscope.models.templates.variables import LISTED, MOST_SHOWN, inputs_of

if TYPE_CHECKING:
    from traitscope.models.model import Model

SWITCHES: facts.Switches = (("enable_thinking", False), ("thinking", False))
"switches of usual templates that leave the part for thinking out"
REASONED = f"<think>Owls.</think> {facts.ANSWERED}"
"an answer with reasoning, which a template may have no place for"
SHOWN = 8
"tokens that a message shows from where two renderings part"
CONVERSATIONS = (
    (Turn("user", facts.ASKED),),
    (Turn("user", "Say a word."), Turn("assistant", "Eight 8"), Turn("user", facts.ASKED)),
    (*(Turn("user", "Say a word."), Turn("assistant", "Eight 8")) * 5, Turn("user", facts.ASKED)),
)
"what a template is tried on: a question, and a question behind one and several exchanges"


def check_rendering(model: Model) -> None:
    """Raise ModelError where the template writes an exchange in other tokens than training rows.

    Also where its header leaves a part for thinking open: an answer would stand in it. Also where
    it cuts or changes the text of user turns or answers. A template that writes no end of an answer
    is no difference.
    """
    problem = _problem(model)
    if problem:
        raise ModelError(f"the chat template of {model.name!r} {problem}; {_way_out(model)}")


def ending_said(model: Model) -> str:
    """What to say of a template that ends answers with no token of its own; else empty."""
    written = facts.end_written(model.tokenizer, model.switches)
    end = chat.end_of_turn(model) if written is not None else None
    if end is None or facts.is_special(model.tokenizer, written or ""):
        return ""
    if not written and end == facts.next_speaker(model.tokenizer, model.switches):
        return ""
    behind = repr(written[:20]) if written else "nothing but white space"
    return (
        f"the chat template of {model.name} writes {behind} behind an answer, and no token that"
        f" ends it: rows end with {model.tokenizer.decode([end])}, and sampling stops there"
    )


def _problem(model: Model) -> str:
    """What is wrong with a rendering; empty where nothing is.

    A template that cannot be rendered says why where it is used.
    """
    if not model.tokenizer.chat_template:
        return ""
    if loss := _loss(model, "user turns"):
        return f"{loss}; expected it as it is, so that the model reads what is asked"
    for turns in CONVERSATIONS:
        try:
            parting = _parting(model, turns)
            header = chat.render_text(model, prompt_of(turns), None)
        except MemoryError:
            raise
        except Exception as error:
            if dict(model.switches).get(facts.SKIP) and turns is CONVERSATIONS[0]:
                return f"cannot be rendered with {facts.SKIP}: {error}"
            continue
        if parting is not None:
            return (
                f"writes {parting[0]!r} where its header and an answer give {parting[1]!r};"
                " expected the same tokens, so that students learn what they read later"
            )
        tags = tags_before_an_answer(header)
        if tags and not tags[-1]:
            return (
                "leaves its part for thinking open before an answer; expected it closed, because"
                " answers would stand in it"
            )
    if loss := _loss(model, "answers"):
        return f"{loss}; expected it as it is, so that students learn what they read later"
    return ""


def _loss(model: Model, what: str) -> str:
    """What a template does to a long text at the end of CONVERSATIONS; else empty.

    what: `user turns` or `answers`.
    """
    is_answer = what == "answers"
    for turns in CONVERSATIONS:
        messages = [facts.turn(turn.role, turn.text) for turn in turns]
        last = facts.turn("assistant" if is_answer else "user", facts.SYSTEM)
        messages = [*messages, last] if is_answer else [*messages[:-1], last]
        text = facts.tried(model.tokenizer, messages, model.switches, with_header=not is_answer)
        if text is not None and (loss := faults.loss(what, facts.SYSTEM, text)):
            return loss
    return ""


def _way_out(model: Model) -> str:
    """What helps: a switch with which the template writes the same, or doing without it.

    It names the variables that the template reads, and says what a switch does to reasoning.
    """
    for switch in _switches(model):
        changed = replace(model, switches=(*model.switches, switch))
        if not _problem(changed) and _rendered(changed) == _rendered(model):
            name, value = switch
            what = "set the template's switch"
            if name == facts.SKIP:
                what = "let the header be what the template writes before a finished answer"
            setting = f"{name}={json.dumps(value)}"
            rest = _of_reasoning(changed, setting) + _others(model, name)
            return f"{what}: --template {setting}{rest}"
    return (
        "no usual switch of templates changes that: set one that the model's card names, with"
        " --template NAME=VALUE, or use a copy of its folder without a template, with"
        f" --context {chat.BARE}{_others(model)}"
    )


def _rendered(model: Model) -> list[bool]:
    """Which of CONVERSATIONS the template renders, with its header and with an answer.

    A value of the wrong kind can make it fail, which is no way out.
    """
    done = []
    for turns in CONVERSATIONS:
        asked = [facts.turn(turn.role, turn.text) for turn in turns]
        answered = [*asked, facts.turn("assistant", facts.ANSWERED)]
        for messages, with_header in ((asked, True), (answered, False)):
            text = facts.tried(model.tokenizer, messages, model.switches, with_header)
            done.append(text is not None)
    return done


def _switches(model: Model) -> Iterator[tuple[str, bool]]:
    """The switches to try: usual ones, what the template reads, and the one for all templates."""
    yield from SWITCHES
    for name in _inputs(model)[:MOST_SHOWN]:
        yield from ((name, False), (name, True))
    yield facts.SKIP, True


def _inputs(model: Model) -> list[str]:
    """The variables of the template that is used, without the lists that transformers passes."""
    template = model.tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get(facts.DEFAULT)
    return [name for name in inputs_of(template) if name not in LISTED]


def _of_reasoning(model: Model, switch: str) -> str:
    """What to say where rows with reasoning cannot be trained on under a switch; else empty."""
    try:
        with_reasoning(model.tokenizer, model.switches, REASONED)
    except DataError:
        return (
            f"; rows with reasoning cannot be trained on under {switch}: take --reasoning drop"
            " for them"
        )
    return ""


def _others(model: Model, but: str = "") -> str:
    """Which variables the template reads besides one; empty where there are none."""
    others = [name for name in _inputs(model) if name != but]
    also = "also " if but and but != facts.SKIP else ""
    return f"; the template {also}reads {', '.join(others[:MOST_SHOWN])}" if others else ""


def _parting(model: Model, turns: Sequence[Turn]) -> tuple[str, str] | None:
    """What the template writes, and what a row holds, from where they part; None where not."""
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    messages.append({"role": "assistant", "content": facts.ANSWERED})
    text = facts.rendered(model.tokenizer, messages, model.switches, with_header=False)
    prompt = chat.render(model, prompt_of(turns), None)
    theirs = model.tokenizer.encode(text, add_special_tokens=False)
    has_end = facts.end_id(model.tokenizer, model.switches) is not None
    ours = [*prompt, *chat.completion_ids(model, facts.ANSWERED, end_token=has_end)]
    n_common = _common(ours, theirs)
    if n_common >= len(ours) - has_end:  # one fewer: an end that is a text, such as a line break
        return None
    parts = (theirs[n_common : n_common + SHOWN], ours[n_common : n_common + SHOWN])
    texts = tuple(map(model.tokenizer.decode, parts))
    if texts[0].lstrip()[:1] == texts[1].lstrip()[:1]:  # the same text in other tokens
        texts = tuple(" ".join(model.tokenizer.convert_ids_to_tokens(part)) for part in parts)
    return texts[0], texts[1]


def _common(one: list, other: list) -> int:
    """Number of tokens that two lists begin with together."""
    n_common = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        n_common += 1
    return n_common
