import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from saes.dictionary import Dictionary
from saes.formats import saelens, stacked
from tests.saes.test_evaluation import DICTIONARIES

ONE: Dictionary = jax.tree.map(lambda a: a[0], DICTIONARIES)


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        (x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_saelens_round_trip_and_keys(tmp_path):
    saelens.save(tmp_path, ONE, {"model_name": "m", "seed": 3})
    loaded, metadata = saelens.load(tmp_path)
    assert equal(loaded, ONE) and metadata["model_name"] == "m" and metadata["seed"] == 3
    tensors = safetensors.numpy.load_file(tmp_path / saelens.WEIGHTS)
    assert {k: v.shape for k, v in tensors.items()} == {"W_enc": (7, 20), "b_enc": (20,), "W_dec": (20, 7), "b_dec": (7,)}
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == "topk" and config["k"] == 4 and config["metadata"]["sae_lens_version"] >= "6.0.0"


def rewrite(folder, change):
    path = folder / saelens.WEIGHTS
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)
    (folder / saelens.CHECKSUM).unlink()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("b_enc"), "b_enc.* missing or unknown"),
        (lambda t: t.update(threshold=np.zeros(20, np.float32)), "threshold.* missing or unknown"),
        (lambda t: t.update(W_dec=np.zeros((7, 20), np.float32)), r"W_dec has shape \(7, 20\)"),
        (lambda t: t.update(b_dec=np.full(7, np.inf, np.float32)), "b_dec holds NaN"),
    ],
)
def test_saelens_files_that_do_not_fit_are_refused(tmp_path, change, says):
    saelens.save(tmp_path, ONE, {})
    rewrite(tmp_path, change)
    with pytest.raises(ValueError, match=says):
        saelens.load(tmp_path)


@pytest.mark.parametrize("field", ["architecture", "normalize_activations", "apply_b_dec_to_input", "k"])
def test_saelens_settings_that_are_not_supported_are_refused(tmp_path, field):
    saelens.save(tmp_path, ONE, {})
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: 0}))
    with pytest.raises(ValueError, match=field):
        saelens.load(tmp_path)


def test_a_flipped_bit_and_a_cut_are_found(tmp_path):
    saelens.save(tmp_path / "a", ONE, {})
    stacked.save(tmp_path / "b.safetensors", DICTIONARIES)
    for path, load in (
        (tmp_path / "a" / saelens.WEIGHTS, lambda: saelens.load(tmp_path / "a")),
        (tmp_path / "b.safetensors", lambda: stacked.load(tmp_path / "b.safetensors")),
    ):
        data = path.read_bytes()
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
        with pytest.raises(ValueError, match="sha256"):
            load()
        path.write_bytes(data[:-8])
        with pytest.raises(ValueError, match="sha256"):
            load()
    (tmp_path / "a" / saelens.CHECKSUM).unlink()
    with pytest.raises(ValueError, match="damaged"):
        saelens.load(tmp_path / "a")


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="cfg.json"):
        saelens.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        stacked.load(tmp_path / "nothing")


def test_stacked_round_trip(tmp_path):
    stacked.save(tmp_path / "x.safetensors", DICTIONARIES)
    assert equal(stacked.load(tmp_path / "x.safetensors"), DICTIONARIES)
