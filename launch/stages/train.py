"""Stage: trains every SAE of the roster, as many at a time as fit, and exports them with the lists of them.

plan.json                the scale of the activations and who is trained in which round; what a resumed run goes by
round-0/                 checkpoints, metrics, dictionaries along training, and finished.json once its SAEs are exported
sae/seed-0/ …            SAELens' format; with a sweep below cells/<name>/
dictionaries.json        what belongs together; with a sweep one for every cell
metrics.jsonl            of all rounds
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from activations.stream import Stream
from launch import checkpoints, export, grid, roster, signals, sources
from launch.checkpoints import Checkpoints
from launch.loop import LoopPlan, run_loop
from launch.mesh import make_mesh, over_seeds, replicated
from launch.metrics import MetricsWriter, WallTimes
from launch.roster import Member
from saes import capacity
from saes.autoencoder import Knobs
from saes.lanes import LanePlan, init_lanes, initial_keys, make_train_steps, plan_lanes
from saes.preprocessing import geometric_median, norm_scale
from saes.step import TrainState
from storage import files

PLAN = "plan.json"
CHECKPOINTS = "checkpoints"  # of a round, while it trains
REPEATS = 1.1  # passes over the rows from which it is said how many


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    _warn_of_copies(roster.members(config))
    source = sources.source(config, workdir)
    if isinstance(source, sources.StoredSource) and config.train.tokens > REPEATS * source.rows:
        passes = config.train.tokens / source.rows
        print(f"train: {source.rows:,} rows for {config.train.tokens:,} tokens: each is seen about {passes:.1f} times")
    return train_everyone(config, workdir / "train", source, "train")


Start = Callable[[TrainState, LanePlan, list[Member], float], TrainState]


def train_everyone(
    config: Any, folder: epath.Path, source: sources.Source, what: str, scale: float | None = None, start: Start | None = None
) -> list[epath.Path]:
    """Every SAE of the config's roster on one source, into `folder`.

    Args:
      what: its name on the progress bar.
      scale: of the activations in training; None: that of the source.
      start: (first state, lanes, SAEs of the round, scale) → the state to begin with; None: as initialised.
    """
    everyone = roster.members(config)
    sources.for_members(source, everyone)  # what cannot be trained on is refused before anything is written
    plan = _plan(config, folder, source, everyone, scale)
    of_rounds = [export.Round(folder / f"round-{i}", everyone[a:b], plan["scale"]) for i, (a, b) in enumerate(plan["rounds"])]
    for index, of_round in enumerate(of_rounds):
        if not of_round.finished():
            signals.raise_if_stop_requested(f"{what}: finished rounds are kept")
            name = f"{what} {index + 1}/{len(plan['rounds'])}" if len(plan["rounds"]) > 1 else what
            state = _train(config, of_round, name, source, plan["width"], WallTimes(folder.parent / "wall_times.jsonl"), start)
            export.finish_round(config, of_round, state, source)
            del state
        checkpoints.remove(of_round.folder / CHECKPOINTS)  # exported: nobody goes on from them, and they are four times as large
    return export.finish(config, folder, of_rounds, source.hook)


def _warn_of_copies(everyone: list[Member]) -> None:
    seen: dict[tuple[Any, ...], int] = {}
    for m in everyone:
        if (first := seen.setdefault((m.cell, m.init_seed, m.order_seed, m.half), m.seed)) != m.seed:
            print(
                f"warning: seeds {first} and {m.seed} get the same initialisation, order and data, so they will be equal; "
                "what chance alone changes shows in two runs, not in two lanes"
            )
            return


def _plan(config: Any, folder: epath.Path, source: sources.Source, everyone: list[Member], scale: float | None) -> dict[str, Any]:
    """Made once: a run that goes on elsewhere, with other memory, keeps its rounds."""
    path, count = folder / PLAN, len(everyone)
    if not path.exists():
        platform, n_devices = jax.devices()[0].platform, jax.device_count()
        own_batches = len({(m.order_seed, m.half) for m in everyone}) > 1
        memory = capacity.device_memory()
        fits = capacity.choose(count, config.sae, config.train, source.width, n_devices, platform, memory, own_batches)
        rounds = [[first, min(first + fits.at_once, count)] for first in range(0, count, fits.at_once)]
        if len(rounds) > 1:
            print(f"train: {count} SAEs in {len(rounds)} rounds of up to {fits.at_once}")
        scale = norm_scale(source.sample()) if scale is None else scale
        files.write_record(path, {"scale": scale, "width": fits.width, "rounds": rounds})
    plan = read_plan(folder)
    if plan["rounds"][-1][1] != count:
        raise ValueError(f"{path} is not of {count} SAEs: train again with --overwrite")
    return plan


def read_plan(folder: epath.Path) -> dict[str, Any]:
    """scale, width, rounds of a training. Raises ValueError where the plan is damaged."""
    return files.read_record(folder / PLAN, "train again with --overwrite", unsealed={"scale", "width", "rounds"})


def _train(
    config: Any, of_round: export.Round, name: str, source: sources.Source, width: int, walls: WallTimes, start: Start | None
) -> TrainState:
    """One round from its newest good checkpoint to the end."""
    sae, train, members = config.sae, config.train, of_round.members
    mesh = make_mesh()
    plan = plan_lanes(len(members), jax.device_count(), width)
    of_member = sources.for_members(source, members)
    scale = np.float32(of_round.scale)
    state = _init(config, members, of_member, plan, scale, mesh)
    if hasattr(config, "cells") and isinstance(source, sources.SyntheticSource):
        state = grid.start(state, roster.cells(config), members, plan, of_member, source, float(scale))
    if start is not None:
        state = start(state, plan, members, float(scale))
    saved = Checkpoints(of_round.folder / CHECKPOINTS)
    restored = saved.restore_latest(state)
    state, step = restored if restored else (state, 0)
    shared = len({id(s) for s in of_member}) == 1

    def load(first: int, count: int) -> jax.Array:
        read = lambda s: (s.rows(first * train.batch_size, count * train.batch_size) * scale).reshape(count, train.batch_size, -1)
        if shared:
            return jax.device_put(read(of_member[0]), replicated(mesh))
        lanes: dict[int, list[int]] = {}
        for lane, m in enumerate(plan.members):
            lanes.setdefault(id(of_member[m]), []).append(lane)
        batches = np.empty((len(plan.members), count, train.batch_size, source.width), np.float32)
        for s in {id(s): s for s in of_member}.values():
            batches[lanes[id(s)]] = read(s)
        return jax.device_put(batches, over_seeds(mesh))

    def on_state(step: int, state: TrainState) -> dict[str, Any]:
        if step in train.snapshot_steps():
            export.save_snapshot(config, of_round, state, step * train.batch_size)
        return {}

    if step == 0:
        on_state(0, state)
    state = run_loop(
        LoopPlan(name, train.steps, train.steps_per_dispatch, train.checkpoint_every, train.batch_size),
        state,
        step,
        load=load,
        dispatch=make_train_steps(plan, sae, train, mesh, own_batches=not shared),
        checkpoints=saved,
        metrics=MetricsWriter(of_round.folder / "metrics.jsonl", step, width=len(members)),
        walls=walls,
        on_state=on_state,
        headline=lambda m: f"EV {np.mean(m['explained_variance']):.3f}, L0 {np.mean(m['l0']):.1f}, dead {np.mean(m['dead_fraction']):.1%}",
    )
    saved.close()
    return state


def _init(config: Any, members: list[Member], of_member: list[Stream], plan: LanePlan, scale: np.float32, mesh: Any) -> TrainState:
    """Every lane's first state: keys by initialisation seed, the decoder bias from the first batch of its own stream."""
    cells = roster.cells(config)
    medians = {
        id(s): np.asarray(geometric_median(jnp.asarray(scale * s.rows(0, config.train.batch_size))))
        for s in {id(s): s for s in of_member}.values()
    }
    lanes = [members[m] for m in plan.members]
    knobs = Knobs(
        lr=np.array([cells[m.cell].lr for m in lanes], np.float32),
        k=np.array([cells[m.cell].k for m in lanes], np.int32),
        sparsity=np.array([cells[m.cell].sparsity for m in lanes], np.float32),
        decoder_rate=np.ones(len(lanes), np.float32),
    )
    b_dec_SD = jnp.asarray(np.stack([medians[id(of_member[m])] for m in plan.members]))
    keys = initial_keys(np.array([m.init_seed for m in lanes]))
    return init_lanes(config.sae, config.train, mesh, keys, knobs, b_dec_SD)
