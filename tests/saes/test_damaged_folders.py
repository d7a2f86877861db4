"""Damaged and odd folders: what is read is what the folder says, and everything else ends in one line that names the file."""

import copy
import json
import os
import pathlib
import tempfile

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.data import sae_paths
from experiments.data.dictionary_list import READERS
from saes.dictionary import decode, encode
from tests.saes import folders

BASES = folders.bases()
ODD = [
    None, True, False, "8", "", "none", "topk", "ünï\ncode", -1, 0, 1, 2, 7, 19, 20, 21, 1e300, 0.5, 10**30, float("nan"), [], [1], {}, {"a": 1},
    "standard", "jumprelu", "transcoder", "layer", "blocks.4.hook_mlp_out", "CrossCoder", "6.1", "2²", "x" * 5000, [[[[]]]], -0.0,
]  # fmt: skip
MORE_FIELDS = (
    "rescale_acts_by_decoder_norm", "transcode", "signed", "type", "hook_name_out", "d_out", "k", "model_name", "hook_layer", "embed_skip",
    "model_from_pretrained_kwargs", "metadata", "trainer", "sae_lens_version",
)  # fmt: skip
# Words that belong to a library, and tell a user nothing.
LEAKS = (
    "allow_pickle",
    "invalid literal",
    "codec can't",
    "Traceback",
    "unpack requires",
    "buffer size",
    "cannot reshape",
    "zip file",
    "NoneType",
    "unhashable",
)


@st.composite
def damages(draw):
    """(base, what is done to it, byte by byte)."""
    name = draw(st.sampled_from(sorted(BASES)))
    _, config_file, _, config, tensors = BASES[name]
    kinds = ["tensor", "weights"] + (["field", "field", "nested", "config"] if config_file else [])
    done = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(kinds))
        if kind in ("field", "nested"):
            inner = "trainer" if "trainer" in config else "metadata"
            fields = sorted(config.get(inner, {}) if kind == "nested" else config)
            field = draw(st.sampled_from([*fields, *MORE_FIELDS]))
            done.append((kind, inner, field, draw(st.sampled_from(["drop", *range(len(ODD))]))))
        elif kind == "tensor":
            how = draw(st.sampled_from(("drop", "more", "float64", "float16", "bfloat16", "int64", "bool", "transposed", "flat", "cut", "none", "scalar", "nan", "inf", "zero row", "large", "1e300")))  # fmt: skip
            done.append((kind, draw(st.sampled_from(sorted(tensors))), how))
        else:
            how = draw(
                st.sampled_from(
                    ("flip", "flip", "flip", "cut", "empty", "gone", "renamed", "folder", "loop", "junk", "deep", "bytes", "digits", "sum")
                )
            )
            done.append((kind, how, draw(st.integers(0, 2**20)), draw(st.integers(1, 255))))
    return name, done


def changed_tensor(a, how):
    if how in ("float64", "float16", "int64", "bool"):
        return a.astype(how)
    if how == "bfloat16":
        return a.astype(ml_dtypes.bfloat16)
    if how == "1e300":
        return np.full(a.shape, 1e300)
    if how in ("nan", "inf", "large", "zero row"):
        out = np.array(a, np.float32)
        out[(0,) * min(a.ndim, 1)] = {"nan": np.nan, "inf": np.inf, "large": 3e38, "zero row": 0}[how]
        return out
    return {
        "transposed": lambda: a.T.copy(), "flat": lambda: a.reshape(-1), "cut": lambda: a[:-1] if a.ndim else a, "none": lambda: a.reshape(-1)[:0],
        "scalar": lambda: np.array(1.0, a.dtype),
    }[how]()  # fmt: skip


def damage(path, how, where, value):
    data = path.read_bytes() if path.is_file() else b"{}"
    if how in ("gone", "renamed", "folder", "loop"):
        if path.is_file():
            path.rename(path.with_name("other" + path.name)) if how == "renamed" else path.unlink()
        elif path.is_symlink():
            path.unlink()
        if how == "folder" and not path.exists():
            path.mkdir()
        if how == "loop" and not path.exists():
            os.symlink(path.name, path)
        return
    if path.is_dir() or path.is_symlink():
        return
    where %= max(len(data), 1)
    path.write_bytes({
        "flip": data[:where] + bytes([data[where] ^ value]) + data[where + 1 :] if data else data, "cut": data[:where], "empty": b"",
        "junk": data + b"\0junk" * value, "deep": b"[" * 100_000, "bytes": data + b"\xff\xfe", "digits": b'{"k": ' + b"9" * 5000 + b"}", "sum": data,
    }[how])  # fmt: skip
    if how == "sum":
        path.with_name(path.name + ".sha256").write_bytes(bytes([value]) * (where % 9))


def make(home, name, done):
    """Writes the damaged folder; returns its path."""
    _, config_file, weights, config, tensors = BASES[name]
    config, tensors = copy.deepcopy(config), dict(tensors)
    for kind, *how in done:
        if kind in ("field", "nested"):
            inner, field, value = how
            target = config.get(inner) if kind == "nested" else config
            if isinstance(target, dict):
                target.pop(field, None)
                target |= {} if value == "drop" else {field: ODD[value]}
        elif kind == "tensor":
            tensor, what = how
            if what == "drop":
                tensors.pop(tensor, None)
            elif what == "more":
                tensors["W_skip"] = np.zeros((2, 2), np.float32)
            elif tensor in tensors:
                with np.errstate(all="ignore"):
                    tensors[tensor] = changed_tensor(tensors[tensor], what)
    folder = home / "sae"
    folder.mkdir()
    (folder / weights).write_bytes(folders.written(weights, tensors))
    if config_file:
        (folder / config_file).write_text(json.dumps(config))
    for kind, *how in done:
        if kind in ("weights", "config"):
            damage(folder / (weights if kind == "weights" else config_file), *how)
    return folder, tensors


def check(case):
    name, done = case
    form, config_file, weights, _, _ = BASES[name]
    with tempfile.TemporaryDirectory() as home:
        folder, tensors = make(pathlib.Path(home), name, done)
        for call in (lambda: sae_paths.find(str(folder)), lambda: READERS[form].load(folder)):
            try:
                result = call()
            except (ValueError, OSError) as error:
                assert type(error) in (ValueError, FileNotFoundError), repr(error)
                message = str(error)
                assert str(folder) in message and "\n" not in message and len(message) < 900, message
                assert not any(leak in message for leak in LEAKS), message
                result = None
        if result is None:
            return False
        config = json.loads((folder / config_file).read_text()) if config_file else None
        if not weights.endswith(".pt"):  # whose archive has checksums: what is read is what was written
            tensors = folders.tensors_of(weights, (folder / weights).read_bytes())
        dictionary = result[0]
        codes, rebuilt, sure = folders.said(form, config, tensors, folders.X)
        if np.abs(rebuilt).max() < 1e6 and max(np.abs(np.asarray(a, np.float64)).max(initial=0) for a in tensors.values()) < 1e6:
            z = encode(dictionary, jnp.asarray(folders.X))
            np.testing.assert_allclose(np.asarray(z)[sure], codes[sure], rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(np.asarray(decode(dictionary, z))[sure], rebuilt[sure], rtol=1e-3, atol=1e-3)
        return True


@pytest.mark.parametrize("name", sorted(BASES))
def test_whole_folders_are_read_as_what_they_say(name):
    assert check((name, []))
    assert check((name, [("tensor", "b_dec", "float64")]))


@pytest.mark.parametrize(
    ("name", "done"),
    [
        ("dictionary_learning BatchTopKSAE", ("tensor", "threshold", "1e300")),
        ("saelens topk", ("tensor", "W_dec", "1e300")),
        ("saelens topk", ("field", "metadata", "rescale_acts_by_decoder_norm", ODD.index("8"))),
        ("saelens standard", ("tensor", "b_enc", "none")),
        ("saelens standard", ("field", "metadata", "sae_lens_version", ODD.index("2²"))),
        ("saelens standard", ("nested", "metadata", "sae_lens_version", ODD.index("2²"))),
        ("saelens standard", ("config", "bytes", 0, 1)),
        ("saelens standard", ("config", "digits", 0, 1)),
        ("saelens standard", ("config", "deep", 0, 1)),
        ("saelens standard", ("weights", "sum", 3, 255)),
        ("saelens standard", ("weights", "folder", 0, 1)),
        ("gemma_scope 1", ("weights", "cut", 900, 1)),
        ("gemma_scope 1", ("weights", "folder", 0, 1)),
        ("dictionary_learning AutoEncoderTopK", ("weights", "loop", 0, 1)),
        ("dictionary_learning AutoEncoderTopK", ("nested", "trainer", "k", ODD.index("ünï\ncode"))),
    ],
)
def test_what_is_refused(name, done):
    if done == ("field", "metadata", "sae_lens_version", ODD.index("2²")):
        assert check((name, [done]))  # the metadata's own counts
    else:
        assert not check((name, [done]))


HEALTH = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=100, **HEALTH)
@given(damages())
def test_damaged_folders_are_read_as_what_they_say_or_refused_by_name(case):
    check(case)


@pytest.mark.slow
@settings(max_examples=4000, **HEALTH)
@given(damages())
def test_many_damaged_folders_are_read_as_what_they_say_or_refused_by_name(case):
    check(case)


def test_every_format_that_is_read_is_damaged_here():
    assert {form for form, *_ in BASES.values()} == set(READERS)
