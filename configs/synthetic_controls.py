"""Controls of the synthetic model: is a crowded block's instability due to its rank, to rarity, or to the optimiser?

Command:   python -m launch.main --config=configs/synthetic_controls.py --workdir=runs/synthetic_controls
Argument:  `:tiny` is the same in seconds, for tests; its figures mean nothing.

A world of half the reference's size (width 64; 128 free atoms, 3 active; 192 atoms in a block of rank 12, 2 active; F = 320, K = 5), and
beside it worlds and SAEs that differ in one respect. Every cell is also trained from the truth.

What should be seen: the same atoms at full rank are found one by one where the crowded block is found only as a plane; and each control says what
else p̂ depends on.

Measured on two cores of an AMD EPYC, Python 3.11, jax 0.10.2 (November 2026), linters and small tests beside it: 18 min 50 s (training 18 min 26 s,
verdicts 18 s, report 3 s), 1.8 GiB. 6 seeds from each of three starts, 1.0 M tokens. Of the block, random starts, means with 95 % intervals over seeds; span: overlap
of the top-12 plane with the planted one (chance 0.19; 1 at full rank); chance of p̂(0.9) and of finding an atom is at most 0.0012.

  cell                  p̂(0.9)                 atoms found            span    kept    gain     worth    leaving   verdict
  reference             0.261 [0.200, 0.322]   0.160 [0.134, 0.185]   0.998   0.03   −0.015   −0.006   −0.009    undecided
  full rank             0.429 [0.395, 0.464]   0.533 [0.514, 0.552]   1       1.00   +0.059   +0.058   +0.001    optimisation
  frequent              0.001 [0, 0.006]       0.006 [0.004, 0.008]   0.995   0.08   −0.001   −0.020   +0.019    the objective prefers another basis
  rare                  0.115 [0.030, 0.200]   0.029 [0.019, 0.038]   0.985   0.01   −0.002   −0.003   +0.001    degenerate tie
  K 3                   0.346 [0.294, 0.397]   0.321 [0.283, 0.360]   0.999   0.03   −0.019   −0.025   +0.006    the objective prefers another basis
  K 10                  0.016 [0, 0.036]       0.010 [0.002, 0.017]   0.980   0.32   −0.008   −0.017   +0.008    the objective prefers another basis
  F 160                 0.195 [0.062, 0.329]   0.047 [0.037, 0.057]   0.992   0.74   −0.103   −0.261   +0.158    the objective prefers another basis
  F 640                 0.341 [0.260, 0.422]   0.222 [0.209, 0.236]   0.998   0.17   −0.004   −0.016   +0.012    the objective prefers another basis
  four times the data   0.502 [0.406, 0.598]   0.286 [0.244, 0.328]   1.000   0.70   +0.014   +0.002   +0.012    optimisation

(kept: share of the block's atoms that SAEs started at the truth still hold; gain: their explained variance less that of random starts; worth: that of SAEs whose decoder is held at
the truth, less that of random starts; leaving: gain less worth. `synthetic/verdicts.py` has the rules.)

What it says. The span is found in every cell, whatever becomes of latents. Rank: full rank less reference, atoms found +0.373 [0.335, 0.411], p̂(0.9) +0.169 [0.091, 0.247]; even there random
starts miss half of the atoms, which the start at the truth keeps. Rarity: a third of the rate, p̂(0.9) −0.146 [−0.220, −0.072]. Crowding, three times as many at once: −0.260 [−0.318, −0.201].
Training length: four times the data, +0.241 [0.153, 0.330]. The verdict on the reference cell depends on it: after 1.0 M tokens SAEs have left the truth
and are worse for it, after 4.1 M they hold 70 % of its atoms and are better than random starts. So of the low-rank block's instability a part is optimisation that longer training mends; with a wrong
K or F, or six atoms at once, the objective itself prefers another basis. The number of seeds (2, 4, 6) moves no mean of p̂, while the share of
latents labelled unstable (at θ = 0.7) falls with it, from 0.27 over 0.12 to 0.09.
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
