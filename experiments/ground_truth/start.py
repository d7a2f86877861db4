"""Where the SAEs of a grid begin: as initialised, or at the atoms of their world."""

from collections.abc import Sequence

import jax
import numpy as np

from activations.stream import Stream
from experiments.data.sources import SyntheticSource
from experiments.ground_truth.cells import HELD, RANDOM
from experiments.training import given
from experiments.training.given import Given
from experiments.training.population import Member, Population
from experiments.training.train import Start
from saes.lanes import LanePlan, initial_keys
from saes.step import TrainState
from synthetic.generator import SyntheticStream, Truth
from synthetic.oracle import fitted_encoder, rows_at_truth

FIT_ROWS = 16_384  # tokens on which the oracle's encoder is fitted


def at_truth(who: Population, source: SyntheticSource) -> Start:
    """The first state of a round: SAEs of cells that start at the truth are put there.

    There every decoder row is an atom (a random direction where there are more features than atoms), the encoder is fitted to the atoms' codes by least
    squares, and the decoder's bias is 0; held rows are those that are atoms.
    """

    def start(state: TrainState, plan: LanePlan, members: Sequence[Member], streams: Sequence[Stream], scale: float) -> TrainState:
        starts = [_given(who, source, m, stream, scale) for m, stream in zip(members, streams, strict=True)]
        return given.place(state, plan, starts)

    return start


def _given(who: Population, source: SyntheticSource, member: Member, stream: Stream, scale: float) -> Given:
    cell = who.cells[member.cell]
    n = cell.n_features or who.sae.n_features
    every = np.ones(n, np.float32)
    if cell.start == RANDOM:
        return Given(n, {}, every)
    assert isinstance(stream, SyntheticStream)
    key = initial_keys(np.array([member.init_seed]))[0]
    parameters, atom_F = _parameters(key, source.truths[cell.world], source.energies[cell.world], stream, n, scale)
    return Given(n, parameters, (atom_F < 0).astype(np.float32) if cell.start == HELD else every)


def _parameters(
    key: jax.Array, truth: Truth, energy_G: tuple[float, ...], stream: SyntheticStream, n_features: int, scale: float
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(parameters, the atom that each row is)."""
    rows_FD, atom_F = rows_at_truth(key, truth, n_features, energy_G)
    x_ND, codes_NA = scale * stream.rows(0, FIT_ROWS), scale * stream.codes(0, FIT_ROWS)
    is_atom_F = atom_F >= 0
    encoder_DF, bias_F = rows_FD.T.copy(), np.zeros(n_features, np.float32)
    encoder_DF[:, is_atom_F], bias_F[is_atom_F] = fitted_encoder(x_ND, codes_NA[:, atom_F[is_atom_F]])
    parameters = {"w_dec_FD": rows_FD, "w_enc_DF": encoder_DF, "b_enc_F": bias_F, "b_dec_D": np.zeros(rows_FD.shape[1], np.float32)}
    return parameters, atom_F
