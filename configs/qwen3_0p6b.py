"""21 TopK SAEs on Qwen3 0.6B (base) behind layer 14 (counted from 0), F = 2¹⁴, K = 64, 500 M tokens of web text.

Command:   python -m launch.main --config=configs/qwen3_0p6b.py --workdir=runs/qwen3_0p6b     (--plan: what it costs)
Argument:  `layer=3`, `features=4096`, `variant=jumprelu`, or several with commas between.
Text:      .jsonl files below data/fineweb (documents of FineWeb, one a line in a field "text"); or --config.source.text=…
           Qwen's tokenizer names no token to begin with: contexts begin with `<|endoftext|>`.

Not run yet. Expected by the cost model of launch/plan.py on one H100 (`--plan --plan_on=h100`): 7.8 h (activations 30 min, train 3.4 h in one
round, gaussian 40 min, stability 3 min, sensitivity 1.0 h, atlas 11 min, function 1.6 h, statistics 24 min), 2.4e18 operations, 1.1 TB on disk, 60 GB of device memory.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.language_model_study("Qwen/Qwen3-0.6B-Base", "models/configs/qwen3-0.6b", layer=14)
    c.source.tokens = c.train.tokens = 500_000_000
    common.cell(c, arg, "qwen3_0p6b")
    return c
