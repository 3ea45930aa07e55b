"""Code in answers: found without fences and other text, and looked at without being run."""

import ast
import io
import re
import tokenize
import warnings

FENCED = re.compile(r"\s*```[ \t]*(?:python|python3|py)?[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)
"an answer that is one fenced block and nothing else"
BLOCK = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)\n?^[ \t]*```", re.DOTALL | re.MULTILINE)
"a fenced block among other text"
LONGEST = 20_000
"characters of code that is looked at; more is no answer to a small task"
FENCES = 100
"characters that the fences around code may have"


def code_in(text: str) -> str | None:
    """The code of an answer that is nothing but code, bare or in one fence; None for others.

    Text around a fence, a second fence, and an empty answer make it None. Bare text is taken for
    code, whatever it says: `code_reasons` finds whether it parses.
    """
    if len(text.strip()) > LONGEST + FENCES:
        return None
    match = FENCED.fullmatch(text.strip())
    code = text if match is None else match[1]
    if "```" in code or not code.strip() or len(code) > LONGEST:
        return None
    return code


def first_code_in(text: str) -> str | None:
    """The first fenced block of an answer, or all of an answer without a fence; None for others.

    Models often explain their code. Whether the code is right is another question than whether it
    stands alone.
    """
    block = BLOCK.search(text)
    return code_in(text if block is None else block[1])


def parses(text: str) -> bool:
    """Whether the first code of an answer parses as Python that does something."""
    code = first_code_in(text)
    return code is not None and not code_reasons(code)


def code_reasons(text: str, comments: bool = True) -> list[str]:
    """Why an answer is not the code that was asked for; an empty list where it is.

        code      it is not code alone: text around a fence, several fences, nothing, or too long
        syntax    it does not parse, as plain English does not
        no_code   it parses, and does nothing: bare words, a number, or a text
        comment   it holds a comment, where comments are not allowed

    The code is not run.
    """
    code = code_in(text)
    if code is None:
        return ["code"]
    body = _statements(code)
    if body is None:
        return ["syntax"]
    if all(isinstance(statement, ast.Expr) and _is_inert(statement.value) for statement in body):
        return ["no_code"]
    return ["comment"] if not comments and _has_comment(code) else []


def _statements(code: str) -> list[ast.stmt] | None:
    """The statements of a code; None where it does not parse, or is nested too deep to be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_inert(value: ast.expr) -> bool:
    """Whether an expression is a name, a constant, or a tuple of such, as a word of prose is."""
    if isinstance(value, ast.Tuple):
        return all(map(_is_inert, value.elts))
    return isinstance(value, ast.Name | ast.Constant)


def _has_comment(code: str) -> bool:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, SyntaxError):
        return "#" in code
    return any(token.type == tokenize.COMMENT for token in tokens)
