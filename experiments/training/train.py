"""Stage: trains every SAE of the study, as many at a time as fit, and exports them with the lists of them.

plan.json                the scale of the activations and who is trained in which round; what a resumed run goes by
round-0/                 checkpoints, metrics, dictionaries along training, and finished.json once its SAEs are exported
sae/seed-0/ …            SAELens' format; with a sweep below cells/<name>/
dictionaries.json        what belongs together; with a sweep one for every cell
metrics.jsonl            of all rounds
"""

import math
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from activations.stream import Stream
from experiments.data import sources
from experiments.data.corpora import Text
from experiments.data.costs import Cost, Hardware, Size
from experiments.data.dictionary_list import External
from experiments.data.harvesting import Harvesting
from experiments.data.own_arrays import OwnRows
from experiments.data.seeds import Seeds
from experiments.data.sources import Sampling, Source
from experiments.fields import check
from experiments.settings import OWN_PROCESS, Settings
from experiments.stage import Outputs, Stage, Task
from experiments.training import export, population
from experiments.training.population import Member, Population, Rounds, Sweep
from runtime import checkpoints, interrupts
from runtime.checkpoints import Checkpoints
from runtime.loop import LoopPlan, run_loop
from runtime.mesh import make_mesh, over_seeds, replicated
from runtime.metrics import MetricsWriter, WallTimes
from saes import capacity
from saes.autoencoder import Knobs
from saes.config import SAEConfig, TrainConfig
from saes.lanes import LanePlan, init_lanes, initial_keys, make_train_steps, plan_lanes
from saes.preprocessing import geometric_median, norm_scale
from saes.step import TrainState
from saes.variants import variant
from storage import files

PARAMETER_PASSES = 14  # of a parameter through memory in a step: gradients, projection, norm, Adam's moments, the new value
CODE_PASSES = 10  # of an array (batch, features) in a step
KEPT_CHECKPOINTS = 2  # at a time, of parameters and Adam's moments
DRAWING_SECONDS = 20e-9  # on a CPU, a Gaussian number drawn and given its covariance, at width 768

PLAN = "plan.json"
CHECKPOINTS = "checkpoints"  # of a round, while it trains
REPEATS = 1.1  # passes over the rows from which it is said how many

STAGE = Stage(
    config=TrainConfig,
    reads=(SAEConfig, Rounds, Sampling, Seeds, Sweep),
    optional=(Text, OwnRows, Harvesting),
    needs=("rows",),
    provides=("saes",),
    training=True,
    guarded=True,
)

Start = Callable[[TrainState, LanePlan, Sequence[Member], Sequence[Stream], float], TrainState]


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    sae, train, rounds, sampling, sweep = (
        task.section(SAEConfig),
        task.section(TrainConfig),
        task.section(Rounds),
        task.section(Sampling),
        task.section(Sweep),
    )
    check(
        rounds.checkpoint_every % train.steps_per_dispatch == 0, "train.checkpoint_every", rounds.checkpoint_every,
        f"must be a multiple of steps_per_dispatch={train.steps_per_dispatch}",
    )  # fmt: skip
    check(all(k <= sae.k for k in sweep.k), "sweep.k", sweep.k, f"at most sae.k={sae.k}, which sets the shapes")
    check(
        variant(sae.variant).penalised or not sweep.sparsity,
        "sweep.sparsity",
        sweep.sparsity,
        f"the variant {sae.variant!r} has no penalty",
    )
    check(
        not (sweep.sparsity and sae.controlled), "sweep.sparsity", sweep.sparsity,
        "the controller would drive all to the same L0: sae.control_rate=0 and sae.control_gain=0 fix the coefficient",
    )  # fmt: skip
    check(
        not rounds.export_sparsify or sae.variant == "topk", "train.export_sparsify", rounds.export_sparsify,
        "sparsify's format holds topk SAEs alone",
    )  # fmt: skip
    later = [name for name in task.settings.stages if name not in ("activations", "train")]
    check(
        not (sweep and later), "stages", task.settings.stages,
        "a sweep only trains; measure its cells with configs/compare.py, whose command the run prints",
    )  # fmt: skip
    external = task.settings.get(External)
    check(
        not (task.run and sampling.data == "gaussian" and external is not None and external.dictionaries), "stages", task.settings.stages,
        f"SAEs from elsewhere have no null trained as they were: leave {task.run!r} out",
    )  # fmt: skip
    if Text not in task.settings:
        check(sampling.data == "activations" and not sampling.halves, "train.data", sampling.data, "a world has no stored rows")


def run(task: Task, out: Outputs) -> None:
    who = population.of_study(task)
    if not (task.run and task.settings.runs[task.run].get(OWN_PROCESS)):  # such runs are equal on purpose
        _warn_of_copies(who.members)
    source = sources.source(task)
    if isinstance(source, sources.StoredSource) and who.train.tokens > REPEATS * source.rows:
        passes = who.train.tokens / source.rows
        print(f"train: {source.rows:,} rows for {who.train.tokens:,} tokens: each is seen about {passes:.1f} times")
    out.add(*train_all(who, task.folder, source, task.label if task.run else "train"))
    if len(who.cells) > 1:
        _print_commands(task, who)


def _print_commands(task: Task, who: Population) -> None:
    """How each cell of a sweep is measured."""
    rows = task.root / "activations" / "eval"
    flag = f" --config.source.activations={shlex.quote(str(rows))}" if "activations" in task.settings.stages else ""
    print("train: a cell is measured by")
    for cell in who.cells:
        saes, target = task.folder / "cells" / cell.name, task.root.with_name(f"{task.root.name}-{cell.name}")
        print(
            f"  python -m launch.main --config=configs/compare.py --config.saes={shlex.quote(str(saes))}{flag} --workdir={shlex.quote(str(target))}"
        )


def train_all(
    who: Population, folder: epath.Path, source: Source, what: str, scale: float | None = None, start: Start | None = None
) -> list[epath.Path]:
    """Every SAE of a population on one source, into `folder`; returns the files.

    Args:
      what: its name on the progress bar.
      scale: of the activations in training; None: that of the source.
      start: (first state, lanes, SAEs of the round, the stream of each, scale) → the state to begin with; None: as initialised.
    """
    population.streams(source, who.members)  # what cannot be trained on is refused before anything is written
    plan = _plan(who, folder, source, scale)
    of_rounds = [export.Round(folder / f"round-{i}", who.members[a:b], plan["scale"]) for i, (a, b) in enumerate(plan["rounds"])]
    for index, of_round in enumerate(of_rounds):
        if not of_round.finished():
            interrupts.raise_if_stop_requested(f"{what}: finished rounds are kept")
            name = f"{what} {index + 1}/{len(plan['rounds'])}" if len(plan["rounds"]) > 1 else what
            state = _train(who, of_round, name, source, plan["width"], WallTimes(folder.parent / "wall_times.jsonl"), start)
            export.finish_round(who, of_round, state, source)
            del state
        checkpoints.remove(of_round.folder / CHECKPOINTS)  # exported: nobody goes on from them, and they are four times as large
    return export.finish(who, folder, of_rounds, source.hook)


def _warn_of_copies(everyone: Sequence[Member]) -> None:
    first_seed: dict[tuple[Any, ...], int] = {}
    for m in everyone:
        if (first := first_seed.setdefault((m.cell, m.init_seed, m.order_seed, m.half), m.seed)) != m.seed:
            print(
                f"warning: seeds {first} and {m.seed} get the same initialisation, order and data, so they will be equal; "
                "what chance alone changes shows in two runs, not in two lanes"
            )
            return


def _plan(who: Population, folder: epath.Path, source: Source, scale: float | None) -> dict[str, Any]:
    """Made once: a run that goes on elsewhere, with other memory, keeps its rounds."""
    path, count = folder / PLAN, len(who.members)
    if not path.exists():
        platform, n_devices = jax.devices()[0].platform, jax.device_count()
        own_batches = len({(m.order_seed, m.half) for m in who.members}) > 1
        memory = capacity.device_memory()
        fits = capacity.choose(
            count, who.sae, who.train, source.width, n_devices, platform, memory, own_batches, who.rounds.lanes, who.rounds.seeds_at_once
        )
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
    who: Population, of_round: export.Round, name: str, source: Source, width: int, walls: WallTimes, start: Start | None
) -> TrainState:
    """One round from its newest good checkpoint to the end."""
    sae, train, members = who.sae, who.train, of_round.members
    mesh = make_mesh()
    plan = plan_lanes(len(members), jax.device_count(), width)
    of_member = population.streams(source, members)
    scale = np.float32(of_round.scale)
    state = _init(who, members, of_member, plan, scale, mesh)
    if start is not None:
        state = start(state, plan, members, of_member, float(scale))
    saved = Checkpoints(of_round.folder / CHECKPOINTS)
    restored = saved.restore_latest(state)
    state, step = restored if restored else (state, 0)
    shared = len({id(s) for s in of_member}) == 1

    def load(first: int, count: int) -> Any:
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
            export.save_snapshot(who, of_round, state, step * train.batch_size)
        return {}

    if step == 0:
        on_state(0, state)
    state = run_loop(
        LoopPlan(name, train.steps, train.steps_per_dispatch, who.rounds.checkpoint_every, train.batch_size),
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
    result: TrainState = state
    return result


def _init(
    who: Population, members: Sequence[Member], of_member: Sequence[Stream], plan: LanePlan, scale: np.float32, mesh: jax.sharding.Mesh
) -> TrainState:
    """Every lane's first state: keys by initialisation seed, the decoder bias from the first batch of its own stream."""
    medians = {
        id(s): np.asarray(geometric_median(jnp.asarray(scale * s.rows(0, who.train.batch_size))))
        for s in {id(s): s for s in of_member}.values()
    }
    lanes = [members[m] for m in plan.members]
    knobs = Knobs(
        lr=np.array([who.cells[m.cell].lr for m in lanes], np.float32),
        k=np.array([who.cells[m.cell].k for m in lanes], np.int32),
        sparsity=np.array([who.cells[m.cell].sparsity for m in lanes], np.float32),
        decoder_rate=np.ones(len(lanes), np.float32),
    )
    b_dec_SD = jnp.asarray(np.stack([medians[id(of_member[m])] for m in plan.members]))
    keys = initial_keys(np.array([m.init_seed for m in lanes]))
    return init_lanes(who.sae, who.train, mesh, keys, knobs, b_dec_SD)


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost:
    """What it takes to train every SAE of a study or run."""
    s, t, rounds_of, seeds = settings[SAEConfig], settings[TrainConfig], settings[Rounds], settings[Seeds]
    sweep, sampling = settings.get(Sweep), settings[Sampling]
    cells = math.prod(max(1, len(values)) for values in (sweep.lr, sweep.k, sweep.sparsity)) if sweep else 1
    count, width = len(seeds.list), size.width
    tokens = float(t.steps * t.batch_size) * count * cells
    dense = 2.0 * width * s.n_features
    gathers = s.variant == "topk" and hardware.platform == "cpu"  # codes as places: decoder and gradients touch K rows
    flops = tokens * (dense + 8.0 * s.k * width if gathers else 5 * dense)
    parameters = 2 * s.n_features * width
    moved = tokens * (4.0 * PARAMETER_PASSES * parameters / t.batch_size + 4.0 * CODE_PASSES * s.n_features)
    moved += tokens * (4.0 * 6 * s.k * width if gathers else 0.0)
    own = seeds.data_seed < 0 or sampling.halves
    fits = capacity.choose(
        count, s, t, width, hardware.devices, hardware.platform, hardware.memory, own, rounds_of.lanes, rounds_of.seeds_at_once
    )
    lane_bytes, work = capacity.bytes_per_lane(s, t, width, own)
    at_once = math.ceil(min(count, fits.at_once) / hardware.devices)
    memory = at_once * lane_bytes + min(at_once, fits.width) * work + (0 if own else capacity.bytes_of_batches(t, width))
    rounds = math.ceil(count / fits.at_once)
    disk = 4.0 * count * (parameters + 2 * s.n_features) * (1 + len(t.snapshot_steps()))  # exported, and along training
    disk += KEPT_CHECKPOINTS * 4 * 3.0 * parameters * min(count, fits.at_once)  # of the round that runs
    draw_seconds = DRAWING_SECONDS * width * t.steps * t.batch_size if hardware.platform == "cpu" and sampling.data == "gaussian" else 0.0
    note = f"{rounds} round{'s' * (rounds > 1)} of up to {min(count, fits.at_once)} SAEs"
    return Cost("train", tokens, flops, moved, disk, memory, "train", note, draw_seconds)
