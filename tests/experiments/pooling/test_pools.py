"""Pools and their judges, on SAEs of which it is known what they share."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from configs import pool as pool_config
from experiments import registry
from experiments.data import dictionary_list
from experiments.pooling import curve_points, finetune, pooled, pools, publish, scoring
from experiments.pooling import pool as pool_stage
from experiments.pooling.methods import Judges, Method, Table
from experiments.pooling.pool import Which
from experiments.pooling.pools import MEANS, MEMBERS, RANDOM, SPAN, STABLE, Pooling, Recipe
from experiments.reappearance.labels import LabelRule
from experiments.subspaces.atlas import Atlas, rules_of
from saes.config import SAEConfig
from saes.dictionary import decode, encode
from stability.similarity import unit_rows
from stability.subspaces import span_overlap
from storage import files
from tests.experiments.dictionaries import listed, unit
from tests.experiments.tasks import task

S, F, D, SHARED, RANK, K = 6, 34, 32, 12, 11, 4
SETTINGS = registry.validated(pool_config.get_config("tiny"))
RULE = SETTINGS[LabelRule]
THETA = 0.8
RULES = rules_of(SETTINGS[Atlas], RULE, D)


def rule_at(theta=RULE.theta):
    """Labels of features that fire on few of the few rows that there are here."""
    return dataclasses.replace(RULE, rare_firings=5, theta=theta)


def pooled_task(rule, **changes):
    """The stage `pooled` with other labels, and with changes in how features are pooled."""
    pooling = dataclasses.replace(SETTINGS[Pooling], **changes)
    return registry.task_of("pooled", SETTINGS.replaced(rule, pooling), epath.Path("nowhere"))


def material_of(seed=0, s=S):
    """SAEs that share 12 features and have 22 of their own each in one plane of rank 11; tokens are made of both. (material, plane, shared)."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(D, D)))[0].astype(np.float32)
    shared, plane = basis[:SHARED], basis[SHARED : SHARED + RANK]
    own = lambda: unit(F - SHARED, RANK, rng=rng) @ plane
    listing = listed([np.concatenate([shared, own()])[rng.permutation(F)] for _ in range(s)], k=K)
    codes = np.maximum(rng.normal(size=(2048, SHARED)) - 0.5, 0)
    rows = (codes @ shared + 0.5 * rng.normal(size=(2048, RANK)) @ plane).astype(np.float32)
    return pools.make_material(listing, rows, rule_at(THETA), RULES), plane, shared


MATERIAL, PLANE, SHARED_ROWS = material_of()
ALL = tuple(range(S))


def made(kind, places=ALL, features=F, theta=THETA, of=MATERIAL):
    return pools.make(of, places, Recipe(kind, theta, features, RANK), float(K))


def rows_of(found):
    return np.asarray(unit_rows(found.dictionary.w_dec_FD))


def test_what_rows_share_by_chance_is_the_null(study):
    _, of, groups, judges, table = study
    single = pooled._single(judges, of, groups)
    e = table.estimate(single, "p")
    rotated = [judges.rotate(j) for side in single.whole for j in side]
    assert e.null == pytest.approx(np.mean([j.hits_GM.mean() for j in rotated])) and e.null < e.value / 3
    assert table.estimate(single, "between").null < 0.2 and table.estimate(single, "explained").null == 0.0


def test_what_all_seeds_share_comes_first():
    found = made(MEMBERS)
    assert found.p_M[:SHARED].tolist() == [1.0] * SHARED and found.members_M[:SHARED].tolist() == [S] * SHARED
    nearest = (rows_of(found)[:SHARED] @ SHARED_ROWS.T).max(1)
    np.testing.assert_allclose(nearest, 1, atol=1e-5)
    cosine = rows_of(found) @ rows_of(found).T
    assert cosine[~np.eye(len(cosine), dtype=bool)].max() < THETA
    for s, f, row in zip(found.seed_M, found.feature_M, rows_of(found), strict=True):
        np.testing.assert_allclose(MATERIAL.units[s][f], row, atol=1e-6)


def test_stable_features_alone_are_what_is_shared():
    found = made(STABLE)
    assert len(found.seed_M) == SHARED == found.unique
    np.testing.assert_allclose((rows_of(found) @ SHARED_ROWS.T).max(1), 1, atol=1e-5)


def test_a_span_stands_for_the_unstable():
    found = made(SPAN)
    basis = rows_of(found)[SHARED:]
    assert basis.shape == (2 * RANK, D) and (found.seed_M[SHARED:] == -1).all() and np.isnan(found.p_M[SHARED:]).all()
    np.testing.assert_allclose(basis[:RANK] @ basis[:RANK].T, np.eye(RANK), atol=1e-5)
    np.testing.assert_allclose(basis[RANK:], -basis[:RANK], atol=1e-6)
    assert span_overlap(basis[:RANK].T, PLANE.T) > 0.999
    x = jnp.asarray(MATERIAL.rows_ND)
    # Its directions are active for what the stable features leave, so that more is explained.
    error = lambda d: float(jnp.square(x - decode(d, encode(d, x))).sum())
    assert error(jax.device_put(found.dictionary)) < 0.9 * error(jax.device_put(made(STABLE).dictionary))


def test_subspaces_that_are_found_take_the_place_of_the_leading_directions():
    """A plane of rank 3, which each seed fills with its own features, far from the others: its basis, whatever `span_rank` says."""
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.normal(size=(D, D)))[0].astype(np.float32)
    shared, plane = basis[:SHARED], basis[SHARED : SHARED + 3]
    listing = listed([np.concatenate([shared, unit(20, 3, rng=rng) @ plane]) for _ in range(S)], k=K)
    rows = (np.maximum(rng.normal(size=(2048, SHARED)) - 0.5, 0) @ shared + 0.5 * rng.normal(size=(2048, 3)) @ plane).astype(np.float32)
    of = pools.make_material(listing, rows, rule_at(0.98), RULES._replace(min_rank=2, duplicate_cosine=0.98))
    found = made(SPAN, theta=0.98, of=of)
    assert found.ranks == (3,) and len(found.seed_M) == SHARED + 6
    assert span_overlap(rows_of(found)[SHARED : SHARED + 3].T, plane.T) > 0.999
    assert made(SPAN).ranks == ()  # none where nothing ends sharply enough


def test_the_order_of_the_seeds_changes_nothing():
    for kind in (MEMBERS, MEANS, RANDOM, STABLE, SPAN):
        one, other = made(kind), made(kind, ALL[::-1])
        for name in ("w_enc_DF", "b_enc_F", "w_dec_FD", "b_dec_D"):
            np.testing.assert_allclose(getattr(one.dictionary, name), getattr(other.dictionary, name), atol=1e-5, err_msg=f"{kind} {name}")


def test_copies_of_one_sae_are_its_own_features_once():
    one = MATERIAL.dictionaries[0]
    listing = listed([one.w_dec_FD] * 3, k=K)
    listing = listing._replace(dictionaries=(one,) * 3)
    of = pools.make_material(listing, MATERIAL.rows_ND, RULE, RULES)
    found = made(MEMBERS, (0, 1, 2), of=of, features=3 * F)
    features = sorted(found.feature_M.tolist())
    assert len(set(features)) == len(features) == found.unique <= F and (found.p_M == 1).all()
    at = found.feature_M
    np.testing.assert_array_equal(found.dictionary.w_dec_FD, one.w_dec_FD[at])
    np.testing.assert_array_equal(found.dictionary.w_enc_DF, one.w_enc_DF[:, at])
    # Whoever was left out is within θ of one that was taken, or does not fire.
    left = [f for f in range(F) if f not in features and of.live_SF[0, f]]
    assert all((of.units[0][f] @ rows_of(found).T).max() >= THETA for f in left)


def test_more_room_than_features_is_said():
    found = made(MEMBERS, features=10_000)
    assert len(found.seed_M) == found.unique < S * F
    few = made(MEMBERS, features=5)
    assert len(few.seed_M) == 5 and few.unique == found.unique


def test_judges_and_held_out_tokens_have_no_part_in_a_pool():
    """Whoever is not pooled may be anything."""
    dictionaries, units = list(MATERIAL.dictionaries), list(MATERIAL.units)
    for s in (3, 4, 5):
        dictionaries[s] = dataclasses.replace(
            dictionaries[s], w_dec_FD=unit(F, D, rng=np.random.default_rng(s)), b_dec_D=np.ones(D, np.float32)
        )
        units[s] = dictionaries[s].w_dec_FD
    best, live, rate = MATERIAL.best_SSF.copy(), MATERIAL.live_SF.copy(), MATERIAL.rate_SF.copy()
    best[3:], best[:, 3:], live[3:], rate[3:] = 0.1, 0.1, False, 9.0
    changed = MATERIAL._replace(dictionaries=tuple(dictionaries), units=tuple(units), best_SSF=best, live_SF=live, rate_SF=rate)
    for kind in pools.KINDS:
        one, other = made(kind, (0, 1, 2)), made(kind, (0, 1, 2), of=changed)
        np.testing.assert_array_equal(one.dictionary.w_dec_FD, other.dictionary.w_dec_FD)
        np.testing.assert_array_equal(one.dictionary.w_enc_DF, other.dictionary.w_enc_DF)


@pytest.mark.parametrize("architecture", ["jumprelu", "gated", "standard"])
def test_every_architecture_can_be_pooled(architecture):
    def changed(d):
        more = {"threshold_F": np.full(F, 0.3, np.float32)} if architecture == "jumprelu" else {}
        more |= {"r_mag_F": np.zeros(F, np.float32), "b_mag_F": d.b_enc_F} if architecture == "gated" else {}
        return dataclasses.replace(d, architecture=architecture, k=0, **more)

    of = MATERIAL._replace(dictionaries=tuple(changed(d) for d in MATERIAL.dictionaries))
    for kind in pools.KINDS:
        found = made(kind, of=of)
        x = jnp.asarray(MATERIAL.rows_ND)
        assert float((encode(jax.device_put(found.dictionary), x) > 0).sum(1).mean()) == pytest.approx(K, abs=0.1)


def test_no_pool_where_there_is_nothing_for_it():
    nothing = MATERIAL._replace(live_SF=np.zeros_like(MATERIAL.live_SF))
    assert made(STABLE, of=nothing) is None and made(MEMBERS, of=nothing) is None


def test_groups_do_not_overlap_and_leave_judges():
    of = pools.groups(21, 8)
    assert of.one + of.other + of.fresh == tuple(range(21)) and len(of.fresh) == 5
    with pytest.raises(ValueError, match="17 SAEs: 2 groups .* of 8 .* are 18"):
        pools.groups(17, 8)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seeds", (7,)), ("pool.headline", "pool of mean, tuned"), ("pool.group", 2), ("pool.theta", 0.0), ("pool.sizes", (3,)), ("pool.span_rank", 16),
        ("pool.tuned", ("stable features",)), ("pool.rows", 10**7), ("pool.decoder_rate", 1.5), ("pool.held_tokens", -1),
        ("pool.theta", 1.0), ("pool.thetas", (0.6, 0.6)), ("pool.eval_rows", 99), ("stability.dictionaries", "elsewhere/dictionaries.json"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_named(field, value):
    c = pool_config.get_config("tiny")
    c.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=f"config.{field}="):
        registry.validated(c)


def judged(dictionaries, judges):
    return scoring.judge(dictionaries, judges, MATERIAL.rows_ND, THETA, 5)


def test_judges_find_what_they_share():
    one, other = judged(MATERIAL.dictionaries[:2], MATERIAL.units[4:])
    shared = (MATERIAL.units[0] @ SHARED_ROWS.T).max(1) > 0.999
    assert one.hits_GM.shape == (2, F) and one.hits_GM[:, shared].all() and one.live_M[shared].all()
    by_hand = np.stack([(MATERIAL.units[0] @ u.T).max(1) >= THETA for u in MATERIAL.units[4:]])
    np.testing.assert_array_equal(one.hits_GM, by_hand)
    a, b = MATERIAL.units[0][one.live_M], MATERIAL.units[1][other.live_M]
    expected = (((a @ b.T).max(1) >= THETA).mean() + ((b @ a.T).max(1) >= THETA).mean()) / 2
    assert scoring.overlap(one, other, THETA) == pytest.approx(expected) and scoring.overlap(one, one, THETA) == 1.0
    x = jnp.asarray(MATERIAL.rows_ND)
    d = jax.device_put(MATERIAL.dictionaries[0])
    z = encode(d, x)
    left = float(jnp.square(x - decode(d, z)).sum() / jnp.square(x - x.mean(0)).sum())
    assert one.explained == pytest.approx(1 - left, rel=1e-4) and one.l0 == pytest.approx(float((z > 0).sum(1).mean()))


def test_the_mean_of_reconstructions_against_brute_force():
    whole, without = scoring.explained_by_means(MATERIAL.dictionaries[:3], MATERIAL.rows_ND)
    x = jnp.asarray(MATERIAL.rows_ND)
    made_ = [decode(d, encode(d, x)) for d in jax.device_put(list(MATERIAL.dictionaries[:3]))]
    ev = lambda parts: float(1 - jnp.square(x - sum(parts) / len(parts)).sum() / jnp.square(x - x.mean(0)).sum())
    assert whole == pytest.approx(ev(made_), rel=1e-5)
    assert without == pytest.approx([ev([p for j, p in enumerate(made_) if j != i]) for i in range(3)], rel=1e-5)
    bag = scoring.bag(judged(MATERIAL.dictionaries[:2], MATERIAL.units[4:]), 0.5)
    assert bag.features == 2 * F and bag.explained == 0.5 and bag.hits_GM.shape == (2, 2 * F)


@pytest.fixture(scope="module")
def study():
    """Two groups of 3 and 4 that judge."""
    of = material_of(1, 10)[0]
    pooling = pooled_task(rule_at(), group=3, sizes=())
    groups = pools.groups(10, 3)
    judges = Judges(pooling, of, groups, of.rows_ND)
    return pooling, of, groups, judges, Table(pooling, judges, groups)


def test_a_pool_is_more_stable_than_a_single_sae_where_seeds_share_something(study):
    pooling, of, groups, judges, table = study
    single = pooled._single(judges, of, groups)
    recipe = Recipe(STABLE, THETA, F, RANK)
    pool = pooled._pool(pooling, judges, of, groups, STABLE, recipe, 3)
    assert table.estimate(pool, "p").value == table.estimate(pool, "between").value == 1.0
    assert table.estimate(pool, "features").value == SHARED and table.estimate(single, "features").value == F
    p = table.estimate(single, "p")
    by_hand = np.mean([judges([of.dictionaries[s]])[0].hits_GM.mean() for s in (*groups.one, *groups.other)])
    assert p.value == pytest.approx(by_hand) and p.low <= p.value <= p.high and p.n.number == 10 and p.null < 0.05
    difference = table.difference(pool, single, "p")
    assert difference.value == pytest.approx(1 - p.value) and difference.low > 0
    assert table.difference(pool, single, "between").low > 0


def test_intervals_are_of_each_group_and_of_the_judges(study):
    pooling, of, groups, judges, table = study
    single = pooled._single(judges, of, groups)
    members = [*groups.one, *groups.other]
    hits = np.stack([judges([of.dictionaries[s]])[0].hits_GM.mean(1) for s in members])  # (pooled, judges)
    variance = 0.0
    for stratum in (groups.one, groups.other, groups.fresh):
        values = []
        for k in stratum:
            keep, judge = np.array([s != k for s in members]), np.array([s != k for s in groups.fresh])
            values.append(np.mean([hits[:3][keep[:3]][:, judge].mean(), hits[3:][keep[3:]][:, judge].mean()]))
        variance += (len(values) - 1) / len(values) * np.sum((np.array(values) - np.mean(values)) ** 2)
    e = table.estimate(single, "p")
    half = (e.high - e.low) / 2
    assert 1.96 * np.sqrt(variance) < half < 4.31 * np.sqrt(variance)  # t between 2 and infinitely many degrees of freedom
    assert table.estimate(single, "explained").n.number == 6  # who judges has no part in it


def test_nothing_of_one_pool_is_taken_for_another(study):
    """Figures are kept by what they are of, not by where it lay in memory."""
    pooling, of, groups, judges, table = study
    make = lambda theta: pooled._pool(pooling, judges, of, groups, MEMBERS, Recipe(MEMBERS, theta, F, RANK), 3)
    first = [table.estimate(make(theta), "between").value for theta in (0.6, 0.9, 0.6, 0.75, 0.6)]
    assert first[0] == first[2] == first[4]
    again = [scoring.overlap(a, b, judges._theta) for m in [make(0.75)] for a in m.whole[0] for b in m.whole[1]]
    assert first[3] == pytest.approx(np.mean(again))


def test_what_was_trained_once_has_an_interval_over_groups_or_judges(study):
    _, of, groups, judges, table = study
    a, b = judges([of.dictionaries[0], of.dictionaries[3]])
    once = Method("trained longer", ([a], [b]), {}, None, False, False)
    e = table.estimate(once, "explained")
    assert e.n.of == "groups" and (e.high - e.low) / 2 == pytest.approx(12.7062 * abs(a.explained - b.explained) / 2, rel=1e-3)
    assert table.estimate(once, "p").n.number == 4 and table.estimate(once, "between").low is None


def test_smaller_pools_are_made_of_disjoint_parts(study):
    pooling, of, groups, judges, table = study
    m = pooled._pool(pooling, judges, of, groups, MEMBERS, Recipe(MEMBERS, THETA, F, RANK), 1)
    assert [len(side) for side in m.whole] == [3, 3] and not m.repeated  # of one SAE nothing is left without it
    assert table.estimate(m, "p").n.number == 4
    pooling = pooled_task(rule_at(), group=4, sizes=())
    groups = pools.groups(10, 4)
    judges = Judges(pooling, of, groups, of.rows_ND)
    m = pooled._pool(pooling, judges, of, groups, MEMBERS, Recipe(MEMBERS, THETA, F, RANK), 2)
    assert [[set(made.seed_M) for made in side] for side in m.pools] == [[{0, 1}, {2, 3}], [{4, 5}, {6, 7}]]
    assert m.repeated and set(m.leave_one_out) == set(range(8)) and all(len(m.leave_one_out[k][k // 4]) == 2 for k in m.leave_one_out)
    assert (
        m.leave_one_out[5][0] is m.whole[0] and m.leave_one_out[5][1][1] is m.whole[1][1] and m.leave_one_out[5][1][0] is not m.whole[1][0]
    )


def test_curves_are_trained_on_where_something_is_varied_and_there_is_room():
    c, f = SETTINGS[Pooling], SETTINGS[SAEConfig].n_features
    c = dataclasses.replace(
        c, group=4, theta=THETA, sizes=(2, 4), thetas=(0.6, THETA), features=(), headline="pool of means, tuned", curves=True
    )
    on = curve_points.trained_on(c, f)
    assert [p.name for p in on] == ["sizes-2", "thetas-0.6", f"features-{f // 4}", f"features-{f // 2}"]
    assert {p.recipe.kind for p in on} == {MEANS} and [p.size for p in on] == [2, 4, 4, 4] and on[1].recipe.theta == 0.6
    assert [p.recipe.features for p in curve_points.points(c, f, MEMBERS, curve_points.FEATURES)] == [f // 4, f // 2, f, 2 * f]
    for other in ({"headline": "stable features"}, {"headline": "pool of means, decoder held"}, {"curves": False}):
        assert not curve_points.trained_on(dataclasses.replace(c, **other), f)


def test_nothing_of_a_span_is_what_is_there_already():
    """The others lean towards one stable feature, so that the leading direction of their span is nearly that one."""
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.normal(size=(D, D)))[0].astype(np.float32)
    shared, towards = basis[:SHARED], basis[0]

    def own():
        rest = unit(F - SHARED, D - SHARED, rng=rng) @ basis[SHARED:]
        return (0.6 * towards + 0.8 * rest).astype(np.float32)

    rows = (np.maximum(rng.normal(size=(2048, SHARED)) - 0.5, 0) @ shared + 0.3 * rng.normal(size=(2048, D))).astype(np.float32)
    of = pools.make_material(listed([np.concatenate([shared, own()]) for _ in range(S)], k=K), rows, rule_at(THETA), RULES)
    found = made(SPAN, of=of)
    unit_MD = rows_of(found)
    stable = found.seed_M >= 0
    assert stable.sum() == SHARED and (~stable).sum() == 2 * (RANK - 1)
    assert np.abs(unit_MD[~stable] @ unit_MD[stable].T).max() < THETA


def test_a_pool_that_was_not_finite_in_training_takes_nothing_else_along(tmp_path, monkeypatch):
    """Of three dictionaries the second is frozen: the others keep their own names."""
    folder = epath.Path(tmp_path) / "finetune"
    which = [Which(MEANS, "one"), Which(MEANS, "other"), Which(MEANS, "one", point="features-2")]
    files.write_json(folder / "summary.json", {"held": [[*w, size] for w, size in zip(which, (F, F, 2), strict=True)]})
    frozen = listed([MATERIAL.units[0], MATERIAL.units[2]], k=K)._replace(seeds=(0, 2), frozen=(1,))
    monkeypatch.setattr(dictionary_list, "load", lambda path, **_: frozen)
    left = finetune.read(folder, "held")
    assert list(left) == [which[0], which[2]] and left[which[2]].w_dec_FD.shape[0] == 2 and left[which[2]].k == 2 and left[which[0]].k == K
    np.testing.assert_array_equal(left[which[2]].w_dec_FD, MATERIAL.units[2][:2])


def test_a_longer_sae_that_was_not_finite_is_left_out(study, monkeypatch, capsys):
    pooling, _, _, judges, _ = study
    usable = {"longer": listed(MATERIAL.units[:1], k=K), "wider": listed(MATERIAL.units[:2], k=K)}
    monkeypatch.setattr(dictionary_list, "load", lambda path, **_: usable[path.parent.parent.name])
    assert [m.name for m in pooled._others(pooling, judges)] == ["wider"]
    assert "trained longer: an SAE was not finite in training" in capsys.readouterr().out


@pytest.mark.interop
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [MEANS, SPAN])
def test_saelens_loads_a_pool_as_its_card_says(tmp_path, kind):
    import torch
    from sae_lens import SAE

    found = made(kind)
    (judged_,) = judged([found.dictionary], MATERIAL.units[4:])
    of = task("pooled", pool_config.get_config("tiny"))
    metadata = pool_stage.metadata(of, {"path": "models/m", "layer": 1, "site": "resid_post"}, kind, [0, 1], THETA) | {
        "after_pooling": "calibrated"
    }
    publish.write(epath.Path(tmp_path), found.dictionary, metadata, judged_, found, publish.Card(kind, of, {}, {}))
    x = MATERIAL.rows_ND[:256]
    with torch.no_grad():
        theirs = SAE.load_from_disk(str(tmp_path), device="cpu")
        z = theirs.encode(torch.asarray(x))
        rebuilt = theirs.decode(z)
        z = z.to_dense() if z.is_sparse else z
    ours = encode(found.dictionary, jnp.asarray(x))
    assert (np.asarray(ours) > 0).any()
    np.testing.assert_allclose(ours, z, atol=1e-5)
    np.testing.assert_allclose(decode(found.dictionary, ours), rebuilt, atol=1e-5)


def test_every_kind_of_pool_has_words_for_its_card():
    assert set(publish.ORIGINS) == set(pools.KINDS)
