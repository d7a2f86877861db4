"""Stage: what the rules of the claims would say if features counted as the same by something else, at another θ, or all of them and not the live ones.

verdicts.parquet   a row per specification and claim: the side on which its figures stand, whatever the plateau
"""

import dataclasses
import functools
import itertools
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from experiments import registry
from experiments.ablation import function, removal
from experiments.ablation.function import Function
from experiments.data import dictionary_list, sources
from experiments.fields import config, field
from experiments.ground_truth import recovery
from experiments.interpretation import surface_form
from experiments.prediction.transfer import Transfer, read_references
from experiments.reappearance import feature_sets, null_models, rates, stability
from experiments.reappearance.feature_sets import LABELS, RANDOM, STABLE, UNSTABLE, Features, Masks
from experiments.reappearance.labels import LabelRule
from experiments.reappearance.seed_values import Key, Values
from experiments.robustness import classifiers, spans
from experiments.stage import Outputs, Stage, Task
from experiments.subspaces import subspace
from experiments.subspaces.subspace import Subspace
from reports import claims
from reports.claims import Claims
from reports.results import Earlier
from runtime import progress
from stability import nulls, reappearance, reproducibility, similarity, transfer
from stability.estimates import Estimate
from stability.function import Effects
from synthetic.config import Recovery, WorldConfig
from synthetic.generator import make_truth

DECODER, ENCODER, ACTIVATIONS = "decoder", "encoder", "activations"
CRITERIA = (DECODER, ENCODER, "decoder and encoder, same partner", ACTIVATIONS)
LIVE, ALL = "live", "all"
PARTS = "surface_score_without_parts"  # column of statistics/features.parquet
NOT_ASKED = {
    "C3c": "a language model would be asked again, of other features",
    "C6": "pools are judged in a study of their own, by decoder rows at its θ",
}  # claims that no specification speaks of, and why


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
    subsamples: int = field(default=5, doc="C4: draws of equally many features (subspace.subsamples elsewhere)", gt=0)
    transfer_splits: int = field(default=1, doc="C7: cuts of the seeds into halves (transfer.splits elsewhere)", gt=0)
    transfer_draws: int = field(default=100, doc="C7: draws of directions (transfer.draws elsewhere)", ge=2)
    transfer_features: int = field(
        default=2048, doc="C7: of a half that are learned from or judged, at most (transfer.features elsewhere)", gt=0
    )


STAGE = Stage(
    config=Specifications,
    reads=(LabelRule, Function, Subspace, Transfer, Claims),
    optional=(Recovery, WorldConfig),
    needs=("saes", "stability", "sensitivity"),
    uses=("rows", "gaussian", "statistics"),
)


class Specification(NamedTuple):
    """From which θ, by which criterion, and over which features."""

    theta: float
    criterion: str
    features: str


class Material:
    """What does not change with the specification: of the first SAEs, their features' rates, rows, scores and effects."""

    def __init__(self, task: Task, out: Outputs):
        strengths = task.table("sensitivity/strengths")
        whole = dictionary_list.saes(task)
        seeds = min(len(set(strengths["seed"].tolist())), task.section(Function).seeds)
        self.saes = saes = whole.first(seeds)
        table = task.table("stability/features")
        by_seed = saes.by_seed
        self.strengths = {
            name: np.swapaxes(by_seed(np.stack(list(column))[:, :seeds], np.nan), 1, 2)
            for name, column in strengths.items()
            if name in task.section(Specifications).criteria
        }
        self.exists_SF, stratum_SF = saes.exists_SF, by_seed(table["stratum"], "")
        self.live_SF, self.firing_SF = stratum_SF == reappearance.LIVE, self.exists_SF & (stratum_SF != reappearance.DEAD)
        self.rate_SF, self.energy_SF = (by_seed(table[name], 0.0) if name in table else None for name in ("firing_rate", "energy"))
        self.without_PSF = (
            np.moveaxis(by_seed(np.stack(list(table["rate_without_parts"])), 0.0), -1, 0) if "rate_without_parts" in table else ()
        )
        self.scores: Scores | None = None
        if task.has("statistics") and "not_measured" not in task.summary("statistics"):
            scores = task.table("statistics/features", ("surface_score", PARTS))
            of_parts = np.moveaxis(by_seed(scores[PARTS], np.nan), -1, 0) if PARTS in scores else ()
            self.scores = Scores(by_seed(scores["surface_score"], np.nan), list(of_parts), task.summary("statistics")["firings"])
        self.acts_ND = acts_ND = sources.evaluation_rows(task)
        self.rows = self._rows(task, out)
        self.effects: list[Effects] = []
        if acts_ND is not None:
            some_ND = acts_ND[sources.evenly_spaced(len(acts_ND), task.section(Specifications).rows)]
            with progress.tokens(len(saes.seeds) * len(some_ND), "specifications/effects") as bar:
                for i, dictionary in enumerate(saes.dictionaries):
                    self.effects.append(out.part(f"SAE {i}", functools.partial(function.effects_of, dictionary, some_ND, bar)))
        self.references, _, self.log_rate_SF, self.order = read_references(task, whole, seeds)  # in the order of the seeds' numbers
        self.encoder_partner_SSF = out.part("encoder", lambda: self._encoder_partners(task)) if ENCODER in self.strengths else None
        self.world = task.maybe(WorldConfig) if task.maybe(Recovery) else None
        self.atoms = {} if self.world is None else {name: self._atoms(task, self.world, name) for name in (LIVE, ALL)}
        self.latent_cosine = {} if self.world is None else {name: self._cosines_of_latents(task, name) for name in (LIVE, ALL)}

    def among_SF(self, features: str) -> np.ndarray:
        """Features that are compared."""
        return self.live_SF if features == LIVE else self.exists_SF

    def latents_SF(self, features: str) -> np.ndarray:
        """Of a world of known atoms those that are held against the truth: all that fire, as the stage `recovery` has it, or all."""
        return self.firing_SF if features == LIVE else self.exists_SF

    def _rows(self, task: Task, out: Outputs) -> spans.Rows:
        gaussian = null_models.gaussian_saes(task, out)
        columns = {name: getattr(self, field_name) for name, field_name in feature_sets.MATCHED.items()}
        return spans.Rows(
            np.asarray(similarity.unit_rows(self.saes.w_dec_SFD)),
            self.saes.seeds,
            {name: column_SF for name, column_SF in columns.items() if column_SF is not None},
            None if self.acts_ND is None else reproducibility.principal_components(self.acts_ND),
            subspace.rows_that_fire(*gaussian) if gaussian is not None and len(gaussian[0].seeds) >= 2 else None,
        )

    def _encoder_partners(self, task: Task) -> np.ndarray:
        """Best matches by encoder, in the order of the seeds' numbers."""
        saes, order = self.saes, self.order
        match = similarity.all_pairs(
            saes.w_enc_SFD[order],
            sizes=[saes.sizes[place] for place in order],
            block_size=task.section(LabelRule).block_size,
            on_pair=progress.look_for_signals,
        )
        return np.asarray(match.partner)

    def _cosines_of_latents(self, task: Task, features: str) -> np.ndarray:
        """Best cosines by decoder among latents alone, as the stage `recovery` has them."""
        rows_SFD = np.where(self.latents_SF(features)[..., None], self.saes.w_dec_SFD, 0.0).astype(np.float32)
        return np.asarray(similarity.all_pairs(rows_SFD, block_size=task.section(LabelRule).block_size).cosine)

    def partners(self, criterion: str) -> np.ndarray:
        """Best matches in the order of the SAEs: by encoder its own, by any other criterion the decoder's."""
        partner_SSF = self.encoder_partner_SSF if criterion == ENCODER else self.references.partner_SSF
        place_S = np.argsort(self.order)
        return np.asarray(partner_SSF)[np.ix_(place_S, place_S)]

    def _atoms(self, task: Task, world: WorldConfig, features: str) -> dict[tuple[str, str, str], Estimate]:
        """Shares of atoms that are found, whatever labels say."""
        c, rule = task.section(Recovery), task.section(LabelRule)
        return recovery.atoms_found(c, recovery.measure(c, rule, world, self.saes.w_dec_SFD, self.latents_SF(features), self.acts_ND))


class Scores(NamedTuple):
    """Of surface form, NaN where a feature has none.

    Attributes:
      score_SF: from all text.
      without_PSF: from all but one of P parts; empty where they are not known.
      firings: from which each is made.
    """

    score_SF: np.ndarray
    without_PSF: list[np.ndarray]
    firings: int


def run(task: Task, out: Outputs) -> None:
    c = task.section(Specifications)
    material = Material(task, out)
    statements = [s for room in registry.modules("report") for s in room.CLAIMS]
    columns: dict[str, list[Any]] = {name: [] for name in (*Specification._fields, "claim", "side")}
    criteria = [name for name in c.criteria if name in material.strengths]
    every = [Specification(*place) for place in itertools.product(c.thetas, criteria, (LIVE, ALL))]
    with progress.comparing("specifications", len(every)) as on_one:
        for specification in every:
            make = functools.partial(_sides, task, material, statements, specification)
            for claim, side in out.part(" ".join(map(str, specification)), make).items():
                for column, value in zip(columns.values(), (*specification, claim, side), strict=True):
                    column.append(value)
            on_one()
    sides = {
        claim: Counter(s for c, s in zip(columns["claim"], columns["side"], strict=True) if c == claim)
        for claim in dict.fromkeys(columns["claim"])
    }
    out.summary({"specifications": len(every), "sides": {claim: dict(count) for claim, count in sides.items()}, "not_asked": NOT_ASKED})
    out.table("verdicts", columns)


def _sides(task: Task, material: Material, statements: list[claims.Statement], specification: Specification) -> dict[str, str]:
    """On which side every claim's figures stand, of those that are measured here."""
    return claims.sides(statements, Earlier(0, figures(task, material, specification)), task.section(Claims))


def figures(task: Task, material: Material, specification: Specification) -> dict[str, Any]:
    """Summaries by stage, as far as rules read them. What is not measured here is not in them, or None."""
    rule, s = dataclasses.replace(task.section(LabelRule), theta=specification.theta), len(material.saes.seeds)
    hits_SSF = reappearance.reappears(material.strengths[specification.criterion], specification.theta)
    among_SF = material.among_SF(specification.features)
    labels_SF = reappearance.labels(hits_SSF.sum(axis=1), s - 1, rule.epsilon)
    separated = stability.separation(rule, hits_SSF, among_SF)
    chance = nulls.chance_of_match(specification.theta, *material.rows.unit_SFD.shape[:0:-1])
    out: dict[str, Any] = {"stability": {"seeds": list(range(s)), "mean_p_live": {"null": chance}, "mean_p_unstable": {"null": None}}}
    out["stability"] |= stability.label_counts(labels_SF, among_SF)
    if material.rate_SF is not None and material.energy_SF is not None:
        separated |= rates.figures(rule, hits_SSF, among_SF, material.firing_SF, material.rate_SF, material.without_PSF)
        stats = Features(hits_SSF, among_SF, hits_SSF.sum(axis=1) / (s - 1), material.rate_SF, material.energy_SF, rule.epsilon)
        samples = {k: feature_sets.by_label(stats, k) for k in (None, *range(s))}
        if material.effects:
            out["function"] = _removed(task, material, samples)
        if material.scores is not None:
            out["statistics"] = _surface(task, material.scores, stats, samples)
    out["stability"] |= {name: e.as_dict() for name, e in separated.items()}
    masks = {name: (labels_SF == name) & among_SF for name in LABELS} | {RANDOM: among_SF}
    few = dataclasses.replace(task.section(Subspace), subsamples=task.section(Specifications).subsamples)
    out["subspace"] = spans.measure(few, rule, material.rows, masks)
    out["transfer"] = _classified(task, material, rule, specification.criterion, hits_SSF, among_SF)
    if material.world is not None:
        out["recovery"] = _recovered(task, material, material.world, specification, hits_SSF)
    return out


def _removed(task: Task, material: Material, samples: dict[int | None, Masks]) -> dict[str, Any]:
    """What sets of features do for the reconstruction."""
    c, values = task.section(Function), Values(len(material.effects), task.section(LabelRule).confidence, function.EV)
    for seed, eff in enumerate(material.effects):
        f, shapley_F = len(eff.marginal_F), eff.shapley_F
        for excluded_seed in values.samples(seed):
            own = {name: mask_SF[seed, :f] for name, mask_SF in samples[excluded_seed].items()}
            out = removal.costs(eff, [own[kind] for kind in (STABLE, UNSTABLE, RANDOM)], c.shares, c.ratio, "")
            for name in LABELS:
                out["part", name] = float(shapley_F[own[name]].sum() / (eff.left_by_bias - eff.left))
                out["share of features", name] = float(own[name].sum() / max(1, own[RANDOM].sum()))
            values.put(seed, excluded_seed, out)
    return function.summary_of(task, values, {})


def _surface(task: Task, scores: Scores, stats: Features, samples: dict[int | None, Masks]) -> dict[str, Any]:
    """The order of scores of surface form, and how many features have one."""
    c, s = task.section(Function), len(stats.rate_SF)
    values = Values(s, task.section(LabelRule).confidence, "AUROC")

    def order(score_SF: np.ndarray, seed: int, masks: Masks) -> dict[Key, float]:
        return surface_form.order(score_SF[seed], stats.rate_SF[seed], masks[STABLE][seed], masks[UNSTABLE][seed], c.bins)

    for seed in range(s):
        there_F = np.isfinite(scores.score_SF[seed])
        for excluded_seed in values.samples(seed):
            masks = samples[excluded_seed]
            of_labels = {
                ("scored", kind): float(there_F[masks[kind][seed]].mean()) for kind in (STABLE, UNSTABLE) if masks[kind][seed].any()
            }
            values.put(seed, excluded_seed, order(scores.score_SF, seed, masks) | of_labels)
        for part, score_SF in enumerate(scores.without_PSF):
            values.without_document(seed, part, order(score_SF, seed, samples[None]))
    estimates = {name: values.mean(key, null=0.5, bounds=(0.0, 1.0)) for name, key in surface_form.FIGURES.items()}
    for kind in (STABLE, UNSTABLE):
        estimates[f"surface_scored_{kind}"] = values.mean(("scored", kind), unit="share of features", bounds=(0.0, 1.0))
    return {name: e.as_dict() for name, e in estimates.items()} | {"firings": scores.firings}


def _classified(
    task: Task, material: Material, rule: LabelRule, criterion: str, hits_SSF: np.ndarray, among_SF: np.ndarray
) -> dict[str, Any]:
    """How well classifiers tell stable from unstable features by their decoder rows.

    Rows are known by heart where they come again, so features whose rows are each other's best match at θ are one direction by any criterion. So are
    those that the criterion finds in each other: by encoder each other's best match by encoder, else by decoder.
    """
    c, own, order = task.section(Specifications), material.references, material.order
    few = dataclasses.replace(task.section(Transfer), splits=c.transfer_splits, draws=c.transfer_draws, features=c.transfer_features)
    hits_SSF = hits_SSF[np.ix_(order, order)]
    partner_SSF = material.encoder_partner_SSF if criterion == ENCODER else own.partner_SSF
    by_decoder_SF = transfer.directions(own.partner_SSF, reappearance.reappears(own.cosine_SSF, rule.theta))
    direction_SF = classifiers.joined(by_decoder_SF, transfer.directions(np.asarray(partner_SSF), hits_SSF))
    seeds = transfer.Seeds(material.rows.unit_SFD[order], hits_SSF, among_SF[order], own.crowding_SF, material.log_rate_SF, direction_SF)
    least = np.exp(transfer.LEAST_LOG_RATE)
    log_rates = [np.log(np.maximum(rate_SF[order], least)) for rate_SF in material.without_PSF]
    return classifiers.measure(few, rule, seeds, log_rates, progress.look_for_signals)


def _recovered(task: Task, material: Material, world: WorldConfig, specification: Specification, hits_SSF: np.ndarray) -> dict[str, Any]:
    """Whether the span of latents that are unstable by the specification is the planted one. Which atoms are found hangs on no label.

    A match that is no latent counts for nothing.
    """
    c, latents_SF = dataclasses.replace(task.section(Recovery), theta=specification.theta), material.latents_SF(specification.features)
    if specification.criterion == DECODER:
        hits_SSF = reappearance.reappears(material.latent_cosine[specification.features], specification.theta)
    elif specification.criterion != ACTIVATIONS:  # what never fires has no match by those
        hits_SSF = hits_SSF & latents_SF[np.arange(len(hits_SSF))[None, :, None], material.partners(specification.criterion)]
    unstable_SF = latents_SF & (hits_SSF.sum(axis=1) / (len(hits_SSF) - 1) < c.unstable_below)
    span = recovery.unstable_span(task.section(LabelRule), world, make_truth(world), material.rows.unit_SFD, unstable_SF, material.acts_ND)
    return recovery.summary_of(c, material.atoms[specification.features] | span)
