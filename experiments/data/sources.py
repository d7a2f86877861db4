"""Where activations come from: a harvested store, rows drawn like it, or a synthetic world. All that the stages know of them."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from activations import adopt
from activations.order import ShuffledOrder
from activations.store import MANIFEST, ActivationStore
from activations.stream import RowRanges, StoredStream, Stream, gaussian_like, half_of_documents
from experiments.data import own_arrays
from experiments.data.own_arrays import OwnRows, OwnStudy
from experiments.data.seeds import Seeds
from experiments.fields import check, config, field
from experiments.settings import Settings
from experiments.stage import Product, Task
from runtime import records
from storage import files
from synthetic.config import WorldConfig, common_shape
from synthetic.generator import SyntheticStream, make_truth, make_world


@config("train")
class Sampling:
    """Which rows SAEs see, and in what order."""

    eval_rows: int = field(default=32_768, doc="held-out rows for each SAE's explained variance and L0 at the end", gt=0)
    data: str = field(
        default="activations",
        doc="'gaussian': rows drawn with their mean and covariance instead, a null model",
        one_of=("activations", "gaussian"),
    )
    shuffle_block: int = field(default=256, doc="rows read together from disk; whole blocks are shuffled, then the rows of a window", gt=0)
    shuffle_window: int = field(default=262_144, doc="rows among which the order is uniform; 0: all rows", ge=0)
    halves: bool = field(default=False, doc="SAEs at even places see one half of the documents, the others the other half")

    def check(self) -> None:
        check(
            not (self.data == "gaussian" and self.halves), "train.halves", self.halves,
            "Gaussian rows belong to no document; only with train.data='activations'",
        )  # fmt: skip


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


def _collected(settings: Settings) -> bool:
    """Whether SAEs from elsewhere come with activations."""
    own = settings.get(OwnRows)
    return "collect" in settings.stages and own is not None and bool(own.activations)


ROWS = Product(
    "rows",
    reads=(OwnRows, OwnStudy, Sampling, Seeds, WorldConfig),
    given=lambda settings: WorldConfig in settings,
    lacking=lambda settings: not (WorldConfig in settings or "activations" in settings.stages or _collected(settings)),
    inputs=lambda task: evaluation_digest(task),
)


def source(task: Task) -> "Source":
    """The one that the config names."""
    world = task.maybe(WorldConfig)
    if world is not None:
        return SyntheticSource([world], task.section(Sampling), task.section(Seeds))
    stored = StoredSource(task)
    return GaussianSource(stored) if task.section(Sampling).data == "gaussian" else stored


def gaussian_rows(task: Task) -> np.ndarray:
    """Gaussian rows (N, D) that no SAE of the run `gaussian` was trained on."""
    return GaussianSource(StoredSource(task)).held_out()


def evaluation_store(task: Task) -> epath.Path | None:
    """The store of held-out activations for the measuring stages; None where there is none: of a world, and where SAEs from elsewhere come without."""
    if not task.has("rows") or task.maybe(WorldConfig) is not None:
        return None
    if "activations" in task.settings.stages:
        return task.path("activations/eval")
    path = task.section(OwnRows).activations
    return epath.Path(path) if own_arrays.is_store(path) else task.path("collect/eval")


def evaluation_rows(task: Task) -> np.ndarray | None:
    """Held-out activations (N, D) float32, None where there are none."""
    world = task.maybe(WorldConfig)
    if world is not None:
        return SyntheticSource([world], task.section(Sampling), task.section(Seeds)).held_out()
    store = evaluation_store(task)
    return None if store is None else opened(task, store).load().acts_ND


def opened(task: Task, store: epath.Path) -> ActivationStore:
    """A store of the workdir, with a user's arrays where the config says that they are now."""
    own, study = task.maybe(OwnRows), task.maybe(OwnStudy)
    named = (
        [(own.activations, "source.activations")]
        if own is not None and own.activations and not own_arrays.is_store(own.activations)
        else []
    )
    named += [(study.eval_activations, "source.eval_activations")] if study is not None and study.eval_activations else []
    return ActivationStore(store, [a.path for text, name in named for a in adopt.find(text, name)])


def evaluation_digest(task: Task) -> dict[str, str]:
    """Of activations from elsewhere: what the measuring stages depend on beside the workdir."""
    if not _collected(task.settings):
        return {}
    own = task.section(OwnRows)
    path = epath.Path(own.activations) / MANIFEST
    if path.exists():
        return {"source.activations": files.sha256_file(path)} | _vocabulary_digest(path.parent.parent)
    return {
        f"source.activations/{name}": digest
        for name, digest in adopt.fingerprint(adopt.find(own.activations, "source.activations")).items()
    }


def _vocabulary_digest(folder: epath.Path) -> dict[str, str]:
    """Of the tokens' texts beside a store. Raises ValueError where they are not those that the record of the stage that wrote them lists."""
    path = folder / "vocabulary.json"
    if not path.exists():
        return {}
    digest = files.sha256_file(path)
    record = folder / records.NAME
    if record.exists():
        entry = (
            files.read_record(record, "the texts of tokens beside it cannot be believed", unsealed=None).get("outputs", {}).get(path.name)
        )
        if isinstance(entry, dict) and entry.get("sha256") != digest:
            raise ValueError(f"config.source.activations: {path} does not match the sha256 in {record}: put it back from a copy")
    return {"source.activations/vocabulary.json": digest}


class StoredSource:
    """The stores that the stage `activations` wrote."""

    def __init__(self, task: Task):
        self._train = opened(task, task.path("activations/train"))
        self._eval = opened(task, task.path("activations/eval"))
        self._sampling, self._seeds = task.section(Sampling), task.section(Seeds)
        self._halves: list[RowRanges] = []
        if self._sampling.halves:
            document_N = self._train.column("document")
            self._halves = [half_of_documents(document_N, half) for half in (0, 1)]
        self.width: int = self._train.width
        self.rows: int = self._train.rows
        self.hook: dict[str, Any] = self._train.manifest["hook"]

    def sample(self) -> np.ndarray:
        order = self._order(self._train.rows, self._seeds.order)
        return self._train.take(order.rows(0, min(SAMPLE_ROWS, self._train.rows)))

    def stream(self, order_seed: int, half: int | None, world: int = 0) -> Stream:
        del world
        if half is None:
            return StoredStream(self._train.take, self._order(self._train.rows, order_seed))
        half_rows = self._halves[half]
        return StoredStream(self._train.take, self._order(len(half_rows), order_seed), half_rows)

    def held_out(self, world: int = 0) -> np.ndarray:
        """`train.eval_rows` evenly spaced rows of the held-out store."""
        del world
        n = self._sampling.eval_rows
        return self._eval.take(np.linspace(0, self._eval.rows - 1, min(n, self._eval.rows)).astype(np.int64))

    def _order(self, rows: int, seed: int) -> ShuffledOrder:
        return ShuffledOrder(rows, seed, self._sampling.shuffle_block, self._sampling.shuffle_window)


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

    def __init__(self, worlds: Sequence[WorldConfig], sampling: Sampling, seeds: Seeds, subject: str = ""):
        self._sampling, self._seeds = sampling, seeds
        self._shape = common_shape(worlds)
        self.truths = [make_truth(c) for c in worlds]
        self.energies = [c.energies for c in worlds]
        self._worlds = [make_world(c, truth, self._shape) for c, truth in zip(worlds, self.truths, strict=True)]
        self._tokens = [c.tokens for c in worlds]
        self.width: int = self._shape.width
        self.hook: dict[str, Any] = {"model": "synthetic world", "path": subject or worlds[0].subject, "layer": None, "site": "tokens"}

    def sample(self) -> np.ndarray:
        """Of all worlds alike."""
        rows = max(1024, SAMPLE_ROWS // 4 // len(self._worlds))
        seed = self._seeds.order
        return np.concatenate([self.stream(seed, None, world).rows(0, rows) for world in range(len(self._worlds))])

    def stream(self, order_seed: int, half: int | None, world: int = 0) -> SyntheticStream:
        del half
        return SyntheticStream(self._shape, self._worlds[world], order_seed, self._tokens[world])

    def held_out(self, world: int = 0) -> np.ndarray:
        return SyntheticStream(self._shape, self._worlds[world], HELD_OUT_SEED).rows(0, self._sampling.eval_rows)
