"""What is read from a language model: the section of the config that everybody reads who looks at its activations again."""

from activations.language_model.config import SITES
from experiments.fields import check, config, field


@config("source")
class Harvesting:
    """What is read from the language model, and how."""

    start_token: str = field(default="", doc="text of the token that begins every context; '': what the tokenizer names")
    context_length: int = field(default=256, doc="tokens, start token included; what the embedded model was trained on", gt=0)
    tokens: int = field(default=1_600_000, doc="rows to harvest for training; fewer if the text is shorter", gt=0)
    layer: int = field(default=1, doc="block whose output is read, from 0", ge=0, says="layers count from 0")
    site: str = field(
        default="resid_post",
        doc="the residual stream behind the block; or resid_pre, attn_out, resid_mid, mlp_in, mlp_act, mlp_out",
        one_of=SITES,
    )
    dtype: str = field(default="float32", doc="of the stored rows: float32 | bfloat16", one_of=("float32", "bfloat16"))
    batch_size: int = field(default=0, doc="contexts a forward pass, over all devices; 0: as many as fit", ge=0)
    shard_contexts: int = field(default=512, doc="contexts a file of the store; a multiple of batch_size (with 0: of a power of two)", gt=0)

    def check(self) -> None:
        check(
            not self.batch_size or self.shard_contexts % self.batch_size == 0, "source.shard_contexts", self.shard_contexts,
            f"must be a multiple of source.batch_size={self.batch_size}",
        )  # fmt: skip
