import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from activations import adopt
from activations.store import ActivationStore, Rows, StoreWriter

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 6)).astype(np.float32)


def taken_in(folder, paths, held_out=None, **kwargs):
    arrays = adopt.find(str(paths), "source.activations")
    parts = adopt.whole(arrays) if held_out is None else adopt.split(arrays, held_out)
    names = [n for a in arrays for n in a.documents]
    make = lambda p, f: ActivationStore(adopt.take_in(p, names, f, {"site": "x"}, lambda n: None, kwargs.get("look", lambda: None)).parent)
    return make(parts, folder) if held_out is None else (make(parts[0], folder / "train"), make(parts[1], folder / "eval"))


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        *[("npy", t) for t in (np.float16, np.float32, np.float64)],  # NumPy's formats have no bfloat16
        *[("npz", t) for t in (np.float16, np.float32, np.float64)],
        *[("safetensors", t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64)],
    ],
)
def test_rows_are_read_where_they_lie(tmp_path, suffix, dtype):
    path = tmp_path / f"x.{suffix}"
    acts = X.astype(dtype)
    {
        "npy": lambda: np.save(path, acts),
        "npz": lambda: np.savez(path, acts=acts),
        "safetensors": lambda: safetensors.numpy.save_file({"acts": acts}, path),
    }[suffix]()
    store = taken_in(tmp_path / "store", path)
    assert (store.rows, store.width) == (50, 6)
    wanted = np.array([49, 0, 7, 7])
    assert (store.take(wanted) == acts.astype(np.float32)[wanted]).all()
    assert sum(p.stat().st_size for p in (tmp_path / "store").iterdir()) < X.nbytes + 4000  # places and checksums alone
    assert not any(b'acts"' in p.read_bytes() for p in (tmp_path / "store").glob("*.safetensors"))


def test_a_folder_and_several_paths_in_order(tmp_path):
    for i in (0, 1, 2):
        np.save(tmp_path / f"{i}.npy", X + i)
    np.save(tmp_path / "1.tokens.npy", np.arange(50))
    store = taken_in(tmp_path / "store", tmp_path)
    assert (store.load().acts_ND == np.concatenate([X, X + 1, X + 2])).all()
    assert store.manifest["documents"] == ["0.npy", "1.npy", "2.npy"]
    assert (store.load().document_N == np.repeat([0, 1, 2], 50)).all()
    assert (store.load().token_N == np.concatenate([[-1] * 50, np.arange(50), [-1] * 50])).all()
    turned = taken_in(tmp_path / "turned", f"{tmp_path / '2.npy'}, {tmp_path / '0.npy'}")
    assert (turned.load().acts_ND == np.concatenate([X + 2, X])).all()


def test_more_axes_are_documents_and_positions(tmp_path):
    np.save(tmp_path / "x.npy", X.reshape(5, 10, 6))
    np.save(tmp_path / "x.tokens.npy", np.arange(50).reshape(5, 10))
    rows = taken_in(tmp_path / "store", tmp_path / "x.npy").load()
    assert (rows.acts_ND == X).all() and (rows.token_N == np.arange(50)).all()
    assert (rows.document_N == np.repeat(np.arange(5), 10)).all() and (rows.position_N == np.tile(np.arange(10), 5)).all()


def test_columns_in_the_same_file(tmp_path):
    np.savez(
        tmp_path / "x.npz", acts=X, tokens=np.arange(50), document=np.repeat([7, 9], 25), positions=np.arange(50) % 25, note=np.array(1)
    )
    store = taken_in(tmp_path / "store", tmp_path / "x.npz")
    rows = store.load()
    assert (
        (rows.token_N == np.arange(50)).all()
        and (rows.document_N == np.repeat([0, 1], 25)).all()
        and (rows.position_N == np.arange(50) % 25).all()
    )
    assert store.manifest["documents"] == ["x.npz#7", "x.npz#9"]


def test_our_own_shards_are_arrays_like_any(tmp_path):
    index = np.arange(50, dtype=np.int32)
    writer = StoreWriter(tmp_path / "ours", {"width": 6, "dtype": "bfloat16"})
    for shard, (a, b) in enumerate([(0, 30), (30, 50)]):
        writer.write(shard, Rows(X[a:b], index[a:b] // 20, index[a:b] % 20, index[a:b] + 5))
    writer.finish(2)
    found = taken_in(tmp_path / "store", tmp_path / "ours").load()
    assert (found.acts_ND == X.astype(ml_dtypes.bfloat16).astype(np.float32)).all()
    assert (found.token_N == index + 5).all() and (found.position_N == index % 20).all()


@pytest.mark.parametrize("held_out", [1, 3, 100])
def test_the_last_rows_are_held_out(tmp_path, held_out):
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", X[:30] + 1)
    train, evaluated = taken_in(tmp_path / "store", tmp_path, held_out)
    count = min(held_out, 8)
    assert evaluated.rows == count and train.rows == 80 - count
    both = np.concatenate([train.load().acts_ND, evaluated.load().acts_ND])
    assert (both == np.concatenate([X, X[:30] + 1])).all()


@pytest.mark.parametrize(
    ("per_document", "held_out", "count"),
    [
        (4, 30, 32),  # the nearest beginning of a document
        (1, 30, 30),
        (100, 30, 30),  # none is near: a document is cut, and the held-out part stays a tenth
        (150, 30, 30),
    ],
)
def test_documents_are_not_cut_in_two_where_one_begins_near(tmp_path, per_document, held_out, count):
    x = np.random.default_rng(0).standard_normal((300 // per_document, per_document, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    train, evaluated = taken_in(tmp_path / "store", tmp_path / "x.npy", held_out)
    assert (train.rows, evaluated.rows) == (300 - count, count)
    shared = set(train.column("document")) & set(evaluated.column("document"))
    assert (len(shared) == 0) == (per_document < 100)


def test_first_rows(tmp_path):
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", X)
    arrays = adopt.find(str(tmp_path), "f")
    for count in (1, 50, 51, 100, 1000):
        assert adopt.rows_of(adopt.first_rows(arrays, count)) == min(count, 100)


def test_a_stopped_check_goes_on(tmp_path, monkeypatch):
    X = np.random.default_rng(0).standard_normal((600, 6)).astype(np.float32)  # three pieces
    monkeypatch.setattr(adopt, "PIECE_BYTES", 4 * 6 * 256)
    np.save(tmp_path / "x.npy", X)
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taken_in(tmp_path / "store", tmp_path / "x.npy", look=stop)
    stamp = (tmp_path / "store" / "shard-00000.safetensors").stat().st_mtime_ns
    store = taken_in(tmp_path / "store", tmp_path / "x.npy")
    assert (store.load().acts_ND == X).all() and (tmp_path / "store" / "shard-00000.safetensors").stat().st_mtime_ns == stamp


def test_a_file_that_changed_is_noticed(tmp_path):
    np.save(tmp_path / "x.npy", X)
    before = adopt.fingerprint(adopt.find(str(tmp_path / "x.npy"), "f"))
    store = taken_in(tmp_path / "store", tmp_path / "x.npy")
    data = bytearray((tmp_path / "x.npy").read_bytes())
    data[-1] ^= 1
    (tmp_path / "x.npy").write_bytes(bytes(data))
    changed = adopt.fingerprint(adopt.find(str(tmp_path / "x.npy"), "f"))
    assert changed != before
    np.save(tmp_path / "x.tokens.npy", np.arange(50))
    with_tokens = adopt.fingerprint(adopt.find(str(tmp_path / "x.npy"), "f"))
    (tmp_path / "vocabulary.json").write_text("[]")
    assert with_tokens != changed and adopt.fingerprint(adopt.find(str(tmp_path / "x.npy"), "f")) != with_tokens
    with pytest.raises(ValueError, match="x.npy is not what it was at rows from 0"):
        store.take(np.array([3]))


def test_the_same_files_at_another_place_are_the_same_and_each_has_a_name(tmp_path):
    (tmp_path / "here").mkdir()
    np.save(tmp_path / "here" / "x.npy", X)
    np.save(tmp_path / "here" / "x.tokens.npy", np.arange(50))
    np.savez(tmp_path / "here" / "y.npz", acts=X)
    (tmp_path / "here" / "vocabulary.json").write_text("[]")
    before = adopt.fingerprint(adopt.find(str(tmp_path / "here"), "f"))
    assert list(before) == ["0 x.npy", "0 x.tokens.npy", "0 vocabulary.json", "1 y.npz acts", "1 vocabulary.json"]
    (tmp_path / "here").rename(tmp_path / "there")
    assert adopt.fingerprint(adopt.find(str(tmp_path / "there"), "f")) == before
    both = f"{tmp_path / 'there' / 'y.npz'},{tmp_path / 'there' / 'x.npy'}"
    assert adopt.fingerprint(adopt.find(both, "f")) != before  # in another order they are other data


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_rows_that_are_not_finite(tmp_path, bad):
    x = X.astype(np.float64)
    x[31, 2] = bad
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match="config.source.activations: .*x.npy: row 31 holds NaN or infinity .*: take it out"):
        taken_in(tmp_path / "store", tmp_path / "x.npy")


def save(folder, **arrays):
    for name, a in arrays.items():
        np.save(folder / f"{name}.npy", a)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": X, "y": X[:, :5]}, "y.npy has width 5, .*x.npy has 6: one model, one site"),
        ({"x": X.astype(int)}, "must hold one array of floats .rows, D., or one called 'acts'; it holds the array int64"),
        ({"x": X[:, 0]}, r"must hold one array of floats \(rows, D\)"),
        ({"x": X[:, :1]}, "rows of width 1"),
        ({"x": X[:0]}, "no rows in"),
        ({"x": X, "x.tokens": np.arange(49)}, r"tokens of .*x.npy are int64 \(49,\), whole numbers of shape \(50,\) are wanted"),
        ({"x": X, "x.tokens": np.arange(50.0)}, "tokens of .*x.npy are float64"),
        ({"x": X, "x.tokens": np.arange(50) - 1}, "reach from -1 to 48"),
        ({"x": X, "x.documents": np.arange(50) % 7}, "documents of .*x.npy are mixed"),
        ({"x": np.asfortranarray(X)}, "in column order, in which no row lies together"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, says):
    save(tmp_path, **arrays)
    with pytest.raises(ValueError, match=f"config.source.activations: .*{says}"):
        adopt.find(str(tmp_path), "source.activations")


def test_paths_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.f: nothing at"):
        adopt.find(str(tmp_path / "x.npy"), "f")
    (tmp_path / "x.csv").write_text("1")
    for path in (tmp_path, tmp_path / "x.csv"):
        with pytest.raises(ValueError, match="is no .npy, .npz, .safetensors file, no folder of them, and no store"):
            adopt.find(str(path), "f")
    np.savez(tmp_path / "x.npz", one=X, two=X)
    with pytest.raises(ValueError, match=r"it holds one float32 \(50, 6\), two float32"):
        adopt.find(str(tmp_path / "x.npz"), "f")


def test_too_few_rows_to_hold_out(tmp_path):
    np.save(tmp_path / "x.npy", X[:9])
    with pytest.raises(ValueError, match="9 rows cannot be split"):
        adopt.split(adopt.find(str(tmp_path), "f"), 100)


def test_texts_of_tokens(tmp_path):
    save(tmp_path, x=X)
    assert adopt.vocabulary(adopt.find(str(tmp_path), "f")) is None
    (tmp_path / "vocabulary.json").write_text(json.dumps([str(i) for i in range(50)]))
    assert adopt.vocabulary(adopt.find(str(tmp_path), "f")) is None  # no tokens
    save(tmp_path, **{"x.tokens": np.arange(50)})
    assert adopt.vocabulary(adopt.find(str(tmp_path), "f"))[49] == "49"
    (tmp_path / "vocabulary.json").write_text(json.dumps(["a"]))
    with pytest.raises(ValueError, match="vocabulary.json has 1 texts, but there is a token 49"):
        adopt.vocabulary(adopt.find(str(tmp_path), "f"))
    (tmp_path / "vocabulary.json").write_text("{}")
    with pytest.raises(ValueError, match="a list of texts"):
        adopt.vocabulary(adopt.find(str(tmp_path), "f"))


@pytest.mark.parametrize("sign", [1, -1])
def test_rows_whose_squares_are_beyond_float32(tmp_path, sign):
    x = X.copy()
    x[[7, 9], 3] = sign * 2e18
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match="config.source.activations: .*x.npy: row 7 holds values beyond 1e.18, .* 1 rows near it: scale"):
        taken_in(tmp_path / "store", tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", x / 2)
    assert taken_in(tmp_path / "other", tmp_path / "x.npy").rows == 50


def spread(folder, *arrays, rows=None):
    for i, x in enumerate(arrays):
        np.save(folder / f"{i}.npy", x)
    found = adopt.find(str(folder), "source.eval_activations")
    adopt.check_spread(adopt.whole(found) if rows is None else adopt.first_rows(found, rows))


ONE = np.ones((40, 6), np.float32)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ([X[:1]], "0.npy: a single row is taken of it"),
        ([X[:1].repeat(40, 0)], "0.npy: the 40 rows are all alike"),
        ([0 * X], "the 50 rows are all alike"),
        ([ONE, ONE[:3]], "0.npy and 1 more: the 43 rows are all alike"),
        ([X.astype(np.float64) + 1e12], "differ by less than their type or float32 can hold"),  # float64 that is read as float32
        ([X * 1e-30], "the 50 rows are all alike, or differ by less"),
        ([(X + 5000).astype(np.float16)], "the 50 rows are all alike, or differ by less"),
    ],
)
def test_rows_without_spread(tmp_path, arrays, says):
    with pytest.raises(ValueError, match=f"config.source.eval_activations: .*{says}") as caught:
        spread(tmp_path, *arrays)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("x", [X, X + 1000, X * 1e-12, X * 1e15, (X + 5).astype(np.float16), np.concatenate([ONE, 2 * ONE[:1]])])
def test_rows_with_spread(tmp_path, x):
    spread(tmp_path, x)


def test_one_row_that_differs_between_those_looked_at_first(tmp_path, monkeypatch):
    monkeypatch.setattr(adopt, "_SAMPLE", 6 * 4)
    monkeypatch.setattr(adopt, "PIECE_BYTES", 6 * 8 * 7)
    x = ONE.copy()
    x[17, 2] = 3
    spread(tmp_path, x)
    with pytest.raises(ValueError, match="the 17 rows are all alike"):
        spread(tmp_path, x, rows=17)


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def damaged_npz(path, old, new):
    np.savez(path, acts=X)
    path.write_bytes(path.read_bytes().replace(old, new))


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        (
            "x.npy",
            lambda p: np.save(p, np.array([[1.0, "a"]], object)),
            "the array holds pickled objects, which are never loaded",
        ),
        ("x.npy", lambda p: (np.save(p, X), cut(p, 700)), r".its header declares 1,200 bytes of numbers and 572 are there.: make it again"),
        ("x.npy", lambda p: (np.save(p, X), cut(p, 60)), "the array has no header that can be read"),
        ("x.npy", lambda p: p.write_bytes(b""), "the array has no header that can be read"),
        ("x.npy", lambda p: p.write_bytes(b"\x93NUMPY\x07\0" + b" " * 99), "the array is of an unknown version"),
        ("x.npz", lambda p: np.savez(p, acts=np.array([[None]])), "member 'acts.npy' holds pickled objects, which are never loaded"),
        ("x.npz", lambda p: (np.savez(p, acts=X), cut(p, 700)), "its bytes are not what they should be"),
        ("x.npz", lambda p: damaged_npz(p, b"'<f4'", b"'<f8'"), "declares 2400 bytes and has 1200"),
        ("x.npz", lambda p: damaged_npz(p, b"(50, 6)", b"(-5,-6)"), "has the shape"),
        ("x.safetensors", lambda p: p.write_bytes(b""), "it is empty"),
        ("x.safetensors", lambda p: p.write_bytes(b"\2\0\0\0\0\0\0\0[]"), "its header is no list of tensors"),
        ("x.npy", lambda p: np.save(p, np.float32(1)), "it holds the array float32 ()"),
        ("x.npy", lambda p: np.save(p, X[0]), r"must hold one array of floats .rows, D."),
        ("x.npy", lambda p: np.save(p, X * 1j), "it holds the array complex64"),
        ("x.npy", lambda p: np.save(p, X.astype(str)), "it holds the array <U"),
    ],
)
def test_damaged_arrays_are_named_in_one_line(tmp_path, name, make, says):
    make(tmp_path / name)
    with pytest.raises(ValueError, match=f"config.source.activations: .*{name}.*{says}".replace("()", r"\(\)")) as caught:
        adopt.find(str(tmp_path / name), "source.activations")
    assert not any(word in str(caught.value) for word in ("allow_pickle", "Traceback", "Errno", "\n", "mmap"))


def test_names_in_capital_letters_and_what_else_lies_there(tmp_path):
    for name in ("A.NPY", "b.npy", "._b.npy"):
        with open(tmp_path / name, "wb") as f:
            np.save(f, X)
    for name in ("c.pt", "vocabulary.json", "notes"):
        (tmp_path / name).write_text("[]")
    (tmp_path / "d").mkdir()
    assert [a.path.name for a in adopt.find(str(tmp_path), "f")] == ["A.NPY", "b.npy"]
    assert adopt.left_out(f"{tmp_path}, {tmp_path / 'b.npy'}") == ["._b.npy", "c.pt", "d", "notes"]
    assert adopt.left_out("") == []
