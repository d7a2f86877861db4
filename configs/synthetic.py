"""The synthetic identifiability model at its reference point: atoms crowded into a low-rank block beside atoms in general position.

Command:   python -m launch.main --config=configs/synthetic.py --workdir=runs/synthetic
Argument:  `:tiny` is the same in seconds, for tests; its figures mean nothing.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.synthetic_study()
    if arg == "tiny":
        w = c.synthetic
        w.width, w.free_atoms, w.free_active, w.block_rank, w.block_atoms, w.block_active = 24, 20, 2, 4, 24, 1
        c.seeds = (3,)
        c.sae.n_features, c.sae.k, c.sae.dead_after_tokens = 48, 3, 5000
        c.train.tokens, c.train.batch_size, c.train.steps_per_dispatch, c.train.checkpoint_every = 120_000, 128, 8, 80
        c.train.snapshots, c.train.eval_rows = 4, 4000
        c.stability.null_draws, c.stability.curve_rows, c.stability.rare_firings = 2, 1000, 5
        c.subspace.min_features, c.subspace.subsamples, c.subspace.ranks, c.subspace.headline_rank = 3, 3, (1, 2, 4), 2
    elif arg:
        raise ValueError(f"--config=configs/synthetic.py:{arg}: the only argument is 'tiny'")
    return c
