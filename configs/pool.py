"""Pools of features of many seeds, on the embedded language model, or in a world of known atoms.

Command:   python -m launch.main --config=configs/pool.py --workdir=runs/pool
Argument:  `:synthetic` is the reference world instead; `:tiny`, `:synthetic-tiny` are the same in a minute, for tests; their figures mean nothing.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    if arg not in ("", "tiny", "synthetic", "synthetic-tiny"):
        raise ValueError(f"--config=configs/pool.py:{arg}: the arguments are 'tiny', 'synthetic' and 'synthetic-tiny'")
    if arg.startswith("synthetic"):
        c = common.synthetic_study()
        c.train.tokens = 3000 * 512
    else:
        c = common.study()
        c.source.tokens = 1_250_000
        c.train.tokens, c.train.lr = 1_200_000, 6e-3  # as the quickstart's
    common.pool(c)
    c.seeds = tuple(range(100, 121))  # rules, kinds and rates were settled on seeds 0 to 20
    c.train.snapshots = 2
    if arg.endswith("tiny"):
        _shrink(c)
    return c


def _shrink(c: ml_collections.ConfigDict) -> None:
    if "source" in c:
        c.source.tokens, c.source.eval_tokens, c.source.context_length = 6_000, 2_000, 64
    else:
        world = c.synthetic
        world.width, world.free_atoms, world.free_active, world.block_rank, world.block_atoms, world.block_active = 24, 16, 2, 3, 12, 2
    c.seeds = (9,)
    c.sae.n_features, c.sae.k, c.sae.aux_k = 32, 4, 8
    c.train.tokens, c.train.batch_size, c.train.steps_per_dispatch, c.train.checkpoint_every, c.train.eval_rows = 6_000, 64, 8, 80, 512
    c.train.lr = 1e-2
    c.pool.group, c.pool.sizes, c.pool.thetas, c.pool.features, c.pool.span_rank = 3, (3,), (0.6, 0.8), (16,), 2
    c.pool.rows = c.pool.eval_rows = 1024
    c.pool.predictions = 200
