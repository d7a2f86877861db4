"""What features do for reconstruction and prediction, on SAEs of which it is known."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import tqdm

from activations.language_model.placement import Placement
from activations.text.contexts import Contexts
from configs import common
from experiments.ablation import function, function_tables, patching, removal, splice
from experiments.reappearance import feature_sets
from experiments.reappearance.feature_sets import RANDOM, STABLE, UNSTABLE, Features
from experiments.reappearance.seed_values import Values
from saes import moments
from saes.dictionary import Dictionary
from stability import transfer
from tests.activations.language_model.test_decoder import SMALL, params_of
from tests.experiments.dictionaries import listed, unit
from tests.experiments.tasks import task

S, F, D = 6, 40, 64
SHARED = 20  # features that all seeds have; the others are each seed's own basis of one subspace in which tokens are weaker


def stage(name, **changes):
    """A stage of a study with changes in the section of the same name."""
    config = common.study()
    config[name].update(changes)
    return task(name, config)


STUDY = stage("function")


def of_seeds(seed=0):
    """(SAEs, tokens, what the stage `stability` would say of them)."""
    rng = np.random.default_rng(seed)
    shared, plane = np.split(np.linalg.qr(rng.normal(size=(D, F)))[0].T, 2)
    turned = lambda: np.linalg.qr(rng.normal(size=(SHARED, SHARED)))[0] @ plane
    saes = listed([np.concatenate([shared, turned()]) for _ in range(S)], k=8).dictionaries
    codes = 3 * np.maximum(rng.normal(size=(4000, SHARED)) - 1, 0)
    acts = (codes @ shared + 0.3 * rng.normal(size=(4000, SHARED)) @ plane).astype(np.float32)
    hits = np.zeros((S, S, F), bool)
    hits[:, :, :SHARED] = ~np.eye(S, dtype=bool)[:, :, None]
    rate = np.full((S, F), 0.01)
    rate[:, ::2] = 0.03  # half of either kind fire often
    p = hits.mean(axis=1) * S / (S - 1)
    return saes, acts, Features(hits, np.ones((S, F), bool), p, rate, rate * 2, 0.05)


def measured(given=None, **changes):
    saes, acts, of = given or of_seeds()
    study = stage("function", bins=2, draws=4, refill_rows=500, **({"shares": (0.3, 0.6, 1.0)} | changes))
    values, sets = Values(S, 0.95, function.EV), feature_sets.labelled(of, 2)
    for i, sae in enumerate(saes):
        halves = [moments.measure(sae, [part]) for part in (acts[:2000], acts[2000:])]
        both = moments.added(*halves)
        eff = function._effects(both, sae)
        for block, part in enumerate(np.array_split(acts, 10)):
            m = moments.measure(sae, [part])
            values.of_block(i, block, function._closed_form(study, of, sets, {}, function._effects(m, sae), m, i, None))
        for without in values.samples(i):
            values.put(i, without, function._closed_form(study, of, sets, {}, eff, both, i, without))
        values.fixed(i, function._refitted(sets.whole[None], halves, sae, i))
        values.fixed(i, function._refilled(study, of, sets.whole[None], sae, acts[::8], i, tqdm.tqdm(disable=True)))
    return values, function.summary_of(study, values, {}), of


@pytest.fixture(scope="module")
def found():
    return measured()


def test_what_all_seeds_share_and_the_tokens_are_made_of_is_worth_more(found):
    values, s, _ = found
    assert s["stable_removed"] == 3 and s["ratio"] == 4 and s["share"] == 0.6  # N = 0.6 · min(20, 20 // 4)
    assert [values.value(("N", q)) for q in (0.3, 0.6, 1.0)] == [1, 3, 5]
    for where, e in s["removed_differences"].items():
        assert e["low"] > 0, where
    assert s["removed_differences"]["q = 0.6, zero"]["value"] == s["removed_difference"]["value"]
    assert s["removed_differences"]["q = 0.6, zero"]["low"] < s["removed_difference"]["low"]  # six hold together
    curve = removal.table(values)
    assert curve["share"][-1] == 1.0 and set(curve["ablation"]) == {"zero", "mean"} and min(curve["low"]) > 0
    for name in ("removed_difference", "removed_difference_by_the_other_half", "part_difference", "removed_difference_refilled"):
        assert s[name]["low"] > 0, name
    assert s["sign_flip_p"]["removed_difference"] == 2 / 2**S
    # Five of twenty stable features, and all twenty unstable ones.
    few, more = (values.value(("removed", STABLE, m)) for m in (2, 4))
    assert few < s["removed_stable"]["value"] < more
    assert values.value(("N", 1.0, "zero", UNSTABLE)) == pytest.approx(s["joint_unstable"]["value"])
    assert s["removed_difference"]["value"] == pytest.approx(s["removed_stable"]["value"] - s["removed_unstable"]["value"])
    assert s["removed_difference"]["null"] < 0  # fewer of any features are worth less than more of them
    assert s["only_stable"]["value"] > s["only_stable"]["null"] > s["only_unstable"]["value"]
    assert s["refitted_only_stable"]["value"] == pytest.approx(s["only_stable"]["value"], abs=0.01)  # there is nothing better
    assert s["matched_frequency_less_unstable"]["low"] > 0 and s["ratio_of_matched_to_unstable"]["matched frequency"] == pytest.approx(
        1, abs=0.1
    )
    parts = [s[f"part_{kind}"]["value"] for kind in ("stable", "unstable")]
    assert sum(parts) == pytest.approx(1, abs=1e-6) and s["part_stable"]["null"] == 0.5 and s["part_intermediate"]["value"] == 0.0
    assert s["partial_p_per_token"]["value"] > 0.3
    assert (
        s["marginal_within_deciles_stable_over_unstable"]["value"] > 1 or s["marginal_within_deciles_stable_over_unstable"]["value"] is None
    )


def test_curves_begin_and_end_where_they_must(found):
    values, s, _ = found
    for kind in (STABLE, UNSTABLE):
        one = values.value(("removed", kind, 1))
        assert one == pytest.approx(values.value(("per token", kind)), rel=1e-9)  # one alone: the mean marginal effect
        table = function_tables.curves_table(values)
        largest = max(m for h, k, m in zip(table["how"], table["set"], table["features"], strict=True) if (h, k) == ("removed", kind))
        assert largest == 16 and values.value(("removed", kind, 16)) < values.value(("joint", kind))
    everything = values.value(("joint", RANDOM))
    assert values.value(("left",)) + everything == pytest.approx(values.value(("left by bias",)), rel=1e-6)
    assert values.value(("refilled without", RANDOM)) == pytest.approx(everything, rel=0.1)  # of some of the tokens


def test_a_refit_is_judged_on_the_tokens_it_was_not_fitted_on():
    saes, acts, of = of_seeds()
    halves = [moments.measure(saes[0], [part]) for part in (acts[:60], acts[60:130])]
    found = function._refitted(feature_sets.by_label(of), halves, saes[0], 0)
    cross, same = (np.mean([moments.refitted_explained_variance(*pair, saes[0], np.arange(SHARED)) for pair in pairs])
                   for pairs in ((halves, halves[::-1]), ((halves[0],) * 2, (halves[1],) * 2)))  # fmt: skip
    assert found["refitted only", STABLE] == pytest.approx(cross) and cross < same - 0.01


def test_labels_that_do_not_matter_show_no_difference():
    """Features of one kind, stable or not by the toss of a coin."""
    saes, acts, of = of_seeds(1)
    rng = np.random.default_rng(3)
    coin = rng.uniform(size=(S, F)) < 0.5
    hits = np.where(coin[:, None, :], ~np.eye(S, dtype=bool)[:, :, None], False)
    own = [dataclasses.replace(sae, w_dec_FD=unit(F, D, rng=rng)) for sae in saes]
    own = [dataclasses.replace(sae, w_enc_DF=sae.w_dec_FD.T.copy()) for sae in own]
    of = of._replace(hits_SSF=hits, p_SF=hits.mean(1))
    values, sets = Values(S, 0.95, function.EV), feature_sets.labelled(of, 1)
    for i, sae in enumerate(own):
        m = moments.measure(sae, [acts])
        for without in values.samples(i):
            values.put(i, without, function._closed_form(STUDY, of, sets, {}, function._effects(m, sae), m, i, without))
    s = function.summary_of(STUDY, values, {})
    # The mean over features differs by no more than the interval over seeds allows.
    assert s["marginal_per_token_stable_over_unstable"]["low"] < 1 < s["marginal_per_token_stable_over_unstable"]["high"]
    assert s["partial_p_per_token"]["low"] < 0.1 and s["partial_p_per_token"]["high"] > -0.1
    assert s["sign_flip_p"]["matched_frequency_less_unstable"] > 2 / 2**S


def test_the_other_half_labels_without_the_seeds_that_are_measured():
    _, _, of = of_seeds()
    hits = of.hits_SSF.copy()
    hits[0, :, 0] = False  # feature 0 of seed 0 reappears in no other, of seed 1 in all but
    hits[1, 0, 0] = False
    for masks in feature_sets.by_other_half(of._replace(hits_SSF=hits), 3):
        assert masks[UNSTABLE][0, 0] and not masks[STABLE][0, 0]
        # Seed 1 is stable there if its half is not labelled by seed 0.
        assert masks[STABLE][1, 0] != masks["intermediate"][1, 0]
        assert (masks[STABLE] | masks[UNSTABLE] | masks["intermediate"]).all()
    assert feature_sets.by_other_half(of._replace(hits_SSF=hits[:2, :2], live_SF=of.live_SF[:2]), 1, excluded_seed=1) == []


def test_leaving_a_seed_out_changes_labels():
    _, _, of = of_seeds()
    hits = of.hits_SSF.copy()
    hits[:, 2, 3] = False  # seed 2 alone lacks what the others call feature 3
    of = of._replace(hits_SSF=hits)
    assert not feature_sets.by_label(of)[STABLE][0, 3] and feature_sets.by_label(of, excluded_seed=2)[STABLE][0, 3]


def identity(width):
    """An SAE that reconstructs everything to the last bit: x = ReLU(x) − ReLU(−x)."""
    both = np.concatenate([np.eye(width), -np.eye(width)]).astype(np.float32)
    return Dictionary(both.T.copy(), np.zeros(2 * width, np.float32), both, np.zeros(width, np.float32), architecture="standard")


@functools.cache
def model_at(site):
    return patching.Model(params_of(SMALL), SMALL, 1, site, Placement.one_device())


def spliced(masks, saes, site="resid_post", length=(14, 9, 2, 14, 5)):
    return patching.splice_contexts(model_at(site), contexts_of(length), np.linspace(-0.5, 0.5, 16), saes, masks)


def contexts_of(length):
    tokens = np.random.default_rng(0).integers(0, 50, (5, 14)).astype(np.int32)
    return Contexts(tokens, np.array(length, np.int32), *np.zeros((2, 5), np.int32))


ALL, HALF = np.ones(32, bool), np.arange(32) < 16
MASKS = patching.Masks({patching.PLAIN: ALL, ("only", STABLE): HALF}, {("N refilled", STABLE): HALF})


def test_an_sae_that_loses_nothing_gives_the_models_own_loss_exactly():
    base, (sums,) = spliced([MASKS], [identity(16)])
    assert sums.nll_Q[0] == base.losses["clean"] and abs(sums.kl_Q[0]) < 1e-5 and sums.error_Q[0] == 0.0
    assert sums.kl_Q[1] > 0.1 and base.losses["kl zero"] > 0.1
    assert sums.nll_Q[1] == pytest.approx(sums.nll_Q[2], rel=1e-6)  # nothing moves up in a standard SAE
    assert base.tokens == 34 and base.document_C.tolist() == [0] * 5
    figures = splice._figures(sums, MASKS, base)
    assert figures["recovered", *patching.PLAIN] == 1.0 and figures["rise", "only", STABLE] != 0.0


def test_what_is_put_in_the_place_of_removed_features_is_added():
    """With everything removed and the site's mean put in its place, predictions are those with the mean there."""
    nothing, mean_D = np.zeros(32, bool), np.linspace(-0.5, 0.5, 16)
    masks = patching.Masks({patching.PLAIN: ALL, ("by", "zero"): nothing, ("by", "mean"): nothing}, {}, {("by", "mean"): mean_D})
    base, (sums,) = spliced([masks], [identity(16)])
    assert sums.nll_Q[1] == pytest.approx(base.losses["zero"], rel=1e-6)
    assert sums.nll_Q[2] == pytest.approx(base.losses["mean"], rel=1e-6) != pytest.approx(sums.nll_Q[1], rel=1e-3)


def test_an_sae_of_zeros_is_the_ablation():
    sae = dataclasses.replace(identity(16), w_dec_FD=np.zeros((32, 16), np.float32))
    base, (sums,) = spliced([MASKS], [sae], site="mlp_out")
    assert sums.nll_Q == pytest.approx([base.losses["zero"]] * 3, rel=1e-6)
    assert abs(base.losses["mean"] - base.losses["zero"]) > 0.1


def test_variance_errors_and_firings_are_of_the_spliced_positions():
    base, (sums,) = spliced([MASKS], [identity(16)])
    tokens, length = (getattr(contexts_of((14, 9, 2, 14, 5)), name) for name in ("tokens_NT", "length_N"))
    model = model_at("resid_post")
    x_NTD = np.asarray(model.prefix(model.params, tokens).x_BTX)
    rows = np.concatenate([x[1:n] for x, n in zip(x_NTD, length, strict=True)])
    assert base.variance == pytest.approx(np.square(rows - rows.mean(0)).sum(), rel=1e-5)
    np.testing.assert_array_equal(sums.firings_F, (np.concatenate([rows, -rows], axis=1) > 0).sum(0))
    # Half of the features is every x where it is above 0.
    assert sums.error_Q[1] == pytest.approx(np.square(np.minimum(rows, 0)).sum(), rel=1e-5)


def test_without_a_document_there_are_the_others():
    base, (sums,) = spliced([MASKS], [identity(16)])
    left_out = np.array([False, True, False, False, True])
    rest, rest_sums = base.leave_out(left_out), sums.leave_out(left_out)
    alone, (alone_sums,) = spliced([MASKS], [identity(16)], length=(14, 0, 2, 14, 0))
    assert rest.tokens == alone.tokens == 24
    for name, value in alone.losses.items():
        assert rest.losses[name] == pytest.approx(value, rel=1e-5), name
    np.testing.assert_allclose(rest_sums.nll_Q, alone_sums.nll_Q, rtol=1e-5)


def test_contexts_are_of_as_many_documents_as_there_are():
    document = np.repeat([3, 5, 8], [10, 2, 4])
    assert document[patching.of_documents(document, 2)].tolist() == [3, 8]
    assert document[patching.of_documents(document, 3)].tolist() == [3, 5, 8]
    assert sorted(document[patching.of_documents(document, 8)].tolist()) == [3, 3, 3, 5, 5, 8, 8, 8]
    assert patching.of_documents(document, 99).tolist() == list(range(16))


def test_batches_change_nothing(monkeypatch):
    base, (sums,) = spliced([MASKS], [identity(16)])
    monkeypatch.setattr(patching, "MEMORY", 1)  # a context at a time
    one_base, (one_sums,) = spliced([MASKS], [identity(16)])
    np.testing.assert_allclose(list(one_base.losses.values()), list(base.losses.values()), rtol=1e-5)
    assert one_base.variance == pytest.approx(base.variance, rel=1e-5)
    np.testing.assert_allclose(one_sums.nll_Q, sums.nll_Q, rtol=1e-5)


def test_the_start_token_is_never_spliced_and_its_prediction_never_counted():
    """Contexts of two tokens have nothing but the start token's prediction."""
    base, _ = spliced([MASKS], [identity(16)], length=(14, 9, 2, 2, 2))
    without, _ = spliced([MASKS], [identity(16)], length=(14, 9, 0, 0, 0))
    assert base.losses == without.losses
    assert spliced([MASKS], [identity(16)])[0].losses["clean"] > base.losses["clean"]


def test_masks_are_what_their_keys_say():
    _, _, of = of_seeds()
    sae = jax.tree.map(np.asarray, listed([unit(F, D, rng=np.random.default_rng(0))], k=8).dictionaries[0])
    study, mean_F = stage("splice", draws=2, singles=4), np.linspace(1, 2, F)
    masks = splice._masks(study, of, sae, 0, mean_F)
    stable = np.arange(F) < SHARED
    assert masks.after[patching.PLAIN].all()
    assert not any(key[:2] == ("N", 0.1) for key in masks.after)  # a tenth of five is none
    for share, n in ((0.25, 1), (0.5, 2)):
        for ablation in ("zero", "mean"):
            for draw in range(2):
                gone = [~masks.after["N", share, ablation, kind, draw] for kind in (STABLE, UNSTABLE)]
                assert gone[0].sum() == n and gone[1].sum() == 4 * n and gone[0][stable].sum() == n and gone[1][~stable].sum() == 4 * n
                for kind, mask in zip((STABLE, UNSTABLE), gone, strict=True):
                    key = ("N", share, ablation, kind, draw)
                    if ablation == "mean":
                        np.testing.assert_allclose(masks.filled[key], (mean_F * mask) @ sae.w_dec_FD, rtol=1e-6)
                    else:
                        assert key not in masks.filled
    assert (masks.after["N", 0.5, "zero", STABLE, 0] != masks.after["N", 0.5, "zero", STABLE, 1]).any()
    assert (masks.after["N", 0.5, "zero", STABLE, 0] == masks.after["N", 0.5, "mean", STABLE, 0]).all()
    assert (masks.after["without", STABLE] == ~stable).all() and (masks.after["only", UNSTABLE] == ~stable).all()
    assert masks.after["only as many", STABLE].sum() == SHARED
    for kind in feature_sets.MATCHED:
        gone, beside = (~masks.after[how, kind] for how in ("matched", "beside matched"))
        assert gone.sum() == beside.sum() > 0 and not gone[~stable].any() and beside[~stable].all() == (beside.sum() == SHARED)
        assert (~masks.after["removed", STABLE, 16]).sum() == 16
    singles = [key[1] for key in masks.after if key[0] == "single"]
    assert len(singles) == 3 and {f < SHARED for f in singles} == {True, False}  # no intermediate ones are there
    assert all((~masks.after["single", f]).sum() == 1 for f in singles)
    assert set(masks.before) == {("N refilled", STABLE), ("N refilled", UNSTABLE)}


def test_figures_of_the_splice_are_of_the_masks_they_name():
    values = Values(3, 0.95, splice.NATS)
    cell = ("N", 0.25, "zero")
    others = [("N", q, how, kind) for q in (0.1, 0.25, 0.5) for how in ("zero", "mean") for kind in (STABLE, UNSTABLE)]
    sets = [*others, ("N", RANDOM), ("without", STABLE), ("only", STABLE), ("only as many", STABLE), ("only", UNSTABLE), ("beside matched", feature_sets.FREQUENCY), ("matched", feature_sets.FREQUENCY)]  # fmt: skip
    keys = [*((figure, *of) for figure in ("rise", "kl", "recovered") for of in sets), ("difference of any",)]
    for seed in range(3):
        values.fixed(seed, {key: float(i) for i, key in enumerate(keys)})
    at = lambda *key: float(keys.index(key))
    losses = {name: np.array([40.0, 60.0]) * value for name, value in {"clean": 1.0, "zero": 3.0, "mean": 2.0, "kl mean": 0.7}.items()}
    s = splice._summary(stage("splice"), values, patching.Clean(losses, np.array([40, 60]), np.array([0, 3]), 1.0))
    assert s["tokens"] == 100 and s["documents"] == 2
    assert s["removed_difference"]["value"] == at("rise", *cell, STABLE) - at("rise", *cell, UNSTABLE) and s["removed_difference"][
        "null"
    ] == at("difference of any")
    assert s["only_stable"]["value"] == at("recovered", "only", STABLE) and s["only_stable"]["null"] == at(
        "recovered", "only as many", STABLE
    )
    assert s["without_stable"]["value"] == at("rise", "without", STABLE)
    for q in (0.1, 0.25, 0.5):
        for how in ("zero", "mean"):
            one, other = (at("rise", "N", q, how, kind) for kind in (STABLE, UNSTABLE))
            assert s["removed_differences"][f"q = {q}, {how}"]["value"] == one - other
    assert s["matched_frequency_less_unstable"]["value"] == at("rise", "matched", feature_sets.FREQUENCY) - at(
        "rise", "beside matched", feature_sets.FREQUENCY
    )
    assert s["removed_kl_difference"]["value"] == at("kl", *cell, STABLE) - at("kl", *cell, UNSTABLE)
    assert (s["ce_clean"]["value"], s["ce_zero"]["value"], s["ce_mean"]["value"]) == (1.0, 3.0, 2.0) and s["removed_difference_refilled"][
        "value"
    ] is None


def test_the_other_half_may_miss_as_many_whoever_is_left_out():
    """20 labelling seeds may miss one, 19 none; but with one of the 20 left out they may still: the interval is of one statistic."""
    s = 40
    hits = np.ones((s, s, 1), bool)
    one, other = transfer.splits(s, 1)[0]
    hits[one[0], other[0]] = False
    of = Features(hits, *(np.ones((s, 1)) for _ in range(4)), 0.05)._replace(live_SF=np.ones((s, 1), bool))
    for without in (None, other[1]):
        assert feature_sets.by_other_half(of, 1, without)[0][STABLE][one[0], 0]


def test_a_seed_without_stable_features_holds_none_of_what_is_explained():
    saes, acts, of = of_seeds()
    of = of._replace(hits_SSF=np.where(np.arange(S)[:, None, None] == 0, False, of.hits_SSF))
    values, sets = Values(S, 0.95, function.EV), feature_sets.labelled(of, 1)
    for i, sae in enumerate(saes):
        m = moments.measure(sae, [acts])
        values.put(i, None, function._closed_form(STUDY, of, sets, {}, function._effects(m, sae), m, i, None))
    assert values.of_seeds(("part", STABLE))[0] == 0.0 and values.of_seeds(("part", UNSTABLE))[0] == pytest.approx(1.0)
