"""Stage: p̂ of the features of SAEs that are not in the bank, predicted from how they match it.

features.parquet      a row per (newcomer, feature): predicted p̂; share of the bank in which it is found, with interval; its best cosines
calibration.parquet   how good such predictions are within the bank, SAEs left out one at a time
"""

from typing import Any

import numpy as np

from experiments.data import collect, dictionary_list, sae_paths
from experiments.data.collect import Compared, Newcomers
from experiments.data.dictionary_list import READERS
from experiments.prediction.transfer import calibration_figures, calibration_table, read_bank
from experiments.reappearance.labels import LabelRule
from experiments.reappearance.sensitivity import Sensitivity
from experiments.stage import Outputs, Stage, Task
from stability import nulls, prediction, reappearance, similarity
from stability.estimates import Count, Estimate
from storage import files

STAGE = Stage(config=Newcomers, reads=(Compared, LabelRule, Sensitivity), needs=("saes", "stability", "sensitivity"))


def inputs(task: Task) -> dict[str, str]:
    return {
        f"newcomers/{i} {p.name}": files.sha256_file(p) for i, sae in enumerate(collect.newcomers(task.of(Newcomers))) for p in sae.files()
    }


def run(task: Task, out: Outputs) -> None:
    c, compared = task.of(LabelRule), task.of(Compared)
    listed = dictionary_list.saes(task)
    newcomers = collect.newcomers(task.of(Newcomers))
    remarks = sae_paths.remarks(collect.found(compared) + newcomers)
    for remark in remarks:
        print(f"predict: {remark}")
    bank, live_SF, _, order = read_bank(task, listed, len(listed.seeds))
    model = prediction.fit(bank, c.theta, live_SF)
    found = prediction.calibrate(bank, c.theta, live_SF)
    units = [similarity.unit_rows(listed.dictionaries[place].w_dec_FD) for place in order]
    columns: dict[str, list[Any]] = {}
    means = {}
    for sae in newcomers:
        own = np.asarray(READERS[sae.format].load(sae.path, decoder_alone=True)[0].w_dec_FD, np.float32)
        if own.shape[1] != units[0].shape[1]:
            raise ValueError(
                f"config.newcomers: {sae.name} is of width {own.shape[1]}, the bank of {units[0].shape[1]}: of another model or hook"
            )
        unit_FD = similarity.unit_rows(own)
        matches = [similarity.best_match(unit_FD, unit, block_size=c.block_size)[0] for unit in units]
        cosine_SF, partner_SF = (np.stack([np.asarray(getattr(m, name)) for m in matches]) for name in ("cosine", "partner"))
        _refuse_members(sae.name, cosine_SF, [listed.names[place] for place in order])
        crowding_F = similarity.crowding(own, task.of(Sensitivity).neighbours, c.block_size)[:, 1]
        counts_F = similarity.reaches(cosine_SF, c.theta).sum(axis=0)
        interval = reappearance.clopper_pearson(counts_F, len(units), c.confidence)
        predicted_F = prediction.predict(model, bank, cosine_SF, partner_SF, crowding_F)
        means[sae.name] = float(predicted_F.mean())
        rows = {
            "sae": [sae.name] * len(own),
            "feature": np.arange(len(own)),
            "predicted": predicted_F,
            "share_of_bank": counts_F / len(units),
            "share_low": interval.low,
            "share_high": interval.high,
            "best_cosine": cosine_SF.T.tolist(),
            "crowding": crowding_F,
        }
        for name, values in rows.items():
            columns.setdefault(name, []).extend(list(values))
    chance = nulls.chance_of_match(c.theta, units[0].shape[1], max(listed.sizes))
    figures = calibration_figures(found, len(units)) | {
        f"mean predicted p, {name}": Estimate(value, None, None, chance, Count(len(units), "SAEs in the bank"), "probability")
        for name, value in means.items()
    }
    out.summary({name: e.as_dict() for name, e in figures.items()} | {"not_compared": remarks})
    _print(means, found)
    out.table("features", columns)
    out.table("calibration", calibration_table(found))


def _refuse_members(name: str, cosine_SF: np.ndarray, names: list[str]) -> None:
    """Raises ValueError where an SAE of the bank holds the same rows, so that the prediction would be about itself."""
    same_S = similarity.reaches(cosine_SF, 1.0).mean(axis=1)
    if same_S.max() > 0.99:
        raise ValueError(
            f"config.newcomers: {name} has the rows of {names[int(same_S.argmax())] or 'an SAE'} in the bank: leave one of them out"
        )


def _print(means: dict[str, float], found: prediction.Calibration) -> None:
    print()
    for name, value in means.items():
        print(f"{name}: mean predicted p̂ {value:.3f}")
    print(
        f"within the bank, SAEs left out one at a time: Brier {found.brier:.4f} (share of the bank as it is {found.brier_of_share:.4f}, the mean of all "
        f"{found.brier_of_mean:.4f}), calibration error {found.error:.4f}"
    )
