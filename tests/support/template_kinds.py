"""Chat templates of all kinds, by what they do: for tests and for the page on models.

Written by hand after the habits of families; nothing is copied from a model.
"""

from typing import NamedTuple

TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SKIPS_SYSTEM = TURNS.replace("messages %}", "messages if m['role'] != 'system' %}")
REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    + TURNS
)
DATED = "{{ 'Today is ' + strftime_now('%d %B %Y') + '.\n' }}" + TURNS
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
OPENS_THINKING = TURNS.replace("m['content']", "m['content'].split('</think>')[-1]").replace(
    "assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"
)
THINKING = THINKS.replace("enable_thinking", "thinking")
OTHER_END = TURNS.replace("<|im_end|>", "<|pad|>")
NO_END = TURNS.replace("<|im_end|>", "")
TRIMS = TURNS.replace("m['content']", "m['content'] | trim")
OWN_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    + TURNS
)
BROKEN = "{% for m in messages %}{{ m['content'] | no_such_filter }}{% endfor %}"


class Kind(NamedTuple):
    """A template and how it is used."""

    title: str
    template: str | None
    switches: tuple[str, ...] = ()


KINDS = (
    Kind("marks turns with special tokens", TURNS),
    Kind("has a system turn of its own", OWN_SYSTEM),
    Kind("drops system turns", SKIPS_SYSTEM),
    Kind("refuses system turns", REFUSES_SYSTEM),
    Kind("ends a turn with a token of its own", OTHER_END),
    Kind("ends a turn with a line break alone", NO_END),
    Kind("writes today's date", DATED),
    Kind("takes white space off contents", TRIMS),
    Kind("fills a part for thinking", THINKS),
    Kind("the same, switched off", THINKS, ("enable_thinking=false",)),
    Kind("fills it unless another variable says no", THINKING),
    Kind("opens a part for thinking, always", OPENS_THINKING),
    Kind("cannot be rendered", BROKEN),
    Kind("is missing", None),
)
