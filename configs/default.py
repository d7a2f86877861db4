"""Every field of a study, with unit, range and where its default comes from. Other configs change this one.

Lengths are in tokens, shares in [0, 1]; a cosine is signed.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    if arg:
        raise ValueError(f"--config=configs/default.py:{arg}: takes no argument")
    return common.study()
