"""PLACEHOLDER"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.language_model_study("Qwen/Qwen3-0.6B-Base", "models/configs/qwen3-0.6b", layer=14)
    c.source.tokens = c.train.tokens = 500_000_000
    common.cell(c, arg, "qwen3_0p6b")
    return c
