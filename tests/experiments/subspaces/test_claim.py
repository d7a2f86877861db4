"""The rule of claim C4, on decoder rows of which the truth is known."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.reappearance.labels import LabelRule
from experiments.subspaces import report, subspace
from reports import claims
from tests.experiments.finished_run import FinishedRun
from tests.stability import planted

D, SEEDS, UNSTABLE, STABLE = 32, 8, 120, 60
CONFIG = subspace.Subspace(ranks=(2, 4, 8), headline_rank=4, subsamples=6, min_features=20)


def sets_of(make_unstable, rng, intermediate=120):
    """(S, F, D) rows of every seed: unstable ones, stable ones that all seeds share, and others; the columns of features.parquet."""
    stable, between = planted.anywhere(rng, STABLE, D), [planted.anywhere(rng, intermediate, D) for _ in range(SEEDS)]
    rows = np.stack([planted.unit(np.concatenate([make_unstable(), stable, between[s]])) for s in range(SEEDS)]).astype(np.float32)
    labels = np.array(["unstable"] * UNSTABLE + ["stable"] * STABLE + ["intermediate"] * intermediate)
    count = len(labels)
    grid = np.indices((SEEDS, count))
    rate = np.random.default_rng(3).lognormal(size=(SEEDS, count))
    features = {
        "seed": grid[0].ravel(), "feature": grid[1].ravel(), "label": np.tile(labels, SEEDS), "stratum": np.full(SEEDS * count, "live"),
        "firing_rate": rate.ravel(), "energy": rate.ravel() ** 2,
    }  # fmt: skip
    return rows, features


def verdict(rows, features, gaussian, acts, config=CONFIG):
    measured = subspace.measure(config, LabelRule(), rows, features, tuple(range(SEEDS)), acts, gaussian)
    summary = {"not_measured": measured} if isinstance(measured, str) else json.loads(json.dumps(measured[0]))
    stability = {
        "seeds": list(range(SEEDS)), "live_stable_features": {"value": SEEDS * STABLE}, "live_unstable_features": {"value": SEEDS * UNSTABLE},
    }  # fmt: skip
    run = FinishedRun({"subspace": summary, "stability": stability})
    (claim,) = claims.decide(report.CLAIMS, run, claims.Claims())
    return claim


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def anywhere(rng, count=4, n=150):
    return [planted.anywhere(rng, n, D).astype(np.float32) for _ in range(count)]


def test_a_plane_of_unstable_features_that_seeds_share_is_a_yes(rng):
    plane = np.linalg.qr(rng.normal(size=(D, 6)))[0]
    rows, features = sets_of(lambda: planted.filled(rng, plane, UNSTABLE, jitter=0.3), rng)
    claim = verdict(rows, features, anywhere(rng), rng.normal(size=(2000, D)))
    assert claim.holds == "yes", claim


def test_unstable_features_that_lie_anywhere_are_a_no(rng):
    rows, features = sets_of(lambda: planted.anywhere(rng, UNSTABLE, D), rng)
    cloud = np.linalg.qr(rng.normal(size=(D, D)))[0][:, :6]
    biased = [planted.filled(rng, cloud, 150, jitter=0.1).astype(np.float32) for _ in range(4)]
    claim = verdict(rows, features, biased, rng.normal(size=(2000, D)))
    assert claim.holds == "no" and "lower effective rank than SAEs on Gaussian activations: no" in claim.because, claim


def test_too_few_features_or_a_null_that_is_not_there_leave_it_undecided(rng):
    plane = np.linalg.qr(rng.normal(size=(D, 6)))[0]
    rows, features = sets_of(lambda: planted.filled(rng, plane, UNSTABLE, jitter=0.3), rng)
    acts = rng.normal(size=(2000, D))
    assert (
        verdict(rows, features, anywhere(rng), acts, CONFIG.__class__(ranks=(4,), headline_rank=4, min_features=200)).holds == "undecided"
    )
    without = verdict(rows, features, None, acts)
    assert without.holds == "undecided" and "not there to be held against: SAEs on Gaussian activations" in without.because


def test_the_shape_of_the_activations_is_not_taken_for_a_shared_subspace(rng):
    """All features follow the activations' covariance. Random live features, most of which are unstable, are then as good, and better than chance; so are PCA
    and SAEs trained on Gaussian activations of that covariance, which decide."""
    scale = np.exp(-np.arange(D) / 6)
    cloud = lambda n: planted.unit(rng.normal(size=(n, D)) * scale)
    rows, features = sets_of(lambda: cloud(UNSTABLE), rng)
    gaussian = [cloud(150).astype(np.float32) for _ in range(4)]
    claim = verdict(rows, features, gaussian, rng.normal(size=(4000, D)) * scale)
    assert claim.holds != "yes", claim


def test_fewer_features_against_a_null_than_in_each_set_lose_no_figure(rng):
    """What the plateau asks for where intermediate features are few: half of the others are fewer than the stable ones."""
    rows, features = sets_of(lambda: planted.anywhere(rng, UNSTABLE, D), rng, intermediate=10)
    measured = lambda config: subspace.measure(config, LabelRule(), rows, features, tuple(range(SEEDS)), None, anywhere(rng))[0]
    first = measured(CONFIG)
    assert first["fewest_against_a_null"] == 35 < first["features_per_set"] == STABLE
    again = measured(dataclasses.replace(CONFIG, most_features=STABLE, most_against_nulls=35))
    assert first.keys() == again.keys() and again["features_against_nulls"] == 35
    assert again["effective_rank_gaussian_minus_unstable"]["value"] is not None


def test_a_null_below_the_headline_rank_bounds_nothing(rng):
    config = subspace.Subspace(ranks=(2, 30), headline_rank=30, subsamples=2, min_features=20)
    rows, features = sets_of(lambda: planted.anywhere(rng, UNSTABLE, D), rng, intermediate=0)
    features["energy"][features["label"] == "unstable"] *= 1e3  # of that, there is nothing to match
    rows, features = (
        rows[:, : UNSTABLE + 50],
        {name: column.reshape(SEEDS, -1)[:, : UNSTABLE + 50].ravel() for name, column in features.items()},
    )
    first = subspace.measure(config, LabelRule(), rows, features, tuple(range(SEEDS)), None, anywhere(rng))[0]
    assert first["fewest_against_a_null"] == UNSTABLE and "matched frequency features of another seed" not in first["overlap_over"]


@pytest.mark.parametrize(("field", "value"), [("most_features", 19), ("most_against_nulls", 3)])
def test_bounds_below_what_is_measured_at_all_are_refused(field, value):
    with pytest.raises(ValueError, match=f"config.subspace.{field}={value}: 0, or at least {value + 1}"):
        dataclasses.replace(CONFIG, **{field: value}).check()
