import itertools

import numpy as np
import pytest

from activations.text.ngram import NgramModel

RNG = np.random.default_rng(0)
TRAIN = [RNG.integers(0, 4, n) for n in (60, 5, 1)]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one_after_every_history(order):
    model = NgramModel(TRAIN, vocab_size=6, start=0, order=order, discount=0.75)
    for history in itertools.product(range(6), repeat=2):
        p = [np.exp(-model.nll(np.array([*history, w]))[-1]) for w in range(6)]
        np.testing.assert_allclose(sum(p), 1.0, rtol=1e-12)
        assert min(p) > 0


def test_unigram_by_hand():
    model = NgramModel([np.array([1, 1, 2])], vocab_size=4, start=0, order=1, discount=0.5)
    uniform_mass = 0.5 * 2 / 3
    expected = [(2 - 0.5) / 3 + uniform_mass / 4, (1 - 0.5) / 3 + uniform_mass / 4, uniform_mass / 4]
    np.testing.assert_allclose(np.exp(-model.nll(np.array([1, 2, 3]))), expected)


def test_bigram_by_hand():
    """After 1 came 1 and 2, once each; the first token stands behind the start token 0."""
    unigram = NgramModel([np.array([1, 1, 2])], 4, 0, 1, 0.5)
    bigram = NgramModel([np.array([1, 1, 2])], 4, 0, 2, 0.5)
    p1 = np.exp(-unigram.nll(np.array([2])))[0]
    np.testing.assert_allclose(np.exp(-bigram.nll(np.array([1, 2])))[1], 0.5 / 2 + 0.5 * 2 / 2 * p1)


def test_bad_order():
    with pytest.raises(ValueError, match="order 4"):
        NgramModel(TRAIN, 6, 0, 4, 0.5)
