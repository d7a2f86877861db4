"""Hugging Face's tensor names and layouts, both ways. The only place that knows them.

A leaf of our pytree is a view of one tensor of a checkpoint: transposed, or one of the three parts of a fused projection.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from activations.language_model.config import DecoderConfig
from activations.language_model.parameters import shapes


@dataclasses.dataclass(frozen=True)
class Layout:
    """A family's checkpoint.

    Attributes:
      prefixes: what names may begin with; the first is what is written.
      layer: the beginning of a layer's names behind the prefix, with its number.
      of_layer, of_model: our module → theirs.
      head: our module → theirs, without prefix.
      aliases: (names of other versions as a pattern, the name here).
      fused: how q, k, v lie in one projection's outputs: head by head (q, k, v of a head together), side by side, or not at all.
      conv1d: our modules whose matrix lies (in, out), as transformers' Conv1D stores it; all others are Linear, (out, in).
    """

    prefixes: tuple[str, ...]
    layer: str
    of_layer: dict[str, str]
    of_model: dict[str, str]
    head: dict[str, str]
    aliases: tuple[tuple[str, str], ...] = ()
    fused: Literal["by head", "side by side", ""] = ""
    conv1d: tuple[str, ...] = ()

    def turned(self, module: str, leaf: str) -> bool:
        """Whether a tensor is the transpose of ours, which is (in, out): the matrices of Linear modules."""
        return leaf == "w" and module in _MATRICES and module not in self.conv1d

    def known_as(self, name: str) -> str:
        """A tensor's name here."""
        for pattern, ours in self.aliases:
            name = re.sub(pattern, ours, name)
        return name


_LLAMA_LAYER = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_SANDWICH = {
    "attention_out_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_out_norm": "post_feedforward_layernorm",
}
_LLAMA = Layout(
    ("model.", ""), "layers.{}.", _LLAMA_LAYER, {"embed": "embed_tokens", "final_norm": "norm"}, {"unembed": "lm_head"}
)  # fmt: skip
_GEMMA = dataclasses.replace(
    _LLAMA, prefixes=("model.", "", "model.language_model.", "language_model.model."), of_layer=_LLAMA_LAYER | _SANDWICH
)  # fmt: skip
LAYOUTS = {
    "gpt2": Layout(
        ("transformer.", ""),
        "h.{}.",
        {"attention_norm": "ln_1", "mlp_norm": "ln_2", "qkv": "attn.c_attn", "o": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"},
        {"embed": "wte", "positions": "wpe", "final_norm": "ln_f"},
        {"unembed": "lm_head"},
        fused="side by side",
        conv1d=("qkv", "o", "up", "down"),
    ),
    "gpt_neox": Layout(
        ("gpt_neox.", ""),
        "layers.{}.",
        {
            "attention_norm": "input_layernorm",
            "mlp_norm": "post_attention_layernorm",
            "qkv": "attention.query_key_value",
            "o": "attention.dense",
            "up": "mlp.dense_h_to_4h",
            "down": "mlp.dense_4h_to_h",
        },
        {"embed": "embed_in", "final_norm": "final_layer_norm"},
        {"unembed": "embed_out"},
        aliases=((r"^lm_head\.", "embed_out."),),  # transformers 5
        fused="by head",
    ),
    "bert": Layout(
        ("bert.", ""),
        "encoder.layer.{}.",
        {
            "q": "attention.self.query",
            "k": "attention.self.key",
            "v": "attention.self.value",
            "o": "attention.output.dense",
            "attention_norm": "attention.output.LayerNorm",
            "up": "intermediate.dense",
            "down": "output.dense",
            "mlp_norm": "output.LayerNorm",
        },
        {
            "embed": "embeddings.word_embeddings",
            "positions": "embeddings.position_embeddings",
            "token_types": "embeddings.token_type_embeddings",
            "embed_norm": "embeddings.LayerNorm",
        },
        {
            "head_dense": "cls.predictions.transform.dense",
            "head_norm": "cls.predictions.transform.LayerNorm",
            "head_bias": "cls.predictions",
        },
        aliases=((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),  # converted from TensorFlow
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
}

# What checkpoints hold beside the model: buffers of older versions, heads for other ends, the eyes of multimodal ones.
_IGNORED = re.compile(
    r"(.*\.)?(attn|attention)\.(masked_)?bias|.*rotary_emb\.inv_freq|.*embeddings\.position_ids|(bert\.)?pooler\..*|cls\.seq_relationship\..*"
    r"|cls\.predictions\.decoder\..*|language_model\.lm_head\.weight|(model\.)?(vision_tower|multi_modal_projector|vision_model)\..*"
)
_MATRICES = ("q", "k", "v", "qkv", "o", "gate", "up", "down", "unembed", "head_dense")


class Checkpoint:
    """The tensors of a checkpoint, seen as leaves of our pytree.

    Args:
      tensors: name → array; views of memory maps are read only where they are asked for.
      config: of the model.
      source: what messages call it.

    Raises:
      ValueError: a tensor is missing, unknown, or of a wrong shape; names it.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], config: DecoderConfig, source: str):
        self._config, self._layout, self._source = config, LAYOUTS[config.family], source
        self._tensors: dict[str, np.ndarray] = {}
        for name, tensor in tensors.items():
            if (ours := self._layout.known_as(name)) in self._tensors:
                raise ValueError(f"{source} holds {name} and {ours}, two names of one tensor: take out one of them")
            self._tensors[ours] = tensor
        embed = self._layout.of_model["embed"]
        self._prefix = next((p for p in self._layout.prefixes if f"{p}{embed}.weight" in self._tensors), self._layout.prefixes[0])
        self._check()

    def read(self, path: tuple[str, ...], index: tuple[slice, ...], dtype: Any) -> np.ndarray:
        """A part of a leaf."""
        if path[0] != "layers":
            return np.ascontiguousarray(self._view(path[0], path[1], None)[index], dtype)
        layers = range(*index[0].indices(self._config.n_layers))
        parts = [self._view(path[1], path[2], i)[index[1:]] for i in layers]
        out = np.empty((len(parts), *parts[0].shape), dtype)
        for i, part in enumerate(parts):
            out[i] = part
        return out

    def names(self, path: tuple[str, ...]) -> list[str]:
        """The checkpoint's names of the tensors that a leaf is made of."""
        layers = range(self._config.n_layers) if path[0] == "layers" else [None]
        module, leaf = path[-2:]
        module = "qkv" if module in "qkv" and self._layout.fused else module
        return [self._name(module, leaf, i) for i in layers]

    def tensor(self, name: str) -> np.ndarray:
        """By the checkpoint's name of it."""
        return self._tensors[name]

    def _view(self, module: str, leaf: str, layer: int | None) -> np.ndarray:
        part = "qkv".index(module) if module in "qkv" and self._layout.fused else None
        tensor = self._tensors[self._name("qkv" if part is not None else module, leaf, layer)]
        if self._layout.turned("qkv" if part is not None else module, leaf):
            tensor = tensor.T
        return tensor if part is None else split(tensor, self._layout, self._config, part)

    def _name(self, module: str, leaf: str, layer: int | None) -> str:
        return name_of(self._layout, self._prefix, module, leaf, layer)

    def _check(self) -> None:
        expected = tensor_shapes(self._config, self._prefix)
        names = {n for n in self._tensors if not _IGNORED.fullmatch(n)}
        if self._config.tied_embeddings:
            names -= {f"{theirs}.weight" for theirs in self._layout.head.values()} - expected.keys()
        if self._config.head == "none":
            names = {n for n in names if not n.startswith("cls.")}
        if missing := expected.keys() - names:
            raise ValueError(f"{self._source} lacks {len(missing)} tensors of this config, first {min(missing)!r}: fetch it again")
        if extra := names - expected.keys():
            raise ValueError(
                f"{self._source} has {len(extra)} tensors unknown to a {self._config.family} model, first {min(extra)!r}: "
                "take the plain language model, without heads for other ends"
            )
        for name, shape in expected.items():
            if self._tensors[name].dtype.kind not in "fV":  # V: bfloat16
                raise ValueError(f"{self._source}: {name} holds {self._tensors[name].dtype}, not floats: take the plain checkpoint")
            if self._tensors[name].shape != shape:
                raise ValueError(f"{self._source}: {name} has shape {self._tensors[name].shape}, the config says {shape}: fetch both again")
        self._check_ties()

    def _check_ties(self) -> None:
        """A head of its own in a checkpoint whose config ties it: versions of transformers differ in which of the two they take."""
        if not self._config.tied_embeddings or self._config.head == "none":
            return
        embed = self._tensors[self._name("embed", "w", None)]
        twins = {
            name: embed for name in self._tensors if name.endswith(("lm_head.weight", "embed_out.weight", "cls.predictions.decoder.weight"))
        }
        if "cls.predictions.decoder.bias" in self._tensors:
            twins["cls.predictions.decoder.bias"] = self._tensors["cls.predictions.bias"]
        for name, twin in twins.items():
            if not np.array_equal(self._tensors[name], twin):
                raise ValueError(
                    f"{self._source}: {name} is not the embedding, to which the config ties it: set tie_word_embeddings in config.json as meant"
                )


def name_of(layout: Layout, prefix: str, module: str, leaf: str, layer: int | None) -> str:
    """A checkpoint's name of one tensor."""
    suffix = {"w": "weight", "b": "bias"}[leaf]
    if layer is not None:
        return f"{prefix}{layout.layer.format(layer)}{layout.of_layer[module]}.{suffix}"
    if module in layout.head:
        return f"{layout.head[module]}.{suffix}"
    return f"{prefix}{layout.of_model[module]}.{suffix}"


def head_names(config: DecoderConfig) -> set[str]:
    """A checkpoint's names of the tensors that are the model's head alone; none where it is the embedding."""
    layout, model = LAYOUTS[config.family], shapes(config)
    return {name_of(layout, "", module, leaf, None) for module in layout.head if module in model for leaf in model[module]}


def tensor_shapes(config: DecoderConfig, prefix: str) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor that a checkpoint of this config must hold."""
    layout, out = LAYOUTS[config.family], {}
    model = shapes(config)
    layer = model.pop("layers")
    if layout.fused:
        q, k, v = (layer.pop(name) for name in "qkv")
        layer["qkv"] = {leaf: (*q[leaf][:-1], q[leaf][-1] + k[leaf][-1] + v[leaf][-1]) for leaf in q}
    for i in [None, *range(config.n_layers)]:
        for module, leaves in (model if i is None else layer).items():
            for leaf, shape in leaves.items():
                shape = shape if i is None else shape[1:]
                out[name_of(layout, prefix, module, leaf, i)] = shape[::-1] if layout.turned(module, leaf) else shape
    return out


def split(fused: np.ndarray, layout: Layout, config: DecoderConfig, part: int) -> np.ndarray:
    """q, k or v of a fused projection: (…, 3·D) → (…, D)."""
    if layout.fused == "side by side":
        width = fused.shape[-1] // 3
        return fused[..., part * width : (part + 1) * width]
    heads = fused.reshape(*fused.shape[:-1], config.n_heads, 3, config.head_width)
    return heads[..., part, :].reshape(*fused.shape[:-1], -1)


def join(q: np.ndarray, k: np.ndarray, v: np.ndarray, layout: Layout, config: DecoderConfig) -> np.ndarray:
    """The inverse of `split`."""
    if layout.fused == "side by side":
        return np.concatenate([q, k, v], axis=-1)
    heads = [a.reshape(*a.shape[:-1], config.n_heads, 1, config.head_width) for a in (q, k, v)]
    return np.concatenate(heads, axis=-2).reshape(*q.shape[:-1], -1)


def to_tensors(params: Any, config: DecoderConfig) -> dict[str, np.ndarray]:
    """The checkpoint of a pytree; what `Checkpoint` reads back."""
    layout, out = LAYOUTS[config.family], {}
    prefix = layout.prefixes[0]
    for i in [None, *range(config.n_layers)]:
        one: dict[str, dict[str, np.ndarray]]
        if i is None:
            one = {name: {leaf: np.asarray(a) for leaf, a in module.items()} for name, module in params.items() if name != "layers"}
        else:
            one = {name: {leaf: np.asarray(a[i]) for leaf, a in module.items()} for name, module in params["layers"].items()}
            if layout.fused:
                q, k, v = (one.pop(name) for name in "qkv")
                one["qkv"] = {leaf: join(q[leaf], k[leaf], v[leaf], layout, config) for leaf in q}
        for module, leaves in one.items():
            for leaf, a in leaves.items():
                out[name_of(layout, prefix, module, leaf, i)] = np.ascontiguousarray(a.T if layout.turned(module, leaf) else a)
    return out
