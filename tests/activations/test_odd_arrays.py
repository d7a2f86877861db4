"""Odd and damaged files of a user's arrays: a store that holds what NumPy reads, or one line that names field and file."""

import functools
import shutil

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activations import adopt
from activations.store import ActivationStore

NEVER_IN_MESSAGES = ("\n", "Traceback", "allow_pickle", "Errno", "mmap", "object has no", "not subscriptable", "cannot reshape", "JSON")
DTYPES = ["float16", "float32", "float64", ">f4", "int32", "complex64", "bool", "U3", "O", "bfloat16", "longdouble"]
SHAPES = [(), (0,), (7,), (7, 0), (0, 4), (7, 1), (1, 4), (12, 4), (60, 4), (3, 5, 4), (2, 3, 5, 4)]
KINDS = ["normal", "normal", "normal", "alike", "zero", "nan", "infinite", "large", "far", "tiny", "wide"]


def values(kind, shape):
    x = np.random.default_rng(0).standard_normal(shape)
    flat = x.reshape(-1)
    if kind == "alike" and x.ndim:
        x[...] = x.reshape(-1, x.shape[-1])[0] if x.size else 0
    elif kind in ("nan", "infinite", "large") and x.size:
        flat[len(flat) // 2] = {"nan": np.nan, "infinite": -np.inf, "large": 3e18}[kind]
    return x * {"zero": 0, "tiny": 1e-25, "wide": 1e15}.get(kind, 1) + (1e13 if kind == "far" else 0)


@st.composite
def saved(draw, folder):
    """A file with one array and perhaps side-cars, perhaps damaged; returns its path and the array."""
    suffix = draw(st.sampled_from([".npy", ".npz", ".safetensors", ".NPY"]))
    dtype, shape = draw(st.sampled_from(["float32", *DTYPES])), draw(st.sampled_from([(60, 4), *SHAPES]))
    with np.errstate(all="ignore"):
        a = np.asarray(values(draw(st.sampled_from(KINDS)), shape)).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    if draw(st.integers(0, 7)) == 0:
        a = np.asfortranarray(a)
    path = folder / f"x{suffix}"
    column = draw(st.sampled_from([None, None, np.zeros(7, int), np.arange(60), np.arange(60) // 9, np.arange(60) - 5, np.ones(60)]))
    named = {} if column is None else {draw(st.sampled_from(["tokens", "documents", "positions", "acts2"])): column}
    if suffix == ".safetensors":
        if a.dtype.kind in "USOc" or a.dtype.itemsize > 8 or a.dtype.str.startswith(">"):
            a = np.ones((60, 4), np.float32)
        safetensors.numpy.save_file({"acts": np.ascontiguousarray(a), **named}, path)
    else:
        with open(path, "wb") as f:
            np.savez(f, acts=a, **named) if suffix == ".npz" else np.save(f, a)
        if suffix.lower() == ".npy":
            for name, c in named.items():
                np.save(folder / f"x.{name}.npy", c)
    data = path.read_bytes()
    how = draw(st.sampled_from(["whole", "whole", "cut", "flipped", "header", "empty"]))
    if how == "cut":
        data = data[: draw(st.integers(0, len(data) - 1))]
    elif how in ("flipped", "header"):
        at = draw(st.integers(0, (len(data) if how == "flipped" else min(len(data), 140)) - 1))
        data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
    path.write_bytes(b"" if how == "empty" else data)
    return path, (a if how == "whole" else None)


def check(root, data):
    folder = root / "arrays"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path, whole = data.draw(saved(folder))
    try:
        arrays = adopt.find(str(folder) if data.draw(st.booleans()) else str(path), "source.activations")
        names = [name for a in arrays for name in a.documents]
        store = ActivationStore(adopt.take_in(adopt.whole(arrays), names, root / "store", {}, lambda n: None, lambda: None).parent)
        adopt.check_spread(adopt.whole(arrays))
        rows = store.load()
    except (ValueError, OSError) as error:
        message = str(error)
        assert message.startswith("config.source.activations: ") and str(folder) in message, message
        assert not any(word in message for word in NEVER_IN_MESSAGES), message
        return "refused"
    finally:
        shutil.rmtree(root / "store", ignore_errors=True)
    assert np.isfinite(rows.acts_ND).all() and np.abs(rows.acts_ND).max() <= 1e18
    assert rows.acts_ND.astype(np.float64).std(0).max() > 0 and len(rows.acts_ND) > 1 and rows.acts_ND.shape[1] > 1
    assert len(rows.document_N) == len(rows.token_N) == len(rows.acts_ND) and rows.document_N.max() < len(names)
    if whole is not None:
        assert whole.dtype.kind == "f" or whole.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(rows.acts_ND, whole.astype(np.float32).reshape(rows.acts_ND.shape))
    return "read"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("odd")


FUZZ = functools.partial(settings, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@FUZZ(max_examples=60)
@given(st.data())
def test_a_few_odd_arrays(root, data):
    check(root, data)


@pytest.mark.slow
@FUZZ(max_examples=1500)
@given(st.data())
def test_many_odd_arrays(root, data):
    check(root, data)
