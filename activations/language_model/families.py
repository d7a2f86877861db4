"""Hugging Face configs → `DecoderConfig`, one translation per family. What a model has and this code has not is refused by name.

A field counts only in families whose model reads it in transformers (`_FIELDS`); in others it is ignored there, and so it is here.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from activations.language_model.config import DecoderConfig, Rotary

Raw = Mapping[str, Any]

# Names of transformers' ACT2FN whose formulas are among `block.ACTIVATIONS`.
_ACTIVATION_NAMES = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "gelu_accurate": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu", "relu2": "relu2", "silu": "silu",
    "swish": "silu",
}  # fmt: skip
_FULL, _SLIDING = "full_attention", "sliding_attention"
_MOST_LAYERS = 10_000  # more are a damaged number: names of all their tensors would be made

_COMMON = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
           "max_position_embeddings", "tie_word_embeddings")  # fmt: skip
_ROTARY = ("rope_parameters", "rope_scaling", "rope_theta")
_RMS = (*_COMMON, *_ROTARY, "num_key_value_heads", "head_dim", "rms_norm_eps")
_GEMMA = (*_RMS, "hidden_activation", "attention_bias", "layer_types", "sliding_window", "query_pre_attn_scalar", "final_logit_softcapping")
_FIELDS: dict[str, tuple[str, ...]] = {
    "gpt2": ("model_type", "vocab_size", "n_embd", "n_layer", "n_head", "n_inner", "n_positions", "activation_function", "layer_norm_epsilon",
             "tie_word_embeddings"),
    "gpt_neox": (*_COMMON, *_ROTARY, "hidden_act", "layer_norm_eps", "attention_bias", "use_parallel_residual", "rotary_emb_base", "rotary_pct"),
    "bert": (*_COMMON, "hidden_act", "layer_norm_eps", "type_vocab_size", "architectures"),
    "llama": (*_RMS, "hidden_act", "attention_bias", "mlp_bias"),
    "mistral": (*_RMS, "hidden_act", "sliding_window"),
    "qwen2": (*_RMS, "hidden_act", "layer_types", "sliding_window"),
    "qwen3": (*_RMS, "hidden_act", "attention_bias", "layer_types", "sliding_window"),
    "gemma2": (*_GEMMA, "attn_logit_softcapping"),
    "gemma3_text": (*_GEMMA, "rope_local_base_freq"),
}  # fmt: skip
# Values with which transformers computes something else, or the checkpoint holds other tensors, than this code knows.
_SUPPORTED: dict[str, dict[str, Any]] = {
    "gpt2": {"is_causal": True, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    "bert": {"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute", "tie_word_embeddings": True},
}


def config_from_dict(raw: Raw) -> DecoderConfig:
    """Translates the dictionary of a Hugging Face config (`AutoConfig(...).to_dict()`: raw files of old models lack fields).

    Raises:
      ValueError: a family, rotary kind, attention kind or activation that is not supported, or a field that is missing or of no
        possible value; names it.
    """
    if raw.get("model_type") == "gemma3" and isinstance(raw.get("text_config"), Mapping):
        inner = raw["text_config"]
        raw = {**inner, "tie_word_embeddings": raw.get("tie_word_embeddings", inner.get("tie_word_embeddings", True))}
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(f"model family {family!r} is not supported, only {', '.join(FAMILIES)}")
    if quantised := raw.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, Mapping) else quantised
        raise ValueError(f"quantised weights ({method}) are not supported: take the plain checkpoint")
    for field, kind in (("dual_chunk_attention_config", "dual chunk"), ("use_bidirectional_attention", "bidirectional")):
        if raw.get(field):
            raise ValueError(f"attention kind {kind!r} of {family} is not supported")
    if raw.get("per_layer_config"):
        raise ValueError(f"{family} models with per_layer_config are not supported: take one whose layers are all alike")
    for field, value in _SUPPORTED.get(family, {"is_causal": True}).items():
        if raw.get(field, value) != value:
            raise ValueError(f"{family} models with {field}={raw[field]!r} are not supported, only with {value!r}")
    return FAMILIES[family]({field: raw[field] for field in _FIELDS[family] if field in raw})


def _gpt2(raw: Raw) -> DecoderConfig:
    width, heads = _count(raw, "n_embd"), _count(raw, "n_head")
    return DecoderConfig(
        family="gpt2",
        vocab_size=_count(raw, "vocab_size"),
        width=width,
        n_layers=_count(raw, "n_layer", _MOST_LAYERS),
        n_heads=heads,
        n_kv_heads=heads,
        head_width=_divided(width, heads),
        mlp_width=4 * width if raw.get("n_inner") is None else _count(raw, "n_inner"),
        max_positions=_count(raw, "n_positions"),
        activation=_activation(raw, "activation_function"),
        norm_eps=_number(raw, "layer_norm_epsilon"),
        tied_embeddings=_flag(raw, "tie_word_embeddings", True),
    )


def _gpt_neox(raw: Raw) -> DecoderConfig:
    sizes, bias = _sizes(raw), _flag(raw, "attention_bias", True)
    return DecoderConfig(
        **sizes,
        activation=_activation(raw, "hidden_act"),
        norm_eps=_number(raw, "layer_norm_eps"),
        tied_embeddings=_flag(raw, "tie_word_embeddings", False),
        residual="parallel" if _flag(raw, "use_parallel_residual", True) else "pre",
        rotary=(_rotary(_rope(raw, "rotary_emb_base", raw.get("rotary_pct", 0.25)), sizes["head_width"], partial=True),),
        qkv_bias=bias,
        out_bias=bias,
    )


def _bert(raw: Raw) -> DecoderConfig:
    architectures = raw.get("architectures") or ()
    if not isinstance(architectures, list | tuple):
        raise ValueError(f"the config has architectures={architectures!r}, a list of names is wanted: fetch it again")
    masked = any(str(name).endswith(("ForMaskedLM", "ForPreTraining")) for name in architectures)
    return DecoderConfig(
        **_sizes(raw),
        activation=_activation(raw, "hidden_act"),
        norm_eps=_number(raw, "layer_norm_eps"),
        tied_embeddings=True,
        residual="post",
        causal=False,
        token_types=_count(raw, "type_vocab_size"),
        embed_norm=True,
        head="masked" if masked else "none",
    )


def _llama_like(raw: Raw) -> DecoderConfig:
    """Llama 2 and 3, Mistral, Qwen 2, 2.5 and 3, Gemma 2 and 3: RMS norms, rotary embeddings, gated MLPs, shared keys and values."""
    family = raw["model_type"]
    gemma = family.startswith("gemma")
    sizes = _sizes(raw)
    kinds = _layer_kinds(raw, sizes["n_layers"])
    rotary, layer_rotary = _rotary_kinds(raw, sizes["head_width"], kinds)
    attention_bias = True if family == "qwen2" else _flag(raw, "attention_bias", False)
    return DecoderConfig(
        **sizes,
        activation=_activation(raw, "hidden_activation" if gemma else "hidden_act"),
        norm="rms",
        norm_eps=_number(raw, "rms_norm_eps"),
        unit_offset=gemma,
        tied_embeddings=_flag(raw, "tie_word_embeddings", gemma),
        residual="sandwich" if gemma else "pre",
        qk_norm=family in ("qwen3", "gemma3_text"),
        rotary=rotary,
        layer_rotary=layer_rotary,
        layer_window=tuple(_count(raw, "sliding_window") if k == _SLIDING else 0 for k in kinds) if _SLIDING in kinds else (),
        attention_scale=_number(raw, "query_pre_attn_scalar") ** -0.5 if gemma else 0.0,
        attention_softcap=_cap(raw, "attn_logit_softcapping"),
        logit_softcap=_cap(raw, "final_logit_softcapping"),
        embed_scale=sizes["width"] ** 0.5 if gemma else 1.0,
        qkv_bias=attention_bias,
        out_bias=attention_bias and family != "qwen2",
        mlp_bias=_flag(raw, "mlp_bias", False),
        gated_mlp=True,
    )


FAMILIES: dict[str, Callable[[Raw], DecoderConfig]] = {
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "llama": _llama_like,
    "mistral": _llama_like,
    "qwen2": _llama_like,
    "qwen3": _llama_like,
    "gemma2": _llama_like,
    "gemma3_text": _llama_like,
    "bert": _bert,
}


def gpt_neox_to_dict(config: DecoderConfig) -> dict[str, Any]:
    """The `config.json` of a GPT-NeoX model, which is what this repository trains; inverse of `config_from_dict`."""
    if config.family != "gpt_neox":
        raise ValueError(f"only gpt_neox configs are written, not {config.family}")
    names = {v: k for k, v in reversed(_ACTIVATION_NAMES.items())}
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.max_positions,
        "hidden_act": names[config.activation],
        "layer_norm_eps": config.norm_eps,
        "rotary_pct": config.rotary[0].width / config.head_width,
        "rotary_emb_base": config.rotary[0].base,
        "use_parallel_residual": config.residual == "parallel",
        "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "float32",
    }


def _sizes(raw: Raw) -> dict[str, Any]:
    """What all families but GPT-2 call by the same names."""
    width, heads = _count(raw, "hidden_size"), _count(raw, "num_attention_heads")
    shared = heads if raw.get("num_key_value_heads") is None else _count(raw, "num_key_value_heads")
    if heads % shared:
        raise ValueError(f"the config's {heads} heads (num_attention_heads) are no multiple of its num_key_value_heads={shared}")
    return {
        "family": raw["model_type"],
        "vocab_size": _count(raw, "vocab_size"),
        "width": width,
        "n_layers": _count(raw, "num_hidden_layers", _MOST_LAYERS),
        "n_heads": heads,
        "n_kv_heads": shared,
        "head_width": _divided(width, heads) if raw.get("head_dim") is None else _count(raw, "head_dim"),
        "mlp_width": _count(raw, "intermediate_size"),
        "max_positions": _count(raw, "max_position_embeddings"),
    }


def _field(raw: Raw, field: str) -> Any:
    if field not in raw:
        raise ValueError(f"the config lacks {field!r}: fetch it again")
    return raw[field]


def _count(raw: Raw, field: str, most: int = 2**31 - 1) -> int:
    value = _field(raw, field)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"the config has {field}={value!r}, a whole number from 1 to {most:,} is wanted: fetch it again")
    return value


def _number(raw: Raw, field: str) -> float:
    value = _field(raw, field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"the config has {field}={value!r}, a positive number is wanted: fetch it again")
    return float(value)


def _flag(raw: Raw, field: str, default: bool) -> bool:
    value = raw.get(field, default)
    if value is None or isinstance(value, bool):
        return default if value is None else value
    raise ValueError(f"the config has {field}={value!r}, true or false is wanted: fetch it again")


def _cap(raw: Raw, field: str) -> float:
    return 0.0 if raw.get(field) is None else _number(raw, field)


def _activation(raw: Raw, field: str) -> Any:
    name = _field(raw, field)
    if not isinstance(name, str) or name not in _ACTIVATION_NAMES:
        raise ValueError(f"activation {name!r} ({field}) is not supported, only {', '.join(sorted(_ACTIVATION_NAMES))}")
    return _ACTIVATION_NAMES[name]


def _divided(width: int, heads: int) -> int:
    if width % heads:
        raise ValueError(f"the config's width {width} is no multiple of its {heads} heads")
    return width // heads


def _layer_kinds(raw: Raw, layers: int) -> list[str]:
    """The attention kind of every layer: of Mistral one for all, of Llama always full."""
    if "layer_types" not in _FIELDS[raw["model_type"]]:
        return [_FULL if raw.get("sliding_window") is None else _SLIDING] * layers
    kinds = raw.get("layer_types")
    if kinds is None:
        if raw.get("sliding_window"):
            raise ValueError(
                "the config has a sliding_window and does not say in which layers (layer_types): read it with transformers ≥ 4.56"
            )
        return [_FULL] * layers
    if not isinstance(kinds, list):
        raise ValueError(f"the config has layer_types={kinds!r}, a list with the attention kind of every layer is wanted: fetch it again")
    if unknown := [k for k in kinds if k not in (_FULL, _SLIDING)]:
        raise ValueError(f"attention kind {unknown[0]!r} is not supported, only {_FULL!r} and {_SLIDING!r}: take a model without it")
    if len(kinds) != layers or (_SLIDING in kinds and raw.get("sliding_window") is None):
        raise ValueError(f"the config names {len(kinds)} kinds of attention for {layers} layers, or a window without its size")
    return list(kinds)


def _rotary_kinds(raw: Raw, head_width: int, kinds: list[str]) -> tuple[tuple[Rotary, ...], tuple[int, ...]]:
    """The kinds of rotary embedding, and of every layer which: Gemma 3 has another where attention is local."""
    local = raw.get("rope_local_base_freq")  # transformers 4's name
    nested = raw["model_type"] == "gemma3_text"
    if nested and isinstance(raw.get("rope_parameters"), Mapping) and _FULL in raw["rope_parameters"]:
        ropes = [_field(raw["rope_parameters"], kind) for kind in (_FULL, _SLIDING)]
    elif nested and local is not None and not raw.get("rope_parameters"):
        ropes = [_rope(raw, "rope_theta"), {"rope_theta": local}]
    else:
        return (_rotary(_rope(raw, "rope_theta"), head_width),), ()
    return tuple(_rotary(r, head_width) for r in ropes), tuple(int(k == _SLIDING) for k in kinds)


def _rope(raw: Raw, base: str, share: Any = None) -> Any:
    """transformers 5's `rope_parameters`, or what version 4 says in several fields."""
    if raw.get("rope_parameters"):
        return raw["rope_parameters"]
    scaling = raw.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        return scaling
    partial = {} if share is None else {"partial_rotary_factor": share}
    return {"rope_theta": 10000.0 if raw.get(base) is None else raw[base], **partial, **scaling}


def _rotary(rope: Any, head_width: int, partial: bool = False) -> Rotary:
    """Of rope parameters. `partial`: the family's model rotates a share of every head; others rotate whole heads whatever the config says."""
    if not isinstance(rope, Mapping):
        raise ValueError(f"the config has rope parameters {rope!r}, an object is wanted: fetch it again")
    kind = rope.get("rope_type", rope.get("type", "default"))
    share = _number(rope, "partial_rotary_factor") if rope.get("partial_rotary_factor") is not None else 1.0
    if not partial:
        if share != 1.0 and kind != "default":
            raise ValueError(f"partial_rotary_factor={share} with rotary kind {kind!r} is not supported: this family rotates whole heads")
        share = 1.0
    width, base = int(head_width * share), _number(rope, "rope_theta")
    if not 2 <= width <= head_width or width % 2:
        raise ValueError(f"rotary embeddings of {width} of a head's {head_width} dimensions are not supported: an even number is wanted")
    if kind == "default":
        return Rotary(width, base)
    if kind == "linear":
        return Rotary(width, base, "linear", _number(rope, "factor"))
    if kind == "llama3":
        low, high = _number(rope, "low_freq_factor"), _number(rope, "high_freq_factor")
        if low == high:
            raise ValueError(f"the config has low_freq_factor = high_freq_factor = {low}: nothing lies between them: fetch it again")
        return Rotary(width, base, "llama3", _number(rope, "factor"), low, high, _count(rope, "original_max_position_embeddings"))
    raise ValueError(f"rotary kind {kind!r} is not supported, only 'default', 'linear' and 'llama3': take a model without it")
