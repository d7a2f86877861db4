"""How stable are SAEs that are there already? Any that are of one model and layer, trained here or released by others.

Command:   python -m launch.main --config=configs/compare.py --workdir=runs/compare --config.saes=path1,path2,…
Paths:     folders (or hub ids, as owner/name/folder@revision) in SAELens', sparsify's, Gemma Scope's or dictionary_learning's format, folders
           of such folders, or a `train` folder of ours. Sizes and kinds may differ; p̂ then says how often a feature of one is found in the others.
Optional:  --config.source.activations=runs/quickstart/activations/eval   a store of activations, for all that needs firing
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    if arg:
        raise ValueError(f"--config=configs/compare.py:{arg}: takes no argument; SAEs are named by --config.saes=path1,path2,…")
    return common.comparison()
