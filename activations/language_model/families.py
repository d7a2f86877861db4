"""Hugging Face configs → `DecoderConfig`, one translation per family. What a model has and this code has not is refused by name."""

from collections.abc import Callable, Mapping
from typing import Any

from activations.language_model.config import DecoderConfig, Rotary

Raw = Mapping[str, Any]

_ACTIVATION_NAMES = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu",
}  # fmt: skip
_FULL, _SLIDING = "full_attention", "sliding_attention"


def config_from_dict(raw: Raw) -> DecoderConfig:
    """Translates the dictionary of a Hugging Face config (`AutoConfig(...).to_dict()`: raw files of old models lack fields).

    Raises:
      ValueError: a family, rotary kind, attention kind or activation that is not supported; names it.
    """
    if "text_config" in raw and raw.get("model_type") in ("gemma3",):
        raw = {**raw["text_config"], "tie_word_embeddings": raw["text_config"].get("tie_word_embeddings", True)}
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"model family {family!r} is not supported, only {', '.join(FAMILIES)}")
    if raw.get("quantization_config"):
        raise ValueError(
            f"quantised weights ({raw['quantization_config'].get('quant_method')}) are not supported: take the plain checkpoint"
        )
    try:
        return FAMILIES[family](raw)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the config of this {family} model cannot be read ({type(error).__name__}: {error}): fetch it again") from error


def _gpt2(raw: Raw) -> DecoderConfig:
    _refuse(raw, "gpt2", scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    width, heads = raw["n_embd"], raw["n_head"]
    return DecoderConfig(
        family="gpt2",
        vocab_size=raw["vocab_size"],
        width=width,
        n_layers=raw["n_layer"],
        n_heads=heads,
        n_kv_heads=heads,
        head_width=_divided(width, heads),
        mlp_width=raw.get("n_inner") or 4 * width,
        max_positions=raw["n_positions"],
        activation=_activation(raw["activation_function"]),
        norm_eps=raw["layer_norm_epsilon"],
        tied_embeddings=raw.get("tie_word_embeddings", True),
    )


def _gpt_neox(raw: Raw) -> DecoderConfig:
    sizes = _sizes(raw)
    bias = raw.get("attention_bias", True)
    return DecoderConfig(
        **sizes,
        activation=_activation(raw["hidden_act"]),
        norm_eps=raw["layer_norm_eps"],
        tied_embeddings=raw.get("tie_word_embeddings", False),
        residual="parallel" if raw.get("use_parallel_residual", True) else "pre",
        rotary=(_rotary(_rope(raw, raw.get("rotary_emb_base"), raw.get("rotary_pct", 0.25)), sizes["head_width"]),),
        qkv_bias=bias,
        out_bias=bias,
    )


def _bert(raw: Raw) -> DecoderConfig:
    _refuse(raw, "bert", is_decoder=False, add_cross_attention=False, position_embedding_type="absolute", tie_word_embeddings=True)
    masked = any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in raw.get("architectures") or ())
    return DecoderConfig(
        **_sizes(raw),
        activation=_activation(raw["hidden_act"]),
        norm_eps=raw["layer_norm_eps"],
        tied_embeddings=True,
        residual="post",
        causal=False,
        token_types=raw["type_vocab_size"],
        embed_norm=True,
        head="masked" if masked else "none",
    )


def _llama_like(raw: Raw) -> DecoderConfig:
    """Llama 2 and 3, Mistral, Qwen 2, 2.5 and 3, Gemma 2 and 3: RMS norms, rotary embeddings, gated MLPs, shared keys and values."""
    family = raw["model_type"]
    gemma = family.startswith("gemma")
    if raw.get("dual_chunk_attention_config"):
        raise ValueError(f"attention kind 'dual chunk' of {family} is not supported")
    if raw.get("use_bidirectional_attention"):
        raise ValueError(f"attention kind 'bidirectional' of {family} is not supported")
    sizes = _sizes(raw)
    kinds = _layer_kinds(raw, sizes["n_layers"])
    rotary, layer_rotary = _rotary_kinds(raw, sizes["head_width"], kinds)
    attention_bias = True if family == "qwen2" else bool(raw.get("attention_bias", False))
    return DecoderConfig(
        **sizes,
        activation=_activation(raw["hidden_activation"] if gemma else raw["hidden_act"]),
        norm="rms",
        norm_eps=raw["rms_norm_eps"],
        unit_offset=gemma,
        tied_embeddings=raw.get("tie_word_embeddings", gemma),
        residual="sandwich" if gemma else "pre",
        qk_norm=family in ("qwen3", "gemma3_text"),
        rotary=rotary,
        layer_rotary=layer_rotary,
        layer_window=tuple(raw["sliding_window"] if k == _SLIDING else 0 for k in kinds) if _SLIDING in kinds else (),
        attention_scale=raw["query_pre_attn_scalar"] ** -0.5 if gemma else 0.0,
        attention_softcap=raw.get("attn_logit_softcapping") or 0.0,
        logit_softcap=raw.get("final_logit_softcapping") or 0.0,
        embed_scale=sizes["width"] ** 0.5 if gemma else 1.0,
        qkv_bias=attention_bias,
        out_bias=attention_bias and family != "qwen2",
        mlp_bias=bool(raw.get("mlp_bias", False)),
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
    width, heads = raw["hidden_size"], raw["num_attention_heads"]
    return {
        "family": raw["model_type"],
        "vocab_size": raw["vocab_size"],
        "width": width,
        "n_layers": raw["num_hidden_layers"],
        "n_heads": heads,
        "n_kv_heads": raw.get("num_key_value_heads") or heads,
        "head_width": raw.get("head_dim") or _divided(width, heads),
        "mlp_width": raw["intermediate_size"],
        "max_positions": raw["max_position_embeddings"],
    }


def _refuse(raw: Raw, family: str, **supported: Any) -> None:
    for field, value in supported.items():
        if raw.get(field, value) != value:
            raise ValueError(f"{family} models with {field}={raw[field]!r} are not supported, only with {value!r}")


def _activation(name: str) -> Any:
    if name not in _ACTIVATION_NAMES:
        raise ValueError(f"activation {name!r} is not supported, only {', '.join(sorted(_ACTIVATION_NAMES))}")
    return _ACTIVATION_NAMES[name]


def _divided(width: int, heads: int) -> int:
    if width % heads:
        raise ValueError(f"the config's width {width} is no multiple of its {heads} heads")
    return width // heads


def _layer_kinds(raw: Raw, layers: int) -> list[str]:
    kinds = raw.get("layer_types")
    if kinds is None:  # of families that have one kind in all layers
        if raw.get("sliding_window") and raw["model_type"] != "mistral":
            raise ValueError(
                "the config has a sliding_window and does not say in which layers (layer_types): read it with transformers ≥ 4.56"
            )
        kinds = [_SLIDING if raw.get("sliding_window") else _FULL] * layers
    if unknown := sorted(set(kinds) - {_FULL, _SLIDING}):
        raise ValueError(f"attention kind {unknown[0]!r} is not supported, only {_FULL!r} and {_SLIDING!r}: take a model without it")
    if len(kinds) != layers or (_SLIDING in kinds and not raw.get("sliding_window")):
        raise ValueError(f"the config names {len(kinds)} kinds of attention for {layers} layers, or a window without its size")
    return list(kinds)


def _rotary_kinds(raw: Raw, head_width: int, kinds: list[str]) -> tuple[tuple[Rotary, ...], tuple[int, ...]]:
    """The kinds of rotary embedding, and of every layer which: Gemma 3 has another where attention is local."""
    found = raw.get("rope_parameters")
    local = raw.get("rope_local_base_freq")  # transformers 4's name
    if found and _FULL in found:
        ropes = [found[_FULL], found[_SLIDING]]
    elif local is not None and not found:
        ropes = [_rope(raw, raw.get("rope_theta"), 1.0), {"rope_theta": local}]
    else:
        return (_rotary(_rope(raw, raw.get("rope_theta"), raw.get("partial_rotary_factor", 1.0)), head_width),), ()
    return tuple(_rotary(r, head_width) for r in ropes), tuple(int(k == _SLIDING) for k in kinds)


def _rope(raw: Raw, base: float | None, share: float) -> dict[str, Any]:
    """transformers 5's `rope_parameters`, or what version 4 says in several fields."""
    return dict(
        raw.get("rope_parameters") or {"rope_theta": base or 10000.0, "partial_rotary_factor": share, **(raw.get("rope_scaling") or {})}
    )


def _rotary(rope: Mapping[str, Any], head_width: int) -> Rotary:
    kind = rope.get("rope_type", rope.get("type", "default"))
    width, base = int(head_width * rope.get("partial_rotary_factor", 1.0)), float(rope["rope_theta"])
    if kind == "default":
        return Rotary(width, base)
    if kind == "linear":
        return Rotary(width, base, "linear", float(rope["factor"]))
    if kind == "llama3":
        low, high, positions = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
        return Rotary(width, base, "llama3", float(rope["factor"]), float(low), float(high), int(positions))
    raise ValueError(f"rotary kind {kind!r} is not supported, only 'default', 'linear' and 'llama3': take a model without it")
