"""A trained dictionary: what is compared, evaluated, exported and imported, whatever trained it.

Training variants end in this one form, and every file format reads into it, so that nothing downstream knows variants.
"""

import dataclasses
from typing import Any, Literal, get_args

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from saes.selection import top_k_mask

Architecture = Literal["standard", "topk", "jumprelu", "gated"]
ARCHITECTURES = get_args(Architecture)
Leaf = Any  # an array, or what stands for one in a pytree: NumPy, a tracer, a shape, a sharding; None where there is none


@flax.struct.dataclass
class Dictionary:
    """One SAE for inference, in units of the raw activations. With p = (x − b_dec) W_enc + b_enc the features are, by architecture,

      standard   ReLU(p)
      topk       the k largest p, clipped at 0
      jumprelu   p where p > threshold (at least 0), else 0
      gated      where p > 0: ReLU(e^r_mag · (x − b_dec) W_enc + b_mag), else 0

    Attributes:
      w_enc_DF, b_enc_F: encoder, (D, F) and (F,), or with a leading seed axis; of gated, `b_enc_F` is the gate's bias.
      w_dec_FD, b_dec_D: decoder, (F, D) and (D,), likewise.
      threshold_F: (F,), of jumprelu.
      r_mag_F, b_mag_F: (F,), of gated.
      k: of topk, 0 in the others.
      subtract_b_dec: False: the encoder sees x itself (Gemma Scope, transcoders).
    """

    w_enc_DF: Leaf
    b_enc_F: Leaf
    w_dec_FD: Leaf
    b_dec_D: Leaf
    threshold_F: Leaf = None
    r_mag_F: Leaf = None
    b_mag_F: Leaf = None
    architecture: Architecture = flax.struct.field(pytree_node=False, default="topk")
    k: int = flax.struct.field(pytree_node=False, default=0)
    subtract_b_dec: bool = flax.struct.field(pytree_node=False, default=True)


def kind(d: Dictionary) -> tuple[Any, ...]:
    """What dictionaries that are stacked must have in common: (F, D, architecture, k, whether b_dec is subtracted)."""
    return (*d.w_dec_FD.shape[-2:], d.architecture, d.k, d.subtract_b_dec)


def encode(dictionary: Dictionary, x_BD: Float[Array, "B D"], among_F: Bool[Array, " F"] | None = None) -> Float[Array, "B F"]:
    """Feature activations (non-negative).

    Args:
      among_F: features that take part; None: all. The others are 0 from before the selection, so that in topk the next take their places.
    """
    d = dictionary
    along_BF = (x_BD - d.b_dec_D if d.subtract_b_dec else x_BD) @ d.w_enc_DF
    pre_BF = along_BF + d.b_enc_F
    if among_F is not None:
        pre_BF = jnp.where(among_F, pre_BF, -jnp.inf)
    if d.architecture == "standard":
        return jax.nn.relu(pre_BF)
    if d.architecture == "topk":
        return jnp.where(top_k_mask(pre_BF, d.k), jax.nn.relu(pre_BF), 0.0)
    if d.architecture == "jumprelu":
        return jnp.where(pre_BF > d.threshold_F, jax.nn.relu(pre_BF), 0.0)
    if d.architecture == "gated":
        return jnp.where(pre_BF > 0, jax.nn.relu(jnp.exp(d.r_mag_F) * along_BF + d.b_mag_F), 0.0)
    raise ValueError(f"unknown architecture {d.architecture!r}, one of {ARCHITECTURES}")


def decode(dictionary: Dictionary, z_BF: Float[Array, "B F"]) -> Float[Array, "B D"]:
    """Reconstructions."""
    return z_BF @ dictionary.w_dec_FD + dictionary.b_dec_D


def residual(dictionary: Dictionary, x_BD: Float[Array, "B D"], z_BF: Float[Array, "B F"]) -> Float[Array, "B D"]:
    """x − x̂. The bias is taken off the tokens first: where their mean is large beside their spread, x̂ would be rounded to the size of the mean."""
    return (x_BD - dictionary.b_dec_D) - z_BF @ dictionary.w_dec_FD


@jax.jit
def left_over(dictionary: Dictionary, x_BD: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """What one SAE leaves of its activations."""
    return residual(dictionary, x_BD, encode(dictionary, x_BD))


@jax.jit
def reconstruct(dictionary: Dictionary, x_BD: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Of one SAE, from its activations."""
    return decode(dictionary, encode(dictionary, x_BD))


def first_features(dictionary: Dictionary, count: int) -> Dictionary:
    """The same without the features behind the first `count`; leading axes stay."""

    def cut(name: str, leaf: Leaf) -> Leaf:
        axes = name.rsplit("_", 1)[-1]
        if leaf is None or "F" not in axes:
            return leaf
        return leaf[..., :count, :] if axes == "FD" else leaf[..., :count]

    leaves = ("w_enc_DF", "b_enc_F", "w_dec_FD", "threshold_F", "r_mag_F", "b_mag_F")
    return dataclasses.replace(dictionary, **{name: cut(name, getattr(dictionary, name)) for name in leaves})
