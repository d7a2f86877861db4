"""Stage: what a pool is held against: SAEs with as many features as all those together that a pool takes.

train/   as what stage `train` leaves: one SAE for each of the two groups, of seeds of their own
"""

import dataclasses
from typing import Any

from etils import epath

from launch import sources
from launch.stages import train
from launch.stages.longer import own_seeds


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    size = dataclasses.replace(config.sae, n_features=config.sae.n_features * config.pool.group)
    of = dataclasses.replace(
        config,
        seeds=own_seeds(config),
        sae=size,
        train=dataclasses.replace(config.train, snapshots=2, eval_at_tokens=(), export_sparsify=False),
    )
    return train.train_everyone(of, workdir / "wider" / "train", sources.source(of, workdir), "wider")
