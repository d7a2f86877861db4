"""Quickstart."""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.study()
    if arg == "tiny":
        c.source.tokens, c.source.eval_tokens, c.source.context_length = 4000, 2000, 64
        c.seeds = (3,)
        c.sae.n_features, c.sae.k, c.sae.dead_after_tokens = 64, 4, 5000
        c.train.tokens, c.train.batch_size, c.train.steps_per_dispatch, c.train.checkpoint_every = 20_000, 256, 4, 20
        c.train.snapshots = 4
        c.stability.bootstrap_draws, c.stability.null_draws, c.stability.curve_rows, c.stability.rare_firings = 50, 2, 1000, 5
        c.subspace.min_features, c.subspace.subsamples = 3, 3
        c.subspace.ranks, c.subspace.headline_rank = (1, 2, 4, 8), 2
    elif arg:
        raise ValueError(f"--config=configs/quickstart.py:{arg}: the only argument is 'tiny'")
    return c
