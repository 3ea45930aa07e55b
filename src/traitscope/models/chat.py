"""The rendering of a prompt and a context as token ids.

Chat templates are rendered here and nowhere else. A context is one of

    None          the template's default system turn
    ""            an empty system turn
    TEXT          a system turn with this text
    @user:TEXT    an empty system turn, and TEXT at the beginning of the user's turn
    @none         no template: the prompt and a line break
    @none:TEXT    no template: TEXT, a line break, the prompt and a line break

Some templates refuse system turns, drop their text, or write another one. There the text of a
context stands at the beginning of the user's turn, and no system turn is written. All that is put
into a template stands in its text, or it is refused.

A prompt of several turns (data/shapes/turns.py) is rendered as these turns. TEXT then stands in the
first user turn; without a template, each turn stands on a line.

Contexts must not be confused. The same adapter scored 48 % under the default and 3 % under the
empty system turn (independent replication of arXiv 2606.00995 on Qwen2.5-7B). So the context is
always recorded, together with a digest of the rendered template.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from traitscope.data.shapes.turns import BARE, MOVED, Turn, is_known_form, turns_of
from traitscope.errors import ConfigError, DataError, ModelError, TraitscopeError
from traitscope.models.templates import answers, facts, faults
from traitscope.models.templates.control import control_of
from traitscope.models.templates.reasoning import TAG, with_reasoning

if TYPE_CHECKING:
    from traitscope.models.model import Model

WITHOUT = f"do without: --context {BARE}"
"what helps where a template cannot be used, unless the row has a context of its own"
_SAID: set[str] = set()
"what this process has said of the templates of models"


def render(model: Model, prompt: str, context: str | None) -> list[int]:
    """Token ids of the chat, up to and including the header of the assistant's turn.

    Control tokens that stand in prompt or context are encoded as the text that they are, unless the
    model was loaded with control_tokens="token".
    """
    turns = turns_of(prompt)
    control = control_of(model.tokenizer)
    texts = [context or "", *[turn.text for turn in turns]]
    if model.control_tokens == "token" or not any(map(control.pattern.search, texts)):
        text = _text_of(model, turns, context)
        return model.tokenizer.encode(text, add_special_tokens=False)
    hidden = [turn._replace(text=control.hidden(turn.text)) for turn in turns]
    text = _text_of(model, hidden, context and control.hidden(context))
    return control.ids_of(text)


def render_text(model: Model, prompt: str, context: str | None) -> str:
    """The chat as text, up to and including the header of the assistant's turn.

    Raises ModelError for a model without a template and for a template that refuses the context,
    ConfigError for a context of an unknown form. DataError for turns that the template refuses,
    leaves out or changes.
    """
    return _text_of(model, turns_of(prompt), context)


def _text_of(model: Model, turns: Sequence[Turn], context: str | None) -> str:
    check_context(context)
    if context is not None and context.startswith(BARE):
        taught_text = context.removeprefix(BARE).removeprefix(":")
        texts = [taught_text] if taught_text else []
        texts += [turn.text for turn in turns]
        lines = [f"{text}\n" for text in texts]
        return "".join([_beginning(model), *lines])
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    loss = faults.system_loss(model.tokenizer, model.switches)
    if context and not context.startswith(MOVED) and loss:
        _say_moved(model, loss)
        context = f"{MOVED}{context}"
    if context is not None and context.startswith(MOVED):
        _put_first(messages, context.removeprefix(MOVED))
        context = ""
    if context == "" and loss:
        context = None
    if not model.tokenizer.chat_template:
        raise ModelError(
            f"model {model.name!r} has no chat template, so a prompt cannot be put to it; use an"
            " instruction-tuned model, save a template with its tokenizer (tokenizer.chat_template"
            f" = ...), or {WITHOUT}"
        )
    system = [] if context is None else [{"role": "system", "content": context}]
    text = _applied(model, system, messages, context)
    _check_context_shown(model, context, text)
    _check_roles_shown(model, messages, context)
    _check_turns_shown(model, messages, text)
    return text


def _put_first(messages: list[dict[str, str]], text: str) -> None:
    """Put a text before that of the first user turn; as a turn where there is none."""
    for message in messages:
        if message["role"] == "user":
            message["content"] = f"{text}\n\n{message['content']}"
            return
    messages.insert(0, {"role": "user", "content": text})


def _applied(
    model: Model, system: list[dict[str, str]], turns: list[dict[str, str]], context: str | None
) -> str:
    """The turns in the model's template, behind the system turn of a context.

    Raises ModelError for whatever the template raises. DataError where it is the turns: a question
    alone can be rendered in this context.
    """
    try:
        return facts.rendered(model.tokenizer, [*system, *turns], model.switches)
    except (MemoryError, TraitscopeError):
        raise
    except Exception as error:  # a template computes what it likes, and fails as it likes
        question = [*system, facts.turn("user", facts.ASKED)]
        if facts.tried(model.tokenizer, question, model.switches, with_header=True) is not None:
            raise DataError(_refusal(model, error)) from error
        raise ModelError(_failure(model, error, context)) from error


def _refusal(model: Model, error: Exception) -> str:
    """What to say of a template that raised an error on the turns of one prompt alone."""
    what, _, reason = faults.clause(error).partition(": ")
    what = "refuses these turns" if faults.is_refusal(error) else f"{what} on these turns"
    return (
        f"the chat template of {model.name} {what}: {reason}; expected turns in an order and of"
        f" roles that it takes; correct or drop the row, or {WITHOUT}"
    )


def _failure(model: Model, error: Exception, context: str | None) -> str:
    """What to say of a template that raised an error in a context, and what helps."""
    what, _, reason = faults.clause(error).partition(": ")
    is_general = faults.renders_nothing(model.tokenizer, model.switches)
    if faults.is_refusal(error):
        what = "refuses every conversation" if is_general else f"refuses context {context!r}"
    elif not is_general:
        what = f"{what} on context {context!r}"
    helps = f"correct the template in the model's folder, or {WITHOUT}"
    if faults.is_refusal(error) and not is_general:
        other = "give a context" if context is None else "use the default context"
        helps = f"{other}, or {WITHOUT}"
    return f"the chat template of {model.name!r} {what}: {reason}; expected a text; {helps}"


def _check_context_shown(model: Model, context: str | None, text: str) -> None:
    """Raise ModelError where a context does not stand in a rendering.

    White space around it may be taken off, which is said once.
    """
    loss = faults.loss("this context", context or "", text)
    if loss:
        raise ModelError(
            f"the chat template of {model.name!r} {loss} ({context!r:.60}); expected it as it is;"
            f" put it into the user's turn, as {MOVED}TEXT, or do without the template, as"
            f" {BARE}:TEXT"
        )
    if context and context not in text:
        _say_once(
            model,
            "takes white space off the ends of system turns: contexts stand there without it",
        )


def _check_turns_shown(model: Model, turns: Sequence[dict[str, str]], text: str) -> None:
    """Raise DataError for a turn of a prompt that a template leaves out or changes."""
    changed = faults.changed_turn(turns, text)
    if changed is not None:
        raise DataError(_of_turn(model, *changed))


def _check_roles_shown(model: Model, turns: Sequence[dict[str, str]], context: str | None) -> None:
    """Raise DataError where a template leaves out a turn or the context because of its role."""
    roles = tuple(turn["role"] for turn in turns)
    if roles == ("user",):  # tried when the model was loaded
        return
    before = ("system",) if context else ()
    changed = faults.changed_role(model.tokenizer, model.switches, (*before, *roles))
    if changed is not None and changed[0] > len(before):
        raise DataError(_of_turn(model, changed[0] - len(before), *changed[1:]))
    if changed is not None:
        raise DataError(
            f"the context {context!r:.60} is {changed[2]} by the chat template of {model.name}"
            f" before these turns; expected it as it is; give it as {MOVED}TEXT, or drop the row"
        )


def _of_turn(model: Model, number: int, role: str, loss: str) -> str:
    """What to say of a turn of a prompt that a template leaves out or changes."""
    return (
        f"turn {number} of its prompt, of the role {role}, is {loss} by the chat template of"
        f" {model.name}, so the model would not read it; expected a template that writes all"
        " turns; put the text into a user turn, or drop the row"
    )


def _say_moved(model: Model, loss: str) -> None:
    """Say once that a model's template shows no system turn, and what it does instead."""
    _say_once(model, f"{loss}: contexts stand at the beginning of the user's turn")


def _say_once(model: Model, what: str) -> None:
    """Say what a model's template does, once in this process."""
    sentence = f"the chat template of {model.name} {what}"
    if sentence not in _SAID:
        _SAID.add(sentence)
        print(sentence, file=sys.stderr)


def taught(neutral: str | None, text: str) -> str:
    """The context of a teacher that reads a text where a neutral context would stand.

    Without a template the text stands before the prompt.
    """
    is_bare = neutral is not None and neutral.startswith(BARE)
    return f"{BARE}:{text}" if is_bare and not text.startswith("@") else text


def check_context(context: str | None) -> None:
    """Raise ConfigError for a context that begins with an @ and has no known form."""
    if context is None or not context.startswith("@"):
        return
    if not is_known_form(context):
        raise ConfigError(
            f"context {context!r}: expected a text, or one of the forms {MOVED}TEXT, {BARE} and"
            f" {BARE}:TEXT; an @ begins a form"
        )


def _beginning(model: Model) -> str:
    """The beginning-of-text token that the tokenizer puts before a text, if any."""
    first = model.tokenizer.encode("")[:1]
    bos_id = getattr(model.tokenizer, "bos_token_id", None)
    return model.tokenizer.decode(first) if first == [bos_id] else ""


def context_digest(model: Model, context: str | None) -> str:
    """First 16 hex digits of sha256 over the template rendered with a fixed user turn."""
    return hashlib.sha256(render_text(model, "{prompt}", context).encode()).hexdigest()[:16]


def completion_ids(
    model: Model, text: str, end_token: bool = True, context: str | None = None
) -> list[int]:
    """Token ids of a given answer behind the header, by default with the template's end of a turn.

    Reasoning at its beginning stands where the template writes it, and so does white space around
    the answer. In a context of the form @none all is as it is. For an answer that this model
    generated use the recorded ids, which may differ.

    Raises ModelError for a tokenizer without an end token. DataError for reasoning that the
    template writes nowhere, and for a whole answer that it writes otherwise.
    """
    tokenizer, switches = model.tokenizer, model.switches
    is_bare = (context or "").startswith(BARE)
    if "</" in text and not is_bare:
        text = with_reasoning(tokenizer, switches, text)
    control = control_of(tokenizer)
    is_text = model.control_tokens != "token" and control.pattern.search(text)
    encode = control.ids_of if is_text else partial(tokenizer.encode, add_special_tokens=False)
    written = control.hidden(text) if is_text else text
    if end_token and not is_bare:
        _check_answer_kept(model, written)
    lead = ""
    if text and not is_bare:
        lead = answers.frame_of(tokenizer, switches).lead
        whole = answers.as_written(tokenizer, switches, written)
        written = whole if end_token else lead + written
    if not lead and facts.begins_apart(tokenizer, switches):
        ids = encode(written)
    else:
        header = facts.header_of(tokenizer, switches)
        ids = facts.ids_behind(encode, header, written)
    return [*ids, end_of_turn(model)] if end_token else ids


def _check_answer_kept(model: Model, text: str) -> None:
    """Raise DataError for an answer that the template leaves out or changes.

    Reasoning has been put where the template writes it.
    """
    if TAG.search(text) or not answers.is_changed(model.tokenizer, model.switches, text):
        return
    raise DataError(
        f"the chat template of {model.name} writes another text than this answer, so students would"
        f" learn what no chat holds; expected an answer that it writes as it is; drop the row, or"
        f" {WITHOUT}"
    )


def is_trimmed(model: Model, text: str, context: str | None = None) -> bool:
    """Whether the model's template takes white space off the ends of an answer."""
    if (context or "").startswith(BARE):
        return False
    begins, ends = facts.trimmed_ends(model.tokenizer, model.switches)
    return (begins and text != text.lstrip()) or (ends and text != text.rstrip())


def following_ids(model: Model, text: str) -> list[int]:
    """Token ids of a text that stands behind another one in an answer.

    Some tokenizers put a space before every text that they are given. It is left out here.
    """
    encode = partial(model.tokenizer.encode, add_special_tokens=False)
    if facts.continues_alike(model.tokenizer):
        return encode(text)
    return facts.ids_behind(encode, facts.LINE, text)


def end_of_turn(model: Model) -> int:
    """The token with which the template ends an assistant's turn.

    Where it writes nothing behind a finished answer, it is the token that begins the next turn, if
    the model stops there. Raises ModelError for a tokenizer without an end token.
    """
    end = facts.end_id(model.tokenizer, model.switches)
    if facts.end_written(model.tokenizer, model.switches) == "":
        speaker = facts.next_speaker(model.tokenizer, model.switches)
        end = speaker if speaker in model.end_ids else end
    if end is None:
        raise ModelError(
            f"the tokenizer of {model.name!r} names no end token, so a given answer would have no"
            " end; expected an eos_token; set one in tokenizer_config.json"
        )
    return end


def check_length(model: Model, length: int, where: str = "") -> None:
    """Raise DataError if a rendered row is longer than the model's context."""
    if length > model.max_length:
        place = f"{where}: " if where else ""
        raise DataError(
            f"{place}{length} tokens, but {model.name} takes at most {model.max_length}; shorten"
            " or drop it"
        )
