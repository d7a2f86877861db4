"""Stage: which SAEs are compared: found by path or hub id, held to be of one model and layer.

dictionaries.json   the list that the measuring stages read, with a sha256 of every weights file
summary.json        what the SAEs' files do not tell, so that it could not be compared
eval/               of activations in a user's own arrays: where their rows lie, with checksums
"""

from typing import Any

from etils import epath

from activations.store import ActivationStore
from experiments.data import dictionary_list, own_arrays, sae_paths, sources
from experiments.data.own_arrays import OwnRows
from experiments.data.sae_paths import SaeFolder
from experiments.fields import check, config, field
from experiments.stage import Outputs, Stage, Task
from saes.formats.provenance import SAE, Provenance, differences, known
from storage import files


@config("")
class Compared:
    """SAEs that are there already."""

    saes: str = field(default="", doc="folders or hub ids (owner/name/folder@revision), with commas between them", path=True)
    ignore_names: bool = field(default=False, doc="True: compare also what metadata call different models or hooks")

    def check(self) -> None:
        check(bool(self.paths), "saes", self.saes, "--config.saes=path1,path2,… names folders or hub ids of SAEs")

    @property
    def paths(self) -> tuple[str, ...]:
        return split_paths(self.saes)


@config("")
class QuerySaes:
    """Query SAEs: their features are asked about; they are not among the compared ones."""

    query_saes: str = field(
        default="", doc="query SAEs, whose features are asked about: paths or hub ids with commas between them", path=True
    )

    def check(self) -> None:
        check(bool(self.paths), "query_saes", self.query_saes, "--config.query_saes=path names the SAE whose features are asked about")

    @property
    def paths(self) -> tuple[str, ...]:
        return split_paths(self.query_saes)


STAGE = Stage(config=Compared, reads=(OwnRows,), optional=(QuerySaes,), provides=("saes", "rows"))


def split_paths(text: str) -> tuple[str, ...]:
    return tuple(path for part in text.split(",") if (path := part.strip()))


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    external = task.settings.get(dictionary_list.External)
    check(
        external is None or not external.dictionaries,
        "stability.dictionaries",
        external and external.dictionaries,
        "config.saes takes its place here",
    )


def inputs(task: Task) -> dict[str, str]:
    c, query = task.section(Compared), task.maybe(QuerySaes)
    saes = compared_saes(c)
    if query is not None:  # refused before anything is measured
        sae_paths.refuse_query_saes(saes, query_saes(query), c.ignore_names)
    sums = {f"saes/{i} {sae.path.name}": "".join([*_sums(sae).values(), *sae.told_by().values()]) for i, sae in enumerate(saes)}
    return sums | _of_list(c) | sources.evaluation_digest(task)


def compared_saes(c: Compared) -> list[SaeFolder]:
    """The SAEs that a config names."""
    return [sae for text in c.paths for sae in sae_paths.find(text)]


def query_saes(c: QuerySaes) -> list[SaeFolder]:
    """The query SAEs."""
    return [sae for text in c.paths for sae in sae_paths.find(text, "query_saes")]


def run(task: Task, out: Outputs) -> None:
    c, own = task.section(Compared), task.section(OwnRows)
    saes = compared_saes(c)
    sae_paths.refuse_strangers(saes, c.ignore_names)
    if own.activations:
        sae_paths.refuse_transcoders(saes)
    entries = [
        {"seed": seed, "path": str(sae.path), "format": sae.format, "name": sae.name, "sha256": _sums(sae)}
        | ({} if sae.provenance.kind == SAE else {"transcoder": True})
        for seed, sae in zip(sae_paths.seeds(saes), saes, strict=True)
    ]
    first = next((sae.provenance for sae in saes if sae.provenance.model), saes[0].provenance)
    hook = {"path": first.model, "layer": first.layer, "site": first.input} | ({"revision": first.revision} if first.revision else {})
    store = _store(own)
    if store is not None and not c.ignore_names:
        _refuse_other_activations(own, store, saes)
    training, snapshots = _of_our_own(c)
    listing = task.folder / dictionary_list.NAME
    dictionary_list.write(listing, hook, training, entries, snapshots)
    out.add(listing)
    loaded = dictionary_list.load(listing)  # what cannot be read or compared is refused here
    for sae in saes:
        print(f"collect: {sae.name} ({sae.format})")
    remarks = sae_paths.remarks(saes) + _unknown_of_activations(own, store)
    for remark in remarks:
        print(f"collect: {remark}")
    out.summary({"not_compared": remarks})
    if own.activations and not own_arrays.is_store(own.activations):
        out.add(*own_arrays.take_in_for_evaluation(own.activations, own.eval_tokens, task.folder, loaded.dictionaries[0].w_dec_FD.shape[1]))


def _store(own: OwnRows) -> Provenance | None:
    """Where the activations of a store are from, None without one."""
    if not own_arrays.is_store(own.activations):
        return None
    return dictionary_list.provenance(ActivationStore(own.activations).manifest.get("hook", {}))


def _refuse_other_activations(own: OwnRows, store: Provenance, saes: list[SaeFolder]) -> None:
    """Raises ValueError naming the store that tells of another model, layer or site than an SAE does."""
    for sae in saes:
        for what, theirs, ours in differences(store, sae.provenance, one_format=False)[:1]:
            raise ValueError(
                f"config.source.activations: {own.activations} holds {what} {theirs!r}, {sae.name} is of {what} {ours!r} "
                "(--config.ignore_names=True if only their names differ)"
            )


def _unknown_of_activations(own: OwnRows, store: Provenance | None) -> list[str]:
    """What could not be held against the SAEs; plain arrays tell nothing of where they are from."""
    if not own.activations:
        return []
    origin = Provenance() if store is None else store
    return [f"{field} of the activations unknown" for field in ("model", "layer", "site") if not known(getattr(origin, field))]


def _list(c: Compared) -> epath.Path | None:
    """The list of ours that alone is named, if so."""
    place = epath.Path(c.paths[0])
    place = place / dictionary_list.NAME if place.is_dir() else place
    return place if len(c.paths) == 1 and place.exists() and place.name.endswith(".json") else None


def _of_list(c: Compared) -> dict[str, str]:
    """Digests of a list of ours and of the dictionaries along training that it names."""
    place = _list(c)
    if place is None:
        return {}
    paths = [place, *(place.parent / p for s in dictionary_list.read(place).get("snapshots", []) for p in s["paths"])]
    return {f"saes/list {i}": files.sha256_file(p) for i, p in enumerate(paths) if p.exists()}


def _of_our_own(c: Compared) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a single list of ours tells of training, with the dictionaries along it that are still there."""
    place = _list(c)
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


def _sums(sae: SaeFolder) -> dict[str, str]:
    return {p.name: files.sha256_file(p) for p in sae.files()}
