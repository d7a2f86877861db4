"""What training leaves: dictionaries along the way, every SAE in SAELens' format, the lists of them, figures of each."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from launch import dictionary_list, roster
from launch.roster import Cell, Member
from saes.dictionary import Dictionary
from saes.evaluation import evaluate
from saes.formats import saelens, stacked
from saes.step import TrainState
from saes.variants import variant
from stability import aggregates
from stability.aggregates import seed_mean
from storage import files

BATCH = 1024
CONFIDENCE = 0.95  # of the intervals in this stage's summary; the measuring stages take theirs from the config
L0_TOLERANCE = 0.1  # an SAE further from its target L0 on held-out rows is named


class Round(NamedTuple):
    """SAEs trained together.

    Attributes:
      folder: where its files are.
      members: in the order of the lanes.
      scale: of the activations in training.
    """

    folder: epath.Path
    members: list[Member]
    scale: float

    def finished(self) -> bool:
        return (self.folder / "finished.json").exists()


def save_snapshot(config: Any, of_round: Round, state: TrainState, tokens: int) -> None:
    """The round's dictionaries as they are now, one stacked file a cell."""
    for cell, (_, dictionaries) in _by_cell(config, of_round, state).items():
        stacked.save(_snapshot(of_round.folder, cell, tokens), dictionaries)


def finish_round(config: Any, of_round: Round, state: TrainState, hook: dict[str, Any], held_out_ND: np.ndarray) -> None:
    """Exports every SAE of the round and evaluates it on held-out activations; `finished.json` is written last."""
    frozen_at = np.asarray(jax.device_get(state.frozen_at))
    cells = roster.cells(config)
    folder = of_round.folder.parent
    records: list[dict[str, Any]] = []
    for cell, (places, dictionaries) in _by_cell(config, of_round, state).items():
        batches = (held_out_ND[i : i + BATCH] for i in range(0, len(held_out_ND), BATCH))
        with jax.default_matmul_precision("highest"):
            evaluation = evaluate(jax.device_put(dictionaries), batches, 1)
        for i, place in enumerate(places):
            member = of_round.members[place]
            path = _home(folder, cells[cell]) / "sae" / f"seed-{member.seed}"
            saelens.save(path, jax.tree.map(lambda a, i=i: a[i], dictionaries), _metadata(config, member, hook))
            alive = int((evaluation.firings_SF[i] > 0).sum())
            records.append(
                {
                    "cell": cell,
                    "seed": member.seed,
                    "frozen_at_step": int(frozen_at[place]) if frozen_at[place] >= 0 else None,
                    "explained_variance": float(evaluation.explained_variance_S[i]),
                    "l0": float(evaluation.l0_S[i]),
                    "alive": alive,
                    "dead_share": float(evaluation.share_firing_less_than(1)[i]),
                }
            )
    files.write_json(of_round.folder / "finished.json", records)


def finish(config: Any, folder: epath.Path, rounds: int, hook: dict[str, Any]) -> list[epath.Path]:
    """Lists, metrics and summary of all rounds; the stage's results."""
    cells = roster.cells(config)
    by_round = [files.read_json(folder / f"round-{r}" / "finished.json") for r in range(rounds)]
    records = [record for of_round in by_round for record in of_round]
    outputs = [folder / "plan.json", _merge_metrics(folder, rounds)]
    for index, cell in enumerate(cells):
        home = _home(folder, cell)
        entries = []
        for record in (r for r in records if r["cell"] == index):
            path = home / "sae" / f"seed-{record['seed']}"
            outputs += [path / "cfg.json", path / saelens.WEIGHTS, path / saelens.CHECKSUM]
            name = f"sae/seed-{record['seed']}"
            entries.append({"seed": record["seed"], "path": name, "format": "saelens", "frozen_at_step": record["frozen_at_step"]})
        snapshots = []
        for step in config.train.snapshot_steps():
            tokens = step * config.train.batch_size
            of_rounds = [r for r in range(rounds) if any(x["cell"] == index for x in by_round[r])]
            paths = [_snapshot(folder / f"round-{r}", index, tokens) for r in of_rounds]
            outputs += paths
            up = "" if home == folder else "../../"
            snapshots.append({"tokens": tokens, "paths": [up + str(p.relative_to(folder)) for p in paths]})
        dictionary_list.write(home / "dictionaries.json", hook, entries, snapshots)
        outputs.append(home / "dictionaries.json")
    files.write_json(folder / "summary.json", _summary(config, cells, records))
    return [*outputs, folder / "summary.json"]


def _by_cell(config: Any, of_round: Round, state: TrainState) -> dict[int, tuple[list[int], Dictionary]]:
    """{cell: (places in the round, dictionaries for raw activations on the host)}, dummy lanes dropped."""
    cells = roster.cells(config)
    params, threshold = jax.device_get(jax.tree.map(jnp.copy, (state.params, state.control.threshold)))
    found = {}
    for cell in sorted({m.cell for m in of_round.members}):
        places = [i for i, m in enumerate(of_round.members) if m.cell == cell]
        own = jax.tree.map(lambda a, p=places: a[p], params)
        made = variant(config.sae.variant).to_dictionary(own, of_round.scale, cells[cell].k, threshold[places])
        found[cell] = (places, jax.tree.map(np.asarray, made))
    return found


def _home(folder: epath.Path, cell: Cell) -> epath.Path:
    return folder / "cells" / cell.name if cell.name else folder


def _snapshot(folder: epath.Path, cell: int, tokens: int) -> epath.Path:
    return folder / "snapshots" / f"cell-{cell}-tokens-{tokens:012d}.safetensors"


def _metadata(config: Any, member: Member, hook: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_name": hook["path"],
        "hook_name": f"blocks.{hook['layer']}.hook_{hook['site']}",
        "context_size": config.source.context_length,
        "prepend_bos": True,
        "dataset_path": "Python standard library",
        "training_architecture": config.sae.variant,
        "seed": member.seed,
        "initialisation_seed": member.init_seed,
        "data_order_seed": member.order_seed,
        "training_tokens": config.train.steps * config.train.batch_size,
    }


def _merge_metrics(folder: epath.Path, rounds: int) -> epath.Path:
    """One record a step with the SAEs of all rounds in order."""
    every = [files.read_json_lines(folder / f"round-{r}" / "metrics.jsonl") for r in range(rounds)]
    lines = []
    for records in zip(*every, strict=True):
        merged: dict[str, Any] = {name: sum((r[name] for r in records), []) for name in records[0] if name != "step"}
        lines.append(files.json_line({"step": records[0]["step"], **merged}))
    files.write_bytes(folder / "metrics.jsonl", "".join(lines).encode())
    return folder / "metrics.jsonl"


def _summary(config: Any, cells: list[Cell], records: list[dict[str, Any]]) -> dict[str, Any]:
    """Per cell the figures of its SAEs, with who was frozen, missed the target L0 or has fewer live features than K; all are named."""
    out = []
    for index, cell in enumerate(cells):
        own = [r for r in records if r["cell"] == index]
        good = [r for r in own if r["frozen_at_step"] is None]
        frozen = [r["seed"] for r in own if r["frozen_at_step"] is not None]
        off = [r["seed"] for r in good if abs(r["l0"] / cell.k - 1) > L0_TOLERANCE]
        few = [r["seed"] for r in good if r["alive"] < cell.k]
        where = f" ({cell.name})" if cell.name else ""
        for seeds, what in (
            (frozen, "were not finite and stood still from there: lower config.train.lr"),
            (off, f"miss the target L0 of {cell.k} by more than {L0_TOLERANCE:.0%}: train longer, or look at config.sae.control_rate"),
            (few, f"have fewer features that fire than config.sae.k={cell.k}: lower k or the learning rate"),
        ):
            if seeds:
                print(f"warning: seeds {', '.join(map(str, seeds))}{where} {what}")
        figures = {
            name: _estimate(np.array([r[name] for r in good], float), CONFIDENCE, unit, null)
            for name, unit, null in (
                ("explained_variance", "share", 0.0),
                ("l0", "features per token", None),
                ("dead_share", "share", None),
            )
        }
        knobs = {"lr": cell.lr, "k": cell.k, "sparsity": cell.sparsity}
        named = {"frozen_seeds": frozen, "seeds_off_target_l0": off, "seeds_with_fewer_live_features_than_k": few}
        out.append({"cell": cell.name, **knobs, **named, **figures, "per_seed": own})
    if len(cells) > 1:
        _print_cells(out)
    return {"cells": out}


def _estimate(values_S: np.ndarray, confidence: float, unit: str, null: float | None) -> dict[str, Any]:
    return aggregates.jackknifed(lambda w: seed_mean(values_S, w), len(values_S), confidence, null=null, unit=unit).as_dict()


def _print_cells(cells: list[dict[str, Any]]) -> None:
    print(f"{'cell':32} {'EV':>8} {'L0':>8}")
    for c in cells:
        ev, l0 = c["explained_variance"]["value"], c["l0"]["value"]
        print(f"{c['cell']:32} {ev if ev is None else round(ev, 4):>8} {l0 if l0 is None else round(l0, 2):>8}")
