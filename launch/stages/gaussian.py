"""Stage: SAEs trained on Gaussian activations of the same mean and covariance, as the others in all else: a null model.

train/   as what stage `train` leaves
"""

import dataclasses
from typing import Any

from etils import epath

from launch import sources
from launch.stages import train


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    data = dataclasses.replace(config.train, data="gaussian", halves=False, snapshots=2, export_sparsify=False)
    of_null = dataclasses.replace(config, seeds=(config.gaussian_seeds,), train=data)
    return train.train_everyone(of_null, workdir / "gaussian" / "train", sources.source(of_null, workdir), "gaussian")
