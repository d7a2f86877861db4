"""The rule by which a feature counts as found again, and by which features are called stable or unstable: read wherever labels matter."""

from experiments.fields import config, field


@config("stability")
class LabelRule:
    """When a feature counts as found again, and which are called stable."""

    theta: float = field(
        default=0.7, doc="cosine from which a feature counts as the same (the paper's)", gt=0, le=1, says="a cosine in (0, 1]"
    )
    epsilon: float = field(default=0.05, doc="stable: p̂ ≥ 1−ε; unstable: p̂ ≤ ε (the paper's)", ge=0, lt=0.5)
    confidence: float = field(default=0.95, doc="of every interval", gt=0, lt=1)
    rare_firings: int = field(default=100, doc="rare: fires less often than this on the evaluation tokens", gt=0)
    block_size: int = field(default=512, doc="rows of one dictionary held against all of another at a time", gt=0, how=True)


@config("stability")
class Reappearance:
    """How p̂ is measured, and against which null models."""

    null_draws: int = field(default=5, doc="independent rotations of every dictionary", gt=0)
    null_seeds: int = field(default=16, doc="SAEs, the first so many, among which null models are compared", ge=2)
    span_rank: int = field(default=16, doc="dimensions of the unstable features' span inside which a null model rotates", gt=0)
    thetas: tuple[float, ...] = field(
        default=(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95), doc="of the θ curve", gt=0, le=1, least=1
    )
    epsilons: tuple[float, ...] = field(default=(0.0, 0.05, 0.1, 0.15, 0.2, 0.3), doc="of the ε sweep", ge=0, lt=0.5, least=1)
    top_rows: int = field(default=8, doc="top-activating tokens kept per feature", gt=0)
    curve_rows: int = field(default=16_384, doc="evaluation rows for the dictionaries along training", gt=0)
    curve_seeds: int = field(default=16, doc="SAEs, the first so many, that are compared along training", ge=2)
