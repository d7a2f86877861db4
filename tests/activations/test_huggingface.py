import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from activations import decoder, huggingface
from activations.tokenizer import train_tokenizer
from tests.activations.test_decoder import SMALL, params_of


@pytest.fixture
def folder(tmp_path):
    huggingface.save(tmp_path, SMALL, params_of(SMALL), train_tokenizer(["some text"], 300))
    return tmp_path


@pytest.mark.parametrize(
    "change", [{}, {"parallel_residual": False}, {"tied_embeddings": True}, {"activation": "gelu_tanh"}, {"rotary_width": 8}]
)
def test_round_trip_is_exact(tmp_path, change):
    config = dataclasses.replace(SMALL, **change)
    params = params_of(config)
    huggingface.save(tmp_path, config, params, train_tokenizer(["some text"], 300))
    assert huggingface.load_config(tmp_path) == config
    loaded = huggingface.load_params(tmp_path, config)
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True))


def test_the_tokenizer_loads_in_transformers(folder):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    assert tokenizer.decode(tokenizer("some text")["input_ids"]) == "some text"


def change_tensors(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("embed_out.weight"), "lacks 1 tensors .*embed_out.weight"),
        (lambda t: t.update(spare=np.zeros(3, np.float32)), "unknown .*spare"),
        (lambda t: t.update({"embed_out.weight": np.zeros((3, 16), np.float32)}), "has shape"),
        (lambda t: t.update({"embed_out.weight": np.full((50, 16), np.nan, np.float32)}), "NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, change, says):
    change_tensors(folder, change)
    with pytest.raises(ValueError, match=says):
        huggingface.load_params(folder, SMALL)


def test_old_buffers_are_ignored(folder):
    change_tensors(folder, lambda t: t.update({"gpt_neox.layers.0.attention.rotary_emb.inv_freq": np.zeros(2, np.float32)}))
    loaded = huggingface.load_params(folder, SMALL)
    assert jax.tree.structure(loaded) == jax.tree.structure(params_of(SMALL))


def test_truncated_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        huggingface.load_params(folder, SMALL)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "mamba"}, "family 'mamba'"),
        ({"hidden_act": "xielu"}, "activation 'xielu'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rotary kind 'yarn'"),
    ],
)
def test_configs_that_are_not_supported_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        huggingface.config_from_dict(huggingface.config_to_dict(SMALL) | change)


def test_missing_files(tmp_path):
    for load in (huggingface.load_config, lambda p: huggingface.load_params(p, SMALL), huggingface.model_digest):
        with pytest.raises(FileNotFoundError, match="lm.path"):
            load(tmp_path)


def test_digest_changes_with_every_file(folder):
    seen = {huggingface.model_digest(folder)}
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
        seen.add(huggingface.model_digest(folder))
    assert len(seen) == 4


def test_init_has_the_published_scale():
    params = decoder.init_params(jax.random.key(0), dataclasses.replace(SMALL, width=64, mlp_width=256))
    np.testing.assert_allclose(np.std(params["layers"]["up"]["w"]), 0.02, rtol=0.05)
    np.testing.assert_allclose(np.std(params["layers"]["down"]["w"]), 0.02 / np.sqrt(6), rtol=0.05)
    json.dumps(huggingface.config_to_dict(SMALL))
