"""Damaged folders of a model: the model as it was, or one line that names the folder's file or the field."""

import functools
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activations.language_model import checkpoint, decoder
from activations.text.tokenizer import load_tokenizer
from tests.activations.language_model import small_models
from tests.activations.text.test_odd_texts import damage

NEVER_IN_MESSAGES = ("\n", "Traceback", "Errno", "object has no", "not subscriptable", "TypeError", "KeyError")
MODELS = ["gpt2", "llama", "gemma3", "bert"]
TOKENS = jnp.asarray(small_models.tokens()[:1, :6])
ODD = [None, "wide", "", -1, 0, 1, 3, 10**12, 0.5, float("nan"), True, False, [], [1], {}, {"rope_type": "yarn"}]


def stream(folder):
    """Config, and what leaves the last layer."""
    config = checkpoint.load_config(folder)
    params = checkpoint.load_params(folder, config)
    load_tokenizer(folder, encoder=False)
    checkpoint.identity(folder)
    return config, params


@functools.cache
def good(root, name):
    folder = small_models.write(root / name, name)
    return folder, stream(folder)


def check(root, data):
    name = data.draw(st.sampled_from(MODELS))
    folder, (config, params) = good(root, name)
    place = root / "damaged"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)
    file = data.draw(st.sampled_from(["config.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]))
    bytes_of = (place / file).read_bytes()
    how = data.draw(st.sampled_from(["value", "value", "value", "cut", "flipped", "missing", "empty"]))
    if how == "value" and file.endswith(".json"):
        whole = json.loads(bytes_of)
        if file == "config.json" and data.draw(st.booleans()):
            whole[data.draw(st.sampled_from(sorted(whole)))] = data.draw(st.sampled_from(ODD))
        else:
            whole = damage(data.draw, whole)
        (place / file).write_text(json.dumps(whole))
    elif how == "missing":
        (place / file).unlink()
    elif how == "empty":
        (place / file).write_bytes(b"")
    elif how == "cut":
        (place / file).write_bytes(bytes_of[: data.draw(st.integers(0, len(bytes_of) - 1))])
    else:
        at = data.draw(st.integers(0, min(len(bytes_of), 3000) - 1))
        (place / file).write_bytes(bytes_of[:at] + data.draw(st.binary(min_size=1, max_size=2)) + bytes_of[at + 1 :])
    try:
        found, theirs = stream(place)
    except (ValueError, OSError) as error:
        message = str(error)
        assert str(place) in message and not any(word in message for word in NEVER_IN_MESSAGES), message
        return
    if found == config:  # the same program: weights may differ where a byte of them was changed, and nowhere else
        same = all(np.array_equal(a, b) for a, b in zip(leaves(theirs), leaves(params), strict=True))
        assert same or file == "model.safetensors"
    elif data.draw(st.integers(0, 9)) == 0:  # another program that a config may name: it runs (compiling takes time)
        assert decoder.run(theirs, found, TOKENS, upto=1).shape == (1, 6, found.width)
    for number in (found.norm_eps, found.embed_scale, *(r.base for r in found.rotary)):
        assert 0 < number < float("inf")


def leaves(params):
    return [np.asarray(a) for _, a in sorted(_flat(params))]


def _flat(tree, path=()):
    return [pair for k, v in tree.items() for pair in _flat(v, (*path, k))] if isinstance(tree, dict) else [(path, tree)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("odd")


FUZZ = functools.partial(settings, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@FUZZ(max_examples=40)
@given(st.data())
def test_a_few_damaged_folders(root, data):
    check(root, data)


@pytest.mark.slow
@FUZZ(max_examples=800)
@given(st.data())
def test_many_damaged_folders(root, data):
    check(root, data)
