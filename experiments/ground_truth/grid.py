"""Stage: trains SAEs on every cell of a grid of worlds; cells of equal shape in one program.

group-0/train/cells/<cell> from <start>/   as what stage `train` leaves of the cell of a sweep
"""

from etils import epath

from experiments.data.seeds import Seeds
from experiments.data.sources import Sampling
from experiments.fields import check
from experiments.ground_truth import start
from experiments.ground_truth.cells import Grid, all_cells, cell_name, groups, source_of
from experiments.stage import Outputs, Stage, Task
from experiments.training import train
from experiments.training.population import Rounds
from saes.config import SAEConfig, TrainConfig
from saes.preprocessing import norm_scale
from synthetic.config import WorldConfig

STAGE = Stage(config=Grid, reads=(WorldConfig, SAEConfig, TrainConfig, Rounds, Sampling, Seeds), training=True, guarded=True)


def check_settings(task: Task) -> None:
    """What must hold between sections."""
    sampling, rounds = task.section(Sampling), task.section(Rounds)
    check(sampling.data == "activations" and not sampling.halves, "train.data", sampling.data, "a world has no stored rows")
    for cell in all_cells(task):
        each, variant = cell.train.steps_per_dispatch, cell.sae.variant
        check(
            rounds.checkpoint_every % each == 0, "train.checkpoint_every", rounds.checkpoint_every,
            f"must be a multiple of steps_per_dispatch={each}",
        )  # fmt: skip
        check(
            not rounds.export_sparsify or variant == "topk", "train.export_sparsify", rounds.export_sparsify,
            "sparsify's format holds topk SAEs alone",
        )  # fmt: skip


def run(task: Task, out: Outputs) -> None:
    scale = norm_scale(source_of(all_cells(task), task).sample())  # one for all, so that no cell's training depends on who is in its group
    every = groups(task)
    for i, group in enumerate(every):
        print(f"grid: group {i + 1} of {len(every)}, {len(group.cells)} worlds, F up to {group.sae.n_features}, {group.train.steps} steps")
        folder = task.folder / f"group-{i}"
        folder.mkdir(parents=True, exist_ok=True)
        source, who = group.source(task), group.population(task)
        out.add(*train.train_all(who, folder / "train", source, "train", scale, start.at_truth(who, source)))


def home(task: Task, group: int, cell: str, place: str) -> epath.Path:
    """Where the SAEs of a cell from one start are."""
    return task.path(f"grid/group-{group}/train/cells/{cell_name(cell, place)}")
