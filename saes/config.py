"""What is static in an SAE and its training: shapes, counts of steps, schedules."""

import itertools

from experiments.fields import check, config, field


@config("sae")
class SAEConfig:
    """The dictionary and its loss. Lengths are in the scale of training, where E‖x‖ = √D."""

    variant: str = field(default="topk", doc="a key of saes.variants.VARIANTS")
    n_features: int = field(default=512, doc="dictionary size F", gt=0)
    k: int = field(default=16, doc="active features a token (target L0 of every variant); 1 to F", gt=0)
    aux_k: int = field(default=0, doc="dead features modelling the residual; 0: half the width (Gao et al. 2024)", ge=0)
    aux_weight: float = field(default=1 / 32, doc="of the auxiliary loss (Gao et al. 2024)", ge=0)
    aux_units: str = field(
        default="variance",
        doc="'variance': both errors as shares of what they are held against (Gao et al.'s code); 'error': as they are (their paper's formula)",
        one_of=("variance", "error"),
    )
    dead_after_tokens: int = field(default=200_000, doc="dead in training after so many tokens without firing; 10 M in runs of 1 B", gt=0)
    threshold_decay: float = field(
        default=0.999, doc="batchtopk, matryoshka: of the moving average that becomes the threshold for inference", ge=0, lt=1
    )
    prefix_fractions: tuple[float, ...] = field(
        default=(1 / 32, 1 / 16, 1 / 8, 1 / 4, 17 / 32), doc="matryoshka: groups, as shares of F (Bussmann et al. 2025)", gt=0, least=1
    )
    sparsity: float = field(
        default=0.0, doc="coefficient to begin with; 0: the variant's own (saes/variants.py). A controller takes it from there", ge=0
    )
    sparsity_warmup_fraction: float = field(default=0.2, doc="of the steps: coefficient from 0, target L0 falling to k", ge=0, lt=1)
    control_rate: float = field(default=0.02, doc="integral gain a step, on the log of the coefficient", ge=0)
    control_gain: float = field(
        default=1.0, doc="proportional gain; 0 and control_rate 0: the coefficient is fixed, whatever L0 comes out", ge=0
    )
    jump_threshold: float = field(default=0.01, doc="jumprelu: initial threshold, as a share of √D", gt=0)
    jump_bandwidth: float = field(default=0.01, doc="jumprelu: width of the straight-through rectangle, as a share of √D", gt=0)
    pre_act_weight: float = field(default=0.0, doc="jumprelu: loss that revives dead features", ge=0)

    def check(self) -> None:
        check(self.k <= self.n_features, "sae.k", self.k, f"exceeds config.sae.n_features={self.n_features}")
        check(self.aux_k <= self.n_features, "sae.aux_k", self.aux_k, f"between 0 and n_features={self.n_features}")
        f = self.prefix_fractions
        check(abs(sum(f) - 1) <= 1e-6, "sae.prefix_fractions", f, "shares above 0 that sum to 1")
        check(
            self.variant != "matryoshka" or (len(set(self.prefixes())) == len(f) and self.prefixes()[0] >= 1), "sae.prefix_fractions", f,
            f"of n_features={self.n_features} each must be at least one feature",
        )  # fmt: skip

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


@config("train")
class TrainConfig:
    """The training of one SAE."""

    tokens: int = field(default=2_500_000, doc="seen by each SAE, repeats included; rounded up to whole dispatches", gt=0)
    batch_size: int = field(default=512, doc="activations a step", gt=0)
    lr: float = field(
        default=0.0, doc="peak; 0: 2e-4·√(2^14/F) (dictionary_learning)", ge=0, says="must not be negative (0 takes the law 2e-4·√(2¹⁴/F))"
    )
    warmup_fraction: float = field(default=0.05, doc="share of the steps at the beginning, linear from 0", ge=0, lt=1)
    warmup_steps: int = field(default=1000, doc="of these, at most", gt=0)
    decay_fraction: float = field(default=0.2, doc="share of the steps at the end, linear to 0", ge=0, lt=1)
    adam_b1: float = field(default=0.9, doc="Adam: decay of the mean of gradients, a step", ge=0, lt=1)
    adam_b2: float = field(default=0.999, doc="Adam: decay of the mean of their squares, a step", ge=0, lt=1)
    adam_eps: float = field(default=1e-8, doc="Adam: added to the root of that mean", gt=0)
    clip_norm: float = field(default=1.0, doc="global gradient norm, of each seed alone", gt=0)
    steps_per_dispatch: int = field(default=16, doc="steps scanned on the device between two looks from the host", gt=0)
    eval_at_tokens: tuple[int, ...] = field(
        default=(), doc="tokens after which a dictionary is kept for p̂ against tokens; (): at doublings", gt=0
    )
    snapshots: int = field(
        default=8,
        doc="dictionaries kept along training: untrained, then at doublings up to the end; at least 7",
        ge=2,
        says="at least 2 (untrained and final)",
    )

    def check(self) -> None:
        check(
            self.warmup_fraction + self.decay_fraction <= 1,
            "train.decay_fraction",
            self.decay_fraction,
            "warm-up and decay together exceed the run",
        )
        check(
            all(n < self.tokens for n in self.eval_at_tokens), "train.eval_at_tokens", self.eval_at_tokens,
            f"each above 0 and below train.tokens={self.tokens}",
        )  # fmt: skip

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
