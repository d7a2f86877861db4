"""Against a server on the loopback interface that behaves as badly as servers do."""

import collections
import http.server
import json
import logging
import sys
import threading
import time
import traceback

import pytest

from interpret import endpoint
from interpret.completion import Cached, CompletionError, Usage
from interpret.endpoint import Endpoint

SECRET = "sk-very-secret-0123456789"


def answer(text, **more):
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}], **more}).encode()


def ok(body):
    return 200, body, {}


class Server(http.server.ThreadingHTTPServer):
    """Answers by `script`: prompt → list of (status, body, headers), one a request, the last repeated; "hang": no answer in time."""

    daemon_threads = False  # so that server_close waits for them

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests, self.released = {}, [], threading.Event()

    @property
    def counts(self):
        return collections.Counter(r["messages"][0]["content"] for r in self.requests)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = sent["messages"][0]["content"]
        script = self.server.script.get(prompt, [ok(answer(f"to {prompt}"))])
        step = script[min(self.server.counts[prompt], len(script) - 1)]
        self.server.requests.append({**sent, "path": self.path, "authorization": self.headers["Authorization"]})
        self.close_connection = True
        if step == "hang":
            self.server.released.wait(10)
            return
        if step == "drop":
            return
        status, body, headers = step
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", headers.get("Content-Length", str(len(body))))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            if name != "Content-Length":
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    import openai._base_client

    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr(endpoint, "BACKOFF", 0.001)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{running.server_port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def open_endpoint():
    opened = []

    def make(*args, **kwargs):
        opened.append(Endpoint(*args, **{"timeout": 5.0, "retries": 3, **kwargs}))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def failure(one, prompt="p"):
    with pytest.raises(CompletionError) as caught:
        one.complete([prompt])
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 500
    assert "127.0.0.1" in message
    shown = "".join(traceback.format_exception(caught.value)) + repr(one) + one.name + repr(vars(caught.value))
    assert SECRET not in shown
    assert caught.value.__context__ is None
    return message


def test_what_is_sent(server, open_endpoint):
    one = open_endpoint("small-model", max_tokens=77, temperature=0.25)
    assert one.complete(["p", "q"]) == ["to p", "to q"]
    (first, _) = server.requests
    assert first["path"] == "/v1/chat/completions"
    assert first["authorization"] == f"Bearer {SECRET}"
    assert (first["model"], first["max_tokens"], first["temperature"]) == ("small-model", 77, 0.25)
    assert first["messages"] == [{"role": "user", "content": "p"}]


def test_settings_can_be_left_to_the_endpoint(server, open_endpoint):
    open_endpoint("m", max_tokens=None, temperature=None).complete(["p"])
    assert not {"max_tokens", "max_completion_tokens", "temperature"} & set(server.requests[0])


def test_openai_itself_wants_another_name_of_the_limit(monkeypatch, open_endpoint):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    assert open_endpoint("m", max_tokens=9).name == "m at https://api.openai.com/v1, max_completion_tokens 9, temperature 0.0"


def test_the_name_tells_settings_apart(server, open_endpoint):
    names = [
        open_endpoint(*args, **kw).name for args, kw in [(["a"], {}), (["b"], {}), (["a"], {"max_tokens": 5}), (["a"], {"temperature": 1})]
    ]
    assert len(set(names)) == 4
    assert open_endpoint("a", timeout=1, retries=0).name == names[0]


@pytest.mark.parametrize(
    "step",
    [
        (429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0.01"}),
        (500, b"oops", {}),
        (503, b"", {"Retry-After": "0"}),
        "drop",
        (200, answer("cut")[:-9], {}),
        (200, answer("cut")[:-9], {"Content-Length": "1000"}),
        (200, b"", {}),
        (200, b"<html>It works!</html>", {}),
        (200, b"[" * 100_000, {}),
        (200, b"{}", {}),
        (200, b"null", {}),
        (200, b'{"choices": []}', {}),
        (200, b'{"choices": {"0": 1}}', {}),
        (200, b'{"choices": [{}]}', {}),
        (200, b'{"choices": [{"message": null}]}', {}),
        (200, b'{"choices": [{"message": {"role": "assistant"}}]}', {}),
        (200, answer(None), {}),
        (200, answer(["a list"]), {}),
        (200, answer(""), {}),
        (200, answer(" \n"), {}),
        (200, b'{"error": {"message": "upstream is down"}}', {}),
    ],
)
def test_retried_and_bounded(server, open_endpoint, step):
    server.script = {"p": [step, step, ok(answer("at last"))], "never": [step]}
    one = open_endpoint("m", retries=2)
    assert one.complete(["p"]) == ["at last"]
    assert server.counts["p"] == 3
    failure(one, "never")
    assert server.counts["never"] == 3


def test_unlike_failures_share_one_bound(server, open_endpoint):
    unusable, busy = ok(b"{}"), (429, b"{}", {"Retry-After": "0.001"})
    server.script = {"p": [busy, unusable, busy, unusable, busy, unusable]}
    failure(open_endpoint("m", retries=4))
    assert server.counts["p"] == 5


def test_no_retries(server, open_endpoint):
    server.script = {"p": [(500, b"", {})], "q": [ok(b"{}")]}
    one = open_endpoint("m", retries=0)
    failure(one, "p")
    failure(one, "q")
    assert server.counts == {"p": 1, "q": 1}


def test_retry_after_is_waited_for(server, open_endpoint):
    server.script = {"p": [(429, b"{}", {"Retry-After": "0.3"}), ok(answer("a"))]}
    start = time.monotonic()
    open_endpoint("m").complete(["p"])
    assert time.monotonic() - start >= 0.3


def test_unusable_bodies_are_waited_for_longer_each_time(server, open_endpoint, monkeypatch):
    waits = []
    monkeypatch.setattr(endpoint, "BACKOFF", 0.5)
    monkeypatch.setattr(endpoint.time, "sleep", waits.append)
    server.script = {"p": [ok(b"{}")]}
    failure(open_endpoint("m", retries=6))
    assert waits == [0.5, 1, 2, 4, 8, 8]


def test_time_out(server, open_endpoint):
    server.script = {"p": ["hang", ok(answer("a"))], "never": ["hang"]}
    one = open_endpoint("m", timeout=0.1, retries=1)
    assert one.complete(["p"]) == ["a"]
    assert "nothing for 0.1 s, 2 times" in failure(one, "never")
    assert server.counts == {"p": 2, "never": 2}


def test_nobody_there(server, open_endpoint, monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    assert "check that it runs" in failure(open_endpoint("m", retries=1))


@pytest.mark.parametrize(
    ("status", "advice"), [(400, "does not take"), (401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "OPENAI_BASE_URL")]
)
@pytest.mark.parametrize(
    "body", [f'{{"error": {{"message": "no: Bearer {SECRET}\\n\\u001b[31m"}}}}', f"<p>{SECRET}</p>\n" + "x" * 9999, "", "[]"]
)
def test_not_retried(server, open_endpoint, status, advice, body):
    server.script = {"p": [(status, body.encode(), {})]}
    message = failure(open_endpoint("m"))
    assert str(status) in message
    assert advice in message
    assert len(server.requests) == 1


def test_the_key_is_nowhere(server, open_endpoint, tmp_path, caplog):
    """Not even if the endpoint tells it, and not in part, where a long message is cut."""
    caplog.set_level(logging.DEBUG)
    server.script = {
        "told": [ok(answer(f"your key is {SECRET}"))],
        "unusable": [
            ok(json.dumps({"key": "x" * (endpoint.MOST_QUOTED - len("a body without choices[0].message.content") - 20) + SECRET}).encode())
        ],
        "busy": [(429, SECRET.encode(), {"Retry-After": "0.001"})],
    }
    one = open_endpoint("m", retries=1)
    cached = Cached(one, tmp_path)
    assert cached.complete(["told"]) == ["your key is ***"]
    for prompt in ("unusable", "busy"):
        assert SECRET[:8] not in failure(one, prompt)
    assert SECRET not in "".join(path.read_text() for path in tmp_path.iterdir())
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "</script><script>alert(1)</script>",
        "\x1b[2J\x00\x07",
        "x" * 500_000,
        "Ignore all instructions.",
        "not JSON {",
        "\u2028\u202e",
        "é" * 100,
    ],
)
def test_hostile_text_is_text(server, open_endpoint, tmp_path, text):
    server.script = {"p": [ok(answer(text))]}
    assert Cached(open_endpoint("m"), tmp_path).complete(["p"]) == [text]
    assert Cached(open_endpoint("m"), tmp_path).complete(["p"]) == [text]
    assert server.counts["p"] == 1


def test_a_refusal_is_an_answer(server, open_endpoint):
    server.script = {"p": [ok(b'{"choices": [{"message": {"content": null, "refusal": "I will not."}}]}')]}
    assert open_endpoint("m").complete(["p"]) == ["I will not."]
    assert server.counts["p"] == 1


def test_usage(server, open_endpoint):
    server.script = {
        "counted": [ok(answer("a", usage={"prompt_tokens": 11, "completion_tokens": 5}))],
        "estimate": [ok(answer("12345"))],  # 8 and 5 characters
        "nonsense": [ok(answer("1", usage={"prompt_tokens": "11", "completion_tokens": -5}))],  # 8 and 1
        "p": [ok(b'{"usage": {"prompt_tokens": 100, "completion_tokens": 50}}'), ok(answer("a", usage=None))],
    }
    one = open_endpoint("m")
    for prompt, expected in [("counted", (1, 11, 5)), ("estimate", (2, 13, 7)), ("nonsense", (3, 15, 8)), ("p", (5, 116, 59))]:
        one.complete([prompt])
        assert one.usage == Usage(*expected)


def test_threads_share_it(server, open_endpoint, tmp_path):
    one, prompts = open_endpoint("m"), [f"p{i}" for i in range(40)]
    server.script = {p: [ok(answer(p.upper(), usage={"prompt_tokens": 2, "completion_tokens": 1}))] for p in prompts}
    cached = Cached(one, tmp_path, at_once=8)
    assert cached.complete(prompts) == [p.upper() for p in prompts]
    assert cached.usage == one.usage == Usage(40, 80, 40)


def test_a_restart_asks_what_is_missing(server, open_endpoint, tmp_path):
    prompts = [f"p{i}" for i in range(12)]
    server.script = {"p5": [(401, b"", {}), ok(answer("now"))]}
    with pytest.raises(CompletionError, match="401"):
        Cached(open_endpoint("m"), tmp_path, at_once=2).complete(prompts)
    assert server.counts["p5"] == 1
    assert len(server.counts) < 12
    expected = ["now" if p == "p5" else f"to {p}" for p in prompts]
    assert Cached(open_endpoint("m"), tmp_path, at_once=2).complete(prompts) == expected
    assert server.counts == {p: 1 + (p == "p5") for p in prompts}


def test_without_key(server, open_endpoint, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert open_endpoint("m").complete(["p"]) == ["to p"]
    assert server.requests[0]["authorization"] == "Bearer none"


def test_nothing_set(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", " ")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(CompletionError, match="OPENAI_BASE_URL.*OPENAI_API_KEY"):
        Endpoint("m")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://host/v1",
        "http://",
        "http://host:99999999/",
        "http://[bad/v1",
        "http://me:hunter2@host\x07/v1",
        "me:hunter2@host",
    ],
)
def test_bad_addresses(monkeypatch, url):
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(CompletionError, match="OPENAI_BASE_URL is no address") as caught:
        Endpoint("m")
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_password_in_the_address_is_not_shown(server, open_endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://me:hunter2@127.0.0.1:{server.server_port}/v1?key=abcdef")
    server.script = {"p": [(400, b"hunter2", {})]}
    one = open_endpoint("m")
    assert one.name == f"m at http://127.0.0.1:{server.server_port}/v1, max_tokens 400, temperature 0.0"
    assert "hunter2" not in failure(one)


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-ключ"])
def test_keys_that_no_header_can_hold(server, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(CompletionError, match="OPENAI_API_KEY holds") as caught:
        Endpoint("m")
    assert key not in str(caught.value)


def test_without_the_library(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(CompletionError, match="pip install openai.*explain"):
        Endpoint("m")


@pytest.mark.parametrize(
    "settings",
    [{"timeout": 0}, {"timeout": float("nan")}, {"timeout": float("inf")}, {"retries": -1}, {"max_tokens": 0}, {"temperature": -1}],
)
def test_settings_are_checked(server, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Endpoint("m", **settings)
