"""`dictionaries.json`: which SAEs belong together, of which hook, in which format. The only door to the measuring stages."""

from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from saes.dictionary import Dictionary
from saes.formats import saelens, stacked
from storage import files

FORMAT = "sae-stability dictionaries 1"
_LOADERS = {"saelens": lambda path: saelens.load(path)[0]}
_WEIGHTS = {"saelens": saelens.WEIGHTS}


class DictionaryList(NamedTuple):
    """SAEs of one hook.

    Attributes:
      seeds: what tells them apart, in the order of the leading axis.
      dictionaries: leaves (S, …).
      hook: model, layer and site.
      frozen: seeds left out, since their training was not finite.
      lanes: place of each of `seeds` in the snapshots, which hold the frozen ones too.
      snapshots: (training tokens, path of a stacked file) in order; may be empty.
    """

    seeds: tuple[int, ...]
    dictionaries: Dictionary
    hook: dict[str, Any]
    frozen: tuple[int, ...]
    lanes: tuple[int, ...]
    snapshots: list[tuple[int, epath.Path]]

    def snapshot(self, path: epath.Path) -> Dictionary:
        """The dictionaries of `seeds` as they were then."""
        return jax.tree.map(lambda a: a[np.asarray(self.lanes)], stacked.load(path))


def write(path: epath.Path, hook: dict[str, Any], entries: list[dict[str, Any]], snapshots: list[dict[str, Any]]) -> None:
    """Writes the list; paths in `entries` ({seed, path, format}) and `snapshots` ({tokens, path}) are relative to it."""
    files.write_json(path, {"format": FORMAT, "hook": hook, "dictionaries": entries, "snapshots": snapshots})


def place(dictionaries: str, workdir: epath.Path) -> epath.Path:
    """The list to read: the one named by `config.stability.dictionaries`, or what the `train` stage wrote."""
    return epath.Path(dictionaries) if dictionaries else workdir / "train" / "dictionaries.json"


def digest(dictionaries: str) -> dict[str, str]:
    """Checksums of a list from elsewhere and of the weights it names; empty for the `train` stage's own."""
    if not dictionaries:
        return {}
    path = epath.Path(dictionaries)
    entries = _read(path)["dictionaries"]
    weights = {str(e["path"]): files.sha256_file(path.parent / e["path"] / _WEIGHTS[e["format"]]) for e in entries}
    return {str(path): files.sha256_file(path), **weights}


def load(path: epath.Path) -> DictionaryList:
    """Reads the list and the dictionaries in it; frozen seeds are left out with a line that says so.

    Raises:
      FileNotFoundError, ValueError: a file that is missing, damaged or foreign, shapes that differ, fewer than two SAEs.
    """
    listing = _read(path)
    loaded: dict[int, Dictionary] = {}
    frozen, lanes = [], []
    for lane, entry in enumerate(listing["dictionaries"]):
        if entry.get("frozen_at_step") is not None:
            print(f"seed {entry['seed']} left out: not finite at step {entry['frozen_at_step']} of its training")
            frozen.append(entry["seed"])
            continue
        loaded[entry["seed"]] = _LOADERS[entry["format"]](path.parent / entry["path"])
        lanes.append(lane)
    if len(loaded) < 2:
        raise ValueError(f"{path} lists {len(loaded)} usable SAE: stability compares at least 2")
    first = next(iter(loaded.values()))
    for seed, dictionary in loaded.items():
        if dictionary.w_dec_FD.shape != first.w_dec_FD.shape or dictionary.k != first.k:
            shapes = f"{dictionary.w_dec_FD.shape}, k={dictionary.k} against {first.w_dec_FD.shape}, k={first.k}"
            raise ValueError(f"{path}: seed {seed} has another shape ({shapes}); all SAEs compared must have the same")
    dictionaries = jax.tree.map(lambda *leaves: np.stack(leaves), *loaded.values())
    snapshots = [(s["tokens"], path.parent / s["path"]) for s in listing.get("snapshots", [])]
    return DictionaryList(tuple(loaded), dictionaries, listing["hook"], tuple(frozen), tuple(lanes), snapshots)


def _read(path: epath.Path) -> dict[str, Any]:
    """The list, with what must be in it."""
    if not path.exists():
        raise FileNotFoundError(f"no list of dictionaries at {path}")
    listing = files.read_json(path)
    if not isinstance(listing, dict) or listing.get("format") != FORMAT:
        raise ValueError(f"{path} is no list of dictionaries: its format must be {FORMAT!r}")
    for key in ("hook", "dictionaries"):
        if key not in listing:
            raise ValueError(f"{path} lacks {key!r}")
    seeds = []
    for i, entry in enumerate(listing["dictionaries"]):
        if missing := {"seed", "path", "format"} - entry.keys():
            raise ValueError(f"{path}: entry {i} of 'dictionaries' lacks {sorted(missing)}")
        if entry["format"] not in _LOADERS:
            raise ValueError(f"{path}: format {entry['format']!r} of seed {entry['seed']}, one of {sorted(_LOADERS)}")
        seeds.append(entry["seed"])
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"{path}: a seed is listed twice ({seeds})")
    return listing
