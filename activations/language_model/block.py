"""One layer of the generic transformer. `tap(site, value)` sees every named value of a layer, and may replace it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from activations.language_model.config import DecoderConfig

Params = dict[str, Any]
Tap = Callable[[str, Array], Array]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "silu": jax.nn.silu,
}


class Shared(NamedTuple):
    """What all layers have in common.

    Attributes:
      rotary: cos and sin of every kind of rotary embedding, each (kinds, T, rotated width) float32; None: learned positions.
      mask: which keys a query sees, (T, T), or (B, 1, T) where contexts of an encoder have their own lengths.
      back: how many positions before the query a key lies, (T, T).
    """

    rotary: tuple[Float[Array, "kinds T E"], Float[Array, "kinds T E"]] | None
    mask: Bool[Array, "..."]
    back: Int[Array, "T T"]


def shared(config: DecoderConfig, t: int, length_B: Int[Array, " B"] | None) -> Shared:
    """For contexts of `t` positions; of an encoder, `length_B` says how many of each are real."""
    rotary = None
    if config.rotary:
        frequency = np.stack([r.frequencies() for r in config.rotary])
        angle = jnp.arange(t, dtype=jnp.float32)[:, None] * jnp.asarray(frequency)[:, None, :]
        angle = jnp.concatenate([angle, angle], axis=-1)
        rotary = (jnp.cos(angle), jnp.sin(angle))
    back_TT = jnp.arange(t)[:, None] - jnp.arange(t)
    if config.causal:
        mask = back_TT >= 0  # right padding needs no mask: nobody looks to the right
    elif length_B is None:
        mask = jnp.ones((t, t), bool)
    else:
        mask = (jnp.arange(t) < length_B[:, None])[:, None, :]
    return Shared(rotary, mask, back_TT)


def block(layer: Params, config: DecoderConfig, x_BTD: Array, common: Shared, window: Any, kind: Any, tap: Tap | None = None) -> Array:
    """The stream behind a layer.

    Args:
      layer: its parameters.
      window: how many positions back it sees (a number larger than T: all); may be traced.
      kind: of its rotary embedding; may be traced.
      tap: called at every site of the layer.
    """
    see: Tap = tap or (lambda site, value: value)
    norm = lambda name, x: norm_of(layer[name], config, x)
    behind = (lambda name, x: norm(name, x)) if config.residual == "sandwich" else (lambda name, x: x)
    x_BTD = see("resid_pre", x_BTD)
    if config.residual == "post":
        attended = see("attn_out", _attention(layer, config, x_BTD, common, window, kind))
        x_BTD = see("resid_mid", norm("attention_norm", x_BTD + attended))
        return see("resid_post", norm("mlp_norm", x_BTD + see("mlp_out", _mlp(layer, config, see("mlp_in", x_BTD), see))))
    attended = _attention(layer, config, norm("attention_norm", x_BTD), common, window, kind)
    attended = see("attn_out", behind("attention_out_norm", attended))
    if config.residual == "parallel":
        mlp_out = see("mlp_out", _mlp(layer, config, see("mlp_in", norm("mlp_norm", x_BTD)), see))
        return see("resid_post", x_BTD + attended + mlp_out)
    x_BTD = see("resid_mid", x_BTD + attended)
    mlp_out = behind("mlp_out_norm", _mlp(layer, config, see("mlp_in", norm("mlp_norm", x_BTD)), see))
    return see("resid_post", x_BTD + see("mlp_out", mlp_out))


def _attention(layer: Params, config: DecoderConfig, x_BTD: Array, common: Shared, window: Any, kind: Any) -> Array:
    b, t, _ = x_BTD.shape
    groups, together, e = config.n_kv_heads, config.n_heads // config.n_kv_heads, config.head_width
    # Heads before positions: with positions first XLA's CPU batched products take more than twice as long.
    q, k, v = (linear(layer[name], x_BTD).reshape(b, t, -1, e).swapaxes(1, 2) for name in "qkv")
    if config.qk_norm:
        q, k = norm_of(layer["q_norm"], config, q), norm_of(layer["k_norm"], config, k)
    if common.rotary is not None:
        cos, sin = (table[0] if len(config.rotary) == 1 else table[kind] for table in common.rotary)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    q = q.reshape(b, groups, together * t, e)  # heads that share keys stand one behind the other
    scores = jnp.matmul(q, k.swapaxes(-1, -2), preferred_element_type=jnp.float32).reshape(b, groups, together, t, t)
    scores = scores * (config.attention_scale or e**-0.5)
    if config.attention_softcap:
        scores = softcap(scores, config.attention_softcap)
    seen = common.mask
    if config.layer_window:
        seen = seen & (common.back < window)
    seen = seen if seen.ndim == 2 else seen[:, None, None]
    weights = jax.nn.softmax(jnp.where(seen, scores, jnp.finfo(jnp.float32).min), axis=-1).astype(x_BTD.dtype)
    mixed = (weights.reshape(b, groups, together * t, t) @ v).reshape(b, groups * together, t, e)
    return linear(layer["o"], mixed.swapaxes(1, 2).reshape(b, t, -1))


def _mlp(layer: Params, config: DecoderConfig, x_BTD: Array, see: Tap) -> Array:
    act = ACTIVATIONS[config.activation]
    hidden = act(linear(layer["gate"], x_BTD)) * linear(layer["up"], x_BTD) if config.gated_mlp else act(linear(layer["up"], x_BTD))
    return linear(layer["down"], see("mlp_act", hidden))


def linear(p: Params, x: Array) -> Array:
    """x @ w, and + b where there is one."""
    return x @ p["w"] + p["b"] if "b" in p else x @ p["w"]


def layer_norm(p: Params, x: Array, eps: float) -> Array:
    """LayerNorm in float32."""
    h = x.astype(jnp.float32)
    h = h - h.mean(-1, keepdims=True)
    h = h * jax.lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + eps)
    return (h * p["w"] + p["b"]).astype(x.dtype)


def norm_of(p: Params, config: DecoderConfig, x: Array) -> Array:
    """The model's kind of norm, in float32."""
    if config.norm == "layer":
        return layer_norm(p, x, config.norm_eps)
    h = x.astype(jnp.float32)
    h = h * jax.lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + config.norm_eps)
    weight = p["w"].astype(jnp.float32)
    return (h * (1 + weight)).astype(x.dtype) if config.unit_offset else (h.astype(x.dtype) * weight.astype(x.dtype))


def softcap(x: Array, cap: float) -> Array:
    """x for small x, never beyond ± cap."""
    return jnp.tanh(x / cap) * cap


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Rotary embedding of the leading dimensions of every head, the two halves paired (GPT-NeoX)."""
    n = cos.shape[-1]
    rotated, rest = x[..., :n], x[..., n:]
    first, second = jnp.split(rotated, 2, axis=-1)
    rotated = rotated * cos + jnp.concatenate([-second, first], axis=-1) * sin
    return jnp.concatenate([rotated.astype(x.dtype), rest], axis=-1)
