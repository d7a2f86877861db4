"""The streaming pass against a plain reference, whatever the batches."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpret import draws, statistics
from interpret.statistics import Accumulator, Places

N, F, V, TOP, SAMPLES = 200, 6, 9, 3, 4
RNG = np.random.default_rng(0)
Z_NF = np.where(RNG.random((N, F)) < 0.25, RNG.integers(1, 6, (N, F)) / 4, 0.0).astype(np.float32)  # with ties
Z_NF[:, 4] = 0
Z_NF[:, 5] = 1
LENGTHS = [1, 30, 7, 64, 20, 40, 3, 35]
CONTEXT_N = np.repeat(np.arange(len(LENGTHS)) * 3, LENGTHS)  # numbers with gaps: 0, 3, 6, …, even and odd
PLACES = Places(RNG.integers(0, V, N), CONTEXT_N, np.concatenate([np.arange(n) for n in LENGTHS]))


def run(cuts=(), features=range(F), z_NF=Z_NF, places=PLACES, vocabulary=V, **changes):
    taken = Accumulator(places, features, vocabulary, **({"contexts": TOP, "samples": SAMPLES} | changes))
    edges = [0, *sorted(cuts), len(z_NF)]
    for first, end in zip(edges[:-1], edges[1:], strict=True):
        taken.add(z_NF[first:end], first)
    return taken.result()


FOUND = run()


def test_counts_means_and_tables():
    fires = Z_NF > 0
    assert FOUND.rows == N and (FOUND.firings_F == fires.sum(0)).all()
    np.testing.assert_allclose(FOUND.firing_rate_F, fires.mean(0))
    for f in range(F):
        active = Z_NF[fires[:, f], f].astype(float)
        expected = (active.mean(), active.std(), active.max()) if len(active) else (0, 0, 0)
        found = (FOUND.mean_activation_F[f], FOUND.std_activation_F[f], FOUND.max_activation_F[f])
        np.testing.assert_allclose(found, expected, atol=1e-9)
        for v in range(V):
            here = PLACES.token_N == v
            assert FOUND.mass_FV[f, v] == pytest.approx(Z_NF[here, f].sum())
            for half in (0, 1):
                assert FOUND.count_HFV[half, f, v] == (fires[:, f] & here & (half == CONTEXT_N % 2)).sum()
                assert FOUND.row_count_HV[half, v] == (here & (half == CONTEXT_N % 2)).sum()


def test_profile_over_doubling_positions():
    assert FOUND.bin_start_T.tolist() == [0, 1, 2, 4, 8, 16, 32]
    ends = [*FOUND.bin_start_T[1:], 64]
    for t, (start, end) in enumerate(zip(FOUND.bin_start_T, ends, strict=True)):
        here = (PLACES.position_N >= start) & (PLACES.position_N < end)
        for f in (0, 5):
            assert FOUND.profile_FT[f, t] == pytest.approx((Z_NF[here, f] > 0).mean() / (Z_NF[:, f] > 0).mean())
    assert np.isnan(FOUND.profile_FT[4]).all()


def test_dispersion_is_that_of_counts_in_contexts():
    fires = Z_NF > 0
    for f in range(F):
        r = fires[:, f].mean()
        if r in (0, 1):
            assert np.isnan(FOUND.dispersion_F[f])
            continue
        n_c = np.array([fires[c == CONTEXT_N, f].sum() for c in np.unique(CONTEXT_N)])
        expected = np.square(n_c - r * np.array(LENGTHS)).sum() / (np.array(LENGTHS) * r * (1 - r)).sum()
        assert FOUND.dispersion_F[f] == pytest.approx(expected)


def test_bursts_are_told_from_independent_firings():
    rng, length, contexts = np.random.default_rng(1), 50, 400
    z = np.zeros((length * contexts, 2), np.float32)
    z[:, 0] = rng.random(len(z)) < 0.05
    z[:, 1] = np.repeat(rng.random(contexts) < 0.2, length) & (rng.random(len(z)) < 0.25)  # in some contexts alone
    places = Places(np.zeros(len(z), int), np.repeat(np.arange(contexts), length), np.tile(np.arange(length), contexts))
    found = run(z_NF=z, places=places, features=range(2), vocabulary=1)
    # Variance of a variance of 400 counts: √(2/400) = 0.07.
    assert abs(found.dispersion_F[0] - 1) < 0.25 < 5 < found.dispersion_F[1]


def test_top_contexts_are_the_strongest_row_of_each_and_of_equals_the_earlier():
    for f in range(F):
        best = []
        for c in np.unique(CONTEXT_N):
            rows = np.flatnonzero(c == CONTEXT_N)
            row = rows[np.argmax(Z_NF[rows, f])]
            best.append((-float(Z_NF[row, f]), int(row)))
        expected = [(row, -v) for v, row in sorted(best)[:TOP] if v < 0]
        expected += [(-1, 0.0)] * (TOP - len(expected))
        assert list(zip(FOUND.top_rows_FC[f].tolist(), FOUND.top_values_FC[f].tolist(), strict=True)) == expected


def test_samples_are_firing_rows_of_odd_contexts_without_repeats():
    odd = CONTEXT_N % 2 == 1
    for f in range(F):
        there = set(np.flatnonzero(odd & (Z_NF[:, f] > 0)).tolist())
        taken = [r for r in FOUND.sample_rows_FM[f].tolist() if r >= 0]
        assert len(taken) == len(set(taken)) == min(SAMPLES, len(there)) and set(taken) <= there


def test_samples_are_uniform():
    z = np.ones((60, 1), np.float32)
    places = Places(np.zeros(60, int), np.ones(60, int), np.arange(60))
    drawn = np.concatenate([run(z_NF=z, places=places, features=range(1), vocabulary=1, salt=s).sample_rows_FM[0] for s in range(1500)])
    counts = np.bincount(drawn, minlength=60)
    assert np.square(counts - 100).sum() / 100 < 115  # χ² of 59 degrees of freedom: 1 in 100,000 above


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(1, N - 1), max_size=12))
def test_batches_change_nothing(cuts):
    for name, value in run(cuts)._asdict().items():
        np.testing.assert_array_equal(value, getattr(FOUND, name), err_msg=name)


def test_blocks_of_features_are_parts_of_the_whole():
    parts = [run(features=of) for of in (range(2), range(2, F))]
    for name in ("firings_F", "dispersion_F", "mass_FV", "top_rows_FC", "sample_rows_FM", "profile_FT"):
        np.testing.assert_array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(FOUND, name))
    np.testing.assert_array_equal(np.concatenate([p.count_HFV for p in parts], axis=1), FOUND.count_HFV)


def test_what_does_not_fit_is_refused():
    taken = Accumulator(PLACES, range(F), V)
    with pytest.raises(ValueError, match="do not follow"):
        taken.add(Z_NF[5:9], 5)
    with pytest.raises(ValueError, match="0 of 200 rows"):
        taken.result()
    with pytest.raises(ValueError, match="negative or not finite"):
        taken.add(np.full((2, F), np.nan, np.float32), 0)
    with pytest.raises(ValueError, match="vocabulary"):
        Accumulator(PLACES, range(F), 3)
    with pytest.raises(ValueError, match="not of the same rows"):
        Accumulator(PLACES._replace(context_N=CONTEXT_N[:-1]), range(F), V)
    with pytest.raises(ValueError, match="contexts in order"):
        Accumulator(PLACES._replace(context_N=CONTEXT_N[::-1]), range(F), V)


def test_entropy_of_one_token_of_all_alike_and_of_none():
    entropy = statistics.token_entropy(np.array([[7, 0, 0, 0], [5, 5, 5, 5], [0, 0, 0, 0]]))
    assert entropy[0] == 0 and entropy[1] == pytest.approx(math.log(4)) and np.isnan(entropy[2])


def test_few_random_firings_have_a_low_entropy_which_their_null_knows():
    rows = np.full(500, 40)
    rng = np.random.default_rng(0)
    firings = np.array([1, 2, 50, 5000, 0])
    null = statistics.expected_entropy_of_random(rng, firings, rows, 50)
    assert null[0] == 0 and null[1] == pytest.approx(math.log(2), abs=0.03) and np.isnan(null[4])
    assert null[2] < math.log(50) < null[3] < math.log(500)
    drawn = np.stack([np.bincount(rng.choice(np.repeat(np.arange(500), rows), 50, replace=False), minlength=500) for _ in range(200)])
    assert null[2] == pytest.approx(statistics.token_entropy(drawn).mean(), abs=0.03)


def test_batches_do_not_change_a_bit_of_sums_of_any_floats():
    z = np.where(RNG.random((300, 3)) < 0.5, RNG.lognormal(size=(300, 3)), 0).astype(np.float32)
    places = Places(RNG.integers(0, 4, 300), np.arange(300) // 20, np.arange(300) % 20)
    whole = run(z_NF=z, places=places, features=range(3), vocabulary=4)
    for step in (1, 7, 299):
        cut = run(range(step, 300, step), z_NF=z, places=places, features=range(3), vocabulary=4)
        for name, value in whole._asdict().items():
            np.testing.assert_array_equal(getattr(cut, name), value, err_msg=name)


def test_a_feature_of_the_first_position_alone():
    z = (PLACES.position_N == 0).astype(np.float32)[:, None]
    found = run(z_NF=z, features=range(1))
    assert found.profile_FT[0, 0] == pytest.approx(N / len(LENGTHS)) and (found.profile_FT[0, 1:] == 0).all()


def test_the_hash_is_splitmix64():
    """First outputs for seed 1234567 as published with the generator's reference programs."""
    first = draws.splitmix64(np.arange(2), 1234567)
    assert first.tolist() == [6457827717110365317, 3203168211198807973]
