"""Stage: p̂ of the features of query SAEs, predicted from how they match the reference SAEs.

features.parquet      a row per (query SAE, feature): predicted p̂; share of reference SAEs in which it is found, with interval; its best cosines
calibration.parquet   how good such predictions are among the reference SAEs, left out one at a time
"""

from typing import Any

import numpy as np

from experiments.data import collect, dictionary_list, sae_paths
from experiments.data.collect import Compared, QuerySaes
from experiments.data.dictionary_list import READERS
from experiments.prediction.transfer import calibration_figures, calibration_table, read_references
from experiments.reappearance.labels import LabelRule
from experiments.reappearance.sensitivity import Sensitivity
from experiments.stage import Outputs, Stage, Task
from stability import nulls, prediction, reappearance, similarity
from stability.estimates import Count, Estimate
from storage import files

STAGE = Stage(config=QuerySaes, reads=(Compared, LabelRule, Sensitivity), needs=("saes", "stability", "sensitivity"))


def inputs(task: Task) -> dict[str, str]:
    out: dict[str, str] = {}
    for i, sae in enumerate(collect.query_saes(task.section(QuerySaes))):
        sums = {p.name: files.sha256_file(p) for p in sae.files()} | sae.told_by()
        out |= {f"query_saes/{i} {name}": digest for name, digest in sums.items()}
    return out


def run(task: Task, out: Outputs) -> None:
    c, compared = task.section(LabelRule), task.section(Compared)
    saes = dictionary_list.saes(task)
    query_saes = collect.query_saes(task.section(QuerySaes))
    remarks = sae_paths.remarks(collect.compared_saes(compared) + query_saes)
    for remark in remarks:
        print(f"predict: {remark}")
    references, live_SF, _, order = read_references(task, saes, len(saes.seeds))
    model = prediction.fit(references, c.theta, live_SF)
    calibration = prediction.calibrate(references, c.theta, live_SF)
    units = [similarity.unit_rows(saes.dictionaries[place].w_dec_FD) for place in order]
    columns: dict[str, list[Any]] = {}
    means = {}
    for sae in query_saes:
        own = np.asarray(READERS[sae.format].load(sae.path, decoder_alone=True)[0].w_dec_FD, np.float32)
        if own.shape[1] != units[0].shape[1]:
            raise ValueError(
                f"config.query_saes: {sae.name} has width {own.shape[1]}, the reference SAEs {units[0].shape[1]}: of another model or hook"
            )
        unit_FD = similarity.unit_rows(own)
        matches = [similarity.best_match(unit_FD, unit, block_size=c.block_size)[0] for unit in units]
        cosine_SF, partner_SF = (np.stack([np.asarray(getattr(m, name)) for m in matches]) for name in ("cosine", "partner"))
        _refuse_members(sae.name, cosine_SF, [saes.names[place] for place in order])
        crowding_F = similarity.crowding(own, task.section(Sensitivity).neighbours, c.block_size)[:, 1]
        counts_F = similarity.reaches(cosine_SF, c.theta).sum(axis=0)
        interval = reappearance.clopper_pearson(counts_F, len(units), c.confidence)
        predicted_F = prediction.predict(model, references, cosine_SF, partner_SF, crowding_F)
        means[sae.name] = float(predicted_F.mean())
        rows = {
            "sae": [sae.name] * len(own),
            "feature": np.arange(len(own)),
            "predicted": predicted_F,
            "share_of_references": counts_F / len(units),
            "share_low": interval.low,
            "share_high": interval.high,
            "best_cosine": cosine_SF.T.tolist(),
            "crowding": crowding_F,
        }
        for name, values in rows.items():
            columns.setdefault(name, []).extend(list(values))
    chance = nulls.chance_of_match(c.theta, units[0].shape[1], max(saes.sizes))
    figures = calibration_figures(calibration, len(units)) | {
        f"mean predicted p, {name}": Estimate(value, None, None, chance, Count(len(units), "reference SAEs"), "probability")
        for name, value in means.items()
    }
    out.summary({name: e.as_dict() for name, e in figures.items()} | {"not_compared": remarks})
    _print(means, calibration)
    out.table("features", columns)
    out.table("calibration", calibration_table(calibration))


def _refuse_members(name: str, cosine_SF: np.ndarray, names: list[str]) -> None:
    """Raises ValueError where a reference SAE holds the same rows, so that the prediction would be about itself."""
    same_S = similarity.reaches(cosine_SF, 1.0).mean(axis=1)
    if same_S.max() > 0.99:
        raise ValueError(
            f"config.query_saes: {name} has the rows of the reference SAE {names[int(same_S.argmax())] or 'of no name'}: leave one of them out"
        )


def _print(means: dict[str, float], calibration: prediction.Calibration) -> None:
    print()
    for name, value in means.items():
        print(f"{name}: mean predicted p̂ {value:.3f}")
    print(
        f"among the reference SAEs, left out one at a time: Brier {calibration.brier:.4f} (share of reference SAEs as it is {calibration.brier_of_share:.4f}, the mean of all "
        f"{calibration.brier_of_mean:.4f}), calibration error {calibration.error:.4f}"
    )
