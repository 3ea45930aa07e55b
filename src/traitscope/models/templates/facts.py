"""What a chat template does: its end of a turn, its system turns, its date, its switches.

The facts are found by rendering, not by reading the template. They are found once a tokenizer.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any
from weakref import WeakKeyDictionary

from traitscope.errors import ConfigError, ModelError
from traitscope.models.templates import day
from traitscope.plain_values import NotPlainError, constant_meant, from_json

ASKED, ANSWERED = "Name a number.", "Seven 7"
"texts of the turns that a template is tried on"
SYSTEM = (
    "Zq speaks in riddles.\n\n    1.  {{ [2] }} \n\t- `x`\n\n\n"
    + 'It\'s "<2>" & {Ünder} SIX; ' * 40
    + "nothing else."
)
"a long text of several lines, in which a template that cuts or changes texts leaves a trace"
PROBES = ("5", "Why", "a", '"')
"beginnings of answers whose tokens may depend on what stands before them"
SPACE = " \t "
"white space around an answer that a template may take off"
LINE = "\n"
"a text that joins with none behind it"
CHATS = ("", "s", "ua", "sua", "uauaua", "suauaua", "ut", "sut", 12 * "ua")
"turns before a question, by the first letters of their roles, for which a template may ask"
ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
SKIP = "skip_thinking"
"a switch for every template: the header is what stands before a finished answer"
NAMED, DEFAULT = "chat_template", "default"
"the switch that names one of several templates, and the name of the one that is used without it"
Switches = tuple[tuple[str, Any], ...]
"what is passed to a template beside the turns, such as (('enable_thinking', False),)"


def once_a_tokenizer(find: Callable[..., Any]) -> Callable[..., Any]:
    """The function, computed once for each tokenizer, its template, and what it is given."""
    known: WeakKeyDictionary = WeakKeyDictionary()

    @wraps(find)
    def found(tokenizer: Any, switches: Switches = (), *more: Any) -> Any:
        results = known.setdefault(tokenizer, {})
        key = (repr(switches), str(tokenizer.chat_template), *more)  # lists have no hash
        if key not in results:
            results[key] = find(tokenizer, switches, *more)
        return results[key]

    return found


def switches_of(texts: Sequence[str]) -> Switches:
    """The switches in texts such as enable_thinking=false; values are JSON, or plain text.

    Raises ConfigError for a text without a name and an equals sign, and for a name that stands
    twice. Also where skip_thinking is neither true nor false, and where today_is is no day. Also
    for another spelling of a JSON constant, such as False, whose text counts as true.
    """
    switches: list[tuple[str, Any]] = []
    for text in texts:
        name, sign, value = text.partition("=")
        if not (sign and name.isidentifier()):
            raise ConfigError(
                f"--template {text!r}: expected NAME=VALUE, such as enable_thinking=false; name a"
                " variable of the model's chat template"
            )
        if name in dict(switches):
            raise ConfigError(f"--template sets {name} twice; expected it once; leave one out")
        try:
            switches.append((name, from_json(value)))
        except NotPlainError:
            _check_spelling(text, name, value)
            switches.append((name, value))
        if name == SKIP and not isinstance(switches[-1][1], bool):
            raise ConfigError(
                f"--template {text!r}: expected {SKIP}=true or {SKIP}=false; correct it"
            )
        if name == day.TODAY:
            day.check(switches[-1][1])
    return tuple(switches)


def _check_spelling(text: str, name: str, value: str) -> None:
    """Raise ConfigError for a text that spells a JSON constant otherwise than JSON."""
    meant = constant_meant(value)
    if meant and name not in (SKIP, NAMED, day.TODAY):
        raise ConfigError(
            f"--template {text!r}: {value} is no JSON, so it would be a text, which counts as true;"
            f" expected true, false or null; write {name}={meant}, or {name}={json.dumps(value)}"
            " for the text"
        )


def rendered(
    tokenizer: Any, turns: Sequence[dict], switches: Switches, with_header: bool = True
) -> str:
    """The turns in the template, by default with the header of the assistant's next turn.

    A template that asks for today's date is given a fixed one (day.py). With the switch SKIP the
    header is what the template writes before a finished answer: it has no part for thinking, or an
    empty one. Raises ValueError where the template writes no answer, and ModelError where there are
    several templates and none was chosen.
    """
    _check_chosen(tokenizer)
    variables = dict(switches)
    variables.pop(NAMED, None)
    is_skipped = variables.pop(SKIP, False)
    today = variables.pop(day.TODAY, day.DAY)
    if is_skipped and with_header:
        text = rendered(tokenizer, [*turns, turn("assistant", ANSWERED)], switches, False)
        if ANSWERED not in text:
            raise ValueError(f"it writes no answer, which {SKIP} needs")
        return text.rpartition(ANSWERED)[0]
    settings = {"tokenize": False, "add_generation_prompt": with_header, **variables}
    with day.fixed(today):
        text: str = tokenizer.apply_chat_template(list(turns), **settings)
    text.encode()  # UTF-8 has no half of a surrogate pair, which a template can write
    return text


def _check_chosen(tokenizer: Any) -> None:
    """Raise ModelError for several templates by name of which none is used without a choice."""
    template = tokenizer.chat_template
    if isinstance(template, dict) and DEFAULT not in template:
        names = sorted(template)
        raise ModelError(
            f"the model has the chat templates {', '.join(names)}, and none called {DEFAULT};"
            f" expected one to be chosen; name it: --template {NAMED}={names[0]}"
        )


@once_a_tokenizer
def day_read(tokenizer: Any, switches: Switches = ()) -> str | None:
    """The day that a template is given, as YYYY-MM-DD; None where it does not read it.

    It reads the day where another one gives another text, in a chat of CHATS, with its answer or
    without.
    """
    if day.CLOCK not in str(tokenizer.chat_template):
        return None
    for chat in CHATS:
        asked = []
        for letter in f"{chat}u":
            asked.append(turn(ROLES[letter], SYSTEM))
        for turns, with_header in ((asked, True), ([*asked, turn("assistant", ANSWERED)], False)):
            texts = set()
            for tried_day in (day.DAY, day.OTHER):
                on_that_day = (*switches, (day.TODAY, tried_day))
                texts.add(tried(tokenizer, turns, on_that_day, with_header))
            if len(texts) > 1:
                return str(dict(switches).get(day.TODAY, day.DAY))
    return None


def ids_behind(encode: Callable[[str], list[int]], header: str, text: str) -> list[int]:
    """Token ids of a text as they are behind a header, by a function that encodes texts.

    They are those of the text alone where the two join in one token.
    """
    before = encode(header)
    whole = encode(header + text)
    return whole[len(before) :] if whole[: len(before)] == before else encode(text)


def header_of(tokenizer: Any, switches: Switches) -> str:
    """What stands before an answer: a rendered prompt, or a line without a template."""
    header = tried(tokenizer, [turn("user", ASKED)], switches, True)
    return f"{ASKED}\n" if header is None else header


@once_a_tokenizer
def begins_apart(tokenizer: Any, switches: Switches = ()) -> bool:
    """Whether the first tokens of an answer are the same alone as behind the header."""
    header = header_of(tokenizer, switches)
    encode = partial(tokenizer.encode, add_special_tokens=False)
    for probe in PROBES:
        if ids_behind(encode, header, probe) != encode(probe):
            return False
    return True


@once_a_tokenizer
def continues_alike(tokenizer: Any, switches: Switches = ()) -> bool:
    """Whether a text has the same tokens alone as behind another text."""
    encode = partial(tokenizer.encode, add_special_tokens=False)
    for probe in (*PROBES, " a", ", "):
        if ids_behind(encode, LINE, probe) != encode(probe):
            return False
    return True


@once_a_tokenizer
def trimmed_ends(tokenizer: Any, switches: Switches = ()) -> tuple[bool, bool]:
    """Whether a template takes white space off the beginning and off the end of an answer."""
    turns = [turn("user", ASKED), turn("assistant", f"{SPACE}{ANSWERED}{SPACE}")]
    whole = tried(tokenizer, turns, switches, False)
    if whole is None or ANSWERED not in whole:
        return False, False
    before, _, behind = whole.rpartition(ANSWERED)
    return not before.endswith(SPACE), not behind.startswith(SPACE)


@once_a_tokenizer
def end_id(tokenizer: Any, switches: Switches = ()) -> int | None:
    """The token that ends an assistant's turn.

    It is the first token behind an answer and white space, where that is a special one, else the
    tokenizer's end. None where there is neither.
    """
    written = end_written(tokenizer, switches)
    if written is not None and is_special(tokenizer, written):
        return _first_id(tokenizer, written)
    usual = tokenizer.eos_token_id
    return None if usual is None else int(usual)


@once_a_tokenizer
def end_written(tokenizer: Any, switches: Switches = ()) -> str | None:
    """What a template writes behind a finished answer and white space; None where it writes none.

    An empty text is a template that writes nothing there.
    """
    turns = [turn("user", ASKED), turn("assistant", ANSWERED)]
    whole = tried(tokenizer, turns, switches, False)
    if whole is None or ANSWERED not in whole:
        return None
    return whole.rpartition(ANSWERED)[2].lstrip()


@once_a_tokenizer
def next_speaker(tokenizer: Any, switches: Switches = ()) -> int | None:
    """The special token that a template writes behind an answer that a question follows.

    None where another text or token stands there.
    """
    turns = [turn("user", ASKED), turn("assistant", ANSWERED), turn("user", ASKED)]
    whole = tried(tokenizer, turns, switches, False)
    if whole is None or ANSWERED not in whole:
        return None
    rest = whole.rpartition(ANSWERED)[2].lstrip()
    return _first_id(tokenizer, rest) if is_special(tokenizer, rest) else None


def is_special(tokenizer: Any, text: str) -> bool:
    """Whether a text begins with a special or an added token."""
    return _first_id(tokenizer, text) in {
        *tokenizer.all_special_ids,
        *getattr(tokenizer, "added_tokens_decoder", ()),
    }


def _first_id(tokenizer: Any, text: str) -> int | None:
    ids = tokenizer.encode(text, add_special_tokens=False) if text else []
    return int(ids[0]) if ids else None


def turn(role: str, text: str) -> dict[str, str]:
    """A turn as templates read it."""
    return {"role": role, "content": text}


def tried(
    tokenizer: Any, turns: Sequence[dict], switches: Switches, with_header: bool
) -> str | None:
    """A rendering; None where the template, or the lack of one, has none."""
    if not tokenizer.chat_template:
        return None
    try:
        return rendered(tokenizer, turns, switches, with_header)
    except MemoryError:
        raise
    except Exception:  # templates raise what they like
        return None
