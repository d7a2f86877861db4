"""What is static in an SAE and its training: shapes, counts of steps, schedules."""

import dataclasses
import itertools


@dataclasses.dataclass(frozen=True)
class SAEConfig:
    """The dictionary and its loss. Lengths are in the scale of training, where E‖x‖ = √D.

    Attributes:
      variant: a key of `saes.variants.VARIANTS`.
      n_features: dictionary size (F).
      k: active features a token (K): exactly (topk), on average over a batch (batchtopk, matryoshka), or held there by a controller.
      aux_k: dead features that model the residual, at most F; 0: half the width (Gao et al. 2024). topk, batchtopk, matryoshka.
      aux_weight: of that auxiliary loss (1/32 in Gao et al. 2024).
      aux_units: "variance": its error and the main one as shares of the variance they are held against (their code); "error": both as
        they are (their paper's formula), which hardly revives anything.
      dead_after_tokens: a feature that has not fired for so many tokens counts as dead in training.
      threshold_decay: of the moving average that becomes the threshold for inference. batchtopk, matryoshka.
      prefix_fractions: matryoshka: sizes of the groups that the nested prefixes add, as shares of F that sum to 1.
      sparsity: penalty coefficient to begin with; 0: the variant's own. jumprelu, gated, l1.
      sparsity_warmup_fraction: of the steps, linear from 0; the target of L0 falls to K meanwhile (`saes/control.py`), and
        thresholds are averaged from its end.
      control_rate, control_gain: integral (per step) and proportional gain of the controller of the coefficient; 0 and 0: it is fixed.
      jump_threshold, jump_bandwidth: jumprelu: initial θ and width ε of the straight-through rectangle, as shares of √D.
      pre_act_weight: jumprelu: weight of the loss that revives dead features; 0: none.
    """

    variant: str
    n_features: int
    k: int
    aux_k: int
    aux_weight: float
    aux_units: str
    dead_after_tokens: int
    threshold_decay: float
    prefix_fractions: tuple[float, ...]
    sparsity: float
    sparsity_warmup_fraction: float
    control_rate: float
    control_gain: float
    jump_threshold: float
    jump_bandwidth: float
    pre_act_weight: float

    def __post_init__(self):
        for name in ("n_features", "k", "dead_after_tokens", "jump_threshold", "jump_bandwidth"):
            if getattr(self, name) <= 0:
                raise ValueError(f"config.sae.{name}={getattr(self, name)}: must be above 0")
        if self.n_features < self.k:
            raise ValueError(f"config.sae.k={self.k} exceeds config.sae.n_features={self.n_features}")
        if self.aux_units not in ("variance", "error"):
            raise ValueError(f"config.sae.aux_units={self.aux_units!r}: 'variance' or 'error'")
        if self.aux_k < 0 or self.aux_k > self.n_features:
            raise ValueError(f"config.sae.aux_k={self.aux_k}: between 0 and n_features={self.n_features}")
        for name in ("aux_weight", "sparsity", "control_rate", "control_gain", "pre_act_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"config.sae.{name}={getattr(self, name)}: must not be negative")
        for name in ("threshold_decay", "sparsity_warmup_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"config.sae.{name}={getattr(self, name)}: must be in [0, 1)")
        f = self.prefix_fractions
        if not f or min(f) <= 0 or abs(sum(f) - 1) > 1e-6:
            raise ValueError(f"config.sae.prefix_fractions={f}: shares above 0 that sum to 1")
        if self.variant == "matryoshka" and (len(set(self.prefixes())) < len(f) or self.prefixes()[0] < 1):
            raise ValueError(f"config.sae.prefix_fractions={f}: of n_features={self.n_features} each must be at least one feature")

    @property
    def controlled(self) -> bool:
        """Whether a controller moves the penalty's coefficient."""
        return self.control_rate > 0 or self.control_gain > 0

    def prefixes(self) -> tuple[int, ...]:
        """Ends of the nested prefixes, the last of them F."""
        ends = itertools.accumulate(self.prefix_fractions)
        return tuple(round(end * self.n_features) for end in ends)

    def dead_features_used(self, width: int) -> int:
        """`aux_k` with its default."""
        return self.aux_k or min(max(1, width // 2), self.n_features)

    def bandwidth(self, width: int) -> float:
        """ε of the straight-through rectangle."""
        return self.jump_bandwidth * width**0.5


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training of every seed.

    Attributes:
      tokens: activations seen by each SAE, repeats included; rounded up to whole dispatches.
      batch_size: activations a step (B).
      lr: peak learning rate; 0: 2e-4·√(2¹⁴/F) (dictionary_learning).
      warmup_fraction, warmup_steps: linear, not from zero, over the shorter of this share of the steps and this many.
      decay_fraction: of the steps at the end, linear to zero.
      adam_b1, adam_b2, adam_eps: Adam.
      clip_norm: global gradient norm of one seed.
      lanes: SAEs in one vmap; 0: 2 on CPU, elsewhere as many as the device's memory holds (`saes/capacity.py`).
      seeds_at_once: SAEs trained at a time, the others after them; 0: as many as the memory holds.
      steps_per_dispatch: steps scanned on the device between two looks from the host.
      checkpoint_every: steps.
      eval_at_tokens: activations after which a dictionary is kept for p̂ against tokens, beside the untrained and the final one;
        rounded up to whole dispatches. Empty: `snapshots` of them.
      snapshots: the untrained one, and the others at doublings that end with the final one.
      eval_rows: held-out activations for each SAE's explained variance and L0 at the end of training.
      data: "activations", or "gaussian": as many rows drawn with their mean and covariance, a null model.
      shuffle_block: rows that stay together on disk; whole blocks are shuffled, then the rows of a window.
      shuffle_window: rows among which order is uniform; 0: all (then blocks mean nothing).
      export_sparsify: also write sparsify's format (topk alone).
      halves: True: SAEs at even places see one half of the documents, those at odd places the other.
    """

    tokens: int
    batch_size: int
    lr: float
    warmup_fraction: float
    warmup_steps: int
    decay_fraction: float
    adam_b1: float
    adam_b2: float
    adam_eps: float
    clip_norm: float
    lanes: int
    seeds_at_once: int
    steps_per_dispatch: int
    checkpoint_every: int
    eval_at_tokens: tuple[int, ...]
    snapshots: int
    eval_rows: int
    data: str
    shuffle_block: int
    shuffle_window: int
    export_sparsify: bool
    halves: bool

    def __post_init__(self):
        for name in (
            "tokens", "batch_size", "clip_norm", "steps_per_dispatch", "checkpoint_every", "adam_eps", "eval_rows", "shuffle_block",
            "warmup_steps",
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ValueError(f"config.train.{name}={getattr(self, name)}: must be above 0")
        if self.lr < 0:
            raise ValueError(f"config.train.lr={self.lr}: must not be negative (0 takes the law 2e-4·√(2¹⁴/F))")
        for name in ("warmup_fraction", "decay_fraction", "adam_b1", "adam_b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"config.train.{name}={getattr(self, name)}: must be in [0, 1)")
        if self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError("config.train.decay_fraction: warm-up and decay together exceed the run")
        if self.checkpoint_every % self.steps_per_dispatch:
            raise ValueError(
                f"config.train.checkpoint_every={self.checkpoint_every}: must be a multiple of steps_per_dispatch={self.steps_per_dispatch}"
            )
        for name in ("lanes", "seeds_at_once"):
            if getattr(self, name) == 1 or getattr(self, name) < 0:
                raise ValueError(f"config.train.{name}={getattr(self, name)}: 0 (chosen by the device's memory) or at least 2")
        if self.shuffle_window < 0:
            raise ValueError(f"config.train.shuffle_window={self.shuffle_window}: must not be negative (0: all rows)")
        if self.data not in ("activations", "gaussian"):
            raise ValueError(f"config.train.data={self.data!r}: 'activations' or 'gaussian'")
        if self.data == "gaussian" and self.halves:
            raise ValueError("config.train.halves: Gaussian rows belong to no document; only with train.data='activations'")
        if any(not 0 < n < self.tokens for n in self.eval_at_tokens):
            raise ValueError(f"config.train.eval_at_tokens={self.eval_at_tokens}: each above 0 and below train.tokens={self.tokens}")
        if self.snapshots < 2:
            raise ValueError(f"config.train.snapshots={self.snapshots}: at least 2 (untrained and final)")

    @property
    def steps(self) -> int:
        dispatches = -(-self.tokens // (self.batch_size * self.steps_per_dispatch))
        return dispatches * self.steps_per_dispatch

    def peak_lr(self, n_features: int) -> float:
        """`lr` with its default."""
        return self.lr or 2e-4 * (2**14 / n_features) ** 0.5

    def snapshot_steps(self) -> list[int]:
        """Steps after which a dictionary is kept, whole dispatches, from 0 to the end; without `eval_at_tokens` each about twice the one before."""
        dispatches = self.steps // self.steps_per_dispatch
        wanted = {max(1, round(dispatches / 2**halvings)) for halvings in range(self.snapshots - 1)}
        if self.eval_at_tokens:
            wanted = {dispatches, *(-(-n // (self.batch_size * self.steps_per_dispatch)) for n in self.eval_at_tokens)}
        return [0] + [n * self.steps_per_dispatch for n in sorted(wanted)]
