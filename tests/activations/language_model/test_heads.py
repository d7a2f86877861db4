"""The head of a checkpoint: a matrix of its own, the embedding, or not there."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from activations.language_model import checkpoint, decoder, families, layout
from tests.activations.language_model import small_models
from tests.activations.language_model.test_checkpoint import change_tensors, equal

D = 32
TOKENS = jnp.asarray(small_models.tokens()[:, :9] % 32)


def untied(folder, vocab):
    """GPT-2 with a head of its own."""
    raw = small_models.CONFIGS["gpt2"] | {"vocab_size": vocab, "tie_word_embeddings": False, "activation_function": "gelu_new"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw | {"layer_norm_epsilon": 1e-5}))
    config = checkpoint.load_config(folder)
    shapes = layout.tensor_shapes(config, "transformer.")
    tensors = {name: small_models.weights(name, shape) for name, shape in shapes.items()}
    assert tensors["lm_head.weight"].shape == (vocab, D) and tensors["transformer.h.0.attn.c_attn.weight"].shape == (D, 3 * D)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return config, tensors


@pytest.mark.parametrize("vocab", [61, D])  # where both are equal no shape tells the two layouts apart
def test_the_head_of_an_untied_gpt2_is_a_linear_map(tmp_path, vocab):
    config, tensors = untied(tmp_path, vocab)
    params = checkpoint.load_params(tmp_path, config)
    h = np.asarray(decoder.run(params, config, TOKENS, upto=3), np.float64)
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    h = h * tensors["transformer.ln_f.weight"] + tensors["transformer.ln_f.bias"]
    logits = h @ tensors["lm_head.weight"].T.astype(np.float64)
    np.testing.assert_allclose(decoder.run(params, config, TOKENS), logits, atol=1e-4)
    written = layout.to_tensors(params, config)
    assert written.keys() == tensors.keys()
    assert all((written[name] == tensors[name]).all() for name in tensors)


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "mistral", "qwen2", "qwen3", "bert", "gpt2"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_checkpoint_without_its_head_serves_activations(tmp_path, name, shards):
    """As AutoModel's save_pretrained writes it: neither a head nor the prefix."""
    if name == "gpt2":
        whole, tensors = untied(tmp_path, 61)
    else:
        small_models.write(tmp_path, name)
        whole = checkpoint.load_config(tmp_path)
        tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    params = checkpoint.load_params(tmp_path, whole)
    prefix = next(p for p in layout.LAYOUTS[whole.family].prefixes if p)
    bare = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    assert len(bare) < len(tensors)
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "config.json").write_text((tmp_path / "config.json").read_text())
    files = [f"model-{i}.safetensors" for i in range(shards)] if shards > 1 else ["model.safetensors"]
    for i, file in enumerate(files):
        safetensors.numpy.save_file({n: bare[n] for n in sorted(bare)[i::shards]}, folder / file)
    if shards > 1:
        placed = {n: files[i % shards] for i, n in enumerate(sorted(bare))}
        (folder / checkpoint.INDEX).write_text(json.dumps({"weight_map": placed}))
    config = checkpoint.load_config(folder)
    assert (whole.head, config.head) == ("masked" if name == "bert" else "linear", "none")
    found = checkpoint.load_params(folder, config)
    equal(found["layers"], params["layers"])
    same = [decoder.capture(p, c, TOKENS, 2, "resid_post") for p, c in ((found, config), (params, whole))]
    assert (same[0] == same[1]).all()
    with pytest.raises(ValueError, match="checkpoint holds no head: activations can be read from it, logits cannot"):
        decoder.run(found, config, TOKENS)


def test_a_part_of_a_head_is_damage(tmp_path):
    folder = small_models.write(tmp_path, "bert")
    change_tensors(folder, lambda t: t.pop("cls.predictions.bias"))
    with pytest.raises(ValueError, match="lacks 1 tensors of this config, first 'cls.predictions.bias'"):
        checkpoint.load_params(folder, checkpoint.load_config(folder))


@pytest.mark.parametrize("name", ["llama-3.1", "gemma2"])
def test_a_head_that_is_not_the_embedding_it_is_tied_to_is_refused(tmp_path, name):
    folder = small_models.write(tmp_path, name)
    config = checkpoint.load_config(folder)
    change_tensors(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))
    before = checkpoint.load_params(folder, config)
    change_tensors(folder, lambda t: t.update({"lm_head.weight": t["lm_head.weight"] + 1}))
    with pytest.raises(ValueError, match="lm_head.weight is not the embedding, to which the config ties it: set tie_word_embeddings"):
        checkpoint.load_params(folder, config)
    assert config.tied_embeddings and "unembed" not in before


def test_two_names_of_one_tensor_are_refused(tmp_path):
    folder = small_models.write(tmp_path, "gpt_neox")
    change_tensors(folder, lambda t: t.update({"embed_out.weight": t["lm_head.weight"] + 1}))
    with pytest.raises(ValueError, match="two names of one tensor"):
        checkpoint.load_params(folder, checkpoint.load_config(folder))


def test_weights_of_whole_numbers_are_refused(tmp_path):
    folder = small_models.write(tmp_path, "llama")
    change_tensors(folder, lambda t: t.update({"model.norm.weight": np.ones(32, np.int32)}))
    with pytest.raises(ValueError, match="model.norm.weight holds int32, not floats"):
        checkpoint.load_params(folder, checkpoint.load_config(folder))


def test_linear_modules_of_every_family_lie_out_in():
    """Conv1D modules are GPT-2's alone, and among them is neither a head nor an embedding."""
    turned = {family: layout.LAYOUTS[family].conv1d for family in families.FAMILIES}
    assert {family for family, modules in turned.items() if modules} == {"gpt2"}
    assert set(turned["gpt2"]) == {"qkv", "o", "up", "down"}
