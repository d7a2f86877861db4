"""Activations that a user brings: found, checked, and made readable as stores."""

import hashlib
from collections.abc import Sequence
from typing import Any

import tqdm
from etils import epath

from activations import adopt
from activations.adopt import Part, UserArray
from activations.store import MANIFEST
from experiments.fields import check, config, field
from runtime import interrupts
from storage import files, ownership


@config("source")
class OwnRows:
    """Activations that are there already."""

    activations: str = field(
        default="",
        doc=".npy, .npz, safetensors (…, D), or folders of them, with commas between; '': read them with lm. See activations/adopt.py",
        path=True,
    )
    eval_tokens: int = field(default=150_000, doc="rows from held-out files, for every figure about activations", gt=0)


@config("source")
class OwnStudy:
    """What a study says beside its own activations."""

    eval_activations: str = field(
        default="",
        doc="held-out ones, eval_tokens of them; '': the last eval_tokens rows of source.activations, at most a tenth. All others are trained on",
        path=True,
    )
    activations_of: str = field(default="", doc="model and hook that source.activations are of, for exports and the report")


def check_together(own: OwnRows, study: OwnStudy) -> None:
    """Raises ValueError where the second speaks of activations that the first does not name."""
    check(
        bool(own.activations) or not (study.eval_activations or study.activations_of), "source.activations", own.activations,
        "source.eval_activations and source.activations_of speak of source.activations",
    )  # fmt: skip


def digests(own: OwnRows, study: OwnStudy) -> dict[str, str]:
    """Of the arrays a study names: what its stages depend on."""
    return _fingerprint(own.activations, "source.activations") | _fingerprint(study.eval_activations, "source.eval_activations")


def take_in(own: OwnRows, study: OwnStudy, folder: epath.Path) -> list[epath.Path]:
    """Makes `folder/train` and `folder/eval` of a study's arrays, and `folder/vocabulary.json` where tokens have texts; returns all files."""
    arrays = adopt.find(own.activations, "source.activations")
    held_out = adopt.find(study.eval_activations, "source.eval_activations") if study.eval_activations else []
    if held_out and held_out[0].width != arrays[0].width:
        raise ValueError(
            f"config.source.eval_activations: {held_out[0].path} has width {held_out[0].width}, source.activations {arrays[0].width}"
        )
    if both := {a.path for a in arrays} & {a.path for a in held_out}:
        raise ValueError(f"config.source.eval_activations: {min(both)} is in source.activations too: what is trained on is not held out")
    train, evaluated = (
        adopt.split(arrays, own.eval_tokens) if not held_out else (adopt.whole(arrays), adopt.first_rows(held_out, own.eval_tokens))
    )
    _say_left_out(own.activations, study.eval_activations)
    outputs = []
    for name, parts, sources in (("train", train, arrays), ("eval", evaluated, held_out or arrays)):
        outputs += _one(parts, sources, folder / name, study.activations_of)
    return outputs + _vocabulary(held_out or arrays, folder)


def take_in_for_evaluation(paths: str, rows: int, folder: epath.Path, width: int) -> list[epath.Path]:
    """Makes `folder/eval` of the first rows of arrays on which SAEs of this width from elsewhere are measured. Raises ValueError for another width."""
    arrays = adopt.find(paths, "source.activations")
    if arrays[0].width != width:
        raise ValueError(f"config.source.activations: {arrays[0].path} has width {arrays[0].width}, the SAEs have {width}")
    _say_left_out(paths)
    return _one(adopt.first_rows(arrays, rows), arrays, folder / "eval", "") + _vocabulary(arrays, folder)


def is_store(path: str) -> bool:
    """Whether a path holds a finished store of this repository."""
    return bool(path) and (epath.Path(path) / MANIFEST).exists()


def _one(parts: Sequence[Part], arrays: Sequence[UserArray], folder: epath.Path, of_what: str) -> list[epath.Path]:
    model = hashlib.sha256("".join(adopt.fingerprint(arrays).values()).encode()).hexdigest()
    hook: dict[str, Any] = {"model": model, "path": of_what or arrays[0].path.name, "layer": None, "site": "activations"}
    names = [name for a in arrays for name in a.documents]
    with tqdm.tqdm(total=adopt.rows_of(parts), desc=f"checking {folder.name}", unit="tok", unit_scale=True, mininterval=1.0) as bar:
        look = lambda: interrupts.raise_if_stop_requested("activations: what was checked stays checked")
        try:
            manifest = epath.Path(adopt.take_in(parts, names, folder, hook, bar.update, look))
            adopt.check_spread(parts)
        except ValueError:  # a row that cannot be used: once mended it is another file, and nothing checked so far stands
            ownership.discard(folder)
            raise
    return [manifest, *(folder / s["file"] for s in files.read_json(manifest)["shards"])]


def _say_left_out(*paths: str) -> None:
    """Prints what lies beside the arrays and is not read."""
    names = [name for text in paths for name in adopt.left_out(text)]
    if names:
        print(
            f"activations: {len(names):,} files or folders beside the arrays are not read, first {names[0]}: arrays are .npy, .npz, .safetensors"
        )


def _vocabulary(arrays: Sequence[UserArray], folder: epath.Path) -> list[epath.Path]:
    texts = adopt.vocabulary(arrays)
    if texts is None:
        return []
    files.write_json(folder / "vocabulary.json", texts)
    return [folder / "vocabulary.json"]


def _fingerprint(paths: str, field: str) -> dict[str, str]:
    """By content: the same arrays elsewhere are the same."""
    return {f"{field}/{name}": digest for name, digest in adopt.fingerprint(adopt.find(paths, field)).items()} if paths else {}
