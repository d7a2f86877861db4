"""PLACEHOLDER"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.language_model_study("openai-community/gpt2", "models/configs/gpt2", layer=7)
    c.lm.revision = "607a30d"
    c.lm.dtype = "float32"  # a small model: its activations in full precision cost little
    c.seeds = (96,)
    c.source.tokens = c.train.tokens = 1_000_000_000
    common.cell(c, arg, "paper_gpt2")
    return c
