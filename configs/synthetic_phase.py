"""Phase diagrams: when is a crowded block found atom by atom, when only as a subspace? Over its rank, atoms per rank, and firing rate.

Command:   python -m launch.main --config=configs/synthetic_phase.py --workdir=runs/synthetic_phase
Argument:  `:tiny` is the same in seconds, for tests; its figures mean nothing.

Worlds of width 64 with 128 free atoms (3 active) and one block of which 2 atoms are active whenever it is there; how often it is there
keeps the firing rate of its atoms what the diagram says. As many features as atoms, K = 5 = atoms active in every token.

  rank × atoms per rank   every block atom fires in 1 % of tokens
  rank × firing rate      4 atoms per rank

What should be seen: with more atoms per rank, and with rarer ones, the block's latents stop reappearing while its span is still found.

Measured on two cores of an AMD EPYC, Python 3.11, jax 0.10.2 (November 2026), an editor and small tests beside it: 26 min 56 s (training 26 min, verdicts
51 s, report 3 s), 3.4 GiB. 4 seeds from each of three starts, 0.77 M tokens; 44 worlds in one program, one in another. Of the block, random
starts, means over seeds: p̂(0.9) / share of atoms found / overlap of the top-r plane with the planted one.

  rank   2 atoms a rank       4                    8                    16                   chance of p̂(0.9) and of finding an atom
   2     1.00 / 0.50 / 0.49   1.00 / 0.50 / 0.98   0.63 / 0.55 / 1.00   0.33 / 0.54 / 1.00   0.14 to 0.46
   3     0.54 / 0.50 / 0.68   1.00 / 0.58 / 0.94   0.82 / 0.32 / 1.00   0.67 / 0.44 / 1.00   0.10 to 0.26
   4     0.42 / 0.09 / 0.43   0.63 / 0.19 / 0.76   0.45 / 0.25 / 1.00   0.34 / 0.28 / 1.00   0.04 to 0.16
   8     0.58 / 0.00 / 0.38   0.45 / 0.01 / 0.63   0.28 / 0.06 / 0.95   0.20 / 0.13 / 1.00   up to 0.013
  12     0.50 / 0.04 / 0.38   0.33 / 0.03 / 0.83   0.15 / 0.07 / 0.95   0.16 / 0.13 / 0.99   up to 0.001

  rank   0.25 % of tokens     0.5 %                1 %                  2 %                  4 %
   2     0.67 / 0.19 / 0.49   1.00 / 0.50 / 0.98   1.00 / 0.50 / 0.98   0.92 / 0.53 / 0.99   0.92 / 0.59 / 0.99
   3     0.71 / 0.10 / 0.39   0.47 / 0.19 / 0.69   1.00 / 0.58 / 0.94   0.72 / 0.56 / 0.96   0.47 / 0.40 / 0.98
   4     0.67 / 0.06 / 0.25   0.44 / 0.03 / 0.55   0.63 / 0.19 / 0.76   0.60 / 0.36 / 1.00   0.79 / 0.58 / 1.00
   8     0.17 / 0.02 / 0.28   0.55 / 0.01 / 0.43   0.45 / 0.01 / 0.63   0.30 / 0.09 / 0.92   0.62 / 0.31 / 0.98
  12     0.21 / 0.00 / 0.32   0.38 / 0.02 / 0.54   0.33 / 0.03 / 0.83   0.38 / 0.16 / 0.95   0.58 / 0.50 / 0.98

Verdicts over rank × atoms per rank: 3 identified, 9 optimisation, 2 degenerate ties (rank 3 and 4 with 16 atoms a rank), 1 where the objective prefers
another basis (rank 12 with 16), 5 undecided; over rank × rate: 3 identified, 22 optimisation. Intervals over four seeds are wide (a block of rank 2 and 4
atoms has few latents): read rows and columns, not single cells.

What it says. The crowding half of the expectation is met: at rank 4 and above p̂ falls with atoms per rank, to 0.16 at rank 12, while the span is found
ever better. The rarity half is met for atoms and not as expected for the span: below 1 % of tokens atoms are not found, and neither is the span of a block that has
fewer latents than dimensions; p̂ hardly follows the rate. And where there are few atoms a rank, latents differ since training has not ended there: SAEs
started at the truth keep its atoms and explain 0.02 to 0.04 more of the variance. Only with 16 atoms a rank, from rank 3 on, does the truth stop being worth holding.
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
