"""One generic decoder-only language model as pure functions over a pytree.

Layers are stacked along axis 0 and indexed inside a loop: compile time is flat in depth, and a traced layer index serves
every layer with one compile.  `run(..., upto=L)` followed by `resume_from(..., L)` is the full run.

Kinds so far: LayerNorm, partial rotary embedding (NeoX halves), parallel or sequential residual, GELU MLP.  A further
family is a field of `DecoderConfig` here plus a name table in `activations/huggingface.py`.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Params = dict[str, Any]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


@flax.struct.dataclass
class DecoderConfig:
    """Static description of a decoder.

    Attributes:
      family: `model_type` of the Hugging Face config that it was read from.
      vocab_size: rows of the embedding.
      width: residual stream width (D).
      n_layers: number of blocks.
      n_heads: attention heads; head width is `width / n_heads`.
      mlp_width: hidden width of the MLP.
      max_positions: longest context the model was made for.
      activation: a key of `ACTIVATIONS`.
      norm_eps: added to the variance in LayerNorm.
      rotary_width: leading dimensions of each head that are rotated (even).
      rotary_base: base of the rotary wavelengths.
      parallel_residual: attention and MLP both read the block's input (True) or one after the other (False).
      tied_embeddings: the unembedding is the embedding transposed.
    """

    family: str
    vocab_size: int
    width: int
    n_layers: int
    n_heads: int
    mlp_width: int
    max_positions: int
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"]
    norm_eps: float
    rotary_width: int
    rotary_base: float
    parallel_residual: bool
    tied_embeddings: bool

    @property
    def head_width(self) -> int:
        return self.width // self.n_heads


def init_params(key: jax.Array, config: DecoderConfig) -> Params:
    """Normal(0, 0.02) weights, output projections scaled by 1/√(2·layers) (GPT-2), zero biases, unit norms. float32."""
    d, f, n = config.width, config.mlp_width, config.n_layers
    residual_scale = 0.02 / (2 * n) ** 0.5
    shapes = {"q": (d, d, 0.02), "k": (d, d, 0.02), "v": (d, d, 0.02), "o": (d, d, residual_scale)}
    shapes |= {"up": (d, f, 0.02), "down": (f, d, residual_scale)}
    keys = dict(zip([*shapes, "embed", "unembed"], jax.random.split(key, len(shapes) + 2), strict=True))
    layers: Params = {
        name: {"w": scale * jax.random.normal(keys[name], (n, i, o)), "b": jnp.zeros((n, o))} for name, (i, o, scale) in shapes.items()
    }
    norms: Params = {name: {"w": jnp.ones((n, d)), "b": jnp.zeros((n, d))} for name in ("attention_norm", "mlp_norm")}
    params: Params = {
        "embed": {"w": 0.02 * jax.random.normal(keys["embed"], (config.vocab_size, d))},
        "layers": layers | norms,
        "final_norm": {"w": jnp.ones(d), "b": jnp.zeros(d)},
    }
    if not config.tied_embeddings:
        params["unembed"] = {"w": 0.02 * jax.random.normal(keys["unembed"], (d, config.vocab_size))}
    return params


def run(
    params: Params, config: DecoderConfig, tokens_BT: Int[Array, "B T"], *, upto: Any = None, unroll: bool = False
) -> Float[Array, "B T _"]:
    """The residual stream entering layer `upto`, (B, T, D), or without `upto` the logits, (B, T, V).

    `upto` = number of layers is the stream leaving the last one; it may be traced.  `unroll` writes the layers out one
    after another, for reverse mode (compile time grows with depth).
    Right padding needs no mask: attention is causal.
    """
    h_BTD = params["embed"]["w"][tokens_BT]
    if upto is None:
        return resume_from(params, config, h_BTD, 0, unroll=unroll)
    return _run_layers(params, config, h_BTD, 0, upto, unroll)


def resume_from(
    params: Params, config: DecoderConfig, h_BTD: Float[Array, "B T D"], layer: Any, *, unroll: bool = False
) -> Float[Array, "B T V"]:
    """Logits from the residual stream entering `layer`, which may be traced; reverse mode needs a static one and `unroll`."""
    return unembed(params, config, _run_layers(params, config, h_BTD, layer, config.n_layers, unroll))


def unembed(params: Params, config: DecoderConfig, h_BTD: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Final norm and projection to the vocabulary."""
    h_BTD = _layer_norm(params["final_norm"], h_BTD, config.norm_eps)
    return h_BTD @ (params["embed"]["w"].T if config.tied_embeddings else params["unembed"]["w"])


def next_token_nll(params: Params, config: DecoderConfig, tokens_BT: Int[Array, "B T"], *, unroll: bool = False) -> Float[Array, "B U"]:
    """Negative log-likelihood (nats) of tokens 1 … T-1 given those before them; shape (B, T-1)."""
    logits_BUV = run(params, config, tokens_BT, unroll=unroll)[:, :-1].astype(jnp.float32)
    target_BU = tokens_BT[:, 1:]
    logits_BU = jnp.take_along_axis(logits_BUV, target_BU[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits_BUV, axis=-1) - logits_BU


def _run_layers(params: Params, config: DecoderConfig, h_BTD: Array, start: Any, stop: Any, unroll: bool = False) -> Array:
    rotary = _rotary_tables(config, h_BTD.shape[1])

    def one_layer(i: Any, h_BTD: Array) -> Array:
        layer = jax.tree.map(lambda w: jax.lax.dynamic_index_in_dim(w, i, keepdims=False), params["layers"])
        return _block(layer, config, h_BTD, rotary)

    if unroll:
        for i in range(start, stop):
            h_BTD = one_layer(i, h_BTD)
        return h_BTD
    # Not fori_loop: it turns bounds it can read into a loop of known length, which XLA may unroll and fuse otherwise, and
    # stopping half-way would then cost bits.
    carry = (jnp.asarray(start, jnp.int32), h_BTD)
    return jax.lax.while_loop(lambda c: c[0] < stop, lambda c: (c[0] + 1, one_layer(*c)), carry)[1]


def _block(layer: Params, config: DecoderConfig, x_BTD: Array, rotary: tuple[Array, Array]) -> Array:
    attention_out = _attention(layer, config, _layer_norm(layer["attention_norm"], x_BTD, config.norm_eps), rotary)
    mlp_in = x_BTD if config.parallel_residual else x_BTD + attention_out
    mlp_out = _mlp(layer, config, _layer_norm(layer["mlp_norm"], mlp_in, config.norm_eps))
    return x_BTD + attention_out + mlp_out


def _attention(layer: Params, config: DecoderConfig, x_BTD: Array, rotary: tuple[Array, Array]) -> Array:
    b, t, _ = x_BTD.shape
    # Heads before positions: with positions first XLA's CPU batched products take more than twice as long.
    q, k, v = (_linear(layer[name], x_BTD).reshape(b, t, config.n_heads, -1).swapaxes(1, 2) for name in "qkv")
    q, k = _rotate(q, *rotary), _rotate(k, *rotary)
    scores = (q @ k.swapaxes(-1, -2)).astype(jnp.float32) * config.head_width**-0.5
    causal_TT = jnp.tril(jnp.ones((t, t), bool))
    weights = jax.nn.softmax(jnp.where(causal_TT, scores, jnp.finfo(jnp.float32).min), axis=-1).astype(x_BTD.dtype)
    return _linear(layer["o"], (weights @ v).swapaxes(1, 2).reshape(b, t, -1))


def _mlp(layer: Params, config: DecoderConfig, x_BTD: Array) -> Array:
    return _linear(layer["down"], ACTIVATIONS[config.activation](_linear(layer["up"], x_BTD)))


def _linear(p: Params, x: Array) -> Array:
    return x @ p["w"] + p["b"]


def _layer_norm(p: Params, x: Array, eps: float) -> Array:
    h = x.astype(jnp.float32)
    h = h - h.mean(-1, keepdims=True)
    h = h * jax.lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + eps)
    return (h * p["w"] + p["b"]).astype(x.dtype)


def _rotary_tables(config: DecoderConfig, t: int) -> tuple[Array, Array]:
    """cos and sin of position × inverse wavelength, each (T, rotary_width), the frequencies repeated for both halves."""
    n = config.rotary_width
    inverse_wavelength = config.rotary_base ** -(jnp.arange(0, n, 2, dtype=jnp.float32) / n)
    angle = jnp.arange(t, dtype=jnp.float32)[:, None] * inverse_wavelength
    angle = jnp.concatenate([angle, angle], axis=-1)
    return jnp.cos(angle), jnp.sin(angle)


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Rotary embedding of the first `rotary_width` dimensions of every head, the two halves paired (GPT-NeoX)."""
    n = cos.shape[-1]
    rotated, rest = x[..., :n], x[..., n:]
    first, second = jnp.split(rotated, 2, axis=-1)
    rotated = rotated * cos + jnp.concatenate([-second, first], axis=-1) * sin
    return jnp.concatenate([rotated.astype(x.dtype), rest], axis=-1)
