"""The main job on real input, offline: 8 TopK SAEs on the embedded language model's residual stream, and which features reappear.

Command:   make quickstart, or
           python -m launch.main --config=configs/quickstart.py --workdir=runs/quickstart
Arguments: `:tiny` is the same in seconds, for tests; its figures mean nothing. `:robust` measures the claims' figures also at a quarter and at half of
           training (`plateau`), and by other ways to count features as the same (`specifications`); in the workdir of a quickstart it does that alone.

Measured at commit bccb036 on two cores of an AMD EPYC, Python 3.11, jax 0.10.2 (November 2026), on the standard library of Python 3.11.7: activations 59 s, train 137 s,
gaussian 76 s, stability 52 s, sensitivity 9 s, function 36 s, splice 77 s, statistics 30 s, explanations 11 s, atlas 33 s, diagnosis 2 s, subspace 33 s, transfer 12 s, report 18 s;
9 min 53 s without installation, on a machine that was half as fast as one that took 5 min 1 s some commits earlier. (Other kinds of EPYC gave mean p̂ 0.387 and 0.392: sums end
in other bits there.)

  mean p̂ of live features        0.385 [0.376, 0.395]    strongest null 0.013 (SAEs trained on Gaussian activations)
  p̂ by encoder; by activations   0.196 [0.164, 0.228]; 0.375 [0.362, 0.388]; nulls 0
  reliability of p̂               0.868 [0.854, 0.882]    null 0
  share by true p                 near 1: 0 to 0.322; near 0: 0 to 0.575; between 0.2 and 0.8: 0 to 0.596 (uniform p: 0.6)
  found in all, in no other SAE   0.200 [0.182, 0.217], 0.415 [0.392, 0.437]; 816 and 1,695 live features in all seeds
  MMCS; PW-MCC                    0.664 [0.660, 0.667]; 0.635 [0.631, 0.638]; nulls 0.368 (Gaussian), 0.247
  firing rate, stable/unstable    4.50 [4.07, 4.97]       null 1
  subspace overlap, unstable      0.564 [0.553, 0.576], r = 16; nulls: matched frequency 0.366, activation PCA 0.354, matched energy 0.350, Gaussian SAEs 0.280, stable 0.127
                                  (of fewer features); over the strongest 0.141 [0.133, 0.149]
  effective rank / D at n = 95    unstable 0.522 [0.519, 0.526], stable 0.620 [0.617, 0.623], Gaussian SAEs 0.563
  why unstable (1,695)            unexplained 0.832 [0.807, 0.857], rare or under-trained 0.167 [0.142, 0.192]
  transfer to other seeds and directions  AUROC 0.696 [0.582, 0.811]; best baseline 0.763 [0.675, 0.852] (nearest neighbour)
  predicted p̂                    Brier score 0.090 (share of the others 0.095, mean of all 0.237), calibration error 0.015
  explained variance, L0, dead    0.859, 16, 0.05 %
  part of what is explained       stable 0.425 [0.396, 0.454] (0.200 of the features), unstable 0.245 [0.226, 0.263] (0.415)
  CE recovered; KL                0.976 [0.975, 0.978]; 0.299 [0.295, 0.302] nats on 4,136 tokens
  surface form (commit 42e9f36)   an unstable feature scores above a stable one with probability 0.572 [0.551, 0.593], at equal firing rate 0.370 [0.346, 0.394]
  N stable less 4N unstable removed (e1a8344)  N a tenth of the most: 0.0027 [0.0014, 0.0040] of explained variance by zero, 0.0016 [0.0005, 0.0028] by the mean; half: 0.0070 [−0.0006, 0.0145], 0.0020 [−0.0047, 0.0086]

p̂ still changes by +0.041 [0.029, 0.052] at the last doubling of tokens. Claims about unstable features want their own figures along training (`:robust`): C3a and C3b are "yes so far".

With another variant (`--config.sae.variant=…`; measured some commits earlier, topk then 0.392 [0.381, 0.403]); L0 is the range over seeds on 32,768 held-out rows:

  variant      explained variance   L0               mean p̂, live            dead     p̂ at the last doubling
  topk         0.859                16               0.392 [0.381, 0.403]    0.05 %   +0.047
  batchtopk    0.870                15.86 to 16.05   0.416 [0.399, 0.433]    0.15 %   +0.053
  matryoshka   0.836                15.89 to 16.07   0.314 [0.299, 0.329]    1.4 %    +0.067
  jumprelu     0.869                15.82 to 15.92   0.527 [0.511, 0.543]    0.44 %   +0.086
  gated        0.860                15.84 to 15.96   0.453 [0.440, 0.466]    0        +0.076
  l1           0.796                15.94 to 16.04   0.816 [0.811, 0.822]    0        +0.085

All aim at L0 = 16; explained variance differs, so p̂ is not compared at equal reconstruction, and none is on a plateau.
"""

import ml_collections

from configs import common, default


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.study()
    c.source.tokens = 1_250_000  # a little more than is trained on: every row is fresh
    c.train.tokens = 1_200_000
    # Five times the law's rate, for a run 800 times shorter than those it was made for. Chosen by explained variance on
    # held-out tokens among 1.1e-3 (the law; 0.847, with 1.3 M tokens), 3e-3 (0.858) and 6e-3 (0.861), with 1.2 M
    # (`--config.train.lr=…`). p̂ was in sight in those runs, and rises with the rate: 0.23, 0.34, 0.39.
    c.train.lr = 6e-3
    if arg == "robust":
        c.stages = (*c.stages, "half", "plateau", "specifications")
        c.runs.half = ml_collections.ConfigDict({"train": {"tokens": c.train.tokens // 2}})
    elif arg == "tiny":
        default.tiny(c)
    elif arg:
        raise ValueError(f"--config=configs/quickstart.py:{arg}: the arguments are 'tiny' and 'robust'")
    return c
