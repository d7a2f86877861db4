"""How often the rules of C4 and C5 say what is true: on trained worlds in which the claim holds, and on as many in which it does not.

python -m benchmarks.power_on_worlds --workdir=runs/power_on_worlds [--worlds=8]

Prints a line a world (on which side each claim's figures stand, whatever the plateau, and why) and writes experiments/robustness/worlds.json. 24 worlds
take about 20 minutes on two cores. A finished world is not trained again, and one that was stopped goes on where it was;
the rules are asked anew each time.

Every world has atoms and training seeds of its own. Its tokens are drawn to arrays, a study of a user's own arrays trains 8 SAEs on them (and, where C4 is
asked, SAEs on Gaussian activations), and a second study holds these against the truth. The laws were chosen on worlds of other seeds.
"""

import functools
import json
import os
import pathlib
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as launch/main.py

import ml_collections
import numpy as np
from absl import app, flags
from etils import epath

from experiments import registry
from experiments.data.dictionary_list import External
from experiments.data.seeds import Seeds
from experiments.data.sources import Sampling
from launch import run
from reports import claims
from reports.claims import NO, UNDECIDED, YES, Claims, Evidence, Part, Statement
from reports.results import Results
from runtime import interrupts
from storage import files
from synthetic.config import WorldConfig
from synthetic.generator import SyntheticStream, make_truth, make_world

_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of all worlds.")
_WORLDS = flags.DEFINE_integer("worlds", 8, "Worlds of each law.", lower_bound=1)

TABLE = pathlib.Path(__file__).parent.parent / "experiments" / "robustness" / "worlds.json"
FIRST_WORLD, SEEDS, GAUSSIAN_SEEDS = 100, 8, 3


class Law(NamedTuple):
    """Worlds of one kind.

    Attributes:
      words: what they hold.
      truth: the claims that are asked there, and whether they are true.
      world, sae: fields of the config sections `synthetic` and `sae`.
      batches: of training.
    """

    words: str
    truth: Mapping[str, bool]
    world: Mapping[str, Any]
    sae: Mapping[str, Any]
    batches: int


class Size(NamedTuple):
    """How much is measured.

    Attributes:
      batch: tokens of a batch.
      rows: held out.
      rank: of the planes that C4 compares, the planted one's.
      measuring: further fields of the config, by their path.
    """

    batch: int = 256
    rows: int = 32_768
    rank: int = 12
    measuring: Mapping[str, Any] = {}


COMMON = {"width": 36, "zipf": 0.2}
LAWS = {
    "crowded": Law(
        "72 atoms in general position in 24 of 36 dimensions, 2 active, and a block of 240 in the other 12, 3 active, for which an SAE has about 80 features",
        {"C4": True, "C5": True},
        COMMON | {"free_atoms": 72, "free_active": 2, "block_rank": 12, "block_atoms": 240, "block_active": 3, "block_magnitude": 1.0},
        {"n_features": 152, "k": 5},
        4000,
    ),
    "scattered": Law(
        "84 atoms in general position in 36 dimensions, 1 active, and 800 that are 1.75 times as strong, 1 active in 3 of 4 tokens, for which an SAE has about 58 features, but which lie in no subspace",
        {"C4": False},
        COMMON | {"free_atoms": 84, "free_active": 1, "block_rank": 0, "orthogonal": False, "block_atoms": 800, "block_active": 1, "block_magnitude": 1.75, "block_presence": 0.75},
        {"n_features": 142, "k": 3},
        3000,
    ),
    "few": Law(
        "96 atoms in general position in 24 of 36 dimensions, 2 active, and a block of as few as 12 in the other 12, 1 active, so that all are found",
        {"C5": False},
        COMMON | {"free_atoms": 96, "free_active": 2, "block_rank": 12, "block_atoms": 12, "block_active": 1},
        {"n_features": 184, "k": 3},
        2000,
    ),
}  # fmt: skip
THETA = 0.9  # from which features count as the same: at 0.7 a latent in 12 dimensions has a match by chance


def study(law: Law, number: int, size: Size, folder: epath.Path) -> ml_collections.ConfigDict:
    """The config that trains on the arrays of a world, and measures what C4 asks."""
    c = registry.default_config(("activations", "train", "stability", "subspace"), External, Claims)
    c.stages = c.stages if "C4" in law.truth else ("activations", "train")
    c.source.activations, c.source.eval_activations = str(folder / "train.npy"), str(folder / "held_out.npy")
    c.source.eval_tokens = size.rows
    c.seeds = tuple(range(number * SEEDS, (number + 1) * SEEDS))
    c.sae.update({**law.sae, "aux_k": min(32, law.sae["n_features"] // 2), "dead_after_tokens": 100 * size.batch})
    c.train.update({"tokens": law.batches * size.batch, "batch_size": size.batch, "lr": 3e-3, "clip_norm": 1e9, "snapshots": 2})
    c.train.update({"steps_per_dispatch": 50, "checkpoint_every": 1000, "eval_rows": min(8192, size.rows)})
    if "C4" in law.truth:
        c.stages = (*c.stages, "gaussian")
        gaussian = {"data": "gaussian", "halves": False, "snapshots": 2, "export_sparsify": False}
        c.runs.gaussian = ml_collections.ConfigDict({"new_seeds": GAUSSIAN_SEEDS, "train": gaussian})
        c.subspace.update({"ranks": (2, 4, 8, size.rank), "headline_rank": size.rank, "subsamples": 10})
    return _measured(c, size)


def against_truth(law: Law, number: int, size: Size, folder: epath.Path) -> ml_collections.ConfigDict:
    """The config that holds those SAEs against the world's atoms, which is what C5 asks."""
    c = registry.default_config(("stability", "recovery"), External, WorldConfig, Sampling, Seeds, Claims)
    c.synthetic.update({**law.world, "seed": number})
    c.train.eval_rows = size.rows
    c.stability.dictionaries = str(folder / "study" / "train" / "dictionaries.json")
    c.recovery.theta = THETA
    return _measured(c, size)


def _measured(c: ml_collections.ConfigDict, size: Size) -> ml_collections.ConfigDict:
    c.stability.update({"theta": THETA, "null_draws": 2, "curve_rows": 4096})
    fields = {path: path.split(".") for path in size.measuring}
    c.update_from_flattened_dict({path: size.measuring[path] for path, (section, name) in fields.items() if name in c.get(section, ())})
    return c


def answers(law: Law, number: int, size: Size, folder: epath.Path) -> dict[str, Any]:
    """What the rules say of one world, by claim: trains and measures what is not there yet.

    Returns:
      Of every claim its side, those of its parts, what is withheld without its numbers, and the figures in words.
    """
    path, kind = (
        folder / "world.json",
        files.plain({"law": law._asdict(), "size": size._asdict(), "theta": THETA, "seeds": SEEDS, "gaussian": GAUSSIAN_SEEDS}),
    )
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists() and files.read_json(path) != kind:
        raise app.UsageError(f"--workdir: {folder} is a world of another law or size; choose another folder")
    files.write_json(path, kind)
    finished = (folder / "finished").exists()
    if not finished:
        _draw(law, number, size, folder)
    made = {}
    for name, make, claim in (("study", study, "C4"), ("truth", against_truth, "C5")):
        if name == "study" or claim in law.truth:
            c = make(law, number, size, folder)
            settings = registry.validated(c)
            if not finished:
                run.run(c, settings, folder / name, [], "", False)
            if claim in law.truth:
                made[claim] = _answer(claim, Results(folder / name, settings.stages), settings[Claims])
    files.write_bytes(folder / "finished", b"")
    for array in ("train.npy", "held_out.npy"):  # large, and not read again
        (folder / array).unlink(missing_ok=True)
    return made


def _draw(law: Law, number: int, size: Size, folder: epath.Path) -> None:
    """Tokens of a world as arrays, to train on and held out."""
    world = WorldConfig(**law.world, seed=number)
    made = make_world(world, make_truth(world))
    for order, (name, rows) in enumerate({"train": law.batches * size.batch, "held_out": size.rows}.items()):
        if not (folder / f"{name}.npy").exists():
            part = folder / f"{name}.part.npy"
            np.save(part, SyntheticStream(world.shape(), made, order).rows(0, rows))
            part.rename(folder / f"{name}.npy")


def _answer(claim: str, results: Results, rules: Claims) -> dict[str, Any]:
    statement = next(s for room in registry.modules("report") for s in room.CLAIMS if s.name == claim)
    evidence = statement.evidence(results, rules)
    if evidence is None:
        raise ValueError(f"{claim}: its stages left nothing in {results.workdir}")
    alone = [Statement(p.name, "", "", functools.partial(_of_part, p)) for p in evidence.parts]
    return {
        "side": claims.sides([statement], results, rules)[claim],
        "parts": claims.sides(alone, results, rules),
        "withheld": re.sub(r"\d[\d.,]*", "…", evidence.withheld),
        "measured": evidence.measured,
    }


def _of_part(part: Part, results: Results, rules: Claims) -> Evidence:
    return Evidence("", (part,))


def table(by_law: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What `worlds.json` holds: by claim how often its rule said what, where the claim is true and where it is false; what each part of the rule said, and
    what was withheld."""
    out: dict[str, Any] = {}
    for claim in ("C4", "C5"):
        entry: dict[str, Any] = {"seeds": SEEDS, "worlds": 0}
        for kind, truth in (("true", True), ("false", False)):
            name = next(name for name, law in LAWS.items() if law.truth.get(claim) == truth)
            rows = [world[claim] for world in by_law[name]]
            sides, withheld = Counter(row["side"] for row in rows), Counter(row["withheld"] for row in rows if row["withheld"])
            parts = {part: Counter(row["parts"][part] for row in rows if part in row["parts"]) for row in rows for part in row["parts"]}
            entry["worlds"] += len(rows)
            entry[kind] = {
                "law": LAWS[name].words,
                **{side: sides[side] for side in (YES, NO, UNDECIDED)},
                "parts": {part: dict(count) for part, count in parts.items()},
                "withheld": dict(withheld),
            }
        out[claim] = entry
    return out


def main(argv: list[str]) -> None:
    del argv
    if not _WORKDIR.value:
        raise app.UsageError("--workdir is missing: the folder of all worlds")
    interrupts.install()
    try:
        by_law = _every_world(epath.Path(_WORKDIR.value))
    except interrupts.Stopped as stopped:
        print(f"{stopped}; run the same command again to go on", file=sys.stderr)
        raise SystemExit(interrupts.EXIT_STOPPED) from stopped
    TABLE.write_text(json.dumps(table(by_law), indent=2) + "\n")


def _every_world(workdir: epath.Path) -> dict[str, list[dict[str, Any]]]:
    """Answers by law, with a line a world."""
    by_law: dict[str, list[dict[str, Any]]] = {name: [] for name in LAWS}
    every = [(name, i) for i in range(_WORLDS.value) for name in LAWS]
    for done, (name, i) in enumerate(every, start=1):
        start, number = time.perf_counter(), FIRST_WORLD + len(LAWS) * i + [*LAWS].index(name)
        by_law[name].append(answers(LAWS[name], number, Size(), workdir / f"{name}-{number}"))
        said = "; ".join(f"{claim}, which is {LAWS[name].truth[claim]}: {_reason(a)}" for claim, a in by_law[name][-1].items())
        print(f"world {done} of {len(every)}, {name} {number}, {time.perf_counter() - start:.0f} s: {said}", flush=True)
    return by_law


def _reason(answer: Mapping[str, Any]) -> str:
    others = [f"{part}: {side}" for part, side in answer["parts"].items() if side != YES]
    return f"{answer['side']} ({answer['withheld'] or '; '.join(others) or 'all parts'})"


if __name__ == "__main__":
    app.run(main)
