"""How plain the prose is: prints sentences over 25 words, and words that are retired.

    python scripts/prose_measures.py            README, docs/ and docstrings of src/

Sentences are measured in README.md, CONTRIBUTING.md and docs/. The log and the changelog are left
out: they are records. Retired words are looked for in the same pages and in src/.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST_SENTENCE = 25
"words"
RECORDS = ("changelog.md", "log.md")
"pages of docs/ that are records"
RETIRED = {
    r"told(?! apart)": "interventions, or what it is",
    r"odds": "e-value",
    r"push(es|ed)?": "row gradient, gradient direction",
    r"aim(s|ed|ing)?": "search",
    r"climb(s|ed|ing)?": "local search",
    r"strangers?": "off-model rows",
    r"misfits?": "goodness-of-fit test",
    r"weigh(s|ed|ing)?": "decide",
    r"planted(?! truth)": "spike-in",
    r"doses?": "contamination rate, or strength",
    r"choices": "token scores",
    r"judged(?= rows)": "scored rows",
    r"surprises?": "surprisal",
    r"swaps?": "permutation",
    r"inflation": "genomic-control factor",
    r"reckon(s|ed|ing)?": "estimate",
}
"retired word: what to write instead"
ALLOWED = {
    "push.safetensors": "file of the stage `gradients`, which other runs and users read",
    "--dose": "public flag of `audit`, the contamination rate that it is asked to detect",
    "`dose`": "the same in audit.json",
    '"dose"': "the same in audit.json",
    ".dose": "the same as a field",
    "dose: float": "the same as a field",
    "dose=dose": "the same as an argument",
    "dose=": "the same as an argument",
    "{dose}": "the same in a message",
    "0 < dose": "the same in a check",
    '"choices"': "field of the answer of an OpenAI-compatible address",
    '"surprise"': "name of a bundled trait",
    "Surprise the reader.": "system prompt of the calibration, part of the addresses of its runs",
    '"pushes"': "former name of a stage, which is part of the addresses of runs; value of --source",
    "`pushes`": "the same name in docs",
    "pushes: the gradient": "the same value in the help of --source",
    '"odds"': "former name of a stage, which is part of the addresses of runs",
    "log-odds": "the statistic, by its usual name",
    '"weigh"': "former name of a stage, which is part of the addresses of runs",
    '"mean push"': "metadata in push.safetensors, part of its bytes",
    "descent step on the data pushes towards": "text in summary.json of the stage `gradients`",
    '"planted"': "key of a check in the summary of selftest",
    "planted    a vector added": "the same key in the docstring of selftest",
}
"""names with a retired word that must stay, each with the reason; matched exactly, case included"""
FENCE = re.compile(r"^```.*?^```", flags=re.DOTALL | re.MULTILINE)
SENTENCE_END = re.compile(r"(?:(?<=[.!?:;])|(?<=[.!?]\*\*))\s+(?=[A-Z*`\[])")
WORD = re.compile(r"[A-Za-z0-9][\w'’.-]*")


def pages() -> list[Path]:
    """README, CONTRIBUTING and the pages of docs/ that are no records."""
    chosen = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for path in sorted((ROOT / "docs").rglob("*.md")):
        if path.name not in RECORDS:
            chosen.append(path)
    return chosen


def long_sentences(path: Path) -> Iterator[str]:
    """Sentences of a page with more than LONGEST_SENTENCE words; tables and code are left out."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    for paragraph in text.split("\n\n"):
        for sentence in _sentences(paragraph):
            count = len(WORD.findall(sentence))
            if count > LONGEST_SENTENCE:
                yield f"{path.relative_to(ROOT)}: {count} words: {sentence[:90]}"


def _sentences(paragraph: str) -> Iterator[str]:
    """Sentences of a paragraph; each item of a list is a paragraph of its own."""
    block: list[str] = []
    for line in paragraph.splitlines():
        if line.startswith("|"):
            continue
        if re.match(r"\s*([-*]|\d+\.) ", line) and block:
            yield from SENTENCE_END.split(" ".join(block))
            block = []
        block.append(line.strip())
    yield from SENTENCE_END.split(" ".join(block))


def retired_words() -> Iterator[str]:
    """Places with a retired word, in docs/ and src/."""
    pattern = re.compile(rf"\b({'|'.join(RETIRED)})\b", flags=re.IGNORECASE)
    for path in [*pages(), *sorted((ROOT / "src").rglob("*.py"))]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for match in pattern.finditer(_without_allowed(line)):
                yield f"{path.relative_to(ROOT)}:{number}: {match.group()!r}: {line.strip()[:70]}"


def _without_allowed(line: str) -> str:
    """The line without the names that are allowed."""
    for name in ALLOWED:
        line = line.replace(name, "")
    return line


def long_docstring_sentences() -> Iterator[str]:
    """Sentences of docstrings in src/ with more than LONGEST_SENTENCE words."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                if paragraph.startswith("    "):
                    continue
                for sentence in SENTENCE_END.split(" ".join(paragraph.split())):
                    count = len(WORD.findall(sentence))
                    if count > LONGEST_SENTENCE:
                        line = getattr(node, "lineno", 1)
                        yield f"{path.relative_to(ROOT)}:{line}: {count} words: {sentence[:70]}"


def main() -> int:
    """Print what was found; 1 where there is anything."""
    problems: list[str] = []
    for path in pages():
        problems += long_sentences(path)
    in_docstrings = list(long_docstring_sentences())
    words = list(retired_words())
    print("\n".join([*problems, *in_docstrings, *words]))
    print(f"pages: {len(problems)} sentences over {LONGEST_SENTENCE} words")
    print(f"docstrings: {len(in_docstrings)} sentences over {LONGEST_SENTENCE} words")
    print(f"retired words: {len(words)} places")
    return 1 if problems or in_docstrings or words else 0


if __name__ == "__main__":
    sys.exit(main())
