"""How probable is it that the features of one SAE reappear? Predicted from reference SAEs of the same model and layer.

Command:   python -m launch.main --config=configs/predict.py --workdir=runs/predict --config.saes=path1,path2,… --config.query_saes=path
Paths:     as in configs/compare.py; at least 4 reference SAEs (`saes`), none of which is a query SAE (`query_saes`).
Result:    predict/features.parquet, a row per feature; predict/calibration.parquet, how good such predictions are among the reference SAEs.
"""

import ml_collections

from configs import default


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    if arg not in ("", "tiny"):
        raise ValueError(
            f"--config=configs/predict.py:{arg}: the only argument is 'tiny'; SAEs are named by --config.saes=… and --config.query_saes=…"
        )
    c = default.of_stages("collect", "stability", "sensitivity", "predict")
    if arg == "tiny":
        default.tiny_measuring(c)
    return c
