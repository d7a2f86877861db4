"""Stage: trains SAEs on every cell of a grid of worlds; cells of equal shape in one program.

group-0/train/cells/<cell> from <start>/   as what stage `train` leaves of the cell of a sweep
"""

from typing import Any

from etils import epath

from launch import grid
from launch.sources import SyntheticSource
from launch.stages import train
from saes.preprocessing import norm_scale


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    outputs = []
    scale = norm_scale(SyntheticSource(config).sample())  # one for all, so that no cell's training depends on who is in its group
    groups = grid.groups(config)
    for i, group in enumerate(groups):
        print(f"grid: group {i + 1} of {len(groups)}, {len(group.cells)} worlds, F up to {group.sae.n_features}, {group.train.steps} steps")
        folder = workdir / "grid" / f"group-{i}"
        folder.mkdir(parents=True, exist_ok=True)
        outputs += train.train_everyone(group, folder / "train", SyntheticSource(group), "train", scale)
    return outputs
