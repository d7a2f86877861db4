"""What training leaves: dictionaries along the way, every SAE in SAELens' format, the lists of them, figures of each."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from experiments.data import dictionary_list
from experiments.data.sources import Source
from experiments.training.population import Cell, Member, Population
from runtime import interrupts
from saes.dictionary import Dictionary, first_features
from saes.evaluation import evaluate
from saes.formats import saelens, sparsify, stacked
from saes.step import TrainState
from saes.variants import variant
from stability import aggregates
from stability.aggregates import seed_mean
from storage import files

FINISHED = "finished.json"  # of a round, once its SAEs are exported
BATCH = 1024
CHUNK = 8  # SAEs converted, evaluated and written at a time: a round may be larger than a device or the host holds twice
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
    members: Sequence[Member]
    scale: float

    def finished(self) -> bool:
        result: bool = (self.folder / FINISHED).exists()
        return result

    def records(self) -> list[dict[str, Any]]:
        """Figures of every SAE of a finished round. Raises ValueError where they are damaged."""
        path = self.folder / FINISHED
        if isinstance(earlier := files.read_json(path), list):  # the format of earlier versions
            return earlier
        result: list[dict[str, Any]] = files.read_record(path, "train again with --overwrite", unsealed=set())["saes"]
        return result


def save_snapshot(who: Population, of_round: Round, state: TrainState, tokens: int) -> None:
    """The round's dictionaries as they are now, a stacked file for every few of them."""
    for chunk in _chunks(of_round):
        stacked.save(chunk.snapshot(of_round.folder, tokens), _dictionaries(who, of_round, state, chunk))


def finish_round(who: Population, of_round: Round, state: TrainState, source: Source) -> None:
    """Exports every SAE of the round and evaluates it on held-out activations; `finished.json` is written last."""
    frozen_at = np.asarray(jax.device_get(state.frozen_at))
    folder = of_round.folder.parent
    records: list[dict[str, Any]] = []
    for chunk in _chunks(of_round):
        dictionaries = _dictionaries(who, of_round, state, chunk)
        with jax.default_matmul_precision("highest"):
            evaluation = evaluate(jax.device_put(dictionaries), _batches(source.held_out(who.cells[chunk.cell].world)), 1)
        for i, place in enumerate(chunk.places):
            interrupts.raise_if_stop_requested("train: exported SAEs are kept")
            member = of_round.members[place]
            one = jax.tree.map(lambda a, i=i: a[i], dictionaries)
            home = _home(folder, who.cells[chunk.cell])
            saelens.save(home / "sae" / f"seed-{member.seed}", one, _metadata(who, member, source.hook))
            if who.rounds.export_sparsify:
                sparsify.save(_sparsify(home, source.hook, member.seed), one)
            records.append(
                {
                    "cell": chunk.cell,
                    "seed": member.seed,
                    "frozen_at_step": int(frozen_at[place]) if frozen_at[place] >= 0 else None,
                    "explained_variance": float(evaluation.explained_variance_S[i]),
                    "l0": float(evaluation.l0_S[i]),
                    "alive": int((evaluation.firings_SF[i] > 0).sum()),
                    "dead_share": float(evaluation.share_firing_less_than(1)[i]),
                }
            )
    files.write_record(of_round.folder / FINISHED, {"saes": records})


def _batches(held_out_ND: np.ndarray) -> Iterator[np.ndarray]:
    for i in range(0, len(held_out_ND), BATCH):
        interrupts.raise_if_stop_requested("train: its checkpoint is kept")
        yield held_out_ND[i : i + BATCH]


def finish(who: Population, folder: epath.Path, of_rounds: list[Round], hook: dict[str, Any]) -> list[epath.Path]:
    """Lists, metrics and summary of all rounds; the stage's results."""
    records = [record for r in of_rounds for record in r.records()]
    outputs = [folder / "plan.json", _merge_metrics(folder, of_rounds)]
    for index, cell in enumerate(who.cells):
        home = _home(folder, cell)
        entries = []
        for record in (r for r in records if r["cell"] == index):
            path = home / "sae" / f"seed-{record['seed']}"
            outputs += [path / "cfg.json", path / saelens.WEIGHTS, path / saelens.CHECKSUM]
            if who.rounds.export_sparsify:
                path = _sparsify(home, hook, record["seed"])
                outputs += [path / sparsify.CONFIG, path / sparsify.WEIGHTS, files.sidecar(path / sparsify.WEIGHTS)]
            name = f"sae/seed-{record['seed']}"
            entries.append({"seed": record["seed"], "path": name, "format": "saelens", "frozen_at_step": record["frozen_at_step"]})
        snapshots = []
        for step in who.train.snapshot_steps():
            tokens = step * who.train.batch_size
            paths = [c.snapshot(r.folder, tokens) for r in of_rounds for c in _chunks(r) if c.cell == index]
            outputs += [*paths, *map(files.sidecar, paths)]
            parent = "" if home == folder else "../../"
            snapshots.append({"tokens": tokens, "paths": [parent + str(p.relative_to(folder)) for p in paths]})
        tokens = who.train.steps * who.train.batch_size
        training = {"variant": who.sae.variant, "k": cell.k, "tokens": tokens, "differ_in": who.differ_in}
        dictionary_list.write(home / "dictionaries.json", hook, training, entries, snapshots)
        outputs.append(home / "dictionaries.json")
    files.write_json(folder / "summary.json", _summary(who, records))
    return [*outputs, folder / "summary.json"]


class Chunk(NamedTuple):
    """Some SAEs of one cell and round.

    Attributes:
      cell: its number.
      part: place among the chunks of the cell in this round.
      places: of the SAEs in the round.
    """

    cell: int
    part: int
    places: list[int]

    def snapshot(self, folder: epath.Path, tokens: int) -> epath.Path:
        return folder / "snapshots" / f"cell-{self.cell}-part-{self.part}-tokens-{tokens:012d}.safetensors"


def _chunks(of_round: Round) -> list[Chunk]:
    chunks = []
    for cell in sorted({m.cell for m in of_round.members}):
        places = [i for i, m in enumerate(of_round.members) if m.cell == cell]
        chunks += [Chunk(cell, part, places[first : first + CHUNK]) for part, first in enumerate(range(0, len(places), CHUNK))]
    return chunks


def _dictionaries(who: Population, of_round: Round, state: TrainState, chunk: Chunk) -> Dictionary:
    """Those of a chunk for raw activations, copied to the host (the state's buffers will be donated)."""
    places = np.asarray(chunk.places)
    params, threshold = jax.tree.map(lambda a: np.array(a[places]), (state.params, state.control.threshold))
    cell = who.cells[chunk.cell]
    dictionaries = jax.tree.map(np.asarray, variant(who.sae.variant).to_dictionary(params, of_round.scale, cell.k, threshold))
    return first_features(dictionaries, cell.n_features) if cell.n_features else dictionaries


def _home(folder: epath.Path, cell: Cell) -> epath.Path:
    return folder / "cells" / cell.name if cell.name else folder


def _sparsify(home: epath.Path, hook: dict[str, Any], seed: int) -> epath.Path:
    """Where sparsify looks for one of several seeds of a hookpoint."""
    point = hook["site"] if hook["layer"] is None else f"layers.{hook['layer']}"
    return home / "sparsify" / point / f"seed{seed}"


def _metadata(who: Population, member: Member, hook: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_name": hook["path"],
        "hook_name": dictionary_list.hook_name(hook),
        **who.dataset,
        **dictionary_list.loading_of(hook),
        "training_architecture": who.sae.variant,
        "seed": member.seed,
        "initialisation_seed": member.init_seed,
        "data_order_seed": member.order_seed,
        "half_of_documents": member.half,
        "training_tokens": who.train.steps * who.train.batch_size,
    }


def _merge_metrics(folder: epath.Path, of_rounds: list[Round]) -> epath.Path:
    """One record a step with the SAEs of all rounds in order."""
    every = [files.read_json_lines(r.folder / "metrics.jsonl") for r in of_rounds]
    lines = []
    for records in zip(*every, strict=True):
        merged: dict[str, Any] = {name: sum((r[name] for r in records), []) for name in records[0] if name != "step"}
        lines.append(files.json_line({"step": records[0]["step"], **merged}))
    files.write_bytes(folder / "metrics.jsonl", "".join(lines).encode())
    return folder / "metrics.jsonl"


def _summary(who: Population, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Per cell the figures of its SAEs, with who was frozen, missed the target L0 or has fewer live features than K; all are named."""
    out = []
    for index, cell in enumerate(who.cells):
        own = [r for r in records if r["cell"] == index]
        good = [r for r in own if r["frozen_at_step"] is None]
        frozen = [r["seed"] for r in own if r["frozen_at_step"] is not None]
        aimed = who.sae.controlled or not variant(who.sae.variant).penalised
        missed = [r["seed"] for r in good if aimed and abs(r["l0"] / cell.k - 1) > L0_TOLERANCE]
        few = [r["seed"] for r in good if r["alive"] < cell.k]
        where = f" ({cell.name})" if cell.name else ""
        for seeds, what in (
            (frozen, "were not finite and stood still from there: lower config.train.lr"),
            (missed, f"miss the target L0 of {cell.k} by more than {L0_TOLERANCE:.0%}: train longer, or look at config.sae.control_rate"),
            (few, f"have fewer features that fire than config.sae.k={cell.k}: lower k or the learning rate"),
        ):
            if seeds:
                print(f"warning: seeds {', '.join(map(str, seeds))}{where} {what}")
        figures = {
            name: _estimate(np.array([r[name] for r in good], float), CONFIDENCE, unit, null, bounds)
            for name, unit, null, bounds in (
                ("explained_variance", "share", 0.0, (-np.inf, 1.0)),
                ("l0", "features per token", None, (0.0, np.inf)),
                ("dead_share", "share", None, (0.0, 1.0)),
            )
        }
        knobs = {"lr": cell.lr, "k": cell.k, "sparsity": cell.sparsity if variant(who.sae.variant).penalised else None}
        named = {"frozen_seeds": frozen, "seeds_off_target_l0": missed, "seeds_with_fewer_live_features_than_k": few}
        out.append({"cell": cell.name, **knobs, **named, **figures, "per_seed": own})
    if len(who.cells) > 1:
        _print_cells(out)
    return {"cells": out}


def _estimate(values_S: np.ndarray, confidence: float, unit: str, null: float | None, bounds: tuple[float, float]) -> dict[str, Any]:
    return aggregates.jackknifed(lambda w: seed_mean(values_S, w), len(values_S), confidence, null=null, unit=unit, bounds=bounds).as_dict()


def _print_cells(cells: list[dict[str, Any]]) -> None:
    print(f"{'cell':32} {'EV':>8} {'L0':>8}")
    for c in cells:
        ev, l0 = c["explained_variance"]["value"], c["l0"]["value"]
        print(f"{c['cell']:32} {ev if ev is None else round(ev, 4):>8} {l0 if l0 is None else round(l0, 2):>8}")
