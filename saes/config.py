"""What is static in an SAE and its training: shapes, counts of steps, schedules."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class SAEConfig:
    """The dictionary.

    Attributes:
      variant: a key of `saes.variants.VARIANTS`.
      n_features: dictionary size (F).
      k: active features a token (K).
      aux_k: dead features that model the residual, at most F; 0: half the width (Gao et al. 2024).
      aux_weight: weight of that auxiliary loss (1/32 in Gao et al. 2024).
      dead_after_tokens: a feature that has not fired for so many tokens counts as dead in training.
    """

    variant: str
    n_features: int
    k: int
    aux_k: int
    aux_weight: float
    dead_after_tokens: int

    def __post_init__(self):
        for name in ("n_features", "k", "dead_after_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"config.sae.{name}={getattr(self, name)}: must be above 0")
        if self.n_features < self.k:
            raise ValueError(f"config.sae.k={self.k} exceeds config.sae.n_features={self.n_features}")
        if self.aux_k < 0 or self.aux_k > self.n_features:
            raise ValueError(f"config.sae.aux_k={self.aux_k}: between 0 and n_features={self.n_features}")
        if self.aux_weight < 0:
            raise ValueError(f"config.sae.aux_weight={self.aux_weight}: must not be negative")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training of every seed.

    Attributes:
      tokens: activations seen by each SAE, repeats included; rounded up to whole dispatches.
      batch_size: activations a step (B).
      lr: peak learning rate; 0: 2e-4·√(2¹⁴/F) (dictionary_learning).
      warmup_fraction: of the steps, linear, not from zero.
      decay_fraction: of the steps at the end, linear to zero.
      adam_b1, adam_b2, adam_eps: Adam.
      clip_norm: global gradient norm of one seed.
      lanes: seeds in one vmap; 0: 2 on CPU, all of a device's seeds elsewhere (`saes.step.plan_seeds`).
      steps_per_dispatch: steps scanned on the device between two looks from the host.
      checkpoint_every: steps.
      snapshots: dictionaries kept along the way for p̂ against tokens: the untrained one, and the others at doublings that
        end with the final one.
    """

    tokens: int
    batch_size: int
    lr: float
    warmup_fraction: float
    decay_fraction: float
    adam_b1: float
    adam_b2: float
    adam_eps: float
    clip_norm: float
    lanes: int
    steps_per_dispatch: int
    checkpoint_every: int
    snapshots: int

    def __post_init__(self):
        for name in ("tokens", "batch_size", "clip_norm", "steps_per_dispatch", "checkpoint_every", "adam_eps"):
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
        if self.lanes == 1 or self.lanes < 0:
            raise ValueError(f"config.train.lanes={self.lanes}: 0 (chosen by device) or at least 2")
        if self.snapshots < 2:
            raise ValueError(f"config.train.snapshots={self.snapshots}: at least 2 (untrained and final)")

    @property
    def steps(self) -> int:
        dispatches = -(-self.tokens // (self.batch_size * self.steps_per_dispatch))
        return dispatches * self.steps_per_dispatch

    def snapshot_steps(self) -> list[int]:
        """Steps after which a dictionary is kept: 0, then each about twice the one before, the last the end; whole dispatches."""
        dispatches = self.steps // self.steps_per_dispatch
        wanted = {max(1, round(dispatches / 2**halvings)) for halvings in range(self.snapshots - 1)}
        return [0] + [n * self.steps_per_dispatch for n in sorted(wanted)]
