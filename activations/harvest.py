"""Runs a language model over contexts up to one layer and keeps the residual stream there, with each row's place."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from activations import decoder
from activations.contexts import Contexts
from activations.store import Rows, StoreWriter


def choose_contexts(contexts: Contexts, rows: int, seed: int) -> Contexts:
    """A random choice of contexts, in the order of the documents, that holds at least `rows` rows (or all there are)."""
    order = np.random.default_rng(seed).permutation(len(contexts.length_N))
    total = np.cumsum(contexts.length_N[order] - 1)
    count = min(len(order), int(np.searchsorted(total, rows)) + 1)
    chosen = np.sort(order[:count])
    return Contexts(*(field[chosen] for field in contexts))


def harvest(
    params: decoder.Params,
    config: decoder.DecoderConfig,
    contexts: Contexts,
    *,
    layer: int,
    batch_size: int,
    shard_contexts: int,
    writer: StoreWriter,
    progress: Callable[[int], None],
    before_shard: Callable[[], None],
) -> None:
    """Writes one row per token (start tokens and padding dropped) of the stream behind block `layer`.

    Args:
      batch_size: contexts a forward pass.
      shard_contexts: contexts a shard; a multiple of `batch_size`.
      progress: called with the number of rows just done (kept ones included).
      before_shard: called between shards; may raise to stop, nothing whole is lost.

    Raises:
      ValueError: `layer` does not exist.
    """
    if not 0 <= layer < config.n_layers:
        raise ValueError(f"config.source.layer={layer}: the model has layers 0 to {config.n_layers - 1}")
    forward = jax.jit(functools.partial(decoder.run, config=config))
    upto = jax.device_put(np.int32(layer + 1))
    for index, start in enumerate(range(0, len(contexts.length_N), shard_contexts)):
        shard = Contexts(*(field[start : start + shard_contexts] for field in contexts))
        before_shard()
        if not writer.kept(index):
            acts = []
            for i in range(0, len(shard.length_N), batch_size):
                tokens = shard.tokens_NT[i : i + batch_size]
                padded = np.pad(tokens, ((0, batch_size - len(tokens)), (0, 0)))
                h_BTD = np.asarray(forward(params, tokens_BT=jax.device_put(padded), upto=upto))
                real = _real_positions(shard.length_N[i : i + batch_size], tokens.shape[1])
                acts.append(h_BTD[: len(tokens)][real])
            writer.write(index, _rows(shard, np.concatenate(acts)))
        progress(int(np.sum(shard.length_N - 1)))


def _rows(contexts: Contexts, acts_ND: np.ndarray) -> Rows:
    real = _real_positions(contexts.length_N, contexts.tokens_NT.shape[1])
    context_N, place_N = np.nonzero(real)
    return Rows(
        acts_ND=acts_ND,
        document_N=contexts.document_N[context_N],
        position_N=contexts.offset_N[context_N] + place_N.astype(np.int32) - 1,
        token_N=contexts.tokens_NT[real],
    )


def _real_positions(length_N: np.ndarray, context_length: int) -> np.ndarray:
    """True where a row is kept: from position 1 (0 is the start token) to the context's last token."""
    positions = np.arange(context_length)
    return (positions > 0) & (positions < length_N[:, None])
