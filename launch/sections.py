"""The sections of a study's config as frozen dataclasses; see `configs/default.py` for the meaning of fields."""

import dataclasses
from typing import Any

from activations.language_model.config import SITES


def check(ok: bool, field: str, value: Any, rule: str) -> None:
    if not ok:
        raise ValueError(f"config.{field}={value!r}: {rule}")


def positive(section: Any, prefix: str, *names: str) -> None:
    for name in names:
        check(getattr(section, name) > 0, f"{prefix}.{name}", getattr(section, name), "must be above 0")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where text and activations come from; see `configs/default.py` for the meaning of fields."""

    text: str
    text_field: str
    root: str
    activations: str
    eval_activations: str
    activations_of: str
    start_token: str
    context_length: int
    tokens: int
    eval_tokens: int
    layer: int
    site: str
    dtype: str
    batch_size: int
    shard_contexts: int

    def __post_init__(self):
        positive(self, "source", "context_length", "tokens", "eval_tokens", "shard_contexts")
        check(self.batch_size >= 0, "source.batch_size", self.batch_size, "must not be negative (0: as many as fit)")
        check(
            not self.batch_size or self.shard_contexts % self.batch_size == 0, "source.shard_contexts", self.shard_contexts,
            f"must be a multiple of source.batch_size={self.batch_size}",
        )  # fmt: skip
        check(not (self.text and self.root), "source.root", self.root, "source.text takes its place")
        check(not (self.text and self.activations), "source.text", self.text, "source.activations takes its place")
        check(
            bool(self.activations) or not (self.eval_activations or self.activations_of), "source.activations", self.activations,
            "source.eval_activations and source.activations_of speak of source.activations",
        )  # fmt: skip
        check(self.layer >= 0, "source.layer", self.layer, "layers count from 0")
        check(self.site in SITES, "source.site", self.site, f"one of {SITES}")
        check(self.dtype in ("float32", "bfloat16"), "source.dtype", self.dtype, "'float32' or 'bfloat16'")


@dataclasses.dataclass(frozen=True)
class Pretrain:
    """The embedded language model and its training."""

    vocab_size: int
    width: int
    n_layers: int
    n_heads: int
    mlp_width: int
    max_positions: int
    rotary_fraction: float
    context_length: int
    batch_size: int
    steps: int
    lr: float
    final_lr_fraction: float
    warmup_steps: int
    weight_decay: float
    clip_norm: float
    seed: int
    steps_per_dispatch: int
    checkpoint_every: int
    eval_every: int

    def __post_init__(self):
        positive(
            self, "pretrain", "vocab_size", "width", "n_layers", "n_heads", "mlp_width", "max_positions", "context_length",
            "batch_size", "steps", "lr", "warmup_steps", "clip_norm", "steps_per_dispatch", "checkpoint_every", "eval_every",
        )  # fmt: skip
        check(self.width % self.n_heads == 0, "pretrain.n_heads", self.n_heads, f"must divide the width {self.width}")
        rotary = self.width // self.n_heads * self.rotary_fraction
        check(
            0 < self.rotary_fraction <= 1 and rotary % 2 == 0, "pretrain.rotary_fraction", self.rotary_fraction,
            "must rotate an even number of a head's dimensions",
        )  # fmt: skip
        check(self.context_length <= self.max_positions, "pretrain.context_length", self.context_length, "longer than max_positions")
        check(0 <= self.final_lr_fraction <= 1, "pretrain.final_lr_fraction", self.final_lr_fraction, "between 0 and 1")
        check(self.weight_decay >= 0, "pretrain.weight_decay", self.weight_decay, "must not be negative")
        for field in ("steps", "checkpoint_every", "eval_every"):
            value = getattr(self, field)
            check(
                value % self.steps_per_dispatch == 0,
                f"pretrain.{field}",
                value,
                f"must be a multiple of steps_per_dispatch={self.steps_per_dispatch}",
            )


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Where the finished model goes."""

    export_to: str
    discount: float

    def __post_init__(self):
        check(0 < self.discount < 1, "model_card.discount", self.discount, "between 0 and 1")


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """The model whose activations are studied: a folder in Hugging Face layout, or a hub id."""

    path: str
    revision: str
    dtype: str
    model_parallel: int
    config_from: str

    def __post_init__(self):
        check(bool(self.path), "lm.path", self.path, "a folder in Hugging Face layout, or a hub id")
        check(self.dtype in ("float32", "bfloat16"), "lm.dtype", self.dtype, "'float32' or 'bfloat16'")
        positive(self, "lm", "model_parallel")


@dataclasses.dataclass(frozen=True)
class Stability:
    """How reappearance is measured."""

    dictionaries: str
    theta: float
    epsilon: float
    confidence: float
    block_size: int
    rare_firings: int
    null_draws: int
    null_seeds: int
    span_rank: int
    thetas: tuple[float, ...]
    epsilons: tuple[float, ...]
    top_rows: int
    curve_rows: int
    curve_seeds: int

    def __post_init__(self):
        check(0 < self.theta <= 1, "stability.theta", self.theta, "a cosine in (0, 1]")
        check(0 <= self.epsilon < 0.5, "stability.epsilon", self.epsilon, "must be in [0, 0.5)")
        check(0 < self.confidence < 1, "stability.confidence", self.confidence, "between 0 and 1")
        positive(self, "stability", "block_size", "rare_firings", "null_draws", "span_rank", "top_rows", "curve_rows")
        for field in ("null_seeds", "curve_seeds"):
            check(getattr(self, field) >= 2, f"stability.{field}", getattr(self, field), "at least 2")
        check(
            bool(self.thetas) and all(0 < t <= 1 for t in self.thetas), "stability.thetas", self.thetas, "cosines in (0, 1], at least one"
        )
        check(
            bool(self.epsilons) and all(0 <= e < 0.5 for e in self.epsilons),
            "stability.epsilons",
            self.epsilons,
            "in [0, 0.5), at least one",
        )


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """By what else features may count as the same, and what hangs on it."""

    pairs: int
    candidates: int
    rows: int
    neighbours: int
    exact_features: int

    def __post_init__(self):
        positive(self, "sensitivity", "candidates", "rows", "neighbours", "exact_features")
        check(self.pairs >= 0, "sensitivity.pairs", self.pairs, "must not be negative (0: all)")


@dataclasses.dataclass(frozen=True)
class Subspace:
    """How subspaces of feature sets are compared."""

    ranks: tuple[int, ...]
    headline_rank: int
    subsamples: int
    min_features: int

    def __post_init__(self):
        positive(self, "subspace", "headline_rank", "subsamples", "min_features")
        check(all(r > 0 for r in self.ranks), "subspace.ranks", self.ranks, "must be above 0")
        check(self.headline_rank in self.ranks, "subspace.headline_rank", self.headline_rank, f"must be one of ranks={self.ranks}")
        check(self.min_features >= 2, "subspace.min_features", self.min_features, "at least 2")


@dataclasses.dataclass(frozen=True)
class Atlas:
    """How local subspaces are found and judged."""

    seeds: int
    min_rank: int
    max_rank: int
    capture: float
    density: float
    apart: float
    gap: float
    most_own: float
    agreement: float
    starts: int
    patience: int
    directions: int
    draws: int
    null_draws: int
    rows: int
    top_rows: int

    def __post_init__(self):
        positive(self, "atlas", "starts", "patience", "draws", "null_draws", "rows", "top_rows")
        check(self.directions > self.min_rank, "atlas.directions", self.directions, f"above min_rank={self.min_rank}")
        check(self.seeds >= 4, "atlas.seeds", self.seeds, "at least 4: two halves of 2 are compared")
        check(self.min_rank >= 2, "atlas.min_rank", self.min_rank, "at least 2")
        check(
            self.max_rank == 0 or self.max_rank >= self.min_rank, "atlas.max_rank", self.max_rank,
            f"0 (a third of the width) or at least min_rank={self.min_rank}",
        )  # fmt: skip
        for field in ("capture", "agreement", "apart"):
            check(0.5 <= getattr(self, field) < 1, f"atlas.{field}", getattr(self, field), "at least 0.5 and below 1")
        check(self.density > 1, "atlas.density", self.density, "above 1: features that each reappear fill a plane with 1")
        check(self.gap >= 1, "atlas.gap", self.gap, "at least 1")
        check(0 < self.most_own < 1, "atlas.most_own", self.most_own, "between 0 and 1")


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """By what evidence an unstable feature gets its reason."""

    explained: float
    in_seeds: float
    chance: float
    settled: float

    def __post_init__(self):
        for field in ("explained", "in_seeds", "chance"):
            check(0 < getattr(self, field) < 1, f"diagnosis.{field}", getattr(self, field), "between 0 and 1")
        check(0 < self.settled <= 1, "diagnosis.settled", self.settled, "a cosine in (0, 1]")


@dataclasses.dataclass(frozen=True)
class Transfer:
    """How classifiers of stable and unstable features are judged across seeds."""

    splits: int
    seeds: int
    features: int

    def __post_init__(self):
        positive(self, "transfer", "splits", "features")
        check(self.seeds >= 4, "transfer.seeds", self.seeds, "at least 4: two halves of 2 label themselves")


@dataclasses.dataclass(frozen=True)
class Report:
    """What the page shows."""

    examples: int
    contexts: int
    context_tokens: int
    png_scale: float

    def __post_init__(self):
        positive(self, "report", "examples", "contexts", "context_tokens", "png_scale")


@dataclasses.dataclass(frozen=True)
class Claims:
    """Decision rules of the claims C1–C7, fixed before the run; see `reports/claims.py`."""

    min_seeds: int
    min_features: int
    c1_chance: float
    c1_difference: float
    c3_ratio: float
    c4_excess: float
    c5_span: float
    c5_found: float
    c7_excess: float
    plateau_rise: float

    def __post_init__(self):
        positive(self, "claims", "min_seeds", "min_features")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Values along the vmapped axis; every combination is trained with all seeds."""

    lr: tuple[float, ...]
    k: tuple[int, ...]
    sparsity: tuple[float, ...]

    def __post_init__(self):
        for field in ("lr", "k", "sparsity"):
            values = getattr(self, field)
            check(all(v > 0 for v in values) and len(set(values)) == len(values), f"sweep.{field}", values, "distinct values above 0")

    def __bool__(self) -> bool:
        return bool(self.lr or self.k or self.sparsity)
