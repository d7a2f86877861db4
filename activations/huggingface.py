"""Language models in Hugging Face layout: `config.json`, `model.safetensors`, `tokenizer.json`, read and written.

The only place that knows Hugging Face's tensor names.  Nothing is unpickled and no code from a model's folder is run.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import tokenizers
from etils import epath

from activations.decoder import DecoderConfig, Params, init_params
from activations.tokenizer import END_OF_TEXT
from storage import files
from storage.tensors import loads

_ACTIVATION_NAMES = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu", "silu": "silu"}

# Our name of a module of one layer → (its name in the file, is it a linear map, which the file stores transposed).
_NEOX_LAYER = {
    "attention_norm": ("input_layernorm", False),
    "mlp_norm": ("post_attention_layernorm", False),
    "qkv": ("attention.query_key_value", True),
    "o": ("attention.dense", True),
    "up": ("mlp.dense_h_to_4h", True),
    "down": ("mlp.dense_4h_to_h", True),
}


def load_config(folder: epath.PathLike) -> DecoderConfig:
    """Reads `config.json` through transformers' AutoConfig.

    Raises:
      FileNotFoundError: no `config.json` in `folder`.
      ValueError: a family, rotary kind or activation that the decoder does not have.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would say that there is no torch, which is so by design
    import transformers  # slow to import, and needed here alone

    folder = epath.Path(folder)
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"no config.json in {folder}: lm.path must name a folder in Hugging Face layout")
    raw = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True).to_dict()
    return config_from_dict(raw)


def config_from_dict(raw: Mapping[str, Any]) -> DecoderConfig:
    """Translates the dictionary of a Hugging Face config; see `load_config`."""
    family = raw.get("model_type")
    if family != "gpt_neox":
        raise ValueError(f"model family {family!r} is not supported: lm.path must hold a gpt_neox model")
    rotary = raw.get("rope_parameters") or {
        "rope_theta": raw.get("rotary_emb_base", 10000.0),
        "partial_rotary_factor": raw.get("rotary_pct", 0.25),
        **(raw.get("rope_scaling") or {}),
    }
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind != "default":
        raise ValueError(f"rotary kind {kind!r} is not supported: only 'default' is")
    activation = raw["hidden_act"]
    if activation not in _ACTIVATION_NAMES:
        raise ValueError(f"activation {activation!r} is not supported: one of {sorted(_ACTIVATION_NAMES)}")
    head_width = raw["hidden_size"] // raw["num_attention_heads"]
    return DecoderConfig(
        family=family,
        vocab_size=raw["vocab_size"],
        width=raw["hidden_size"],
        n_layers=raw["num_hidden_layers"],
        n_heads=raw["num_attention_heads"],
        mlp_width=raw["intermediate_size"],
        max_positions=raw["max_position_embeddings"],
        activation=_ACTIVATION_NAMES[activation],  # type: ignore[arg-type]
        norm_eps=raw["layer_norm_eps"],
        rotary_width=int(head_width * rotary.get("partial_rotary_factor", 1.0)),
        rotary_base=float(rotary["rope_theta"]),
        parallel_residual=raw.get("use_parallel_residual", True),
        tied_embeddings=raw.get("tie_word_embeddings", False),
    )


def config_to_dict(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` of a GPT-NeoX model; inverse of `config_from_dict`."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.max_positions,
        "hidden_act": {v: k for k, v in reversed(_ACTIVATION_NAMES.items())}[config.activation],
        "layer_norm_eps": config.norm_eps,
        "rotary_pct": config.rotary_width / config.head_width,
        "rotary_emb_base": config.rotary_base,
        "use_parallel_residual": config.parallel_residual,
        "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "float32",
    }


def load_params(folder: epath.PathLike, config: DecoderConfig) -> Params:
    """Reads `model.safetensors` as a stacked float32 pytree.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file that is truncated or not safetensors, a tensor missing, unknown, of a wrong shape, or not finite.
    """
    path = epath.Path(folder) / "model.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"no model.safetensors in {folder}: lm.path must name a folder in Hugging Face layout")
    tensors = loads(path.read_bytes(), str(path))
    return params_from_tensors(tensors, config, source=str(path))


def params_from_tensors(tensors: Mapping[str, np.ndarray], config: DecoderConfig, source: str = "tensors") -> Params:
    """Stacks a GPT-NeoX state dict; see `load_params`."""
    expected = jax.eval_shape(lambda: params_to_tensors(init_params(jax.random.key(0), config), config))
    ignored = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")  # buffers of older checkpoints
    names = {name for name in tensors if not name.endswith(ignored)}
    if missing := expected.keys() - names:
        raise ValueError(f"{source} lacks {len(missing)} tensors of this config, first {min(missing)!r}")
    if extra := names - expected.keys():
        raise ValueError(f"{source} has {len(extra)} tensors unknown to this config, first {min(extra)!r}")
    for name, shape in expected.items():
        if tensors[name].shape != shape.shape:
            raise ValueError(f"{source}: {name} has shape {tensors[name].shape}, the config says {shape.shape}")
        if not np.isfinite(np.asarray(tensors[name], np.float32)).all():
            raise ValueError(f"{source}: {name} holds NaN or infinity: fetch or train it again")

    def module(name: str, linear: bool) -> Params:
        leaves = {"w": f"{name}.weight", "b": f"{name}.bias"}
        found = {ours: np.asarray(tensors[n], np.float32) for ours, n in leaves.items() if n in names}
        return {ours: a.T if linear and ours == "w" else a for ours, a in found.items()}

    def one_layer(i: int) -> Params:
        layer = {ours: module(f"gpt_neox.layers.{i}.{name}", linear) for ours, (name, linear) in _NEOX_LAYER.items()}
        heads = {ours: a.reshape(*a.shape[:-1], config.n_heads, 3, -1) for ours, a in layer.pop("qkv").items()}
        for j, ours in enumerate("qkv"):
            layer[ours] = {leaf: a[..., j, :].reshape(*a.shape[:-3], config.width) for leaf, a in heads.items()}
        return layer

    params: Params = {
        "embed": module("gpt_neox.embed_in", False),
        "layers": jax.tree.map(lambda *leaves: np.stack(leaves), *[one_layer(i) for i in range(config.n_layers)]),
        "final_norm": module("gpt_neox.final_layer_norm", False),
    }
    if not config.tied_embeddings:
        params["unembed"] = module("embed_out", True)
    return jax.tree.map(jnp.asarray, params)


def params_to_tensors(params: Params, config: DecoderConfig) -> dict[str, jax.Array]:
    """The GPT-NeoX state dict of a stacked pytree; inverse of `params_from_tensors`."""
    out = {"gpt_neox.embed_in.weight": params["embed"]["w"]}
    for i in range(config.n_layers):
        layer = {name: {leaf: a[i] for leaf, a in module.items()} for name, module in params["layers"].items()}
        layer["qkv"] = {}
        for leaf in ("w", "b"):
            heads = [layer[name][leaf].reshape(*layer[name][leaf].shape[:-1], config.n_heads, 1, -1) for name in "qkv"]
            layer["qkv"][leaf] = jnp.concatenate(heads, axis=-2).reshape(*layer["q"][leaf].shape[:-1], -1)
        for ours, (name, linear) in _NEOX_LAYER.items():
            out[f"gpt_neox.layers.{i}.{name}.weight"] = layer[ours]["w"].T if linear else layer[ours]["w"]
            out[f"gpt_neox.layers.{i}.{name}.bias"] = layer[ours]["b"]
    out["gpt_neox.final_layer_norm.weight"] = params["final_norm"]["w"]
    out["gpt_neox.final_layer_norm.bias"] = params["final_norm"]["b"]
    if not config.tied_embeddings:
        out["embed_out.weight"] = params["unembed"]["w"].T
    return out


def save(folder: epath.PathLike, config: DecoderConfig, params: Params, tokenizer: tokenizers.Tokenizer) -> None:
    """Writes a folder that `transformers` loads: config, float32 weights and tokenizer."""
    folder = epath.Path(folder)
    files.write_json(folder / "config.json", config_to_dict(config))
    tensors = {name: np.ascontiguousarray(a) for name, a in params_to_tensors(params, config).items()}
    files.write_bytes(folder / "model.safetensors", safetensors.numpy.save(tensors, metadata={"format": "pt"}))
    files.write_bytes(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    files.write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special})


def model_digest(folder: epath.PathLike) -> str:
    """sha256 over config, weights and tokenizer: changes if anything changes that activations depend on."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        path = epath.Path(folder) / name
        if not path.exists():
            raise FileNotFoundError(f"no {name} in {folder}: lm.path must name a folder in Hugging Face layout")
        digest.update(f"{name} {files.sha256_file(path)}\n".encode())
    return digest.hexdigest()
