"""Which part of instability comes from initialisation, which from the order of data, which from the data? Five arms on one store of activations.

Command:   python -m launch.main --config=configs/seed_factorial.py --workdir=runs/seed_factorial
Argument:  `:tiny` is the same in seconds, for tests; its figures mean nothing.

  initialisation            each SAE its own, one order of activations for all
  order                     one initialisation for all, each SAE its own order
  initialisation and order  each SAE its own of both
  order and documents       one initialisation, an order of its own, and one of two halves of the documents: pairs of one half differ in
                            order alone, pairs of different halves have no document in common
  nothing                   the same training in two processes: p̂ must be exactly 1

As the quickstart (`configs/quickstart.py`), with 6 SAEs an arm. (b_dec begins at the median of each stream's first batch, so with an order of its
own that differs too.)

What should be seen: nothing gives 1; if initialisation decides which features are learned, SAEs that share it agree whatever their order.

Measured on two cores of an AMD EPYC, Python 3.11, jax 0.10.2 (November 2026), with a synthetic study at low priority beside it: 7 min 6 s (activations
32 s, training 6 min, measuring 46 s). p̂ of live features at θ = 0.7 with 95 % intervals over seeds; chance below 1e-9.

  what differs                            p̂                        MMCS, live   explained variance   rise of p̂ at the last doubling of tokens
  initialisation                          0.398 [0.384, 0.411]     0.668        0.859                +0.047 [0.038, 0.057]
  order                                   0.459 [0.421, 0.498]     0.694        0.860                +0.029 [0.009, 0.048]
  initialisation and order                0.388 [0.375, 0.401]     0.666        0.860                +0.050 [0.037, 0.063]
  order alone, on half of the documents   0.438 [0.422, 0.454]     0.674        0.858                +0.025 [0.017, 0.034]
  order and documents                     0.400 [0.385, 0.415]     (the same SAEs)
  nothing, in two processes               1, equal to the last bit

  instability 1 − p̂ of both               0.612 [0.599, 0.625]
    of it initialisation                  0.337 [0.319, 0.355]
    of it order                           0.275 [0.255, 0.295]
  added by other documents                0.038 [0.017, 0.058]

What it says. The order of the data alone, with one initialisation, costs nearly as much as all there is: two SAEs that begin alike share hardly more features in the end than two
that do not. Initialisation and order are not two sources that add up (apart they would cost 0.531 [0.485, 0.577] more than together): whatever sets two runs apart, they end about as
far from each other. That they saw other documents adds little. No arm is on a plateau, so all of it is of SAEs trained on 1.2 M tokens.
"""

import ml_collections

from configs import common, quickstart


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    if arg not in ("", "tiny"):
        raise ValueError(f"--config=configs/seed_factorial.py:{arg}: the only argument is 'tiny'")
    c = quickstart.get_config(arg)
    c.seeds = (4,) if arg else (6,)
    common.factorial(c)
    return c
