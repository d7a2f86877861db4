"""What each SAE of a roster is trained on: streams from the activation store, or drawn like it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from activations.order import ShuffledOrder
from activations.store import ActivationStore
from activations.stream import StoredStream, Stream, gaussian_like, half_of_documents
from launch.roster import Member

SAMPLE_ROWS = 65_536  # rows from which scale, mean and covariance are estimated


def sample(store: ActivationStore, config: Any) -> np.ndarray:
    """The first rows of the order that `data_seed` gives (0 where every SAE has its own): (N, D) float32."""
    order = _order(store.rows, max(config.data_seed, 0), config.train)
    return store.take(order.rows(0, min(SAMPLE_ROWS, store.rows)))


def for_members(store: ActivationStore, config: Any, members: Sequence[Member]) -> list[Stream]:
    """One stream a member; those who see the same share one object."""
    made: dict[tuple[int, int | None], Stream] = {}
    make = _gaussian(store, config) if config.train.data == "gaussian" else _stored(store, config)
    for m in members:
        key = (m.order_seed, m.half)
        if key not in made:
            made[key] = make(*key)
    return [made[m.order_seed, m.half] for m in members]


def held_out(store: ActivationStore, train_store: ActivationStore, config: Any) -> np.ndarray:
    """`train.eval_rows` activations that no SAE was trained on: evenly spaced rows of the held-out store, or fresh draws."""
    n = config.train.eval_rows
    if config.train.data == "gaussian":
        return gaussian_like(sample(train_store, config), seed=-1 % 2**32).rows(0, n)
    return store.take(np.arange(0, store.rows, max(1, store.rows // n))[:n])


def _order(rows: int, seed: int, train: Any) -> ShuffledOrder:
    return ShuffledOrder(rows, seed, train.shuffle_block, train.shuffle_window)


def _stored(store: ActivationStore, config: Any) -> Callable[[int, int | None], Stream]:
    document_N = store.column("document") if config.train.halves else None

    def make(order_seed: int, half: int | None) -> Stream:
        if half is None or document_N is None:
            return StoredStream(store.take, _order(store.rows, order_seed, config.train))
        among = half_of_documents(document_N, half)
        return StoredStream(store.take, _order(sum(b - a for a, b in among), order_seed, config.train), among)

    return make


def _gaussian(store: ActivationStore, config: Any) -> Callable[[int, int | None], Stream]:
    rows = sample(store, config)
    return lambda order_seed, half: gaussian_like(rows, order_seed)
