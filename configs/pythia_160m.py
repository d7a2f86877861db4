"""PLACEHOLDER"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.language_model_study("EleutherAI/pythia-160m", "models/configs/pythia-160m", layer=7)
    c.lm.revision = "step143000"  # the end of training
    c.lm.dtype = "float32"
    c.source.tokens = c.train.tokens = 500_000_000
    common.cell(c, arg, "pythia_160m")
    return c
