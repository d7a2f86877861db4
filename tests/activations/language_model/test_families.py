"""Every family against what torch transformers computed once from the same weights (`small_models.py` says how to renew it)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from activations.language_model import checkpoint, decoder, families, layout, parameters
from tests.activations.language_model import small_models
from tests.activations.language_model.small_models import LAYER, PATCHED, patch

TOLERANCE = 1e-5  # of the largest value, or of 1


@functools.cache
def reference():
    return dict(np.load(small_models.DATA / "families.npz"))


@functools.cache
def model(name):
    of = small_models.described()[name]
    config = families.config_from_dict(of["config"])
    tensors = {n: small_models.weights(n, shape) for n, shape in of["tensors"].items()}
    kept = layout.Checkpoint(tensors, config, name)
    whole = lambda path, shape: jnp.asarray(kept.read(path, tuple(slice(n) for n in shape), np.float32))
    return config, checkpoint.map_leaves(whole, parameters.shapes(config))


VARIANTS = ("gpt_neox-sequential", "llama", "llama-linear", "qwen2-window")  # of families that are there already: `make test-slow`


@pytest.fixture(scope="module", params=[pytest.param(n, marks=[pytest.mark.slow] * (n in VARIANTS)) for n in small_models.CONFIGS])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, name):
    folder = small_models.write(tmp_path_factory.mktemp(name.replace(".", "-")), name)
    config = checkpoint.load_config(folder)
    return config, checkpoint.load_params(folder, config)


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * max(1.0, np.abs(theirs).max()))


def test_logits(name, loaded):
    config, params = loaded
    close(decoder.run(params, config, jnp.asarray(small_models.tokens()))[:1], reference()[f"{name}/logits"])


def test_sites(name, loaded):
    config, params = loaded
    tokens = jnp.asarray(small_models.tokens())
    stored = {key.split("/")[-1] for key in reference() if key.startswith(f"{name}/site/")}
    assert stored == set(config.sites())
    found = jax.jit(lambda p: {site: decoder.capture(p, config, tokens, LAYER, site) for site in config.sites()})(params)
    for site, width in config.sites().items():
        assert found[site].shape == (*tokens.shape, width)
        close(found[site][:1], reference()[f"{name}/site/{site}"])


def test_loss_with_something_spliced_in(name, loaded):
    config, params = loaded
    tokens = jnp.asarray(small_models.tokens())
    if not config.causal:
        with pytest.raises(ValueError, match="is an encoder: it has no next-token loss"):
            decoder.next_token_nll(params, config, tokens)
        return
    clean = jax.jit(lambda p: decoder.next_token_nll(p, config, tokens))(params)
    close(clean[:1], reference()[f"{name}/nll"])
    spliced = jax.jit(lambda p: {site: decoder.patched_nll(p, config, tokens, LAYER, site, patch) for site in PATCHED})(params)
    for site in PATCHED:
        assert np.abs(spliced[site] - clean).max() > 1e-3
        close(spliced[site][:1], reference()[f"{name}/nll/{site}"])


def test_the_splice_of_the_identity_is_the_clean_run_to_the_bit(name, loaded):
    config, params = loaded
    tokens = jnp.asarray(small_models.tokens())
    clean = jax.jit(lambda p: decoder.run(p, config, tokens))(params)

    @jax.jit
    def spliced(p, layer):
        h = decoder.run(p, config, tokens, upto=layer)
        return {site: decoder.resume_from(p, config, h, layer, patch=decoder.Patch(site, lambda x: x)) for site in config.sites()}

    for layer in range(config.n_layers):
        for site, logits in spliced(params, layer).items():
            assert (logits == clean).all(), (site, layer)


def test_written_and_read_again(name, loaded):
    config, params = loaded
    tensors = layout.to_tensors(params, config)
    theirs = {layout.LAYOUTS[config.family].known_as(n): n for n in small_models.described()[name]["tensors"]}
    assert tensors.keys() == theirs.keys()
    for n, t in tensors.items():
        np.testing.assert_array_equal(t, small_models.weights(theirs[n], t.shape))


def test_fields_as_version_4_of_transformers_wrote_them(name, tmp_path):
    """`CONFIGS` are such: rope_theta and rope_scaling instead of rope_parameters."""
    import json

    (tmp_path / "config.json").write_text(json.dumps(small_models.CONFIGS[name]))
    small_models.write(tmp_path / "new", name)
    assert checkpoint.load_config(tmp_path) == checkpoint.load_config(tmp_path / "new")


def test_parameters_are_counted(name, loaded):
    config, params = loaded
    assert parameters.count(config) == sum(a.size for a in jax.tree.leaves(params))
    started = parameters.init_params(jax.random.key(0), config)
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(jnp.shape, params)


def test_bfloat16_stays_near(name, tmp_path):
    folder = small_models.write(tmp_path, name)
    config = checkpoint.load_config(folder)
    params = checkpoint.load_params(folder, config, jnp.bfloat16)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    found = decoder.capture(params, config, jnp.asarray(small_models.tokens()), LAYER, "resid_post")
    theirs = reference()[f"{name}/site/resid_post"]
    assert found.dtype == jnp.bfloat16
    assert np.linalg.norm(found[:1].astype(np.float32) - theirs) < 0.05 * np.linalg.norm(theirs)


def test_an_encoder_sees_no_padding():
    config, params = model("bert")
    tokens = small_models.tokens()
    whole = decoder.run(params, config, jnp.asarray(tokens[:, :9]))
    padded = decoder.run(params, config, jnp.asarray(tokens), length_B=jnp.array([9, 9]))
    np.testing.assert_allclose(padded[:, :9], whole, atol=1e-5)
    assert np.abs(decoder.run(params, config, jnp.asarray(tokens))[:, :9] - whole).max() > 1e-2
