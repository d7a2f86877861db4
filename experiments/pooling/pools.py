"""Pools of features of many seeds: who is pooled and who judges, and how each kind of pool is made."""

import dataclasses
import hashlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.dictionary_list import DictionaryList
from experiments.fields import check, config, field
from experiments.reappearance.labels import LabelRule
from runtime import progress
from saes import assembly, calibration
from saes.dictionary import Dictionary, first_features, left_over
from saes.evaluation import evaluate_each
from stability import atlas, pooling, reappearance, similarity
from stability.atlas import Rules
from stability.pooling import Pool

MEMBERS = "pool"
MEANS = "pool of means"
RANDOM = "random pool"
STABLE = "stable features"
SPAN = "stable features and a span"
SINGLE = "single SAE"
KINDS = (MEMBERS, MEANS, RANDOM, STABLE, SPAN)
NAMES = ("one", "other")  # of the first two groups
HELD, FREE = "held", "free"
PHASES = {HELD: "decoder held", FREE: "tuned"}  # of training on, and what a pool is called behind it
RIDGE = 1e-3  # of the mean square of the activations, where the span's encoder is fitted


class Way(NamedTuple):
    """How an SAE came about: its kind, and the phase of training on that it has behind it, "" as it was made."""

    kind: str
    phase: str = ""

    @property
    def name(self) -> str:
        return f"{self.kind}, {PHASES[self.phase]}" if self.phase else self.kind

    @classmethod
    def named(cls, name: str) -> "Way":
        """That of a name, as `config.pool.headline` has it."""
        kind, _, phase_name = name.partition(", ")
        return cls(kind, {phase_name: phase for phase, phase_name in PHASES.items()}.get(phase_name, ""))


@config("pool")
class Pooling:
    """How features of many seeds are pooled, and against what pools are compared."""

    group: int = field(
        default=8,
        doc="SAEs in each of the disjoint groups, the first so many seeds, the next, and so on; all others judge",
        ge=3,
        says="at least 3: each is left out once, and two must be left to compare",
    )
    groups: int = field(
        default=3,
        doc="disjoint groups; pools of all are compared with each other (C6), of the first two there are curves and intervals over SAEs",
        ge=2,
    )
    theta: float = field(default=0.7, doc="cosine from which two features are one, among the pooled and in the pool", gt=0, lt=1)
    sizes: tuple[int, ...] = field(
        default=(2, 4, 8), doc="numbers of pooled SAEs at which curves are taken; divisors of group", ge=2, distinct=True
    )
    thetas: tuple[float, ...] = field(default=(0.5, 0.6, 0.7, 0.8, 0.9), doc="at which they are taken too", gt=0, lt=1, distinct=True)
    features: tuple[int, ...] = field(
        default=(), doc="likewise, numbers of features; (): a quarter, a half, the same and twice those of one SAE", gt=0, distinct=True
    )
    rows: int = field(default=32_768, doc="training tokens on which features are ranked and pools calibrated", gt=0)
    span_rank: int = field(
        default=16,
        doc="dimensions of the span that stands for unstable features in one kind of pool, where no local subspaces are found (section atlas)",
        gt=0,
    )
    tuned: tuple[str, ...] = field(
        default=("pool", "pool of means", "random pool"), doc="kinds that are trained on, beside a single SAE of each group", distinct=True
    )
    held_tokens: int = field(default=625_000, doc="with decoder rows held; configs/common.py: a quarter of train.tokens", gt=0)
    free_tokens: int = field(default=2_500_000, doc="then with decoder rows free; configs/common.py: as many as train.tokens", gt=0)
    tune_rate: float = field(default=1.0, doc="of the peak learning rate", gt=0)
    decoder_rate: float = field(
        default=0.03,
        doc="of the learning rate, for decoder rows that are free: slow, so that they stay what other seeds find too",
        ge=0,
        le=1,
    )
    headline: str = field(default="pool of means, tuned", doc="what claim C6 is decided on")
    repeat: bool = field(default=True, doc="make and tune it again without each SAE, which its interval rests on")
    curves: bool = field(default=True, doc="train pools on at the points of its curves, too, those that are not larger than one SAE")

    def check(self) -> None:
        check(
            all(size <= self.group and self.group % size == 0 for size in self.sizes), "pool.sizes", self.sizes,
            f"from 2 to pool.group={self.group}, each a divisor of it",
        )  # fmt: skip
        kinds = (MEMBERS, MEANS, RANDOM)
        check(set(self.tuned) <= set(kinds), "pool.tuned", self.tuned, f"distinct ones of {kinds}")
        ways = {*KINDS, *(Way(kind, phase).name for kind in self.tuned for phase in PHASES)}
        check(self.headline in ways, "pool.headline", self.headline, f"one of {sorted(ways)}")

    @property
    def headline_way(self) -> "Way":
        return Way.named(self.headline)


class Groups(NamedTuple):
    """Places of the SAEs, disjoint: groups that are pooled, and those that judge and are never pooled.

    Attributes:
      one, other: the first two groups, of which everything is measured.
      fresh: those that judge.
      further: groups behind the first two, for comparisons between independent pools.
    """

    one: tuple[int, ...]
    other: tuple[int, ...]
    fresh: tuple[int, ...]
    further: tuple[tuple[int, ...], ...] = ()

    @property
    def by_name(self) -> dict[str, tuple[int, ...]]:
        """All that are pooled."""
        return dict(zip(group_names(2 + len(self.further)), (self.one, self.other, *self.further), strict=True))


def group_names(count: int) -> tuple[str, ...]:
    """Of so many groups, as in names of files."""
    return (*NAMES, *(f"group-{n}" for n in range(3, count + 1)))


def groups(seeds: int, size: int, count: int = 2) -> Groups:
    """The first so many, the next, and so on; all the rest judge.

    Raises:
      ValueError: fewer than two are left to judge.
    """
    if seeds < count * size + 2:
        raise ValueError(
            f"{seeds} SAEs: {count} groups (config.pool.groups) of {size} (config.pool.group) and at least 2 that judge are {count * size + 2}"
        )
    one, other, *further = (tuple(range(g * size, (g + 1) * size)) for g in range(count))
    return Groups(one, other, tuple(range(count * size, seeds)), tuple(further))


class Material(NamedTuple):
    """SAEs and what is known of their features, padded to the largest.

    Attributes:
      dictionaries: of one kind.
      units: (F, D) unit decoder rows of each.
      best_SSF: largest cosine with any feature of another.
      rate_SF, energy_SF: firing rate, and Σ f²‖d‖² over Σ‖x − x̄‖², on the rows of `rows_ND`.
      live_SF: features that fire often enough there.
      rows_ND: training tokens on which candidates are ranked and pools calibrated; nothing is judged on them.
      epsilon: of labels.
      rules: of what counts as a local subspace.
    """

    dictionaries: tuple[Dictionary, ...]
    units: tuple[np.ndarray, ...]
    best_SSF: np.ndarray
    rate_SF: np.ndarray
    energy_SF: np.ndarray
    live_SF: np.ndarray
    rows_ND: np.ndarray
    epsilon: float
    rules: Rules


class Recipe(NamedTuple):
    """How a pool is made.

    Attributes:
      kind: one of `KINDS`.
      theta: cosine from which two features are one, among the pooled seeds and in the pool.
      features: that it has at most.
      span_rank: dimensions of the span that stands for the unstable features, if the kind has one and no sharply bounded subspaces are found.
    """

    kind: str
    theta: float
    features: int
    span_rank: int


def recipe(c: Pooling, features: int, kind: str) -> Recipe:
    """That of a kind where nothing is varied."""
    return Recipe(kind, c.theta, features, c.span_rank)


class Pooled(NamedTuple):
    """A pool of M features.

    Attributes:
      dictionary: calibrated.
      seed_M, feature_M: SAE and number of the feature that leads each group; −1: a direction of the span.
      p_M: share of the other pooled seeds in which the leader reappears; NaN of the span's.
      members_M: features in the group.
      unique: groups that there are: all that are in the pool where it is not full, else as many or more; directions of a span are none.
      ranks: of the local subspaces that stand for unstable features; (): none was found, or the kind has none.
    """

    dictionary: Dictionary
    seed_M: np.ndarray
    feature_M: np.ndarray
    p_M: np.ndarray
    members_M: np.ndarray
    unique: int
    ranks: tuple[int, ...] = ()


def make_material(saes: DictionaryList, rows_ND: np.ndarray, c: LabelRule, rules: Rules) -> Material:
    """What pools are made of.

    Args:
      rows_ND: training tokens.
    """
    cosine = similarity.all_pairs(saes.w_dec_SFD, sizes=saes.sizes, block_size=c.block_size, on_pair=progress.look_for_signals).cosine
    evaluation = evaluate_each(saes.dictionaries, lambda: progress.batches(rows_ND, "pool/ranking"), 1)
    live_SF = (reappearance.strata(evaluation.firings_SF, c.rare_firings) == reappearance.LIVE) & saes.exists_SF
    units = tuple(np.asarray(similarity.unit_rows(d.w_dec_FD)) for d in saes.dictionaries)
    rate_SF = evaluation.firings_SF / evaluation.rows
    return Material(saes.dictionaries, units, cosine, rate_SF, evaluation.energy_SF, live_SF, rows_ND, c.epsilon, rules)


def make(material: Material, places: tuple[int, ...], recipe: Recipe, l0: float, group: int = 0) -> Pooled | None:
    """A pool of the SAEs at `places`, from them alone; None where they have no feature for it.

    Args:
      l0: active features a token that the pool is to have.
      group: SAEs in the whole group of which these are all or all but one, which decides how many comparisons a label may miss; 0: these.
    """
    sizes = [len(material.units[s]) for s in places]
    column = lambda values_SF: np.concatenate([values_SF[s, :n] for s, n in zip(places, sizes, strict=True)])
    hits_SSF = reappearance.reappears(material.best_SSF[np.ix_(places, places)], recipe.theta)
    counts_SF = np.zeros(material.live_SF.shape, int)
    counts_SF[list(places)] = hits_SSF.sum(axis=1)
    counts_N, live_N = column(counts_SF), column(material.live_SF)
    others = max(1, len(places) - 1)
    unit_ND, p_N = np.concatenate([material.units[s] for s in places]), counts_N / others
    seed_N, feature_N = np.repeat(places, sizes), np.concatenate([np.arange(n) for n in sizes])
    misses = reappearance.allowed_misses(max(1, (group or len(places)) - 1), material.epsilon)
    among_N = live_N & (counts_N >= others - misses) if recipe.kind in (STABLE, SPAN) else live_N
    order_N = pooling.ranking(p_N, column(material.rate_SF), column(material.energy_SF), unit_ND)
    if recipe.kind == RANDOM:
        order_N = np.array(sorted(range(len(unit_ND)), key=lambda n: hashlib.sha256(unit_ND[n].tobytes()).digest()), int)
    order_N = order_N[among_N[order_N]]
    if not len(order_N):
        return None
    basis_DR = np.zeros((unit_ND.shape[1], 0))
    ranks: tuple[int, ...] = ()
    if recipe.kind == SPAN:
        unstable = (counts_N <= misses) & live_N
        basis_DR, ranks = _basis(material, places, seed_N, unit_ND, live_N & ~among_N, unstable, recipe)
        stable_MD = unit_ND[pooling.pool(unit_ND, order_N, recipe.theta, recipe.features).leader_M]
        there_R = np.abs(stable_MD @ basis_DR).max(axis=0, initial=0.0) >= similarity.least_cosine(recipe.theta)
        basis_DR = basis_DR[:, ~there_R]  # none twice: neither a direction nor its opposite
    room = recipe.features - 2 * basis_DR.shape[1]
    selection = pooling.pool(unit_ND, order_N, recipe.theta, max(1, room))
    dictionary = _dictionary([material.dictionaries[s] for s in places], unit_ND, selection, recipe)
    batches = lambda: progress.plain_batches(material.rows_ND)
    k, size = dictionary.k, min(recipe.features, len(unit_ND))  # filled up to it: one program for all

    def calibrated(d: Dictionary) -> Dictionary:
        m = d.w_dec_FD.shape[0]
        of_k = dataclasses.replace(d, k=min(k, m))  # in topk no more can be active than there are
        return first_features(calibration.calibrated(assembly.padded(of_k, size), batches, l0), m)

    dictionary = calibrated(dictionary)
    place = selection.leader_M
    columns = [seed_N[place], feature_N[place], p_N[place], pooling.group_sizes(selection)]
    if recipe.kind == SPAN:
        dictionary = calibrated(_with_span(dictionary, basis_DR, material.rows_ND, size))
        added = dictionary.w_dec_FD.shape[0] - len(place)
        columns = [np.concatenate([c, np.full(added, e)]) for c, e in zip(columns, (-1, -1, np.nan, 0), strict=True)]
    seed_M, feature_M, p_M, members_M = columns
    unique = (
        len(selection.leader_M)
        if len(selection.leader_M) < room
        else len(pooling.pool(unit_ND, order_N, recipe.theta, len(order_N)).leader_M)
    )
    return Pooled(dictionary, seed_M, feature_M, p_M, members_M, unique, ranks)


def _dictionary(dictionaries: list[Dictionary], unit_ND: np.ndarray, selection: Pool, recipe: Recipe) -> Dictionary:
    if recipe.kind == MEANS:
        rows_MD, is_mean_M = pooling.means(unit_ND, selection, recipe.theta)
        group_N = np.where(is_mean_M[selection.group_N] & (selection.group_N >= 0), selection.group_N, -1)
        group_N[selection.leader_M] = np.arange(len(selection.leader_M))
        return assembly.assembled(dictionaries, group_N, rows_MD)
    group_N = np.full(len(unit_ND), -1)
    group_N[selection.leader_M] = np.arange(len(selection.leader_M))
    return assembly.assembled(dictionaries, group_N)


def _basis(
    material: Material,
    places: tuple[int, ...],
    seed_N: np.ndarray,
    unit_ND: np.ndarray,
    among_N: np.ndarray,
    unstable_N: np.ndarray,
    recipe: Recipe,
) -> tuple[np.ndarray, tuple[int, ...]]:
    """(orthonormal (D, R), ranks of the subspaces): of all local subspaces that two halves of the pooled seeds share, as the atlas finds them among
    features that are not stable; without any, of the leading directions of the unstable ones."""
    most = (recipe.features - 1) // 2  # two features a dimension
    rows = [unit_ND[among_N & (seed_N == s)] for s in sorted(places)]
    entries = atlas.make(rows, material.rules, progress.look_for_signals) if len(places) >= 4 else []
    planes: list[np.ndarray] = []
    for e in entries:
        if sum(plane.shape[1] for plane in planes) + e.rank <= most:
            planes.append(e.plane_DR)
    if planes:
        return np.linalg.qr(np.concatenate(planes, axis=1))[0], tuple(plane.shape[1] for plane in planes)
    unstable_ND = unit_ND[unstable_N]
    rank = min(recipe.span_rank, most, *unstable_ND.shape)
    if not rank:
        return np.zeros((unit_ND.shape[1], 0)), ()
    return np.linalg.svd(unstable_ND, full_matrices=False)[2][:rank].T, ()


def _with_span(dictionary: Dictionary, basis_DR: np.ndarray, rows_ND: np.ndarray, size: int) -> Dictionary:
    """With the directions of an orthonormal basis, each and its opposite, encoded by what of the residual along it can be told linearly from the token."""
    rank = basis_DR.shape[1]
    if not rank:
        return dictionary
    sign_R = np.sign(basis_DR[np.abs(basis_DR).argmax(axis=0), np.arange(rank)])  # whatever the library's choice
    basis_DR = basis_DR * sign_R
    x_ND = rows_ND.astype(np.float64) - np.asarray(dictionary.b_dec_D, np.float64) * dictionary.subtract_b_dec
    on_device = jax.device_put(assembly.padded(dictionary, size))
    left_NR = np.concatenate([np.asarray(left_over(on_device, jnp.asarray(x))) @ basis_DR for x in progress.plain_batches(rows_ND)])
    mean_D, mean_R = x_ND.mean(0), left_NR.mean(0)
    centred_ND = x_ND - mean_D
    second_DD = centred_ND.T @ centred_ND
    ridge = RIDGE * np.trace(second_DD) / len(second_DD) * np.eye(len(second_DD))
    w_DR = np.linalg.solve(second_DD + ridge, centred_ND.T @ (left_NR - mean_R))
    b_R = mean_R - mean_D @ w_DR
    both = lambda a, axis: np.concatenate([a, -a], axis=axis)
    return assembly.with_features(dictionary, both(w_DR, 1), both(b_R, 0), both(basis_DR.T, 0))
