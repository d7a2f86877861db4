"""Test bench of the atlas and the diagnosis: worlds in which everything that makes features unstable is planted.

Command:   python -m launch.main --config=configs/synthetic_causes.py --workdir=runs/synthetic_causes
Argument:  `:tiny` is the same in seconds, for tests; its figures mean nothing.

Worlds of width 96 with 128 free atoms and two blocks of 160 atoms each in low rank, of which a block's are there in 30 % of tokens; 8 SAEs of F = 448 each. The rules of the
atlas were chosen on worlds of other seeds (ranks 12, 16, 20 and 24, one to three blocks; two of them are cells here, not scored), and are scored on the others.

Measured on two cores of an AMD EPYC, Python 3.11, jax 0.10.2 (November 2026), other jobs beside it: grid 11 min, causes 2 min 25 s to 3 min 36 s.

  world        block  found at rank   overlap with the planted plane   spans between seeds (by chance)
  rank 14      1      14              0.999                            0.988 (0.157)
               2      14              0.998                            0.978 (0.157)
  rank 18      1      18              0.998                            0.966 (0.199)
               2      18              0.998                            0.965 (0.199)
  rank 20      1      20              0.998                            0.970 (0.220)
               2      20              0.997                            0.972 (0.219)
  rank 26      1      26              0.995                            0.969 (0.282)
               2      26              0.996                            0.967 (0.282)
  pairs        1      20              0.997                            0.958 (0.216)
               2      20              0.997                            0.871 (0.199)
  rare atoms   1      not found
               2      21              0.946                            0.757 (0.195)
  no block            no entry

So 10 of 12 blocks come back at their rank and at an overlap above 0.95, and there are as many entries as blocks in 5 of 6 worlds. Where atoms fire by Zipf's law most of a block's hardly ever do, and what is
left does not fill it. Four draws of turned dictionaries a world: no entry in any (`tests/stability/test_atlas.py`: none in 60 draws, and none in 180 anisotropic clouds). Clouds with the second moment
of a world's non-stable rows show none either, but for the worlds of rank 14 and 16, where that moment has an edge of its own: one entry, of the sum of both blocks.

Reasons of unstable latents, rows true, columns found; in brackets all cases, before them the clear ones (`config.causes`):

                          dead          rare or under-trained   split or absorbed   basis ambiguity   unexplained
  dead                    5395 (5395)   0                       0                   0                 0
  rare or under-trained   0             6231 (6231)             0                   0                 0
  split or absorbed       0             1 (3)                   5 (6)               0                 0
  basis ambiguity         0             9 (69)                  0                   70 (184)          0 (5)
  unexplained             0             0                       0                   0                 18 (19)

Of those whose cause is not simply seen (dead, rare and still moving are) 90 % of the clear cases are right, 93 of 103, and 73 % of all, 209 of 286. Latents that lie half in a block and half elsewhere are not clear.

Read before you quote: few of these latents are unstable and alive, since block latents mostly have a partner in some seed. A first run, with other seeds, F = 480 and the usual cut-off of 100 firings for rare,
called most latents of blocks rare (their atoms fire on some 120 of the tokens), and counted latents that match nothing and still move as unexplained; the cut-off and what is true of those were settled after it, with its
figures in sight. So were `atlas.min_separation` and `atlas.gap`, raised for clouds without structure; no entry here changed by it. A cleaner test, with every cause planted in the rows themselves, is `tests/experiments/subspaces/test_atlas_stages.py`.
"""

import ml_collections

from configs import common, default

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
    wanted = default.of_stages("grid", "causes", "stability", "atlas", "diagnosis")
    for name in ("causes", "stability", "atlas", "diagnosis", "tuned_on"):
        c[name] = wanted[name]
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
