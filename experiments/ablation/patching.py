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
    task: Task, out: Outputs, dictionaries: Sequence[Dictionary], masks: Sequence[Masks], rows: int
) -> tuple[Clean, list[Sums], int]:
    """(the model's own, of every SAE, tokens whose prediction counts), on about so many held-out rows in whole contexts."""
    lm, read = task.section(LanguageModel), task.section(Harvesting)
    home = checkpoint.locate(lm.path, lm.revision)
    model = checkpoint.load_config(home)
    contexts, mean_D = _contexts(task, load_tokenizer(home, read.start_token).start, rows)
    placement = Placement(make_language_mesh(lm.model_parallel))
    params = checkpoint.load_params(home, model, lm.dtype, placement)
    clean, sae_sums = splice_contexts(
        Model(params, model, read.layer, read.site, placement), contexts, mean_D, dictionaries, masks, out.part
    )
    return clean, sae_sums, int((contexts.length_N - 2).clip(0).sum())


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
        """(Σ nll of the first, by how much it is more of each (Q,), Σ kl (Q,))."""
        final = jax.lax.map(
            lambda value_BTX: splicing.stream_with(
                params, self.config, prefix, self.layer, self.site, self._spliced(prefix, spliced_BT, value_BTX)
            ),
            value_QBTX,
        )
        losses = splicing.losses(params, self.config, final, prefix.final_BTD, tokens_BT)
        # How much more than the first is lost is added up by itself: what a few features cost is a small part of a large sum.
        more_Q = ((losses.nll_MBU - losses.nll_MBU[0]) * weight_BU).sum((1, 2))
        return (losses.nll_MBU[0] * weight_BU).sum(), more_Q, (losses.kl_MBU * weight_BU).sum((1, 2))


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
    base, x, centre_D = np.zeros(5), None, mean_D.astype(np.float32)
    nothing_Q = np.zeros(sum(most))
    sums = [Sums(nothing_Q, nothing_Q, nothing_Q, np.zeros(d.w_dec_FD.shape[0])) for d in dictionaries]
    constant_QD = np.stack([np.zeros_like(mean_D), mean_D]).astype(np.float32)
    with tqdm.tqdm(total=n * len(dictionaries), desc="splice", unit="context", mininterval=1.0) as bar:
        for first in range(0, n, at_once):
            tokens, length = (field[first : first + at_once] for field in (contexts.tokens_NT, contexts.length_N))
            make_batch = functools.partial(_batch, model, tokens, length, at_once, centre_D, constant_QD, on_device, stacked, bar)
            of_base, of_x, of_sums = part(f"contexts {first}", make_batch)
            base, x = base + of_base, spread.added(x, of_x)
            sums = [Sums(*(whole + more for whole, more in zip(s, one, strict=True))) for s, one in zip(sums, of_sums, strict=True)]
    names = ("clean", "zero", "mean", "kl zero", "kl mean")
    return Clean(dict(zip(names, base.tolist(), strict=True)), 0.0 if x is None else x.variance), sums


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
    """(the model's own sums, spread of what is spliced out, sums of every SAE) of some contexts."""
    t, missing = tokens.shape[1], at_once - len(length)
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
    base = np.concatenate([np.asarray(own, np.float64)[None], *_whole(zero_and_mean)])
    sums = []
    for dictionary, of_masks in zip(dictionaries, stacked, strict=True):
        progress.look_for_signals()
        sums.append(_whole(model.reconstructed(model.params, dictionary, prefix, tokens, weight, spliced, *of_masks)))
        bar.update(at_once - missing)
    return base, x, sums


def _whole(parts: Any) -> list[np.ndarray]:
    """Of what `Model` makes of a batch: Σ nll (Q,) and the rest, float64."""
    first, more_Q, *rest = jax.device_get(parts)
    return [float(first) + more_Q.astype(np.float64), *(x.astype(np.float64) for x in rest)]


@jax.jit
def _moments(x_BTX: Array, spliced_BT: Array, centre_D: Array) -> tuple[Array, Array, Array]:
    """(positions, Σ (x − centre), Σ ‖x − centre‖²) of what is spliced out."""
    x_BTX = jnp.where(spliced_BT[..., None], x_BTX.astype(jnp.float32) - centre_D, 0.0)
    return spliced_BT.sum(), x_BTX.sum((0, 1)), jnp.square(x_BTX).sum()


@functools.partial(jax.jit, static_argnums=1)
def _own(params: Any, config: DecoderConfig, final_BTD: Array, tokens_BT: Array, weight_BU: Array) -> Array:
    """Σ nll of the model as it is, made by the same kernel as that of what is spliced in."""
    return (splicing.losses(params, config, final_BTD[None], final_BTD, tokens_BT).nll_MBU[0] * weight_BU).sum()


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


def _contexts(task: Task, start: int, count_rows: int) -> tuple[Contexts, np.ndarray]:
    """Evenly spaced whole held-out contexts, and the mean of what the site holds over all held-out rows."""
    store = sources.evaluation_store(task)
    assert store is not None
    rows = sources.opened(task, store).load()
    every = contexts_of_rows(rows.document_N, rows.position_N, rows.token_N, task.section(Harvesting).context_length, start)
    count = -(-len(every.length_N) * count_rows // len(rows.token_N))
    selection = sources.evenly_spaced(len(every.length_N), count)
    return Contexts(*(field[selection] for field in every)), rows.acts_ND.mean(0, dtype=np.float64)
