"""Stage: how much of p̂ hangs on what counts as the same: by encoder, by both, by |cosine|, by activations; one-to-one; splitting; duplicates.

curves.parquet     p̂ of live features over θ for every criterion of "same", each beside the null made for it
pairs.parquet      a row per (anchor, other): one-to-one matching, its agreement with the best match
features.parquet   a row per (seed, feature): p̂ by every criterion, rows of another SAE above θ, neighbours in its own dictionary
strengths.parquet  a row per (seed, feature) of the first SAEs: its strongest match in each of them by every criterion
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.data import costs, dictionary_list, sources
from experiments.data.costs import Cost, Hardware, Size
from experiments.data.dictionary_list import DictionaryList
from experiments.data.seeds import Seeds
from experiments.fields import config, field
from experiments.reappearance import null_models
from experiments.reappearance.labels import LabelRule, Reappearance
from experiments.settings import Settings
from experiments.stage import Outputs, Stage, Task
from runtime import progress
from saes.config import SAEConfig
from saes.dictionary import encode
from stability import aggregates, correlation, matching, nulls, reappearance, similarity
from stability.aggregates import pair_mean, seed_mean
from stability.estimates import Estimate
from stability.similarity import BestMatch

MATCHING_SECONDS = 8.6 / 2**28  # on the host, a pair matched one to one, by the square of features (benchmarks/match.py)


@config("sensitivity")
class Sensitivity:
    """By what else features may count as the same, and what depends on it."""

    pairs: int = field(
        default=0,
        doc="pairs of SAEs for one-to-one matching and activations: each with the next so many; 0: all of up to 21 SAEs, of more the next 5",
        ge=0,
    )
    candidates: int = field(default=4, doc="most similar features of another SAE by decoder with which activations are correlated", gt=0)
    rows: int = field(default=16_384, doc="evaluation rows for correlations", gt=0)
    strength_seeds: int = field(default=16, doc="SAEs, the first so many, whose matches by every criterion are written", ge=2)
    neighbours: int = field(default=10, doc="nearest in the own dictionary (crowding)", gt=0)
    exact_features: int = field(
        default=4096, doc="up to so many features one-to-one matching is exact, above by auction with its gap", gt=0
    )


STAGE = Stage(config=Sensitivity, reads=(LabelRule, Reappearance), needs=("saes", "stability"), uses=("rows",))

NULL_KEY = 2**21  # of the rotation that the nulls of this stage come from


class Criterion(NamedTuple):
    """A way for a feature to count as found again.

    Attributes:
      strength_SSF: its strongest match in every other SAE, from which it counts if ≥ θ; NaN where there is none.
      null_SSF: the same where nothing is shared.
    """

    strength_SSF: np.ndarray
    null_SSF: np.ndarray


def run(task: Task, out: Outputs) -> None:
    saes = dictionary_list.saes(task)
    exists_SF = saes.exists_SF
    live_SF = exists_SF.copy()
    live_SF[exists_SF] = task.table("stability/features", ("stratum",))["stratum"] == reappearance.LIVE
    key = jax.random.fold_in(null_models.root_key(), NULL_KEY)
    rotated_rows = tuple(np.asarray(nulls.rotate_each(key, rows, saes.seeds)) for rows in (saes.w_dec_SFD, saes.w_enc_SFD))
    compared = lambda key, *args, **options: out.part(key, lambda: _compared(task, saes, *args, **options))
    decoder, encoder = compared("decoder", saes.w_dec_SFD, "decoder"), compared("encoder", saes.w_enc_SFD, "encoder")
    absolute = compared("absolute", saes.w_dec_SFD, "decoder, absolute", absolute=True)
    rotated = [compared(f"rotated {i}", rows, "rotated") for i, rows in enumerate(rotated_rows)]
    criteria = {
        "decoder": Criterion(decoder.cosine, rotated[0].cosine),
        "encoder": Criterion(encoder.cosine, rotated[1].cosine),
        "decoder and encoder, same partner": Criterion(_both(decoder, encoder), _both(*rotated)),
        "decoder, either sign": Criterion(
            absolute.cosine, compared("rotated, absolute", rotated_rows[0], "rotated, absolute", absolute=True).cosine
        ),
    }
    pairs_of_saes = chosen_pairs(len(saes.seeds), task.section(Sensitivity).pairs)
    acts_ND = sources.evaluation_rows(task)
    if acts_ND is not None:
        criteria["activations"] = out.part("activations", lambda: _by_activations(task, saes, acts_ND, pairs_of_saes))
    pairs = out.part("one to one", lambda: _one_to_one(task, saes, rotated_rows[0], decoder.cosine, live_SF, pairs_of_saes))
    neighbours = _neighbours(task, saes)
    counts_SSF = (decoder.count[..., 0], rotated[0].count[..., 0])
    summary = _summary(task, saes, criteria, counts_SSF, pairs, neighbours, live_SF)
    out.summary(summary)
    out.table("curves", _curves(task, criteria, live_SF))
    out.table("pairs", pairs)
    out.table("strengths", _strengths(saes.first(task.section(Sensitivity).strength_seeds), criteria))
    out.table("features", _features(task, saes, criteria, counts_SSF[0], neighbours))


def _compared(task: Task, saes: DictionaryList, rows_SFD: np.ndarray, what: str, absolute: bool = False) -> BestMatch:
    s, c = len(saes.seeds), task.section(LabelRule)
    with progress.comparing(f"sensitivity/{what}", s * (s - 1) // 2) as on_pair:
        return similarity.all_pairs(
            rows_SFD, sizes=saes.sizes, thresholds=(c.theta,), absolute=absolute, block_size=c.block_size, on_pair=on_pair
        )


def _both(decoder: BestMatch, encoder: BestMatch) -> np.ndarray:
    """The weaker of the two where both point to the same feature, else −1: a latent shared as a whole."""
    weaker = np.minimum(decoder.cosine, encoder.cosine)
    return np.where(np.asarray(decoder.partner) == np.asarray(encoder.partner), weaker, np.where(np.isnan(weaker), np.nan, -1.0))


def chosen_pairs(seeds: int, each: int) -> list[tuple[int, int]]:
    """Unordered pairs: every SAE with the `each` next, in a ring; 0: all of up to 21 SAEs, of more the next 5."""
    each = each or (seeds if seeds <= 21 else 5)
    if 2 * each >= seeds - 1:
        return [(i, j) for i in range(seeds) for j in range(i + 1, seeds)]
    return sorted({(min(i, j), max(i, j)) for i in range(seeds) for j in ((i + step) % seeds for step in range(1, each + 1))})


def _by_activations(task: Task, saes: DictionaryList, acts_ND: np.ndarray, pairs_of_saes: list[tuple[int, int]]) -> Criterion:
    """The strongest correlation on held-out tokens with any of the candidates by decoder, and with tokens shifted."""
    c = task.section(Sensitivity)
    some_ND = acts_ND[:: max(1, len(acts_ND) // c.rows)][: c.rows]
    units = [similarity.unit_rows(d.w_dec_FD) for d in saes.dictionaries]
    candidates = []
    for i, j in sorted(pairs_of_saes + [(j, i) for i, j in pairs_of_saes]):
        m = min(c.candidates, len(units[j]))
        index_FM = similarity.top_matches(units[i], units[j], m, block_size=task.section(LabelRule).block_size)[1]
        candidates.append(correlation.Candidates(i, j, np.asarray(index_FM)))
    on_device = jax.device_put(saes.dictionaries)
    encoded = jax.jit(encode)
    both = correlation.candidate_correlations(
        functools.partial(progress.batches, some_ND, "sensitivity/activations"),
        lambda place, x_BD: encoded(on_device[place], x_BD),
        candidates,
    )
    s, f = saes.exists_SF.shape
    out = []
    for values in both:
        best_SSF = np.full((s, s, f), np.nan)
        for candidate, r_FM in zip(candidates, values, strict=True):
            # A feature that never fires here correlates with nothing.
            best_SSF[candidate.anchor, candidate.other, : len(r_FM)] = np.where(np.isnan(r_FM), -1.0, r_FM).max(axis=1)
        out.append(best_SSF)
    return Criterion(*out)


def _one_to_one(
    task: Task,
    saes: DictionaryList,
    turned_SFD: np.ndarray,
    cosine_SSF: np.ndarray,
    live_SF: np.ndarray,
    pairs_of_saes: list[tuple[int, int]],
) -> dict[str, Any]:
    """Of every chosen pair: PW-MCC, the share of live features matched at θ, how far the set agrees with that of the best match, and the
    same of rotated dictionaries."""
    theta = task.section(LabelRule).theta
    units = [np.asarray(similarity.unit_rows(d.w_dec_FD)) for d in saes.dictionaries]
    rotated_units = [np.asarray(similarity.unit_rows(rows[:size])) for rows, size in zip(turned_SFD, saes.sizes, strict=True)]
    names = ("anchor", "other", "pw_mcc", "pw_mcc_null", "shared", "shared_null", "agreement", "agreement_null", "gap")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    matched = functools.partial(
        matching.one_to_one, exact=task.section(Sensitivity).exact_features, block_size=task.section(LabelRule).block_size
    )
    with progress.comparing("sensitivity/one to one", len(pairs_of_saes)) as on_pair:
        for i, j in pairs_of_saes:
            own, null = matched(units[i], units[j]), matched(rotated_units[i], rotated_units[j])
            # One matching serves both directions, each over its own live features.
            for anchor, other, cosines in ((i, j, (own.cosine_F, null.cosine_F)), (j, i, (_back(own, units[j]), _back(null, units[j])))):
                f = len(units[anchor])
                live_F = live_SF[anchor, :f]
                with np.errstate(invalid="ignore"):
                    at_theta, by_chance = (similarity.reaches(cosine_F, theta) for cosine_F in cosines)
                best_F = similarity.reaches(cosine_SSF[anchor, other, :f], theta)
                shared = [float(x[live_F].mean()) if live_F.any() else float("nan") for x in (at_theta, by_chance)]
                agreement = matching.agreement(at_theta & live_F, best_F & live_F)
                unrelated = matching.agreement_by_chance(shared[0], float(best_F[live_F].mean()) if live_F.any() else float("nan"))
                row = (saes.seeds[anchor], saes.seeds[other], own.mean(), null.mean(), *shared, agreement, unrelated, own.gap)
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
            on_pair()
    return columns


def _strengths(saes: DictionaryList, criteria: dict[str, Criterion]) -> dict[str, Any]:
    """Of the SAEs that are given, in each other; a seed's own place is NaN."""
    s, f = saes.exists_SF.shape
    grid = np.indices((s, f))
    table = {"seed": np.asarray(saes.seeds)[grid[0]], "feature": grid[1]}
    for name, criterion in criteria.items():
        table[name] = np.swapaxes(criterion.strength_SSF[:s, :s, :f], 1, 2).astype(np.float32)
    return {name: values[saes.exists_SF] for name, values in table.items()}


def _back(matching_found: matching.Matching, other_GD: np.ndarray) -> np.ndarray:
    """(G,) cosines of the other's features with those that they were matched to, NaN where there is none."""
    cosine_G, there_F = np.full(len(other_GD), np.nan), matching_found.partner_F >= 0
    cosine_G[matching_found.partner_F[there_F]] = matching_found.cosine_F[there_F]
    return cosine_G


class Neighbours(NamedTuple):
    """Neighbours of every feature in its own dictionary, NaN where there are none.

    Attributes:
      nearest_SF: largest cosine.
      crowding_SF: mean cosine of the nearest few.
      random_crowding: the same of as many uniform directions.
      chance_of_duplicate: that one of as many uniform directions has another at cosine ≥ θ.
    """

    nearest_SF: np.ndarray
    crowding_SF: np.ndarray
    random_crowding: float
    chance_of_duplicate: float


def _neighbours(task: Task, saes: DictionaryList) -> Neighbours:
    c, (most, d) = task.section(Sensitivity), saes.w_dec_SFD.shape[1:]
    nearest = functools.partial(similarity.crowding, neighbours=c.neighbours, block_size=task.section(LabelRule).block_size)
    nearest_SF, crowding_SF = (np.full((len(saes.seeds), most), np.nan) for _ in range(2))
    for s, dictionary in enumerate(saes.dictionaries):
        f = dictionary.w_dec_FD.shape[0]
        if f > 1:
            nearest_SF[s, :f], crowding_SF[s, :f] = nearest(dictionary.w_dec_FD).T
    if most < 2:
        return Neighbours(nearest_SF, crowding_SF, float("nan"), float("nan"))
    uniform = nearest(np.random.default_rng(0).normal(size=(most, d)).astype(np.float32))
    return Neighbours(
        nearest_SF, crowding_SF, float(uniform[:, 1].mean()), nulls.chance_of_match(task.section(LabelRule).theta, d, most - 1)
    )


def _summary(
    task: Task,
    saes: DictionaryList,
    criteria: dict[str, Criterion],
    counts_SSF: tuple[np.ndarray, np.ndarray],
    pairs: dict[str, Any],
    neighbours: Neighbours,
    live_SF: np.ndarray,
) -> dict[str, Any]:
    """Figures of the live features at the study's θ; `counts_SSF`: rows of the other SAE above it, and with dictionaries rotated."""
    c, s = task.section(LabelRule), len(live_SF)
    knife = functools.partial(aggregates.jackknifed, seeds=s, confidence=c.confidence)
    place = {seed: i for i, seed in enumerate(saes.seeds)}

    def over_pairs(column: str) -> Any:
        table_SS = np.full((s, s), np.nan)
        for i, j, value in zip(pairs["anchor"], pairs["other"], pairs[column], strict=True):
            table_SS[place[i], place[j]] = value
        return functools.partial(pair_mean, table_SS)

    def over_seeds(values_SF: np.ndarray) -> Any:
        there_SF = live_SF & ~np.isnan(values_SF)
        with np.errstate(invalid="ignore"):
            return functools.partial(seed_mean, np.where(there_SF, values_SF, 0.0).sum(axis=1) / there_SF.sum(axis=1))

    everyone = np.ones(s)
    share: dict[str, Any] = {"unit": "share", "bounds": (0.0, 1.0)}
    cosine: dict[str, Any] = {"unit": "cosine", "bounds": (-1.0, 1.0)}
    several, by_chance = (functools.partial(pair_mean, _share_of_several(counts, live_SF)) for counts in counts_SSF)
    twice_SF = np.where(np.isnan(neighbours.nearest_SF), np.nan, similarity.reaches(neighbours.nearest_SF, c.theta))
    figures = {f"p by {name}": _p(task, criterion, c.theta, live_SF) for name, criterion in criteria.items()}
    figures |= {
        "pw_mcc": knife(over_pairs("pw_mcc"), null=over_pairs("pw_mcc_null")(everyone), **cosine),
        "shared_one_to_one": knife(over_pairs("shared"), null=over_pairs("shared_null")(everyone), **share),
        "agreement_of_matchings": knife(over_pairs("agreement"), null=over_pairs("agreement_null")(everyone), **share),
        "split_share": knife(several, null=by_chance(everyone), **share),
        "duplicate_share": knife(over_seeds(twice_SF), null=neighbours.chance_of_duplicate, **share),
        "crowding": knife(over_seeds(neighbours.crowding_SF), null=neighbours.random_crowding, **cosine),
    }
    return {name: e.as_dict() for name, e in figures.items()} | {"largest_gap": float(max(pairs["gap"])), "pairs": len(pairs["gap"]) // 2}


def _share_of_several(count_SSF: np.ndarray, live_SF: np.ndarray) -> np.ndarray:
    """(anchor, other) → of the anchor's live features, those that have two or more rows of the other at cosine ≥ θ (split, or duplicated)."""
    return aggregates.share_reappearing(count_SSF >= 2, live_SF)


def _p(task: Task, criterion: Criterion, theta: float, live_SF: np.ndarray) -> Estimate:
    own, null = (
        aggregates.share_reappearing(reappearance.reappears(strength_SSF, theta), live_SF)
        for strength_SSF in (criterion.strength_SSF, criterion.null_SSF)
    )
    # Pairs that were not compared are left out.
    for table_SS, strength_SSF in ((own, criterion.strength_SSF), (null, criterion.null_SSF)):
        table_SS[np.isnan(strength_SSF).all(axis=-1)] = np.nan
    return aggregates.jackknifed(
        functools.partial(pair_mean, own),
        len(live_SF),
        task.section(LabelRule).confidence,
        null=pair_mean(null, np.ones(len(live_SF))),
        unit="probability",
        bounds=(0.0, 1.0),
    )


def _curves(task: Task, criteria: dict[str, Criterion], live_SF: np.ndarray) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {name: [] for name in ("what", "theta", "value", "low", "high", "null")}
    for name, criterion in criteria.items():
        for theta in task.section(Reappearance).thetas:
            e = _p(task, criterion, theta, live_SF)
            for column, value in zip(columns.values(), (name, theta, e.value, e.low, e.high, e.null), strict=True):
                column.append(value)
    return columns


def _features(
    task: Task, saes: DictionaryList, criteria: dict[str, Criterion], count_SSF: np.ndarray, neighbours: Neighbours
) -> dict[str, Any]:
    """One row per (seed, feature) that there is; p̂ over the SAEs that it was compared with."""
    s, f = saes.exists_SF.shape
    grid = np.indices((s, f))
    table = {"seed": np.asarray(saes.seeds)[grid[0]], "feature": grid[1]}
    for name, criterion in criteria.items():
        compared_SS = ~np.isnan(criterion.strength_SSF).all(axis=-1)
        hits_SF = reappearance.reappears(criterion.strength_SSF, task.section(LabelRule).theta).sum(axis=1)
        table[f"p by {name}"] = hits_SF / compared_SS.sum(axis=1)[:, None]
    table["rows_above_theta"] = count_SSF.sum(axis=1) / (s - 1)
    table["nearest_inside"], table["crowding"] = neighbours.nearest_SF, neighbours.crowding_SF
    return {name: values[saes.exists_SF] for name, values in table.items()}


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost:
    """Decoder, encoder, either sign, and their rotations, over all pairs; one to one, and of rotated ones, over the chosen pairs."""
    c, n = settings[Sensitivity], len(settings[Seeds].list)
    matched = 2 * len(chosen_pairs(n, c.pairs))
    total = costs.comparisons(settings, "sensitivity", 6 * n * (n - 1) / 2, size.width, n * c.rows, settings[LabelRule].block_size)
    seconds = matched * MATCHING_SECONDS * settings[SAEConfig].n_features ** 2
    return total._replace(host=seconds, note=f"{total.note}, {matched} matched one to one on the host")
