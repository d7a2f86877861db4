"""Stage: pools trained on, first with their decoder rows held, then with rows that move slowly.

held/, free/   as what stage `train` leaves: every pool that is tuned, of both groups, as seeds 0, 1, …; a pool that is not full has silent features behind its own.
               Those of the headline's curves are among them.
               Single SAEs, the first of each group, are trained on in the same way: what training on does by itself.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from launch import dictionary_list, pool_curves, sources
from launch.pools import FREE, HELD, SINGLE
from launch.stages import pool, train
from launch.stages.pool import Which
from saes.assembly import NEVER
from saes.dictionary import Dictionary, first_features
from saes.formats import saelens
from saes.lanes import LanePlan
from saes.step import TrainState
from saes.variants import variant
from storage import files


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    c, folder = config.pool, workdir / "finetune"
    source = sources.source(config, workdir)
    scale = train.read_plan(workdir / "train")["scale"]
    seeds = files.read_json(workdir / "pool" / "summary.json")["seeds"]
    wanted = [Which(kind, name) for kind in c.tuned for name in pool.NAMES]
    wanted += [Which(kind, name, s) for kind in c.tuned for name in pool.NAMES for s in seeds[name]]
    wanted += [Which(p.recipe.kind, name, point=p.name) for p in pool_curves.trained_on(config) for name in pool.NAMES]
    paths = {at: pool.path(workdir, at) for at in wanted}
    paths |= {Which(SINGLE, name): workdir / "train" / "sae" / f"seed-{seeds[name][0]}" for name in pool.NAMES}
    who = [at for at, path in paths.items() if path.exists()]
    begin = {at: saelens.load(paths[at])[0] for at in who}
    summary: dict[str, Any] = {}
    outputs = [folder / "summary.json"]
    for phase, rate, tokens in zip((HELD, FREE), (0.0, c.decoder_rate), c.tuning_tokens(config.train.tokens), strict=True):
        summary[phase] = [[*at, d.w_dec_FD.shape[0]] for at, d in begin.items()]
        files.write_json(folder / "summary.json", summary)
        length = dataclasses.replace(
            config.train,
            tokens=tokens,
            lr=c.tune_rate * config.train.peak_lr(config.sae.n_features),
            snapshots=2,
            eval_at_tokens=(),
            export_sparsify=False,
            halves=False,
        )
        of = dataclasses.replace(
            config,
            seeds=tuple(range(len(begin))),
            init_seed=-1,
            data_seed=max(0, config.data_seed),
            sae=dataclasses.replace(config.sae, sparsity_warmup_fraction=0.0),
            train=length,
        )
        outputs += train.train_everyone(
            of, folder / phase, source, f"finetune {phase}", scale, _starting(config, list(begin.values()), rate)
        )
        left = read(workdir, phase)
        for which in (w for w in begin if w not in left):
            print(f"finetune {phase}: {said(which)} was not finite in training and is left out: lower config.pool.tune_rate")
        begin = left
    return outputs


def said(which: Which) -> str:
    without = "" if which.without is None else f", without seed {which.without}"
    return f"{which.kind} of group {which.group}{without}{'' if which.point is None else f', {which.point}'}"


def read(workdir: epath.Path, phase: str) -> dict[Which, Dictionary]:
    """What a phase left, without the silent features, and without what was not finite in training.

    Raises:
      ValueError: nothing was.
    """
    folder = workdir / "finetune"
    tuned = files.read_json(folder / "summary.json")[phase]
    found = dictionary_list.load(folder / phase / dictionary_list.NAME, least=0, distinct=False)
    if not found.seeds:
        raise ValueError(f"{folder / phase}: nothing was finite in training: lower config.pool.tune_rate")
    left = {}
    for lane, d in zip(found.seeds, found.dictionaries, strict=True):
        *which, size = tuned[lane]
        left[Which(*which)] = dataclasses.replace(first_features(d, size), k=min(d.k, size))  # in topk no more can be active than there are
    return left


def _starting(config: Any, dictionaries: list[Dictionary], decoder_rate: float) -> train.Start:
    """Every lane's first state with the parameters of a dictionary; what there is room for behind its features never fires and never counts as dead."""

    def start(state: TrainState, plan: LanePlan, members: list[Any], scale: float) -> TrainState:
        params = {name: np.array(jax.device_get(leaf)) for name, leaf in vars(state.params).items()}
        idle = np.array(jax.device_get(state.idle_steps_F))
        for lane, m in enumerate(plan.members):
            d = dictionaries[members[m].seed]
            size = d.w_dec_FD.shape[0]
            for name, values in vars(variant(config.sae.variant).from_dictionary(d, scale)).items():
                at = (
                    (lane, slice(size))
                    if name.endswith(("_FD", "_F"))
                    else (lane, slice(None), slice(size))
                    if name.endswith("_DF")
                    else lane
                )
                params[name][at] = np.asarray(values)
                if name in ("b_enc_F", "b_gate_F"):
                    params[name][lane, size:] = NEVER
            idle[lane, size:] = -(2**30)
        put = lambda new, old: jax.device_put(jnp.asarray(new, old.dtype), old.sharding)
        on_device = state.params.replace(**{name: put(values, getattr(state.params, name)) for name, values in params.items()})
        rate = put(np.full(len(plan.members), decoder_rate), state.knobs.decoder_rate)
        return state.replace(params=on_device, knobs=state.knobs.replace(decoder_rate=rate), idle_steps_F=put(idle, state.idle_steps_F))

    return start
