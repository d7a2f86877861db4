"""One generic transformer as pure functions over a pytree: run it, capture inside it, splice into it.

Layers are stacked along axis 0 and indexed inside a loop: compile time is flat in depth, and a traced layer index serves every
layer with one compile.  `run(..., upto=L)` followed by `resume_from(..., L)` is the full run, to the last bit; so is a run with
the identity spliced in.

What families have is a field of `DecoderConfig`, read by `block.py`; their names and configs are in `families.py` and `layout.py`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from activations.language_model.block import ACTIVATIONS, Params, Shared, Tap, block, layer_norm, linear, norm_of, shared, softcap
from activations.language_model.config import DecoderConfig

LOGITS_AT_ONCE = 2**24  # numbers that a piece of the loss may hold: no array of all tokens × vocabulary is made


class Patch(NamedTuple):
    """A function that replaces what a site holds.

    Attributes:
      site: one of `config.sites()`.
      fn: (B, T, width of the site) → the same shape.
    """

    site: str
    fn: Callable[[Array], Array]


def run(
    params: Params,
    config: DecoderConfig,
    tokens_BT: Int[Array, "B T"],
    *,
    upto: Any = None,
    length_B: Int[Array, " B"] | None = None,
    unroll: bool = False,
) -> Float[Array, "B T _"]:
    """The residual stream entering layer `upto`, (B, T, D), or without `upto` the logits, (B, T, V).

    Args:
      upto: number of layers to run, 0 to n_layers; may be traced.
      length_B: of an encoder: positions of each context that are real; None: all. A decoder needs none, padding stands on the right.
      unroll: layers are written out one after another, for reverse mode (compile time grows with depth).
    """
    _check_layer(upto, config.n_layers)
    h_BTD = embed(params, config, tokens_BT)
    if upto is None:
        return resume_from(params, config, h_BTD, 0, length_B=length_B, unroll=unroll)
    return _layers(params, config, h_BTD, 0, upto, shared(config, tokens_BT.shape[1], length_B), unroll=unroll)


def capture(
    params: Params, config: DecoderConfig, tokens_BT: Int[Array, "B T"], layer: Any, site: str, *, length_B: Int[Array, " B"] | None = None
) -> Float[Array, "B T _"]:
    """What `site` of `layer` holds; nothing above is run. Raises ValueError for a site, or a layer that is not traced, that is not there."""
    _check_site(config, site)
    _check_layer(layer, config.n_layers - 1)
    if site == "resid_post":
        return run(params, config, tokens_BT, upto=layer + 1, length_B=length_B)
    h_BTD = run(params, config, tokens_BT, upto=layer, length_B=length_B)
    if site == "resid_pre":
        return h_BTD
    found: dict[str, Array] = {}
    _one_layer(params, config, layer, h_BTD, shared(config, tokens_BT.shape[1], length_B), lambda s, v: found.setdefault(s, v))
    return found[site]


def resume_from(
    params: Params,
    config: DecoderConfig,
    h_BTD: Float[Array, "B T D"],
    layer: Any,
    *,
    patch: Patch | None = None,
    length_B: Int[Array, " B"] | None = None,
    unroll: bool = False,
) -> Float[Array, "B T V"]:
    """Logits from the residual stream entering `layer`, which may be traced (reverse mode needs a static one and `unroll`).

    Args:
      patch: spliced into `layer`.
    """
    return unembed(params, config, final_stream(params, config, h_BTD, layer, patch=patch, length_B=length_B, unroll=unroll))


def final_stream(
    params: Params,
    config: DecoderConfig,
    h_BTD: Float[Array, "B T D"],
    layer: Any,
    *,
    patch: Patch | None = None,
    length_B: Int[Array, " B"] | None = None,
    unroll: bool = False,
) -> Float[Array, "B T D"]:
    """The stream leaving the last layer, from that entering `layer`; arguments as of `resume_from`."""
    common = shared(config, h_BTD.shape[1], length_B)
    _check_layer(layer, config.n_layers - (patch is not None))
    if patch is not None:
        _check_site(config, patch.site)
        tap = lambda site, value: patch.fn(value) if site == patch.site else value
        h_BTD = _layers(params, config, h_BTD, layer, layer + 1, common, tap, unroll)
        layer = layer + 1
    return _layers(params, config, h_BTD, layer, config.n_layers, common, None, unroll)


def nll_from(
    params: Params,
    config: DecoderConfig,
    h_BTD: Float[Array, "B T D"],
    tokens_BT: Int[Array, "B T"],
    layer: Any,
    *,
    patch: Patch | None = None,
    unroll: bool = False,
) -> Float[Array, "B U"]:
    """`next_token_nll` from the residual stream entering `layer`: many patches replay only the layers above one cached prefix."""
    if not config.causal:
        raise ValueError(f"a {config.family} model is an encoder: it has no next-token loss")
    return nll_of_stream(params, config, final_stream(params, config, h_BTD, layer, patch=patch, unroll=unroll), tokens_BT)


def next_token_nll(params: Params, config: DecoderConfig, tokens_BT: Int[Array, "B T"], *, unroll: bool = False) -> Float[Array, "B U"]:
    """Negative log-likelihood (nats) of tokens 1 … T-1 given those before them; shape (B, T-1)."""
    return nll_from(params, config, embed(params, config, tokens_BT), tokens_BT, 0, unroll=unroll)


def patched_nll(
    params: Params, config: DecoderConfig, tokens_BT: Int[Array, "B T"], layer: Any, site: str, fn: Callable[[Array], Array]
) -> Float[Array, "B U"]:
    """`next_token_nll` with what `site` of `layer` holds replaced by `fn` of it. Raises ValueError as `capture` does."""
    return nll_from(params, config, run(params, config, tokens_BT, upto=layer), tokens_BT, layer, patch=Patch(site, fn))


def embed(params: Params, config: DecoderConfig, tokens_BT: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """The stream entering the first layer."""
    h_BTD = params["embed"]["w"][tokens_BT]
    if config.embed_scale != 1.0:
        h_BTD = h_BTD * jnp.asarray(config.embed_scale, h_BTD.dtype)
    if not config.rotary:
        h_BTD = h_BTD + params["positions"]["w"][: tokens_BT.shape[1]]
    if config.token_types:
        h_BTD = h_BTD + params["token_types"]["w"][0]
    return norm_of(params["embed_norm"], config, h_BTD) if config.embed_norm else h_BTD


def unembed(params: Params, config: DecoderConfig, h_BTD: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Logits of the stream leaving the last layer. Raises ValueError where the checkpoint held no head."""
    if config.head == "none":
        raise ValueError(f"this {config.family} checkpoint holds no head: activations can be read from it, logits cannot")
    if config.head == "masked":
        h_BTD = layer_norm(params["head_norm"], ACTIVATIONS[config.activation](linear(params["head_dense"], h_BTD)), config.norm_eps)
    else:
        h_BTD = norm_of(params["final_norm"], config, h_BTD)
    logits = h_BTD @ (params["embed"]["w"].T if config.tied_embeddings else params["unembed"]["w"])
    if config.head == "masked":
        logits = logits + params["head_bias"]["b"]
    return softcap(logits, config.logit_softcap) if config.logit_softcap else logits


def nll_of_stream(params: Params, config: DecoderConfig, h_BTD: Float[Array, "B T D"], tokens_BT: Int[Array, "B T"]) -> Float[Array, "B U"]:
    """`next_token_nll` from the stream leaving the last layer; made a piece of the positions at a time."""
    b, u = tokens_BT.shape[0], tokens_BT.shape[1] - 1

    def of_piece(h_BTD: Array, target_BT: Array) -> Array:
        logits_BTV = unembed(params, config, h_BTD).astype(jnp.float32)
        logit_BT = jnp.take_along_axis(logits_BTV, target_BT[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(logits_BTV, axis=-1) - logit_BT

    width = max(1, min(u, LOGITS_AT_ONCE // (b * config.vocab_size)))
    pieces = -(-u // width)
    if pieces == 1:
        return of_piece(h_BTD[:, :-1], tokens_BT[:, 1:])
    spare = pieces * width - u
    h = jnp.pad(h_BTD[:, :-1], ((0, 0), (0, spare), (0, 0))).reshape(b, pieces, width, -1).swapaxes(0, 1)
    target = jnp.pad(tokens_BT[:, 1:], ((0, 0), (0, spare))).reshape(b, pieces, width).swapaxes(0, 1)
    nll = jax.lax.map(lambda piece: jax.checkpoint(of_piece)(*piece), (h, target))
    return nll.swapaxes(0, 1).reshape(b, -1)[:, :u]


def _layers(
    params: Params, config: DecoderConfig, h_BTD: Array, start: Any, stop: Any, common: Shared, tap: Tap | None = None, unroll: bool = False
) -> Array:
    if unroll:
        for i in range(start, stop):
            h_BTD = _one_layer(params, config, i, h_BTD, common, tap)
        return h_BTD
    # Not fori_loop: it turns bounds it can read into a loop of known length, which XLA may unroll and fuse otherwise, and
    # stopping half-way, or splicing into one layer, would then cost bits.
    carry = (jnp.asarray(start, jnp.int32), h_BTD)
    return jax.lax.while_loop(lambda c: c[0] < stop, lambda c: (c[0] + 1, _one_layer(params, config, *c, common, tap)), carry)[1]


def _one_layer(params: Params, config: DecoderConfig, i: Any, h_BTD: Array, common: Shared, tap: Tap | None = None) -> Array:
    layer = jax.tree.map(lambda w: jax.lax.dynamic_index_in_dim(w, i, keepdims=False), params["layers"])
    everything = np.iinfo(np.int32).max
    window = jnp.asarray([w or everything for w in config.layer_window], jnp.int32)[i] if config.layer_window else everything
    kind = jnp.asarray(config.layer_rotary, jnp.int32)[i] if config.layer_rotary else 0
    return block(layer, config, h_BTD, common, window, kind, tap)


def _check_layer(layer: Any, last: int) -> None:
    """What is traced cannot be looked at: the caller answers for it."""
    if isinstance(layer, int | np.integer) and not 0 <= layer <= last:
        raise ValueError(f"layer {layer}: 0 to {last} are there")


def _check_site(config: DecoderConfig, site: str) -> None:
    if site not in config.sites():
        raise ValueError(f"site {site!r}: layers of this {config.family} model have {', '.join(config.sites())}")
