"""How well a language model predicts contexts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from activations.language_model import decoder
from activations.language_model.block import Params
from activations.language_model.config import DecoderConfig
from activations.language_model.placement import Placement
from activations.text.contexts import Contexts


def mean_nll(params: Params, config: DecoderConfig, contexts: Contexts, batch_size: int = 32, placement: Placement | None = None) -> float:
    """Mean negative log-likelihood (nats per token) of every token of the contexts; summed in float64 on the host.

    A model that knows nothing has ln(vocabulary). `batch_size` is a multiple of `placement.data`.
    """
    to = (placement or Placement.one_device()).of_batch()
    total = 0.0
    for start in range(0, len(contexts.length_N), batch_size):
        tokens, length = (field[start : start + batch_size] for field in (contexts.tokens_NT, contexts.length_N))
        missing = batch_size - len(length)  # one shape, one compile: pad with contexts of length 0
        batch = (np.pad(tokens, ((0, missing), (0, 0))), np.pad(length, (0, missing)))
        total += float(_nll_sum(params, config, *jax.device_put(batch, to)))
    return total / int(np.sum(contexts.length_N - 1))


@functools.partial(jax.jit, static_argnums=1)
def _nll_sum(params: Params, config: DecoderConfig, tokens_BT: jax.Array, length_B: jax.Array) -> jax.Array:
    real_BU = jnp.arange(1, tokens_BT.shape[1]) < length_B[:, None]
    return jnp.sum(decoder.next_token_nll(params, config, tokens_BT) * real_BU)
