"""Phase diagrams: when is a crowded block found atom by atom, when only as a subspace? Over its rank, atoms per rank, and firing rate.

Command:   python -m launch.main --config=configs/synthetic_phase.py --workdir=runs/synthetic_phase
Argument:  `:tiny` is the same in seconds, for tests; its figures mean nothing.

Worlds of width 64 with 128 free atoms (3 active) and one block of which 2 atoms are active whenever it is there; how often it is there
keeps the firing rate of its atoms what the diagram says. As many features as atoms, K = 5 = atoms active in every token.

  rank × atoms per rank   every block atom fires in 1 % of tokens
  rank × firing rate      4 atoms per rank

What should be seen: with more atoms per rank, and with rarer ones, the block's latents stop reappearing while its span is still found.

Measured on two cores of an AMD EPYC, Python 3.11, jax 0.10.2 (November 2026): 46 min 28 s on one of them, another study on the other (39 min of processor time); a run of
the same size took 26 min 56 s with little beside it. 3.5 GiB. 4 seeds from each of three starts, 0.77 M tokens; 44 worlds in one program, one in another. Of the block,
random starts, means over seeds: p̂(0.9) / share of atoms found / overlap of the top-r plane with the planted one (chosen alike, uniform directions give 0.17 to 0.73).

  rank   2 atoms a rank       4                    8                    16                   chance of p̂(0.9) and of finding an atom
   2     1.00 / 0.50 / 0.49   1.00 / 0.50 / 0.98   0.63 / 0.53 / 1.00   0.33 / 0.55 / 1.00   0.14 to 0.46
   3     0.71 / 0.50 / 0.56   0.64 / 0.46 / 0.86   0.72 / 0.30 / 1.00   0.64 / 0.46 / 1.00   0.10 to 0.27
   4     1.00 / 0.00 / 0.49   0.63 / 0.19 / 0.78   0.32 / 0.25 / 1.00   0.31 / 0.29 / 1.00   0.04 to 0.16
   8     0.53 / 0.03 / 0.40   0.50 / 0.01 / 0.63   0.19 / 0.06 / 0.96   0.20 / 0.13 / 0.99   up to 0.013
  12     0.57 / 0.03 / 0.35   0.41 / 0.05 / 0.79   0.17 / 0.08 / 0.93   0.18 / 0.12 / 0.99   up to 0.001

  rank   0.25 % of tokens     0.5 %                1 %                  2 %                  4 %
   2     0.67 / 0.19 / 0.49   1.00 / 0.47 / 0.98   1.00 / 0.50 / 0.98   0.92 / 0.53 / 0.99   0.92 / 0.59 / 0.99
   3     0.29 / 0.08 / 0.40   0.40 / 0.12 / 0.61   0.64 / 0.46 / 0.86   0.72 / 0.58 / 0.95   0.50 / 0.38 / 0.99
   4     0.22 / 0.05 / 0.21   0.83 / 0.08 / 0.55   0.63 / 0.19 / 0.78   0.60 / 0.36 / 1.00   0.46 / 0.45 / 1.00
   8     0.17 / 0.02 / 0.27   0.57 / 0.01 / 0.42   0.50 / 0.01 / 0.63   0.31 / 0.13 / 0.94   0.61 / 0.32 / 0.98
  12     0.26 / 0.00 / 0.30   0.31 / 0.02 / 0.54   0.41 / 0.05 / 0.79   0.40 / 0.15 / 0.96   0.59 / 0.51 / 0.97

Verdicts. Most cells are not judged: up to rank 4 chance is too high, and a block of few or rare atoms has fewer than five latents a seed. Where there is something to judge, rank 8 and 12: with
16 atoms a rank, and at rank 8 with 8, the objective prefers another basis (3 cells); with fewer, and at every rate from 0.5 % (rank 12) or 1 % (rank 8) on, it is optimisation (10 entries; SAEs that start at the
truth keep 0.46 to 1.00 of its atoms and explain 0.10 to 0.38 more of the variance inside the block).

What it says. The crowding half of the expectation is met: from rank 4 on p̂ falls with atoms per rank, to 0.18 at rank 12, while the span is found ever better. The rarity half is met
for atoms and not as expected for the span: below 1 % of tokens atoms are not found, and neither is the span of a block that has fewer latents than dimensions; p̂ hardly follows the rate. Instability of
uncrowded blocks here is training that has not ended; only crowding makes the truth a worse basis than what is found. Intervals over four seeds are wide: read rows and columns, not single cells.
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
