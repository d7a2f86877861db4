"""Many small worlds at once: which cells share a compiled program, and how their SAEs begin."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from launch.roster import HELD, RANDOM, Cell, Member
from saes.assembly import NEVER
from saes.lanes import LanePlan, initial_keys
from saes.step import TrainState
from synthetic.generator import SyntheticStream, Truth
from synthetic.oracle import fitted_encoder, rows_at_truth

FEATURES_STEP = 256  # cells whose dictionary sizes lie in the same so many share a program; the smaller are padded
FIT_ROWS = 16_384  # tokens on which the oracle's encoder is fitted


def groups(config: Any) -> list[Any]:
    """The study cut into studies whose cells share one program: equal but for worlds, learning rate, K and dictionary size."""
    found: dict[Any, list[Any]] = {}
    for cell in config.cells:
        same = [v for k, v in (vars(cell.sae) | vars(cell.train)).items() if k not in ("n_features", "k", "lr")]
        found.setdefault((-(-cell.sae.n_features // FEATURES_STEP), *same), []).append(cell)
    out = []
    for cells in found.values():
        features, k = (max(getattr(c.sae, field) for c in cells) for field in ("n_features", "k"))
        sae = dataclasses.replace(cells[0].sae, n_features=features, k=k)
        of_group = {"cells": tuple(cells), "synthetic": cells[0].synthetic, "sae": sae, "train": cells[0].train}
        out.append(dataclasses.replace(config, **of_group, contrasts=(), reference="", tuned_on=()))
    return out


def start(
    state: TrainState, cells: Sequence[Cell], members: Sequence[Member], plan: LanePlan, streams: Sequence[Any], source: Any, scale: float
) -> TrainState:
    """The first state with padding silenced, and with SAEs that start at the truth put there.

    Padding never fires and never counts as dead. At the truth every decoder row is an atom (a random direction where there are more
    features than atoms), the encoder is fitted to the atoms' codes by least squares, and the decoder's bias is 0; held rows are those that are atoms.

    Args:
      members, streams: SAEs of the round and what each is trained on.
      source: its truths and the energies of their atoms.
      scale: of the activations in training.
    """
    f = state.params.w_dec_FD.shape[1]
    w_enc, b_enc, w_dec, b_dec, idle = (
        np.array(a) for a in (*jax.device_get([getattr(state.params, n) for n in ("w_enc_DF", "b_enc_F", "w_dec_FD", "b_dec_D")]), state.idle_steps_F)
    )  # fmt: skip
    rate_SF1 = np.ones((*w_dec.shape[:2], 1), np.float32)
    for lane, m in enumerate(plan.members):
        member, cell = members[m], cells[members[m].cell]
        n = cell.n_features or f
        if cell.start != RANDOM:
            key = initial_keys(np.array([member.init_seed]))[0]
            rows_FD, encoder_DF, bias_F, atom_F = _at_truth(
                key, source.truths[cell.world], source.energies[cell.world], streams[m], n, scale
            )
            w_dec[lane, :n], w_enc[lane, :, :n], b_enc[lane, :n], b_dec[lane] = rows_FD, encoder_DF, bias_F, 0.0
            if cell.start == HELD:
                rate_SF1[lane, :n, 0] = atom_F < 0
        b_enc[lane, n:], idle[lane, n:] = NEVER, -(2**30)
    put = lambda new, old: jax.device_put(jnp.asarray(new), old.sharding)
    p = state.params
    params = p.replace(
        w_enc_DF=put(w_enc, p.w_enc_DF), b_enc_F=put(b_enc, p.b_enc_F), w_dec_FD=put(w_dec, p.w_dec_FD), b_dec_D=put(b_dec, p.b_dec_D)
    )
    knobs = state.knobs.replace(decoder_rate=put(rate_SF1, state.knobs.decoder_rate))
    return state.replace(params=params, knobs=knobs, idle_steps_F=put(idle, state.idle_steps_F))


def _at_truth(
    key: jax.Array, truth: Truth, energy_G: tuple[float, ...], stream: SyntheticStream, n_features: int, scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(decoder rows, encoder, its bias, the atom that each row is)."""
    rows_FD, atom_F = rows_at_truth(key, truth, n_features, energy_G)
    x_ND, codes_NA = scale * stream.rows(0, FIT_ROWS), scale * stream.codes(0, FIT_ROWS)
    held = atom_F >= 0
    encoder_DF, bias_F = rows_FD.T.copy(), np.zeros(n_features, np.float32)
    encoder_DF[:, held], bias_F[held] = fitted_encoder(x_ND, codes_NA[:, atom_F[held]])
    return rows_FD, encoder_DF, bias_F, atom_F
