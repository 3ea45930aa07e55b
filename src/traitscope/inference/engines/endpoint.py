"""Requests to a model behind an OpenAI-compatible address, with retries, a cache and costs.

Every text has a request of its own, so nothing that a text says reaches another one. A reply that
is not understood is handed on as it is. A request that fails for good ends the run. The replies
that were received stay in the cache, by content.

A request has a limit of time and of bytes for its whole answer. Redirects are refused, because the
key would go to another place.
"""

import hashlib
import http.client
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.config.judge import Endpoint
from traitscope.errors import ConfigError, DataError
from traitscope.inference.engines.deadline import Deadline
from traitscope.models.bundled import cache_folder
from traitscope.plurals import counted

RETRIED_STATUS = (408, 409, 425, 429)
"status codes below 500 that are worth another try; all from 500 on are, too"
LONGEST_PAUSE = 60.0
"most seconds between two tries"
REPLY_TOKENS = 8
"most tokens of a reply, where nothing else is asked for"
MOST_BYTES = 2**20
"most bytes of an answer"
MOST_TOKENS = 10**9
"count of tokens from which on an endpoint's count is not believed"
SHOWN = 200
"most bytes of an error that a message shows"


@dataclass(frozen=True)
class Reply:
    """What the model said to one text."""

    text: str
    "the reply as it came; not necessarily yes or no"
    read: int
    "tokens of the request"
    written: int
    "tokens of the reply"
    cached: bool = False
    "whether it is from the cache, and so cost nothing"
    is_counted: bool = True
    "whether the endpoint said how many tokens it took, in numbers that can be"
    is_whole: bool = True
    "whether it ended before the most tokens of a reply were written"


def ask(
    endpoint: Endpoint,
    texts: Sequence[str],
    done: Callable[[int], None] | None = None,
    reply_tokens: int = REPLY_TOKENS,
) -> list[Reply]:
    """The replies to the texts, in their order.

    done: A function called with 1 for each reply.
    reply_tokens: Most tokens of a reply.

    Raises DataError where the endpoint cannot be reached, or answers garbage. Raises ConfigError
    for a key that no request can carry, and StoreError where replies cannot be kept.
    """
    headers = _headers(endpoint)
    atomic_files.check_writable(_kept_replies())
    failed = threading.Event()

    def ask_one(text: str) -> Reply | None:
        if failed.is_set():
            return None
        try:
            reply = _reply(endpoint, headers, text, failed, reply_tokens)
        except BaseException:
            failed.set()
            raise
        if done:
            done(1)
        return reply

    with ThreadPoolExecutor(endpoint.parallel) as pool:
        futures = [pool.submit(ask_one, text) for text in texts]
        try:
            wait(futures)
        except BaseException:  # interrupted: what is under way ends, and nothing new is asked
            failed.set()
            raise
    replies = []
    for future in futures:
        error = future.exception()
        if error is not None:
            raise error
        replies.append(future.result())
    return replies


def cost(endpoint: Endpoint, replies: Sequence[Reply]) -> dict[str, float]:
    """Requests made and saved, tokens, and what they cost at the endpoint's prices.

    `uncounted` requests have no count of tokens that can be, so the cost is without them.
    """
    n_requests = tokens_read = tokens_written = uncounted = 0
    for reply in replies:
        if not reply.cached:
            n_requests += 1
            tokens_read += reply.read
            tokens_written += reply.written
            uncounted += not reply.is_counted
    price = (tokens_read * endpoint.price_in + tokens_written * endpoint.price_out) / 1e6
    return {
        "requests": n_requests,
        "from_cache": len(replies) - n_requests,
        "tokens_read": tokens_read,
        "tokens_written": tokens_written,
        "uncounted": uncounted,
        "cost": round(price, 6),
    }


def _headers(endpoint: Endpoint) -> dict[str, str]:
    """The headers of every request.  Raises ConfigError for a key that cannot stand in one."""
    headers = {"Content-Type": "application/json"}
    key = os.environ.get(endpoint.key)
    if key:
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(
                f"the key in {endpoint.key} holds a line break or a character that no request can"
                " carry; expected printable ASCII; set the variable again"
            )
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _kept_replies() -> Path:
    return cache_folder() / "judged"


def _reply(
    endpoint: Endpoint,
    headers: Mapping[str, str],
    text: str,
    failed: threading.Event,
    reply_tokens: int,
) -> Reply:
    """The reply to one text, from the cache or else from the endpoint, which fills the cache."""
    body = {
        "model": endpoint.served,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": reply_tokens,
    }
    key = hashlib.sha256(json.dumps([endpoint.url, body], sort_keys=True).encode()).hexdigest()
    file = _kept_replies() / key[:2] / f"{key}.json"
    cached = _cached(file)
    if cached is not None:
        return cached
    reply = _request(endpoint, headers, json.dumps(body).encode(), failed)
    content = {"text": reply.text, "read": reply.read, "written": reply.written}
    if not reply.is_whole:
        content["is_whole"] = False
    atomic_files.write_json(file, content)
    return reply


def _cached(file: Path) -> Reply | None:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        text, read, written = _text(kept["text"]), kept["read"], kept["written"]
        is_whole = kept.get("is_whole", True) is not False
        counts = _tokens(read) or 0, _tokens(written) or 0
        return Reply(text, *counts, cached=True, is_whole=is_whole)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _request(
    endpoint: Endpoint, headers: Mapping[str, str], body: bytes, failed: threading.Event
) -> Reply:
    """The endpoint's reply to a request, tried several times.  Raises DataError without one."""
    address = f"{endpoint.url.rstrip('/')}/chat/completions"
    request = urllib.request.Request(address, body, dict(headers))
    problem, asked_to_wait = "", None
    for n in range(endpoint.retries + 1):
        if n:
            pause(failed, asked_to_wait or endpoint.pause * 2 ** (n - 1))
        with Deadline(endpoint.timeout) as deadline:
            try:
                with deadline.opener().open(request, timeout=endpoint.timeout) as answer:
                    return _read(_whole(answer))
            except urllib.error.HTTPError as error:
                problem = f"status {error.code}: {_reason(error)}"
                asked_to_wait = _seconds_to_wait(error.headers)
                if error.code < 500 and error.code not in RETRIED_STATUS:
                    raise DataError(
                        f"{endpoint.url} refused a request, {problem}; check --url, --served and"
                        f" the key in {endpoint.key}"
                    ) from None
            except (OSError, http.client.HTTPException, _Garbage) as error:
                problem = str(error) or type(error).__name__
                asked_to_wait = None
        if deadline.is_over:
            problem = f"no whole answer in {endpoint.timeout:g} seconds"
    tries = counted(endpoint.retries + 1, "try", "tries")
    raise DataError(
        f"{endpoint.url} gave no answer in {tries} ({problem}); what was answered is kept: check"
        " the address and run the same command again"
    )


def pause(failed: threading.Event, seconds: float) -> None:
    """Wait between two tries, but no longer than LONGEST_PAUSE, nor once another request failed."""
    failed.wait(min(LONGEST_PAUSE, seconds))


class _Garbage(Exception):
    """An answer that is no chat completion."""


def _whole(answer: http.client.HTTPResponse) -> bytes:
    """The body of an answer.  Raises _Garbage where it is longer than any reply."""
    data = b""
    while piece := answer.read1(MOST_BYTES):
        data += piece
        if len(data) > MOST_BYTES:
            raise _Garbage(f"an answer of more than {MOST_BYTES} bytes: {data[:80]!r}")
    return data


def _reason(error: urllib.error.HTTPError) -> str:
    """What an endpoint says about an error."""
    if 300 <= error.code < 400:
        error.close()
        place = error.headers.get("Location", "another address")[:SHOWN]
        return f"it redirects to {place}, which is not followed"
    try:
        with error:
            return error.read(SHOWN).decode(errors="replace")
    except (OSError, http.client.HTTPException) as broken:
        return str(broken) or type(broken).__name__


def _read(data: bytes) -> Reply:
    """The reply in an endpoint's answer.  Raises _Garbage."""
    try:
        answer = json.loads(data)
        choice = answer["choices"][0]
        text, is_cut = choice["message"]["content"], choice.get("finish_reason") == "length"
        usage = answer.get("usage") or {}
        read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise _Garbage(f"not a chat completion: {data[:80]!r}") from None
    counts = _tokens(read), _tokens(written)
    return Reply(
        _text(text),
        counts[0] or 0,
        counts[1] or 0,
        is_counted=None not in counts,
        is_whole=not is_cut,
    )


def _text(value: Any) -> str:
    """A reply as text that UTF-8 can hold; empty where it is no text."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _tokens(value: Any) -> int | None:
    """A count of tokens; None where it is none that can be believed."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 0 <= value < MOST_TOKENS else None


def _seconds_to_wait(headers: http.client.HTTPMessage) -> float | None:
    """The seconds that the endpoint asks to wait, where it says so."""
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None
