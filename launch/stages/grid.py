"""Stage: trains SAEs on every cell of a grid of worlds; cells of equal shape in one program.

group-0/train/cells/<cell> from <start>/   as what stage `train` leaves of the cell of a sweep
"""

from typing import Any

from etils import epath

from launch import grid
from launch.stages import train


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    outputs = []
    groups = grid.groups(config)
    for i, group in enumerate(groups):
        print(f"grid: group {i + 1} of {len(groups)}, {len(group.cells)} worlds, F up to {group.sae.n_features}, {group.train.steps} steps")
        folder = workdir / "grid" / f"group-{i}"
        folder.mkdir(parents=True, exist_ok=True)
        outputs += train.run(group, folder)
    return outputs
