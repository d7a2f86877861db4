"""21 TopK SAEs on Pythia-160M behind layer 7 (counted from 0), F = 2¹⁴, K = 64, 500 M tokens of web text.

Command:   python -m launch.main --config=configs/pythia_160m.py --workdir=runs/pythia_160m     (--plan: what it costs)
Argument:  `layer=3`, `features=4096`, `variant=jumprelu`, or several with commas between.
Text:      .jsonl files below data/fineweb (documents of FineWeb, one a line in a field "text"); or --config.source.text=…

Not run yet. Expected by the cost model of launch/plan.py on one H100 (`--plan --plan_on=h100`): 7.2 h (activations 48 min, train 2.7 h in one
round, gaussian 31 min, stability 2 min, sensitivity 1.0 h, atlas 11 min, function 1.6 h, statistics 20 min), 1.7e18 operations, 820 GB on disk, 52 GB of device memory.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.language_model_study("EleutherAI/pythia-160m", "models/configs/pythia-160m", layer=7)
    c.lm.dtype = "float32"
    c.source.tokens = c.train.tokens = 500_000_000
    common.cell(c, arg, "pythia_160m")
    return c
