"""The paper's main cell: 96 TopK SAEs on GPT-2 small behind layer 7 (counted from 0), F = 2¹⁴, K = 64, 1 B tokens of FineWeb.

Command:   python -m launch.main --config=configs/paper_gpt2.py --workdir=runs/paper_gpt2
           python -m launch.main --config=configs/paper_gpt2.py --plan             what it costs on the device at hand
Argument:  `layer=3`, `features=4096`, `variant=jumprelu`, or several with commas between: other cells of the paper's replication.
Text:      .jsonl files below data/fineweb (documents of FineWeb, one a line in a field "text"); or --config.source.text=…
           The model comes from the hub; --config.lm.path=folder where there is none.

Not run yet. Expected by the cost model of launch/plan.py (`--plan --plan_on=h100`, `tpu-v5e:8`; published rates, and assumed shares of them):

                         operations   on disk   memory      one H100   8 chips of TPU v5e
  activations, 1 B       1.2e17       1.55 TB   20 GB       1.6 h      30 min
  train, 96 × 1 B        1.2e19       136 GB    63 GB       24.9 h     9.4 h     (3 rounds of up to 33 SAEs; 2 of up to 64)
  gaussian, 4 × 1 B      5.0e17       7 GB      16 GB       1.0 h      24 min
  stability              8.2e15       2 GB      5 GB        6 min      2 min
  sensitivity            1.1e16       2 GB      5 GB        2.4 h      2.3 h     (960 pairs matched one to one on the host)
  atlas, of 16 SAEs      8.4e14       –         1 GB        11 min     11 min    (matrices decomposed on the host)
  function, of 16 SAEs   1.0e16       –         2 GB        1.6 h      1.5 h     (refits on the host, 16 GiB there)
  statistics             1.4e16       1 GB      –           1.5 h      1.4 h     (counting on the host)
  splice                 4.9e14       –         –           30 s       15 s
  all                    1.3e19       1.7 TB    63 GB       33.3 h     15.7 h

Where 1.6 TB are too much: --config.source.tokens=250000000 keeps a quarter of the rows, and training goes over them four times.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.language_model_study("openai-community/gpt2", "models/configs/gpt2", layer=7)
    c.lm.revision = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    c.lm.dtype = "float32"  # a small model: its activations in full precision cost little
    c.seeds = (96,)
    c.source.tokens = c.train.tokens = 1_000_000_000
    common.cell(c, arg, "paper_gpt2")
    return c
