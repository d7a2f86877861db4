"""The section of the config on the embedded language model and its training, which all stages that make it read."""

from experiments.fields import check, config, field


@config("pretrain")
class Pretrain:
    """The embedded language model and its training."""

    vocab_size: int = field(default=4096, doc="entries of the byte-level BPE", gt=0)
    width: int = field(default=128, doc="of the residual stream", gt=0)
    n_layers: int = field(default=4, doc="layers", gt=0)
    n_heads: int = field(default=4, doc="attention heads; must divide the width", gt=0)
    mlp_width: int = field(default=512, doc="hidden width of the MLP", gt=0)
    max_positions: int = field(default=512, doc="written into config.json; rotary positions have no table", gt=0)
    rotary_fraction: float = field(default=0.25, doc="of each head's dimensions (Pythia)", gt=0, le=1)
    context_length: int = field(default=256, doc="tokens, start token included", gt=0)
    batch_size: int = field(default=16, doc="contexts a step", gt=0)
    steps: int = field(default=4000, doc="steps of training", gt=0)
    lr: float = field(default=3e-3, doc="AdamW peak, linear warm-up then cosine", gt=0)
    final_lr_fraction: float = field(default=0.05, doc="of the peak, at the last step", ge=0, le=1)
    warmup_steps: int = field(default=200, doc="steps of warm-up", gt=0)
    weight_decay: float = field(default=0.1, doc="on matrices, not on norms and biases", ge=0)
    clip_norm: float = field(default=1.0, doc="global gradient norm", gt=0)
    seed: int = field(default=0, doc="initialisation and order of contexts")
    steps_per_dispatch: int = field(default=10, doc="steps scanned on the device between two looks from the host", gt=0)
    checkpoint_every: int = field(default=100, doc="steps", gt=0, how=True)
    eval_every: int = field(default=200, doc="steps between losses on the held-out files", gt=0)

    def check(self) -> None:
        check(self.width % self.n_heads == 0, "pretrain.n_heads", self.n_heads, f"must divide the width {self.width}")
        rotary = self.width // self.n_heads * self.rotary_fraction
        check(rotary % 2 == 0, "pretrain.rotary_fraction", self.rotary_fraction, "must rotate an even number of a head's dimensions")
        check(self.context_length <= self.max_positions, "pretrain.context_length", self.context_length, "longer than max_positions")
        for name in ("steps", "checkpoint_every", "eval_every"):
            value = getattr(self, name)
            check(
                value % self.steps_per_dispatch == 0, f"pretrain.{name}", value,
                f"must be a multiple of steps_per_dispatch={self.steps_per_dispatch}",
            )  # fmt: skip
