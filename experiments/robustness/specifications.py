"""Stage: what the rules of the claims would say if features counted as the same by something else, at another θ, or all of them and not the live ones.

verdicts.parquet   a row per specification and claim: the side on which its figures stand, whatever the plateau
"""

import dataclasses
import functools
import itertools
from collections import Counter
from typing import Any

import numpy as np

from experiments import registry
from experiments.ablation import function, removal
from experiments.ablation.function import Function
from experiments.data import dictionary_list, sources
from experiments.fields import config, field
from experiments.interpretation import surface_form
from experiments.reappearance import feature_sets, null_models, stability
from experiments.reappearance.feature_sets import LABELS, STABLE, UNSTABLE, Features
from experiments.reappearance.labels import LabelRule
from experiments.reappearance.seed_values import Key, Values
from experiments.stage import Outputs, Stage, Task
from experiments.subspaces import subspace
from experiments.subspaces.subspace import Subspace
from reports import claims
from reports.claims import Claims
from reports.results import Earlier
from runtime import progress
from stability import nulls, reappearance, similarity
from stability.function import Effects, partial_correlation

CRITERIA = ("decoder", "encoder", "decoder and encoder, same partner", "activations")
LIVE, ALL = "live", "all"


@config("specifications")
class Specifications:
    """By what else features may count as the same."""

    thetas: tuple[float, ...] = field(
        default=(0.6, 0.7, 0.8), doc="from which a feature counts as the same", gt=0, le=1, distinct=True, least=1
    )
    criteria: tuple[str, ...] = field(
        default=CRITERIA, doc="by which it does, those that there are", one_of=CRITERIA, distinct=True, least=1
    )
    rows: int = field(default=65_536, doc="evaluation rows for explained variance, at most, evenly spaced", gt=0)
    subsamples: int = field(default=5, doc="draws of equally many features, for subspaces", gt=0)


STAGE = Stage(
    config=Specifications,
    reads=(LabelRule, Function, Subspace, Claims),
    needs=("saes", "stability", "sensitivity"),
    uses=("rows", "gaussian", "statistics"),
)


class Material:
    """What does not change with the specification: of the first SAEs, their features' rates, rows, scores and effects."""

    def __init__(self, task: Task, out: Outputs):
        strengths = task.table("sensitivity/strengths")
        whole = dictionary_list.saes(task)
        seeds = min(len(set(strengths["seed"].tolist())), task.section(Function).seeds)
        self.saes = saes = whole.first(seeds)
        table = task.table("stability/features")
        self.by_seed = by_seed = lambda column, empty: saes.by_seed(column, empty)
        self.strengths = {
            name: np.swapaxes(by_seed(np.stack(list(column))[:, :seeds], np.nan), 1, 2)
            for name, column in strengths.items()
            if name in task.section(Specifications).criteria
        }
        self.exists_SF, stratum_SF = saes.exists_SF, by_seed(table["stratum"], "")
        self.live_SF, self.firing_SF = stratum_SF == reappearance.LIVE, self.exists_SF & (stratum_SF != reappearance.DEAD)
        self.rate_SF, self.energy_SF = (by_seed(table[name], 0.0) if name in table else None for name in ("firing_rate", "energy"))
        self.unit_SFD = np.asarray(similarity.unit_rows(saes.w_dec_SFD))
        scores = task.has("statistics") and "not_measured" not in task.summary("statistics")
        self.score_SF = by_seed(task.table("statistics/features", ("surface_score",))["surface_score"], np.nan) if scores else None
        self.acts_ND = acts_ND = sources.evaluation_rows(task)
        gaussian = null_models.gaussian_saes(task, out)
        self.gaussian_rows = None if gaussian is None else subspace.rows_that_fire(*gaussian)
        self.effects: list[Effects] = []
        if acts_ND is not None:
            some_ND = acts_ND[sources.evenly_spaced(len(acts_ND), task.section(Specifications).rows)]
            with progress.tokens(len(saes.seeds) * len(some_ND), "specifications/effects") as bar:
                for i, dictionary in enumerate(saes.dictionaries):
                    self.effects.append(out.part(f"SAE {i}", functools.partial(function.effects_of, dictionary, some_ND, bar)))


def run(task: Task, out: Outputs) -> None:
    c = task.section(Specifications)
    material = Material(task, out)
    statements = [s for room in registry.modules("report") for s in room.CLAIMS]
    columns: dict[str, list[Any]] = {name: [] for name in ("theta", "criterion", "features", "claim", "side")}
    every = list(itertools.product(c.thetas, [name for name in c.criteria if name in material.strengths], (LIVE, ALL)))
    with progress.comparing("specifications", len(every)) as on_one:
        for theta, criterion, features in every:
            make = functools.partial(_sides, task, material, statements, theta, criterion, features)
            for claim, side in out.part(f"{theta} {criterion} {features}", make).items():
                for column, value in zip(columns.values(), (theta, criterion, features, claim, side), strict=True):
                    column.append(value)
            on_one()
    sides = {
        claim: Counter(s for c, s in zip(columns["claim"], columns["side"], strict=True) if c == claim)
        for claim in dict.fromkeys(columns["claim"])
    }
    out.summary({"specifications": len(every), "sides": {claim: dict(count) for claim, count in sides.items()}})
    out.table("verdicts", columns)


def _sides(
    task: Task, material: Material, statements: list[claims.Statement], theta: float, criterion: str, features: str
) -> dict[str, str]:
    """On which side every claim's figures stand, of those that are measured here."""
    summary = _summary(task, material, theta, criterion, features)
    return claims.sides(statements, Earlier(0, summary), task.section(Claims))


def _summary(task: Task, material: Material, theta: float, criterion: str, features: str) -> dict[str, Any]:
    """Figures by stage, as far as rules read them."""
    rule, s = task.section(LabelRule), len(material.saes.seeds)
    rule = dataclasses.replace(rule, theta=theta)
    hits_SSF = reappearance.reappears(material.strengths[criterion], theta)
    among_SF = material.live_SF if features == LIVE else material.exists_SF
    labels_SF = reappearance.labels(hits_SSF.sum(axis=1), s - 1, rule.epsilon)
    figures = stability.separation(rule, hits_SSF, among_SF)
    chance = nulls.chance_of_match(theta, *material.unit_SFD.shape[:0:-1])
    out: dict[str, Any] = {"stability": {"seeds": list(range(s)), "mean_p_live": {"null": chance}, "mean_p_unstable": {"null": None}}}
    out["stability"] |= stability.label_counts(labels_SF, among_SF)
    p_SF = hits_SSF.sum(axis=1) / (s - 1)
    if material.rate_SF is not None and material.energy_SF is not None:
        figures |= stability.rate_figures(rule, hits_SSF, among_SF, material.firing_SF, material.rate_SF)
        stats = Features(hits_SSF, among_SF, p_SF, material.rate_SF, material.energy_SF, rule.epsilon)
        out |= _of_labels(task, material, stats)
    out["stability"] |= {name: e.as_dict() for name, e in figures.items()}
    table = {
        "seed": np.asarray(material.saes.seeds)[np.indices(labels_SF.shape)[0]],
        "feature": np.indices(labels_SF.shape)[1],
        "label": labels_SF,
    }
    table |= {"stratum": np.where(among_SF, reappearance.LIVE, reappearance.DEAD)}
    if material.rate_SF is not None:
        table |= {"firing_rate": material.rate_SF, "energy": material.energy_SF}
    table = {name: values[material.exists_SF] for name, values in table.items()}
    few = dataclasses.replace(task.section(Subspace), subsamples=task.section(Specifications).subsamples)
    measured = subspace.measure(few, rule, material.unit_SFD, table, material.saes.seeds, material.acts_ND, material.gaussian_rows)
    out["subspace"] = {"not_measured": measured} if isinstance(measured, str) else measured[0]
    return out


def _of_labels(task: Task, material: Material, stats: Features) -> dict[str, Any]:
    """What sets of features do for the reconstruction, and the order of scores of surface form."""
    c, confidence, s = task.section(Function), task.section(LabelRule).confidence, len(material.saes.seeds)
    values, scores = Values(s, confidence, function.EV), Values(s, confidence, "AUROC")
    sets = feature_sets.labelled(stats, 1).whole
    for seed in range(s):
        for excluded_seed in values.samples(seed):
            masks = sets[excluded_seed]
            if material.effects:
                values.put(seed, excluded_seed, _of_effects(c, stats, masks, material.effects[seed], seed))
            if material.score_SF is not None:
                stable_F, unstable_F = (masks[kind][seed] for kind in (STABLE, UNSTABLE))
                scores.put(
                    seed, excluded_seed, surface_form.order(material.score_SF[seed], stats.rate_SF[seed], stable_F, unstable_F, c.bins)
                )
    out: dict[str, Any] = {}
    if material.effects:
        out["function"] = function.summary_of(task, values, {})
    if material.score_SF is not None:
        unknown = {"value": None, "low": None, "high": None}
        out["statistics"] = {name: scores.mean(key, null=0.5).as_dict() for name, key in surface_form.FIGURES.items()} | {
            "firings": 0,
            "surface_scored_stable": unknown,
            "surface_scored_unstable": unknown,
        }
    return out


def _of_effects(c: Function, stats: Features, masks: feature_sets.Masks, eff: Effects, seed: int) -> dict[Key, float]:
    f = len(eff.marginal_F)
    own = {name: mask[seed, :f] for name, mask in masks.items()}
    explained, live = eff.left_by_bias - eff.left, own[feature_sets.RANDOM]
    out = removal.costs(eff, [own[kind] for kind in (STABLE, UNSTABLE, feature_sets.RANDOM)], c.shares, c.ratio, "")
    for name in LABELS:
        out["part", name] = float(eff.shapley_F[own[name]].sum() / explained)
        out["share of features", name] = float(own[name].sum() / max(1, live.sum()))
    controls = np.stack([stats.rate_SF[seed, :f], stats.energy_SF[seed, :f]], axis=1)[live]
    for name, value_F in (("per token", eff.marginal_F), ("part", eff.shapley_F)):
        out["partial", name] = partial_correlation(stats.p_SF[seed, :f][live], value_F[live], controls)
    return out
