"""SAEs named by path or hub id: what format they are in, of what model and layer, and whether they belong together."""

import functools
import re
from typing import Any, NamedTuple

from etils import epath

from experiments.data import dictionary_list
from saes.formats import dictionary_learning, gemma_scope, provenance, saelens, sparsify
from saes.formats.identity import Identity, identity, refuse_same_weights, same_decoder, same_weights
from saes.formats.provenance import Provenance
from storage import files, hub

# Files by which a folder is known, the first that are all there.
_KNOWN_BY = (
    ("saelens", (saelens.CONFIG, saelens.WEIGHTS)),
    ("sparsify", (sparsify.CONFIG, sparsify.WEIGHTS)),
    ("gemma_scope", (gemma_scope.NPZ,)),
    ("gemma_scope", ("config.json", gemma_scope.SAFETENSORS)),
    ("dictionary_learning", (dictionary_learning.WEIGHTS,)),
)
_OPTIONAL_FILES = {"dictionary_learning": (dictionary_learning.CONFIG,)}  # files of a format that need not be there
_FETCHED = ("cfg.json", "config.json", "*.safetensors", "params.npz", "ae.pt", dictionary_list.NAME)
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?P<below>(/[\w.=-]+)*)(@(?P<revision>[\w./-]+))?")


class SaeFolder(NamedTuple):
    """One SAE.

    Attributes:
      path: its folder, absolute.
      format: a key of `dictionary_list.READERS`.
      name: for people: what the user wrote, and the folder below it.
      provenance: what its files tell of where it is from.
    """

    path: epath.Path
    format: str
    name: str
    provenance: Provenance

    def files(self) -> list[epath.Path]:
        """Those that hold it. Raises FileNotFoundError where they are gone."""
        names = [names for kind, names in _KNOWN_BY if kind == self.format]
        there = [names_of for names_of in names if all((self.path / name).exists() for name in names_of)]
        if not there:
            raise FileNotFoundError(f"config.saes: {self.name} is not in {self.path}: no {' or '.join(', '.join(n) for n in names)} there")
        optional = [self.path / name for name in _OPTIONAL_FILES.get(self.format, ()) if (self.path / name).exists()]
        return sorted([*(self.path / name for name in there[0]), *optional])

    def told_by(self) -> dict[str, str]:
        """Checksums of files that are not the SAE's own and tell of its origin: of a run of sparsify, its `config.json`."""
        path = self.path.parent / "config.json"
        return {"../config.json": files.sha256_file(path)} if self.format == "sparsify" and path.exists() else {}

    def identity(self) -> Identity:
        """Of its weights. Raises what its reader does."""
        return _identity(self.format, str(self.path), tuple(files.sha256_file(p) for p in self.files()))


def find(text: str, field: str = "saes") -> list[SaeFolder]:
    """The SAEs at one path or hub id, given by `config.<field>`: a folder that holds one, or folders that do, or a `dictionaries.json`, or the
    cells of a sweep.

    Raises:
      FileNotFoundError, ValueError: nothing there that is an SAE, or a hub that cannot be reached; names the path.
    """
    place = _local(text, field)
    if not place.is_dir():
        if not place.name.endswith(".json"):
            raise ValueError(f"config.{field}: {text} is a file: name the folder that holds it")
        return _of_list(place, text)
    if _matching(place):
        return [_sae_in(place, text)]
    if (place / dictionary_list.NAME).exists():
        return _of_list(place / dictionary_list.NAME, text)
    folders = [p for p in sorted(place.iterdir(), key=_natural) if p.is_dir()]
    lists = [p / dictionary_list.NAME for p in folders if (p / dictionary_list.NAME).exists()]
    if lists:  # cells of a sweep or a grid
        return [sae for path in lists for sae in _of_list(path, f"{text}/{path.parent.name}")]
    sae_folders = [p for p in folders if _matching(p)]
    if not sae_folders:
        raise ValueError(
            f"config.{field}: {text}: no SAE there nor in the folders in it (looked for {', '.join(' with '.join(names) for _, names in _KNOWN_BY)} "
            f"and {dictionary_list.NAME})"
        )
    return [_sae_in(p, f"{text}/{p.name}") for p in sae_folders]


def refuse_strangers(saes: list[SaeFolder], ignore_names: bool) -> None:
    """Raises ValueError naming two SAEs that are the same, or that are told to be of another model, layer, site, head or kind."""
    if len(saes) < 2:
        names = ", ".join(f.name for f in saes) or "none"
        raise ValueError(f"config.saes holds {len(saes)} SAE ({names}): stability compares at least 2")
    by_path: dict[str, SaeFolder] = {}
    for sae in saes:
        if str(sae.path) in by_path:
            raise ValueError(f"config.saes: {sae.name} is given twice")
        by_path[str(sae.path)] = sae
    if not ignore_names:
        for i, sae in enumerate(saes):
            for other in saes[:i]:
                for what, theirs, ours in provenance.differences(other.provenance, sae.provenance, other.format == sae.format)[:1]:
                    raise ValueError(
                        f"config.saes: {other.name} is of {what} {theirs!r}, {sae.name} of {ours!r}: SAEs of "
                        f"different activations are not compared (--config.ignore_names=True if only their names differ)"
                    )
    refuse_same_weights([sae.identity() for sae in saes], [sae.name for sae in saes], "config.saes")


def refuse_query_saes(references: list[SaeFolder], query_saes: list[SaeFolder], ignore_names: bool) -> None:
    """Raises ValueError naming a query SAE that is among the reference SAEs, or of another model, layer or site, or for too few reference SAEs."""
    if len(references) < 4:
        raise ValueError(f"config.saes: {len(references)} reference SAEs, at least 4 are needed to learn from and to score predictions")
    identities = [(sae.identity(), sae.name) for sae in references]
    for sae in query_saes:
        for of_reference, name in identities:
            if same_weights(sae.identity(), of_reference):
                raise ValueError(f"config.query_saes: {sae.name} holds the same weights as the reference SAE {name}: leave one out")
    refuse_strangers(references + query_saes, ignore_names)


def refuse_transcoders(saes: list[SaeFolder]) -> None:
    """Raises ValueError naming the first of them that is no SAE: where there are activations, they are reconstructed."""
    for sae in saes:
        if sae.provenance.kind != provenance.SAE:
            raise ValueError(f"config.source.activations: {sae.name} is {provenance.refusal(sae.provenance)}")


def remarks(saes: list[SaeFolder]) -> list[str]:
    """What is not known of the SAEs, and decoders that two of them share: clauses for the run's output and the report."""
    out = provenance.remarks([sae.provenance for sae in saes], [sae.format for sae in saes])
    identities = [sae.identity() for sae in saes]
    for i, sae in enumerate(saes):
        out += [
            f"{sae.name} has the decoder rows of {saes[j].name}, with another encoder"
            for j in range(i)
            if same_decoder(identities[i], identities[j])
        ]
    return out


def seeds(saes: list[SaeFolder]) -> list[int]:
    """What tells them apart: their own seeds if each has one of its own, else their places."""
    own = [sae.provenance.seed for sae in saes if sae.provenance.seed is not None]
    return own if len(set(own)) == len(saes) else list(range(len(saes)))


def _local(text: str, field: str) -> epath.Path:
    """The folder or file itself, or that of a hub id once it is fetched."""
    place = epath.Path(text)
    if place.exists():
        return place.resolve()
    named = _HUB_ID.fullmatch(text)
    if not named or epath.Path(text.split("/")[0]).is_dir():  # what begins like a folder that is here is meant to be one
        raise FileNotFoundError(f"config.{field}: nothing at {text}, and it is no hub id (owner/name, with /folder and @revision)")
    subfolder = named["below"].strip("/")
    patterns = [f"{subfolder}/**/{name}".lstrip("/") for name in _FETCHED] + [f"{subfolder}/{name}".lstrip("/") for name in _FETCHED]
    fetched = hub.fetch(named["repo"], named["revision"], patterns, field)
    folder = fetched / subfolder
    if not folder.is_dir():
        raise FileNotFoundError(f"config.{field}: {named['repo']} holds no SAE in a folder {subfolder!r}")
    return folder


def _matching(folder: epath.Path) -> list[int]:
    return [i for i, (_, names) in enumerate(_KNOWN_BY) if all((folder / name).exists() for name in names)]


@functools.lru_cache(maxsize=4096)
def _identity(format_: str, path: str, sums: tuple[str, ...]) -> Identity:
    del sums  # of other weights under an old name
    return identity(dictionary_list.READERS[format_].load(path, decoder_alone=True)[0])


def _sae_in(folder: epath.Path, name: str) -> SaeFolder:
    kind = _KNOWN_BY[_matching(folder)[0]][0]
    return SaeFolder(folder, kind, name, _read_provenance(kind, folder))


def _read_provenance(kind: str, folder: epath.Path) -> Provenance:
    """By the SAE itself, its seed also by its folder's name."""
    named_seed = re.search(r"seed[-_]?(\d{1,18})$", folder.name)
    by_name = Provenance(seed=int(named_seed[1]) if named_seed else None)
    return provenance.completed(dictionary_list.READERS[kind].provenance(folder), by_name)


def _of_list(path: epath.Path, text: str) -> list[SaeFolder]:
    listing = dictionary_list.read(path)
    out = []
    for entry in listing["dictionaries"]:
        if entry.get("frozen_at_step") is None:
            folder = (path.parent / entry["path"]).resolve()
            # A list of SAEs from elsewhere has a record of each; its hook is that of the first which has one.
            origin = dictionary_list.provenance(listing["hook"])._replace(seed=entry["seed"]) if "sha256" not in entry else Provenance()
            origin = provenance.completed(_read_provenance(entry["format"], folder), origin)
            out.append(SaeFolder(folder, entry["format"], f"{text}: seed {entry['seed']}", origin._replace(seed=entry["seed"])))
    return out


def _natural(path: epath.Path) -> list[Any]:
    """seed-10 behind seed-9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]
