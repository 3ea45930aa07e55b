"""A judge endpoint, against a server on this machine that behaves well, badly, or not at all."""

import threading
import time
from pathlib import Path

import pytest
from endpoint_server import Answer, Server, completion

from traitscope.config.judge import Endpoint
from traitscope.errors import ConfigError, DataError, StoreError
from traitscope.inference.engines import endpoint


def at(server: Server, **settings: object) -> Endpoint:
    return Endpoint(
        **{"url": server.url, "served": "judge-1", "pause": 0.0, "retries": 2} | settings
    )


def test_replies_in_order_and_what_is_sent(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-key")
    server = serve(lambda n, text: completion(f"said {text}"))
    texts = [f"text {n}" for n in range(20)]
    replies = endpoint.ask(at(server, key="MY_KEY"), texts)
    assert [r.text for r in replies] == [f"said {text}" for text in texts]
    assert set(server.keys) == {"Bearer secret-key"}
    assert all(
        body["model"] == "judge-1" and body["temperature"] == 0 and len(body["messages"]) == 1
        for body in server.seen
    )


def test_answers_are_cached_by_content_and_cost_is_counted(serve, tmp_path: Path) -> None:
    server = serve(lambda n, text: completion("yes"))
    priced = at(server, price_in=1.0, price_out=5.0)
    first = endpoint.ask(priced, ["a", "b"])
    assert endpoint.cost(priced, first) == {
        "requests": 2,
        "from_cache": 0,
        "tokens_read": 20,
        "tokens_written": 4,
        "uncounted": 0,
        "cost": 40e-6,
    }
    again = endpoint.ask(priced, ["b", "a", "c"])
    assert [r.cached for r in again] == [True, True, False] and len(server.seen) == 3
    assert endpoint.cost(priced, again)["requests"] == 1
    endpoint.ask(at(server, served="judge-2"), ["a"])
    assert len(server.seen) == 4
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "cache").rglob("*.json"))


@pytest.mark.parametrize(
    "bad",
    [
        (429, b"slow down", {"Retry-After": "0"}),
        (500, b"oops", {}),
        (200, b"<html>", {}),
        (200, b'{"choices": []}', {}),
    ],
    ids=["429", "500", "html", "empty"],
)
def test_tries_again(serve, bad: Answer) -> None:
    server = serve(lambda n, text: bad if n < 3 else completion("no"))
    assert [r.text for r in endpoint.ask(at(server, parallel=1), ["a"])] == ["no"]
    assert len(server.seen) == 3


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ((503, b"busy", {}), "status 503: busy"),
        ((200, b"garbage", {}), "not a chat completion: b'garbage'"),
    ],
)
def test_gives_up_with_what_was_answered_kept(serve, bad: Answer, says: str) -> None:
    server = serve(lambda n, text: bad if "bad" in text else completion("yes"))
    with pytest.raises(
        DataError, match=f"gave no answer in 3 tries .{says}.; what was answered is kept"
    ):
        endpoint.ask(at(server, parallel=1), ["one", "bad", "never asked"])
    seen = len(server.seen)
    assert endpoint.ask(at(server), ["one"])[0].cached and len(server.seen) == seen == 4


def test_a_refused_request_is_not_repeated(serve) -> None:
    server = serve(lambda n, text: (401, b"no such key", {}))
    with pytest.raises(
        DataError,
        match=(
            "refused a request, status 401: no such key; check --url, --served and the key in"
            " OPENAI_API_KEY"
        ),
    ):
        endpoint.ask(at(server, parallel=1), ["a"])
    assert len(server.seen) == 1


def test_nobody_there() -> None:
    with pytest.raises(DataError, match="gave no answer in 2 tries .*refused.*check the address"):
        endpoint.ask(Endpoint("http://127.0.0.1:9/v1", "m", retries=1, pause=0.0), ["a"])


def test_time_out(serve) -> None:
    waiting = threading.Event()
    server = serve(lambda n, text: completion("yes") if waiting.wait(5) else completion("no"))
    with pytest.raises(DataError, match="timed out|no whole answer in 0.2 seconds"):
        endpoint.ask(at(server, timeout=0.2, retries=0), ["a"])
    waiting.set()


def test_no_reply_ends_the_run(serve) -> None:
    """Content that is no text counts as nothing said."""
    server = serve(lambda n, text: completion(None if n == 1 else {"evil": 1}))
    assert [r.text for r in endpoint.ask(at(server, parallel=1), ["a", "b"])] == ["", ""]


@pytest.mark.parametrize("silent", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["head", "body"])
def test_an_answer_that_drips_is_ended_in_time(silent: bytes, drip, tmp_path: Path) -> None:
    """Every byte comes within the timeout of a socket, the whole answer never."""
    url = drip(silent)
    started = time.monotonic()
    with pytest.raises(DataError, match="no whole answer in 0.6 seconds"):
        endpoint.ask(Endpoint(url, "m", timeout=0.6, retries=0, pause=0.0), ["a"])
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"x": "' + b"x" * 2**21 + b'"}', "more than 1048576 bytes"),
        (b"[" * 200_000, "not a chat completion"),
        (b"9" * 5000, "not a chat completion"),
    ],
    ids=["long", "deep", "digits"],
)
def test_an_answer_that_is_no_completion_is_refused_in_words(serve, data: bytes, says: str) -> None:
    server = serve(lambda n, text: (200, data, {}))
    with pytest.raises(DataError, match=says) as raised:
        endpoint.ask(at(server, retries=0), ["a"])
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize("count", ["1e999", "-3", "4.5", '"7"', "[1]", "9" * 400, "NaN", "true"])
def test_a_count_of_tokens_that_cannot_be_is_none(serve, count: str) -> None:
    usage = f'{{"prompt_tokens": {count}, "completion_tokens": 2}}'
    data = f'{{"choices": [{{"message": {{"content": "yes"}}}}], "usage": {usage}}}'
    server = serve(lambda n, text: (200, data.encode(), {}))
    replies = endpoint.ask(at(server, price_in=1.0), ["a"])
    assert replies == [endpoint.Reply("yes", 0, 2, is_counted=False)]
    spent = endpoint.cost(at(server, price_in=1.0), replies)
    assert spent["tokens_written"] == 2 and spent["uncounted"] == 1
    assert endpoint.ask(at(server), ["a"])[0].cached


def test_half_a_character_is_replaced(serve) -> None:
    server = serve(lambda n, text: completion("yes \ud800"))
    assert endpoint.ask(at(server), ["a"])[0].text == "yes ?"
    assert endpoint.ask(at(server), ["a"])[0].cached


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_goes_nowhere_else(serve, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    elsewhere = serve(lambda n, text: completion("yes"))
    moved = {"Location": f"{elsewhere.url}/chat/completions"}
    server = serve(lambda n, text: (status, b"", moved))
    with pytest.raises(DataError, match=f"status {status}: it redirects to {elsewhere.url}"):
        endpoint.ask(at(server), ["a"])
    assert elsewhere.seen == [] and elsewhere.gets == 0


@pytest.mark.parametrize("key", ["secret\nkey", "secret\rkey", "secr\u00e9t", "secret\u4e00"])
def test_a_key_that_no_request_can_carry_is_not_shown(monkeypatch, serve, key: str) -> None:
    monkeypatch.setenv("MY_KEY", key)
    server = serve(lambda n, text: completion("yes"))
    with pytest.raises(ConfigError, match="the key in MY_KEY") as raised:
        endpoint.ask(at(server, key="MY_KEY"), ["a"])
    assert "secr" not in str(raised.value) and server.seen == []


def test_a_cache_that_cannot_be_written_is_named_before_anything_is_asked(
    serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRAITSCOPE_CACHE", str(tmp_path / "file"))
    server = serve(lambda n, text: completion("yes"))
    with pytest.raises(StoreError, match="cannot write below"):
        endpoint.ask(at(server), ["a"])
    assert server.seen == []


def test_waits_as_long_as_it_is_told(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(endpoint, "pause", lambda failed, seconds: waits.append(seconds))
    server = serve(
        lambda n, text: (
            (429, b"", {"Retry-After": "7"})
            if n == 1
            else (500, b"", {})
            if n < 4
            else completion("yes")
        )
    )
    endpoint.ask(at(server, pause=2.0, retries=5, parallel=1), ["a"])
    assert waits == [7.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"url": "localhost", "served": "m"}, "expected an address that begins with http"),
        ({"url": "http://x"}, "an endpoint needs both"),
        ({"timeout": 0.0}, "timeout out of range"),
        ({"retries": -1}, "retries out of range"),
        ({"price_in": float("nan")}, "price_in out of range"),
    ],
)
def test_settings_that_cannot_work(settings: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Endpoint(**settings)
