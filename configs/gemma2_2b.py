"""PLACEHOLDER"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.language_model_study("google/gemma-2-2b", "models/configs/gemma-2-2b", layer=12)
    c.source.tokens = 200_000_000
    c.train.tokens = 400_000_000  # each row twice
    common.cell(c, arg, "gemma2_2b")
    return c
