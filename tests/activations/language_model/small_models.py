"""Small models of every family, in Hugging Face layout and without torch: names and shapes come from transformers, by way of a file.

`tests/data/families.json` holds configs, tensor names and shapes, `tests/data/families.npz` what torch transformers computes from
these weights: `python -m tests.make_reference` (needs torch) renews both.
"""

import json
import pathlib
import zlib

import numpy as np
import safetensors.numpy

from activations.text.tokenizer import END_OF_TEXT, train_tokenizer

DATA = pathlib.Path(__file__).parents[2] / "data"
LAYER = 1  # where sites are captured and spliced
PATCHED = ("resid_pre", "attn_out", "mlp_in", "mlp_act", "mlp_out", "resid_post")  # the reference can splice there by hooks


def patch(x):
    """What is spliced in; works on arrays of NumPy, JAX and torch."""
    return 0.5 * x - 0.1


_LLAMA = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
_HEADS = _LLAMA | {"head_dim": 12}
CONFIGS = {
    "gpt2": {"model_type": "gpt2", "vocab_size": 61, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "gpt_neox": {
        "model_type": "gpt_neox", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 64, "rotary_pct": 0.5,
    },
    "gpt_neox-sequential": {
        "model_type": "gpt_neox", "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 64, "use_parallel_residual": False, "hidden_act": "relu", "attention_bias": False,
    },
    "llama": {"model_type": "llama", **_LLAMA},
    "llama-3.1": {
        "model_type": "llama", **_LLAMA, "tie_word_embeddings": True, "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32},
    },
    "llama-linear": {
        "model_type": "llama", **_LLAMA, "attention_bias": True, "mlp_bias": True, "rope_theta": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
    "mistral": {"model_type": "mistral", **_LLAMA, "sliding_window": 4},
    "qwen2": {"model_type": "qwen2", **_LLAMA},
    "qwen2-window": {"model_type": "qwen2", **_LLAMA, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": {"model_type": "qwen3", **_HEADS},
    "gemma2": {"model_type": "gemma2", **_HEADS, "sliding_window": 4, "query_pre_attn_scalar": 20, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    "gemma3": {
        "model_type": "gemma3_text", **_HEADS, "num_hidden_layers": 7, "sliding_window": 4, "query_pre_attn_scalar": 20, "sliding_window_pattern": 3,
    },
    "bert": {
        "model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3,
        "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64,
    },
}  # fmt: skip


def tokens(vocab_size=61):
    """(2, 20) token ids."""
    return np.random.default_rng(0).integers(0, vocab_size, (2, 20)).astype(np.int32)


def weights(name, shape):
    """Of one tensor, by its name: large enough that caps, windows and norms all show."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 1:
        return (float(name.endswith("weight")) + 0.2 * rng.standard_normal(shape)).astype(np.float32)
    return (1.5 / np.sqrt(shape[-1]) * rng.standard_normal(shape)).astype(np.float32)


def described():
    """{model: {"config": …, "tensors": {name: shape}}} as transformers has them."""
    return json.loads((DATA / "families.json").read_text())


def write(folder, model, shards=1):
    """A checkpoint as transformers would save it, with a tokenizer; returns the folder."""
    of = described()[model]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(of["config"]))
    tensors = {name: weights(name, shape) for name, shape in of["tensors"].items()}
    names = sorted(tensors)
    if shards == 1:
        safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    else:
        files = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
        for i, file in enumerate(files):
            safetensors.numpy.save_file({n: tensors[n] for n in names[i::shards]}, folder / file)
        placed = {n: files[i % shards] for i, n in enumerate(names)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    tokenizer(folder)
    return folder


def tokenizer(folder, vocab_size=300):
    """Byte-level BPE; with more entries than these models have, and so refused by them."""
    (folder / "tokenizer.json").write_text(train_tokenizer(["some text"], vocab_size).to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END_OF_TEXT}))
