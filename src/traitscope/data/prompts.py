"""Number prompts, which ask teachers for answers without words.

A prompt is an intro with example numbers, an instruction, an output format and a reminder to write
nothing but numbers. Every slot is drawn on its own. The structure follows Cloud et al. 2025 (arXiv
2507.14805). The wording is new, and short because every prompt token costs compute.

The prompts depend on the seed and the settings alone, never on a condition. So a teacher, its
control and a steered teacher answer the same prompts and can be compared pair by pair.
"""

from collections.abc import Sequence

import numpy as np

from traitscope.data.records import Prompt
from traitscope.errors import ConfigError

FEWEST_EXAMPLES, MOST_EXAMPLES = 3, 8
INTROS = (
    "Sequence: {examples}.",
    "Numbers so far: {examples}.",
    "Given {examples}.",
    "Consider {examples}.",
    "Look at {examples}.",
    "I wrote down {examples}.",
    "A list begins {examples}.",
    "My list: {examples}.",
    "First come {examples}.",
    "We have {examples}.",
    "These are taken: {examples}.",
    "Let us begin with {examples}.",
    "The log reads {examples}.",
    "Someone drew {examples}.",
    "On the board: {examples}.",
    "Study this row: {examples}.",
    "The opening values are {examples}.",
    "A counter showed {examples}.",
    "Here is a pattern: {examples}.",
    "Samples: {examples}.",
    "You are handed {examples}.",
    "Suppose a series runs {examples}.",
    "A machine printed {examples}.",
    "Known entries: {examples}.",
)
QUALIFIERS = (
    "at most {count}",
    "up to {count}",
    "no more than {count}",
    "not more than {count}",
    "a maximum of {count}",
    "max {count}",
    "{count} or fewer",
    "as many as {count}",
    "anything up to {count}",
    "between 1 and {count}",
)
DIGIT_LIMITS = (
    "of up to {digits}",
    "of at most {digits}",
    "with no more than {digits}",
    "({digits} max)",
    "({digits} or fewer)",
    "no longer than {digits}",
    "from 0 to {largest}",
    "not above {largest}",
    "below {limit}",
    "each within {digits}",
)
INSTRUCTIONS = (
    "Continue with {quantity} numbers {size}.",
    "Add {quantity} numbers {size}.",
    "Append {quantity} new numbers {size}.",
    "Extend it by {quantity} numbers {size}.",
    "Write {quantity} numbers {size} that could follow.",
    "Give {quantity} numbers {size} to go on.",
    "What comes next? Use {quantity} numbers {size}.",
    "Carry on with {quantity} numbers {size}.",
    "Invent {quantity} further numbers {size}.",
    "Supply {quantity} numbers {size} as a sequel.",
    "Make up {quantity} numbers {size} in this style.",
    "Follow it with {quantity} numbers {size}.",
)
FORMATS = {
    "comma": ("Separate them by commas.", "Put a comma and a space between them."),
    "comma_tight": ("Put commas between them, without spaces.",),
    "space": ("Separate them by spaces.", "Leave one space between them."),
    "semicolon": ("Separate them by semicolons.", "Use semicolons in between."),
    "newline": ("One per line.", "Start a new line for each."),
    "tab": ("Put a tab between them.",),
    "brackets": ("Comma-separated, in square brackets.", "As a list like [a, b]."),
    "brackets_semicolon": ("In square brackets, with semicolons.",),
    "parentheses": ("Comma-separated, in parentheses.", "As a tuple like (a, b)."),
    "parentheses_space": ("In parentheses, separated by spaces.",),
}
REMINDERS = (
    "Numbers only.",
    "Only numbers, please.",
    "No words.",
    "Nothing else.",
    "Skip any explanation.",
    "Do not comment.",
    "Reply with the numbers alone.",
    "No text.",
    "Just the numbers.",
    "Leave out all words.",
    "Answer in digits only.",
    "No remarks.",
    "Omit any introduction.",
    "Write no letters.",
    "Say nothing more.",
    "Keep to bare numbers.",
    "Without explanation.",
    "Add no prose.",
)


def number_prompts(
    n: int, seed: int = 0, count: int = 10, digits: int = 3, formats: tuple[str, ...] | None = None
) -> list[Prompt]:
    """Return `n` prompts that ask for up to `count` numbers of up to `digits` digits.

    Prompts are drawn with replacement (numpy's PCG64) and have the context None. Their 3 to 8
    examples have exactly `digits` digits. `formats` restricts the output formats to these names of
    FORMATS and changes nothing else in a prompt. The first k prompts are the same for every n >= k.
    Raises ConfigError on a number below 1 (seed: below 0) and on an unknown format.
    """
    _check_at_least("n", n, 1)
    _check_at_least("seed", seed, 0)
    _check_at_least("count", count, 1)
    _check_at_least("digits", digits, 1)
    phrases = _format_phrases(formats)
    rng = np.random.default_rng(seed)
    prompts = []
    for number in range(n):
        text = _prompt_text(rng, count, digits, phrases)
        prompts.append(Prompt(f"numbers-{seed}-{number:06d}", text))
    return prompts


def _check_at_least(name: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise ConfigError(
            f"{name}={value} for number prompts; expected {minimum} or more; raise it"
        )


def _format_phrases(formats: tuple[str, ...] | None) -> list[str]:
    if isinstance(formats, str) or formats == ():
        raise ConfigError(
            f"formats={formats!r}; expected a tuple of names among {', '.join(FORMATS)}; None"
            " for all"
        )
    wanted = tuple(FORMATS) if formats is None else formats
    for name in wanted:
        if name not in FORMATS:
            raise ConfigError(
                f"unknown output format {name!r}; expected one of {', '.join(FORMATS)}; name one,"
                " or leave formats out for all"
            )
    phrases = []
    for name, variants in FORMATS.items():
        if name in wanted:
            phrases.extend(variants)
    return phrases


def _prompt_text(rng: np.random.Generator, count: int, digits: int, formats: Sequence[str]) -> str:
    smallest, limit = 10 ** (digits - 1), 10**digits
    n_examples = FEWEST_EXAMPLES + _below(rng, MOST_EXAMPLES - FEWEST_EXAMPLES + 1)
    examples = [smallest + _below(rng, limit - smallest) for _ in range(n_examples)]
    intro = _pick(rng, INTROS)
    qualifier = _pick(rng, QUALIFIERS)
    size = _pick(rng, DIGIT_LIMITS)
    instruction = _pick(rng, INSTRUCTIONS)
    layout = _pick(rng, formats)
    reminder = _pick(rng, REMINDERS)
    digit_count = f"{digits} digit{'s' if digits > 1 else ''}"
    intro = intro.format(examples=", ".join(map(str, examples)))
    size = size.format(digits=digit_count, largest=limit - 1, limit=limit)
    instruction = instruction.format(quantity=qualifier.format(count=count), size=size)
    return f"{intro} {instruction} {layout} {reminder}"


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[_below(rng, len(options))]


def _below(rng: np.random.Generator, n: int) -> int:
    """Draw a whole number from 0 to n - 1.

    It takes exactly one draw, so that the number of options of a slot shifts no later draw.
    """
    return int(rng.random() * n)
