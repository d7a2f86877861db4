"""The embedded language model: GPT-NeoX, 4 layers of width 128, on the text of the Python standard library.

Command:   python -m launch.main --config=configs/pretrain_stdlib.py --workdir=runs/pretrain
           (--config.model_card.export_to=folder copies the result there; a folder that holds another model is refused)
Argument:  `:tiny` is a model of a few thousand parameters and a few steps, for tests.

Measured on two cores of an AMD EPYC (Zen 2), shared with other work, Python 3.11.7, jax 0.10.2 (November 2026): 63 minutes, 4,360 tokens/s;
held-out 3.053 nats per token, 1.210 bits per byte (unigram 2.611, bigram 1.834, trigram with backoff 1.690). The held-out loss had
flattened: 3.065 at step 3000, 3.053 at step 4000 (learning rate decayed by then). `models/stdlib-neox-4x128/README.md` has the curve.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    config = common.pretraining()
    pretrain = config.pretrain
    if arg == "tiny":
        pretrain.vocab_size, pretrain.width, pretrain.n_layers, pretrain.n_heads, pretrain.mlp_width = 300, 16, 2, 2, 32
        pretrain.context_length, pretrain.batch_size, pretrain.steps, pretrain.warmup_steps = 32, 4, 8, 2
        pretrain.rotary_fraction, pretrain.steps_per_dispatch, pretrain.checkpoint_every, pretrain.eval_every = 0.5, 2, 4, 4
    elif arg:
        raise ValueError(f"--config=configs/pretrain_stdlib.py:{arg}: the only argument is 'tiny'")
    return config
