"""Stage: what single features respond to, counted on held-out tokens: on which tokens, where, in bursts or not; and how far it is the token's text.

features.parquet   a row per (seed, feature): statistics, the surface-form score and its parts, the best predictor, top contexts
cutoffs.parquet    shares of stable and of unstable features whose score is above a cut-off, and their difference, over cut-offs
profiles.parquet   mean firing rate over positions of a context, relative to the feature's own, by label
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from activations.harvest import Harvest
from activations.language_model import checkpoint
from activations.language_model import cost as model_cost
from activations.language_model.placement import Placement
from activations.text.contexts import Contexts, contexts_of_rows
from activations.text.tokenizer import load_tokenizer
from experiments.ablation.function import Function
from experiments.data import costs, dictionary_list, row_texts, sources
from experiments.data.activations import batch_size
from experiments.data.costs import Cost, Hardware, Size
from experiments.data.harvesting import Harvesting
from experiments.data.language_model import LanguageModel
from experiments.data.row_texts import Texts
from experiments.data.seeds import Seeds
from experiments.fields import config, field
from experiments.interpretation import surface_form
from experiments.reappearance import feature_sets
from experiments.reappearance.feature_sets import LABELS, RANDOM, STABLE, UNSTABLE, Features
from experiments.reappearance.labels import LabelRule
from experiments.reappearance.seed_values import Key, Values
from experiments.settings import Settings
from experiments.stage import Outputs, Stage, Task
from interpret import equal_firings, surface
from interpret import statistics as counting
from interpret.draws import Draws, parts, splitmix64
from interpret.equal_firings import Halves
from interpret.statistics import Accumulator, Places
from runtime import progress
from runtime.mesh import make_language_mesh
from saes.config import SAEConfig
from saes.dictionary import Dictionary, encode
from stability.estimates import Estimate
from stability.function import sign_flips

COUNTING_SECONDS, ENTRY_SECONDS = 1e-9, 1.2e-7  # on the host, an activation looked at, one that is above 0 counted; on two EPYC cores
RULE_SECONDS = 4e-7  # on the host, a firing held against the rules on its token, and so for the null; on two EPYC cores, at 300 to 2000 firings a feature


@config("statistics")
class Statistics:
    """What is counted of single features, and what counts as surface form."""

    top_contexts: int = field(default=16, doc="kept per feature, in which it is most active; one token of each", gt=0)
    samples: int = field(default=16, doc="tokens kept per feature, at random among those on which it fires in every other context", gt=0)
    shuffled_tokens: int = field(default=65_536, doc="evaluation rows whose contexts are put in random order", gt=0)
    table_bytes: int = field(
        default=2**31, doc="memory for counts of features by tokens; larger tables are made part by part", gt=0, how=True
    )
    firings: int = field(
        default=50, doc="of every feature, from which its surface-form score is made, half of them in each half of the contexts", ge=2
    )
    surface: float = field(
        default=0.5, doc="surface-form score from which shares count a feature as one of surface form; decides nothing", gt=0, lt=1
    )
    draws: int = field(default=1, doc="of random tokens for the null of the entropy over tokens", gt=0)


STAGE = Stage(config=Statistics, reads=(Function, LabelRule), needs=("saes", "stability"), uses=("rows", "model"))

TABLE_BYTES_A_CELL = 12  # of counts in two halves and of mass, for a feature and a token


class Shuffled(NamedTuple):
    """The same rows where they stand and in contexts of random order: activations of the model's site, (N, D) each."""

    original_ND: np.ndarray
    shuffled_ND: np.ndarray


class OfSAE(NamedTuple):
    """What is found of one SAE's F features; NaN where it is not known.

    Attributes:
      columns: of `features.parquet`.
      profile_FT: firing rate over positions of a context, relative to the feature's own.
    """

    columns: dict[str, Any]
    profile_FT: np.ndarray


def run(task: Task, out: Outputs) -> None:
    c = task.section(Statistics)
    text = row_texts.read(task)
    if text is None:
        out.not_measured("no activations with the text of their tokens")
        return
    saes = dictionary_list.saes(task)
    predicates = surface.Predicates.from_vocabulary(text.vocabulary)
    shuffled = _shuffled(task, text)
    per_sae = []
    with progress.tokens(len(text.context_N) * len(saes.seeds), "statistics") as bar:
        for seed, dictionary in zip(saes.seeds, saes.dictionaries, strict=True):
            make = functools.partial(_of_sae, c, text, dictionary, predicates, shuffled, seed, bar.update)
            per_sae.append(out.part(f"seed {seed}", make))
    stats = feature_sets.read(task, saes, task.section(Function).seeds)
    labels = task.table("stability/features", ("label", "stratum"))
    table = {"seed": np.concatenate([np.full(size, seed) for seed, size in zip(saes.seeds, saes.sizes, strict=True)])}
    table |= {"feature": np.concatenate([np.arange(size) for size in saes.sizes])} | labels
    table |= {name: np.concatenate([f.columns[name] for f in per_sae]) for name in per_sae[0].columns}
    values = _values(task, stats, per_sae[: task.section(Function).seeds])
    out.summary(_summary(c, values, shuffled is not None) | {"predicates": len(predicates.names)})
    out.table("features", table)
    out.table("profiles", _profiles(values))
    out.table("cutoffs", surface_form.cutoffs_table(values))


def _of_sae(
    c: Statistics,
    text: Texts,
    dictionary: Dictionary,
    predicates: surface.Predicates,
    shuffled: Shuffled | None,
    seed: int,
    on_rows: Callable[[int], Any],
) -> OfSAE:
    """A block of features a pass, so that tables of features by tokens stay within `statistics.table_bytes`."""
    f, v = dictionary.w_dec_FD.shape[0], len(text.vocabulary)
    block = max(1, min(f, c.table_bytes // (TABLE_BYTES_A_CELL * v)))
    parts = []
    for first in range(0, f, block):
        features = range(first, min(f, first + block))
        counted = _counted(c, text, dictionary, features, seed, on_rows if first == 0 else lambda _: None)
        rng = np.random.default_rng((seed, first))
        parts.append((_surface(c, counted, predicates, text, rng), counted.profile_FT))
    columns = {name: np.concatenate([p[name] for p, _ in parts]) for name in parts[0][0]}
    falls = _fall(dictionary, shuffled, c.firings // 2, seed)
    columns["fall"] = falls.every_F
    score = lambda shares, f1s, fall: surface.score(columns.pop(shares), columns.pop(f1s), fall if shuffled is not None else None)
    columns["surface_score"] = score("top_share", "rule_f1", falls.some_F)
    columns["surface_score_null"] = score("top_share_null", "rule_f1_null", np.ones(f))
    columns["surface_score_without_parts"] = score("top_share_without", "rule_f1_without", falls.without_FP)
    return OfSAE(columns, np.concatenate([p for _, p in parts]))


def _counted(
    c: Statistics, text: Texts, dictionary: Dictionary, features: range, seed: int, on_rows: Callable[[int], Any]
) -> counting.Statistics:
    places = Places(text.rows.token_N, text.context_N, text.position_N)
    accumulator = Accumulator(
        places, features, len(text.vocabulary), contexts=c.top_contexts, samples=c.samples, firings=c.firings // 2, salt=seed
    )
    on_device = jax.device_put(dictionary)
    acts_ND = text.rows.acts_ND
    for first in range(0, len(acts_ND), progress.BATCH):
        progress.look_for_signals()
        x = acts_ND[first : first + progress.BATCH]
        z_BF = np.asarray(_encoded(on_device, np.pad(x, ((0, progress.BATCH - len(x)), (0, 0)))))[: len(x)]
        accumulator.add(z_BF, first)
        on_rows(len(x))
    return accumulator.result()


@jax.jit
def _encoded(dictionary: Dictionary, x_BD: Float[Array, "B D"]) -> Float[Array, "B F"]:
    return encode(dictionary, x_BD)


def _surface(
    c: Statistics, s: counting.Statistics, predicates: surface.Predicates, text: Texts, rng: np.random.Generator
) -> dict[str, Any]:
    """Columns of a block of features; the null is of as many firings on tokens drawn at random."""
    tokens_HV, vocabulary = s.row_count_HV, text.vocabulary
    token_F, share_F = surface.top_token(s.mass_FV)
    best = surface.best_predictor(s.count_HFV[0], s.count_HFV[1], tokens_HV[0], tokens_HV[1], predicates)
    drawn = [surface.null_counts(rng, s.count_HFV[h].sum(1), tokens_HV[h] / max(1, tokens_HV[h].sum())) for h in range(2)]
    null = surface.best_predictor(drawn[0], drawn[1], tokens_HV[0], tokens_HV[1], predicates)
    names = np.array([*predicates.names, ""], object)  # −1: none
    counted, counted_null = Halves(*s.count_HFV), Halves(*drawn)
    some_null = Halves(*(equal_firings.sample(rng, half, c.firings // 2) for half in counted_null))

    def equally_many(row_HFM: np.ndarray) -> equal_firings.Scores:
        some = (equal_firings.on_tokens(row_FM, text.rows.token_N, len(vocabulary)) for row_FM in row_HFM)
        return equal_firings.scores(Halves(*some), counted, tokens_HV, c.firings // 2, predicates)

    equal, *of_parts = map(equally_many, s.drawn_rows_QHFM)
    equal_null = equal_firings.scores(some_null, counted_null, tokens_HV, c.firings // 2, predicates)
    return {
        "top_share": equal.top_share_F,
        "rule_f1": equal.f1_F,
        "top_share_without": np.stack([of_part.top_share_F for of_part in of_parts], axis=1),
        "rule_f1_without": np.stack([of_part.f1_F for of_part in of_parts], axis=1),
        "top_share_null": equal_null.top_share_F,
        "rule_f1_null": equal_null.f1_F,
        "firing_rate": s.firing_rate_F,
        "mean_activation": s.mean_activation_F,
        "std_activation": s.std_activation_F,
        "max_activation": s.max_activation_F,
        "dispersion": s.dispersion_F,
        "token_entropy": counting.token_entropy(s.count_HFV.sum(0)),
        "token_entropy_null": counting.expected_entropy_of_random(rng, s.firings_F, tokens_HV.sum(0), c.draws),
        "top_token": np.where(s.firings_F > 0, np.array(vocabulary, object)[token_F], "").astype(str),
        "top_token_share": share_F,
        "top_token_share_null": surface.top_token(drawn[0] + drawn[1])[1],
        "predictor": names[best.index_F].astype(str),
        "f1": best.f1_F,
        "f1_fit": best.f1_fit_F,
        "f1_null": null.f1_F,
        "top_rows": s.top_rows_FC,
        "top_values": s.top_values_FC,
        "sample_rows": s.sample_rows_FM,
    }


def _shuffled(task: Task, text: Texts) -> Shuffled | None:
    """Evenly spaced contexts, and the model's activations for the same tokens in random order; None where there is no language model."""
    if not task.has("model"):
        return None
    lm, read = task.section(LanguageModel), task.section(Harvesting)
    home = checkpoint.locate(lm.path, lm.revision)
    model = checkpoint.load_config(home)
    if not model.causal:
        return None  # its contexts end with a token that rows do not hold
    rows, length = text.rows, read.context_length
    start = load_tokenizer(home, read.start_token).start
    every = contexts_of_rows(rows.document_N, rows.position_N, rows.token_N, length, start)
    count = -(-len(every.length_N) * task.section(Statistics).shuffled_tokens // len(rows.token_N))
    selection = sources.evenly_spaced(len(every.length_N), count)
    some = Contexts(*(field[selection] for field in every))
    tokens_NT, place_NT = surface.shuffled_contexts(some.tokens_NT, some.length_N, np.random.default_rng(0))
    placement = Placement(make_language_mesh(lm.model_parallel))
    params = checkpoint.load_params(home, model, lm.dtype, placement)
    at_once = batch_size(task, model, placement.data)
    harvester = Harvest(params, model, read.layer, read.site, at_once, len(selection), placement=placement)
    shuffled_ND = harvester.acts(some._replace(tokens_NT=tokens_NT))
    first_N = np.cumsum(some.length_N - 1) - (some.length_N - 1)
    real_NT = (np.arange(length) > 0) & (np.arange(length) < some.length_N[:, None])
    where_N = (first_N[:, None] + place_NT - 1)[real_NT]  # of every row, in the order of the contexts, its row in the shuffled ones
    return Shuffled(rows.acts_ND[np.isin(text.context_N, selection)], shuffled_ND[where_N].astype(np.float32))


class Falls(NamedTuple):
    """By how much activation falls in contexts of random order, of F features; NaN where it is not known.

    Attributes:
      every_F: on all rows on which a feature fires.
      some_F: on equally many of them; NaN where there are fewer.
      without_FP: the same, none of them in each part of the text.
    """

    every_F: np.ndarray
    some_F: np.ndarray
    without_FP: np.ndarray


def _fall(dictionary: Dictionary, shuffled: Shuffled | None, firings: int, seed: int) -> Falls:
    f = dictionary.w_dec_FD.shape[0]
    if shuffled is None:
        return Falls(np.full(f, np.nan), np.full(f, np.nan), np.full((f, counting.PARTS), np.nan))
    on_device, rows, sums = jax.device_put(dictionary), len(shuffled.original_ND), np.zeros((2, f))
    draws, values = Draws(f, firings, counting.PARTS), [np.zeros((2, 1))]  # draws are of entries; the last is for none
    entries = 0
    for first in range(0, rows, progress.BATCH):
        progress.look_for_signals()
        both = [np.asarray(x[first : first + progress.BATCH], np.float32) for x in shuffled]
        missing = ((0, progress.BATCH - len(both[0])), (0, 0))
        z_BF, other_BF = (np.asarray(_encoded(on_device, np.pad(x, missing)))[: len(x)] for x in both)
        row_E, feature_E = np.nonzero(z_BF > 0)
        of_batch = np.stack([z_BF[row_E, feature_E], other_BF[row_E, feature_E]]).astype(np.float64)
        sums += [np.bincount(feature_E, weights=x, minlength=f) for x in of_batch]
        row_E += first
        key_E = splitmix64(row_E, seed)
        draws.offer(parts(row_E, rows, counting.PARTS), feature_E, key_E, entries + np.arange(len(row_E)))
        values.insert(-1, of_batch)
        entries += len(row_E)
    value_E, other_E = np.concatenate(values, axis=1)

    def of_some(excluded_part: int | None) -> np.ndarray:
        place_FM = draws.rows(excluded_part)
        return np.where((place_FM >= 0).all(axis=1), surface.fall(value_E[place_FM].sum(1), other_E[place_FM].sum(1)), np.nan)

    return Falls(surface.fall(*sums), of_some(None), np.stack([of_some(part) for part in range(counting.PARTS)], axis=1))


def _values(task: Task, stats: Features, per_sae: list[OfSAE]) -> Values:
    """Means of live features by label, under the labels that all seeds give and those without each."""
    c, values = task.section(Statistics), Values(len(per_sae), task.section(LabelRule).confidence, "share of features")
    names = {"f1": "f1", "f1_null": "f1 null", "top_token_share": "top token share", "fall": "fall", "dispersion": "dispersion"}
    sets = feature_sets.labelled(stats, 1).whole
    for seed, one in enumerate(per_sae):
        f = len(one.columns["f1"])
        score_F, null_F = one.columns["surface_score"], one.columns["surface_score_null"]
        for excluded_seed in values.samples(seed):
            masks = sets[excluded_seed]
            out = _of_scores(task, stats, masks, score_F, seed)
            for kind in (*LABELS, RANDOM):
                chosen_F = masks[kind][seed, :f] & np.isfinite(score_F)
                if not chosen_F.any():
                    continue
                out["surface null", kind] = float((null_F[chosen_F] >= c.surface).mean())
                out["entropy ratio", kind] = _mean(one.columns["token_entropy"][chosen_F] / one.columns["token_entropy_null"][chosen_F])
                for column, name in names.items():
                    out[name, kind] = _mean(one.columns[column][chosen_F])
                profile_T = np.nanmean(one.profile_FT[masks[kind][seed, :f]], axis=0)
                out |= {("profile", kind, t): float(x) for t, x in enumerate(profile_T)}
            out |= {("scored", kind): _mean(np.isfinite(score_F[masks[kind][seed, :f]]).astype(float)) for kind in (STABLE, UNSTABLE)}
            values.put(seed, excluded_seed, out)
        for part, score_without_F in enumerate(one.columns["surface_score_without_parts"].T):
            values.without_document(seed, part, _of_scores(task, stats, sets[None], score_without_F, seed))
    return values


def _of_scores(task: Task, stats: Features, masks: feature_sets.Masks, score_F: np.ndarray, seed: int) -> dict[Key, float]:
    """Figures of one SAE that follow from the scores of its features."""
    out: dict[Key, float] = {}
    for kind in (*LABELS, RANDOM):
        chosen_F = masks[kind][seed, : len(score_F)] & np.isfinite(score_F)
        if chosen_F.any():
            out["surface", kind] = float((score_F[chosen_F] >= task.section(Statistics).surface).mean())
            out["score", kind] = float(score_F[chosen_F].mean())
            out |= {("above", cut, kind): float((score_F[chosen_F] >= cut).mean()) for cut in surface_form.CUTOFFS}
    stable_F, unstable_F = (masks[kind][seed, : len(score_F)] for kind in (STABLE, UNSTABLE))
    return out | surface_form.order(score_F, stats.rate_SF[seed, : len(score_F)], stable_F, unstable_F, task.section(Function).bins)


def _mean(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan")


def _summary(c: Statistics, values: Values, fall_known: bool) -> dict[str, Any]:
    share: dict[str, Any] = {"bounds": (0.0, 1.0)}
    figures: dict[str, Estimate] = {
        **{name: values.mean(key, null=0.5, unit="AUROC", **share) for name, key in surface_form.FIGURES.items()},
        "surface_scored_stable": values.mean(("scored", STABLE), unit="share of features", **share),
        "surface_scored_unstable": values.mean(("scored", UNSTABLE), unit="share of features", **share),
        "surface_difference": values.difference(("surface", UNSTABLE), ("surface", STABLE), null=0.0),
        "score_difference": values.difference(("score", UNSTABLE), ("score", STABLE), null=0.0, unit="surface-form score"),
    }
    for kind in (STABLE, UNSTABLE):
        figures |= {
            f"surface_{kind}": values.mean(("surface", kind), null=values.value(("surface null", kind)), **share),
            f"f1_{kind}": values.mean(("f1", kind), null=values.value(("f1 null", kind)), unit="F1", **share),
            f"top_token_share_{kind}": values.mean(("top token share", kind), unit="share of activation", **share),
            f"fall_{kind}": values.mean(("fall", kind), unit="share of activation", **share),
            f"dispersion_{kind}": values.mean(("dispersion", kind), null=1.0, unit="variance over that of independent firings"),
            f"token_entropy_{kind}": values.mean(("entropy ratio", kind), null=1.0, unit="entropy over that of random tokens"),
        }
    flips = values.of_seeds(("auroc",)) - 0.5
    conditions = {"surface": c.surface, "firings": c.firings, "fall_known": fall_known, "sign_flip_p": {"surface_auroc": sign_flips(flips)}}
    return {name: e.as_dict() for name, e in figures.items()} | conditions


def _profiles(values: Values) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in ("label", "from_position", "value", "low", "high")}
    for key in values.keys("profile"):
        e = values.mean(key, null=1.0, unit="rate over the feature's own")
        for column, value in zip(columns.values(), (key[1], 0 if key[2] == 0 else 2 ** (key[2] - 1), e.value, e.low, e.high), strict=True):
            column.append(value)
    return columns


def cost(settings: Settings, size: Size, hardware: Hardware) -> Cost:
    """Codes of all held-out tokens, counted on the host; with a language model the same for contexts in random order."""
    c, sae, rows = settings[Statistics], settings[SAEConfig], size.held_out
    f, n = float(sae.n_features), len(settings[Seeds].list)
    shuffled = min(float(c.shuffled_tokens), rows) if size.model is not None else 0.0
    vocabulary = size.model.vocab_size if size.model is not None else 50_000
    passes = max(1.0, TABLE_BYTES_A_CELL * f * vocabulary / c.table_bytes)
    encoded = n * (rows * passes + 2 * shuffled) + n * rows * ("explanations" in settings.stages)  # which looks where features are silent
    flops = encoded * 2 * f * size.width
    if size.model is not None:
        read = settings[Harvesting]
        flops += shuffled * model_cost.flops_per_token(size.model, read.layer, read.site, read.context_length)
    counting_seconds = n * rows * (COUNTING_SECONDS * f + (ENTRY_SECONDS + RULE_SECONDS) * sae.k)
    moved, note = 4.0 * encoded * costs.CODING_PASSES * f, f"{math.ceil(passes)} passes over held-out tokens"
    return Cost("statistics", n * rows, flops, moved, n * f * 500, 4.0 * 1024 * f, "match", note, counting_seconds)
