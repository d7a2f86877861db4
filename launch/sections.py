"""The sections of a config on what is studied, as frozen dataclasses; see `configs/default.py` for the meaning of fields."""

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
