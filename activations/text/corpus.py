"""Documents, and their split into those to learn from and those held out."""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

HELD_OUT_FRACTION = 0.1
NEAR_DUPLICATE_SHARE = 0.5
SAMPLE_FROM = 8  # times as much as is asked for: of less, all documents are read, so that rows come from as many as can be
MIN_LINE = 20  # shorter lines (`return self`, `pass`) are shared by files that have nothing to do with each other


class Document(NamedTuple):
    """One document: `name` is stable across machines (a path below the corpus' folder, with what tells documents of a file apart)."""

    name: str
    text: str


@runtime_checkable
class Documents(Protocol):
    """Documents by index, in memory or read when they are asked for.

    Attributes:
      names: of all of them, without their text.
    """

    @property
    def names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Document: ...

    def __iter__(self) -> Iterator[Document]: ...

    def sample(self, size: int, seed: int) -> "Documents":
        """A random choice of documents, in their order, that holds at least `size` bytes; all where that is little, or too much."""


class InMemory(tuple[Document, ...]):
    """Documents that are there already."""

    @property
    def names(self) -> list[str]:
        return [d.name for d in self]

    def sample(self, size: int, seed: int) -> "InMemory":
        size_N = np.array([len(d.text.encode()) for d in self], np.int64)
        if size_N.sum() < SAMPLE_FROM * size:
            return self
        order = np.random.default_rng(seed).permutation(len(self))
        enough = int(np.searchsorted(np.cumsum(size_N[order]), size)) + 1
        return InMemory(self[i] for i in sorted(order[:enough].tolist()))


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Documents in order of name, split by document into train and held-out.

    Attributes:
      train: documents that the embedded language model, and SAEs, may learn from.
      held_out: documents they never see (about `HELD_OUT_FRACTION` of the names, by hash of the name).
      dropped: names left out as duplicates of a document before them.
      digest: sha256 over what was read.
      listing: a record a document, or a file of documents: name, bytes, sha256; for the run's own record.
      notes: what was left out or split of what was found, a line each, for people.
    """

    train: Documents
    held_out: Documents
    dropped: tuple[str, ...]
    digest: str
    listing: list[dict[str, Any]]
    notes: tuple[str, ...] = ()


@runtime_checkable
class TextSource(Protocol):
    """Where a corpus comes from.

    Attributes:
      description: what people call it.
    """

    description: str

    def digest(self) -> str:
        """Changes if the text does; cheaper than `read` where it can be."""

    def read(self) -> Corpus:
        """The documents."""


def split_corpus(documents: Iterable[Document]) -> Corpus:
    """Drops near-duplicates and splits by document; the split depends on a document's name alone."""
    kept, dropped = drop_near_duplicates(sorted(documents))
    digest = hashlib.sha256("".join(f"{d.name}\0{_sha256(d.text)}\n" for d in kept).encode()).hexdigest()
    held_out = InMemory(d for d in kept if is_held_out(d.name))
    train = InMemory(d for d in kept if not is_held_out(d.name))
    listing = [
        {"name": d.name, "split": split, "bytes": len(d.text.encode()), "sha256": _sha256(d.text)}
        for split, docs in (("train", train), ("held_out", held_out))
        for d in docs
    ]
    return Corpus(train, held_out, tuple(dropped), digest, listing)


def is_held_out(name: str) -> bool:
    """Whether a document of this name belongs to the held-out split."""
    return int(_sha256(name)[:8], 16) < HELD_OUT_FRACTION * 2**32


def drop_near_duplicates(documents: Sequence[Document]) -> tuple[list[Document], list[str]]:
    """Keeps documents in order; drops one if at least half of its distinct long lines stand in those kept before it.

    Returns:
      (kept documents, names of the dropped).
    """
    seen: set[str] = set()
    kept: list[Document] = []
    dropped: list[str] = []
    for document in documents:
        lines = {line.strip() for line in document.text.splitlines() if len(line.strip()) >= MIN_LINE}
        if lines and len(lines & seen) >= NEAR_DUPLICATE_SHARE * len(lines):
            dropped.append(document.name)
            continue
        kept.append(document)
        seen |= lines
    return kept, dropped


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
