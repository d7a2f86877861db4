"""`dictionaries.json`: which SAEs belong together, of which hook, in which format. The only door to the measuring stages."""

from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from launch import files
from saes.dictionary import Dictionary
from saes.formats import saelens, stacked

FORMAT = "sae-stability dictionaries 1"
_LOADERS = {"saelens": lambda path: saelens.load(path)[0]}


class DictionaryList(NamedTuple):
    """SAEs of one hook.

    Attributes:
      seeds: what tells them apart, in the order of the leading axis.
      dictionaries: leaves (S, …).
      hook: model, layer and site.
      snapshots: (training tokens, path of a stacked file) in order; may be empty.
    """

    seeds: tuple[int, ...]
    dictionaries: Dictionary
    hook: dict[str, Any]
    snapshots: list[tuple[int, epath.Path]]


def write(path: epath.Path, hook: dict[str, Any], entries: list[dict[str, Any]], snapshots: list[dict[str, Any]]) -> None:
    """Writes the list; paths in `entries` ({seed, path, format}) and `snapshots` ({tokens, path}) are relative to it."""
    files.write_json(path, {"format": FORMAT, "hook": hook, "dictionaries": entries, "snapshots": snapshots})


def load(path: epath.Path) -> DictionaryList:
    """Reads the list and the dictionaries in it; frozen seeds are left out with a line that says so.

    Raises:
      FileNotFoundError, ValueError: a file that is missing, damaged or foreign, shapes that differ, fewer than two SAEs.
    """
    listing = files.read_json(path)
    if listing.get("format") != FORMAT:
        raise ValueError(f"{path}: format {listing.get('format')!r}, expected {FORMAT!r}")
    loaded: dict[int, Dictionary] = {}
    for entry in listing["dictionaries"]:
        if entry["format"] not in _LOADERS:
            raise ValueError(f"{path}: format {entry['format']!r} of seed {entry['seed']}, one of {sorted(_LOADERS)}")
        if entry.get("frozen_at_step") is not None:
            print(f"seed {entry['seed']} left out: not finite at step {entry['frozen_at_step']} of its training")
            continue
        loaded[entry["seed"]] = _LOADERS[entry["format"]](path.parent / entry["path"])
    if len(loaded) < 2:
        raise ValueError(f"{path} lists {len(loaded)} usable SAE: stability compares at least 2")
    first = next(iter(loaded.values()))
    for seed, dictionary in loaded.items():
        if dictionary.w_dec_FD.shape != first.w_dec_FD.shape or dictionary.k != first.k:
            shapes = f"{dictionary.w_dec_FD.shape}, k={dictionary.k} against {first.w_dec_FD.shape}, k={first.k}"
            raise ValueError(f"{path}: seed {seed} has another shape ({shapes}); all SAEs compared must have the same")
    dictionaries = jax.tree.map(lambda *leaves: np.stack(leaves), *loaded.values())
    snapshots = [(s["tokens"], path.parent / s["path"]) for s in listing["snapshots"]]
    return DictionaryList(tuple(loaded), dictionaries, listing["hook"], snapshots)


def load_snapshot(path: epath.Path) -> Dictionary:
    return stacked.load(path)
