"""21 TopK SAEs on Gemma 2 2B behind layer 12 (counted from 0), F = 2¹⁴, K = 64, 400 M tokens, each of 200 M rows twice.

Command:   python -m launch.main --config=configs/gemma2_2b.py --workdir=runs/gemma2_2b     (--plan: what it costs)
Argument:  `layer=3`, `features=4096`, `variant=jumprelu`, or several with commas between.
Text:      .jsonl files below data/fineweb (documents of FineWeb, one a line in a field "text"); or --config.source.text=…
           The model's licence must be accepted at the hub, and `HF_TOKEN` be set; or --config.lm.path=folder.

Not run yet. Expected by the cost model of launch/plan.py on one H100 (`--plan --plan_on=h100`): 10.6 h (activations 27 min, train 5.6 h in 3
rounds, gaussian 1.1 h, stability 4 min, sensitivity 1.0 h, atlas 11 min, function 1.6 h, statistics 37 min), 4.3e18 operations, 1.0 TB on disk, 57 GB of device memory.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.language_model_study("google/gemma-2-2b", "models/configs/gemma-2-2b", layer=12)
    c.source.tokens = 200_000_000
    c.train.tokens = 400_000_000  # each row twice
    common.cell(c, arg, "gemma2_2b")
    return c
