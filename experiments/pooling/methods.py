"""Ways to get an SAE beside each other: what each gives for two groups of seeds, and its figures with intervals and nulls."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.pooling import scoring
from experiments.pooling.pools import Groups, Material, Pooled
from experiments.pooling.scoring import DictionaryScore
from experiments.reappearance.labels import LabelRule
from experiments.stage import Task
from saes.dictionary import Dictionary
from stability import aggregates, nulls, reappearance, similarity
from stability.estimates import Estimate
from synthetic.config import Recovery, WorldConfig
from synthetic.generator import make_truth

LONGER, WIDER, BAG = "trained longer", "wider", "bagging"
FIGURES = {
    "p": "share of the SAEs that judge",
    "stable": "share of features",
    "between": "share of features",
    "explained": "explained variance",
    "l0": "features per token",
    "dead": "share of features",
    "features": "features",
    "live": "features",
    "found free": "share of atoms",
    "found block": "share of atoms",
}
BOUNDED = ("p", "stable", "between", "dead", "found free", "found block")  # shares
COMPARED = ("p", "between", "explained", "l0", "features")  # with a single SAE
OF_ROWS = ("p", "stable", "between", "found free", "found block")  # follow from the decoder rows, but for which of them live

Pair = tuple[list[DictionaryScore], list[DictionaryScore]]  # of the two groups


class Method(NamedTuple):
    """One way to get an SAE, once or more often from each group.

    Attributes:
      whole: what it gives.
      leave_one_out: of every SAE of a group what it gives without that one; of others, and where the method cannot be repeated, nothing.
      dictionaries: of `whole`, where each is one dictionary.
      pools: the pools of `whole` as they were made.
      repeated: whether the interval may speak of other seeds to pool; else of other seeds that judge alone.
      explained_repeated: whether what is explained was measured without each SAE too.
    """

    name: str
    whole: Pair
    leave_one_out: dict[int, Pair]
    dictionaries: tuple[list[Dictionary], list[Dictionary]] | None
    repeated: bool
    explained_repeated: bool
    pools: tuple[list[Pooled], list[Pooled]] | None = None


class Judges:
    """Measures dictionaries, each once."""

    def __init__(self, task: Task, material: Material, groups: Groups, rows_ND: np.ndarray):
        self.units = [material.units[s] for s in groups.fresh]
        self._covariance = np.cov(material.rows_ND, rowvar=False)
        self._rotations: dict[int, DictionaryScore] = {}
        self._rows, self._c = rows_ND, task.section(LabelRule)
        self._theta = task.section(LabelRule).theta
        world, recovery = task.maybe(WorldConfig), task.maybe(Recovery)
        self.atoms = None if world is None else make_truth(world)
        self._least_cosine = 0.0 if recovery is None else recovery.found
        self._overlaps: dict[tuple[int, int], float] = {}

    def __call__(self, dictionaries: Sequence[Dictionary]) -> list[DictionaryScore]:
        return scoring.judge(dictionaries, self.units, self._rows, self._theta, self._c.rare_firings)

    def rotate(self, score: DictionaryScore) -> DictionaryScore:
        """The same with rows turned where activations have unit covariance: what it would be like if it shared nothing but where tokens vary."""
        if score.identity not in self._rotations:
            rows = nulls.rotate_each_whitened(jax.random.key(0), score.unit_MD[None], (score.identity % 2**32,), self._covariance)
            self._rotations[score.identity] = scoring.with_rows(score, np.asarray(rows[0]), self.units, self._theta)
        return self._rotations[score.identity]

    def forget(self) -> None:
        """What is kept of methods that are measured: it is as large as they are."""
        self._rotations.clear()

    def overlap(self, one: DictionaryScore, other: DictionaryScore) -> float:
        place = (one.identity, other.identity)
        if place not in self._overlaps:
            self._overlaps[place] = scoring.overlap(one, other, self._theta)
        return self._overlaps[place]

    def atoms_found(self, score: DictionaryScore, in_block: bool) -> float:
        """Share of the world's atoms, of those in a block or of the others, that a feature is."""
        if self.atoms is None:
            return float("nan")
        atoms_AD = self.atoms.atoms_AD[(self.atoms.group_A > 0) == in_block]
        live_MD = score.unit_MD[score.live_M]
        if not len(atoms_AD) or not len(live_MD):
            return float("nan")
        return float(similarity.reaches((atoms_AD @ live_MD.T).max(axis=1), self._least_cosine).mean())


class Table:
    """Figures of methods, with intervals from leaving out one SAE at a time, of a group or of those that judge.

    Where a method could not be repeated without each pooled SAE, the interval of reappearance is over the SAEs that judge alone, and that of what
    is explained is from the two groups alone (t with one degree of freedom).
    """

    def __init__(self, task: Task, judges: Judges, groups: Groups):
        self._judges, self._groups = judges, groups
        self._confidence, self._epsilon = task.section(LabelRule).confidence, task.section(LabelRule).epsilon

    def estimate(self, m: Method, figure: str) -> Estimate:
        null = 0.0 if figure == "explained" else None
        if figure in OF_ROWS:
            one, other = ([self._judges.rotate(j) for j in side] for side in m.whole)
            null = self._value(m._replace(whole=(one, other)), figure, None)
        return self._estimate(
            m, figure, lambda k: self._value(m, figure, k), null, bounds=(0.0, 1.0) if figure in BOUNDED else (-np.inf, np.inf)
        )

    def difference(self, m: Method, single: Method, figure: str) -> Estimate:
        return self._estimate(m, figure, lambda k: self._value(m, figure, k) - self._value(single, figure, k), 0.0, single)

    def _estimate(
        self,
        m: Method,
        figure: str,
        place: Callable[[int | None], float],
        null: float | None,
        single: Method | None = None,
        bounds: tuple[float, float] = (-np.inf, np.inf),
    ) -> Estimate:
        unit, judging_matters = FIGURES[figure], figure in ("p", "stable")
        repeated = m.repeated if figure in OF_ROWS else m.explained_repeated
        if not repeated and not judging_matters:
            return self._of_groups(m, figure, null, unit, single, bounds)
        strata = [*(self._groups[:2] if repeated else ()), *((self._groups.fresh,) if judging_matters else ())]
        return aggregates.stratified_jackknifed(place, strata, self._confidence, null=null, unit=unit, bounds=bounds)

    def _of_groups(
        self, m: Method, figure: str, null: float | None, unit: str, single: Method | None, bounds: tuple[float, float]
    ) -> Estimate:
        def values(method: Method) -> np.ndarray:
            if figure == "between":
                return np.array([self._value(method, figure, None)])
            return np.array([self._mean(side, figure, None) for side in method.whole])

        less = values(m) - (values(single) if single is not None else 0.0)
        return aggregates.of_groups(less.tolist(), self._confidence, null=null, unit=unit, bounds=bounds)

    def _value(self, m: Method, figure: str, excluded_sae: int | None) -> float:
        pair = m.whole if excluded_sae is None else m.leave_one_out.get(excluded_sae, m.whole)
        if figure == "between":
            shared = np.array([self._judges.overlap(a, b) for a in pair[0] for b in pair[1]])
            return aggregates.seed_mean(shared, np.ones(len(shared)))
        return float(np.mean([self._mean(side, figure, excluded_sae) for side in pair]))

    def _mean(self, side: list[DictionaryScore], figure: str, excluded_sae: int | None) -> float:
        keep_G = np.array([s != excluded_sae for s in self._groups.fresh])
        return float(np.mean([self._one(j, figure, keep_G) for j in side]))

    def _one(self, j: DictionaryScore, figure: str, keep_G: np.ndarray) -> float:
        if figure in ("p", "stable"):
            hits_GL = j.hits_GM[keep_G][:, j.live_M]
            if not hits_GL.size:
                return float("nan")
            if figure == "p":
                return float(hits_GL.mean())
            misses = reappearance.allowed_misses(len(keep_G), self._epsilon)
            return float((hits_GL.sum(0) >= keep_G.sum() - misses).mean())
        if figure == "live":
            return float(j.live_M.sum())
        if figure.startswith("found"):
            return self._judges.atoms_found(j, figure == "found block")
        return float(getattr(j, figure))
