"""Runs a language model over contexts up to one site and keeps what it holds, with each row's place."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from activations.language_model import decoder
from activations.language_model.block import Params
from activations.language_model.config import DecoderConfig
from activations.language_model.placement import Placement
from activations.store import Rows, StoreWriter
from activations.text.contexts import Contexts

_DTYPES: dict[str, Any] = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


class Made(NamedTuple):
    """What a run made itself, beside what it found there.

    Attributes:
      rows: how many.
      seconds: that the model took for them.
    """

    rows: int
    seconds: float


@dataclasses.dataclass(frozen=True, eq=False)
class Harvest:
    """What is read where.

    Attributes:
      params, config: of the model.
      layer, site: where it is read.
      batch_size: contexts a forward pass, a multiple of `placement.data`.
      shard_contexts: contexts a file; a multiple of `batch_size`.
      dtype: of the rows kept, "float32" or "bfloat16".
      placement: of the model and the batches.
      process, processes: this host's number and how many there are: each makes its share of the files.
    """

    params: Params
    config: DecoderConfig
    layer: int
    site: str
    batch_size: int
    shard_contexts: int
    dtype: str = "float32"
    placement: Placement = dataclasses.field(default_factory=Placement.one_device)
    process: int = 0
    processes: int = 1

    def run(self, contexts: Contexts, writer: StoreWriter, progress: Callable[[int], None], before_shard: Callable[[], None]) -> Made:
        """Writes one row per token (start and end tokens and padding dropped).

        Args:
          progress: called with the number of rows just done (kept ones included).
          before_shard: called between shards; may raise to stop, nothing whole is lost.

        Raises:
          ValueError: `layer` or `site` does not exist, or a token the model does not know.
        """
        self.config.check_place(self.layer, self.site)
        check_tokens(contexts, self.config)
        rows, seconds = 0, 0.0
        for index, start in enumerate(range(0, len(contexts.length_N), self.shard_contexts)):
            if index % self.processes != self.process:
                continue
            shard = Contexts(*(field[start : start + self.shard_contexts] for field in contexts))
            before_shard()
            if not writer.kept(index):
                started = time.perf_counter()
                acts_ND = self.acts(shard)
                seconds += time.perf_counter() - started
                rows += len(acts_ND)
                writer.write(index, _rows(shard, acts_ND))
            progress(int(np.sum(shard.length_N - 1)))
        return Made(rows, seconds)

    def shards(self, contexts: Contexts) -> int:
        """Files that all hosts together make of these contexts."""
        return -(-len(contexts.length_N) // self.shard_contexts)

    def acts(self, shard: Contexts) -> np.ndarray:
        """Of the shard's rows (N, width); the device works on a batch while the one before it is copied."""
        kept: list[np.ndarray] = []
        pending: tuple[int, jax.Array] | None = None

        def fetch() -> None:
            if pending is not None:
                first, captured = pending
                length_B = shard.length_N[first : first + self.batch_size]
                kept.append(np.asarray(captured)[: len(length_B)][_real_positions(length_B, shard.tokens_NT.shape[1])])

        for first in range(0, len(shard.length_N), self.batch_size):
            tokens, length = (field[first : first + self.batch_size] for field in (shard.tokens_NT, shard.length_N))
            missing = self.batch_size - len(tokens)
            batch = (np.pad(tokens, ((0, missing), (0, 0))), np.pad(length, (0, missing), constant_values=1))
            captured = self._forward(*jax.device_put(batch, self.placement.of_batch()))
            fetch()
            pending = (first, captured)
        fetch()
        return np.concatenate(kept)

    @functools.cached_property
    def _forward(self) -> Callable[..., jax.Array]:
        """(tokens (B, T), lengths (B,)) → (B, T, width) in `dtype`; one compile serves every layer."""

        @functools.partial(jax.jit, out_shardings=self.placement.of_batch())
        def forward(params: Params, layer: jax.Array, tokens_BT: jax.Array, length_B: jax.Array) -> jax.Array:
            # An encoder also sees the token that ends the context.
            seen_B = None if self.config.causal else length_B + 1
            return decoder.capture(params, self.config, tokens_BT, layer, self.site, length_B=seen_B).astype(_DTYPES[self.dtype])

        layer = jax.device_put(np.int32(self.layer), self.placement.everywhere())
        return functools.partial(forward, self.params, layer)


def choose_contexts(contexts: Contexts, rows: int, seed: int) -> Contexts:
    """A random choice of contexts, in the order of the documents, that holds at least `rows` rows (or all there are)."""
    order = np.random.default_rng(seed).permutation(len(contexts.length_N))
    total = np.cumsum(contexts.length_N[order] - 1)
    count = min(len(order), int(np.searchsorted(total, rows)) + 1)
    chosen = np.sort(order[:count])
    return Contexts(*(field[chosen] for field in contexts))


def check_tokens(contexts: Contexts, config: DecoderConfig) -> None:
    """Raises ValueError where the tokenizer gives ids that the model has no embedding for."""
    highest = int(contexts.tokens_NT.max(initial=0))
    if highest >= config.vocab_size:
        raise ValueError(
            f"the tokenizer gives token {highest}, the model knows {config.vocab_size}: lm.path holds a tokenizer of another vocabulary"
        )


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
