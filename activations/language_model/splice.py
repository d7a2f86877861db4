"""Predictions with something else in a site's place, held against the model's own: many replacements of one batch, the layers below run once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from activations.language_model import decoder
from activations.language_model.block import Params
from activations.language_model.config import DecoderConfig
from activations.language_model.decoder import LOGITS_AT_ONCE, Patch


class Prefix(NamedTuple):
    """What all replacements of a batch have in common.

    Attributes:
      h_BTD: the stream from which layers are run again.
      x_BTX: what the site holds.
      final_BTD: the stream leaving the last layer when nothing is replaced.
    """

    h_BTD: Array
    x_BTX: Array
    final_BTD: Array


class Losses(NamedTuple):
    """Of M streams, at the U = T − 1 positions that predict a token; nats.

    Attributes:
      nll_MBU: negative log-likelihood of the next token.
      kl_MBU: Σ p log(p / q), p what the model itself predicts, q what the stream does.
    """

    nll_MBU: Array
    kl_MBU: Array


def prefix(params: Params, config: DecoderConfig, tokens_BT: Int[Array, "B T"], layer: int, site: str) -> Prefix:
    """Raises ValueError for an encoder, or a layer or site that is not there."""
    if not config.causal:
        raise ValueError(f"a {config.family} model is an encoder: it has no next-token loss")
    x_BTX = decoder.capture(params, config, tokens_BT, layer, site)
    h_BTD = x_BTX if site in ("resid_pre", "resid_post") else decoder.run(params, config, tokens_BT, upto=layer)
    # On the way of what is spliced in: inside a layer XLA fuses a run without a splice otherwise, and the last bits would differ.
    return Prefix(h_BTD, x_BTX, stream_with(params, config, Prefix(h_BTD, x_BTX, h_BTD), layer, site, x_BTX))


def stream_with(
    params: Params, config: DecoderConfig, of: Prefix, layer: int, site: str, value_BTX: Float[Array, "B T X"]
) -> Float[Array, "B T D"]:
    """The stream leaving the last layer when the site holds `value`; with what it holds itself the model's own, to the last bit."""
    if site in ("resid_pre", "resid_post"):
        return decoder.final_stream(params, config, value_BTX, layer + (site == "resid_post"))
    return decoder.final_stream(params, config, of.h_BTD, layer, patch=Patch(site, lambda _: value_BTX))


def losses(
    params: Params, config: DecoderConfig, final_MBTD: Float[Array, "M B T D"], own_BTD: Float[Array, "B T D"], tokens_BT: Int[Array, "B T"]
) -> Losses:
    """Of streams leaving the last layer.

    Args:
      own_BTD: the model's own, against which divergence is taken.

    A piece of the positions at a time, so that no array of all tokens × vocabulary is held; the model's own predictions are made once a piece.
    """
    m, b, t, d = final_MBTD.shape
    u = t - 1
    width = max(1, min(u, LOGITS_AT_ONCE // (b * config.vocab_size)))
    pieces = -(-u // width)
    spare = pieces * width - u

    def cut(values: Array, axis: int) -> Array:
        """Positions along `axis` as (pieces, …, width, …)."""
        padded = jnp.pad(values, [(0, spare if a == axis else 0) for a in range(values.ndim)])
        split = padded.reshape(*values.shape[:axis], pieces, width, *values.shape[axis + 1 :])
        return jnp.moveaxis(split, axis, 0)

    def of_piece(piece: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        final_MBPD, own_BPD, target_BP = piece
        logits_of = lambda h_BPD: decoder.unembed(params, config, h_BPD).astype(jnp.float32)
        own_BPV = logits_of(own_BPD)
        own_norm_BP = jax.nn.logsumexp(own_BPV, axis=-1)
        p_BPV = jnp.exp(own_BPV - own_norm_BP[..., None])

        def one(h_BPD: Array) -> tuple[Array, Array]:
            logits_BPV = logits_of(h_BPD)
            norm_BP = jax.nn.logsumexp(logits_BPV, axis=-1)
            nll_BP = norm_BP - jnp.take_along_axis(logits_BPV, target_BP[..., None], axis=-1)[..., 0]
            # The difference of logits first: of what is not changed the divergence is 0 to the last bit.
            return nll_BP, jnp.sum(p_BPV * (own_BPV - logits_BPV), axis=-1) + (norm_BP - own_norm_BP)

        return jax.lax.map(one, final_MBPD)

    found = jax.lax.map(of_piece, (cut(final_MBTD[:, :, :-1], 2), cut(own_BTD[:, :-1], 1), cut(tokens_BT[:, 1:], 1)))
    joined = [jnp.moveaxis(x, 0, 2).reshape(m, b, pieces * width)[..., :u] for x in found]
    return Losses(*joined)
