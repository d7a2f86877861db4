"""The variants by name: what the step must know of each. Their losses are one file each."""

from collections.abc import Callable
from typing import Any, NamedTuple

from saes import batchtopk, gated, jumprelu, l1, matryoshka, topk
from saes.dictionary import Dictionary


class Variant(NamedTuple):
    """Pure functions over one seed's parameters, and three facts.

    Attributes:
      init: (key, config, b_dec_D) → parameters.
      encode: (parameters, config, knobs, x_BD) → activations (B, F) as in training.
      loss: (parameters, config, knobs, x_BD, dead_F) → (loss, LossParts).
      to_dictionary: (parameters, scale, k, threshold) → Dictionary for raw activations; leaves may have a leading seed axis.
      from_dictionary: (Dictionary, scale) → parameters that do the same, to go on from.
      unit_rows: decoder rows are kept at norm 1.
      penalised: L0 comes from a penalty, whose coefficient a controller sets (`saes/control.py`); else from a count.
      sparsity: the coefficient to begin with; those below are near where the controller ends on the embedded model (F=512, K=16).
    """

    init: Callable[..., Any]
    encode: Callable[..., Any]
    loss: Callable[..., Any]
    to_dictionary: Callable[..., Dictionary]
    from_dictionary: Callable[..., Any]
    unit_rows: bool = True
    penalised: bool = False
    sparsity: float = 1.0


def _of(module: Any, **facts: Any) -> Variant:
    return Variant(module.init, module.encode, module.loss, module.to_dictionary, module.from_dictionary, **facts)


VARIANTS: dict[str, Variant] = {
    "topk": _of(topk),
    "batchtopk": _of(batchtopk),
    "matryoshka": _of(matryoshka),
    "jumprelu": _of(jumprelu, penalised=True, sparsity=0.6),
    "gated": _of(gated, penalised=True, sparsity=2.0),
    "l1": _of(l1, unit_rows=False, penalised=True, sparsity=1.5),
}


def variant(name: str) -> Variant:
    """Raises ValueError naming the variants there are."""
    if name not in VARIANTS:
        raise ValueError(f"config.sae.variant={name!r}: one of {sorted(VARIANTS)}")
    return VARIANTS[name]
