"""Stage: which SAEs are compared: found by path or hub id, held to be of one model and layer.

dictionaries.json   the list that the measuring stages read, with a sha256 of every weights file
"""

from typing import Any

from etils import epath

from launch import dictionary_list, sae_paths
from launch.sae_paths import Found
from storage import files


def inputs(config: Any) -> dict[str, str]:
    return {f"{sae.path}": "".join(_sums(sae).values()) for text in config.paths for sae in sae_paths.find(text)}


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    folder = workdir / "collect"
    saes = [sae for text in config.paths for sae in sae_paths.find(text)]
    sae_paths.refuse_strangers(saes, config.ignore_names)
    entries = [
        {"seed": seed, "path": str(sae.path), "format": sae.format, "name": sae.name, "sha256": _sums(sae)}
        for seed, sae in zip(sae_paths.seeds(saes), saes, strict=True)
    ]
    first = next((sae for sae in saes if sae.model), saes[0])
    hook = {"path": first.model, "layer": first.layer, "site": first.hook}
    training, snapshots = _of_our_own(config.paths)
    dictionary_list.write(folder / dictionary_list.NAME, hook, training, entries, snapshots)
    dictionary_list.load(folder / dictionary_list.NAME)  # what cannot be read or compared is refused here
    for sae in saes:
        print(f"collect: {sae.name} ({sae.format})")
    return [folder / dictionary_list.NAME]


def _of_our_own(paths: tuple[str, ...]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a single list of ours tells of training, with the dictionaries along it."""
    place = epath.Path(paths[0])
    place = place / dictionary_list.NAME if place.is_dir() else place
    if len(paths) != 1 or not place.exists():
        return {}, []
    listing = dictionary_list.read(place)
    if any(entry.get("frozen_at_step") is not None for entry in listing["dictionaries"]):
        return listing.get("training", {}), []
    absolute = lambda p: str((place.parent / p).resolve())
    snapshots = [{"tokens": s["tokens"], "paths": [absolute(p) for p in s["paths"]]} for s in listing.get("snapshots", [])]
    return listing.get("training", {}), snapshots


def _sums(sae: Found) -> dict[str, str]:
    return {p.name: files.sha256_file(p) for p in sae.weights()}
