"""Pools of features of many seeds, on the embedded language model, or in a world of known atoms.

Command:   python -m launch.main --config=configs/pool.py --workdir=runs/pool
Argument:  `:synthetic` is the reference world instead; `:tiny`, `:synthetic-tiny` are the same in a minute, for tests; their figures mean nothing.

Three groups of 8 SAEs are pooled, 5 judge, and 5 are trained as long as a pool and its members together (11.1 M tokens): what C6 asks for. **C6: no.** Tuned pools of means are
far more stable than anything at equal compute, and explain 0.0126 less than SAEs trained as long, 0.01 being allowed.

Independent products (commit 44c57d6, seeds 100 to 128, two cores of an AMD EPYC, Python 3.11, jax 0.10.2; beside other work, so times are none): what two of them share, by chance 0.

                               n   of all features          of live features         live  explained variance       live, in SAEs trained as long
  single SAE                   5   0.383 [0.340, 0.426]     0.386 [0.342, 0.430]     494   0.859 [0.858, 0.859]     0.401 [0.386, 0.417]
  single SAE, tuned            3   0.379 [0.353, 0.405]     0.389 [0.333, 0.446]     493   0.862 [0.861, 0.862]     0.400 [0.382, 0.419]
  trained longer               5   0.432 [0.403, 0.460]     0.434 [0.403, 0.464]     497   0.866 [0.866, 0.866]     0.434 [0.403, 0.464]
  wider                        2   0.207                    0.450                    456   0.908 [0.898, 0.917]     0.400 [0.353, 0.447]
  random pool, tuned           3   0.292 [0.271, 0.312]     0.312 [0.264, 0.359]     483   0.846 [0.844, 0.848]     0.359 [0.342, 0.377]
  pool, tuned                  3   0.601 [0.573, 0.629]     0.664 [0.626, 0.703]     468   0.852 [0.850, 0.855]     0.541 [0.528, 0.554]
  pool of means                3   0.652 [0.627, 0.678]     0.737 [0.718, 0.755]     492   0.666 [0.611, 0.720]     0.580 [0.564, 0.596]
  pool of means, decoder held  3   0.650 [0.627, 0.672]     0.755 [0.732, 0.778]     469   0.817 [0.813, 0.822]     0.594 [0.570, 0.618]
  pool of means, tuned         3   0.632 [0.610, 0.655]     0.701 [0.676, 0.726]     467   0.854 [0.853, 0.854]     0.558 [0.543, 0.573]
  stable features              3   0.219 [0.184, 0.254]     0.808 [0.742, 0.875]     142   0.523 [0.510, 0.535]     0.946 [0.935, 0.957]

Tuned pools of means less SAEs trained longer: 0.200 [0.172, 0.229] of all features, 0.267 [0.236, 0.298] of live ones, -0.0126 [-0.0132, -0.0121] of explained variance; less single SAEs tuned alike: 0.253 [0.214, 0.292], 0.311 [0.276, 0.346], -0.0080 [-0.0090, -0.0071].

The figures below are of an earlier run with two groups, two such SAEs and seeds 100 to 120.

Measured on two cores of an Intel Xeon, Python 3.11, jax 0.10.2 (November 2026), in one run from nothing: activations 27 s, train 167 s, longer 148 s, wider 144 s, pool 24 s, finetune 418 s, pooled 262 s,
report 3 s: 20 min. Kinds, rates and the headline were chosen on seeds 0 to 20; these are seeds 100 to 120. Means over two groups of 8; p̂ against 5 fresh seeds; by chance 0.

                               features   p̂                      between groups         explained variance     CE recovered
  single SAE                   512        0.394 [0.387, 0.402]   0.391 [0.383, 0.398]   0.859 [0.858, 0.859]   0.974
  single SAE, tuned            512        0.385 [0.375, 0.395]   0.389                  0.862 [0.860, 0.864]   0.975
  trained longer (11 M tokens) 512        0.400 [0.386, 0.413]   0.426                  0.867 [0.866, 0.868]   0.978
  8 times wider                4,096      0.379 [0.369, 0.389]   0.463                  0.908 [0.904, 0.912]   0.989     (0.51 dead)
  bagging (L0 128)             4,096      0.394 [0.387, 0.402]   0.604 [0.593, 0.614]   0.908 [0.907, 0.909]   –
  random pool                  512        0.309 [0.290, 0.328]   0.243 [0.209, 0.276]   0.565 [0.534, 0.596]   0.836
  random pool, tuned           512        0.358 [0.346, 0.369]   0.356                  0.846 [0.829, 0.863]   0.971
  pool                         512        0.541 [0.518, 0.564]   0.708 [0.633, 0.783]   0.564 [0.503, 0.625]   0.909
  pool, decoder held           512        0.552 [0.528, 0.576]   0.695 [0.620, 0.770]   0.802 [0.801, 0.803]   0.957
  pool, tuned                  512        0.534 [0.516, 0.552]   0.692                  0.852 [0.850, 0.855]   0.973
  pool of means                512        0.577 [0.552, 0.603]   0.760 [0.682, 0.838]   0.649 [0.589, 0.708]   0.913
  pool of means, decoder held  512        0.593 [0.570, 0.616]   0.775 [0.705, 0.846]   0.816 [0.812, 0.820]   0.957
  pool of means, tuned         512        0.541 [0.514, 0.568]   0.688 [0.619, 0.757]   0.853 [0.852, 0.855]   0.974     (0.04 dead)
  stable features              147        0.922 [0.887, 0.958]   0.831 [0.728, 0.934]   0.529 [0.509, 0.550]   0.741
  stable features and a span   179        0.757 [0.728, 0.787]   0.693 [0.603, 0.784]   0.652 [0.638, 0.666]   0.874

Over the number of pooled SAEs (2, 4, 8), pools of means, tuned: p̂ 0.412, 0.490, 0.541; between groups 0.440, 0.578, 0.688; explained variance 0.856, 0.854, 0.853. Pools as they are made: p̂ 0.390, 0.457, 0.541 at 0.715, 0.592, 0.564.
Over θ (0.5 to 0.9), tuned: p̂ 0.476, 0.524, 0.541, 0.581, 0.582 at 0.858, 0.856, 0.853, 0.844, 0.829 of the variance; as they are made 0.394, 0.488, 0.541, 0.581, 0.628 at 0.658, 0.636, 0.564, 0.273, −0.198.
Over features (128, 256, 512), tuned: p̂ 0.693, 0.742, 0.541 at 0.762, 0.812, 0.853; as they are made (to 1,024) 0.932, 0.822, 0.541, 0.293 at 0.506, 0.602, 0.564, −0.077.
The same seeds on an AMD EPYC, whose sums end in other bits: tuned pool of means 0.539, single SAE 0.397, difference 0.142 [0.112, 0.172]; between groups 0.304 [0.260, 0.348] more; explained variance −0.005 [−0.007, −0.003].

In the reference world (`:synthetic`, the same machine, in one run: train 239 s, longer 262 s, wider 278 s, pool 18 s, finetune 471 s, pooled 207 s, report 3 s: 25 min), F = 640, K = 10, of which a single SAE leaves 0.38 dead.
Free atoms are found by all (1.000); block atoms in the last column (found: cosine above 0.9).

                               live         p̂                      between groups         explained variance     block atoms found
  single SAE                   371 of 640   0.801 [0.791, 0.811]   0.803 [0.796, 0.811]   0.859 [0.858, 0.859]   0.069 [0.061, 0.076]
  single SAE, tuned            369 of 640   0.814 [0.799, 0.829]   0.810                  0.861 [0.856, 0.866]   0.068 [0.035, 0.101]
  trained longer               536 of 640   0.682 [0.668, 0.697]   0.971                  0.878 [0.873, 0.882]   0.678 [0.496, 0.860]
  8 times wider                385 of 5,120 0.796 [0.777, 0.814]   0.815                  0.860 [0.853, 0.868]   0.104 [0.000, 0.369]
  bagging (L0 80)              2,968        0.801 [0.791, 0.811]   0.968 [0.960, 0.975]   0.902 [0.901, 0.902]   0.385 [0.343, 0.428]
  random pool, tuned           518 of 640   0.689 [0.671, 0.708]   0.932                  0.871 [0.861, 0.881]   0.456 [0.158, 0.754]
  pool                         595 of 615   0.613 [0.591, 0.635]   0.817 [0.768, 0.866]   0.794 [0.786, 0.803]   0.154 [0.105, 0.202]
  pool of means                598 of 615   0.620 [0.594, 0.646]   0.834 [0.779, 0.889]   0.817 [0.809, 0.824]   0.275 [0.230, 0.319]
  pool of means, tuned         505 of 615   0.709 [0.683, 0.734]   0.921 [0.884, 0.958]   0.871 [0.870, 0.872]   0.469 [0.416, 0.522]
  stable features              263          0.987 [0.974, 0.999]   0.987 [0.950, 1.000]   0.707 [0.679, 0.735]   0.007 [0.000, 0.019]
  stable features and a span   311          0.836 [0.826, 0.845]   0.944 [0.814, 1.000]   0.842 [0.837, 0.847]   0.007 [0.000, 0.019]     (the planted block, rank 24, in both groups)

Pools of means, tuned, over pooled SAEs (2, 4, 8): p̂ 0.747, 0.718, 0.709; between groups 0.830, 0.903, 0.921; explained variance 0.865, 0.869, 0.871. Over features (160, 320, 640): p̂ 0.981, 0.911, 0.709 at 0.563, 0.848, 0.871.

By the rule before (beside a single SAE) C6 does not hold here: there are fewer different features in 8 seeds than room (615), so everything is taken, and a pool puts live block latents where a single SAE has dead ones: more of the block's atoms are found, pools of disjoint groups agree, but single
SAEs, which judge, have few of them; and 0.2 above 0.803 between groups is more than there can be. With half the features, fewer than a single SAE has alive, a tuned pool has p̂ 0.911 (0.801) and 0.905 between groups (0.803) at 0.848 of the variance (0.859),
0.001 less than that rule allowed. Stable features are the 256 free atoms.
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
    if "synthetic" in c:
        c.pool.thetas = (0.5, 0.7, 0.9)  # three, so that it ends within half an hour
    c.seeds = tuple(range(100, 129))  # rules, kinds and rates were settled on seeds 0 to 20
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
    c.seeds = (15,)
    c.sae.n_features, c.sae.k, c.sae.aux_k = 32, 4, 8
    c.train.tokens, c.train.batch_size, c.train.steps_per_dispatch, c.train.checkpoint_every, c.train.eval_rows = 6_000, 64, 8, 80, 512
    c.train.lr = 1e-2
    c.pool.group, c.pool.sizes, c.pool.thetas, c.pool.features, c.pool.span_rank = 4, (2, 4), (0.6, 0.8), (16,), 2
    c.pool.rows = c.pool.eval_rows = 1024
    c.pool.predictions = 200
