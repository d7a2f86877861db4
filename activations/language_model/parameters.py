"""The pytree of a model's parameters: what is in it, how large, and how it starts out."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from activations.language_model.block import Params
from activations.language_model.config import DecoderConfig


def shapes(config: DecoderConfig) -> dict[str, Any]:
    """{module: {"w": shape, "b": shape}}, those of layers below "layers" and stacked along axis 0.

    Linear maps are (in, out); norms have no "b" where they are of kind "rms".
    """
    d, f, v, e = config.width, config.mlp_width, config.vocab_size, config.head_width
    q, kv = config.n_heads * e, config.n_kv_heads * e
    matrix = lambda i, o, bias: {"w": (i, o)} | ({"b": (o,)} if bias else {})
    norm = lambda width, kind=config.norm: {"w": (width,)} | ({"b": (width,)} if kind == "layer" else {})
    layer: dict[str, Any] = {
        "q": matrix(d, q, config.qkv_bias),
        "k": matrix(d, kv, config.qkv_bias),
        "v": matrix(d, kv, config.qkv_bias),
        "o": matrix(q, d, config.out_bias),
        "up": matrix(d, f, config.mlp_bias),
        "down": matrix(f, d, config.mlp_bias),
        "attention_norm": norm(d),
        "mlp_norm": norm(d),
    }
    if config.gated_mlp:
        layer["gate"] = matrix(d, f, config.mlp_bias)
    if config.residual == "sandwich":
        layer |= {"attention_out_norm": norm(d), "mlp_out_norm": norm(d)}
    if config.qk_norm:
        layer |= {"q_norm": norm(e), "k_norm": norm(e)}
    model: dict[str, Any] = {
        "embed": {"w": (v, d)},
        "layers": {name: {leaf: (config.n_layers, *shape) for leaf, shape in module.items()} for name, module in layer.items()},
    }
    if not config.rotary:
        model["positions"] = {"w": (config.max_positions, d)}
    if config.token_types:
        model["token_types"] = {"w": (config.token_types, d)}
    if config.embed_norm:
        model["embed_norm"] = norm(d)
    if config.head == "masked":
        model |= {"head_dense": matrix(d, d, True), "head_norm": norm(d, "layer"), "head_bias": {"b": (v,)}}
    elif config.residual != "post":
        model["final_norm"] = norm(d)
    if config.head == "linear" and not config.tied_embeddings:
        model["unembed"] = {"w": (d, v)}
    return model


def init_params(key: jax.Array, config: DecoderConfig) -> Params:
    """Normal(0, 0.02) weights, output projections scaled by 1/√(2·layers) (GPT-2), zero biases, norms that leave lengths. float32."""
    names = ["q", "k", "v", "o", "up", "down", "embed", "unembed"]
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def start(path: Any, shape: tuple[int, ...]) -> jax.Array:
        name, leaf = path[-2].key, path[-1].key
        if leaf == "b":
            return jnp.zeros(shape)
        if name.endswith("norm"):
            return jnp.zeros(shape) if config.unit_offset else jnp.ones(shape)
        scale = 0.02 / (2 * config.n_layers) ** 0.5 if name in ("o", "down") else 0.02
        own = keys[name] if name in keys else jax.random.fold_in(key, sum(map(ord, name)))
        return scale * jax.random.normal(own, shape)

    return jax.tree_util.tree_map_with_path(start, shapes(config), is_leaf=lambda x: isinstance(x, tuple))


def count(config: DecoderConfig) -> int:
    """How many numbers the parameters are."""
    return sum(jax.tree.leaves(jax.tree.map(math.prod, shapes(config), is_leaf=lambda x: isinstance(x, tuple))))
