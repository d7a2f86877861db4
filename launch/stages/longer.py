"""Stage: what a pool is held against: SAEs trained on as many tokens as all those together that a pool takes, and as it is trained on itself.

train/   as what stage `train` leaves: one SAE for each of the two groups, of seeds of their own
"""

import dataclasses
from typing import Any

from etils import epath

from launch import sources
from launch.stages import train


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    tuning = sum(config.pool.tuning_tokens(config.train.tokens))
    length = dataclasses.replace(
        config.train, tokens=config.train.tokens * config.pool.group + tuning, snapshots=2, eval_at_tokens=(), export_sparsify=False
    )
    of = dataclasses.replace(config, seeds=own_seeds(config), train=length)
    return train.train_everyone(of, workdir / "longer" / "train", sources.source(of, workdir), "longer")


def own_seeds(config: Any) -> tuple[int, int]:
    """Two that nobody else has."""
    first = max(config.seed_list) + 1
    return first, first + 1
