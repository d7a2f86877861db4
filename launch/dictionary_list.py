"""`dictionaries.json`: which SAEs belong together, of which hook, in which format. The only door to the measuring stages."""

from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from saes.dictionary import Dictionary
from saes.formats import dictionary_learning, gemma_scope, saelens, sparsify, stacked
from saes.formats.checks import setting
from storage import files

FORMAT = "sae-stability dictionaries 2"
_READERS = {"saelens": saelens, "sparsify": sparsify, "gemma_scope": gemma_scope, "dictionary_learning": dictionary_learning}


class DictionaryList(NamedTuple):
    """SAEs of one hook.

    Attributes:
      seeds: what tells them apart, in the order of the leading axis.
      dictionaries: leaves (S, …).
      hook: model, layer and site.
      training: what is known of it (variant, k, tokens, what the SAEs differ in); may be empty.
      frozen: seeds left out, since their training was not finite.
      lanes: place of each of `seeds` in the snapshots, which hold the frozen ones too.
      snapshots: (training tokens, paths of stacked files, one behind the other along the seed axis) in order; may be empty.
    """

    seeds: tuple[int, ...]
    dictionaries: Dictionary
    hook: dict[str, Any]
    training: dict[str, Any]
    frozen: tuple[int, ...]
    lanes: tuple[int, ...]
    snapshots: list[tuple[int, list[epath.Path]]]

    def snapshot(self, paths: list[epath.Path]) -> Dictionary:
        """The dictionaries of `seeds` as they were then."""
        lanes = np.asarray(self.lanes)
        return jax.tree.map(lambda *leaves: np.concatenate(leaves)[lanes], *(stacked.load(path) for path in paths))


def write(
    path: epath.Path, hook: dict[str, Any], training: dict[str, Any], entries: list[dict[str, Any]], snapshots: list[dict[str, Any]]
) -> None:
    """Writes the list; paths in `entries` ({seed, path, format}) and `snapshots` ({tokens, paths}) are relative to it."""
    files.write_json(path, {"format": FORMAT, "hook": hook, "training": training, "dictionaries": entries, "snapshots": snapshots})


def place(dictionaries: str, workdir: epath.Path) -> epath.Path:
    """The list to read: the one named by `config.stability.dictionaries`, or what the `train` stage wrote."""
    return epath.Path(dictionaries) if dictionaries else workdir / "train" / "dictionaries.json"


def digest(dictionaries: str) -> dict[str, str]:
    """Checksums of a list from elsewhere and of the files of the SAEs it names; empty for the `train` stage's own."""
    if not dictionaries:
        return {}
    path = epath.Path(dictionaries)
    entries = _read(path)["dictionaries"]
    contents: dict[str, str] = {}
    for folder in (path.parent / e["path"] for e in entries):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}, which {path} lists")
        contents |= {str(p.relative_to(path.parent)): files.sha256_file(p) for p in sorted(folder.iterdir()) if not p.is_dir()}
    for snapshot in (path.parent / p for s in _read(path).get("snapshots", []) for p in s["paths"]):
        if snapshot.exists():
            contents[str(snapshot.relative_to(path.parent))] = files.sha256_file(snapshot)
    return {str(path): files.sha256_file(path), **contents}


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
        loaded[entry["seed"]] = _READERS[entry["format"]].load(path.parent / entry["path"])[0]
        lanes.append(lane)
    if len(loaded) < 2:
        raise ValueError(f"{path} lists {len(loaded)} usable SAE: stability compares at least 2")
    first = next(iter(loaded.values()))
    for seed, dictionary in loaded.items():
        if _kind(dictionary) != _kind(first):
            raise ValueError(
                f"{path}: seed {seed} has another shape ({_kind(dictionary)} against {_kind(first)}); all SAEs compared must have the same"
            )
    dictionaries = jax.tree.map(lambda *leaves: np.stack(leaves), *loaded.values())
    snapshots = [(s["tokens"], [path.parent / p for p in s["paths"]]) for s in listing.get("snapshots", [])]
    return DictionaryList(tuple(loaded), dictionaries, listing["hook"], listing.get("training", {}), tuple(frozen), tuple(lanes), snapshots)


def _kind(d: Dictionary) -> str:
    """What SAEs that are stacked must have in common."""
    of_k = f", k={d.k}" if d.architecture == "topk" else ""
    return f"{d.w_dec_FD.shape[0]} features of width {d.w_dec_FD.shape[1]}, {d.architecture}{of_k}" + (
        "" if d.subtract_b_dec else ", b_dec not subtracted"
    )


def _read(path: epath.Path) -> dict[str, Any]:
    """The list, with what must be in it."""
    if not path.exists():
        raise FileNotFoundError(f"no list of dictionaries at {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the list of dictionaries itself, a JSON file")
    listing = files.read_json(path)
    if not isinstance(listing, dict) or listing.get("format") != FORMAT:
        raise ValueError(f"{path} is no list of dictionaries: its format must be {FORMAT!r}")
    for key, kind in (("hook", dict), ("dictionaries", list)):
        if key not in listing:
            raise ValueError(f"{path} lacks {key!r}")
        setting(path, listing, key, kind)
    setting(path, listing, "training", dict, {})
    for snapshot in setting(path, listing, "snapshots", list, []):
        if not isinstance(snapshot, dict) or type(snapshot.get("tokens")) is not int or type(snapshot.get("paths")) is not list:
            raise ValueError(f"{path}: an entry of 'snapshots' lacks 'tokens' or 'paths'")
    seeds = []
    for i, entry in enumerate(listing["dictionaries"]):
        if not isinstance(entry, dict) or (missing := {"seed", "path", "format"} - entry.keys()):
            raise ValueError(f"{path}: entry {i} of 'dictionaries' lacks {sorted(missing) if isinstance(entry, dict) else 'an object'}")
        for name, type_ in {"seed": int, "path": str, "format": str}.items():
            setting(path, entry, name, type_)
        if entry["format"] not in _READERS:
            raise ValueError(f"{path}: format {entry['format']!r} of seed {entry['seed']}, one of {sorted(_READERS)}")
        seeds.append(entry["seed"])
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"{path}: a seed is listed twice ({seeds})")
    return listing
