"""The decoder against an independent NumPy forward pass, and against stored logits of the reference implementation."""

import dataclasses
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from activations.language_model import checkpoint, decoder
from activations.language_model.config import DecoderConfig, Rotary
from activations.language_model.parameters import init_params

SMALL = DecoderConfig(
    family="gpt_neox", vocab_size=50, width=16, n_layers=3, n_heads=2, n_kv_heads=2, head_width=8, mlp_width=24, max_positions=32,
    activation="gelu", norm_eps=1e-5, tied_embeddings=False, residual="parallel", rotary=(Rotary(4, 10000.0),),
)  # fmt: skip
MODEL = pathlib.Path(__file__).parents[3] / "models" / "stdlib-neox-4x128"
REFERENCE = pathlib.Path(__file__).parents[2] / "data" / "stdlib_neox_reference.json"


def params_of(config, seed=0):
    params = init_params(jax.random.key(seed), config)
    keys = iter(jax.random.split(jax.random.key(seed + 1), 99))
    return jax.tree.map(lambda a: a + 0.3 * jax.random.normal(next(keys), a.shape), params)  # no zero biases, no unit norms


def numpy_forward(params, config, tokens, layers):
    """Written from the GPT-NeoX description, position by position; float64."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def norm(q, x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + config.norm_eps) * q["w"] + q["b"]

    def rotate(v, position):
        n, out = config.rotary[0].width, v.copy()
        for i in range(n // 2):
            a = position / config.rotary[0].base ** (2 * i / n)
            out[i] = v[i] * math.cos(a) - v[i + n // 2] * math.sin(a)
            out[i + n // 2] = v[i + n // 2] * math.cos(a) + v[i] * math.sin(a)
        return out

    h = p["embed"]["w"][tokens]
    for i in range(layers):
        layer = jax.tree.map(lambda a, i=i: a[i], p["layers"])
        x = norm(layer["attention_norm"], h)
        q, k, v = (x @ layer[n]["w"] + layer[n]["b"] for n in "qkv")
        attended = np.zeros_like(h)
        e = config.width // config.n_heads
        for t in range(len(tokens)):
            for head in range(config.n_heads):
                s = slice(head * e, (head + 1) * e)
                scores = np.array([rotate(q[t, s], t) @ rotate(k[u, s], u) for u in range(t + 1)]) / math.sqrt(e)
                attended[t, s] = scipy.special.softmax(scores) @ v[: t + 1, s]
        attended = attended @ layer["o"]["w"] + layer["o"]["b"]
        y = norm(layer["mlp_norm"], h if config.residual == "parallel" else h + attended)
        y = y @ layer["up"]["w"] + layer["up"]["b"]
        y = y * scipy.special.ndtr(y)
        h = h + attended + y @ layer["down"]["w"] + layer["down"]["b"]
    return h, norm(p["final_norm"], h) @ (p["embed"]["w"].T if config.tied_embeddings else p["unembed"]["w"])


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_agrees_with_numpy(parallel, tied):
    config = dataclasses.replace(SMALL, residual="parallel" if parallel else "pre", tied_embeddings=tied)
    params, tokens = params_of(config), np.random.default_rng(0).integers(0, 50, (2, 7))
    for b in range(2):
        h, logits = numpy_forward(params, config, tokens[b], config.n_layers)
        np.testing.assert_allclose(decoder.run(params, config, jnp.asarray(tokens), upto=3)[b], h, atol=2e-5)
        np.testing.assert_allclose(decoder.run(params, config, jnp.asarray(tokens))[b], logits, atol=5e-5)


@pytest.mark.parametrize("layer", range(SMALL.n_layers + 1))
def test_stopping_and_resuming_is_the_full_run(layer):
    params, tokens = params_of(SMALL), jnp.arange(10).reshape(2, 5)
    full = decoder.run(params, SMALL, tokens)
    h = decoder.run(params, SMALL, tokens, upto=layer)
    assert (decoder.resume_from(params, SMALL, h, layer) == full).all()


def in_one_trace(fn, layers):
    """`fn` of every layer, traced, by one program."""
    traces = []
    counted = jax.jit(lambda layer: (traces.append(layer), fn(layer))[1])
    found = [counted(layer) for layer in layers]
    assert len(traces) == 1
    return found


def test_one_compile_serves_every_layer_and_unrolling_changes_nothing():
    params, tokens = params_of(SMALL), jnp.arange(10).reshape(2, 5)
    found = in_one_trace(lambda layer: decoder.run(params, SMALL, tokens, upto=layer), range(4))
    for layer in range(4):
        np.testing.assert_allclose(found[layer], decoder.run(params, SMALL, tokens, upto=layer, unroll=True), atol=1e-5)


def test_causality_by_gradient():
    """No position's output depends on a later input."""
    params, h = params_of(SMALL), jax.random.normal(jax.random.key(3), (1, 6, 16))
    jacobian = jax.jacrev(lambda h: decoder.resume_from(params, SMALL, h, 0, unroll=True)[0, :, 0])(h)[:, 0]
    influence = np.abs(jacobian).sum(-1)
    assert (influence[np.triu_indices(6, 1)] == 0).all() and (np.diag(influence) > 0).all()


def test_nll_is_the_log_softmax_of_the_next_token():
    params, tokens = params_of(SMALL), jnp.arange(10).reshape(2, 5)
    logits = np.asarray(decoder.run(params, SMALL, tokens), np.float64)
    expected = [[-scipy.special.log_softmax(logits[b, t])[tokens[b, t + 1]] for t in range(4)] for b in range(2)]
    np.testing.assert_allclose(decoder.next_token_nll(params, SMALL, tokens), expected, rtol=1e-5)


def test_the_loss_in_pieces_is_the_loss(monkeypatch):
    config = dataclasses.replace(SMALL, n_layers=1)
    params, tokens = params_of(config), jnp.arange(2 * 11).reshape(2, 11)

    def loss_and_slope():
        nll = lambda p: decoder.next_token_nll(p, config, tokens, unroll=True)
        return jax.jit(lambda p: (nll(p), jax.grad(lambda p: nll(p).mean())(p)))(params)

    whole, gradient = loss_and_slope()
    for width in (1, 3, 4):
        monkeypatch.setattr(decoder, "LOGITS_AT_ONCE", 2 * config.vocab_size * width)
        in_pieces, of_pieces = loss_and_slope()
        np.testing.assert_allclose(in_pieces, whole, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(of_pieces), jax.tree.leaves(gradient), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_no_array_of_tokens_times_vocabulary_is_made(monkeypatch):
    """Nothing in the program is as large as all logits."""
    config = dataclasses.replace(SMALL, vocab_size=5000)
    tokens = jnp.zeros((4, 65), jnp.int32)
    monkeypatch.setattr(decoder, "LOGITS_AT_ONCE", 4 * 5000 * 8)
    program = jax.jit(lambda p: decoder.next_token_nll(p, config, tokens)).lower(init_params(jax.random.key(0), config)).compile()
    assert program.memory_analysis().temp_size_in_bytes < 4 * 4 * 64 * 5000 / 2


def test_sites_and_layers_that_are_not_there():
    params, tokens = params_of(SMALL), jnp.arange(10).reshape(2, 5)
    with pytest.raises(ValueError, match="site 'resid_mid': layers of this gpt_neox model have resid_pre, attn_out, mlp_in"):
        decoder.capture(params, SMALL, tokens, 0, "resid_mid")
    with pytest.raises(ValueError, match="site 'nowhere'"):
        decoder.patched_nll(params, SMALL, tokens, 0, "nowhere", lambda x: x)
    for wrong in (
        lambda: decoder.capture(params, SMALL, tokens, -1, "resid_post"),
        lambda: decoder.capture(params, SMALL, tokens, 3, "resid_post"),
        lambda: decoder.run(params, SMALL, tokens, upto=4),
        lambda: decoder.patched_nll(params, SMALL, tokens, 3, "mlp_out", lambda x: x),
        lambda: decoder.resume_from(params, SMALL, jnp.zeros((2, 5, 16)), -1),
    ):
        with pytest.raises(ValueError, match="layer -?[0-9]: 0 to [23] are there"):
            wrong()
    for layer, site, says in ((3, "resid_post", "source.layer=3: the model has layers 0 to 2"), (0, "x", "source.site='x'")):
        with pytest.raises(ValueError, match=says):
            SMALL.check_place(layer, site)


def test_one_compile_captures_in_every_layer():
    params, tokens = params_of(SMALL), jnp.arange(10).reshape(2, 5)
    found = in_one_trace(lambda layer: decoder.capture(params, SMALL, tokens, layer, "mlp_act"), range(3))
    assert found[0].shape == (2, 5, 24)
    assert all(np.abs(found[i] - found[j]).max() > 1e-3 for i in range(3) for j in range(i))


def test_lowers_for_tpu():
    run = jax.jit(lambda p, tokens: decoder.patched_nll(p, SMALL, tokens, 1, "mlp_out", lambda x: 0 * x))
    lowered = run.trace(init_params(jax.random.key(0), SMALL), jnp.zeros((2, 8), jnp.int32)).lower(lowering_platforms=("tpu",))
    assert "stablehlo.while" in lowered.as_text() and lowered.out_info.shape == (2, 7)


def test_the_embedded_model_gives_the_reference_implementations_logits():
    """`tests/data/stdlib_neox_reference.json` comes from torch transformers: `python -m tests.make_reference`."""
    reference = json.loads(REFERENCE.read_text())
    config = checkpoint.load_config(MODEL)
    logits = decoder.run(checkpoint.load_params(MODEL, config), config, jnp.asarray(reference["tokens"]))
    np.testing.assert_allclose(logits[:, -1, :64], reference["last_logits"], atol=2e-4)
    np.testing.assert_allclose(logits.mean(-1), reference["mean_logits"], atol=2e-4)
