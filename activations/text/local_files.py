"""A user's own text: a `.txt` or `.jsonl` file, or a folder of them. Documents are read when they are asked for.

A line of a `.jsonl` file is a document, and so is a `.txt` file; a separator in the text (`<|endoftext|>`, and those of the
model's tokenizer) splits either into several. A corpus of a single document is cut at line ends into pieces, so that some can
be held out.
"""

import collections
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm

from activations.text.corpus import HELD_OUT_FRACTION, Corpus, Document, is_held_out
from activations.text.tokenizer import END_OF_TEXT
from storage import files

SUFFIXES = (".txt", ".jsonl")  # in small or capital letters
PIECES = 20  # of a corpus that is a single document
_NAMED_FIELDS = 6  # of a line that lacks the text
_BOM = "\ufeff"


class Place(NamedTuple):
    """Bytes `first` to `last` of a file; of a line of JSON the `part`-th of so many `parts` of its text."""

    file: int
    first: int
    last: int
    part: int = 0
    parts: int = 1


class LocalDocuments(Sequence[Document]):
    """Documents at places in files; what is kept in memory of each is its place and its name."""

    def __init__(self, source: "LocalFiles", places: Sequence[Place] | np.ndarray, names: Sequence[str]):
        self._source, self.names = source, list(names)
        self._places = np.asarray(places, np.int64).reshape(-1, len(Place._fields))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Document(self.names[index], self._source.text(Place(*map(int, self._places[index]))))

    def sample(self, size: int, seed: int) -> "LocalDocuments":
        order = np.random.default_rng(seed).permutation(len(self))
        total = np.cumsum(((self._places[:, 2] - self._places[:, 1]) / self._places[:, 4])[order])
        chosen = np.sort(order[: int(np.searchsorted(total, size)) + 1])
        return LocalDocuments(self._source, self._places[chosen], [self.names[i] for i in chosen])


class LocalFiles:
    """Text below one path.

    Args:
      path: a `.txt` or `.jsonl` file, or a folder with such files at any depth; hidden files and folders are left out.
      field: of a `.jsonl` line that holds the text.
      separators: texts that stand between documents.

    Raises:
      FileNotFoundError: nothing there, or a folder without such files; names what is there.
      ValueError: a file whose name is not UTF-8.
    """

    def __init__(self, path: str, field: str = "text", separators: Sequence[str] = (END_OF_TEXT,)):
        root = pathlib.Path(path)
        if not root.exists():
            raise FileNotFoundError(f"config.source.text: nothing at {path}: name a .txt or .jsonl file, or a folder of them")
        self._files, others = ([root], []) if root.is_file() else _chosen(root)
        self._left_out = _counted(others)
        if not self._files or _kind(self._files[0]) not in SUFFIXES:
            there = f" (it holds {self._left_out})" if self._left_out else ""
            raise FileNotFoundError(f"config.source.text: {path} is no .txt or .jsonl file, nor a folder that holds any{there}")
        self._root, self._field = (root.parent if root.is_file() else root), field
        for file in self._files:
            if not _is_unicode(str(file)):
                raise ValueError(f"config.source.text: the name of the file {ascii(str(file))} is not UTF-8: rename it")
        self.description = root.name
        self._separators = tuple(separators)
        self._between = re.compile("|".join(map(re.escape, sorted(separators, key=len, reverse=True))))
        self._line: tuple[Place, list[str]] | None = None  # the last one, whose parts are asked for in turn

    def digest(self) -> str:
        return self._digest(self._listing())

    def _listing(self) -> list[dict[str, Any]]:
        return [
            {"name": p.relative_to(self._root).as_posix(), "bytes": p.stat().st_size, "sha256": files.sha256_file(p)} for p in self._files
        ]

    def _digest(self, listing: list[dict[str, Any]]) -> str:
        lines = [self._field, *(f"{f['name']} {f['sha256']}" for f in listing)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def read(self) -> Corpus:
        """Looks at every document once: what is empty or was there before (to the letter) stays out.

        Raises:
          ValueError: a line that is no JSON or lacks the field, text that is not UTF-8, or no text at all; names file and line.
        """
        places: list[Place] = []
        names: list[str] = []
        dropped: list[str] = []
        seen: set[bytes] = set()
        empty, split, self._line = 0, 0, None
        size = sum(p.stat().st_size for p in self._files)
        bar = tqdm.tqdm(total=size, desc="reading text", unit="B", unit_scale=True, mininterval=1.0, delay=3.0)
        for name, place in self._places():
            text = self.text(place)
            bar.update((place.last - place.first) // place.parts)
            fingerprint = hashlib.blake2b(text.encode(), digest_size=16).digest()
            split += name.endswith("#1")
            if not text.strip():
                empty += 1
                continue
            if fingerprint in seen:
                dropped.append(name)
                continue
            seen.add(fingerprint)
            places.append(place)
            names.append(name)
        bar.close()
        if not places:
            names_of = self._files[0] if len(self._files) == 1 else self._root
            raise ValueError(f"config.source.text: {names_of} holds no text")
        if len(places) == 1:
            places, names = self._cut(places[0], names[0])
        held_N = _held_out(names)
        halves = [LocalDocuments(self, [p for p, h in zip(places, held_N, strict=True) if h == part],
                                [n for n, h in zip(names, held_N, strict=True) if h == part]) for part in (False, True)]  # fmt: skip
        listing = self._listing()
        return Corpus(halves[0], halves[1], tuple(dropped), self._digest(listing), listing, self._notes(empty, len(dropped), split))

    def _notes(self, empty: int, dropped: int, split: int) -> tuple[str, ...]:
        left = f"{self.description}: left out {self._left_out}: only .txt and .jsonl are read" if self._left_out else ""
        out = [f"{n:,} {what}" for n, what in ((empty, "empty documents"), (dropped, "documents that were there before")) if n]
        apart = f"{self.description}: {split:,} texts hold {' or '.join(self._separators)} and are split there" if split else ""
        return tuple(line for line in (left, f"{self.description}: left out {' and '.join(out)}" if out else "", apart) if line)

    def text(self, place: Place) -> str:
        """Of one document."""
        if _kind(self._files[place.file]) == ".txt":
            return self._decoded(place)
        return self._line_texts(place)[place.part]

    def _line_texts(self, place: Place) -> list[str]:
        """The documents of a line of JSON."""
        line = place._replace(part=0, parts=1)
        if self._line is None or self._line[0] != line:
            self._line = line, self._between.split(self._record(line))
        return self._line[1]

    def _record(self, place: Place) -> str:
        try:
            record = json.loads(self._decoded(place).removeprefix(_BOM))
        except (ValueError, RecursionError) as error:
            if str(error).startswith("config."):
                raise
            at = f" from character {error.pos + 1:,}" if isinstance(error, json.JSONDecodeError) else ""
            raise ValueError(f"{self._where(place)} is no line of JSON{at}: mend it or take it out") from error
        if not isinstance(record, dict) or not isinstance(record.get(self._field), str):
            raise ValueError(
                f"{self._where(place)} has no text in a field {self._field!r} (it is {_described(record)}): set config.source.text_field"
            )
        text = record[self._field]
        if not _is_unicode(text):
            raise ValueError(f"{self._where(place)} holds half a character (a surrogate alone): mend it or take it out")
        return text

    def _where(self, place: Place, byte: int = 0) -> str:
        """File and line of a byte of a place."""
        before = self._mapped(place.file)[: place.first + byte]
        return f"config.source.text: {self._files[place.file]}, line {1 + int(np.count_nonzero(before == ord(chr(10)))):,}"

    def _decoded(self, place: Place) -> str:
        data = self._mapped(place.file)[place.first : place.last].tobytes()
        if (zero := data.find(b"\0")) >= 0:
            raise ValueError(f"{self._where(place, zero)} holds a zero byte: it is UTF-16 or no text: convert it to UTF-8")
        try:
            return data.decode("utf-8-sig" if place.first == 0 else "utf-8")
        except UnicodeDecodeError as error:
            where = self._where(place, error.start)
            raise ValueError(f"{where} is not UTF-8 at byte {place.first + error.start:,}: convert it") from error

    def _places(self) -> Iterator[tuple[str, Place]]:
        for i, path in enumerate(self._files):
            name = path.relative_to(self._root).as_posix()
            data = self._mapped(i)
            if _kind(path) == ".jsonl":
                ends = np.append(np.flatnonzero(data == ord("\n")), len(data))
                first = 0
                for line, end in enumerate(ends, start=1):
                    if data[first:end].tobytes().strip():
                        whole = Place(i, first, int(end))
                        parts = len(self._line_texts(whole))
                        for part in range(parts):
                            yield f"{name}:{line}" + (f"#{part}" if parts > 1 else ""), whole._replace(part=part, parts=parts)
                    first = int(end) + 1
                continue
            places = list(_parts(data.tobytes(), self._separators))
            for number, (first, end) in enumerate(places):
                yield (name if len(places) == 1 else f"{name}#{number}"), Place(i, first, end)

    def _cut(self, place: Place, name: str) -> tuple[list[Place], list[str]]:
        """A single document in pieces of about equal length that begin at lines."""
        if _kind(self._files[place.file]) == ".jsonl":
            raise ValueError(
                f"config.source.text: {self._files[place.file]} holds a single document: at least two are needed, one to hold out"
            )
        data = self._mapped(place.file)[place.first : place.last]
        lines = np.concatenate([[0], np.flatnonzero(data[:-1] == ord("\n")) + 1])
        wanted = np.linspace(0, len(data), PIECES)[:-1]
        starts = np.unique([*lines[np.searchsorted(lines, wanted, side="right") - 1], lines[-1]])
        if len(starts) < 2:
            raise ValueError(
                f"config.source.text: {self._files[place.file]} is a single line: at least two documents are needed, one to hold out"
            )
        bounds = [*map(int, starts), len(data)]
        places = [Place(place.file, place.first + a, place.first + b) for a, b in zip(bounds, bounds[1:], strict=False)]
        return places, [f"{name}#{i}" for i in range(len(places))]

    def _mapped(self, file: int) -> np.ndarray:
        about = self._files[file].stat()
        return _mapped(self._files[file], about.st_size, about.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _mapped(path: pathlib.Path, size: int, changed: int) -> np.ndarray:
    del changed  # of another file under an old name
    return np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)


def _parts(data: bytes, separators: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where the documents of a `.txt` file begin and end."""
    first = 0
    for found in re.finditer(b"|".join(re.escape(t.encode()) for t in sorted(separators, key=len, reverse=True)), data):
        yield first, found.start()
        first = found.end()
    yield first, len(data)


def _kind(path: pathlib.Path) -> str:
    return path.suffix.lower()


def _chosen(root: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
    """Files of text below a folder, and the kind and name of every other one."""
    chosen: list[pathlib.Path] = []
    others: list[str] = []
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.is_dir():
            others += ["linked folder"] if path.is_symlink() and not hidden else []
        elif not hidden and _kind(path) in SUFFIXES and path.is_file():
            chosen.append(path)
        else:
            others.append("hidden" if hidden else "broken link" if not path.is_file() else _kind(path) or "without suffix")
    return chosen, others


def _counted(kinds: Sequence[str]) -> str:
    """ "2 .json, 1 hidden": how many files of each kind, the most frequent first."""
    return ", ".join(
        f"{n:,} {ascii(kind)[1:-1]}" for kind, n in sorted(collections.Counter(kinds).items(), key=lambda item: (-item[1], item[0]))
    )


def _described(record: Any) -> str:
    """What JSON holds, in its own words."""
    names = {str: "text", bool: "true or false", int: "number", float: "number", list: "list", dict: "object", type(None): "null"}
    if not isinstance(record, dict):
        return names[type(record)]
    fields = [f"{json.dumps(k[:40])[1:-1]}: {names[type(v)]}" for k, v in list(record.items())[:_NAMED_FIELDS]]
    return ", ".join(fields + ["…"] * (len(record) > _NAMED_FIELDS)) or "empty"


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _held_out(names: Sequence[str]) -> list[bool]:
    """By the hash of names; of a few documents, of which none or all would be held out, the nearest to the rule."""
    held = [is_held_out(name) for name in names]
    if any(held) and not all(held):
        return held
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).hexdigest())
    chosen = set(order[: max(1, int(HELD_OUT_FRACTION * len(names)))])
    return [i in chosen for i in range(len(names))]
