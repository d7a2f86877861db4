"""Verdicts that hang on what counts as the same, of rows that are planted; figures of scores of surface form that are known."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest

from configs import synthetic
from experiments import registry
from experiments.ground_truth import recovery
from experiments.reappearance import stability
from experiments.reappearance.feature_sets import INTERMEDIATE, RANDOM, STABLE, UNSTABLE, Features, by_label
from experiments.reappearance.labels import LabelRule
from experiments.robustness import classifiers, spans, specifications
from experiments.robustness.specifications import LIVE, Scores, Specification
from experiments.subspaces import subspace
from experiments.subspaces.subspace import Subspace
from reports import claims
from reports.claims import Claims
from reports.results import Earlier
from stability import reappearance, reproducibility, similarity
from stability.prediction import References
from synthetic.config import Recovery, WorldConfig
from synthetic.generator import make_truth
from tests.experiments.tasks import task
from tests.stability.planted import unit

SEEDS, D, BLOCK, KIND = 6, 64, 100, 80
WORLD = WorldConfig(width=D, free_atoms=60, free_active=3, block_rank=16, block_atoms=120, block_active=2)
DECODER, ENCODER = "decoder", "encoder"


def config():
    c = synthetic.get_config("tiny")
    c.stages = ("train", "stability", "sensitivity", "specifications")
    c.update(registry.default_config(c.stages).to_dict() | {"stages": c.stages})
    return c


def hits_of(cosine_SSF):
    return reappearance.reappears(np.nan_to_num(cosine_SSF, nan=-1.0), 0.7)


def side(name, hits_SSF, **summary):
    """On which side a claim stands, of features labelled by these hits."""
    among_SF = np.ones(hits_SSF[0].shape, bool)
    labels_SF = reappearance.labels(hits_SSF.sum(axis=1), SEEDS - 1, 0.05)
    counts = {"seeds": list(range(SEEDS))} | stability.label_counts(labels_SF, among_SF)
    statements = [s for room in registry.modules("report") for s in room.CLAIMS if s.name == name]
    return claims.sides(statements, Earlier(0, {"stability": counts} | summary), Claims())[name]


def test_rows_tell_labels_by_decoder_and_not_those_by_encoder():
    """Unstable rows lean to one side, which a line tells and the nearest row does not. By encoder a half of either kind comes again."""
    common = np.random.default_rng(0)
    lean, stable = unit(common.normal(size=D)), common.normal(size=(KIND, D))
    leaning = lambda noise, towards: unit(noise / np.sqrt(D) + 0.25 * towards * lean)
    unstable = lambda seed: np.random.default_rng((seed, 1)).normal(size=(KIND, D))
    rows_SFD = np.stack([np.concatenate([leaning(stable, -1.0), leaning(unstable(seed), 1.0)]) for seed in range(SEEDS)])
    rows_SFD[:, :KIND] = unit(rows_SFD[:, :KIND] + 0.02 * common.normal(size=(SEEDS, KIND, D)))
    match = similarity.all_pairs(rows_SFD.astype(np.float32))
    by_encoder_SSF = np.broadcast_to((np.arange(2 * KIND) % 2 == 0) & ~np.eye(SEEDS, dtype=bool)[..., None], match.cosine.shape)
    same_place_SSF = np.where(by_encoder_SSF, np.arange(2 * KIND), -1)
    material = SimpleNamespace(
        references=References(match.cosine, match.partner, np.zeros((SEEDS, 2 * KIND))),
        order=np.arange(SEEDS),
        rows=SimpleNamespace(unit_SFD=rows_SFD),
        log_rate_SF=None,
        without_PSF=(),
        encoder_partner_SSF=same_place_SSF,
    )
    told = lambda criterion, hits_SSF: specifications._classified(
        task("specifications", config()), material, LabelRule(), criterion, hits_SSF, np.ones((SEEDS, 2 * KIND), bool)
    )
    by_decoder, by_encoder = told(DECODER, hits_of(match.cosine)), told(ENCODER, by_encoder_SSF)
    assert side("C7", hits_of(match.cosine), transfer=by_decoder) == "yes", by_decoder
    assert side("C7", by_encoder_SSF, transfer=by_encoder) in ("no", "undecided"), by_encoder
    # What comes again by decoder is one direction by any criterion.
    assert by_decoder["directions"] == KIND * (1 + SEEDS) and by_encoder["directions"] == KIND + KIND // 2 * (1 + SEEDS)


def test_the_span_of_latents_unstable_by_decoder_is_the_planted_one_and_by_encoder_none_is_unstable():
    truth = make_truth(WORLD)
    free, basis_DR = truth.atoms_AD[truth.group_A == 0], truth.bases[0]

    def rows(rng):
        anywhere = unit(rng.normal(size=(BLOCK, basis_DR.shape[1]))) @ basis_DR.T
        return np.concatenate([unit(free + 0.02 * rng.normal(size=free.shape)), anywhere])

    rows_SFD = np.stack([rows(np.random.default_rng(seed)) for seed in range(SEEDS)]).astype(np.float32)
    everywhere_SF = np.ones(rows_SFD.shape[:2], bool)
    match = similarity.all_pairs(rows_SFD)
    hits_SSF = hits_of(match.cosine)
    found = recovery.measure(Recovery(), LabelRule(), WORLD, rows_SFD, everywhere_SF)
    material = SimpleNamespace(
        latents_SF=lambda features: everywhere_SF,
        rows=SimpleNamespace(unit_SFD=np.asarray(similarity.unit_rows(rows_SFD))),
        acts_ND=None,
        atoms={LIVE: recovery.atoms_found(Recovery(), found)},
        latent_cosine={LIVE: match.cosine},
        partners=lambda criterion: match.partner,
    )
    own = SimpleNamespace(section={Recovery: Recovery(), LabelRule: LabelRule()}.__getitem__)
    by = lambda criterion, hits_SSF: specifications._recovered(own, material, WORLD, Specification(0.7, criterion, LIVE), hits_SSF)
    recovered = functools.partial(by, "decoder and encoder, same partner")
    assert (
        recovered(hits_SSF)
        == by(DECODER, hits_SSF)
        == {name: e for name, e in recovery.summary_of(Recovery(), found).items() if name in recovered(hits_SSF)}
    )
    assert side("C5", hits_SSF, recovery=recovered(hits_SSF)) == "yes"
    always_SSF = np.broadcast_to(~np.eye(SEEDS, dtype=bool)[..., None], hits_SSF.shape)
    assert side("C5", always_SSF, recovery=recovered(always_SSF)) == "undecided"
    # In half of the seeds the block's latents are dead, so that a match with them is none, by whatever criterion.
    living_SF = everywhere_SF.copy()
    living_SF[SEEDS // 2 :, -BLOCK:] = False
    some = recovery.measure(Recovery(), LabelRule(), WORLD, rows_SFD, living_SF)
    material.latents_SF = lambda features: living_SF
    material.atoms = {LIVE: recovery.atoms_found(Recovery(), some)}
    material.latent_cosine = {LIVE: similarity.all_pairs(np.where(living_SF[..., None], rows_SFD, 0).astype(np.float32)).cosine}
    of_stage = recovery.summary_of(Recovery(), some)
    for recovered_here in (by(DECODER, hits_SSF), recovered(hits_SSF)):
        assert recovered_here == {name: of_stage[name] for name in recovered_here}


@pytest.mark.parametrize("few", [False, True])
def test_spans_are_those_of_the_stage_subspace(few):
    """With more features than dimensions in the smallest set, and with fewer."""
    rng, s, f, d = np.random.default_rng(1), 4, 150, 24
    frame = np.linalg.qr(rng.normal(size=(d, d)))[0]
    sizes = {STABLE: 12 if few else 40, UNSTABLE: 45, INTERMEDIATE: 50, "dead": 0}
    sizes["dead"] = f - sum(sizes.values())
    label_SF = np.stack([rng.permutation(np.repeat(list(sizes), list(sizes.values()))) for _ in range(s)])
    in_plane = unit(rng.normal(size=(s, f, 6))) @ frame[:, :6].T
    anywhere = unit(rng.normal(size=(s, f, d)))
    unit_SFD = unit(np.where((label_SF == UNSTABLE)[..., None], in_plane + 0.3 * anywhere, anywhere)).astype(np.float32)
    rate_SF, energy_SF = np.exp(rng.normal(size=(s, f))), np.exp(rng.normal(size=(s, f)))
    acts_ND, gaussian = (
        rng.normal(size=(500, d)) * np.linspace(1, 3, d),
        [unit(rng.normal(size=(60, d))).astype(np.float32) for _ in range(3)],
    )
    c, seeds = Subspace(ranks=(1, 4), headline_rank=4, subsamples=3, min_features=5), (3, 5, 6, 8)
    table = {"seed": np.repeat(seeds, f), "feature": np.tile(np.arange(f), s), "label": label_SF.ravel()}
    table |= {"stratum": np.where(label_SF == "dead", "dead", "live").ravel(), "firing_rate": rate_SF.ravel(), "energy": energy_SF.ravel()}
    measured, _ = subspace.measure(c, LabelRule(), unit_SFD, table, seeds, acts_ND, gaussian)
    columns = {"matched frequency": rate_SF, "matched energy": energy_SF}
    rows = spans.Rows(unit_SFD, seeds, columns, reproducibility.principal_components(acts_ND), gaussian)
    masks = {name: label_SF == name for name in (STABLE, UNSTABLE, INTERMEDIATE)} | {RANDOM: label_SF != "dead"}
    found = spans.measure(c, LabelRule(), rows, masks)
    assert found.keys() <= measured.keys()
    for name, one in found.items():
        several = name.endswith("_over")
        assert not several or one.keys() == measured[name].keys() and len(one) == 5
        for own, other in zip(one.values(), measured[name].values(), strict=True) if several else [(one, measured[name])]:
            if isinstance(own, dict):
                for end in ("value", "low", "high"):
                    assert own[end] == pytest.approx(other[end], abs=2e-5), (name, end)
            else:
                assert own == other


def test_sets_that_are_too_small_are_not_measured():
    unit_SFD = unit(np.random.default_rng(0).normal(size=(3, 30, 8)))
    masks = {name: np.zeros((3, 30), bool) for name in (STABLE, UNSTABLE, INTERMEDIATE, RANDOM)}
    found = spans.measure(Subspace(headline_rank=4), LabelRule(), spans.Rows(unit_SFD, (0, 1, 2), {}, None, None), masks)
    assert "0 features in the smallest set" in found["not_measured"]


def test_directions_hang_together_by_either_criterion():
    one, other = np.array([[0, 1, 2], [0, 3, 4]]), np.array([[0, 1, 2], [3, 1, 4]])
    joined = classifiers.joined(one, other)
    assert joined[0, 0] == joined[1, 0] and joined[0, 1] == joined[1, 1] and len(np.unique(joined)) == 4


@pytest.mark.parametrize("parts", [0, 3])
def test_firings_and_shares_of_features_with_a_score_are_the_true_ones(parts):
    """A half of the stable and three quarters of the unstable features have a score."""
    s, f = SEEDS, 80
    stable_F = np.arange(f) < f // 2
    hits_SSF = np.broadcast_to(stable_F & ~np.eye(s, dtype=bool)[..., None], (s, s, f))
    stats = Features(hits_SSF, np.ones((s, f), bool), hits_SSF.sum(1) / (s - 1), np.ones((s, f)), np.ones((s, f)), 0.05)
    scored_F = np.where(stable_F, np.arange(f) % 2, np.arange(f) % 4) > 0
    score_SF = np.broadcast_to(np.where(scored_F, np.where(stable_F, 0.2, 0.8), np.nan), (s, f))
    samples = {k: by_label(stats, k) for k in (None, *range(s))}
    figures = specifications._surface(task("specifications", config()), Scores(score_SF, [score_SF] * parts, 37), stats, samples)
    assert figures["firings"] == 37 and figures["surface_auroc"]["value"] == 1.0
    for kind, share in ((STABLE, 0.5), (UNSTABLE, 0.75)):
        e = figures[f"surface_scored_{kind}"]
        assert e["value"] == pytest.approx(share) == e["low"] == e["high"]
