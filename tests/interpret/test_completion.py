import json
import threading
import time

import pytest

from interpret.completion import Answer, Cached, CompletionError, Usage


class Echo:
    """Counts what it is asked; prompts that begin with "bad" fail, others are answered by their upper case."""

    def __init__(self, name="echo", seconds=0.0):
        self.name, self.seconds = name, seconds
        self.usage = Usage(0, 0, 0)
        self.asked = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def complete(self, prompts):
        with self._lock:
            self.asked += prompts
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.seconds)
        with self._lock:
            self.at_once -= 1
        if any(prompt.startswith("bad") for prompt in prompts):
            raise CompletionError("echo: cannot: ask something else")
        return [prompt.upper() for prompt in prompts]


class Metered(Echo):
    def ask(self, prompt):
        return Answer(self.complete([prompt])[0], 7, 3)


def files(folder):
    return sorted(path for path in folder.iterdir())


def test_answers_in_order_and_equal_prompts_once(tmp_path):
    echo = Echo(seconds=0.002)
    prompts = [f"p{i % 7}" for i in range(30)]
    assert Cached(echo, tmp_path / "a" / "b", at_once=3).complete(prompts) == [p.upper() for p in prompts]
    assert sorted(echo.asked) == sorted(set(prompts))
    assert 2 <= echo.most_at_once <= 3


def test_a_second_process_asks_nothing(tmp_path):
    Cached(Echo(), tmp_path).complete(["a", "b"])
    echo = Echo()
    assert Cached(echo, tmp_path).complete(["b", "a", "c"]) == ["B", "A", "C"]
    assert echo.asked == ["c"]


def test_another_name_is_asked_again(tmp_path):
    Cached(Echo("one"), tmp_path).complete(["a"])
    other = Echo("other")
    Cached(other, tmp_path).complete(["a"])
    assert other.asked == ["a"]
    assert len(files(tmp_path)) == 2


def test_name_and_prompt_are_told_apart(tmp_path):
    Cached(Echo("x"), tmp_path).complete(["yz"])
    other = Echo("xy")
    Cached(other, tmp_path).complete(["z"])
    assert other.asked == ["z"]


def test_what_is_kept_is_told_without_asking(tmp_path):
    Cached(Echo(), tmp_path).complete(["known"])
    echo = Echo()
    found = Cached(echo, tmp_path).stored_answers(["y", "known", "y", "known"])
    assert [answer and answer.text for answer in found] == [None, "KNOWN", None, "KNOWN"] and not echo.asked
    assert Cached(echo, tmp_path / "nothing").stored_answers(["known"]) == [None]
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"HELLO", b"HELLP"),
        lambda data: data.replace(b'"prompt": "', b'"prompt": "0'),
        lambda data: data.replace(b'"HELLO"', b"null"),
        lambda data: data.replace(b'"prompt_tokens": null', b'"prompt_tokens": "7"'),
        lambda data: data.replace(b'"prompt_tokens": null', b'"prompt_tokens": 7'),
        lambda data: b"\xff\xfe" + data,
        lambda data: b"[" * 100_000,
        lambda data: b"[]",
    ],
)
def test_a_damaged_file_counts_as_not_there(tmp_path, damage):
    Cached(Echo(), tmp_path).complete(["hello", "other"])
    path = next(path for path in files(tmp_path) if b"HELLO" in path.read_bytes())
    whole = path.read_bytes()
    assert damage(whole) != whole
    path.write_bytes(damage(whole))
    echo = Echo()
    assert Cached(echo, tmp_path).complete(["hello", "other"]) == ["HELLO", "OTHER"]
    assert echo.asked == ["hello"]
    assert path.read_bytes() == whole


def test_what_a_file_holds(tmp_path):
    Cached(Metered(), tmp_path).complete(["a"])
    (path,) = files(tmp_path)
    record = json.loads(path.read_text())
    assert path.name == f"{record['prompt']}.json"
    assert record["model"] == "echo"
    assert (record["text"], record["prompt_tokens"], record["completion_tokens"]) == ("A", 7, 3)


@pytest.mark.parametrize("text", ["\0\x1b[31m</script>\r\n\u2028", "\ud800 lone", "", "x" * 300_000])
def test_hostile_answers_come_back_as_they_were(tmp_path, text):
    class Says(Echo):
        def complete(self, prompts):
            return [text]

    assert Cached(Says(), tmp_path).complete(["a\ud800"]) == [text]
    assert Cached(Echo(), tmp_path).complete(["a\ud800"]) == [text]


def test_an_error_loses_nothing_and_begins_nothing(tmp_path):
    """Four are under way when the first fails; the others are kept, and the rest is not begun."""
    begun = threading.Barrier(4)

    class Together(Echo):
        def complete(self, prompts):
            with self._lock:
                self.asked += prompts
            if len(self.asked) <= 4:
                begun.wait(10)
            if prompts[0] == "fails":
                raise CompletionError("echo: cannot: ask something else")
            time.sleep(0.05)  # still under way when the error arrives
            return [prompts[0].upper()]

    failing = Together()
    prompts = ["fails", *(f"p{i}" for i in range(20))]
    with pytest.raises(CompletionError, match="cannot"):
        Cached(failing, tmp_path, at_once=4).complete(prompts)
    assert sorted(failing.asked) == ["fails", "p0", "p1", "p2"]
    assert len(files(tmp_path)) == 3
    echo = Echo()
    assert Cached(echo, tmp_path).complete(prompts) == [p.upper() for p in prompts]
    assert sorted(echo.asked) == sorted(set(prompts) - {"p0", "p1", "p2"})


def test_a_stop_request_keeps_what_is_under_way(tmp_path):
    class Stopped(Exception):
        pass

    calls = []

    def stop_at_third():
        calls.append(threading.current_thread())
        if len(calls) == 3:
            raise Stopped

    first, prompts = Echo(seconds=0.005), [f"p{i}" for i in range(40)]
    with pytest.raises(Stopped):
        Cached(first, tmp_path, at_once=2, on_answer=stop_at_third).complete(prompts)
    assert set(calls) == {threading.main_thread()}
    assert len(first.asked) <= 5
    assert len(files(tmp_path)) == len(first.asked)
    second = Echo()
    Cached(second, tmp_path).complete(prompts)
    assert sorted(first.asked + second.asked) == sorted(prompts)


def test_usage_is_the_same_after_a_restart(tmp_path):
    cached = Cached(Metered(), tmp_path)
    with pytest.raises(CompletionError):
        cached.complete(["a", "b", "bad"])
    assert cached.usage == Usage(2, 14, 6)
    whole = Cached(Metered(), tmp_path / "unbroken")
    whole.complete(["a", "b", "c", "a"])
    again = Cached(Metered(), tmp_path)
    again.complete(["a", "b", "c", "a"])
    assert again.usage == whole.usage == Usage(3, 21, 9)


def test_usage_is_estimated_where_nobody_counts(tmp_path):
    cached = Cached(Echo(), tmp_path)
    cached.complete(["x" * 8, "y" * 5])
    assert cached.usage == Usage(2, 4, 4)


@pytest.mark.parametrize("answers", [[], ["one", "two"], [None]])
def test_a_completer_must_give_one_text(tmp_path, answers):
    class Wrong(Echo):
        def complete(self, prompts):
            return answers

    with pytest.raises(CompletionError, match="its complete"):
        Cached(Wrong(), tmp_path).complete(["a"])
    assert not list(tmp_path.glob("*.json"))


def test_at_once_is_checked(tmp_path):
    with pytest.raises(ValueError, match="at_once=0"):
        Cached(Echo(), tmp_path, at_once=0)


def test_nothing_partial_is_left(tmp_path, monkeypatch):
    from etils import epath

    def fails(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(type(epath.Path(tmp_path)), "replace", fails)
    with pytest.raises(OSError, match="disk full"):
        Cached(Echo(), tmp_path).complete(["a"])
    monkeypatch.undo()
    echo = Echo()
    assert Cached(echo, tmp_path).complete(["a"]) == ["A"]
    assert echo.asked == ["a"]
