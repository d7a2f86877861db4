"""Language models in Hugging Face layout, by path or hub id: found, read onto devices, written.

Weights are safetensors, one file or a sharded index; nothing is unpickled and no code from a model's folder is run.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import tokenizers
from etils import epath

from activations.language_model import families, layout
from activations.language_model.block import Params
from activations.language_model.config import DecoderConfig
from activations.language_model.parameters import shapes
from activations.language_model.placement import Placement
from activations.text.tokenizer import END_OF_TEXT
from storage import files, hub
from storage.memory_map import memory_map
from storage.tensors import loads

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_FETCHED = (CONFIG, "model*.safetensors", INDEX, *_TOKENIZER)
_LONGEST_HEADER = 10**8  # bytes, safetensors' own limit
_LAYOUT = "lm.path must name a folder in Hugging Face layout, or a hub id"


def locate(path: str, revision: str = "", only_config: bool = False) -> epath.Path:
    """The folder of a model: `path` itself if it is there, else a hub id, fetched at `revision`.

    Args:
      only_config: no weights are fetched.

    Raises:
      FileNotFoundError: neither a folder nor a hub id.
      ValueError: the hub cannot be reached or does not have it.
    """
    folder = epath.Path(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"config.lm.path: {folder} is a file: name the folder that holds it")
    if folder.exists():
        return folder
    if not hub.could_be_id(path):
        raise FileNotFoundError(f"config.lm.path: nothing at {path}: {_LAYOUT}")
    return hub.fetch(path, revision, (CONFIG,) if only_config else _FETCHED, "lm.path")


def load_config(folder: epath.PathLike) -> DecoderConfig:
    """Reads `config.json` through transformers' AutoConfig, which knows what fields that are not there mean.

    Where weights are in `folder` that hold no head, as AutoModel's save_pretrained writes them, `head` is "none".

    Raises:
      FileNotFoundError: no `config.json` in `folder`.
      ValueError: one that is damaged, or of a family, rotary kind or activation that is not supported.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would say that there is no torch, which is so by design
    import transformers  # slow to import, and needed here alone

    folder = epath.Path(folder)
    if not (folder / CONFIG).exists():
        raise FileNotFoundError(f"no {CONFIG} in {folder}: {_LAYOUT}")
    raw = said = files.read_json(folder / CONFIG)
    known = isinstance(raw, dict) and str(raw.get("model_type")) in {*families.FAMILIES, "gemma3"}
    try:
        if known:
            raw = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False).to_dict()
    except Exception as error:  # it raises many kinds for a config that is not as its family's are
        raise ValueError(f"{folder / CONFIG} cannot be read{_blamed(said, str(error))}: fetch it again") from error
    try:
        config = families.config_from_dict(raw if isinstance(raw, dict) else {})
    except ValueError as error:
        raise ValueError(f"config.lm.path: {folder}: {error}") from error
    names = _tensor_names(folder)
    wanted = layout.head_names(config)
    if names and wanted and not wanted & {layout.LAYOUTS[config.family].known_as(name) for name in names}:
        return dataclasses.replace(config, head="none")
    return config


def _blamed(raw: dict[str, Any], message: str) -> str:
    """The field that transformers' message names, and what the file says there; "" where it names none."""
    named = re.search(r"[Ff]ield '(\w+)'", message)
    return f": {named[1]} is {json.dumps(raw[named[1]])[:80]}" if named and named[1] in raw else " by transformers"


def _tensor_names(folder: epath.Path) -> set[str]:
    """Names of all tensors, from headers alone; none where there are no weights, or damaged ones, which `load_params` refuses."""
    try:
        if not (folder / WEIGHTS).exists():
            return set(_placed(folder)) if (folder / INDEX).exists() else set()
        with (folder / WEIGHTS).open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            return set(json.loads(f.read(length))) if length < _LONGEST_HEADER else set()
    except (ValueError, RecursionError, TypeError):
        return set()


def load_params(folder: epath.PathLike, config: DecoderConfig, dtype: Any = jnp.float32, placement: Placement | None = None) -> Params:
    """Reads a checkpoint's weights as a stacked pytree, each device only what it will hold.

    Args:
      dtype: of the parameters on the devices, float32 or bfloat16.
      placement: where they go; None: all on the first device.

    Raises:
      FileNotFoundError: no safetensors file, or one that the index names is missing.
      ValueError: a file that is truncated or not safetensors; a tensor missing, unknown, of a wrong shape, or not finite.
    """
    source = str(epath.Path(folder))
    checkpoint = layout.Checkpoint(open_tensors(folder), config, source)
    placement = placement or Placement.one_device()

    def load(path: tuple[str, ...], shape: tuple[int, ...]) -> jax.Array:
        read = lambda index: checkpoint.read(path, index, np.dtype(dtype))
        return jax.make_array_from_callback(shape, placement.of(path, shape), read)

    params = map_leaves(load, shapes(config))
    good = jax.device_get(_finite(params))
    map_leaves(lambda path, ok: None if ok else _refuse_not_finite(checkpoint, path, source), good)
    return params


def open_tensors(folder: epath.PathLike) -> Mapping[str, np.ndarray]:
    """All tensors of `model.safetensors`, or of the files that `model.safetensors.index.json` names; mapped, not read."""
    folder = epath.Path(folder)
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        if not (folder / WEIGHTS).exists():
            pickled = " (pickled weights there are never loaded: convert them with transformers' save_pretrained)"
            there = pickled if (folder / "pytorch_model.bin").exists() else ""
            raise FileNotFoundError(f"no {WEIGHTS} in {folder}{there}: {_LAYOUT}")
        return _open(folder / WEIGHTS)
    wanted = _placed(folder)
    of_file: dict[str, dict[str, np.ndarray]] = {}
    for name in sorted(set(wanted.values())):
        if name != os.path.basename(name) or not (folder / name).exists():
            raise FileNotFoundError(f"{folder} lacks {name}, which {INDEX} names: fetch it again")
        of_file[name] = _open(folder / name)
    for tensor, name in wanted.items():
        if tensor not in of_file[name]:
            raise ValueError(f"{folder / name} lacks {tensor!r}, which {INDEX} says is in it: fetch it again")
    return {tensor: of_file[name][tensor] for tensor, name in wanted.items()}


def save(folder: epath.PathLike, config: DecoderConfig, params: Params, tokenizer: tokenizers.Tokenizer) -> None:
    """Writes a GPT-NeoX that `transformers` loads: config, float32 weights and tokenizer."""
    folder = epath.Path(folder)
    files.write_json(folder / CONFIG, families.gpt_neox_to_dict(config))
    files.write_bytes(folder / WEIGHTS, safetensors.numpy.save(layout.to_tensors(params, config), metadata={"format": "pt"}))
    files.write_bytes(folder / "tokenizer.json", tokenizer.to_str(pretty=True).encode())
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    files.write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **special})


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which model it is.

    Attributes:
      digest: sha256 over config, weights and tokenizer: changes if anything changes that activations depend on.
      commit: of a hub's repository; "": a folder.
    """

    digest: str
    commit: str


def identity(folder: epath.PathLike) -> Identity:
    """Reads every file of the model once. Raises FileNotFoundError where config, weights or tokenizer are missing."""
    folder = epath.Path(folder)
    open_tensors(folder)  # what is missing is said as where it is read
    several = (folder / INDEX).exists() and not (folder / WEIGHTS).exists()
    weights = sorted(set(_placed(folder).values())) if several else [WEIGHTS]
    digest = hashlib.sha256()
    for name in (CONFIG, *weights, *_TOKENIZER):
        if (folder / name).exists():
            digest.update(f"{name} {files.sha256_file(folder / name)}\n".encode())
        elif name not in _TOKENIZER[1:]:
            raise FileNotFoundError(f"no {name} in {folder}: {_LAYOUT}")
    return Identity(digest.hexdigest(), hub.commit_of(folder))


def _placed(folder: epath.Path) -> dict[str, str]:
    """Tensor → file, as the index of a sharded checkpoint says."""
    index = files.read_json(folder / INDEX)
    wanted = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(wanted, dict) or not wanted:
        raise ValueError(f"{folder / INDEX} names no files: fetch it again")
    return wanted


def _open(path: epath.Path) -> dict[str, np.ndarray]:
    return memory_map(path) if os.path.exists(path) else loads(path.read_bytes(), str(path))


def map_leaves(fn: Any, tree: Any, path: tuple[str, ...] = ()) -> Any:
    """`fn` of the path and the value of every leaf."""
    if isinstance(tree, dict):
        return {name: map_leaves(fn, inner, (*path, name)) for name, inner in tree.items()}
    return fn(path, tree)


@jax.jit
def _finite(params: Params) -> Params:
    return jax.tree.map(lambda a: jnp.isfinite(a).all(), params)


def _refuse_not_finite(checkpoint: layout.Checkpoint, path: tuple[str, ...], source: str) -> None:
    for name in checkpoint.names(path):
        if not np.isfinite(checkpoint.tensor(name).astype(np.float64)).all():
            raise ValueError(f"{source}: {name} holds NaN or infinity: fetch or train it again")
    raise ValueError(f"{source}: {'.'.join(path)} is beyond what lm.dtype holds")
