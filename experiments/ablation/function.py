"""Stage: what stable and unstable features do for the reconstruction: removed, kept, alone and together, at equal frequency and energy.

differences.parquet  N stable less ratio·N unstable features removed, over N and by ablation, with intervals
curves.parquet       explained variance lost or left when m features of a set are removed or kept, with intervals; refitted, refilled
sets.parquet         a row per set and figure: joint and marginal effects, redundancy, parts of what is explained
deciles.parquet      marginal effects of stable and unstable features within bins of equally many of them by firing rate
features.parquet     a row per (seed, feature): its mean activation, its marginal effect per token and per firing, its Shapley value
"""

import functools
from typing import Any, NamedTuple

import numpy as np

from experiments.ablation import function_tables, removal
from experiments.data import costs, dictionary_list, sources
from experiments.data.costs import Cost, Hardware, Size
from experiments.data.seeds import Seeds
from experiments.fields import config, field
from experiments.reappearance import feature_sets
from experiments.reappearance.feature_sets import FREQUENCY, KINDS, LABELS, MATCHED, RANDOM, STABLE, UNSTABLE, Features, Labelled, Masks
from experiments.reappearance.labels import LabelRule
from experiments.reappearance.seed_values import Key, Values
from experiments.settings import Settings
from experiments.stage import Outputs, Stage, Task
from runtime import progress
from saes import masking, moments, spread
from saes.config import SAEConfig
from saes.dictionary import Dictionary
from saes.moments import Moments
from stability.estimates import Estimate
from stability.function import (
    ABLATIONS,
    ZERO,
    Effects,
    effects,
    explained_alone,
    grid,
    partial_correlation,
    redundancy,
    removal_cost,
    sign_flips,
    sums,
    within_bins,
)

REFITTED = 2.1  # Σ of the cubes of the shares of features that refits keep: all, all but a label, a label alone
LEAST_ROWS = 100  # of a block
REFILLED_SETS = 30  # sets that are removed before the selection


@config("function")
class Function:
    """How it is measured what features do for the reconstruction."""

    seeds: int = field(default=16, doc="SAEs, the first so many; of figures by label in statistics and explanations too", ge=2)
    rows: int = field(default=1_000_000, doc="evaluation rows, at most, evenly spaced", gt=0)
    ratio: int = field(default=4, doc="unstable features that are removed for each stable one (the paper's)", gt=0)
    draws: int = field(default=20, doc="of features matched to the unstable ones", gt=0)
    shares: tuple[float, ...] = field(
        default=(0.1, 0.25, 0.5),
        doc="C2: of the most stable features that can be held against `ratio` times as many unstable ones, those that are removed",
        gt=0,
        le=1,
        distinct=True,
        least=1,
    )
    splits: int = field(default=2, doc="cuts of the seeds into halves, each labelled by the other", gt=0)
    blocks: int = field(default=10, doc="of the evaluation rows, for the part of intervals that is the text's", ge=2)
    bins: int = field(default=10, doc="of equally many features by firing rate", ge=2)
    refill_rows: int = field(default=8192, doc="evaluation rows for removal before the selection, when in topk others move up", gt=0)

    @property
    def headline(self) -> float:
        """The share at which single figures are taken: the one in the middle."""
        return sorted(self.shares)[len(self.shares) // 2]


STAGE = Stage(config=Function, reads=(LabelRule,), needs=("saes", "stability"), uses=("rows",))

EV = "explained variance"


def run(task: Task, out: Outputs) -> None:
    c = task.section(Function)
    acts_ND = sources.evaluation_rows(task)
    if acts_ND is None:
        out.not_measured("no activations to reconstruct")
        return
    whole = dictionary_list.saes(task)
    saes = whole.first(c.seeds)
    stats = feature_sets.read(task, whole, c.seeds)
    truth = feature_sets.of_truth(task, saes, stats.live_SF)
    some_ND = acts_ND[sources.evenly_spaced(len(acts_ND), c.rows)]
    values = Values(len(saes.seeds), task.section(LabelRule).confidence, EV)
    sets = feature_sets.labelled(stats, c.splits)
    few_ND = acts_ND[sources.evenly_spaced(len(acts_ND), c.refill_rows)]
    features: list[dict[str, np.ndarray]] = []
    with progress.tokens(len(saes.seeds) * (len(some_ND) + len(few_ND)), "function") as bar:
        for i, dictionary in enumerate(saes.dictionaries):
            make = functools.partial(_of_sae, task, stats, sets, truth, dictionary, some_ND, few_ND, i, values.samples(i), bar)
            one = out.part(f"SAE {i}", make)
            for excluded_seed, figures in one.by_sample:
                values.put(i, excluded_seed, figures)
            for block, figures in enumerate(one.by_block):
                values.of_block(i, block, figures)
            values.fixed(i, one.fixed)
            features.append(one.features | {"seed": np.full(len(one.features["feature"]), saes.seeds[i])})
    summary = summary_of(task, values, truth)
    out.summary(summary)
    tables: dict[str, Any] = {
        "curves": function_tables.curves_table(values),
        "differences": removal.table(values),
        "sets": function_tables.sets_table(values),
        "deciles": function_tables.deciles_table(values, c.bins),
        "features": {name: np.concatenate([f[name] for f in features]) for name in features[0]},
    }
    for name, table in tables.items():
        out.table(name, table)


class OfSAE(NamedTuple):
    """Figures of one SAE.

    Attributes:
      by_sample: under the labels of every sample of seeds: (who is left out, figures).
      by_block: under the labels of all, of each block of the rows alone.
      fixed: those that hold the labels fixed.
      features: columns of a table with a row a feature.
    """

    by_sample: list[tuple[int | None, dict[Key, float]]]
    by_block: list[dict[Key, float]]
    fixed: dict[Key, float]
    features: dict[str, np.ndarray]


def _of_sae(
    task: Task,
    stats: Features,
    sets: Labelled,
    truth: Masks,
    dictionary: Dictionary,
    some_ND: np.ndarray,
    few_ND: np.ndarray,
    seed: int,
    samples: list[int | None],
    bar: Any,
) -> OfSAE:
    halves: list[Moments] = []
    by_block = []
    blocks = int(np.clip(len(some_ND) // LEAST_ROWS, 2, task.section(Function).blocks))
    for i, block_ND in enumerate(np.array_split(some_ND, blocks)):
        m = _moments(dictionary, block_ND, bar)
        by_block.append(_closed_form(task, stats, sets, truth, _effects(m, dictionary), m, seed, None))
        half = 2 * i // blocks
        halves[half:] = [m if len(halves) == half else moments.added(halves[half], m)]
    both = moments.added(*halves)
    eff = _effects(both, dictionary)
    by_sample = [(excluded_seed, _closed_form(task, stats, sets, truth, eff, both, seed, excluded_seed)) for excluded_seed in samples]
    fixed = _refitted(sets.whole[None], (halves[0], halves[1]), dictionary, seed) | _refilled(
        task, stats, sets.whole[None], dictionary, few_ND, seed, bar
    )
    return OfSAE(by_sample, by_block, fixed, _of_features(eff, both))


def _moments(dictionary: Dictionary, acts_ND: np.ndarray, bar: Any) -> Moments:
    """Of consecutive rows; blocks share no more than one document."""
    size = int(np.clip(4 * dictionary.w_dec_FD.shape[0], progress.BATCH, 16_384))
    return moments.measure(dictionary, progress.batches(acts_ND, bar, size))


def effects_of(dictionary: Dictionary, acts_ND: np.ndarray, bar: Any) -> Effects:
    """Of all features on some rows."""
    return _effects(_moments(dictionary, acts_ND, bar), dictionary)


def _effects(m: Moments, dictionary: Dictionary) -> Effects:
    bias = m.x.from_point(dictionary.b_dec_D)
    return effects(m.zz_FF, m.zr_FD, dictionary.w_dec_FD, m.error, bias, m.variance, m.z_sum_F, m.r_sum_D, m.rows)


def _closed_form(
    task: Task, stats: Features, sets: Labelled, truth: Masks, eff: Effects, m: Moments, seed: int, excluded_seed: int | None
) -> dict[Key, float]:
    """All figures of one SAE that follow from its effects, under the labels of the others less one."""
    c, f = task.section(Function), len(eff.marginal_F)
    masks, shapley_F = sets.whole[excluded_seed], eff.shapley_F
    own = {name: mask[seed, :f] for name, mask in (masks | truth).items()}
    out: dict[Key, float] = {("left",): eff.left, ("left by bias",): eff.left_by_bias}
    explained = eff.left_by_bias - eff.left
    with np.errstate(invalid="ignore", divide="ignore"):
        per_firing_F = eff.marginal_F * m.rows / m.firings_F
    of_sets = sums(eff, np.stack(list(own.values())))
    place = {name: of_sets.row(i) for i, name in enumerate(own)}
    live = place[RANDOM]
    for name, s in place.items():
        if not live.features:
            continue
        out[("features", name)] = float(s.features)
        out[("share of features", name)] = float(s.features / live.features)
        out[("part", name)] = float(shapley_F[own[name]].sum() / explained)  # 0 of an empty set
        if not s.features:
            continue
        out[("joint", name)], out[("marginal", name)], out[("redundancy", name)] = (
            float(x) for x in (removal_cost(s), s.marginal, redundancy(s))
        )
        out[("per token", name)], out[("per firing", name)] = float(s.marginal / s.features), float(per_firing_F[own[name]].mean())
        out[("only", name)] = float(1.0 - eff.left_by_bias + explained_alone(s))
        out[("only as many", name)] = float(1.0 - eff.left_by_bias + explained_alone(live, float(s.features)))
        for n in grid(int(s.features)):
            out[("removed", name, n)], out[("kept", name, n)] = (
                float(removal_cost(s, n)),
                float(1.0 - eff.left_by_bias + explained_alone(s, n)),
            )
    out |= removal.costs(eff, [own[kind] for kind in (STABLE, UNSTABLE, RANDOM)], sorted({*c.shares, *removal.CURVE}), c.ratio, "")
    halves = [
        removal.costs(eff, [by_half[kind][seed, :f] for kind in (STABLE, UNSTABLE, RANDOM)], c.shares, c.ratio, " by the other half")
        for by_half in sets.halves[excluded_seed]
    ]
    out |= {key: float(np.mean([h[key] for h in halves if key in h])) for half in halves for key in half}
    out |= _against_matched(c, stats, masks, eff, seed)
    rate_F, energy_F = (x[seed, :f] for x in (stats.rate_SF, stats.energy_SF))
    others = [k for k in range(len(stats.hits_SSF)) if k not in (seed, excluded_seed)]
    p_F = stats.hits_SSF[seed, others, :f].mean(axis=0) if others else np.zeros(f)
    stable_b, unstable_b, n_stable_b, n_unstable_b = within_bins(eff.marginal_F, rate_F, own[STABLE], own[UNSTABLE], c.bins)
    weight_b = np.minimum(n_stable_b, n_unstable_b)
    for b in range(c.bins):
        out[("decile", STABLE, b)], out[("decile", UNSTABLE, b)] = float(stable_b[b]), float(unstable_b[b])
        out[("decile features", STABLE, b)], out[("decile features", UNSTABLE, b)] = float(n_stable_b[b]), float(n_unstable_b[b])
    if weight_b.sum():
        for name, means_b in ((STABLE, stable_b), (UNSTABLE, unstable_b)):
            out[("within deciles", name)] = float(np.nansum(weight_b * means_b) / weight_b.sum())
    there_F = own[RANDOM]
    controls = np.stack([rate_F, energy_F], axis=1)[there_F]
    for name, value_F in (("per token", eff.marginal_F), ("per firing", per_firing_F), ("part", shapley_F)):
        out[("partial", name)] = partial_correlation(p_F[there_F], value_F[there_F], controls)
    return out


def _against_matched(c: Function, stats: Features, masks: Masks, eff: Effects, seed: int) -> dict[Key, float]:
    """Unstable features beside as many others of their frequency or energy: joint effects, and of m of each on the grid."""
    out: dict[Key, float] = {}
    f = len(eff.marginal_F)
    unstable = sums(eff, masks[UNSTABLE][seed, None, :f]).row(0)
    for kind in MATCHED:
        drawn_TF, mean_ratio = feature_sets.fitting(stats, masks, kind, seed, c.draws)
        if not len(drawn_TF):
            continue
        of_draws = sums(eff, drawn_TF[:, :f])
        n = int(of_draws.features[0])
        out |= {("apart", kind): mean_ratio, ("features", kind): float(n)}
        out |= {
            ("joint", kind): float(removal_cost(of_draws).mean()),
            ("joint of unstable as many as", kind): float(removal_cost(unstable, n)),
        }
        for m in grid(n):
            out[("removed", kind, m)] = float(removal_cost(of_draws, m).mean())
            out[("kept", kind, m)] = float(1.0 - eff.left_by_bias + explained_alone(of_draws, m).mean())
    return out


def _refitted(masks: Masks, halves: tuple[Moments, Moments], dictionary: Dictionary, seed: int) -> dict[Key, float]:
    """Explained variance when only a kind of features is left, or all but it, and the decoder is fitted to them again on one half of the tokens,
    judged on the other, both ways."""
    f = dictionary.w_dec_FD.shape[0]
    out: dict[Key, float] = {}
    everything = np.ones(f, bool)
    for name in (*LABELS, RANDOM):
        mask_F = masks[name][seed, :f]
        if not mask_F.any():
            continue
        for key, stays_F in (("refitted only", mask_F), ("refitted without", everything & ~mask_F)):
            both = [
                moments.refitted_explained_variance(fit, test, dictionary, np.flatnonzero(stays_F)) for fit, test in (halves, halves[::-1])
            ]
            out[(key, name)] = float(np.mean(both))
    return out


def _refilled(
    task: Task, stats: Features, masks: Masks, dictionary: Dictionary, some_ND: np.ndarray, seed: int, bar: Any
) -> dict[Key, float]:
    """What removal costs before the selection, when in topk others move up: m features of a kind in a random order, one after the other."""
    c, f = task.section(Function), dictionary.w_dec_FD.shape[0]
    if dictionary.architecture != "topk":
        return {}  # nothing moves up: the same as after the activation
    members = {name: masks[name][seed, :f] for name in KINDS} | {
        kind: drawn_TF[0, :f] for kind in MATCHED if len(drawn_TF := feature_sets.fitting(stats, masks, kind, seed, 1)[0])
    }
    orders = {
        name: np.random.default_rng((seed, place)).permutation(np.flatnonzero(member_F))
        for place, (name, member_F) in enumerate(members.items())
    }
    n = removal.number_removed(len(orders[STABLE]), len(orders[UNSTABLE]), c.ratio, c.headline)
    numbers = {name: sorted({*grid(len(order))[::2], n, c.ratio * n, len(order)} - {0}) for name, order in orders.items()}
    places = [(name, m) for name, ms in numbers.items() for m in ms if m <= len(orders[name])]
    among_MF = np.ones((len(places) + 1, f), bool)
    for row, (name, m) in enumerate(places, start=1):
        among_MF[row, orders[name][:m]] = False
    errors_M = spread.share(
        masking.errors_of_choices(dictionary, progress.batches(some_ND, bar), among_MF), spread.of_rows(some_ND).variance
    )
    losses = dict(zip(places, errors_M[1:] - errors_M[0], strict=True))
    out: dict[Key, float] = {("refilled", name, m): value for (name, m), value in losses.items() if m in grid(m)}
    if n:
        key = ("N refilled", c.headline, ZERO)
        out |= {(*key, STABLE): losses[STABLE, n], (*key, UNSTABLE): losses[UNSTABLE, c.ratio * n]}
    out |= {("refilled without", name): losses[name, len(order)] for name, order in orders.items() if len(order)}
    return out


def _of_features(eff: Effects, m: Moments) -> dict[str, np.ndarray]:
    with np.errstate(invalid="ignore", divide="ignore"):
        per_firing_F = np.where(m.firings_F > 0, eff.marginal_F * m.rows / m.firings_F, np.nan)
    f = len(eff.marginal_F)
    return {
        "feature": np.arange(f),
        "mean_activation": m.z_sum_F / m.rows,
        "marginal_per_token": eff.marginal_F,
        "marginal_per_firing": per_firing_F,
        "shapley": eff.shapley_F,
    }


def summary_of(task: Task, values: Values, truth: Masks) -> dict[str, Any]:
    """Of figures of seeds; those that are not there are None."""
    c = task.section(Function)
    mean, null, headline = values.mean, values.value, ("N", c.headline, ZERO)
    figures: dict[str, Estimate] = {
        "explained_variance": values.estimate(lambda place: 1.0 - place(("left",)), null=0.0),
        "removed_stable": mean((*headline, STABLE)),
        "removed_unstable": mean((*headline, UNSTABLE)),
    }
    for what in ("", " by the other half", " refilled"):
        name = "removed_difference" + what.replace(" ", "_")
        figures[name] = removal.difference(values, c.headline, ZERO, what)
    differences = {
        removal.at_share(share, ablation): removal.difference(
            values, share, ablation, confidence=removal.bonferroni(c.shares, task.section(LabelRule).confidence)
        ).as_dict()
        for share in c.shares
        for ablation in ABLATIONS
    }
    for kind in LABELS:
        figures[f"part_{kind}"] = mean(("part", kind), null=null(("share of features", kind)), unit="share of what is explained")
    figures["part_difference"] = values.difference(("part", STABLE), ("part", UNSTABLE), null=0.0, unit="share of what is explained")
    for kind in (STABLE, UNSTABLE):
        figures[f"joint_{kind}"] = mean(("joint", kind))
        figures[f"redundancy_{kind}"] = mean(("redundancy", kind), null=0.0)
        figures[f"only_{kind}"] = mean(("only", kind), null=null(("only as many", kind)))
        figures[f"refitted_only_{kind}"] = mean(("refitted only", kind))
    for key in ("per token", "per firing"):
        figures[f"marginal_{key.replace(' ', '_')}_stable_over_unstable"] = values.ratio(
            (key, STABLE), (key, UNSTABLE), null=1.0, unit="ratio"
        )
    figures["marginal_within_deciles_stable_over_unstable"] = values.ratio(
        ("within deciles", STABLE), ("within deciles", UNSTABLE), null=1.0, unit="ratio"
    )
    for kind in MATCHED:
        key = kind.replace(" ", "_")
        figures[f"{key}_less_unstable"] = values.difference(("joint", kind), ("joint of unstable as many as", kind), null=0.0)
    for key in ("per token", "per firing", "part"):
        figures[f"partial_p_{key.replace(' ', '_')}"] = mean(("partial", key), null=0.0, unit="rank correlation")
    flips = {
        "removed_difference": values.of_seeds((*headline, STABLE)) - values.of_seeds((*headline, UNSTABLE)),
        "part_difference": values.of_seeds(("part", STABLE)) - values.of_seeds(("part", UNSTABLE)),
        "matched_frequency_less_unstable": values.of_seeds(("joint", FREQUENCY))
        - values.of_seeds(("joint of unstable as many as", FREQUENCY)),
        "partial_p_per_token": values.of_seeds(("partial", "per token")),
    }
    n_S = values.of_seeds(("N", c.headline))
    at_equal = {kind: null(("apart", kind)) for kind in MATCHED}
    return {name: e.as_dict() for name, e in figures.items()} | {
        "ratio": c.ratio,
        "share": c.headline,
        "removed_differences": differences,
        "stable_removed": None if np.isnan(n_S).all() else float(np.nanmean(n_S)),
        "sign_flip_p": {name: sign_flips(d) for name, d in flips.items()},
        "ratio_of_matched_to_unstable": at_equal,
        "truth": {
            name: values.mean(("part", name), null=values.value(("share of features", name)), unit="share of what is explained").as_dict()
            | {"planted": feature_sets.planted_shares(task)[name]}
            for name in truth
        },
    }


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost:
    """Codes, and products of codes with codes; the effects of all sets follow from these, on the host. In topk some sets are removed before the selection too."""
    c, sae, width = settings[Function], settings[SAEConfig], size.width
    f = float(sae.n_features)
    n, rows = min(len(settings[Seeds].list), c.seeds), float(min(size.held_out, c.rows))
    encoded = n * (rows + (REFILLED_SETS * c.refill_rows if sae.variant == "topk" else 0.0))
    flops = encoded * 4 * f * width + n * rows * 2 * f * (f + width)
    sets = n * (n + 1 + c.blocks) * 2 * f * f * (2 * c.draws + 20.0) / costs.HOST_RATE
    refits = n * 2 * REFITTED * f**3 / 3 / costs.HOST_RATE
    note = f"{70 * f * f / costs.GIB:,.1f} GiB on the host"
    moved, memory = 4.0 * encoded * costs.CODING_PASSES * f, 4.0 * (f * f + 16_384 * f)
    return Cost("function", n * rows, flops, moved, n * f * 40, memory, "match", note, sets + refits)
