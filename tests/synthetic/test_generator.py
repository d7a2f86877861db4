import dataclasses

import jax
import numpy as np
import pytest

from configs import common
from synthetic.config import WorldConfig, common_shape
from synthetic.generator import PIECE, SyntheticStream, draw_codes, make_truth, make_world, tokens

SMALL = dataclasses.replace(
    WorldConfig(**dict(common.synthetic_study().synthetic)),
    width=20, free_atoms=15, free_active=3, blocks=2, block_rank=3, block_atoms=10, block_active=2,
)  # fmt: skip


def world(**changes):
    c = dataclasses.replace(SMALL, **changes)
    truth = make_truth(c)
    return c, truth, make_world(c, truth)


def codes(n=4000, seed=0, **changes):
    c, _, w = world(**changes)
    return np.asarray(draw_codes(c.shape(), w, jax.random.key(seed), n))


def test_atoms_are_unit_and_lie_where_they_should():
    _, truth, _ = world()
    np.testing.assert_allclose(np.linalg.norm(truth.atoms_AD, axis=1), 1.0)
    assert np.bincount(truth.group_A).tolist() == [15, 10, 10]
    for b, basis in enumerate(truth.bases, start=1):
        np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
        inside = np.linalg.norm(truth.atoms_AD @ basis, axis=1)
        np.testing.assert_allclose(inside[truth.group_A == b], 1.0)
        np.testing.assert_allclose(inside[truth.group_A != b], 0.0, atol=1e-12)
    _, anywhere, _ = world(orthogonal=False)
    assert np.linalg.norm(anywhere.atoms_AD[:15] @ anywhere.bases[0], axis=1).min() > 0.01
    _, whole, _ = world(block_rank=0, orthogonal=False)
    assert np.linalg.matrix_rank(whole.atoms_AD[15:25]) == 10


def test_every_token_holds_exactly_its_atoms_of_every_group():
    found = codes() > 0
    for (first, last), active in zip(SMALL.shape().groups(), (3, 2, 2), strict=True):
        assert (found[:, first:last].sum(1) == active).all()


def test_codes_are_uniform_and_scaled_in_blocks():
    drawn = codes(20_000, block_magnitude=0.5)
    for columns, scale in ((slice(0, 15), 1.0), (slice(15, 35), 0.5)):
        values = drawn[:, columns][drawn[:, columns] > 0] / scale
        assert 0.5 <= values.min() < 0.51 and 1.49 < values.max() <= 1.5
        np.testing.assert_allclose([values.mean(), values.std()], [1.0, 1 / 12**0.5], atol=0.01)


def test_half_normal_codes_have_their_moments():
    drawn = codes(20_000, code_law="half-normal")
    assert ((drawn > 0).sum(1) == 7).all()
    values = drawn[:, :15][drawn[:, :15] > 0]
    np.testing.assert_allclose([values.mean(), np.square(values).mean()], [(2 / np.pi) ** 0.5, 1.0], atol=0.015)
    assert values.max() > 3.0


def test_firing_is_uniform_or_falls_by_zipfs_law():
    n = 40_000
    flat = (codes(n) > 0).mean(0)
    np.testing.assert_allclose(flat[:15], 3 / 15, atol=4 * (0.2 * 0.8 / n) ** 0.5)
    one = (codes(n, zipf=1.0, free_active=1, block_active=1) > 0).mean(0)
    weight = 1 / np.arange(1, 16)
    np.testing.assert_allclose(one[:15], weight / weight.sum(), atol=0.012)
    several = (codes(n, zipf=1.0) > 0).mean(0)[:15]
    assert (np.diff(several) < 0.01).all() and several[0] > 2 * several[-1]


def test_neighbours_fire_along_and_codes_share_a_part():
    alone, along = codes(8000), codes(8000, coactivation=0.8)
    with_left = lambda z: (z[z[:, 4] > 0][:, 5] > 0).mean()
    assert with_left(alone) < 0.25 and 0.75 < with_left(along) < 0.9
    assert (along[:, 16] > 0).mean() > (alone[:, 16] > 0).mean()
    own = codes(4000, code_correlation=0.9)[:, :15]
    first, second = np.array([row[row > 0][:2] for row in own]).T
    assert np.corrcoef(first, second)[0, 1] > 0.9
    first, second = np.array([row[row > 0][:2] for row in alone[:, :15]]).T
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_tokens_are_atoms_times_codes_and_noise():
    c, truth, w = world(noise=0.0)
    stream = SyntheticStream(c.shape(), w, seed=3)
    x, z = stream.rows(0, 300), stream.codes(0, 300)
    assert z.shape == (300, 35) and ((z > 0).sum(1) == 7).all()
    np.testing.assert_allclose(x, z @ truth.atoms_AD, atol=1e-5)
    noisy = SyntheticStream(c.shape(), world(noise=0.5)[2], seed=3).rows(0, 300)
    np.testing.assert_allclose((noisy - x).std(), 0.5, rtol=0.05)


def test_a_place_is_an_integer_and_nothing_is_stored():
    c, _, w = world()
    stream = SyntheticStream(c.shape(), w, seed=1)
    whole = stream.rows(0, 3 * PIECE)
    assert whole.dtype == np.float32
    for start, count in ((0, 5), (PIECE - 2, 4), (700, 600), (2 * PIECE, PIECE)):
        assert (stream.rows(start, count) == whole[start : start + count]).all()
    assert (SyntheticStream(c.shape(), w, seed=2).rows(0, 5) != whole[:5]).all()
    assert (stream.rows(10**9, 3) == SyntheticStream(c.shape(), w, seed=1).rows(10**9, 3)).all()


def test_a_world_of_few_tokens_goes_over_them_again_and_again():
    c, _, w = world()
    endless, few = SyntheticStream(c.shape(), w, seed=1), SyntheticStream(c.shape(), w, seed=1, tokens=700)
    for draw in (lambda s, *place: s.rows(*place), lambda s, *place: s.codes(*place)):
        first = draw(endless, 0, 700)
        assert (draw(few, 0, 700) == first).all()
        assert (draw(few, 690, 720) == np.concatenate([first[690:], first, first[:10]])).all()


def test_worlds_of_different_size_are_padded_to_one_program_and_stay_what_they_are():
    """Groups of other sizes, an absent block: same codes exactly, same tokens to rounding, one trace."""
    cells = [world(seed=s, **change) for s, change in ((0, {}), (5, {"block_atoms": 6, "free_active": 1}), (2, {"block_presence": 0.5}))]
    shape = common_shape([c for c, _, _ in cells])
    assert shape.atoms == (15, 10, 10) and shape.most == (7, 2, 2)
    before = tokens._cache_size()
    padded = [SyntheticStream(shape, make_world(c, truth, shape), seed=4) for c, truth, _ in cells]
    drawn = [(p.codes(100, 50), p.rows(100, 50)) for p in padded]
    assert tokens._cache_size() - before <= 1
    for (codes_NA, x_ND), (c, _, alone) in zip(drawn, cells, strict=True):
        own = SyntheticStream(c.shape(), alone, seed=4)
        assert (codes_NA == own.codes(100, 50)).all()
        np.testing.assert_allclose(x_ND, own.rows(100, 50), atol=1e-5)
    with pytest.raises(ValueError, match="config.cells: synthetic.width"):
        common_shape([SMALL, dataclasses.replace(SMALL, width=21)])


def test_free_atoms_take_the_place_of_an_absent_block():
    n = 20_000
    found = codes(n, block_presence=0.25) > 0
    assert (found.sum(1) == 7).all()
    blocks = np.stack([found[:, 15:25].sum(1), found[:, 25:].sum(1)])
    assert set(np.unique(blocks)) == {0, 2}
    share = (blocks > 0).mean(1)
    np.testing.assert_allclose(share, 0.25, atol=4 * (0.25 * 0.75 / n) ** 0.5)
    assert abs(np.corrcoef(*blocks)[0, 1]) < 0.03
    c = dataclasses.replace(SMALL, block_presence=0.25)
    assert c.block_rate == pytest.approx(0.05) and c.active == 7
    np.testing.assert_allclose(found[:, 15:].mean(0), c.block_rate, atol=5 * (0.05 / n) ** 0.5)
    np.testing.assert_allclose(found[:, :15].mean(0), (3 + 2 * 0.75 * 2) / 15, atol=0.015)


def test_moments_meet_their_closed_forms():
    """E x = Σ ρ μ m g; Cov x of one group of n atoms of which k are active: E a² ρ Σ g gᵀ + pairs, less the mean's square."""
    n = 60_000
    c, truth, w = world(noise=0.1)
    x = SyntheticStream(c.shape(), w, seed=0).rows(0, n).astype(np.float64)
    magnitude = np.where(truth.group_A > 0, 0.7, 1.0)
    rate = np.array([0.2, 0.2, 0.2])[truth.group_A]
    pair = np.zeros((35, 35))
    for g, (size, active) in enumerate(((15, 3), (10, 2), (10, 2))):
        inside = truth.group_A == g
        pair[np.ix_(inside, inside)] = active * (active - 1) / (size * (size - 1)) - (active / size) ** 2
    second = np.outer(magnitude, magnitude) * pair
    np.fill_diagonal(second, magnitude**2 * (rate * (1 + 1 / 12) - rate**2))
    mean = (rate * magnitude) @ truth.atoms_AD
    covariance = truth.atoms_AD.T @ second @ truth.atoms_AD + 0.01 * np.eye(20)
    np.testing.assert_allclose(x.mean(0), mean, atol=5 * (np.diag(covariance).max() / n) ** 0.5)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.01)


def test_the_mean_follows_presence_and_a_common_part_narrows_the_law():
    n = 40_000
    c, truth, w = world(block_presence=0.4, code_correlation=0.6, noise=0.0)
    stream = SyntheticStream(c.shape(), w, seed=2)
    rate = np.array([(3 + 0.6 * 2 * 2) / 15, 0.4 * 0.2, 0.4 * 0.2])[truth.group_A]
    magnitude = np.where(truth.group_A > 0, 0.7, 1.0)
    x, z = stream.rows(0, n), stream.codes(0, n)
    np.testing.assert_allclose(x.mean(0), (rate * magnitude) @ truth.atoms_AD, atol=0.03)
    free = z[:, :15][z[:, :15] > 0]
    np.testing.assert_allclose([free.mean(), free.var()], [1.0, (0.6**2 + 0.4**2) / 12], atol=0.005)
    assert c.energies == pytest.approx((rate[0], rate[20] * 0.49, rate[20] * 0.49))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("width", 1), ("free_active", 16), ("block_active", 11), ("block_rank", 11), ("block_rank", 10), ("code_low", 0.0), ("code_low", 2.0),
        ("block_magnitude", 0.0), ("block_presence", 0.0), ("block_presence", 1.1), ("coactivation", 1.1), ("noise", -0.1), ("block_rank", 0),
        ("block_rank", 1), ("code_law", "normal"), ("tokens", -1),
    ],
)  # fmt: skip
def test_worlds_that_cannot_be_name_the_field(field, value):
    named = "orthogonal" if (field, value) in (("block_rank", 10), ("block_rank", 0)) else field  # no room, and not one block too large
    with pytest.raises(ValueError, match=f"config.synthetic.{named}="):
        dataclasses.replace(SMALL, **{field: value})
    with pytest.raises(ValueError, match="config.synthetic.block_atoms=0: none in 2 blocks"):
        dataclasses.replace(SMALL, block_atoms=0, block_active=0)


def test_worlds_of_other_seeds_are_other_subjects():
    assert WorldConfig(seed=0).subject != WorldConfig(seed=1).subject
