"""Stage: what stable and unstable features do for the language model's predictions, with reconstructions spliced into it.

masks.parquet      a row per set of features removed or kept: cross-entropy, divergence, recovered share, with intervals over seeds
features.parquet   a row per sampled feature: what its removal alone costs, per token and per firing
"""

from typing import Any

import numpy as np

from activations.language_model import cost as model_cost
from experiments.ablation import patching, removal
from experiments.ablation.function import Function
from experiments.ablation.patching import PLAIN, Clean, Masks, Sums
from experiments.data import costs, dictionary_list, sources
from experiments.data.costs import Cost, Hardware, Size
from experiments.data.harvesting import Harvesting
from experiments.data.seeds import Seeds
from experiments.fields import config, field
from experiments.reappearance import feature_sets
from experiments.reappearance.feature_sets import LABELS, MATCHED, RANDOM, STABLE, UNSTABLE, Features
from experiments.reappearance.labels import LabelRule
from experiments.reappearance.seed_values import Key, Values
from experiments.settings import Settings
from experiments.stage import Outputs, Stage, Task
from saes.config import SAEConfig
from saes.dictionary import Dictionary
from stability.estimates import Count, Estimate
from stability.function import ABLATIONS, MEAN, ZERO, grid, sign_flips

LOGIT_PASSES = 6  # over the logits of a token: their exponentials, their divergence from the model's own
SPLICED_SETS = 31  # sets of features that are removed or kept in every SAE, beside draws and single features


@config("splice")
class Splice:
    """How it is measured what features do for the language model's predictions."""

    seeds: int = field(default=16, doc="SAEs, the first so many", ge=2)
    contexts: int = field(default=100, doc="held-out contexts, of as many documents as there are", gt=1)
    positions: int = field(default=48, doc="of each context, the first so many, start token included", ge=3)
    draws: int = field(default=2, doc="of N stable and function.ratio·N unstable features", gt=0)
    singles: int = field(
        default=9, doc="features of every SAE whose removal alone is measured, of all labels and firing rates; 0: none", ge=0
    )


STAGE = Stage(config=Splice, reads=(Function, LabelRule), needs=("saes", "stability", "function"), uses=("rows", "model"))

NATS = "nats per token"


def run(task: Task, out: Outputs) -> None:
    c = task.section(Splice)
    if because := patching.cannot(task):
        out.not_measured(because)
        return
    whole = dictionary_list.saes(task)
    seeds = min(c.seeds, task.section(Function).seeds)
    saes = whole.first(seeds)
    stats = feature_sets.read(task, whole, seeds)
    of_features = task.table("function/features", ("seed", "mean_activation"))
    masks = [
        _masks(task, stats, dictionary, place, of_features["mean_activation"][of_features["seed"] == seed])
        for place, (seed, dictionary) in enumerate(zip(saes.seeds, saes.dictionaries, strict=True))
    ]
    clean, sae_sums = patching.measure(task, out, saes.dictionaries, masks, c.contexts, c.positions)
    values = Values(len(saes.seeds), task.section(LabelRule).confidence, NATS)
    by_label = feature_sets.by_label(stats)
    documents = np.unique(clean.document_C)
    for seed, (sums, own) in enumerate(zip(sae_sums, masks, strict=True)):
        values.fixed(seed, _figures(sums, own, clean))
        values.fixed(seed, _singles(by_label, sums, own, clean.tokens, seed))
        for document in documents if len(documents) > 1 else ():
            left_out_C = clean.document_C == document
            values.without_document(seed, int(document), _figures(sums.leave_out(left_out_C), own, clean.leave_out(left_out_C)))
    out.summary(_summary(task, values, clean))
    out.table("masks", _table(values))
    out.table("features", _features(saes.seeds, sae_sums, masks, clean.tokens))


def _masks(task: Task, stats: Features, dictionary: Dictionary, seed: int, mean_F: np.ndarray) -> Masks:
    """Sets of the labels that all seeds give, each in one random order, cut where the figures want it.

    Args:
      mean_F: activation of each feature over held-out tokens.
    """
    c, f = task.section(Function), dictionary.w_dec_FD.shape[0]
    rng = lambda *salt: np.random.default_rng((seed, *salt))
    order = lambda mask_SF, salt: rng(salt).permutation(np.flatnonzero(mask_SF[seed, :f]))
    by_label = feature_sets.by_label(stats)
    orders = {kind: order(by_label[kind], place) for place, kind in enumerate(feature_sets.KINDS)}
    all_but = lambda members: ~np.isin(np.arange(f), members)
    after: dict[Key, np.ndarray] = {PLAIN: np.ones(f, bool)}
    before: dict[Key, np.ndarray] = {}
    filled: dict[Key, np.ndarray] = {}
    for share in c.shares:
        n = removal.number_removed(len(orders[STABLE]), len(orders[UNSTABLE]), c.ratio, share)
        pair = {STABLE: n, UNSTABLE: c.ratio * n}
        for draw in range(task.section(Splice).draws if n else 0):
            for kind, m in pair.items():
                removed = rng(20, draw).permutation(orders[kind])[:m]
                for ablation in ABLATIONS:
                    after["N", share, ablation, kind, draw] = all_but(removed)
                filled["N", share, MEAN, kind, draw] = mean_F[removed] @ np.asarray(dictionary.w_dec_FD, np.float64)[removed]
        if n and share == c.headline:
            after |= {("N", RANDOM, m): all_but(orders[RANDOM][:m]) for m in pair.values()}
            if dictionary.architecture == "topk":
                before |= {("N refilled", kind): all_but(orders[kind][:m]) for kind, m in pair.items()}
    for half in feature_sets.by_other_half(stats, 1):
        by_half = {kind: order(half[kind], 10 + place) for place, kind in enumerate((STABLE, UNSTABLE))}
        m = removal.number_removed(len(by_half[STABLE]), len(by_half[UNSTABLE]), c.ratio, c.headline)
        if m:
            after[("N by the other half", STABLE)] = all_but(by_half[STABLE][:m])
            after[("N by the other half", UNSTABLE)] = all_but(by_half[UNSTABLE][: c.ratio * m])
    for kind in LABELS:
        if len(orders[kind]):
            after[("without", kind)] = all_but(orders[kind])
    for kind in (STABLE, UNSTABLE):
        after[("only", kind)] = ~all_but(orders[kind])
        after[("only as many", kind)] = ~all_but(orders[RANDOM][: len(orders[kind])])
    for place, kind in enumerate(MATCHED):
        drawn_TF, _ = feature_sets.fitting(stats, by_label, kind, seed, 1)
        if len(drawn_TF):
            orders[kind] = rng(30, place).permutation(np.flatnonzero(drawn_TF[0, :f]))
            after[("matched", kind)] = all_but(orders[kind])
            after[("beside matched", kind)] = all_but(orders[UNSTABLE][: len(orders[kind])])
    for kind, members in orders.items():
        after |= {("removed", kind, m): all_but(members[:m]) for m in grid(len(members))[4::2]}
    for feature in _sampled(stats, by_label, seed, task.section(Splice).singles):
        after[("single", int(feature))] = all_but([feature])
    return Masks(after, before, filled)


def _sampled(stats: Features, masks: dict[str, np.ndarray], seed: int, count: int) -> np.ndarray:
    """Features of every label alike, in each the middles of equal strata by firing rate."""
    sample: list[int] = []
    for place, kind in enumerate(LABELS):
        members = np.flatnonzero(masks[kind][seed])
        members = members[np.argsort(stats.rate_SF[seed, members], kind="stable")]
        n = min(len(members), count // 3 + (place < count % 3))
        sample += members[sources.evenly_spaced(len(members), n)].tolist()
    return np.unique(np.asarray(sample, int))


def _figures(sums: Sums, masks: Masks, clean: Clean) -> dict[Key, float]:
    """By ("ce" | "rise" | "kl" | "recovered" | "recovered from mean" | "explained variance", *key)."""
    tokens, nll_Q, kl_Q = clean.tokens, sums.nll_Q, sums.kl_Q
    base = {name: value / tokens for name, value in clean.losses.items()}
    most = len(nll_Q) - len(masks.before)
    place = {key: i for i, key in enumerate(masks.after)} | {key: most + i for i, key in enumerate(masks.before)}
    plain = nll_Q[place[PLAIN]] / tokens
    out: dict[Key, float] = {}
    for key, i in place.items():
        ce = nll_Q[i] / tokens
        out |= {("ce", *key): ce, ("rise", *key): ce - plain, ("kl", *key): kl_Q[i] / tokens}
        out["recovered", *key] = (base["zero"] - ce) / (base["zero"] - base["clean"])
        out["recovered from mean", *key] = (base["mean"] - ce) / (base["mean"] - base["clean"])
        out["explained variance", *key] = 1.0 - sums.error_Q[i] / clean.variance
    draws: dict[Key, list[float]] = {}
    for key, value in out.items():
        if key[0] in ("rise", "kl", "explained variance") and key[1] == "N" and len(key) == 6:
            draws.setdefault(key[:5], []).append(value)
    out |= {key: float(np.mean(values)) for key, values in draws.items()}
    if randoms := [out["rise", *key] for key in masks.after if key[:2] == ("N", RANDOM)]:
        out["difference of any",] = randoms[0] - randoms[-1]  # N of them, and ratio·N
    return out


def _singles(by_label: dict[str, np.ndarray], sums: Sums, masks: Masks, tokens: int, seed: int) -> dict[Key, float]:
    """Effects of the sampled features by label: mean per token, and together over all their firings, since one that hardly fires has hardly any."""
    out: dict[Key, float] = {}
    for kind in LABELS:
        sampled = [key[1] for key in masks.after if key[0] == "single" and by_label[kind][seed, key[1]]]
        effects = [_exact(sums, masks, f) for f in sampled]
        if effects:
            out["single", "per token", kind] = float(np.mean(effects)) / tokens
            if firings := float(sums.firings_F[sampled].sum()):
                out["single", "per firing", kind] = float(np.sum(effects)) / firings
    return out


def _exact(sums: Sums, masks: Masks, feature: int) -> float:
    place = {key: i for i, key in enumerate(masks.after)}
    return float(sums.nll_Q[place["single", feature]] - sums.nll_Q[place[PLAIN]])


def _difference(values: Values, figure: str, share: float, ablation: str, **options: Any) -> Estimate:
    """What N stable less ratio·N unstable features that are removed cost."""
    return values.difference((figure, "N", share, ablation, STABLE), (figure, "N", share, ablation, UNSTABLE), **options)


def _summary(task: Task, values: Values, clean: Clean) -> dict[str, Any]:
    c, tokens = task.section(Function), clean.tokens
    base = {name: value / tokens for name, value in clean.losses.items()}
    headline = ("N", c.headline, ZERO)
    of_model = lambda value: Estimate(value, None, None, None, Count(tokens, "tokens"), NATS)
    figures: dict[str, Estimate] = {
        "ce_clean": of_model(base["clean"]),
        "ce_zero": of_model(base["zero"]),
        "ce_mean": of_model(base["mean"]),
        "ce_spliced": values.mean(("ce", *PLAIN)),
        "ce_recovered": values.mean(("recovered", *PLAIN), null=0.0, unit="share"),
        "ce_recovered_from_mean": values.mean(("recovered from mean", *PLAIN), null=0.0, unit="share"),
        "kl": values.mean(("kl", *PLAIN), null=base["kl mean"]),
        "removed_stable": values.mean(("rise", *headline, STABLE)),
        "removed_unstable": values.mean(("rise", *headline, UNSTABLE)),
        "removed_difference": _difference(values, "rise", c.headline, ZERO, null=values.value(("difference of any",))),
        "removed_kl_difference": _difference(values, "kl", c.headline, ZERO, null=0.0),
    }
    of_all = removal.bonferroni(c.shares, task.section(LabelRule).confidence)
    differences = {
        removal.at_share(share, ablation): _difference(values, "rise", share, ablation, null=0.0, confidence=of_all).as_dict()
        for share in c.shares
        for ablation in ABLATIONS
    }
    for kind in MATCHED:
        name = f"{kind.replace(' ', '_')}_less_unstable"
        figures[name] = values.difference(("rise", "matched", kind), ("rise", "beside matched", kind), null=0.0)
    for what in ("by the other half", "refilled"):
        keys = (("rise", f"N {what}", kind) for kind in (STABLE, UNSTABLE))
        figures[f"removed_difference_{what.replace(' ', '_')}"] = values.difference(*keys, null=0.0)
    for kind in (STABLE, UNSTABLE):
        figures[f"without_{kind}"] = values.mean(("rise", "without", kind))
        null = values.value(("recovered", "only as many", kind))
        figures[f"only_{kind}"] = values.mean(("recovered", "only", kind), null=null, unit="share of CE recovered")
        figures[f"single_per_firing_{kind}"] = values.mean(("single", "per firing", kind), null=0.0, unit="nats per firing")
    flips = values.of_seeds(("rise", *headline, STABLE)) - values.of_seeds(("rise", *headline, UNSTABLE))
    return {name: e.as_dict() for name, e in figures.items()} | {
        "removed_differences": differences,
        "tokens": tokens,
        "documents": len(np.unique(clean.document_C)),
        "labels": "held fixed",
        "sign_flip_p": {"removed_difference": sign_flips(flips)},
    }


def _table(values: Values) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in ("how", "set", "features", "figure", "value", "low", "high")}
    for figure in ("ce", "rise", "kl", "recovered", "explained variance"):
        for key in values.keys(figure):
            how, *rest = key[1:]
            if how in ("single", "N") or np.isnan(values.of_seeds(key)).any():
                continue  # in tables of their own, and sets that some seed does not have
            e = values.mean(key)
            m = rest[1] if len(rest) > 1 else None
            for column, value in zip(columns.values(), (how, rest[0] if rest else "", m, figure, e.value, e.low, e.high), strict=True):
                column.append(value)
    return columns


def _features(seeds: tuple[int, ...], sae_sums: list[Sums], masks: list[Masks], tokens: int) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in ("seed", "feature", "firings", "ce_per_token", "ce_per_firing")}
    for seed, sums, own in zip(seeds, sae_sums, masks, strict=True):
        for feature in [key[1] for key in own.after if key[0] == "single"]:
            effect, firings = _exact(sums, own, feature), int(sums.firings_F[feature])
            row = (seed, feature, firings, effect / tokens, effect / firings if firings else None)
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    return columns


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost | None:
    """For every set of features the layers above the site and the predictions, of every SAE."""
    c, s, model = settings[Splice], settings[Harvesting], size.model
    if model is None or not model.causal:
        return None
    n = min(len(settings[Seeds].list), c.seeds)
    of_pairs = 2 * c.draws * len(settings[Function].shares) * len(ABLATIONS)
    tokens = c.contexts * c.positions
    replayed = float(n * tokens * (SPLICED_SETS + of_pairs + c.singles))
    last = model.n_layers - 1
    whole = model_cost.flops_per_token(model, last, "resid_post", c.positions)
    flops_above = whole - model_cost.flops_per_token(model, s.layer, s.site, c.positions)
    flops = replayed * (flops_above + 2.0 * model.width * model.vocab_size + 2.0 * settings[SAEConfig].n_features * size.width)
    moved = replayed * 4.0 * (LOGIT_PASSES * model.vocab_size + costs.LAYER_PASSES * (last - s.layer) * 6 * model.width)
    note = f"{replayed:,.0f} tokens replayed above layer {s.layer}"
    return Cost("splice", replayed, flops, moved, 1e5, 4.0 * 2**26, "activations", note)
