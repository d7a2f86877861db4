"""A trained dictionary: what is compared, evaluated, exported and imported, whatever trained it.

Training variants end in this one form, and every file format reads into it, so that nothing downstream knows variants.
"""

from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Architecture = Literal["topk"]
Leaf = Any  # an array, or what stands for one in a pytree: NumPy, a tracer, a shape, a sharding


@flax.struct.dataclass
class Dictionary:
    """One SAE for inference, in units of the raw activations.

    Attributes:
      w_enc_DF, b_enc_F: encoder, (D, F) and (F,), or with a leading seed axis.
      w_dec_FD, b_dec_D: decoder, (F, D) and (D,), likewise; b_dec is subtracted from the input too.
      architecture: activation function; `topk` keeps the k largest pre-activations and clips them at 0.
      k: of top-k.
    """

    w_enc_DF: Leaf
    b_enc_F: Leaf
    w_dec_FD: Leaf
    b_dec_D: Leaf
    architecture: Architecture = flax.struct.field(pytree_node=False, default="topk")
    k: int = flax.struct.field(pytree_node=False, default=1)


def encode(dictionary: Dictionary, x_BD: Float[Array, "B D"]) -> Float[Array, "B F"]:
    """Feature activations (non-negative)."""
    pre_BF = (x_BD - dictionary.b_dec_D) @ dictionary.w_enc_DF + dictionary.b_enc_F
    return jnp.where(top_k_mask(pre_BF, dictionary.k), jax.nn.relu(pre_BF), 0.0)


def decode(dictionary: Dictionary, z_BF: Float[Array, "B F"]) -> Float[Array, "B D"]:
    """Reconstructions."""
    return z_BF @ dictionary.w_dec_FD + dictionary.b_dec_D


def top_k_mask(values_BF: Float[Array, "B F"], k: int) -> Bool[Array, "B F"]:
    """True at the k largest of every row, exactly k also under ties (the lower index wins).

    A mask keeps the gradient elementwise; the transpose of a gather would be a scatter, slow and unordered on a GPU.
    """
    _, index_BK = jax.lax.top_k(jax.lax.stop_gradient(values_BF), k)
    rows_B1 = jnp.arange(values_BF.shape[0])[:, None]
    return jnp.zeros(values_BF.shape, bool).at[rows_B1, index_BK].set(True, unique_indices=True)
