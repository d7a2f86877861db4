"""The rule of claim C6, on SAEs of which it is known what they share."""

import numpy as np
import pytest

from experiments.pooling import products, report
from experiments.pooling.methods import LONGER
from experiments.pooling.pools import SINGLE, Pooling
from experiments.pooling.products import EXPLAINED, LIVE, Products
from experiments.pooling.scoring import DictionaryScore
from reports import claims
from tests.experiments.dictionaries import unit

F, D, THETA = 240, 96, 0.7
POOLING = Pooling()
HEADLINE, TUNED = POOLING.headline, f"{SINGLE}, tuned"
COMMON = unit(F, D, rng=np.random.default_rng(7))  # directions that every SAE may find
GROUPS = ("one", "other", "group-3", "group-4", "group-5")


def score(rows, explained, silent=0):
    """An SAE with these rows, the last so many of which never fire."""
    rate = np.where(np.arange(len(rows)) < len(rows) - silent, 0.01, 0.0)
    return DictionaryScore(0, rows, rate > 0, rate, np.zeros((2, len(rows)), bool), explained, 16.0, silent / len(rows))


def saes(seed, count, share, explained=0.855, spread=0.001, vary=0.0):
    """SAEs that have a share of the common directions, and directions of their own instead of the others."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        own = rng.permutation(F) >= F * (share + vary * rng.normal())
        made.append(score(np.where(own[:, None], unit(F, D, rng=rng), COMMON), explained + spread * rng.normal()))
    return made


def study(pool, long=None, tuned=None, single=None):
    """Products by method; by default long SAEs share 0.5² of their features, at 0.855 of the variance."""
    long = saes(1, 5, 0.5, 0.855) if long is None else long
    tuned = saes(2, len(pool), 0.45) if tuned is None else tuned
    single = saes(3, 5, 0.45) if single is None else single
    return {
        HEADLINE: Products(pool, GROUPS[: len(pool)]),
        LONGER: Products(long, tuple(f"long {i}" for i in range(len(long)))),
        TUNED: Products(tuned, GROUPS[: len(tuned)]),
        SINGLE: Products(single, tuple(f"SAE {i}" for i in range(len(single)))),
    }


def independent(by_method, spent=None):
    rotate = lambda s: s._replace(unit_MD=unit(s.features, D, rng=np.random.default_rng(s.features + int(1e6 * s.explained))))
    figures = products.measure({name: p for name, p in by_method.items() if p.scores}, THETA, F, rotate)
    return products.summary(figures, POOLING, spent or {HEADLINE: 100, LONGER: 100}, 0.95)


def verdict(by_method, spent=None):
    """What the rule says of these products."""
    figures = {"l0": {"value": 16.0}, "features": {"value": F}}
    pooled = {
        "headline": HEADLINE,
        "headline_measured": True,
        "group": 8,
        "seeds": {"one": list(range(8))},
        "methods": {HEADLINE: figures, SINGLE: figures},
        "independent products": independent(by_method, spent),
    }
    run = type("Run", (), {"summary": {"pooled": pooled}})()
    (claim,) = claims.decide(report.CLAIMS, run, claims.Claims())
    return claim


def test_pools_that_share_more_than_all_that_their_compute_buys_are_more_stable():
    claim = verdict(study(saes(0, 3, 0.95)))
    assert claim.holds == "yes" and "3 pools of 8 SAEs" in claim.measured and "trained longer, 5 SAEs" in claim.measured


@pytest.mark.parametrize(
    "by_method",
    [
        study(saes(0, 5, 0.5)),  # no more than SAEs trained as long share
        study(saes(0, 3, 0.95), tuned=saes(2, 3, 0.97)),  # training on alike gives it too
        study(saes(0, 3, 0.95, explained=0.83)),
        study(saes(0, 3, 0.95), long=saes(1, 5, 0.5, 0.88)),  # explained variance of the best competitor counts
    ],
)
def test_pools_that_do_not_are_not(by_method):
    assert verdict(by_method).holds == "no"


@pytest.mark.parametrize(
    ("by_method", "reason"),
    [
        (study(saes(0, 2, 0.95)), "2 independent pools, config.claims.c6_groups=3; 2 single SAE, tuned, config.claims.c6_groups=3"),
        (study(saes(0, 3, 0.95), long=saes(1, 4, 0.5, 0.855)), "4 SAEs trained longer, config.claims.c6_long=5"),
        (study(saes(0, 3, 0.95), long=[]), "0 SAEs trained longer"),
        (study(saes(0, 3, 0.95), tuned=[]), "0 single SAE, tuned"),
        (study(saes(0, 3, 0.75, vary=0.15)), "over trained longer: undecided"),  # pools differ too much
        (study(saes(0, 3, 0.95, spread=0.02)), "explained variance over trained longer: undecided"),
    ],
)
def test_too_little_to_tell(by_method, reason):
    claim = verdict(by_method)
    assert claim.holds == "undecided" and reason in claim.because


def test_sae_trained_for_less_compute_is_no_competitor():
    """Such a remedy beats a single SAE by far, as the rule had asked before; SAEs trained as long do as well."""
    by_method = study(saes(0, 3, 0.9), long=saes(1, 5, 0.9, 0.855), single=saes(3, 5, 0.5))
    less = independent(by_method)["less"][SINGLE]
    assert less[LIVE]["low"] > 0.2 and less[EXPLAINED]["low"] > -0.01
    assert verdict(by_method).holds == "no"


def test_sae_that_saw_fewer_tokens_is_not_trained_as_long():
    claim = verdict(study(saes(0, 3, 0.95)), {HEADLINE: 100, LONGER: 50})
    assert claim.holds == "undecided" and "not equal compute" in claim.because


def killed(explained=0.855):
    """All but a few common directions never fire: of the live ones nothing is unstable."""
    rng = np.random.default_rng(0)
    return [
        score(np.concatenate([COMMON[: F // 3], unit(F - F // 3, D, rng=rng)]), explained + 0.001 * i, silent=F - F // 3) for i in range(3)
    ]


def removed():
    """The same, without those features."""
    return [score(COMMON[: F // 3], 0.855 + 0.001 * i) for i in range(3)]


def merged():
    """All features are nearly one of a few common directions."""
    rng = np.random.default_rng(0)
    near = lambda rows: rows + 0.01 * rng.normal(size=rows.shape).astype(np.float32)
    normalised = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return [score(normalised(near(np.repeat(COMMON[: F // 3], 3, axis=0))).astype(np.float32), 0.855 + 0.001 * i) for i in range(3)]


@pytest.mark.parametrize("pool", [killed(), removed(), merged()])
def test_features_that_are_killed_or_merged_are_no_stability(pool):
    """p̂ over live features is 1, as the rule had asked before; of all features a third is shared."""
    by_method = study(pool, long=saes(1, 5, 0.6, 0.855), tuned=saes(2, 3, 0.6, 0.855))
    of_products = independent(by_method)
    assert of_products["less"][LONGER][LIVE]["low"] > 0.1 and of_products["methods"][HEADLINE][LIVE]["value"] == pytest.approx(1)
    assert of_products["methods"][HEADLINE]["all"]["value"] == pytest.approx(1 / 3)
    assert verdict(by_method).holds == "no"


def test_products_that_agree_by_chance_decide_nothing():
    """In a plane all directions are near each other."""
    rng = np.random.default_rng(0)
    plane = lambda count: [
        score(np.pad(unit(F, 2, rng=rng), ((0, 0), (0, D - 2))).astype(np.float32), 0.86 + 0.001 * rng.normal()) for _ in range(count)
    ]
    by_method = study(plane(3))
    of_products = products.measure(by_method, THETA, F, lambda s: s)
    assert of_products[HEADLINE].nulls[LIVE] > 0.9
