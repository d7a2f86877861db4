"""Controls of the synthetic model: is a crowded block's instability due to its rank, to rarity, or to the optimiser?

Command:   python -m launch.main --config=configs/synthetic_controls.py --workdir=runs/synthetic_controls
Argument:  `:tiny` is the same in seconds, for tests; its figures mean nothing.

A world of half the reference's size (width 64; 128 free atoms, 3 active; 192 atoms in a block of rank 12, 2 active; F = 320, K = 5), and
beside it worlds and SAEs that differ in one respect. Every cell is also trained from the truth.

What should be seen: the same atoms at full rank are found one by one; in the block they are not, whether K and F are right or wrong. Not yet measured at
full size with these settings.
"""

import ml_collections

from configs import common

CELLS: dict[str, dict[str, dict[str, object]]] = {
    "reference": {},
    "full rank": {"synthetic": {"block_rank": 0, "orthogonal": False}},  # the same atoms at the same rate, anywhere
    "frequent": {"synthetic": {"block_active": 6}, "sae": {"k": 9}},  # the same rank, three times the rate, three times as many at once
    "rare": {"synthetic": {"block_presence": 0.33}},  # a third of the rate, as many at once where there are any
    "K 3": {"sae": {"k": 3}},
    "K 10": {"sae": {"k": 10}},
    "F 160": {"sae": {"n_features": 160, "aux_k": 96}},
    "F 640": {"sae": {"n_features": 640, "aux_k": 480}},
    "four times the data": {"train": {"tokens": 4 * 4000 * 256}},
}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.synthetic_grid()
    c.seeds = (6,)
    cells = CELLS
    if arg == "tiny":
        common.tiny_grid(c)
        cells = {
            "reference": {},
            "full rank": {"synthetic": {"block_rank": 0, "orthogonal": False}},
            "frequent": {"synthetic": {"block_active": 3}, "sae": {"k": 5}},
            "rare": {"synthetic": {"block_presence": 0.33}},
            "F 20": {"sae": {"n_features": 20}},
            "four times the data": {"train": {"tokens": 4 * c.train.tokens}},
        }
    elif arg:
        raise ValueError(f"--config=configs/synthetic_controls.py:{arg}: the only argument is 'tiny'")
    for name, changes in cells.items():
        c.cells[name] = changes
    c.reference = "reference"
    c.contrasts = (
        ("rank", "full rank", "reference"),
        ("rarity", "rare", "reference"),
        ("crowding", "frequent", "reference"),
        ("data", "four times the data", "reference"),
    )
    return c
