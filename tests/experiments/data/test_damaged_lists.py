"""Our own lists and stacked dictionaries, damaged and odd: the SAEs that were written, or one line that names the file."""

import copy
import hashlib
import json
import pathlib
import tempfile

import jax
import numpy as np
import pytest
import safetensors.numpy
from etils import epath
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.data import dictionary_list, sae_paths
from saes.formats import saelens, stacked
from tests.saes.dictionaries import make
from tests.saes.test_damaged_folders import LEAKS, ODD, damage

DICTIONARIES = make("jumprelu")
NAMES = ("w_enc_DF", "b_enc_F", "w_dec_FD", "b_dec_D", "threshold_F")
FIELDS = {
    "listing": ("format", "hook", "training", "dictionaries", "snapshots"),
    "hook": ("path", "layer", "site", "revision", "commit"),
    "entry": ("seed", "path", "format", "name", "frozen_at_step", "transcoder", "sha256"),
    "snapshot": ("tokens", "paths"),
}
HEALTH = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
WAYS = st.sampled_from(("flip", "flip", "cut", "empty", "gone", "folder", "loop", "junk", "deep", "bytes", "digits"))
BYTES = st.tuples(st.just("bytes"), WAYS, st.integers(0, 2**20), st.integers(1, 255))
CHANGES = st.sampled_from([(part, name) for part, names in FIELDS.items() for name in names])
FIELD = st.tuples(st.just("field"), CHANGES, st.sampled_from(["drop", *range(len(ODD))]))


def refused(call, *places):
    """What `call` gives, None where it ends in one line that names one of the places."""
    try:
        return call()
    except (ValueError, OSError) as error:
        message = str(error)
        assert type(error) in (ValueError, FileNotFoundError), repr(error)
        assert any(str(p) in message for p in places) and "\n" not in message and len(message) < 900, message
        assert not any(leak in message for leak in LEAKS), message
        return None


def check_list(done):
    with tempfile.TemporaryDirectory() as home:
        folder = epath.Path(home)
        entries = []
        for i in range(3):
            saelens.save(folder / f"sae-{i}", jax.tree.map(lambda a, i=i: a[i], DICTIONARIES), {})
            entries.append({"seed": i, "path": f"sae-{i}", "format": "saelens"})
        stacked.save(folder / "start", DICTIONARIES)
        path = folder / dictionary_list.NAME
        hook = {"path": "m", "layer": 1, "site": "resid_post"}
        dictionary_list.write(path, hook, {"k": 4}, entries, [{"tokens": 0, "paths": ["start"]}])
        listing = dictionary_list.read(path)
        for kind, *how in done:
            if kind == "field":
                (part, name), value = how
                parts = {
                    "listing": listing,
                    "hook": listing.get("hook"),
                    "entry": _first(listing, "dictionaries"),
                    "snapshot": _first(listing, "snapshots"),
                }
                if isinstance(parts[part], dict):
                    parts[part].pop(name, None)
                    parts[part] |= {} if value == "drop" else {name: copy.deepcopy(ODD[value])}
        if any(kind == "field" for kind, *_ in done):  # as written by hand, without a checksum
            path.write_text(json.dumps(listing))
        for kind, *how in done:
            if kind == "bytes":
                damage(pathlib.Path(path), *how)
        found = refused(lambda: sae_paths.find(str(path)), home, "dictionaries.json")
        for sae in found or []:
            refused(sae.identity, home)
        listed = refused(lambda: dictionary_list.load(path), home)
        for d in listed.dictionaries if listed else ():
            assert any((d.w_dec_FD == w).all() for w in DICTIONARIES.w_dec_FD)


def _first(listing, name):
    return listing[name][0] if isinstance(listing.get(name), list) and listing[name] else None


def check_stack(done):
    """The checksum is made again after the change, as by somebody who wrote the file so."""
    with tempfile.TemporaryDirectory() as home:
        path = pathlib.Path(home) / "x"
        stacked.save(path, DICTIONARIES)
        leaves = safetensors.numpy.load_file(path)
        static = {"architecture": "jumprelu", "k": 0, "subtract_b_dec": True}
        for kind, what, how in done:
            if kind == "static":
                static.pop(what, None)
                static |= {} if how == "drop" else {what: ODD[how]}
            elif what in leaves:
                a = leaves.pop(what)
                with np.errstate(all="ignore"):
                    leaves |= (
                        {}
                        if how == "drop"
                        else {what: {"cut": a[..., :-1], "flat": a.reshape(-1), "nan": a * np.nan, "int": a.astype(int)}[how]}
                    )
        whole = all(kind == "static" for kind, *_ in done) or set(leaves) == set(NAMES)
        data = safetensors.numpy.save({n: np.ascontiguousarray(a) for n, a in leaves.items()}, metadata={"dictionary": json.dumps(static)})
        path.write_bytes(data)
        path.with_name("x.sha256").write_text(hashlib.sha256(data).hexdigest())
        found = refused(lambda: stacked.load(path), home)
        if found is not None:
            assert whole and found.architecture == static["architecture"] and found.subtract_b_dec is static["subtract_b_dec"]
            assert all(np.array_equal(getattr(found, name), leaves[name], equal_nan=True) for name in NAMES)


STACKS = st.lists(
    st.one_of(
        st.tuples(st.just("static"), st.sampled_from(("architecture", "k", "subtract_b_dec", "more")), st.sampled_from(["drop", *range(len(ODD))])),
        st.tuples(st.just("leaf"), st.sampled_from(NAMES), st.sampled_from(("drop", "cut", "flat", "nan", "int"))),
    ),
    max_size=2,
)  # fmt: skip
LISTS = st.lists(st.one_of(FIELD, FIELD, BYTES), max_size=2)


@settings(max_examples=40, **HEALTH)
@given(LISTS)
def test_damaged_lists_are_read_as_they_were_or_refused_by_name(done):
    check_list(done)


@settings(max_examples=60, **HEALTH)
@given(STACKS)
def test_damaged_stacks_are_read_as_they_were_or_refused_by_name(done):
    check_stack(done)


@pytest.mark.slow
@settings(max_examples=1000, **HEALTH)
@given(LISTS)
def test_many_damaged_lists(done):
    check_list(done)


@pytest.mark.slow
@settings(max_examples=500, **HEALTH)
@given(STACKS)
def test_many_damaged_stacks(done):
    check_stack(done)
