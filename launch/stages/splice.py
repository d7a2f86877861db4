"""Stage: what stable and unstable features do for the language model's predictions, with reconstructions spliced into it.

masks.parquet      a row per set of features removed or kept: cross-entropy, divergence, recovered share, with intervals over seeds
features.parquet   a row per sampled feature: what its removal alone costs, per token and per firing
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from etils import epath
from jaxtyping import Array

from activations.language_model import checkpoint
from activations.language_model import splice as splicing
from activations.language_model.config import DecoderConfig
from activations.language_model.placement import Placement
from activations.language_model.splice import Prefix
from activations.store import ActivationStore
from activations.text.contexts import Contexts, contexts_of_rows
from activations.text.tokenizer import load_tokenizer
from launch import dictionary_list, feature_sets, progress, sources
from launch.feature_sets import LABELS, MATCHED, RANDOM, STABLE, UNSTABLE, Features
from launch.mesh import make_language_mesh
from launch.outcomes import not_measured
from launch.seed_values import Key, Values
from saes import masking
from saes.dictionary import Dictionary, encode
from stability.estimates import Count, Estimate
from stability.function import grid, sign_flips
from storage import files
from storage.tables import write_table

MEMORY = 2**28  # bytes of streams held at a time
NATS = "nats per token"
PLAIN: Key = ("plain",)


class Masks(NamedTuple):
    """Of one SAE, the features that stay in each reconstruction: those of `after` are removed after the activation, those of `before` before the
    selection. The first of `after` is the SAE as it is."""

    after: dict[Key, np.ndarray]
    before: dict[Key, np.ndarray]

    @property
    def keys(self) -> list[Key]:
        return [*self.after, *self.before]


class Sums(NamedTuple):
    """Of one SAE over the spliced positions of all contexts; Q reconstructions, float64.

    Attributes:
      nll_Q, kl_Q: nats.
      error_Q: Σ ‖x − x̂‖².
      firings_F: positions on which each feature fires.
    """

    nll_Q: np.ndarray
    kl_Q: np.ndarray
    error_Q: np.ndarray
    firings_F: np.ndarray


class Clean(NamedTuple):
    """Of the model with nothing of an SAE in it.

    Attributes:
      losses: Σ nats of its own ("clean"), with zeros and with the mean in the site's place, and their divergences.
      variance: Σ ‖x − x̄‖² over the positions that are spliced.
    """

    losses: dict[str, float]
    variance: float


def inputs(config: Any) -> dict[str, str]:
    return dictionary_list.digest(config.stability.dictionaries)


def run(config: Any, workdir: epath.Path) -> list[epath.Path]:
    c, folder = config.splice, workdir / "splice"
    if config.source.activations:
        return not_measured(folder, "activations without their language model")
    home = checkpoint.locate(config.lm.path, config.lm.revision)
    model = checkpoint.load_config(home)
    if not model.causal or model.head == "none":
        return not_measured(folder, f"this {model.family} model predicts no next token")
    contexts, mean_D = _contexts(config, workdir, load_tokenizer(home, config.source.start_token).start)
    whole = dictionary_list.load(dictionary_list.place(config, workdir))
    listed = whole.first(c.seeds)
    of = feature_sets.read(config, workdir, whole, c.seeds)
    masks = [_masks(config, of, dictionary, seed) for seed, dictionary in enumerate(listed.dictionaries)]
    placement = Placement(make_language_mesh(config.lm.model_parallel))
    params = checkpoint.load_params(home, model, config.lm.dtype, placement)
    run_model = Model(params, model, config.source.layer, config.source.site, placement)
    clean, found = _measure(run_model, contexts, mean_D, listed.dictionaries, masks)
    tokens = int((contexts.length_N - 2).clip(0).sum())
    values = Values(len(listed.seeds), config.stability.confidence, NATS)
    base = {name: value / tokens for name, value in clean.losses.items()}
    by_label = feature_sets.by_label(of)
    for seed, (sums, own) in enumerate(zip(found, masks, strict=True)):
        values.fixed(seed, _figures(sums, own, base, tokens, clean.variance))
        values.fixed(seed, _singles(by_label, sums, own, tokens, seed))
    files.write_json(folder / "summary.json", _summary(config, values, base, tokens))
    return [
        folder / "summary.json",
        write_table(folder / "masks.parquet", _table(values)),
        write_table(folder / "features.parquet", _features(listed.seeds, found, masks, tokens)),
    ]


def _contexts(config: Any, workdir: epath.Path, start: int) -> tuple[Contexts, np.ndarray]:
    """Evenly spaced whole held-out contexts, and the mean of what the site holds over all held-out rows."""
    store = sources.evaluation_store(config, workdir)
    assert store is not None
    rows = ActivationStore(store).load()
    every = contexts_of_rows(rows.document_N, rows.position_N, rows.token_N, config.source.context_length, start)
    count = -(-len(every.length_N) * config.splice.tokens // len(rows.token_N))
    chosen = sources.evenly_spaced(len(every.length_N), count)
    return Contexts(*(field[chosen] for field in every)), rows.acts_ND.mean(0, dtype=np.float64)


def _masks(config: Any, of: Features, dictionary: Dictionary, seed: int) -> Masks:
    """Sets of the labels that all seeds give, each in one random order, cut where the figures want it."""
    c, f = config.function, dictionary.w_dec_FD.shape[0]
    rng = lambda *salt: np.random.default_rng((seed, *salt))
    order = lambda mask_SF, salt: rng(salt).permutation(np.flatnonzero(mask_SF[seed, :f]))
    by_label = feature_sets.by_label(of)
    orders = {kind: order(by_label[kind], place) for place, kind in enumerate(feature_sets.KINDS)}
    without = lambda members: ~np.isin(np.arange(f), members)
    after: dict[Key, np.ndarray] = {PLAIN: np.ones(f, bool)}
    before: dict[Key, np.ndarray] = {}
    n = min(len(orders[STABLE]), len(orders[UNSTABLE]) // c.ratio)
    if n:
        pair = {STABLE: n, UNSTABLE: c.ratio * n}
        for draw in range(config.splice.draws):
            after |= {("N", kind, draw): without(rng(20, draw).permutation(orders[kind])[:m]) for kind, m in pair.items()}
        after |= {("N", RANDOM, m): without(orders[RANDOM][:m]) for m in pair.values()}
        if dictionary.architecture == "topk":
            before |= {("N refilled", kind): without(orders[kind][:m]) for kind, m in pair.items()}
    for half in feature_sets.by_other_half(of, 1):
        by_half = {kind: order(half[kind], 10 + place) for place, kind in enumerate((STABLE, UNSTABLE))}
        m = min(len(by_half[STABLE]), len(by_half[UNSTABLE]) // c.ratio)
        if m:
            after[("N by the other half", STABLE)] = without(by_half[STABLE][:m])
            after[("N by the other half", UNSTABLE)] = without(by_half[UNSTABLE][: c.ratio * m])
    for kind in LABELS:
        if len(orders[kind]):
            after[("without", kind)] = without(orders[kind])
    for kind in (STABLE, UNSTABLE):
        after[("only", kind)] = ~without(orders[kind])
        after[("only as many", kind)] = ~without(orders[RANDOM][: len(orders[kind])])
    for place, kind in enumerate(MATCHED):
        drawn_TF, _ = feature_sets.fitting(of, by_label, kind, seed, 1)
        if len(drawn_TF):
            orders[kind] = rng(30, place).permutation(np.flatnonzero(drawn_TF[0, :f]))
            after[("matched", kind)] = without(orders[kind])
            after[("beside matched", kind)] = without(orders[UNSTABLE][: len(orders[kind])])
    for kind, members in orders.items():
        after |= {("removed", kind, m): without(members[:m]) for m in grid(len(members))[4::2]}
    for feature in _sampled(of, by_label, seed, config.splice.singles):
        after[("single", int(feature))] = without([feature])
    return Masks(after, before)


def _sampled(of: Features, masks: dict[str, np.ndarray], seed: int, count: int) -> np.ndarray:
    """Features of every label alike, in each the middles of equal strata by firing rate."""
    chosen: list[int] = []
    for place, kind in enumerate(LABELS):
        members = np.flatnonzero(masks[kind][seed])
        members = members[np.argsort(of.rate_SF[seed, members], kind="stable")]
        n = min(len(members), count // 3 + (place < count % 3))
        chosen += members[sources.evenly_spaced(len(members), n)].tolist()
    return np.unique(np.asarray(chosen, int))


class Model:
    """A language model into one site of which reconstructions are spliced.

    Args:
      params, config: of the model.
      layer, site: where.
      placement: of the parameters; batches go whole to all its devices.
    """

    def __init__(self, params: Any, config: DecoderConfig, layer: int, site: str, placement: Placement):
        self.params, self.config, self.layer, self.site, self.placement = params, config, layer, site, placement

    @functools.cached_property
    def prefix(self) -> Any:
        return jax.jit(lambda params, tokens_BT: splicing.prefix(params, self.config, tokens_BT, self.layer, self.site))

    @functools.cached_property
    def constants(self) -> Any:
        """(parameters, prefix, tokens, weights, values (Q, D)) → Σ nll, Σ kl (Q,): one vector at every spliced position."""

        def of(params: Any, of: Prefix, tokens_BT: Array, weight_BU: Array, spliced_BT: Array, value_QD: Array) -> tuple[Array, Array]:
            value_QBTD = jnp.broadcast_to(value_QD[:, None, None], (len(value_QD), *of.x_BTX.shape))
            return self._sums(params, of, tokens_BT, weight_BU, spliced_BT, value_QBTD)

        return jax.jit(of)

    @functools.cached_property
    def reconstructed(self) -> Any:
        """The same of an SAE's reconstructions, with Σ ‖x − x̂‖² (Q,) and firings (F,): the fields of `Sums`."""

        def of(
            params: Any,
            dictionary: Dictionary,
            of: Prefix,
            tokens_BT: Array,
            weight_BU: Array,
            spliced_BT: Array,
            after: Array,
            before: Array,
        ) -> tuple[Array, ...]:
            x_BTX = of.x_BTX.astype(jnp.float32)
            x_ND = x_BTX.reshape(-1, x_BTX.shape[-1])
            made_QND = masking.reconstructions(dictionary, x_ND, after, before)
            spliced_N = spliced_BT.reshape(-1)
            error_Q = jnp.where(spliced_N, jnp.square(x_ND - made_QND).sum(-1), 0.0).sum(-1)
            firings_F = ((encode(dictionary, x_ND) > 0) & spliced_N[:, None]).sum(0)
            nll_Q, kl_Q = self._sums(params, of, tokens_BT, weight_BU, spliced_BT, made_QND.reshape(-1, *x_BTX.shape))
            return nll_Q, kl_Q, error_Q, firings_F

        return jax.jit(of)

    def _spliced(self, of: Prefix, spliced_BT: Array, value_BTX: Array) -> Array:
        return jnp.where(spliced_BT[..., None], value_BTX.astype(of.x_BTX.dtype), of.x_BTX)

    def _sums(
        self, params: Any, of: Prefix, tokens_BT: Array, weight_BU: Array, spliced_BT: Array, value_QBTX: Array
    ) -> tuple[Array, Array]:
        final = jax.lax.map(
            lambda value_BTX: splicing.stream_with(
                params, self.config, of, self.layer, self.site, self._spliced(of, spliced_BT, value_BTX)
            ),
            value_QBTX,
        )
        found = splicing.losses(params, self.config, final, of.final_BTD, tokens_BT)
        return (found.nll_MBU * weight_BU).sum((1, 2)), (found.kl_MBU * weight_BU).sum((1, 2))


def _measure(model: Model, contexts: Contexts, mean_D: np.ndarray, dictionaries: Any, masks: list[Masks]) -> tuple[Clean, list[Sums]]:
    """Over all contexts."""
    most = [max(len(getattr(m, name)) for m in masks) for name in ("after", "before")]
    stacked = [[_padded(list(getattr(m, name).values()), n, d) for name, n in zip(("after", "before"), most, strict=True)]
               for m, d in zip(masks, dictionaries, strict=True)]  # fmt: skip
    n, t = contexts.tokens_NT.shape
    at_once = int(np.clip(MEMORY // (8 * sum(most) * t * len(mean_D)), 1, 16))
    at_once = -(-n // -(-n // at_once))  # batches of one length, with as little as can be left over
    everywhere = model.placement.everywhere()
    on_device = [jax.device_put(d, everywhere) for d in dictionaries]
    base, moments = np.zeros(5), [np.zeros(()), np.zeros(()), np.zeros(len(mean_D))]
    nothing_Q = np.zeros(sum(most))
    sums = [Sums(nothing_Q, nothing_Q, nothing_Q, np.zeros(d.w_dec_FD.shape[0])) for d in dictionaries]
    constant_QD = np.stack([np.zeros_like(mean_D), mean_D]).astype(np.float32)
    with tqdm.tqdm(total=n * len(dictionaries), desc="splice", unit="context", mininterval=1.0) as bar:
        for first in range(0, n, at_once):
            tokens, length = (field[first : first + at_once] for field in (contexts.tokens_NT, contexts.length_N))
            missing = at_once - len(length)
            tokens, length = np.pad(tokens, ((0, missing), (0, 0))), np.pad(length, (0, missing))
            place_T = np.arange(t)
            spliced_BT = (place_T > 0) & (place_T < length[:, None])  # SAEs have never seen the start token
            weight_BU = (spliced_BT[:, :-1] & spliced_BT[:, 1:]).astype(np.float32)  # predictions made where something was spliced in
            tokens, spliced, weight = jax.device_put((tokens, spliced_BT, weight_BU), everywhere)
            of = model.prefix(model.params, tokens)
            own = _own(model.params, model.config, of.final_BTD, tokens, weight)
            moments = [whole + np.asarray(x) for whole, x in zip(moments, _moments(of.x_BTX, spliced), strict=True)]
            zero_and_mean = model.constants(model.params, of, tokens, weight, spliced, constant_QD)
            base += np.concatenate([np.asarray(own)[None], *(np.asarray(x) for x in zero_and_mean)])
            for place, (dictionary, (after, before)) in enumerate(zip(on_device, stacked, strict=True)):
                progress.look_for_signals()
                part = model.reconstructed(model.params, dictionary, of, tokens, weight, spliced, after, before)
                sums[place] = Sums(*(whole + np.asarray(x) for whole, x in zip(sums[place], part, strict=True)))
                bar.update(at_once - missing)
    names = ("clean", "zero", "mean", "kl zero", "kl mean")
    positions, x_square, x_sum_D = moments
    return Clean(dict(zip(names, base.tolist(), strict=True)), float(x_square - np.square(x_sum_D).sum() / positions)), sums


@jax.jit
def _moments(x_BTX: Array, spliced_BT: Array) -> tuple[Array, Array, Array]:
    """(positions, Σ ‖x‖², Σ x) of what is spliced out."""
    x_BTX = jnp.where(spliced_BT[..., None], x_BTX.astype(jnp.float32), 0.0)
    return spliced_BT.sum(), jnp.square(x_BTX).sum(), x_BTX.sum((0, 1))


@functools.partial(jax.jit, static_argnums=1)
def _own(params: Any, config: DecoderConfig, final_BTD: Array, tokens_BT: Array, weight_BU: Array) -> Array:
    """Σ nll of the model as it is, made by the same kernel as that of what is spliced in."""
    return (splicing.losses(params, config, final_BTD[None], final_BTD, tokens_BT).nll_MBU[0] * weight_BU).sum()


def _padded(rows: list[np.ndarray], count: int, dictionary: Dictionary) -> np.ndarray:
    """With rows that keep everything: one program for all SAEs."""
    f = dictionary.w_dec_FD.shape[0]
    return np.concatenate([np.asarray(rows, bool).reshape(-1, f), np.ones((count - len(rows), f), bool)])


def _figures(sums: Sums, masks: Masks, base: dict[str, float], tokens: int, variance: float) -> dict[Key, float]:
    """By ("ce" | "rise" | "kl" | "recovered" | "recovered from mean" | "explained variance", *key)."""
    most = len(sums.nll_Q) - len(masks.before)
    at = {key: i for i, key in enumerate(masks.after)} | {key: most + i for i, key in enumerate(masks.before)}
    plain = sums.nll_Q[at[PLAIN]] / tokens
    out: dict[Key, float] = {}
    for key, i in at.items():
        ce = sums.nll_Q[i] / tokens
        out |= {("ce", *key): ce, ("rise", *key): ce - plain, ("kl", *key): sums.kl_Q[i] / tokens}
        out["recovered", *key] = (base["zero"] - ce) / (base["zero"] - base["clean"])
        out["recovered from mean", *key] = (base["mean"] - ce) / (base["mean"] - base["clean"])
        out["explained variance", *key] = 1.0 - sums.error_Q[i] / variance
    for kind in (STABLE, UNSTABLE):
        for figure in ("rise", "kl", "explained variance"):
            if drawn := [value for key, value in out.items() if key[:3] == (figure, "N", kind)]:
                out[figure, "N", kind] = float(np.mean(drawn))
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
    at = {key: i for i, key in enumerate(masks.after)}
    return float(sums.nll_Q[at["single", feature]] - sums.nll_Q[at[PLAIN]])


def _summary(config: Any, values: Values, base: dict[str, float], tokens: int) -> dict[str, Any]:
    of_model = lambda value: Estimate(value, None, None, None, Count(tokens, "tokens"), NATS)
    figures: dict[str, Estimate] = {
        "ce_clean": of_model(base["clean"]),
        "ce_zero": of_model(base["zero"]),
        "ce_mean": of_model(base["mean"]),
        "ce_spliced": values.mean(("ce", *PLAIN)),
        "ce_recovered": values.mean(("recovered", *PLAIN), null=0.0, unit="share"),
        "ce_recovered_from_mean": values.mean(("recovered from mean", *PLAIN), null=0.0, unit="share"),
        "kl": values.mean(("kl", *PLAIN), null=base["kl mean"]),
        "removed_stable": values.mean(("rise", "N", STABLE)),
        "removed_unstable": values.mean(("rise", "N", UNSTABLE)),
        "removed_difference": values.difference(("rise", "N", STABLE), ("rise", "N", UNSTABLE), null=values.value(("difference of any",))),
        "removed_kl_difference": values.difference(("kl", "N", STABLE), ("kl", "N", UNSTABLE), null=0.0),
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
    flips = values.of_seeds(("rise", "N", STABLE)) - values.of_seeds(("rise", "N", UNSTABLE))
    return {name: e.as_dict() for name, e in figures.items()} | {
        "tokens": tokens,
        "sign_flip_p": {"removed_difference": sign_flips(flips)},
    }


def _table(values: Values) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in ("how", "set", "features", "figure", "value", "low", "high")}
    for figure in ("ce", "rise", "kl", "recovered", "explained variance"):
        for key in values.keys(figure):
            how, *rest = key[1:]
            if how == "single" or (how == "N" and len(rest) != 1) or np.isnan(values.of_seeds(key)).any():
                continue  # single draws, and sets that some seed does not have
            e = values.mean(key)
            m = rest[1] if len(rest) > 1 else None
            for column, value in zip(columns.values(), (how, rest[0] if rest else "", m, figure, e.value, e.low, e.high), strict=True):
                column.append(value)
    return columns


def _features(seeds: tuple[int, ...], found: list[Sums], masks: list[Masks], tokens: int) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in ("seed", "feature", "firings", "ce_per_token", "ce_per_firing")}
    for seed, sums, own in zip(seeds, found, masks, strict=True):
        for feature in [key[1] for key in own.after if key[0] == "single"]:
            effect, firings = _exact(sums, own, feature), int(sums.firings_F[feature])
            row = (seed, feature, firings, effect / tokens, effect / firings if firings else None)
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
    return columns
