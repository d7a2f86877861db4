"""A user's own activations, of any model and modality, taken in as a store without being copied.

Files are `.npy`, `.npz` or safetensors, or folders of them.  The array of activations is (…, D): all axes before the last are rows,
and of more than two axes the first counts documents and the last before D positions.  A side-car says more of each row, as an
array of the rows' shape beside it (`tokens`, `documents`, `positions` in the same file, or `x.tokens.npy` beside `x.npy`), and
`vocabulary.json`, a list of the text of every token, makes contexts readable.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from activations.store import Elsewhere, Rows, StoreWriter, as_rows
from storage import files
from storage.arrays import SUFFIXES, open_arrays

SHARD_ROWS = 2**18  # rows checked and recorded at a time
VOCABULARY = "vocabulary.json"
_NAMES = ("acts", "activations")
_COLUMNS = ("documents", "positions", "tokens")
_SIDECARS = tuple(f".{c}.npy" for c in _COLUMNS)


class UserArray(NamedTuple):
    """One array of activations.

    Attributes:
      path, name: its file, and what it is called there.
      rows, width: N and D.
      columns: document, position, token of every row, (N,) int32; tokens are -1 where none are given.
      documents: names of its documents, which are numbered through all arrays.
    """

    path: pathlib.Path
    name: str
    rows: int
    width: int
    columns: tuple[np.ndarray, np.ndarray, np.ndarray]
    documents: list[str]


class Part(NamedTuple):
    """Rows `first` to `last` of an array."""

    array: UserArray
    first: int
    last: int


def find(paths: str, field: str) -> list[UserArray]:
    """The arrays at one or several paths (with commas between them), in order; documents are numbered through.

    Raises:
      FileNotFoundError, ValueError: nothing there, no array of activations in a file, widths or side-cars that do not fit; names
        the field and the file.
    """
    found: list[UserArray] = []
    documents = 0
    for path in _files(paths, field):
        array = _open(path, field, documents)
        if found and array.width != found[0].width:
            raise ValueError(f"config.{field}: {path} has width {array.width}, {found[0].path} has {found[0].width}: one model, one site")
        documents += len(array.documents)
        found.append(array)
    if not sum(a.rows for a in found):
        raise ValueError(f"config.{field}: no rows in {paths}")
    return found


def fingerprint(arrays: Sequence[UserArray]) -> dict[str, str]:
    """What tells other data under the same name without reading all of it: names, lengths and pieces; `ActivationStore` verifies the rest."""
    return {str(a.path): files.sha256_pieces(epath.Path(a.path)) for a in arrays}


def split(arrays: Sequence[UserArray], held_out_rows: int) -> tuple[list[Part], list[Part]]:
    """Training parts and held-out ones: the last rows, at most a tenth, from where a document begins.

    Raises:
      ValueError: too few rows to hold any out.
    """
    total = sum(a.rows for a in arrays)
    cut = total - min(held_out_rows, total // 10)
    before = 0
    train: list[Part] = []
    held_out: list[Part] = []
    for a in arrays:
        inside = min(max(cut - before, 0), a.rows)
        if 0 < inside < a.rows:
            inside = _document_start(a.columns[0], inside)
        train += [Part(a, 0, inside)] if inside else []
        held_out += [Part(a, inside, a.rows)] if inside < a.rows else []
        before += a.rows
    if not train or not held_out:
        raise ValueError(
            f"config.source.activations: {total} rows cannot be split into training and held-out ones: give more, or eval_activations"
        )
    return train, held_out


def whole(arrays: Sequence[UserArray]) -> list[Part]:
    return [Part(a, 0, a.rows) for a in arrays]


def rows_of(parts: Sequence[Part]) -> int:
    return sum(p.last - p.first for p in parts)


def take_in(
    parts: Sequence[Part],
    documents: Sequence[str],
    folder: epath.PathLike,
    hook: dict[str, Any],
    progress: Callable[[int], None],
    before_shard: Callable[[], None],
) -> epath.Path:
    """Makes a store of these rows, each looked at once; what was looked at before a stop is not looked at again. Returns its manifest.

    Args:
      documents: names, of all arrays.

    Raises:
      ValueError: a row that is not finite; names file and row.
    """
    header = {"width": parts[0].array.width, "dtype": "as they are", "hook": hook, "documents": list(documents)}
    header["source"] = [[str(p.array.path), p.array.name, p.first, p.last] for p in parts]
    writer = StoreWriter(folder, header)
    pieces = [(p.array, start, min(start + SHARD_ROWS, p.last)) for p in parts for start in range(p.first, p.last, SHARD_ROWS)]
    for index, (array, first, last) in enumerate(pieces):
        before_shard()
        if not writer.kept(index):
            acts_ND = as_rows(open_arrays(array.path)[array.name])[first:last]
            with np.errstate(over="ignore"):
                bad = ~np.isfinite(acts_ND.astype(np.float32)).all(axis=1)
            if bad.any():
                row = first + int(np.flatnonzero(bad)[0])
                raise ValueError(
                    f"{array.path}: row {row:,} holds NaN or infinity (or is beyond float32), and {bad.sum() - 1:,} rows near it"
                )
            document, position, token = (column[first:last] for column in array.columns)
            writer.write(index, Rows(acts_ND, document, position, token), Elsewhere(str(array.path), array.name, first))
        progress(last - first)
    return writer.finish()


def vocabulary(arrays: Sequence[UserArray]) -> list[str] | None:
    """Text of every token id, where tokens and a `vocabulary.json` are beside the activations."""
    path = epath.Path(arrays[0].path.parent / VOCABULARY)
    if not path.exists() or any((a.columns[2] < 0).any() for a in arrays):
        return None
    texts = files.read_json(path)
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise ValueError(f"{path}: a list of texts, one for every token id, is wanted")
    highest = max(int(a.columns[2].max(initial=-1)) for a in arrays)
    if highest >= len(texts):
        raise ValueError(f"{path} has {len(texts)} texts, but there is a token {highest}")
    return texts


def _files(paths: str, field: str) -> list[pathlib.Path]:
    out: list[pathlib.Path] = []
    for text in (t for part in paths.split(",") if (t := part.strip())):
        path = pathlib.Path(text).absolute()
        if not path.exists():
            raise FileNotFoundError(f"config.{field}: nothing at {text}")
        inside = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
        inside = [p for p in inside if not p.name.endswith(_SIDECARS)]
        if not inside or inside[0].suffix not in SUFFIXES:
            raise ValueError(f"config.{field}: {text} is no {', '.join(SUFFIXES)} file, no folder of them, and no store of activations")
        out += inside
    return out


def _open(path: pathlib.Path, field: str, first_document: int) -> UserArray:
    arrays = open_arrays(path)
    floats = [n for n, a in arrays.items() if a.dtype.kind == "f" or a.dtype.name == "bfloat16"]
    wide = [n for n in floats if arrays[n].ndim >= 2]
    chosen = [n for n in _NAMES if n in wide] or wide
    if len(chosen) != 1:
        shapes = ", ".join(f"{n or 'the array'} {a.dtype} {a.shape}" for n, a in arrays.items())
        raise ValueError(f"config.{field}: {path} must hold one array of floats (rows, D), or one called {_NAMES[0]!r}; it holds {shapes}")
    acts = arrays[chosen[0]]
    leading, rows = acts.shape[:-1], int(np.prod(acts.shape[:-1]))
    if acts.shape[-1] < 2:
        raise ValueError(f"config.{field}: {path} has rows of width {acts.shape[-1]}")
    if not acts.flags.c_contiguous and acts.ndim > 2:
        raise ValueError(f"config.{field}: {path} holds an array in column order: save it with np.ascontiguousarray")
    given = {c: _column(path, c, arrays, leading, field) for c in _COLUMNS}
    document, position = np.zeros(rows, np.int32), np.arange(rows, dtype=np.int32)
    if len(leading) > 1:
        document = np.repeat(np.arange(leading[0], dtype=np.int32), rows // max(leading[0], 1))
        position = np.tile(np.arange(rows // max(leading[0], 1), dtype=np.int32), leading[0])
    if given["documents"] is not None:
        document = given["documents"]
    numbers, numbered = np.unique(document, return_inverse=True)  # whatever they are called: 0, 1, …
    names = [path.name if len(numbers) == 1 else f"{path.name}#{n}" for n in numbers]
    if given["positions"] is not None:
        position = given["positions"]
    token = given["tokens"] if given["tokens"] is not None else np.full(rows, -1, np.int32)
    return UserArray(path, chosen[0], rows, acts.shape[-1], (numbered.astype(np.int32) + np.int32(first_document), position, token), names)


def _column(path: pathlib.Path, name: str, arrays: dict[str, np.ndarray], leading: tuple[int, ...], field: str) -> np.ndarray | None:
    beside = path.with_name(f"{path.stem}.{name}.npy")
    found = next((arrays[n] for n in (name, name[:-1]) if n in arrays), None)
    if found is None and beside.exists():
        found = open_arrays(beside)[""]
    if found is None:
        return None
    if found.dtype.kind not in "iu" or found.shape not in (leading, (int(np.prod(leading)),)):
        raise ValueError(f"config.{field}: {name} of {path} are {found.dtype} {found.shape}, whole numbers of shape {leading} are wanted")
    column = np.asarray(found).reshape(-1)
    if column.size and (column.min() < 0 or column.max() >= 2**31):
        raise ValueError(f"config.{field}: {name} of {path} reach from {column.min()} to {column.max()}: 0 to 2³¹−1 are wanted")
    return column.astype(np.int32)


def _document_start(document_N: np.ndarray, row: int) -> int:
    """The last row up to `row` at which a document begins; `row` itself where that would be the first."""
    starts = np.flatnonzero(np.diff(document_N[: row + 1])) + 1
    return int(starts[-1]) if len(starts) else row
