"""`dictionaries.json`: which SAEs belong together, of which hook, in which format. The only door to the measuring stages."""

from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from experiments.fields import config, field
from experiments.stage import Product, Task
from saes import dictionary
from saes.dictionary import Dictionary
from saes.formats import dictionary_learning, gemma_scope, saelens, sparsify, stacked
from saes.formats import provenance as told_by
from saes.formats.checks import setting
from saes.formats.configuration import read_json
from saes.formats.identity import identity, refuse_same_weights
from saes.formats.provenance import Provenance
from storage import files


@config("stability")
class External:
    """SAEs from elsewhere, in place of those that a study trains."""

    dictionaries: str = field(default="", doc="a dictionaries.json from elsewhere; '': the one that stage `train` writes", path=True)
    at_tokens: int = field(
        default=0, doc="SAEs as they were after so many training tokens, of those at which they were kept; 0: at the end", ge=0
    )


FORMAT = "sae-stability dictionaries 2"
NAME = "dictionaries.json"
ADVICE = "put it back from a copy, or remove its line 'sha256' if you changed it yourself"
READERS = {"saelens": saelens, "sparsify": sparsify, "gemma_scope": gemma_scope, "dictionary_learning": dictionary_learning}

SAES = Product(
    "saes",
    reads=(External,),
    given=lambda settings: External in settings and bool(settings[External].dictionaries),
    inputs=lambda task: digest(task.section(External).dictionaries),
)


class DictionaryList(NamedTuple):
    """SAEs of one hook.

    Attributes:
      seeds: what tells them apart, in order.
      names: of the SAEs, for people; "" where the seed says it all.
      dictionaries: one an SAE, NumPy leaves; numbers of features and kinds may differ, the width may not.
      hook: model, layer and site.
      training: what is known of it (variant, k, tokens, what the SAEs differ in); may be empty.
      frozen: seeds left out, since their training was not finite.
      lanes: place of each of `seeds` in the snapshots, which hold the frozen ones too.
      snapshots: (training tokens, paths of stacked files, one behind the other along the seed axis) in order; may be empty.
    """

    seeds: tuple[int, ...]
    names: tuple[str, ...]
    dictionaries: tuple[Dictionary, ...]
    hook: dict[str, Any]
    training: dict[str, Any]
    frozen: tuple[int, ...]
    lanes: tuple[int, ...]
    snapshots: list[tuple[int, list[epath.Path]]]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Features of every SAE."""
        return tuple(d.w_dec_FD.shape[0] for d in self.dictionaries)

    @property
    def exists_SF(self) -> np.ndarray:
        """Which features there are, up to the largest number of them."""
        return np.arange(max(self.sizes)) < np.array(self.sizes)[:, None]

    @property
    def w_dec_SFD(self) -> np.ndarray:
        """Decoder rows, padded with rows of zeros where SAEs have fewer features."""
        return self._padded([d.w_dec_FD for d in self.dictionaries])

    @property
    def w_enc_SFD(self) -> np.ndarray:
        """Encoder directions as rows, likewise."""
        return self._padded([d.w_enc_DF.T for d in self.dictionaries])

    def by_seed(self, column: np.ndarray, empty: Any) -> np.ndarray:
        """A column of a table with a row per (seed, feature) of these SAEs, and perhaps of more behind them, as an array (S, F, …); `empty` where
        there is no feature."""
        exists_SF = self.exists_SF
        out = np.full((*exists_SF.shape, *column.shape[1:]), empty, column.dtype)
        out[exists_SF] = column[: exists_SF.sum()]
        return out

    def first(self, count: int) -> "DictionaryList":
        """The first SAEs alone."""
        return self._replace(**{name: getattr(self, name)[:count] for name in ("seeds", "names", "dictionaries", "lanes")})

    def as_of(self, tokens: int) -> "DictionaryList":
        """As they were after so many training tokens. Raises ValueError where they were not kept then."""
        paths = dict(self.snapshots)
        if tokens not in paths:
            raise ValueError(
                f"config.stability.at_tokens={tokens}: SAEs were kept after {', '.join(map(str, paths)) or 'no number of'} tokens"
            )
        whole = self.snapshot(paths[tokens])
        dictionaries = tuple(jax.tree.map(lambda leaf, i=i: leaf[i], whole) for i in range(len(self.seeds)))
        return self._replace(dictionaries=dictionaries, snapshots=[], training=self.training | {"tokens": tokens})

    def _padded(self, rows: list[np.ndarray]) -> np.ndarray:
        most = self.exists_SF.shape[1]
        return np.stack([np.pad(r, ((0, most - len(r)), (0, 0))) for r in rows])

    def snapshot(self, paths: list[epath.Path]) -> Dictionary:
        """The dictionaries of `seeds` as they were then, stacked."""
        lanes = np.asarray(self.lanes)
        result: Dictionary = jax.tree.map(lambda *leaves: np.concatenate(leaves)[lanes], *(stacked.load(path) for path in paths))
        return result


def write(
    path: epath.Path, hook: dict[str, Any], training: dict[str, Any], entries: list[dict[str, Any]], snapshots: list[dict[str, Any]]
) -> None:
    """Writes the list with a checksum of its own; paths in `entries` ({seed, path, format}) and `snapshots` ({tokens, paths}) are relative to it."""
    listing = {"format": FORMAT, "hook": hook, "training": training, "dictionaries": entries, "snapshots": snapshots}
    files.write_record(path, listing)


def hook_name(hook: dict[str, Any]) -> str:
    """As TransformerLens and SAELens call it, where they have a name for it; the name that it has already, of SAEs from elsewhere."""
    if hook.get("layer") is None or told_by.place(str(hook.get("site", "")))[0] is not None:
        return str(hook.get("site", ""))
    point = {"mlp_act": "mlp.hook_post", "mlp_in": "ln2.hook_normalized"}.get(hook.get("site", ""), f"hook_{hook.get('site', '')}")
    return f"blocks.{hook['layer']}.{point}"


def loading_of(hook: dict[str, Any]) -> dict[str, Any]:
    """SAELens' entry for the model's revision, where one is known."""
    return {"model_from_pretrained_kwargs": {"revision": hook["commit"]}} if hook.get("commit") else {}


def provenance(hook: dict[str, Any]) -> Provenance:
    """What the hook of a list tells of all SAEs in it, or that of a store of its activations."""
    model, revision = told_by.model_and_revision(told_by.text(hook.get("path")))
    name = hook_name(hook) if hook.get("site") else ""
    layer, site = told_by.place(name)
    layer = told_by.number(hook.get("layer")) if layer is None else layer
    return Provenance(
        model=model,
        revision=told_by.text(hook.get("revision")) or told_by.text(hook.get("commit")) or revision,
        layer=layer,
        site=site,
        input=name,
    )


def saes(task: Task, first: int | None = None) -> DictionaryList:
    """The SAEs that a stage reads, or the first so many: the list named by `config.stability.dictionaries`, or what the stage `collect` or `train` wrote."""
    every = load(place(task))
    if tokens := task.section(External).at_tokens:
        every = every.as_of(tokens)
    return every if first is None else every.first(first)


def place(task: Task) -> epath.Path:
    """Of that list.

    Raises:
      ValueError: the one that is named holds transcoders.
    """
    external = task.section(External)
    if external.dictionaries:
        path = epath.Path(external.dictionaries)
        for entry in read(path)["dictionaries"]:
            if entry.get("transcoder"):
                raise ValueError(
                    f"config.stability.dictionaries: seed {entry['seed']} of {path} is a transcoder, of which only the decoder can be compared: "
                    "leave it out, or name it by config.saes of configs/compare.py, without activations"
                )
        refuse_strangers(path)
        return path
    return task.path(f"{task.sources['saes'][0]}/{NAME}")


def refuse_strangers(path: epath.Path) -> None:
    """Raises ValueError where SAEs of a list tell that they are of another model, layer, site or kind than its hook or one another."""
    listing = read(path)
    origins = [("its hook", provenance(listing["hook"]), "")]
    for entry in listing["dictionaries"]:
        kind = entry["format"]
        own = (f"seed {entry['seed']}", READERS[kind].provenance(path.parent / entry["path"]), kind)
        for name, other, other_kind in origins:
            for what, theirs, ours in told_by.differences(other, own[1], kind == other_kind)[:1]:
                raise ValueError(
                    f"config.stability.dictionaries: {path}: {name} is of {what} {theirs!r}, {own[0]} of {ours!r}: SAEs of different activations are not "
                    "compared; leave one out, or correct the hook"
                )
        origins.append(own)


def digest(dictionaries: str) -> dict[str, str]:
    """Checksums of a list from elsewhere and of the files of the SAEs it names; empty for the `train` stage's own."""
    if not dictionaries:
        return {}
    path = epath.Path(dictionaries)
    listing = read(path)
    digests = {"stability.dictionaries": files.sha256_file(path)}
    for entry in listing["dictionaries"]:
        folder = path.parent / entry["path"]
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}, which {path} lists")
        own = {p.name: files.sha256_file(p) for p in sorted(folder.iterdir()) if not p.is_dir()}
        digests |= {f"stability.dictionaries/seed {entry['seed']}/{name}": digest for name, digest in own.items()}
    for s in listing.get("snapshots", []):
        there = [path.parent / p for p in s["paths"] if (path.parent / p).exists()]
        digests |= {f"stability.dictionaries/at {s['tokens']} tokens, {i}": files.sha256_file(p) for i, p in enumerate(there)}
    return digests


def load(path: epath.Path, least: int = 2, distinct: bool = True) -> DictionaryList:
    """Reads the list and the dictionaries in it; frozen seeds are left out with a line that says so.

    Args:
      distinct: the same weights under two names are refused; False: of dictionaries that are not compared with each other.

    Raises:
      FileNotFoundError, ValueError: a file that is missing, damaged or foreign, shapes that differ, fewer than `least` SAEs, one of them twice.
    """
    listing = read(path)
    loaded: dict[int, Dictionary] = {}
    names: list[str] = []
    frozen, lanes = [], []
    for lane, entry in enumerate(listing["dictionaries"]):
        if entry.get("frozen_at_step") is not None:
            print(f"{path.parent.name}: seed {entry['seed']} left out: not finite at step {entry['frozen_at_step']} of its training")
            frozen.append(entry["seed"])
            continue
        loaded[entry["seed"]] = READERS[entry["format"]].load(path.parent / entry["path"], decoder_alone=entry.get("transcoder", False))[0]
        names.append(setting(path, entry, "name", str, ""))
        lanes.append(lane)
    if len(loaded) < least:
        raise ValueError(f"{path} lists {len(loaded)} usable SAEs: at least {least} are needed")
    labels = [name or f"{path}: seed {seed}" for name, seed in zip(names, loaded, strict=True)]
    widths = [d.w_dec_FD.shape[1] for d in loaded.values()]
    for name, width in zip(labels, widths, strict=True):
        if width != widths[0]:
            raise ValueError(f"{name} is of width {width}, {labels[0]} of {widths[0]}: of another model or hook, so not compared")
    widths = [d.w_enc_DF.shape[0] for d in loaded.values()]
    for name, width in zip(labels, widths, strict=True):
        if width != widths[0]:
            raise ValueError(f"{name} reads a width of {width}, {labels[0]} of {widths[0]}: of another model or hook, so not compared")
    if distinct:
        refuse_same_weights([identity(d) for d in loaded.values()], labels)
    snapshots = [(s["tokens"], [path.parent / p for p in s["paths"]]) for s in listing.get("snapshots", [])]
    if len({dictionary.kind(d) for d in loaded.values()}) != 1:
        snapshots = []
    training = listing.get("training", {})
    return DictionaryList(
        tuple(loaded), tuple(names), tuple(loaded.values()), listing["hook"], training, tuple(frozen), tuple(lanes), snapshots
    )


def read(path: epath.Path) -> dict[str, Any]:
    """The list, with what must be in it. One of ours must match its checksum, one written by hand has none."""
    if not path.exists():
        raise FileNotFoundError(f"no list of dictionaries at {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name the list of dictionaries itself, a JSON file")
    listing = read_json(path)
    if not isinstance(listing, dict) or listing.get("format") != FORMAT:
        raise ValueError(f"{path} is no list of dictionaries: its format must be {FORMAT!r}")
    listing = files.without_seal(path, listing, ADVICE, unsealed=None)
    for key, kind in (("hook", dict), ("dictionaries", list)):
        if key not in listing:
            raise ValueError(f"{path} lacks {key!r}")
        setting(path, listing, key, kind)
    setting(path, listing, "training", dict, {})
    for snapshot in setting(path, listing, "snapshots", list, []):
        if not isinstance(snapshot, dict) or type(snapshot.get("tokens")) is not int or type(snapshot.get("paths")) is not list:
            raise ValueError(f"{path}: an entry of 'snapshots' lacks 'tokens' or 'paths'")
        if any(not isinstance(p, str) for p in snapshot["paths"]):
            raise ValueError(f"{path}: 'paths' of an entry of 'snapshots' must be strings")
    for name, value in listing["hook"].items():
        if value is not None and not isinstance(value, str | int):
            raise ValueError(f"{path}: {name!r} of 'hook' must be a string or a number")
    seeds = []
    for i, entry in enumerate(listing["dictionaries"]):
        if not isinstance(entry, dict) or (missing := {"seed", "path", "format"} - entry.keys()):
            raise ValueError(f"{path}: entry {i} of 'dictionaries' lacks {sorted(missing) if isinstance(entry, dict) else 'an object'}")
        for name, type_ in {"seed": int, "path": str, "format": str}.items():
            setting(path, entry, name, type_)
        if entry["format"] not in READERS:
            raise ValueError(f"{path}: format {entry['format']!r} of seed {entry['seed']}, one of {sorted(READERS)}")
        for name in {"transcoder", "name"} & entry.keys():
            setting(path, entry, name, {"transcoder": bool, "name": str}[name])
        seeds.append(entry["seed"])
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"{path}: a seed is listed twice ({seeds})")
    return listing
