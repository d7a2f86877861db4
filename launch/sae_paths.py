"""SAEs named by path or hub id: what format they are in, of what model and layer, and whether they belong together."""

import re
from typing import Any, NamedTuple

from etils import epath

from launch import dictionary_list
from saes.formats import dictionary_learning, gemma_scope, saelens, sparsify
from storage import files, hub

# Files by which a folder is known, the first that are all there.
_KNOWN_BY = (
    ("saelens", (saelens.CONFIG, saelens.WEIGHTS)),
    ("sparsify", (sparsify.CONFIG, sparsify.WEIGHTS)),
    ("gemma_scope", (gemma_scope.NPZ,)),
    ("gemma_scope", ("config.json", gemma_scope.SAFETENSORS)),
    ("dictionary_learning", (dictionary_learning.WEIGHTS,)),
)
_HOOKPOINT = re.compile(r"(layers|h|transformer\.h|model\.layers|gpt_neox\.layers|blocks)\.\d+[\w.]*")  # sparsify's folders are named so
_GEMMA_SITE = re.compile(r"gemma-scope-\w+-(?:pt|it)-(?P<site>\w+)")
_FETCHED = ("cfg.json", "config.json", "*.safetensors", "params.npz", "ae.pt", dictionary_list.NAME)
_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?P<below>(/[\w.=-]+)*)(@(?P<revision>[\w./-]+))?")


class Found(NamedTuple):
    """One SAE.

    Attributes:
      path: its folder, absolute.
      format: a key of `dictionary_list.READERS`.
      name: for people: what the user wrote, and the folder below it.
      seed: that its metadata or its folder's name tell; None: neither.
      model, hook: as its metadata call them; "" where they do not.
    """

    path: epath.Path
    format: str
    name: str
    seed: int | None
    model: str
    hook: str

    @property
    def layer(self) -> int | None:
        """The first number in the hook's name."""
        number = re.search(r"\d+", self.hook)
        return int(number.group()) if number else None

    def files(self) -> list[epath.Path]:
        """Those that hold it. Raises FileNotFoundError where they are gone."""
        names = [names for kind, names in _KNOWN_BY if kind == self.format]
        there = [names_of for names_of in names if all((self.path / name).exists() for name in names_of)]
        if not there:
            raise FileNotFoundError(f"config.saes: {self.name} is not in {self.path}: no {' or '.join(', '.join(n) for n in names)} there")
        return sorted(self.path / name for name in there[0])


def find(text: str, field: str = "saes") -> list[Found]:
    """The SAEs at one path or hub id, given by `config.<field>`: a folder that holds one, or folders that do, or a `dictionaries.json`.

    Raises:
      FileNotFoundError, ValueError: nothing there that is an SAE, or a hub that cannot be reached; names the path.
    """
    place = _local(text, field)
    if not place.is_dir():
        if not place.name.endswith(".json"):
            raise ValueError(f"config.{field}: {text} is a file: name the folder that holds it")
        return _of_list(place, text)
    if _matching(place):
        return [_found(place, text)]
    if (place / dictionary_list.NAME).exists():
        return _of_list(place / dictionary_list.NAME, text)
    below = [p for p in sorted(place.iterdir(), key=_natural) if p.is_dir() and _matching(p)]
    if not below:
        raise ValueError(
            f"config.{field}: {text}: no SAE there nor in the folders in it (looked for {', '.join(' with '.join(names) for _, names in _KNOWN_BY)} "
            f"and {dictionary_list.NAME})"
        )
    return [_found(p, f"{text}/{p.name}") for p in below]


def refuse_strangers(saes: list[Found], ignore_names: bool) -> None:
    """Raises ValueError naming two SAEs that are the same, or whose metadata name another model, layer or hook."""
    if len(saes) < 2:
        names = ", ".join(f.name for f in saes) or "none"
        raise ValueError(f"config.saes holds {len(saes)} SAE ({names}): stability compares at least 2")
    by_path: dict[str, Found] = {}
    for sae in saes:
        if str(sae.path) in by_path:
            raise ValueError(f"config.saes: {sae.name} is given twice")
        by_path[str(sae.path)] = sae
    if ignore_names:
        return
    for what in ("model", "layer", "hook"):
        told: dict[str, Found] = {}  # formats have their own names for one hook, which are compared within each
        for sae in (sae for sae in saes if getattr(sae, what) not in ("", None)):
            first = told.setdefault(sae.format if what == "hook" else "", sae)
            if getattr(sae, what) != getattr(first, what):
                raise ValueError(
                    f"config.saes: {first.name} is of {what} {getattr(first, what)!r}, {sae.name} of {getattr(sae, what)!r}: SAEs of "
                    f"different activations are not compared (--config.ignore_names=True if only their names differ)"
                )


def refuse_newcomers(bank: list[Found], newcomers: list[Found], ignore_names: bool) -> None:
    """Raises ValueError naming a newcomer that is in the bank, or of another model, layer or hook, or a bank that is too small."""
    if len(bank) < 4:
        raise ValueError(f"config.saes: a bank of {len(bank)} SAEs, at least 4 are needed to learn from and to be judged by")
    sums = lambda sae: tuple(files.sha256_file(p) for p in sae.files() if p.suffix != ".json")
    known = {sums(sae): sae.name for sae in bank}
    for sae in newcomers:
        if sums(sae) in known:
            raise ValueError(f"config.newcomers: {sae.name} is {known[sums(sae)]} of the bank: leave one of them out")
    refuse_strangers(bank + newcomers, ignore_names)


def seeds(saes: list[Found]) -> list[int]:
    """What tells them apart: their own seeds if each has one of its own, else their places."""
    own = [sae.seed for sae in saes if sae.seed is not None]
    return own if len(set(own)) == len(saes) else list(range(len(saes)))


def _local(text: str, field: str) -> epath.Path:
    """The folder or file itself, or that of a hub id once it is fetched."""
    place = epath.Path(text)
    if place.exists():
        return place.resolve()
    named = _HUB_ID.fullmatch(text)
    if not named or epath.Path(text.split("/")[0]).is_dir():  # what begins like a folder that is here is meant to be one
        raise FileNotFoundError(f"config.{field}: nothing at {text}, and it is no hub id (owner/name, with /folder and @revision)")
    below = named["below"].strip("/")
    patterns = [f"{below}/**/{name}".lstrip("/") for name in _FETCHED] + [f"{below}/{name}".lstrip("/") for name in _FETCHED]
    fetched = hub.fetch(named["repo"], named["revision"], patterns, field)
    folder = fetched / below
    if not folder.is_dir():
        raise FileNotFoundError(f"config.{field}: {named['repo']} holds no SAE in a folder {below!r}")
    return folder


def _matching(folder: epath.Path) -> list[int]:
    return [i for i, (_, names) in enumerate(_KNOWN_BY) if all((folder / name).exists() for name in names)]


def _found(folder: epath.Path, name: str) -> Found:
    kind = _KNOWN_BY[_matching(folder)[0]][0]
    named_seed = re.search(r"seed[-_]?(\d+)$", folder.name)
    above = folder.parent if named_seed else folder
    seed = int(named_seed[1]) if named_seed else None
    model, hook = "", ""
    if kind == "saelens":
        config = files.read_json(folder / saelens.CONFIG)
        metadata = config.get("metadata", {}) if isinstance(config, dict) else {}
        told = metadata if isinstance(metadata, dict) else {}
        model, hook = (str(told.get(key) or "") for key in ("model_name", "hook_name"))
        seed = told["seed"] if isinstance(told.get("seed"), int) else seed
    elif kind == "sparsify":
        hook = above.name if _HOOKPOINT.fullmatch(above.name) else ""
    elif kind == "gemma_scope":
        layers = [layer for part in folder.parts if (layer := re.fullmatch(r"layer_(\d+)(?:_\w+)?", part))]
        site = _GEMMA_SITE.search(str(folder).replace("models--google--", ""))
        hook = " ".join(([f"layer {layers[-1][1]}"] if layers else []) + ([site["site"]] if site else []))
    return Found(folder, kind, name, seed, model, hook)


def _of_list(path: epath.Path, text: str) -> list[Found]:
    listing = dictionary_list.read(path)
    hook = listing["hook"]
    # As our exports in SAELens' format call it, so that a list and a folder of it belong together.
    name = "" if hook.get("layer") is None else dictionary_list.hook_name(hook)
    out = []
    for entry in listing["dictionaries"]:
        if entry.get("frozen_at_step") is None:
            folder = (path.parent / entry["path"]).resolve()
            model = str(hook.get("path", ""))
            out.append(
                Found(
                    folder,
                    entry["format"],
                    f"{text}: seed {entry['seed']}",
                    entry["seed"],
                    model,
                    name if entry["format"] == "saelens" else "",
                )
            )
    return out


def _natural(path: epath.Path) -> list[Any]:
    """seed-10 behind seed-9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]
