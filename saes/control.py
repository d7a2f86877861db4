"""What an SAE carries along training beside its parameters: the coefficient of its penalty and its threshold for inference.

The penalised variants have no K.  A proportional-integral controller on the logarithm of the coefficient λ holds their L0 at a
target, which falls from where training begins to K over the warm-up (geometrically), so that neither a coefficient guessed
wrong nor the dense start winds the integral up:

    e_t = log(L0_t / target_t), clipped to ±1        I_{t+1} = I_t + rate · e_t        λ_t = warm-up_t · exp(I_t + gain · e_t)

The integral stays within a factor of 10⁴ of where it began, so that a target out of reach does not carry λ to infinity.  With
rate and gain 0 the coefficient is fixed.
"""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float

from saes.autoencoder import Knobs, LossParts
from saes.config import SAEConfig
from saes.dictionary import Leaf

MOST = 1e4  # how far the controller may carry the coefficient from the first one, as a factor


class Control(flax.struct.PyTreeNode):
    """Scalars, or with a leading seed axis.

    Attributes:
      log_sparsity: the integral I.
      error: e of the step before.
      threshold: moving average of the smallest activation kept, in the scale of training.
    """

    log_sparsity: Leaf
    error: Leaf
    threshold: Leaf


def init(knobs: Knobs) -> Control:
    return Control(log_sparsity=jnp.log(jnp.maximum(knobs.sparsity, 1e-12)), error=jnp.float32(0.0), threshold=jnp.float32(0.0))


def sparsity(control: Control, config: SAEConfig, progress: Float[Array, ""]) -> Float[Array, ""]:
    """λ of the coming step; `progress` is the share of the penalty's warm-up that lies behind, at most 1."""
    return progress * jnp.exp(control.log_sparsity + config.control_gain * control.error)


def update(control: Control, config: SAEConfig, knobs: Knobs, parts: LossParts, progress: Float[Array, ""]) -> Control:
    """After a step: the error, its integral, the moving average (which follows the batches directly during the warm-up)."""
    dense = config.n_features / 2.0  # what symmetric pre-activations give before training
    target = knobs.k * (dense / knobs.k) ** (1.0 - progress)
    error = jnp.clip(jnp.log(jnp.maximum(parts.l0, 1e-3) / target), -1.0, 1.0)
    decay = jnp.where(progress < 1.0, 0.0, config.threshold_decay)
    start, span = jnp.log(jnp.maximum(knobs.sparsity, 1e-12)), jnp.log(MOST)
    return Control(
        log_sparsity=jnp.clip(control.log_sparsity + config.control_rate * error, start - span, start + span),
        error=error,
        threshold=decay * control.threshold + (1.0 - decay) * parts.smallest,
    )
