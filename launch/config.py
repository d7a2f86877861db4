"""ConfigDict → validated frozen dataclasses. Below this layer nobody sees a ConfigDict.

Defaults live in `configs/default.py` (one place, commented); types and bounds live in the dataclasses.  The two lists of
fields must agree: `validated` refuses a field too many or too few.
"""

import dataclasses
import math
import types
import typing
from typing import Any, ClassVar

import ml_collections

from saes.config import SAEConfig, TrainConfig
from saes.variants import variant
from synthetic.config import WorldConfig


def _check(ok: bool, field: str, value: Any, rule: str) -> None:
    if not ok:
        raise ValueError(f"config.{field}={value!r}: {rule}")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where text and activations come from; see `configs/default.py` for the meaning of fields."""

    root: str
    context_length: int
    tokens: int
    eval_tokens: int
    layer: int
    site: str
    dtype: str
    batch_size: int
    shard_contexts: int

    def __post_init__(self):
        _positive(self, "source", "context_length", "tokens", "eval_tokens", "batch_size", "shard_contexts")
        _check(
            self.shard_contexts % self.batch_size == 0, "source.shard_contexts", self.shard_contexts,
            f"must be a multiple of source.batch_size={self.batch_size}",
        )  # fmt: skip
        _check(self.layer >= 0, "source.layer", self.layer, "layers count from 0")
        _check(self.site == "resid_post", "source.site", self.site, "only 'resid_post' is captured so far")
        _check(self.dtype in ("float32", "bfloat16"), "source.dtype", self.dtype, "'float32' or 'bfloat16'")


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
        _positive(
            self, "pretrain", "vocab_size", "width", "n_layers", "n_heads", "mlp_width", "max_positions", "context_length",
            "batch_size", "steps", "lr", "warmup_steps", "clip_norm", "steps_per_dispatch", "checkpoint_every", "eval_every",
        )  # fmt: skip
        _check(self.width % self.n_heads == 0, "pretrain.n_heads", self.n_heads, f"must divide the width {self.width}")
        rotary = self.width // self.n_heads * self.rotary_fraction
        _check(
            0 < self.rotary_fraction <= 1 and rotary % 2 == 0, "pretrain.rotary_fraction", self.rotary_fraction,
            "must rotate an even number of a head's dimensions",
        )  # fmt: skip
        _check(self.context_length <= self.max_positions, "pretrain.context_length", self.context_length, "longer than max_positions")
        _check(0 <= self.final_lr_fraction <= 1, "pretrain.final_lr_fraction", self.final_lr_fraction, "between 0 and 1")
        _check(self.weight_decay >= 0, "pretrain.weight_decay", self.weight_decay, "must not be negative")
        for field in ("steps", "checkpoint_every", "eval_every"):
            value = getattr(self, field)
            _check(
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
        _check(0 < self.discount < 1, "model_card.discount", self.discount, "between 0 and 1")


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """Settings of a config whose stages make a language model."""

    STAGES: ClassVar = ("tokenizer", "pretrain", "model_card")

    stages: tuple[str, ...]
    source: Source
    pretrain: Pretrain
    model_card: ModelCard


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """The model whose activations are studied: a folder in Hugging Face layout."""

    path: str


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
    top_rows: int
    curve_rows: int

    def __post_init__(self):
        _check(0 < self.theta <= 1, "stability.theta", self.theta, "a cosine in (0, 1]")
        _check(0 <= self.epsilon < 0.5, "stability.epsilon", self.epsilon, "must be in [0, 0.5)")
        _check(0 < self.confidence < 1, "stability.confidence", self.confidence, "between 0 and 1")
        _positive(self, "stability", "block_size", "rare_firings", "null_draws", "top_rows", "curve_rows")


@dataclasses.dataclass(frozen=True)
class Subspace:
    """How subspaces of feature sets are compared."""

    ranks: tuple[int, ...]
    headline_rank: int
    subsamples: int
    min_features: int

    def __post_init__(self):
        _positive(self, "subspace", "headline_rank", "subsamples", "min_features")
        _check(all(r > 0 for r in self.ranks), "subspace.ranks", self.ranks, "must be above 0")
        _check(self.headline_rank in self.ranks, "subspace.headline_rank", self.headline_rank, f"must be one of ranks={self.ranks}")
        _check(self.min_features >= 2, "subspace.min_features", self.min_features, "at least 2")


@dataclasses.dataclass(frozen=True)
class Report:
    """What the page shows."""

    examples: int
    contexts: int
    context_tokens: int
    png_scale: float

    def __post_init__(self):
        _positive(self, "report", "examples", "contexts", "context_tokens", "png_scale")


@dataclasses.dataclass(frozen=True)
class Claims:
    """Decision rules of the claims C1–C7, fixed before the run; see `reports/claims.py`."""

    min_seeds: int
    min_features: int
    c1_chance: float
    c1_difference: float
    c3_ratio: float
    c4_excess: float
    plateau_rise: float

    def __post_init__(self):
        _positive(self, "claims", "min_seeds", "min_features")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Values along the vmapped axis; every combination is trained with all seeds."""

    lr: tuple[float, ...]
    k: tuple[int, ...]
    sparsity: tuple[float, ...]

    def __post_init__(self):
        for field in ("lr", "k", "sparsity"):
            values = getattr(self, field)
            _check(all(v > 0 for v in values) and len(set(values)) == len(values), f"sweep.{field}", values, "distinct values above 0")

    def __bool__(self) -> bool:
        return bool(self.lr or self.k or self.sparsity)


@dataclasses.dataclass(frozen=True)
class Recovery:
    """How what was learned is held against a known truth."""

    found: float
    theta: float
    unstable_below: float

    def __post_init__(self):
        for field in ("found", "theta", "unstable_below"):
            _check(0 < getattr(self, field) <= 1, f"recovery.{field}", getattr(self, field), "above 0 and at most 1")


@dataclasses.dataclass(frozen=True)
class _Seeds:
    """What every study of seeds has, whatever its activations come from."""

    stages: tuple[str, ...]
    seeds: tuple[int, ...]
    init_seed: int
    data_seed: int
    sweep: Sweep
    sae: SAEConfig
    train: TrainConfig
    stability: Stability
    subspace: Subspace
    report: Report
    claims: Claims

    def __post_init__(self):
        if not self.seeds or not 0 <= min(self.seeds) <= max(self.seeds) < 2**32 or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"config.seeds={self.seeds}: a count, or distinct seeds from 0 to 2³²−1")
        if len(self.seed_list) < 2:
            raise ValueError(f"config.seeds={self.seeds}: stability compares at least 2 seeds")
        for field in ("init_seed", "data_seed"):
            _check(-1 <= getattr(self, field) < 2**32, field, getattr(self, field), "-1 (each SAE's by its seed) or a seed for all")
        penalised = variant(self.sae.variant).penalised
        _check(all(k <= self.sae.k for k in self.sweep.k), "sweep.k", self.sweep.k, f"at most sae.k={self.sae.k}, which sets the shapes")
        _check(
            penalised or not self.sweep.sparsity, "sweep.sparsity", self.sweep.sparsity,
            f"the variant {self.sae.variant!r} has no penalty",
        )  # fmt: skip
        _check(
            not (self.sweep.sparsity and self.sae.controlled), "sweep.sparsity", self.sweep.sparsity,
            "the controller would drive all to the same L0: sae.control_rate=0 and sae.control_gain=0 fix the coefficient",
        )  # fmt: skip
        _check(
            not self.train.export_sparsify or self.sae.variant == "topk", "train.export_sparsify", self.train.export_sparsify,
            "sparsify's format holds topk SAEs alone",
        )  # fmt: skip
        later = [name for name in self.stages if name not in ("activations", "train")]
        _check(
            not (self.sweep and later), "stages", self.stages,
            "a sweep only trains; measure a cell with --config.stability.dictionaries=…/train/cells/<cell>/dictionaries.json",
        )  # fmt: skip

    @property
    def seed_list(self) -> tuple[int, ...]:
        """One number is a count: seeds 0 to that less one; several are the seeds themselves."""
        return tuple(range(self.seeds[0])) if len(self.seeds) == 1 else self.seeds

    @property
    def differ_in(self) -> str:
        """What the SAEs of a cell differ in, for people."""
        found = ["initialisation"] * (self.init_seed < 0) + ["order of activations"] * (self.data_seed < 0)
        return " and ".join(found + ["half of the documents"] * self.train.halves) or "nothing"


@dataclasses.dataclass(frozen=True)
class Study(_Seeds):
    """Settings of a config whose stages measure stability on a language model."""

    STAGES: ClassVar = ("activations", "train", "stability", "subspace", "report")

    source: Source
    lm: LanguageModel


@dataclasses.dataclass(frozen=True)
class SyntheticStudy(_Seeds):
    """Settings of a config whose activations come from a world of known atoms."""

    STAGES: ClassVar = ("train", "stability", "subspace", "recovery", "report")

    synthetic: WorldConfig
    recovery: Recovery

    def __post_init__(self):
        super().__post_init__()
        _check(self.train.data == "activations" and not self.train.halves, "train.data", self.train.data, "a world has no stored rows")

    @property
    def subject(self) -> str:
        c = self.synthetic
        blocks = f"{c.blocks} block{'s' * (c.blocks != 1)} of {c.block_atoms} in rank {c.rank}"
        return f"a synthetic world of width {c.width}: {c.free_atoms} free atoms, {blocks}"


Settings = Study | SyntheticStudy | Pretraining


def validated(config: ml_collections.ConfigDict) -> Any:
    """The config as frozen dataclasses.

    Raises:
      ValueError: an unknown stage, a field of a wrong type or out of bounds, or NaN anywhere; names the field.
    """
    stages = tuple(config.get("stages", ()))
    kind = Pretraining if "pretrain" in config else SyntheticStudy if "synthetic" in config else Study
    if not stages or (wrong := [name for name in stages if name not in kind.STAGES]):
        found = f"{wrong[0]!r}" if stages else "nothing"
        known = repr(kind.STAGES)
        raise ValueError(f'config.stages holds {found}: a part of --config.stages="{known}"')
    return _from_dict(kind, config.to_dict(), "")


def _positive(section: Any, prefix: str, *names: str) -> None:
    for name in names:
        _check(getattr(section, name) > 0, f"{prefix}.{name}", getattr(section, name), "must be above 0")


def _from_dict(cls: Any, values: dict[str, Any], prefix: str) -> Any:
    hints = {field.name: typing.get_type_hints(cls)[field.name] for field in dataclasses.fields(cls)}
    for name in sorted(values.keys() ^ hints.keys()):
        problem = "is missing" if name in hints else f"is no field of {cls.__name__}"
        raise ValueError(f"config.{prefix}{name} {problem}")
    return cls(**{name: _convert(hints[name], values[name], f"{prefix}{name}") for name in hints})


def _convert(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _from_dict(hint, value, f"{name}.")
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        _check(isinstance(value, list | tuple), name, value, "must be a tuple")
        return tuple(_convert(inner, v, name) for v in value)
    if isinstance(hint, types.UnionType) and value is None:
        return None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    _check(
        isinstance(value, hint) and not (isinstance(value, bool) and hint is int),
        name,
        value,
        f"must be of type {getattr(hint, '__name__', hint)}",
    )
    _check(not isinstance(value, float) or math.isfinite(value), name, value, "must be a finite number")
    return value
