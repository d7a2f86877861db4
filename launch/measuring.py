"""The sections of a config on how it is measured, as frozen dataclasses; see `configs/default.py` for the meaning of fields."""

import dataclasses

from launch.pools import KINDS, MEANS, MEMBERS, PHASES, RANDOM
from launch.sections import check, positive


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
class Function:
    """How it is measured what features do for the reconstruction."""

    seeds: int
    rows: int
    ratio: int
    draws: int
    splits: int
    bins: int
    refill_rows: int

    def __post_init__(self):
        positive(self, "function", "rows", "ratio", "draws", "splits", "refill_rows")
        check(self.seeds >= 2, "function.seeds", self.seeds, "at least 2")
        check(self.bins >= 2, "function.bins", self.bins, "at least 2")


@dataclasses.dataclass(frozen=True)
class Splice:
    """How it is measured what features do for the language model's predictions."""

    seeds: int
    tokens: int
    draws: int
    singles: int

    def __post_init__(self):
        positive(self, "splice", "tokens", "draws")
        check(self.seeds >= 2, "splice.seeds", self.seeds, "at least 2")
        check(self.singles >= 0, "splice.singles", self.singles, "must not be negative (0: none)")


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What is counted of single features, and what counts as surface form."""

    top_contexts: int
    samples: int
    shuffled_tokens: int
    table_bytes: int
    surface: float
    draws: int

    def __post_init__(self):
        positive(self, "statistics", "top_contexts", "samples", "shuffled_tokens", "table_bytes", "draws")
        check(0 < self.surface < 1, "statistics.surface", self.surface, "between 0 and 1")


@dataclasses.dataclass(frozen=True)
class Explanations:
    """Who explains which features, and what that may cost."""

    model: str
    pairs: int
    contexts: int
    candidates: int
    context_tokens: int
    at_once: int
    timeout: float
    retries: int
    max_tokens: int
    price_in: float
    price_out: float
    most_cost: float

    def __post_init__(self):
        positive(self, "explanations", "pairs", "contexts", "candidates", "context_tokens", "at_once", "timeout", "max_tokens")
        check(
            self.candidates % 2 == 0,
            "explanations.candidates",
            self.candidates,
            "must be even: half of them are contexts in which the feature fires",
        )
        for field in ("retries", "price_in", "price_out", "most_cost"):
            check(getattr(self, field) >= 0, f"explanations.{field}", getattr(self, field), "must not be negative")
        check(
            not self.most_cost or self.price_in + self.price_out > 0, "explanations.most_cost", self.most_cost,
            "needs prices: set explanations.price_in and explanations.price_out",
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pool:
    """How features of many seeds are pooled, and against what pools are held."""

    group: int
    theta: float
    sizes: tuple[int, ...]
    thetas: tuple[float, ...]
    features: tuple[int, ...]
    rows: int
    eval_rows: int
    span_rank: int
    tuned: tuple[str, ...]
    held_tokens: int
    free_tokens: int
    tune_rate: float
    decoder_rate: float
    headline: str
    repeat: bool
    curves: bool
    predictions: int

    def __post_init__(self):
        positive(self, "pool", "rows", "eval_rows", "span_rank", "tune_rate")
        check(self.group >= 3, "pool.group", self.group, "at least 3: each is left out once, and two must be left to compare")
        check(
            all(2 <= size <= self.group and self.group % size == 0 for size in self.sizes), "pool.sizes", self.sizes,
            f"from 2 to pool.group={self.group}, each a divisor of it",
        )  # fmt: skip
        for theta in (self.theta, *self.thetas):
            check(0 < theta < 1, "pool.theta" if theta == self.theta else "pool.thetas", theta, "a cosine between 0 and 1")
        check(all(f > 0 for f in self.features), "pool.features", self.features, "each above 0")
        known = (MEMBERS, MEANS, RANDOM)
        check(
            set(self.tuned) <= set(known) and len(set(self.tuned)) == len(self.tuned), "pool.tuned", self.tuned, f"distinct ones of {known}"
        )
        measured = {*KINDS, *(f"{kind}, {called}" for kind in self.tuned for called in PHASES.values())}
        check(self.headline in measured, "pool.headline", self.headline, f"one of {sorted(measured)}")
        for field in ("sizes", "thetas", "features"):
            values = getattr(self, field)
            check(len(set(values)) == len(values), f"pool.{field}", values, "distinct ones")
        check(0 <= self.decoder_rate <= 1, "pool.decoder_rate", self.decoder_rate, "between 0 (held) and 1 (as fast as the rest)")
        for field in ("held_tokens", "free_tokens", "predictions"):
            check(getattr(self, field) >= 0, f"pool.{field}", getattr(self, field), "must not be negative")

    def tuning_tokens(self, trained: int) -> tuple[int, int]:
        """With decoder rows held, and free, of pools of SAEs that were trained on so many."""
        return self.held_tokens or trained // 4, self.free_tokens or trained


@dataclasses.dataclass(frozen=True)
class Report:
    """What the page shows."""

    examples: int
    contexts: int
    table_contexts: int
    context_tokens: int
    png_scale: float

    def __post_init__(self):
        positive(self, "report", "examples", "contexts", "table_contexts", "context_tokens", "png_scale")


@dataclasses.dataclass(frozen=True)
class Claims:
    """Decision rules of the claims C1–C7, fixed before the run; see `reports/claims.py`."""

    min_seeds: int
    min_features: int
    c1_chance: float
    c1_difference: float
    c2_difference: float
    c3_ratio: float
    c3_surface: float
    c4_excess: float
    c5_span: float
    c5_found: float
    c6_p: float
    c6_between: float
    c6_explained: float
    c7_excess: float
    plateau_rise: float

    def __post_init__(self):
        positive(self, "claims", "min_seeds", "min_features")
