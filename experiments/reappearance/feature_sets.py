"""Sets of live features that the stages on function compare: by label, by the label that the other half of the seeds gives, and matched to the unstable."""

from typing import NamedTuple

import numpy as np

from experiments.data.dictionary_list import DictionaryList
from experiments.reappearance.labels import LabelRule
from experiments.stage import Task
from stability import aggregates, reappearance, similarity, subspaces, transfer
from synthetic import recovery
from synthetic.config import WorldConfig
from synthetic.generator import make_truth

STABLE, INTERMEDIATE, UNSTABLE = reappearance.STABLE, reappearance.INTERMEDIATE, reappearance.UNSTABLE
RANDOM = "random"  # any live features
LABELS = (STABLE, INTERMEDIATE, UNSTABLE)
KINDS = (*LABELS, RANDOM)
FREQUENCY, ENERGY = "matched frequency", "matched energy"
MATCHED = {FREQUENCY: "rate_SF", ENERGY: "energy_SF"}
OUTSIDE_BLOCKS, IN_BLOCKS = "latents outside the blocks", "latents in a block"  # of a world of known atoms
MAX_MEAN_RATIO = 2.0  # a matched set whose mean differs from the unstable features' by more than this factor is no match


Masks = dict[str, np.ndarray]  # by kind, (S, F)


class Features(NamedTuple):
    """What the stage `stability` found of the SAEs asked for, padded to the largest.

    Attributes:
      hits_SSF: whether a feature of the first reappears in the second.
      live_SF: features that are compared.
      p_SF: p̂.
      rate_SF: firing rate on held-out tokens.
      energy_SF: Σ f²‖d‖² over Σ‖x − x̄‖².
      epsilon: of the labels.
    """

    hits_SSF: np.ndarray
    live_SF: np.ndarray
    p_SF: np.ndarray
    rate_SF: np.ndarray
    energy_SF: np.ndarray
    epsilon: float


def read(task: Task, whole: DictionaryList, count: int) -> Features:
    """Of the first `count` SAEs of the list; held-out activations must have been there."""
    table = task.table("stability/features", ("seed", "feature", "stratum", "firing_rate", "energy", "best_cosine", "p"))
    first = whole.first(count)
    s = len(first.seeds)
    by_seed = lambda name, empty: first.by_seed(np.stack(list(table[name])) if name == "best_cosine" else table[name], empty)
    hits_SSF = np.swapaxes(reappearance.reappears(by_seed("best_cosine", np.nan)[:, :, :s], task.section(LabelRule).theta), 1, 2)
    live_SF = by_seed("stratum", "") == reappearance.LIVE
    return Features(
        hits_SSF, live_SF, by_seed("p", 0.0), by_seed("firing_rate", 0.0), by_seed("energy", 0.0), task.section(LabelRule).epsilon
    )


def by_label(stats: Features, excluded_seed: int | None = None) -> Masks:
    """Masks (S, F) by kind; labels as they are without one of the seeds among the comparisons."""
    weights_S = np.ones(len(stats.live_SF))
    if excluded_seed is not None:
        weights_S[excluded_seed] = 0.0
    return {name: mask & stats.live_SF for name, mask in _named(*aggregates.label_masks(stats.hits_SSF, stats.epsilon, weights_S)).items()}


def _named(stable_SF: np.ndarray, unstable_SF: np.ndarray) -> Masks:
    return {STABLE: stable_SF, INTERMEDIATE: ~stable_SF & ~unstable_SF, UNSTABLE: unstable_SF, RANDOM: np.ones_like(stable_SF)}


def by_other_half(stats: Features, count: int, excluded_seed: int | None = None) -> list[Masks]:
    """The same of `count` cuts of the seeds into halves, where each half is labelled by its comparisons with the other alone: no seed then both
    labels and is measured. Empty where a half would be."""
    cuts = []
    for one, other in transfer.splits(len(stats.live_SF), count)[::2]:
        masks = {name: np.zeros_like(stats.live_SF) for name in KINDS}
        for targets, labels in ((one, other), (other, one)):
            judge = [k for k in labels if k != excluded_seed]
            if not judge:
                return []
            counts_SF, misses = (
                stats.hits_SSF[np.ix_(targets, judge)].sum(axis=1),
                reappearance.allowed_misses(len(labels), stats.epsilon),
            )  # of the whole half
            named = _named(counts_SF >= len(judge) - misses, counts_SF <= misses)
            for name, mask_SF in named.items():
                masks[name][targets] = mask_SF & stats.live_SF[targets]
        cuts.append(masks)
    return cuts


class Labelled(NamedTuple):
    """Sets under the labels that all seeds give (None), and under those without each of them.

    Attributes:
      whole: by who is left out, as `by_label`.
      halves: likewise, as `by_other_half`.
    """

    whole: dict[int | None, Masks]
    halves: dict[int | None, list[Masks]]


def labelled(stats: Features, splits: int) -> Labelled:
    """For every sample of seeds, made once."""
    samples = (None, *range(len(stats.live_SF)))
    return Labelled({k: by_label(stats, k) for k in samples}, {k: by_other_half(stats, splits, k) for k in samples})


def matched(stats: Features, masks: Masks, kind: str, seed: int, draws: int) -> tuple[np.ndarray, float]:
    """(draws of live features of one SAE that are not unstable, masks (T, F), whose rate or energy is spread as the unstable ones'; and the geometric
    mean of theirs over that of the unstable). No draws where there are too few."""
    value_F = np.log(np.maximum(getattr(stats, MATCHED[kind])[seed], 1e-12))
    target = np.flatnonzero(masks[UNSTABLE][seed])
    others = np.flatnonzero(masks[RANDOM][seed] & ~masks[UNSTABLE][seed])
    n = min(len(target), len(others) // 2)  # of all that there are nothing can be chosen
    if not n:
        return np.zeros((0, stats.live_SF.shape[1]), bool), float("nan")
    weights = subspaces.matching_weights(value_F[others], value_F[target])
    drawn = subspaces.subsample(np.random.default_rng((seed, len(kind))), others, n, draws, weights)
    masks_TF = np.zeros((draws, stats.live_SF.shape[1]), bool)
    np.put_along_axis(masks_TF, drawn, True, axis=1)
    return masks_TF, float(np.exp(value_F[drawn].mean() - value_F[target].mean()))


def fitting(stats: Features, masks: Masks, kind: str, seed: int, draws: int) -> tuple[np.ndarray, float]:
    """As `matched`, and no draws where their mean is not that of the unstable features."""
    masks_TF, mean_ratio = matched(stats, masks, kind, seed, draws)
    fits = len(masks_TF) and 1 / MAX_MEAN_RATIO <= mean_ratio <= MAX_MEAN_RATIO
    return (masks_TF if fits else masks_TF[:0]), mean_ratio


def of_truth(task: Task, saes: DictionaryList, live_SF: np.ndarray) -> dict[str, np.ndarray]:
    """Where a world of known atoms is studied: live latents by where they lie, inside the planted blocks or not; else {}."""
    world = task.maybe(WorldConfig)
    if world is None or not world.blocks:
        return {}
    group_SF = recovery.group_of_latents(make_truth(world), np.asarray(similarity.unit_rows(saes.w_dec_SFD)))
    return {OUTSIDE_BLOCKS: live_SF & (group_SF == 0), IN_BLOCKS: live_SF & (group_SF > 0)}


def planted_shares(task: Task) -> dict[str, float]:
    """What the tokens of a world hold of the atoms that these latents stand for, as shares of their energy."""
    world = task.section(WorldConfig)
    free, *blocks = world.energies
    energy = {OUTSIDE_BLOCKS: free * world.free_atoms, IN_BLOCKS: sum(blocks) * world.block_atoms}
    return {name: value / sum(energy.values()) for name, value in energy.items()}
