"""Stage: which SAEs are compared: found by path or hub id, held to be of one model and layer.

dictionaries.json   the list that the measuring stages read, with a sha256 of every weights file
summary.json        what the SAEs' files do not tell, so that it could not be compared
eval/               of activations in a user's own arrays: where their rows lie, with checksums
"""

from typing import Any

from etils import epath

from activations.store import ActivationStore
from launch import dictionary_list, own_arrays, sae_paths, sources
from launch.sae_paths import Found
from saes.formats.provenance import SAE, Provenance, differences, known
from storage import files


def inputs(config: Any) -> dict[str, str]:
    if hasattr(config, "newcomer_paths"):  # refused before anything is measured
        bank = [sae for text in config.paths for sae in sae_paths.find(text)]
        newcomers = [sae for text in config.newcomer_paths for sae in sae_paths.find(text, "newcomers")]
        sae_paths.refuse_newcomers(bank, newcomers, config.ignore_names)
    found = {f"{sae.path}": "".join(_sums(sae).values()) for text in config.paths for sae in sae_paths.find(text)}
    return found | _of_list(config) | sources.evaluation_digest(config)


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    folder = workdir / "collect"
    saes = [sae for text in config.paths for sae in sae_paths.find(text)]
    sae_paths.refuse_strangers(saes, config.ignore_names)
    if config.source.activations:
        sae_paths.refuse_transcoders(saes)
    entries = [
        {"seed": seed, "path": str(sae.path), "format": sae.format, "name": sae.name, "sha256": _sums(sae)}
        | ({} if sae.told.kind == SAE else {"transcoder": True})
        for seed, sae in zip(sae_paths.seeds(saes), saes, strict=True)
    ]
    first = next((sae.told for sae in saes if sae.told.model), saes[0].told)
    hook = {"path": first.model, "layer": first.layer, "site": first.input} | ({"revision": first.revision} if first.revision else {})
    store = _store(config)
    if store is not None and not config.ignore_names:
        _refuse_other_activations(config, store, saes)
    training, snapshots = _of_our_own(config)
    dictionary_list.write(folder / dictionary_list.NAME, hook, training, entries, snapshots)
    loaded = dictionary_list.load(folder / dictionary_list.NAME)  # what cannot be read or compared is refused here
    for sae in saes:
        print(f"collect: {sae.name} ({sae.format})")
    remarks = sae_paths.remarks(saes) + _unknown_of_store(store)
    for remark in remarks:
        print(f"collect: {remark}")
    files.write_json(folder / "summary.json", {"not_compared": remarks})
    return [
        folder / dictionary_list.NAME,
        folder / "summary.json",
        *_own_activations(config.source, folder, loaded.dictionaries[0].w_dec_FD.shape[1]),
    ]


def _own_activations(source: Any, folder: epath.Path, width: int) -> list[epath.Path]:
    """A user's arrays made readable, if such are given."""
    if not source.activations or own_arrays.is_store(source.activations):
        return []
    return own_arrays.take_in_for_evaluation(source.activations, source.eval_tokens, folder, width)


def _store(config: Any) -> Provenance | None:
    """Where the activations of a store are from, None without one."""
    if not own_arrays.is_store(config.source.activations):
        return None
    return dictionary_list.provenance(ActivationStore(config.source.activations).manifest.get("hook", {}))


def _refuse_other_activations(config: Any, store: Provenance, saes: list[Found]) -> None:
    """Raises ValueError naming the store that tells of another model, layer or site than an SAE does."""
    for sae in saes:
        for what, theirs, ours in differences(store, sae.told, one_format=False)[:1]:
            raise ValueError(
                f"config.source.activations: {config.source.activations} holds {what} {theirs!r}, {sae.name} is of {what} {ours!r} "
                "(--config.ignore_names=True if only their names differ)"
            )


def _unknown_of_store(store: Provenance | None) -> list[str]:
    return (
        []
        if store is None
        else [f"{field} of the activations unknown" for field in ("model", "layer", "site") if not known(getattr(store, field))]
    )


def _list(config: Any) -> epath.Path | None:
    """The list of ours that alone is named, if so."""
    place = epath.Path(config.paths[0])
    place = place / dictionary_list.NAME if place.is_dir() else place
    return place if len(config.paths) == 1 and place.exists() and place.name.endswith(".json") else None


def _of_list(config: Any) -> dict[str, str]:
    """Digests of a list of ours and of the dictionaries along training that it names."""
    place = _list(config)
    if place is None:
        return {}
    listed = [place, *(place.parent / p for s in dictionary_list.read(place).get("snapshots", []) for p in s["paths"])]
    return {str(p): files.sha256_file(p) for p in listed if p.exists()}


def _of_our_own(config: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a single list of ours tells of training, with the dictionaries along it that are still there."""
    place = _list(config)
    if place is None:
        return {}, []
    listing = dictionary_list.read(place)
    if any(entry.get("frozen_at_step") is not None for entry in listing["dictionaries"]):
        return listing.get("training", {}), []
    snapshots = []
    for s in listing.get("snapshots", []):
        paths = [(place.parent / p).resolve() for p in s["paths"]]
        if all(p.exists() for p in paths):
            snapshots.append({"tokens": s["tokens"], "paths": list(map(str, paths)), "sha256": [files.sha256_file(p) for p in paths]})
    return listing.get("training", {}), snapshots


def _sums(sae: Found) -> dict[str, str]:
    return {p.name: files.sha256_file(p) for p in sae.files()}
