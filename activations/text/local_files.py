"""A user's own text: a `.txt` or `.jsonl` file, or a folder of them. Documents are read when they are asked for.

A line of a `.jsonl` file is a document. A `.txt` file is one, or several with `<|endoftext|>` between them; a corpus of a
single document is cut at line ends into pieces, so that some can be held out.
"""

import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm

from activations.text.corpus import HELD_OUT_FRACTION, Corpus, Document, is_held_out
from activations.text.tokenizer import END_OF_TEXT
from storage import files

SUFFIXES = (".txt", ".jsonl")
PIECES = 20  # of a corpus that is a single document
_SEPARATOR = END_OF_TEXT.encode()


class Place(NamedTuple):
    """Bytes `first` to `last` of a file."""

    file: int
    first: int
    last: int


class LocalDocuments(Sequence[Document]):
    """Documents at places in files; what is kept in memory of each is its place and its name."""

    def __init__(self, source: "LocalFiles", places: Sequence[Place] | np.ndarray, names: Sequence[str]):
        self._source, self.names = source, list(names)
        self._places = np.asarray(places, np.int64).reshape(-1, 3)  # file, first, last

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Document(self.names[index], self._source.text(Place(*map(int, self._places[index]))))

    def sample(self, size: int, seed: int) -> "LocalDocuments":
        order = np.random.default_rng(seed).permutation(len(self))
        total = np.cumsum((self._places[:, 2] - self._places[:, 1])[order])
        chosen = np.sort(order[: int(np.searchsorted(total, size)) + 1])
        return LocalDocuments(self._source, self._places[chosen], [self.names[i] for i in chosen])


class LocalFiles:
    """Text below one path.

    Args:
      path: a `.txt` or `.jsonl` file, or a folder with such files at any depth.
      field: of a `.jsonl` line that holds the text.

    Raises:
      FileNotFoundError: nothing there, or a folder without such files.
    """

    def __init__(self, path: str, field: str = "text"):
        root = pathlib.Path(path)
        if not root.exists():
            raise FileNotFoundError(f"config.source.text: nothing at {path}: name a .txt or .jsonl file, or a folder of them")
        self._files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.suffix in SUFFIXES and p.is_file())
        if not self._files or self._files[0].suffix not in SUFFIXES:
            raise FileNotFoundError(f"config.source.text: {path} is no .txt or .jsonl file, nor a folder that holds any")
        self._root, self._field = (root.parent if root.is_file() else root), field
        self.description = root.name

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
        size = sum(p.stat().st_size for p in self._files)
        bar = tqdm.tqdm(total=size, desc="reading text", unit="B", unit_scale=True, mininterval=1.0, delay=3.0)
        for name, place in self._places():
            text = self.text(place)
            bar.update(place.last - place.first)
            fingerprint = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if not text.strip():
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
        split = [LocalDocuments(self, [p for p, h in zip(places, held_N, strict=True) if h == part],
                                [n for n, h in zip(names, held_N, strict=True) if h == part]) for part in (False, True)]  # fmt: skip
        listing = self._listing()
        return Corpus(split[0], split[1], tuple(dropped), self._digest(listing), listing)

    def text(self, place: Place) -> str:
        """Of one document."""
        path = self._files[place.file]
        data = self._mapped(place.file)[place.first : place.last].tobytes()
        if path.suffix == ".txt":
            return self._decoded(data, place)
        where = lambda: (
            f"config.source.text: {path}, line {1 + int(np.count_nonzero(self._mapped(place.file)[: place.first] == ord(chr(10)))):,}"
        )
        line = self._decoded(data, place)
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where()} is no line of JSON ({error}): mend it or take it out") from error
        if not isinstance(record, dict) or not isinstance(record.get(self._field), str):
            found = ", ".join(f"{k}: {type(v).__name__}" for k, v in record.items()) if isinstance(record, dict) else type(record).__name__
            raise ValueError(f"{where()} has no text in a field {self._field!r} (it is {found}): set config.source.text_field")
        found = record[self._field]
        if not found.isascii() and any("\ud800" <= c <= "\udfff" for c in found):
            raise ValueError(f"{where()} holds half a character (a surrogate alone): mend it or take it out")
        return found

    def _decoded(self, data: bytes, place: Place) -> str:
        try:
            return data.decode("utf-8-sig" if place.first == 0 else "utf-8")
        except UnicodeDecodeError as error:
            at = place.first + error.start
            raise ValueError(f"config.source.text: {self._files[place.file]} is not UTF-8 at byte {at:,}: convert it") from error

    def _places(self) -> Iterator[tuple[str, Place]]:
        for i, path in enumerate(self._files):
            name = path.relative_to(self._root).as_posix()
            data = self._mapped(i)
            if path.suffix == ".jsonl":
                ends = np.append(np.flatnonzero(data == ord("\n")), len(data))
                first = 0
                for line, end in enumerate(ends, start=1):
                    if data[first:end].tobytes().strip():
                        yield f"{name}:{line}", Place(i, first, int(end))
                    first = int(end) + 1
                continue
            parts = list(_parts(data.tobytes()))
            for number, (first, end) in enumerate(parts):
                yield (name if len(parts) == 1 else f"{name}#{number}"), Place(i, first, end)

    def _cut(self, place: Place, name: str) -> tuple[list[Place], list[str]]:
        """A single document in pieces of about equal length that begin at lines."""
        if self._files[place.file].suffix == ".jsonl":
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


def _parts(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the documents of a `.txt` file begin and end."""
    first = 0
    while (found := data.find(_SEPARATOR, first)) >= 0:
        yield first, found
        first = found + len(_SEPARATOR)
    yield first, len(data)


def _held_out(names: Sequence[str]) -> list[bool]:
    """By the hash of names; of a few documents, of which none or all would be held out, the nearest to the rule."""
    held = [is_held_out(name) for name in names]
    if any(held) and not all(held):
        return held
    order = sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode()).hexdigest())
    chosen = set(order[: max(1, int(HELD_OUT_FRACTION * len(names)))])
    return [i in chosen for i in range(len(names))]
