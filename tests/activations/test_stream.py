import numpy as np
import pytest

from activations.order import ShuffledOrder
from activations.stream import StoredStream, gaussian_like, half_of_documents

DOCUMENT = np.repeat([0, 1, 2, 4, 5], [3, 2, 4, 1, 5])
ROWS = np.arange(15.0)[:, None].astype(np.float32)


def test_halves_are_disjoint_and_together_everything():
    halves = [half_of_documents(DOCUMENT, h) for h in (0, 1)]
    seen = []
    for half, ranges in enumerate(halves):
        size = len(ranges)
        stream = StoredStream(lambda rows: ROWS[rows], ShuffledOrder(size, 0), ranges)
        rows = stream.rows(0, size)[:, 0].astype(int)
        assert (DOCUMENT[rows] % 2 == half).all()
        seen += rows.tolist()
    assert sorted(seen) == list(range(15))


def test_one_document_has_no_halves():
    with pytest.raises(ValueError, match=r"config.train.halves"):
        half_of_documents(np.zeros(4, int), 1)


def test_a_stored_stream_is_its_order():
    stream = StoredStream(lambda rows: ROWS[rows], ShuffledOrder(15, 2, 3, 6))
    assert (stream.rows(11, 17)[:, 0] == ShuffledOrder(15, 2, 3, 6).rows(11, 17)).all()


def test_gaussian_rows_have_the_mean_and_covariance_and_nothing_else():
    rng = np.random.default_rng(0)
    x = rng.exponential(size=(20_000, 4)) @ rng.normal(size=(4, 4)) + [1, 2, 3, 4]
    drawn = gaussian_like(x, seed=5).rows(0, 60_000)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(x.T), atol=0.15)
    centred = (drawn - drawn.mean(0)) / drawn.std(0)
    assert np.abs((centred**3).mean(0)).max() < 0.05 < np.abs((((x - x.mean(0)) / x.std(0)) ** 3).mean(0)).max()


def test_gaussian_rows_depend_on_place_and_seed_alone():
    x = np.random.default_rng(0).normal(size=(100, 3))
    stream = gaussian_like(x, seed=1)
    whole = stream.rows(0, 9000)
    assert (stream.rows(4000, 500) == whole[4000:4500]).all() and (stream.rows(8191, 2) == whole[8191:8193]).all()
    assert (gaussian_like(x, seed=2).rows(0, 10) != whole[:10]).any()


def test_a_constant_direction_stays_constant():
    x = np.random.default_rng(0).normal(size=(100, 3))
    x[:, 1] = 7.0
    np.testing.assert_allclose(gaussian_like(x, seed=0).rows(0, 50)[:, 1], 7.0, atol=1e-5)
