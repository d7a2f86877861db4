"""The synthetic identifiability model at its reference point: atoms crowded into a low-rank block beside atoms in general position.

Command:   python -m launch.main --config=configs/synthetic.py --workdir=runs/synthetic
Argument:  `:tiny` is the same in seconds, for tests; its figures mean nothing.

What should be seen: free atoms are found one by one in every seed; atoms of the block are not, and its latents differ between seeds, but the
plane that they span is the planted one.

Measured on two busy cores of an AMD EPYC, Python 3.11, jax 0.10.2 (November 2026): 18 minutes of training; on a quiet machine it was not timed.
8 seeds; latents that fire, means over seeds; chance in brackets. Computed from that run's dictionaries when the stage `recovery` still
counted dead latents too; it now leaves them out, and has not been run again at this size.

  explained variance 0.865, dead latents 41 %
  free atoms: found at cosine 0.9: 100 %, p̂(0.9) = 1.000 (256 latents)
  block: 123 latents, atoms found 9.9 %, p̂(0.9) = 0.074, p̂(0.7) = 0.477 [closed form, 123 latents in rank 24: 0.006]
  top-24 plane of latents with p̂(0.7) < 0.5: overlap between seeds 0.991, with the planted plane 0.996 [random planes 0.19]
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.synthetic_study()
    if arg == "tiny":
        w = c.synthetic
        w.width, w.free_atoms, w.free_active, w.block_rank, w.block_atoms, w.block_active = 24, 20, 2, 4, 24, 1
        c.seeds = (3,)
        c.sae.n_features, c.sae.k, c.sae.aux_k, c.sae.dead_after_tokens = 48, 3, 24, 5000
        c.train.tokens, c.train.batch_size, c.train.steps_per_dispatch, c.train.checkpoint_every = 120_000, 128, 8, 80
        c.train.snapshots, c.train.eval_rows = 4, 4000
        c.stability.null_draws, c.stability.curve_rows, c.stability.rare_firings = 2, 1000, 5
        c.subspace.min_features, c.subspace.subsamples, c.subspace.ranks, c.subspace.headline_rank = 3, 3, (1, 2, 4), 2
    elif arg:
        raise ValueError(f"--config=configs/synthetic.py:{arg}: the only argument is 'tiny'")
    return c
