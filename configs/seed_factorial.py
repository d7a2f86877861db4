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
