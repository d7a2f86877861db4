"""Where activations come from: a harvested store, rows drawn like it, or a synthetic world. All that the stages know of them."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from activations import adopt
from activations.order import ShuffledOrder
from activations.store import MANIFEST, ActivationStore
from activations.stream import RowRanges, StoredStream, Stream, gaussian_like, half_of_documents
from launch import own_arrays
from launch.roster import Member
from storage import files
from synthetic.config import common_shape
from synthetic.generator import SyntheticStream, make_truth, make_world

SAMPLE_ROWS = 65_536  # rows from which scale, mean and covariance are estimated
HELD_OUT_SEED = 2**32 - 1  # of drawn rows that nobody is trained on


class Source(Protocol):
    """What SAEs can be trained on.

    Attributes:
      width: of the activations (D).
      hook: what they are, for exports: model, path, layer, site.
    """

    width: int
    hook: dict[str, Any]

    def sample(self) -> np.ndarray:
        """Training rows (N, D) float32 from which constants are estimated; the same for all SAEs."""

    def stream(self, order_seed: int, half: int | None, world: int = 0) -> Stream:
        """Those of one order, of one half of the documents or all; of one world, where there are several."""

    def held_out(self, world: int = 0) -> np.ndarray:
        """Rows (N, D) float32 that no SAE is trained on."""


def source(config: Any, workdir: epath.Path) -> Source:
    """The one that the config names."""
    if hasattr(config, "synthetic"):
        return SyntheticSource(config)
    stored = StoredSource(config, workdir)
    return GaussianSource(stored) if config.train.data == "gaussian" else stored


def gaussian_rows(config: Any, workdir: epath.Path) -> np.ndarray:
    """Gaussian rows (N, D) that no SAE of the stage `gaussian` was trained on."""
    return GaussianSource(StoredSource(config, workdir)).held_out()


def evaluation_store(config: Any, workdir: epath.Path) -> epath.Path | None:
    """The store of held-out activations for the measuring stages, None where SAEs from elsewhere come without."""
    if hasattr(config, "saes"):
        given = config.source.activations
        if not given:
            return None
        return epath.Path(given) if own_arrays.is_store(given) else workdir / "collect" / "eval"
    return workdir / "activations" / "eval" if "activations" in config.stages else None


def evaluation_rows(config: Any, workdir: epath.Path) -> np.ndarray | None:
    """Held-out activations (N, D) float32, None where there are none."""
    if hasattr(config, "synthetic"):
        return SyntheticSource(config).held_out()
    store = evaluation_store(config, workdir)
    return None if store is None else ActivationStore(store).load().acts_ND


def evaluation_digest(config: Any) -> dict[str, str]:
    """Of activations from elsewhere: what the measuring stages depend on beside the workdir."""
    if not hasattr(config, "saes") or not config.source.activations:
        return {}
    path = epath.Path(config.source.activations) / MANIFEST
    if path.exists():
        return {str(path): files.sha256_file(path)}
    return adopt.fingerprint(adopt.find(config.source.activations, "source.activations"))


def for_members(of: Source, members: Sequence[Member]) -> list[Stream]:
    """One stream a member; those who see the same share one object."""
    made: dict[tuple[int, int | None, int], Stream] = {}
    for m in members:
        if (m.order_seed, m.half, m.world) not in made:
            made[m.order_seed, m.half, m.world] = of.stream(m.order_seed, m.half, m.world)
    return [made[m.order_seed, m.half, m.world] for m in members]


class StoredSource:
    """The stores that the stage `activations` wrote."""

    def __init__(self, config: Any, workdir: epath.Path):
        self._train = ActivationStore(workdir / "activations" / "train")
        self._eval = ActivationStore(workdir / "activations" / "eval")
        self._config = config
        self._halves: list[RowRanges] = []
        if config.train.halves:
            document_N = self._train.column("document")
            self._halves = [half_of_documents(document_N, half) for half in (0, 1)]
        self.width: int = self._train.width
        self.rows: int = self._train.rows
        self.hook: dict[str, Any] = self._train.manifest["hook"]

    def sample(self) -> np.ndarray:
        order = self._order(self._train.rows, max(self._config.data_seed, 0))
        return self._train.take(order.rows(0, min(SAMPLE_ROWS, self._train.rows)))

    def stream(self, order_seed: int, half: int | None, world: int = 0) -> Stream:
        del world
        if half is None:
            return StoredStream(self._train.take, self._order(self._train.rows, order_seed))
        among = self._halves[half]
        return StoredStream(self._train.take, self._order(len(among), order_seed), among)

    def held_out(self, world: int = 0) -> np.ndarray:
        """`train.eval_rows` evenly spaced rows of the held-out store."""
        del world
        n = self._config.train.eval_rows
        return self._eval.take(np.linspace(0, self._eval.rows - 1, min(n, self._eval.rows)).astype(np.int64))

    def _order(self, rows: int, seed: int) -> ShuffledOrder:
        return ShuffledOrder(rows, seed, self._config.train.shuffle_block, self._config.train.shuffle_window)


def evenly_spaced(rows: int, count: int) -> np.ndarray:
    """Up to `count` of so many places, the middles of stretches of equal length."""
    count = min(count, rows)
    return (2 * np.arange(count, dtype=np.int64) + 1) * rows // max(1, 2 * count)


class GaussianSource:
    """Rows with the mean and covariance of stored ones and nothing else in common with them: a null model."""

    def __init__(self, stored: StoredSource):
        self._sample = stored.sample()
        self._rows = len(stored.held_out())
        self.width, self.hook = stored.width, stored.hook

    def sample(self) -> np.ndarray:
        return self._sample

    def stream(self, order_seed: int, half: int | None, world: int = 0) -> Stream:
        del half, world
        return gaussian_like(self._sample, order_seed)

    def held_out(self, world: int = 0) -> np.ndarray:
        del world
        return gaussian_like(self._sample, HELD_OUT_SEED).rows(0, self._rows)


class SyntheticSource:
    """Tokens of a world, or of each cell's world, drawn as they are needed.

    Attributes:
      truths, energies: what the worlds are made of, and `WorldConfig.energies` of each.
    """

    def __init__(self, config: Any):
        self._config = config
        configs = [cell.synthetic for cell in config.cells] if hasattr(config, "cells") else [config.synthetic]
        self._shape = common_shape(configs)
        self.truths = [make_truth(c) for c in configs]
        self.energies = [c.energies for c in configs]
        self._worlds = [make_world(c, truth, self._shape) for c, truth in zip(configs, self.truths, strict=True)]
        self._tokens = [c.tokens for c in configs]
        self.width: int = self._shape.width
        self.hook: dict[str, Any] = {"model": "synthetic world", "path": config.subject, "layer": None, "site": "tokens"}

    def sample(self) -> np.ndarray:
        """Of all worlds alike."""
        rows = max(1024, SAMPLE_ROWS // 4 // len(self._worlds))
        seed = max(self._config.data_seed, 0)
        return np.concatenate([self.stream(seed, None, world).rows(0, rows) for world in range(len(self._worlds))])

    def stream(self, order_seed: int, half: int | None, world: int = 0) -> SyntheticStream:
        del half
        return SyntheticStream(self._shape, self._worlds[world], order_seed, self._tokens[world])

    def held_out(self, world: int = 0) -> np.ndarray:
        return SyntheticStream(self._shape, self._worlds[world], HELD_OUT_SEED).rows(0, self._config.train.eval_rows)
