"""The rule of claim C5, on made-up SAEs of a world of known atoms."""

import numpy as np

from experiments.ground_truth import recovery, report
from experiments.reappearance.labels import LabelRule
from reports import claims
from synthetic.config import Recovery, WorldConfig
from synthetic.generator import make_truth
from tests.experiments.finished_run import FinishedRun

SEEDS = 6
WORLD = WorldConfig(width=64, free_atoms=60, free_active=3, block_rank=16, block_atoms=120, block_active=2)
BLOCK = 100  # latents in it


def verdict(rows, seeds=SEEDS, world=WORLD):
    """What the rule says of SAEs whose decoder rows `rows(truth, rng)` makes, on a plateau."""
    truth = make_truth(world)
    w_dec = np.stack([rows(truth, np.random.default_rng(seed)) for seed in range(seeds)]).astype(np.float32)
    figures = recovery.measure(Recovery(), LabelRule(), world, w_dec, np.ones(w_dec.shape[:2], bool))
    summary = {recovery._key(*place): e.as_dict() for place, e in figures.items()}
    (claim,) = claims.decide(report.CLAIMS, FinishedRun({"stability": {"seeds": list(range(seeds))}, "recovery": summary}), claims.Claims())
    return claim


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def free(truth, rng):
    """Latents that are the free atoms, a little off."""
    atoms = truth.atoms_AD[truth.group_A == 0]
    return unit(atoms + 0.02 * rng.normal(size=atoms.shape))


def anywhere_in_the_block(truth, rng):
    basis_DR = truth.bases[0]
    return unit(rng.normal(size=(BLOCK, basis_DR.shape[1])) @ basis_DR.T)


def atoms_of_the_block(truth, rng):
    return unit(rng.permutation(truth.atoms_AD[truth.group_A == 1])[:BLOCK] + 0.02 * rng.normal(size=(BLOCK, WORLD.width)))


def test_a_block_that_each_seed_fills_with_a_basis_of_its_own_is_a_yes():
    claim = verdict(lambda truth, rng: np.concatenate([free(truth, rng), anywhere_in_the_block(truth, rng)]))
    assert claim.holds == "yes", claim


def test_a_block_whose_atoms_are_all_found_is_a_no():
    # Latents differ in which atoms they are, so that some are unstable.
    claim = verdict(lambda truth, rng: np.concatenate([free(truth, rng), atoms_of_the_block(truth, rng)]))
    assert claim.holds == "no", claim


def test_unstable_latents_that_lie_anywhere_are_a_no():
    claim = verdict(
        lambda truth, rng: np.concatenate(
            [free(truth, rng), anywhere_in_the_block(truth, rng), unit(rng.normal(size=(3 * BLOCK, WORLD.width)))]
        )
    )
    assert claim.holds == "no", claim


def test_of_few_seeds_nothing_is_said():
    claim = verdict(lambda truth, rng: np.concatenate([free(truth, rng), anywhere_in_the_block(truth, rng)]), seeds=4)
    assert claim.holds == "undecided" and "4 seeds" in claim.because


def test_atoms_that_chance_finds_do_not_refute():
    """In a block of rank 3 a hundred directions anywhere meet most atoms at cosine 0.9: found or not, that says nothing."""
    narrow = WorldConfig(width=64, free_atoms=60, free_active=3, block_rank=3, block_atoms=40, block_active=1)
    claim = verdict(lambda truth, rng: np.concatenate([free(truth, rng), anywhere_in_the_block(truth, rng)]), world=narrow)
    assert claim.holds == "undecided", claim
