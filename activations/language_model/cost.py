"""What running a model costs, counted: floating-point operations and bytes."""

from activations.language_model.config import DecoderConfig
from activations.language_model.parameters import count, shapes


def flops_per_token(config: DecoderConfig, layer: int, site: str, context_length: int) -> float:
    """Of reading `site` of `layer` at a token: two per multiplication with a parameter, and attention among `context_length` positions.

    All scores are counted, those the mask hides too: they are computed.  What XLA may leave out of the last layer is not.
    """
    layers = layer if site == "resid_pre" else layer + 1
    matrices = shapes(config)["layers"]
    weights = sum(m["w"][1] * m["w"][2] for m in matrices.values() if len(m["w"]) == 3)
    attention = 2 * context_length * config.n_heads * config.head_width  # q·k and weights·v, two operations each, per token
    return layers * (2.0 * weights + 2.0 * attention)


def parameter_bytes(config: DecoderConfig, dtype_bytes: int) -> int:
    """Of all parameters: a checkpoint is loaded whole, whatever layer is read."""
    return count(config) * dtype_bytes


def context_bytes(config: DecoderConfig, context_length: int, dtype_bytes: int) -> int:
    """That a context holds while a layer runs: the stream and what is computed from it, the MLP's hidden width, scores twice in float32."""
    e = config.head_width
    stream = 4 * config.width + 2 * (config.n_heads + config.n_kv_heads) * e + (3 if config.gated_mlp else 2) * config.mlp_width
    return context_length * (stream * dtype_bytes + 2 * 4 * config.n_heads * context_length)


def batch_size(config: DecoderConfig, context_length: int, dtype_bytes: int, memory: int, largest: int, data: int = 1) -> int:
    """Contexts a forward pass: the largest power of two times `data` that fits into `memory` bytes per device, and divides `largest`.

    At least `data`, whatever the memory: a context cannot be cut.
    """
    best, size = data, data
    while size <= largest:
        if largest % size == 0 and size // data * context_bytes(config, context_length, dtype_bytes) <= memory:
            best = size
        size *= 2
    return best
