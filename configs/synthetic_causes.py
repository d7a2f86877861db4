"""Test bench of the atlas and the diagnosis: worlds in which everything that makes features unstable is planted.

Command:   python -m launch.main --config=configs/synthetic_causes.py --workdir=runs/synthetic_causes
Argument:  `:tiny` is the same in seconds, for tests; its figures mean nothing.
"""

import ml_collections

from configs import common

TUNED_ON: dict[str, dict[str, dict[str, object]]] = {
    "tuned on rank 16": {"synthetic": {"block_rank": 16, "seed": 16}},
    "tuned on rank 24": {"synthetic": {"block_rank": 24, "seed": 24}},
}
SCORED: dict[str, dict[str, dict[str, object]]] = {
    "rank 14": {"synthetic": {"block_rank": 14, "seed": 201}},
    "rank 18": {"synthetic": {"block_rank": 18, "seed": 202}},
    "rank 20": {"synthetic": {"block_rank": 20, "seed": 203}},
    "rank 26": {"synthetic": {"block_rank": 26, "seed": 204}},
    "no block": {"synthetic": {"block_rank": 0, "orthogonal": False, "seed": 205}},  # the same atoms at the same rates, anywhere
    "pairs": {"synthetic": {"block_rank": 20, "coactivation": 0.8, "seed": 206}, "sae": {"k": 6}},  # atoms that fire together
    "rare atoms": {"synthetic": {"block_rank": 20, "zipf": 1.0, "seed": 207}},  # the last of 128 fires in 0.2 % of tokens
}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.synthetic_grid()
    c.stages = ("grid", "causes")
    c.seeds = (8,)
    c.starts = ("random",)
    world = c.synthetic
    world.width, world.free_atoms, world.free_active = 96, 128, 1
    world.blocks, world.block_atoms, world.block_active, world.block_presence = 2, 160, 2, 0.3  # seldom both at once, or latents mix them
    c.sae.n_features, c.sae.k = 448, 5
    c.train.snapshots = 8
    c.train.eval_rows = 32_768
    c.stability.rare_firings = 20  # an atom of a block fires on about 120 of these tokens
    tuned, scored = TUNED_ON, SCORED
    if arg == "tiny":
        common.tiny_grid(c)
        world.blocks, c.seeds, c.atlas.draws, c.atlas.null_draws = 1, (4,), 59, 2
        c.stability.rare_firings = 5
        tuned, scored = {"one": {}}, {"two": {"synthetic": {"seed": 2}}, "no block": {"synthetic": {"block_rank": 0, "orthogonal": False}}}
    elif arg:
        raise ValueError(f"--config=configs/synthetic_causes.py:{arg}: the only argument is 'tiny'")
    for name, changes in (tuned | scored).items():
        c.cells[name] = changes
    c.tuned_on = tuple(tuned)
    return c
