"""How stable are SAEs that are there already? Any that are of one model and layer, trained here or released by others.

Command:   python -m launch.main --config=configs/compare.py --workdir=runs/compare --config.saes=path1,path2,…
Paths:     folders (or hub ids, as owner/name/folder@revision) in SAELens', sparsify's, Gemma Scope's or dictionary_learning's format, folders
           of such folders, or a `train` folder of ours. Sizes and kinds may differ; p̂ then says how often a feature of one is found in the others.
Optional:  --config.source.activations=runs/quickstart/activations/eval   a store of activations, for all that needs firing

Measured on two cores of an AMD EPYC, Python 3.11, jax 0.10.2 (November 2026), a synthetic study beside it: the quickstart's 8 SAEs, written in sparsify's format and read
back, with its 150,000 held-out tokens, before there were atlas, diagnosis and transfer: 56 s (stability 23 s, sensitivity 8 s, subspace 17 s, report 7 s); p̂, intervals, labels, partners and firing rates are those of the
quickstart to the last digit. Larger dictionaries: `python -m benchmarks.match` has the cost of a pair.
"""

import ml_collections

from configs import default


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    if arg not in ("", "tiny"):
        raise ValueError(f"--config=configs/compare.py:{arg}: the only argument is 'tiny'; SAEs are named by --config.saes=…")
    c = default.of_stages("collect", *default.MEASURING, "report")
    if arg == "tiny":
        default.tiny_measuring(c)
    return c
