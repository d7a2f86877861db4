"""Test bench of the atlas and the diagnosis: worlds in which everything that makes features unstable is planted.

Command:   python -m launch.main --config=configs/synthetic_causes.py --workdir=runs/synthetic_causes
Argument:  `:tiny` is the same in seconds, for tests; its figures mean nothing.
"""

import ml_collections

from configs import common

TUNED_ON: dict[str, dict[str, dict[str, object]]] = {
    "rank 16, tuned on": {"synthetic": {"block_rank": 16, "seed": 16}},
    "rank 24, tuned on": {"synthetic": {"block_rank": 24, "seed": 24}},
}
SCORED: dict[str, dict[str, dict[str, object]]] = {
    "rank 14": {"synthetic": {"block_rank": 14, "seed": 101}},
    "rank 18": {"synthetic": {"block_rank": 18, "seed": 102}},
    "rank 20": {"synthetic": {"block_rank": 20, "seed": 103}},
    "rank 26": {"synthetic": {"block_rank": 26, "seed": 104}},
    "no block": {"synthetic": {"block_rank": 0, "orthogonal": False, "seed": 105}},  # the same atoms at the same rates, anywhere
    "pairs": {"synthetic": {"block_rank": 20, "coactivation": 0.8, "seed": 106}, "sae": {"k": 6}},  # atoms that fire together
    "rare atoms": {"synthetic": {"block_rank": 20, "zipf": 1.0, "seed": 107}},  # the last of 128 fires in 0.2 % of tokens
}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.synthetic_grid()
    c.stages = ("grid", "causes")
    c.seeds = (8,)
    c.starts = ("random",)
    world = c.synthetic
    world.width, world.free_atoms, world.free_active = 96, 128, 1
    world.blocks, world.block_atoms, world.block_active, world.block_presence = 2, 160, 2, 0.3  # seldom both at once, or latents mix them
    c.sae.n_features, c.sae.k = 480, 5
    c.train.snapshots = 8
    c.train.eval_rows = 32_768
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
