"""Stage: trains the SAEs of all seeds together and exports them, with the list of them in `dictionaries.json`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from activations.contexts import shuffled_positions
from activations.store import ActivationStore
from launch import dictionary_list
from launch.checkpoints import Checkpoints
from launch.loop import LoopPlan, run_loop
from launch.mesh import make_mesh, replicated
from launch.metrics import MetricsWriter, WallTimes
from saes.dictionary import Dictionary
from saes.formats import saelens, stacked
from saes.preprocessing import geometric_median, norm_scale
from saes.step import TrainState, init_seeds, make_train_steps, plan_seeds
from saes.variants import variant

SCALE_ROWS = 65_536  # rows from which the scale is estimated


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    sae, train = config.sae, config.train
    folder = workdir / "train"
    store = ActivationStore(workdir / "activations" / "train")
    acts_ND = store.load().acts_ND

    def rows(start: int, count: int) -> np.ndarray:
        return acts_ND[shuffled_positions(start, count, store.rows, config.data_seed)]

    scale = norm_scale(rows(0, min(SCALE_ROWS, store.rows)))
    mesh = make_mesh()
    plan = plan_seeds(config.seed_list, jax.device_count(), jax.devices()[0].platform, train.lanes)
    b_dec_D = geometric_median(jnp.asarray(scale * rows(0, train.batch_size)))
    state = init_seeds(plan, sae, train, b_dec_D, mesh)
    checkpoints = Checkpoints(folder / "checkpoints")
    restored = checkpoints.restore_latest(state)
    state, step = restored if restored else (state, 0)

    def load(first: int, count: int) -> jax.Array:
        batches = rows(first * train.batch_size, count * train.batch_size) * np.float32(scale)
        return jax.device_put(batches.reshape(count, train.batch_size, -1), replicated(mesh))

    def on_state(step: int, state: TrainState) -> dict[str, Any]:
        if step in train.snapshot_steps():
            stacked.save(_snapshot(folder, step * train.batch_size), _dictionaries(state, config, scale))
        return {}

    if step == 0:
        on_state(0, state)
    schedule = LoopPlan("train", train.steps, train.steps_per_dispatch, train.checkpoint_every, train.batch_size)
    state = run_loop(
        schedule,
        state,
        step,
        load=load,
        dispatch=make_train_steps(plan, sae, train, mesh),
        checkpoints=checkpoints,
        metrics=MetricsWriter(folder / "metrics.jsonl", step, width=len(config.seed_list)),
        walls=WallTimes(workdir / "wall_times.jsonl"),
        on_state=on_state,
        headline=lambda m: f"EV {np.mean(m['explained_variance']):.3f}, dead {np.mean(m['dead_fraction']):.1%}",
    )
    checkpoints.close()
    return _export(config, folder, state, scale, store)


def _dictionaries(state: TrainState, config: Any, scale: float) -> Dictionary:
    """All seeds as dictionaries for raw activations, on the host, dummy lanes dropped."""
    params = jax.device_get(jax.tree.map(jnp.copy, state.params))
    params = jax.tree.map(lambda a: a[: len(config.seed_list)], params)
    return variant(config.sae.variant).to_dictionary(params, config.sae, scale)


def _snapshot(folder: epath.Path, tokens: int) -> epath.Path:
    return folder / "snapshots" / f"tokens-{tokens:012d}.safetensors"


def _export(config: Any, folder: epath.Path, state: TrainState, scale: float, store: ActivationStore) -> list[epath.Path]:
    """Every seed in SAELens' format, the list of them, and which seeds were frozen."""
    train, seeds = config.train, config.seed_list
    dictionaries = _dictionaries(state, config, scale)
    frozen_at = np.asarray(jax.device_get(state.frozen_at))[: len(seeds)]
    hook = store.manifest["hook"]
    outputs, entries = [], []
    for i, seed in enumerate(seeds):
        path = folder / "sae" / f"seed-{seed}"
        metadata = {
            "model_name": hook["path"],
            "hook_name": f"blocks.{hook['layer']}.hook_{hook['site']}",
            "context_size": config.source.context_length,
            "prepend_bos": True,
            "dataset_path": "Python standard library",
            "training_architecture": config.sae.variant,
            "seed": seed,
            "training_tokens": train.steps * train.batch_size,
        }
        saelens.save(path, jax.tree.map(lambda a, i=i: a[i], dictionaries), metadata)
        outputs += [path / "cfg.json", path / saelens.WEIGHTS, path / saelens.CHECKSUM]
        frozen = int(frozen_at[i]) if frozen_at[i] >= 0 else None
        entries.append({"seed": seed, "path": f"sae/seed-{seed}", "format": "saelens", "frozen_at_step": frozen})
        if frozen is not None:
            print(f"warning: seed {seed} was not finite at step {frozen} and stood still from there")
    tokens = [step * train.batch_size for step in train.snapshot_steps()]
    snapshots = [{"tokens": n, "path": str(_snapshot(folder, n).relative_to(folder))} for n in tokens]
    dictionary_list.write(folder / "dictionaries.json", hook, entries, snapshots)
    return [folder / "dictionaries.json", folder / "metrics.jsonl", *outputs, *(folder / s["path"] for s in snapshots)]
