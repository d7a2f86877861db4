"""Stage: pools trained on, first with their decoder rows held, then free.

held/, free/   as what stage `train` leaves: every pool that is tuned, of both groups, as seeds 0, 1, …
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from launch import dictionary_list, sources
from launch.stages import pool, train
from saes.dictionary import Dictionary
from saes.formats import saelens
from saes.lanes import LanePlan
from saes.step import TrainState
from saes.variants import variant
from storage import files

HELD, FREE = "held", "free"


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    c = config.pool
    source = sources.source(config, workdir)
    scale = files.read_json(workdir / "train" / "plan.json")["scale"]
    begin = {at: saelens.load(pool.path(workdir, *at))[0] for at in tuned(config) if pool.path(workdir, *at).exists()}
    small = [f"{kind}, {name}" for (kind, name), d in begin.items() if d.w_dec_FD.shape[0] < config.sae.n_features]
    if small or not begin:
        raise ValueError(
            f"config.sae.n_features={config.sae.n_features}: pools that are not full cannot be tuned ({', '.join(small)}): lower it, or leave the stage out"
        )
    outputs = [_names(workdir, list(begin))]
    dictionaries = list(begin.values())
    for phase, tokens, rate in ((HELD, c.held_tokens, 0.0), (FREE, c.free_tokens, 1.0)):
        length = dataclasses.replace(
            config.train, tokens=tokens or config.train.tokens // 4, lr=c.tune_rate * config.train.peak_lr(config.sae.n_features), snapshots=2, export_sparsify=False, halves=False
        )  # fmt: skip
        sae = dataclasses.replace(config.sae, sparsity_warmup_fraction=0.0)
        of = dataclasses.replace(
            config, seeds=tuple(range(len(dictionaries))), train=length, sae=sae, init_seed=-1, data_seed=max(0, config.data_seed)
        )
        folder = workdir / "finetune" / phase
        outputs += train.train_everyone(of, folder, source, f"finetune {phase}", scale, _starting(config, dictionaries, rate))
        dictionaries = list(dictionary_list.load(folder / dictionary_list.NAME).dictionaries)
        if len(dictionaries) < len(begin):
            raise ValueError("finetune: a pool was not finite: lower config.pool.tune_rate")
    return outputs


def tuned(config: Any) -> list[tuple[str, str]]:
    """(kind, group) of every pool that is tuned, in the order of their seeds."""
    return [(kind, name) for kind in config.pool.tuned for name in pool.NAMES]


def _names(workdir: epath.Path, who: list[tuple[str, str]]) -> epath.Path:
    files.write_json(workdir / "finetune" / "summary.json", {"tuned": [list(at) for at in who]})
    return workdir / "finetune" / "summary.json"


def _starting(
    config: Any, dictionaries: list[Dictionary], decoder_rate: float
) -> Callable[[TrainState, LanePlan, list[Any], float], TrainState]:
    """Every lane's first state with the parameters of a dictionary."""

    def start(state: TrainState, plan: LanePlan, members: list[Any], scale: float) -> TrainState:
        own = [variant(config.sae.variant).from_dictionary(dictionaries[members[m].seed], scale) for m in plan.members]
        stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf, np.float32) for leaf in leaves]), *own)
        put = lambda new, old: jax.device_put(jnp.asarray(new, old.dtype), old.sharding)
        params = jax.tree.map(put, stacked, state.params)
        rate = put(np.full(len(plan.members), decoder_rate), state.knobs.decoder_rate)
        return state.replace(params=params, knobs=state.knobs.replace(decoder_rate=rate))

    return start
