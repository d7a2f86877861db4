"""A user's own activations, of any model and modality, taken in as a store without being copied.

Files are `.npy`, `.npz` or safetensors, or folders of them.  The array of activations is (…, D): all axes before the last are rows,
and of more than two axes the first counts documents.  A side-car says more of each row, as an
array of the rows' shape beside it (`tokens`, `documents`, `positions` in the same file, or `x.tokens.npy` beside `x.npy`), and
`vocabulary.json`, a list of the text of every token, makes contexts readable.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from activations.store import BLOCK, Elsewhere, Rows, StoreWriter, as_rows
from storage import files
from storage.arrays import SUFFIXES, open_arrays

PIECE_BYTES = 2**26  # of float32 rows, checked and recorded at a time
VOCABULARY = "vocabulary.json"
LARGEST = 1e18  # of a value: sums of squares of larger ones are beyond float32
_SMALLEST_SPREAD = 1e-18  # of a standard deviation: squares of smaller ones vanish in float32
_SAMPLE = 2**22  # numbers of evenly spaced rows, on which it is first looked whether rows differ
_NAMES = ("acts", "activations")
_COLUMNS = ("documents", "positions", "tokens")
_SIDECARS = tuple(f".{c}.npy" for c in _COLUMNS)


@dataclasses.dataclass(frozen=True, eq=False)
class UserArray:
    """One array of activations.

    Attributes:
      path, name: its file, and what it is called there.
      rows, width: N and D.
      per_document: rows of a document where axes say so, else 0.
      given: columns that are given: documents (numbered from 0), positions, tokens, each (N,).
      documents: names of its documents.
      first_document: number of its first one, through all arrays.
      field: of the config that names it.
    """

    path: pathlib.Path
    name: str
    rows: int
    width: int
    per_document: int
    given: dict[str, np.ndarray]
    documents: list[str]
    first_document: int
    field: str

    def document(self, first: int, last: int) -> np.ndarray:
        """Number of the document of rows `first` to `last`, (n,) int32."""
        if "documents" in self.given:
            found = self.given["documents"][first:last]
        else:
            found = np.arange(first, last) // (self.per_document or max(self.rows, 1))
        return np.asarray(found + self.first_document, np.int32)

    def position(self, first: int, last: int) -> np.ndarray:
        """Place of each row in its document, (n,) int32."""
        if "positions" in self.given:
            return np.asarray(self.given["positions"][first:last], np.int32)
        return np.asarray(np.arange(first, last) % (self.per_document or max(self.rows, 1)), np.int32)

    def token(self, first: int, last: int) -> np.ndarray:
        """Token id of each row, (n,) int32; -1 where none are given."""
        return np.asarray(self.given["tokens"][first:last], np.int32) if "tokens" in self.given else np.full(last - first, -1, np.int32)


@dataclasses.dataclass(frozen=True)
class Part:
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
    """What tells other data, wherever the files lie: by place among the arrays and name, of arrays their lengths and pieces (`ActivationStore` verifies what
    it reads), of side-cars all."""
    found: dict[str, str] = {}
    once = functools.cache(files.sha256_file)  # arrays in one folder share a vocabulary
    for i, a in enumerate(arrays):
        found[f"{i} {a.path.name} {a.name}".rstrip()] = files.sha256_pieces(epath.Path(a.path))
        beside = [*(a.path.with_name(a.path.stem + ending) for ending in _SIDECARS), a.path.parent / VOCABULARY]
        found |= {f"{i} {path.name}": once(epath.Path(path)) for path in beside if path.exists()}
    return found


def split(arrays: Sequence[UserArray], held_out_rows: int) -> tuple[list[Part], list[Part]]:
    """Training parts and held-out ones: the last rows, about a tenth at most, from where a document begins if one begins near there.

    Raises:
      ValueError: too few rows to hold any out.
    """
    total = sum(a.rows for a in arrays)
    wanted = min(held_out_rows, total // 10)
    before = 0
    train: list[Part] = []
    held_out: list[Part] = []
    for a in arrays:
        inside = min(max(total - wanted - before, 0), a.rows)
        if 0 < inside < a.rows:
            inside = _document_start(a, inside, wanted // 2)
        train += [Part(a, 0, inside)] if inside else []
        held_out += [Part(a, inside, a.rows)] if inside < a.rows else []
        before += a.rows
    if not train or not held_out:
        raise ValueError(
            f"config.source.activations: {total} rows cannot be split into training and held-out ones: give more, or eval_activations"
        )
    return train, held_out


def first_rows(arrays: Sequence[UserArray], count: int) -> list[Part]:
    """The first so many rows, or all there are."""
    out: list[Part] = []
    for a in arrays:
        taken = min(a.rows, count - rows_of(out))
        out += [Part(a, 0, taken)] if taken else []
    return out


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
      ValueError: a row that is not finite or beyond what float32 can square; names the field, file and row.
    """
    header = {"width": parts[0].array.width, "dtype": "as they are", "hook": hook, "documents": list(documents)}
    header["source"] = [[str(p.array.path), p.array.name, p.first, p.last] for p in parts]
    writer = StoreWriter(folder, header)
    step = BLOCK * max(1, PIECE_BYTES // (4 * parts[0].array.width * BLOCK))
    pieces = [(p.array, start, min(start + step, p.last)) for p in parts for start in range(p.first, p.last, step)]
    for index, (array, first, last) in enumerate(pieces):
        before_shard()
        if not writer.kept(index):
            acts_ND = as_rows(open_arrays(array.path)[array.name])[first:last]
            _check_values(array, first, acts_ND)
            rows = Rows(acts_ND, array.document(first, last), array.position(first, last), array.token(first, last))
            writer.write(index, rows, Elsewhere(str(array.path), array.name, first))
        progress(last - first)
    return writer.finish(len(pieces))


def check_spread(parts: Sequence[Part]) -> None:
    """Raises ValueError naming field and file where there is one row, or no column varies by more than its values are rounded."""
    array, total = parts[0].array, rows_of(parts)
    where = f"config.{array.field}: {array.path}" + (f" and {len(parts) - 1} more" if len(parts) > 1 else "")
    if total < 2:
        raise ValueError(f"{where}: a single row is taken of it, in which nothing varies: give more rows")
    count = min(total, max(2, _SAMPLE // array.width))
    places = np.unique(np.linspace(0, total - 1, count).astype(np.int64))
    before = np.cumsum([0, *(p.last - p.first for p in parts)])
    some = ((p, places[(places >= a) & (places < b)] - a + p.first) for p, a, b in zip(parts, before, before[1:], strict=False))
    if _varies((_rows(p.array, chosen_N) for p, chosen_N in some if len(chosen_N)), array):
        return
    step = max(1, PIECE_BYTES // (8 * array.width))
    every = (_rows(p.array, slice(i, min(i + step, p.last))) for p in parts for i in range(p.first, p.last, step))
    if not _varies(every, array):
        raise ValueError(
            f"{where}: the {total:,} rows are all alike, or differ by less than their type or float32 can hold: "
            "give rows that vary, centred and scaled to about 1"
        )


def _rows(array: UserArray, chosen: Any) -> np.ndarray:
    """Rows as they will be read, float32, in float64."""
    return as_rows(open_arrays(array.path)[array.name])[chosen].astype(np.float32).astype(np.float64)


def _varies(pieces: Iterable[np.ndarray], array: UserArray) -> bool:
    """Whether a column's standard deviation is above one rounding of its mean."""
    dtype = open_arrays(array.path)[array.name].dtype
    rounding = max(float(ml_dtypes.finfo(t).eps) for t in (dtype, np.float32))
    count, origin_D, sum_D, square_D = 0, *np.zeros((3, array.width))
    for acts_ND in pieces:
        origin_D = origin_D if count else acts_ND[0]
        off_ND = acts_ND - origin_D
        count, sum_D, square_D = count + len(off_ND), sum_D + off_ND.sum(0), square_D + np.square(off_ND).sum(0)
    deviation_D = np.sqrt(np.maximum(square_D / count - np.square(sum_D / count), 0))
    mean_D = origin_D + sum_D / count
    return bool(((deviation_D > rounding * np.abs(mean_D)) & (deviation_D > _SMALLEST_SPREAD)).any())


def _check_values(array: UserArray, first: int, acts_ND: np.ndarray) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        size_N = np.abs(acts_ND.astype(np.float32)).max(axis=1, initial=0)
    for bad_N, what in (
        (~np.isfinite(size_N), "NaN or infinity (or is beyond float32)"),
        (size_N > LARGEST, f"values beyond {LARGEST:.0e}, whose squares are beyond float32"),
    ):
        if bad_N.any():
            row = first + int(np.flatnonzero(bad_N)[0])
            more = f", and so do {bad_N.sum() - 1:,} rows near it" if bad_N.sum() > 1 else ""
            advice = "take it out" if "NaN" in what else "scale the rows to about 1"
            raise ValueError(f"config.{array.field}: {array.path}: row {row:,} holds {what}{more}: {advice}")


def vocabulary(arrays: Sequence[UserArray]) -> list[str] | None:
    """Text of every token id, where tokens and a `vocabulary.json` are beside the activations."""
    path = epath.Path(arrays[0].path.parent / VOCABULARY)
    if not path.exists() or any("tokens" not in a.given for a in arrays):
        return None
    texts = files.read_json(path)
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise ValueError(f"config.{arrays[0].field}: {path}: a list of texts, one for every token id, is wanted")
    highest = max(int(a.given["tokens"].max(initial=-1)) for a in arrays)
    if highest >= len(texts):
        raise ValueError(f"config.{arrays[0].field}: {path} has {len(texts)} texts, but there is a token {highest}: give its text too")
    return texts


def _files(paths: str, field: str) -> list[pathlib.Path]:
    out: list[pathlib.Path] = []
    for text in (t for part in paths.split(",") if (t := part.strip())):
        path = pathlib.Path(text).absolute()
        if not path.exists():
            raise FileNotFoundError(f"config.{field}: nothing at {text}")
        inside = [path] if path.is_file() else sorted(p for p in path.iterdir() if _is_array(p))
        inside = [p for p in inside if not p.name.endswith(_SIDECARS)]
        if not inside or inside[0].suffix.lower() not in SUFFIXES:
            raise ValueError(f"config.{field}: {text} is no {', '.join(SUFFIXES)} file, no folder of them, and no store of activations")
        out += inside
    return out


def left_out(paths: str) -> list[str]:
    """Names of what lies in the folders among these paths and is no array, side-car or `vocabulary.json`."""
    folders = [path for text in paths.split(",") if text.strip() and (path := pathlib.Path(text.strip())).is_dir()]
    ours = (VOCABULARY, "manifest.json")
    return [p.name for folder in folders for p in sorted(folder.iterdir()) if not _is_array(p) and p.name not in ours]


def _is_array(path: pathlib.Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _opened(path: pathlib.Path, field: str) -> dict[str, np.ndarray]:
    try:
        return open_arrays(path)
    except OSError as error:
        raise ValueError(f"config.{field}: {path} cannot be read ({error.strerror or 'no such file'})") from error
    except ValueError as error:
        raise ValueError(f"config.{field}: {error}") from error


def _open(path: pathlib.Path, field: str, first_document: int) -> UserArray:
    arrays = _opened(path, field)
    floats = [n for n, a in arrays.items() if a.dtype.kind == "f" or a.dtype.name == "bfloat16"]
    wide = [n for n in floats if arrays[n].ndim >= 2]
    chosen = [n for n in _NAMES if n in wide] or wide
    if len(chosen) != 1:
        shapes = ", ".join(f"{n or 'the array'} {a.dtype} {a.shape}" for n, a in arrays.items())
        raise ValueError(
            f"config.{field}: {path} must hold one array of floats (rows, D), or one called {_NAMES[0]!r}; it holds {shapes} (whole numbers: .astype('float32'))"
        )
    acts = arrays[chosen[0]]
    leading, rows = acts.shape[:-1], int(np.prod(acts.shape[:-1]))
    if acts.shape[-1] < 2:
        raise ValueError(f"config.{field}: {path} has rows of width {acts.shape[-1]}")
    if not acts.flags.c_contiguous and acts.size:
        raise ValueError(
            f"config.{field}: {path} holds an array in column order, in which no row lies together: save np.ascontiguousarray of it"
        )
    per_document = rows // leading[0] if len(leading) > 1 and leading[0] else 0
    given = {c: column for c in _COLUMNS if (column := _column(path, c, arrays, leading, field)) is not None}
    numbers: np.ndarray | range = range(rows // per_document if per_document else 1)
    if "documents" in given:
        numbers, given["documents"] = np.unique(given["documents"], return_inverse=True)
        if np.count_nonzero(np.diff(given["documents"])) >= len(numbers):
            raise ValueError(f"config.{field}: documents of {path} are mixed: rows of a document must stand together")
    names = [path.name if len(numbers) == 1 else f"{path.name}#{n}" for n in numbers]
    return UserArray(path, chosen[0], rows, acts.shape[-1], per_document, given, names, first_document, field)


def _column(path: pathlib.Path, name: str, arrays: dict[str, np.ndarray], leading: tuple[int, ...], field: str) -> np.ndarray | None:
    beside = path.with_name(f"{path.stem}.{name}.npy")
    found = next((arrays[n] for n in (name, name[:-1]) if n in arrays), None)
    if found is None and beside.exists():
        found = _opened(beside, field)[""]
    if found is None:
        return None
    if found.dtype.kind not in "iu" or found.shape not in (leading, (int(np.prod(leading)),)):
        raise ValueError(f"config.{field}: {name} of {path} are {found.dtype} {found.shape}, whole numbers of shape {leading} are wanted")
    column = np.asarray(found).reshape(-1)
    if column.size and (column.min() < 0 or column.max() >= 2**31):
        raise ValueError(f"config.{field}: {name} of {path} reach from {column.min()} to {column.max()}: 0 to 2³¹−1 are wanted")
    return column


def _document_start(array: UserArray, row: int, near: int) -> int:
    """The row nearest to `row` at which a document begins, not further than `near` from it; `row` itself where none does."""
    first, last = max(row - near, 1), min(row + near + 1, array.rows)
    starts = first + np.flatnonzero(np.diff(array.document(first - 1, last)))
    return int(starts[np.argmin(np.abs(starts - row))]) if len(starts) else row
