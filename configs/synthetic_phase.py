"""Phase diagrams: when is a crowded block found atom by atom, when only as a subspace? Over its rank, atoms per rank, and firing rate.

Command:   python -m launch.main --config=configs/synthetic_phase.py --workdir=runs/synthetic_phase
Argument:  `:tiny` is the same in seconds, for tests; its figures mean nothing.

Worlds of width 64 with 128 free atoms (3 active) and one block of which 2 atoms are active whenever it is there; how often it is there
keeps the firing rate of its atoms what the diagram says. As many features as atoms, K = 5 = atoms active in every token.

  rank × atoms per rank   every block atom fires in 1 % of tokens
  rank × firing rate      4 atoms per rank

What should be seen: with more atoms per rank, and with rarer ones, the block's latents stop reappearing while its span is still found. Not yet measured
at full size: with four seeds and both starts it is estimated to take 40 minutes on two cores.
"""

import ml_collections

from configs import common

RANKS = (2, 3, 4, 8, 12)
PER_RANK = (2, 4, 8, 16)
RATES = (0.0025, 0.005, 0.01, 0.02, 0.04)


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = common.synthetic_grid()
    c.seeds = (4,)
    c.train.tokens = 3000 * 256
    ranks: tuple[int, ...] = RANKS
    per_rank: tuple[int, ...] = PER_RANK
    rates: tuple[float, ...] = RATES
    if arg == "tiny":
        common.tiny_grid(c)
        ranks, per_rank, rates = (2, 3), (2, 4), (0.02, 0.04)
    elif arg:
        raise ValueError(f"--config=configs/synthetic_phase.py:{arg}: the only argument is 'tiny'")
    for rank in ranks:
        for many in per_rank:
            _add(c, f"rank {rank} times {many}", {"rank": rank, "atoms per rank": many}, rank, many, 0.01)
    for rank in ranks:
        for rate in rates:
            _add(c, f"rank {rank} in {100 * rate:g} %".replace(".", "p"), {"rank": rank, "firing rate": rate}, rank, 4, rate)
    return c


def _add(c: ml_collections.ConfigDict, name: str, at: dict[str, float], rank: int, per_rank: int, rate: float) -> None:
    """A cell whose block atoms fire in a share `rate` of tokens."""
    atoms = rank * per_rank
    world = {"block_rank": rank, "block_atoms": atoms, "block_presence": rate * atoms / c.synthetic.block_active}
    n_features = c.synthetic.free_atoms + atoms
    c.cells[name] = {
        "at": at,
        "synthetic": world,
        "sae": {"n_features": n_features, "aux_k": min(c.sae.aux_k, 128 if n_features <= 256 else 192)},
    }
