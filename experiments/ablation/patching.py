"""Reconstructions of many SAEs spliced into a language model, with some of their features: what its predictions then cost."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jaxtyping import Array

from activations.language_model import checkpoint
from activations.language_model import splice as splicing
from activations.language_model.config import DecoderConfig
from activations.language_model.placement import Placement
from activations.language_model.splice import Prefix
from activations.text.contexts import Contexts, contexts_of_rows
from activations.text.tokenizer import load_tokenizer
from experiments.data import language_model, sources
from experiments.data.harvesting import Harvesting
from experiments.data.language_model import LanguageModel
from experiments.reappearance.seed_values import Key
from experiments.stage import Outputs, Task
from runtime import progress
from runtime.mesh import make_language_mesh
from saes import masking, spread
from saes.dictionary import Dictionary, encode
from saes.spread import Spread

MEMORY = 2**28  # bytes of streams held at a time


PLAIN: Key = ("plain",)


class Masks(NamedTuple):
    """Of one SAE, the features that stay in each reconstruction: those of `after` are removed after the activation, those of `before` before the
    selection. The first of `after` is the SAE as it is.

    Attributes:
      filled: of some of `after`, what is put in the place of the features that are removed (D,); of the others zeros are.
    """

    after: dict[Key, np.ndarray]
    before: dict[Key, np.ndarray]
    filled: Mapping[Key, np.ndarray] = MappingProxyType({})

    @property
    def keys(self) -> list[Key]:
        return [*self.after, *self.before]


class Sums(NamedTuple):
    """Of one SAE over the spliced positions; Q reconstructions, C contexts, float64.

    Attributes:
      nll_QC, kl_QC: nats, of every context.
      error_Q: Σ ‖x − x̂‖².
      firings_F: positions on which each feature fires.
    """

    nll_QC: np.ndarray
    kl_QC: np.ndarray
    error_Q: np.ndarray
    firings_F: np.ndarray

    @property
    def nll_Q(self) -> np.ndarray:
        """Of all contexts."""
        return np.asarray(self.nll_QC.sum(1))

    @property
    def kl_Q(self) -> np.ndarray:
        """Of all contexts."""
        return np.asarray(self.kl_QC.sum(1))

    def leave_out(self, left_out_C: np.ndarray) -> "Sums":
        """Losses of the other contexts alone."""
        return self._replace(nll_QC=self.nll_QC[:, ~left_out_C], kl_QC=self.kl_QC[:, ~left_out_C])


class Clean(NamedTuple):
    """Of the model with nothing of an SAE in it.

    Attributes:
      losses_C: Σ nats of its own ("clean"), with zeros and with the mean in the site's place, and their divergences, of every context.
      tokens_C: predictions that count.
      document_C: of which document a context is.
      variance: Σ ‖x − x̄‖² over the positions that are spliced.
    """

    losses_C: dict[str, np.ndarray]
    tokens_C: np.ndarray
    document_C: np.ndarray
    variance: float

    @property
    def losses(self) -> dict[str, float]:
        """Of all contexts."""
        return {name: float(of_contexts.sum()) for name, of_contexts in self.losses_C.items()}

    @property
    def tokens(self) -> int:
        return int(self.tokens_C.sum())

    def leave_out(self, left_out_C: np.ndarray) -> "Clean":
        """Of the other contexts alone; the variance is that of all."""
        rest = {name: of_contexts[~left_out_C] for name, of_contexts in self.losses_C.items()}
        return Clean(rest, self.tokens_C[~left_out_C], self.document_C[~left_out_C], self.variance)


def cannot(task: Task) -> str | None:
    """Why nothing can be spliced in, None where it can."""
    if not task.has("model"):
        return "activations without their language model"
    model = language_model.loaded_config(task)
    if not model.causal:
        return f"this {model.family} model predicts no next token"
    return (
        f"{task.section(LanguageModel).path} holds no head, which predictions need: take the checkpoint with its head"
        if model.head == "none"
        else None
    )


def measure(
    task: Task, out: Outputs, dictionaries: Sequence[Dictionary], masks: Sequence[Masks], count: int, positions: int
) -> tuple[Clean, list[Sums]]:
    """(the model's own, of every SAE), on the first so many positions of so many held-out contexts, of as many documents as there are."""
    lm, read = task.section(LanguageModel), task.section(Harvesting)
    home = checkpoint.locate(lm.path, lm.revision)
    model = checkpoint.load_config(home)
    contexts, mean_D = _contexts(task, load_tokenizer(home, read.start_token).start, count, positions)
    placement = Placement(make_language_mesh(lm.model_parallel))
    params = checkpoint.load_params(home, model, lm.dtype, placement)
    return splice_contexts(Model(params, model, read.layer, read.site, placement), contexts, mean_D, dictionaries, masks, out.part)


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
        """(parameters, prefix, tokens, weights, values (Q, D)) → as `_sums`: one vector at every spliced position."""

        def sums(params: Any, prefix: Prefix, tokens_BT: Array, weight_BU: Array, spliced_BT: Array, value_QD: Array) -> tuple[Array, ...]:
            value_QBTD = jnp.broadcast_to(value_QD[:, None, None], (len(value_QD), *prefix.x_BTX.shape))
            return self._sums(params, prefix, tokens_BT, weight_BU, spliced_BT, value_QBTD)

        return jax.jit(sums)

    @functools.cached_property
    def reconstructed(self) -> Any:
        """The same of an SAE's reconstructions, with Σ ‖x − x̂‖² (Q,) and firings (F,)."""

        def sums(
            params: Any,
            dictionary: Dictionary,
            prefix: Prefix,
            tokens_BT: Array,
            weight_BU: Array,
            spliced_BT: Array,
            after: Array,
            filled: Array,
            before: Array,
        ) -> tuple[Array, ...]:
            x_BTX = prefix.x_BTX.astype(jnp.float32)
            x_ND = x_BTX.reshape(-1, x_BTX.shape[-1])
            made_QND = masking.reconstructions(dictionary, x_ND, after, filled, before)
            spliced_N = spliced_BT.reshape(-1)
            error_Q = jnp.where(spliced_N, jnp.square(x_ND - made_QND).sum(-1), 0.0).sum(-1)
            firings_F = ((encode(dictionary, x_ND) > 0) & spliced_N[:, None]).sum(0)
            of_model = self._sums(params, prefix, tokens_BT, weight_BU, spliced_BT, made_QND.reshape(-1, *x_BTX.shape))
            return *of_model, error_Q, firings_F

        return jax.jit(sums)

    def _spliced(self, prefix: Prefix, spliced_BT: Array, value_BTX: Array) -> Array:
        return jnp.where(spliced_BT[..., None], value_BTX.astype(prefix.x_BTX.dtype), prefix.x_BTX)

    def _sums(
        self, params: Any, prefix: Prefix, tokens_BT: Array, weight_BU: Array, spliced_BT: Array, value_QBTX: Array
    ) -> tuple[Array, Array, Array]:
        """(Σ nll of the first by context (B,), by how much it is more of each (Q, B), Σ kl (Q, B))."""
        final = jax.lax.map(
            lambda value_BTX: splicing.stream_with(
                params, self.config, prefix, self.layer, self.site, self._spliced(prefix, spliced_BT, value_BTX)
            ),
            value_QBTX,
        )
        losses = splicing.losses(params, self.config, final, prefix.final_BTD, tokens_BT)
        # How much more than the first is lost is added up by itself: what a few features cost is a small part of a large sum.
        more_QB = ((losses.nll_MBU - losses.nll_MBU[0]) * weight_BU).sum(2)
        return (losses.nll_MBU[0] * weight_BU).sum(1), more_QB, (losses.kl_MBU * weight_BU).sum(2)


def splice_contexts(
    model: Model,
    contexts: Contexts,
    mean_D: np.ndarray,
    dictionaries: Sequence[Dictionary],
    masks: Sequence[Masks],
    part: Callable[[str, Callable[[], Any]], Any] = lambda key, make: make(),
) -> tuple[Clean, list[Sums]]:
    """Of some contexts.

    Args:
      mean_D: what stands in the site's place besides zeros.
      dictionaries: SAEs; of one size they share a program.
      masks: of each, at least one.
      part: keeps what a batch gave over a kill (`Outputs.part`).
    """
    most = [max(len(getattr(m, name)) for m in masks) for name in ("after", "before")]
    stacked = [
        (_padded(list(m.after.values()), most[0], d), _filled(m, most[0], len(mean_D)), _padded(list(m.before.values()), most[1], d))
        for m, d in zip(masks, dictionaries, strict=True)
    ]
    n, t = contexts.tokens_NT.shape
    at_once = int(np.clip(MEMORY // (8 * sum(most) * t * len(mean_D)), 1, 16))
    at_once = -(-n // -(-n // at_once))  # batches of one length, with as little as can be left over
    everywhere = model.placement.everywhere()
    on_device = [jax.device_put(d, everywhere) for d in dictionaries]
    x, centre_D = None, mean_D.astype(np.float32)
    bases, parts = [], []
    constant_QD = np.stack([np.zeros_like(mean_D), mean_D]).astype(np.float32)
    with tqdm.tqdm(total=n * len(dictionaries), desc="splice", unit="context", mininterval=1.0) as bar:
        for first in range(0, n, at_once):
            tokens, length = (field[first : first + at_once] for field in (contexts.tokens_NT, contexts.length_N))
            make_batch = functools.partial(_batch, model, tokens, length, at_once, centre_D, constant_QD, on_device, stacked, bar)
            of_base, of_x, of_sums = part(f"contexts {first}", make_batch)
            bases.append(of_base)
            x = spread.added(x, of_x)
            parts.append(of_sums)
    names = ("clean", "zero", "mean", "kl zero", "kl mean")
    losses_C = dict(zip(names, np.concatenate(bases, axis=1), strict=True))
    sums = []
    for nlls, kls, errors, firings in (zip(*of_sae, strict=True) for of_sae in zip(*parts, strict=True)):
        sums.append(Sums(np.concatenate(nlls, axis=1), np.concatenate(kls, axis=1), np.sum(errors, axis=0), np.sum(firings, axis=0)))
    tokens_C = (contexts.length_N - 2).clip(0)
    return Clean(losses_C, tokens_C, contexts.document_N, 0.0 if x is None else x.variance), sums


def _batch(
    model: Model,
    tokens: np.ndarray,
    length: np.ndarray,
    at_once: int,
    centre_D: np.ndarray,
    constant_QD: np.ndarray,
    dictionaries: Sequence[Dictionary],
    stacked: Sequence[Sequence[np.ndarray]],
    bar: Any,
) -> tuple[np.ndarray, Spread, list[list[np.ndarray]]]:
    """(the model's own sums by context, spread of what is spliced out, sums of every SAE) of some contexts."""
    t, there, missing = tokens.shape[1], len(length), at_once - len(length)
    tokens, length = np.pad(tokens, ((0, missing), (0, 0))), np.pad(length, (0, missing))
    place_T = np.arange(t)
    spliced_BT = (place_T > 0) & (place_T < length[:, None])  # SAEs have never seen the start token
    weight_BU = (spliced_BT[:, :-1] & spliced_BT[:, 1:]).astype(np.float32)  # predictions made where something was spliced in
    tokens, spliced, weight = jax.device_put((tokens, spliced_BT, weight_BU), model.placement.everywhere())
    prefix = model.prefix(model.params, tokens)
    own = _own(model.params, model.config, prefix.final_BTD, tokens, weight)
    positions, sum_D, square = jax.device_get(_moments(prefix.x_BTX, spliced, centre_D))
    x = Spread(int(positions), centre_D, sum_D.astype(np.float64), float(square))
    zero_and_mean = model.constants(model.params, prefix, tokens, weight, spliced, constant_QD)
    base = np.concatenate([np.asarray(own, np.float64)[None], *_whole(zero_and_mean)])[:, :there]
    sums = []
    for dictionary, of_masks in zip(dictionaries, stacked, strict=True):
        progress.look_for_signals()
        nll_QB, kl_QB, error_Q, firings_F = _whole(
            model.reconstructed(model.params, dictionary, prefix, tokens, weight, spliced, *of_masks)
        )
        sums.append([nll_QB[:, :there], kl_QB[:, :there], error_Q, firings_F])
        bar.update(at_once - missing)
    return base, x, sums


def _whole(parts: Any) -> list[np.ndarray]:
    """Of what `Model` makes of a batch: Σ nll (Q, B) and the rest, float64."""
    first_B, more_QB, *rest = jax.device_get(parts)
    return [first_B.astype(np.float64) + more_QB.astype(np.float64), *(x.astype(np.float64) for x in rest)]


@jax.jit
def _moments(x_BTX: Array, spliced_BT: Array, centre_D: Array) -> tuple[Array, Array, Array]:
    """(positions, Σ (x − centre), Σ ‖x − centre‖²) of what is spliced out."""
    x_BTX = jnp.where(spliced_BT[..., None], x_BTX.astype(jnp.float32) - centre_D, 0.0)
    return spliced_BT.sum(), x_BTX.sum((0, 1)), jnp.square(x_BTX).sum()


@functools.partial(jax.jit, static_argnums=1)
def _own(params: Any, config: DecoderConfig, final_BTD: Array, tokens_BT: Array, weight_BU: Array) -> Array:
    """(B,) Σ nll of the model as it is, made by the same kernel as that of what is spliced in."""
    return (splicing.losses(params, config, final_BTD[None], final_BTD, tokens_BT).nll_MBU[0] * weight_BU).sum(1)


def _padded(rows: list[np.ndarray], count: int, dictionary: Dictionary) -> np.ndarray:
    """With rows that keep everything: one program for all SAEs."""
    f = dictionary.w_dec_FD.shape[0]
    return np.concatenate([np.asarray(rows, bool).reshape(-1, f), np.ones((count - len(rows), f), bool)])


def _filled(masks: Masks, count: int, width: int) -> np.ndarray:
    """(count, D) what stands in the place of removed features."""
    filled_MD = np.zeros((count, width), np.float32)
    for place, key in enumerate(masks.after):
        if key in masks.filled:
            filled_MD[place] = masks.filled[key]
    return filled_MD


def _contexts(task: Task, start: int, count: int, positions: int) -> tuple[Contexts, np.ndarray]:
    """The first positions of some held-out contexts, and the mean of what the site holds over all held-out rows."""
    store = sources.evaluation_store(task)
    assert store is not None
    rows = sources.opened(task, store).load()
    every = contexts_of_rows(rows.document_N, rows.position_N, rows.token_N, task.section(Harvesting).context_length, start)
    selection = of_documents(every.document_N, count)
    some = Contexts(*(field[selection] for field in every))
    some = some._replace(tokens_NT=some.tokens_NT[:, :positions], length_N=np.minimum(some.length_N, positions))
    return some, rows.acts_ND.mean(0, dtype=np.float64)


def of_documents(document_N: np.ndarray, count: int) -> np.ndarray:
    """Places of so many contexts, of as many documents as there are: evenly spaced ones, and of each equally many contexts, evenly spaced, or one more."""
    documents = np.unique(document_N)
    documents = documents[sources.evenly_spaced(len(documents), count)]
    places = [np.flatnonzero(document_N == d) for d in documents]
    shares = np.zeros(len(places), int)
    while shares.sum() < min(count, sum(map(len, places))):
        open_documents = [i for i, of_document in enumerate(places) if shares[i] < len(of_document)]
        shares[open_documents[: count - shares.sum()]] += 1
    return np.sort(np.concatenate([p[sources.evenly_spaced(len(p), n)] for p, n in zip(places, shares.tolist(), strict=True)]))
