"""Asking a language model many prompts: the one protocol, and a cache of answers that outlives the process."""

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, Protocol, runtime_checkable

from etils import epath

CHARACTERS_PER_TOKEN = 4  # about, of English text and code: what stands for a count that nobody gave
READERS = 16  # cache files read at a time, since in a bucket each is a round trip


class CompletionError(ValueError):
    """Prompts could not be answered. One line: who was asked, what it said, what to do."""


class Usage(NamedTuple):
    """What answers cost.

    Attributes:
      requests: requests that were answered, usably or not.
      prompt_tokens, completion_tokens: as the model counts them; a quarter of the characters where it did not say.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int


class Answer(NamedTuple):
    """To one prompt.

    Attributes:
      text: what the model said.
      prompt_tokens, completion_tokens: None where not known.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completer(Protocol):
    """Answers prompts, each by itself: nothing is remembered from one to the next.

    Attributes:
      name: of the model and of every setting that answers depend on; without secrets, since caches hold it.
      usage: cumulative.
    """

    @property
    def name(self) -> str: ...

    @property
    def usage(self) -> Usage: ...

    def complete(self, prompts: Sequence[str]) -> list[str]:
        """One answer a prompt, in their order, of any content. May be called by several threads at once. Raises CompletionError."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A completer that knows what each answer cost."""

    def ask(self, prompt: str) -> Answer: ...


class Cached:
    """A completer's answers, each kept in a file from the moment it arrives: what was paid for is not lost, and not asked again.

    A file is named by the sha256 of completer and prompt and holds a digest of all that it says; one that is damaged counts as not there.

    Args:
      completer: whom to ask; called by `at_once` threads, a prompt at a time.
      folder: of the files, on disk or in a bucket; made when the first is written.
      at_once: prompts under way at a time.
      on_answer: called in the caller's thread after an answer was asked for and kept. May raise, say to stop.

    Raises:
      ValueError: `at_once` below 1.
    """

    def __init__(self, completer: Completer, folder: epath.PathLike, at_once: int = 4, on_answer: Callable[[], object] = lambda: None):
        if at_once < 1:
            raise ValueError(f"at_once={at_once}: at least one prompt must be under way")
        self._completer, self._folder, self._at_once, self._on_answer = completer, epath.Path(folder), at_once, on_answer
        self._kept: dict[str, Answer] = {}  # by key; each key is written by one thread
        self._used: dict[str, Usage] = {}  # by key, of prompts that `complete` was given

    @property
    def name(self) -> str:
        return self._completer.name

    @property
    def usage(self) -> Usage:
        """Of every different prompt that was answered through this object, whether now or by a file: the same after a restart as without.
        What this process paid is the completer's own."""
        return total(self._used.values())

    def stored_answers(self, prompts: Sequence[str]) -> list[Answer | None]:
        """Their answers as far as they are there; nothing is asked."""
        self._unanswered(prompts)
        return [self._kept.get(self._key(prompt)) for prompt in prompts]

    def complete(self, prompts: Sequence[str]) -> list[str]:
        """Answers in the order of the prompts; equal ones are asked once.

        After an error no further prompt is begun, and those under way are waited for and kept before it is raised.

        Raises:
          CompletionError: the completer's, or it gave something else than one text.
          OSError: an answer could not be written.
        """
        unanswered = self._unanswered(prompts)
        keys = [self._key(prompt) for prompt in prompts]
        try:
            self._ask_all(list(unanswered.items()))
        finally:
            for key, prompt in zip(keys, prompts, strict=True):
                if key in self._kept:
                    self._used[key] = usage_of(prompt, self._kept[key])
        return [self._kept[key].text for key in keys]

    def _ask_all(self, unanswered: list[tuple[str, str]]) -> None:
        waiting = iter(unanswered)
        under_way: set[Future[None]] = set()
        # No more is submitted than runs, so that leaving the pool waits for answers that are being paid for and for nothing else.
        with ThreadPoolExecutor(self._at_once, thread_name_prefix="completion") as pool:
            while True:
                while len(under_way) < self._at_once and (item := next(waiting, None)) is not None:
                    under_way.add(pool.submit(self._ask, *item))
                if not under_way:
                    return
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    self._on_answer()

    def _ask(self, key: str, prompt: str) -> None:
        if isinstance(self._completer, Counting):
            answer = self._completer.ask(prompt)
        else:
            texts = self._completer.complete([prompt])
            if len(texts) != 1 or not isinstance(texts[0], str):
                raise CompletionError(f"{self.name}: gave {len(texts)} answers to one prompt, or no text: its complete() is at fault")
            answer = Answer(texts[0])
        self._write(key, answer)
        self._kept[key] = answer

    def _unanswered(self, prompts: Sequence[str]) -> dict[str, str]:
        """Key → prompt, of different prompts without an answer, in their order."""
        asked = {self._key(prompt): prompt for prompt in prompts}
        unread = [key for key in asked if key not in self._kept]
        if unread and self._folder.exists():
            with ThreadPoolExecutor(READERS) as pool:
                found = zip(unread, pool.map(self._read, unread), strict=True)
                self._kept.update({key: answer for key, answer in found if answer is not None})
        return {key: prompt for key, prompt in asked.items() if key not in self._kept}

    def _key(self, prompt: str) -> str:
        return hashlib.sha256(f"{self.name}\0{prompt}".encode("utf-8", "surrogatepass")).hexdigest()

    def _path(self, key: str) -> epath.Path:
        return self._folder / f"{key}.json"

    def _read(self, key: str) -> Answer | None:
        try:
            record = json.loads(self._path(key).read_text())
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        if not isinstance(record, dict) or record.get("prompt") != key or not isinstance(record.get("text"), str):
            return None
        told = record.pop("sha256", None)
        if told not in (_record_digest(record), _digest(record["text"])):
            return None
        counts = [record.get(name) for name in ("prompt_tokens", "completion_tokens")]
        if any(count is not None and type(count) is not int for count in counts):
            return None
        return Answer(record["text"], *counts)

    def _write(self, key: str, answer: Answer) -> None:
        record = {"prompt": key, "model": self.name, **answer._asdict()}
        record["sha256"] = _record_digest(record)
        path = self._path(key)
        self._folder.mkdir(parents=True, exist_ok=True)
        # A name of its own, since two runs may share a folder.
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        temporary.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        temporary.replace(path)


class Meter:
    """Usage that several threads add to."""

    def __init__(self) -> None:
        self._lock, self._sum = threading.Lock(), Usage(0, 0, 0)

    def add(self, usage: Usage) -> None:
        with self._lock:
            self._sum = total([self._sum, usage])

    @property
    def sum(self) -> Usage:
        return self._sum


def total(parts: Iterable[Usage]) -> Usage:
    """Their sum."""
    return Usage(*(sum(column) for column in zip(Usage(0, 0, 0), *parts, strict=True)))


def usage_of(prompt: str, answer: Answer) -> Usage:
    """Of one request; counts that are not known are estimated."""
    counts = (answer.prompt_tokens, about(prompt)), (answer.completion_tokens, about(answer.text))
    return Usage(1, *(estimated if known is None else known for known, estimated in counts))


def about(text: str) -> int:
    """Tokens, estimated from characters."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _record_digest(record: dict[str, Any]) -> str:
    """Of an answer's file but its checksum; earlier versions kept that of the text alone."""
    return _digest(json.dumps(record, sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
