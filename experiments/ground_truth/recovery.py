"""Stage: what was learned against the truth that the synthetic world holds: atom by atom, and as subspaces.

Latents that never fire on the evaluation tokens are left out: they keep a direction that says nothing of the truth.  A block's latents are chosen by
where they lie, so their span lies near the planted one by choice already: its null are uniform directions chosen alike. The group `blocks` is
chosen without the truth, by p̂ alone.
A row of `recovery.parquet` is one figure of one group (free atoms, or a block) at one level: latents or subspace, each with its interval
over seeds and the value that chance gives.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.data import dictionary_list, sources
from experiments.reappearance.labels import LabelRule
from experiments.stage import Outputs, Stage, Task
from stability import aggregates, nulls, reappearance, reproducibility, similarity, subspaces
from stability.aggregates import pair_mean, seed_mean
from stability.estimates import Estimate
from stability.subspaces import span_overlap
from synthetic import recovery
from synthetic.config import Recovery, WorldConfig
from synthetic.generator import Truth, make_truth

STAGE = Stage(config=Recovery, reads=(LabelRule, WorldConfig), needs=("saes", "stability"), uses=("rows",))

LATENT, SUBSPACE = "latents", "subspace"
UNCHOSEN = "unstable latents, chosen without the truth"
ALIKE, ALIKE_PLANES = "as many random directions chosen alike", "random directions chosen alike and the planted one"
NULL_DRAWS = 6


def run(task: Task, out: Outputs) -> None:
    c, rule, world = task.section(Recovery), task.section(LabelRule), task.section(WorldConfig)
    saes = dictionary_list.saes(task)
    features = task.table("stability/features")
    alive_SF = (features["stratum"] != reappearance.DEAD).reshape(saes.w_dec_SFD.shape[:2])
    figures = measure(c, rule, world, saes.w_dec_SFD, alive_SF, sources.evaluation_rows(task))
    out.summary(summary_of(c, figures))
    columns: dict[str, list[Any]] = {"group": [], "level": [], "figure": [], "value": [], "low": [], "high": [], "null": [], "unit": []}
    for (group, level, figure), e in figures.items():
        for column, value in zip(columns, (group, level, figure, e.value, e.low, e.high, e.null, e.unit), strict=True):
            columns[column].append(value)
    out.table("recovery", columns)
    out.table("angles", angles_of_planes(world, saes.w_dec_SFD, alive_SF))
    out.table("spectra", spectra_of_latents(world, saes.w_dec_SFD, alive_SF))


def group_names(blocks: int) -> list[str]:
    return ["free"] + (["block"] if blocks == 1 else [f"block {b}" for b in range(1, blocks + 1)])


def _key(group: str, level: str, figure: str) -> str:
    return f"{group}, {level}: {figure}"


def summary_of(c: Recovery, figures: dict[tuple[str, str, str], Estimate]) -> dict[str, Any]:
    """What the summary holds: figures by their names, and the thresholds."""
    return {_key(*place): e.as_dict() for place, e in figures.items()} | {
        "found": c.found,
        "theta": c.theta,
        "unstable_below": c.unstable_below,
    }


def atoms_found(c: Recovery, figures: dict[tuple[str, str, str], Estimate]) -> dict[tuple[str, str, str], Estimate]:
    """Those of the figures that no label touches: shares of atoms that some latent meets."""
    return {place: e for place, e in figures.items() if place[1:] == (LATENT, _atoms_name(c))}


def _atoms_name(c: Recovery) -> str:
    return f"atoms found at {c.found:g}"


def measure(
    c: Recovery, rule: LabelRule, world: WorldConfig, w_dec_SFD: np.ndarray, alive_SF: np.ndarray, acts_ND: np.ndarray | None = None
) -> dict[tuple[str, str, str], Estimate]:
    """{(group, level, figure): estimate} for all groups of the world, over the latents that are alive.

    Args:
      acts_ND: tokens whose principal components are one more null for what is chosen without the truth.
    """
    truth = make_truth(world)
    # Rows of zeros are similar to nothing, so that no latent is matched by a dead one either.
    alive_SFD = np.where(alive_SF[..., None], w_dec_SFD, 0.0).astype(np.float32)
    unit_SFD = np.asarray(similarity.unit_rows(alive_SFD))
    cosine_SSF = similarity.all_pairs(alive_SFD, block_size=rule.block_size).cosine
    group_SF = recovery.group_of_latents(truth, unit_SFD)
    p_SF = reappearance.reappears(cosine_SSF, c.theta).sum(axis=1) / (len(unit_SFD) - 1)
    unstable_SF = alive_SF & (p_SF < c.unstable_below)
    out: dict[tuple[str, str, str], Estimate] = {}
    for g, name in enumerate(group_names(world.blocks)):
        in_group_SF = (group_SF == g) & alive_SF
        rank = world.rank if g else _free_rank(world)
        latent, subspace = (functools.partial(_put, out, name, level) for level in (LATENT, SUBSPACE))
        _latent_figures(c, rule, latent, unit_SFD, cosine_SSF, in_group_SF, rank, truth, g)
        if g:
            basis_DR = truth.bases[g - 1]
            sets = {"all its latents": in_group_SF, "its unstable latents": in_group_SF & unstable_SF}
            for which, among_SF in sets.items():
                null = _nulls_of_chosen(basis_DR, max(1, round(float(among_SF.sum(axis=1).mean()))), g)
                _subspace_figures(rule, functools.partial(subspace, which=which), unit_SFD, among_SF, basis_DR, null)
    return out | unstable_span(rule, world, truth, unit_SFD, unstable_SF, acts_ND)


def unstable_span(
    rule: LabelRule, world: WorldConfig, truth: Truth, unit_SFD: np.ndarray, unstable_SF: np.ndarray, acts_ND: np.ndarray | None = None
) -> dict[tuple[str, str, str], Estimate]:
    """Figures of the span of the unstable latents, chosen without the truth, beside the blocks' together; {} where there is no block, or nothing
    beside them.

    Args:
      unstable_SF: whatever they are called unstable by.
    """
    out: dict[tuple[str, str, str], Estimate] = {}
    if world.blocks and world.blocks * world.rank < world.width:
        union_DR = np.concatenate(truth.bases, axis=1)
        null = _nulls_without_truth(union_DR, acts_ND, [u[m] for u, m in zip(unit_SFD, unstable_SF, strict=True)])
        _subspace_figures(rule, functools.partial(_put, out, "blocks", SUBSPACE, which=UNCHOSEN), unit_SFD, unstable_SF, union_DR, null)
    return out


class PlaneNulls(NamedTuple):
    """What overlaps and angle come out as by chance."""

    planted_overlap: float
    seed_overlap: float
    angle: float


def _nulls_of_chosen(basis_DR: np.ndarray, n: int, salt: int) -> PlaneNulls:
    """Of `n` uniform directions that lie in the block as a block's latents must; mean over draws."""
    rank = basis_DR.shape[1]
    planes = [
        recovery.top_plane(recovery.directions_chosen_alike(np.random.default_rng((salt, 13, draw)), n, basis_DR), rank)
        for draw in range(NULL_DRAWS)
    ]
    return _mean_nulls([u for u in planes if u is not None], basis_DR)


def _nulls_without_truth(basis_DR: np.ndarray, acts_ND: np.ndarray | None, rows: list[np.ndarray]) -> PlaneNulls:
    """The strongest of random planes and of the activations' principal components, which a block may fill without any latent's doing."""
    d, rank = basis_DR.shape
    random = _mean_nulls([_random_plane(d, rank, draw) for draw in range(NULL_DRAWS)], basis_DR)
    if acts_ND is None:
        return random
    components = reproducibility.principal_components(acts_ND)[:, :rank]
    planes = [u for r in rows if (u := recovery.top_plane(r, rank)) is not None]
    seed_overlap = float(np.mean([span_overlap(u, components) for u in planes])) if planes else 0.0
    angle = min(random.angle, _largest_angle(components, basis_DR))
    return PlaneNulls(max(random.planted_overlap, span_overlap(components, basis_DR)), max(random.seed_overlap, seed_overlap), angle)


def _mean_nulls(planes: list[np.ndarray], basis_DR: np.ndarray) -> PlaneNulls:
    seed_overlap = [span_overlap(u, v) for u, v in itertools.combinations(planes, 2)]
    planted_overlap = [span_overlap(u, basis_DR) for u in planes]
    return PlaneNulls(
        float(np.mean(planted_overlap)), float(np.mean(seed_overlap)), float(np.mean([_largest_angle(u, basis_DR) for u in planes]))
    )


def angles_of_planes(world: WorldConfig, w_dec_SFD: np.ndarray, alive_SF: np.ndarray) -> dict[str, list[Any]]:
    """Principal angles of the top planes of every block's latents, degrees: mean and range over seeds, pairs or draws."""
    truth = make_truth(world)
    unit_SFD = np.asarray(similarity.unit_rows(w_dec_SFD))
    group_SF = recovery.group_of_latents(truth, unit_SFD)
    out: dict[str, list[Any]] = {n: [] for n in ("block", "planes", "index", "angle", "low", "high")}
    for g, name in enumerate(group_names(world.blocks)[1:], start=1):
        basis_DR = truth.bases[g - 1]
        rank = basis_DR.shape[1]
        rows = [unit_FD[(group_F == g) & alive_F] for unit_FD, group_F, alive_F in zip(unit_SFD, group_SF, alive_SF, strict=True)]
        planes = [plane for r in rows if (plane := recovery.top_plane(r, rank)) is not None and plane.shape[1] == rank]
        n = max(1, round(np.mean([len(r) for r in rows])))
        draws = (np.random.default_rng((g, 17, draw)) for draw in range(20))
        by_chance = [recovery.top_plane(recovery.directions_chosen_alike(rng, n, basis_DR), rank) for rng in draws]
        pairs = {
            "a seed and the planted one": [(u, basis_DR) for u in planes],
            "two seeds": list(itertools.combinations(planes, 2)),
            ALIKE_PLANES: [(u, basis_DR) for u in by_chance if u is not None and u.shape[1] == rank],
        }
        for what, both in pairs.items():
            if both:
                degrees_NR = np.stack([np.degrees(_angles(u, v)) for u, v in both])
                for i, of_index_N in enumerate(degrees_NR.T):
                    record = (name, what, i + 1, float(of_index_N.mean()), float(of_index_N.min()), float(of_index_N.max()))
                    for column, value in zip(out, record, strict=True):
                        out[column].append(value)
    return out


def spectra_of_latents(world: WorldConfig, w_dec_SFD: np.ndarray, alive_SF: np.ndarray) -> dict[str, list[Any]]:
    """Share of their squared norm that every block's latents have along their own principal directions, the largest first; beside it that
    of as many of its atoms and of as many random directions chosen alike. Mean and range over seeds or draws."""
    truth = make_truth(world)
    unit_SFD = np.asarray(similarity.unit_rows(w_dec_SFD))
    group_SF = recovery.group_of_latents(truth, unit_SFD)
    out: dict[str, list[Any]] = {n: [] for n in ("block", "what", "index", "share", "low", "high")}
    for g, name in enumerate(group_names(world.blocks)[1:], start=1):
        atoms_AD = truth.atoms_AD[truth.group_A == g]
        latents = [unit_FD[(group_F == g) & alive_F] for unit_FD, group_F, alive_F in zip(unit_SFD, group_SF, alive_SF, strict=True)]
        draws = [np.random.default_rng((g, 11, s)) for s in range(len(latents))]
        sets = {
            "latents of a seed": latents,
            "as many atoms": [rng.permutation(atoms_AD)[: len(r)] for rng, r in zip(draws, latents, strict=True)],
            ALIKE: [recovery.directions_chosen_alike(rng, len(r), truth.bases[g - 1]) for rng, r in zip(draws, latents, strict=True)],
        }
        for what, rows in sets.items():
            shares = [recovery.spectrum(r) for r in rows if len(r)]
            for i in range(max((len(s) for s in shares), default=0)):
                of_index = [s[i] if i < len(s) else 0.0 for s in shares]
                record = (name, what, i + 1, float(np.mean(of_index)), float(np.min(of_index)), float(np.max(of_index)))
                for column, value in zip(out, record, strict=True):
                    out[column].append(value)
    return out


def _angles(u_DR: np.ndarray, v_DR: np.ndarray) -> np.ndarray:
    return np.asarray(subspaces.principal_angles(jnp.asarray(u_DR, jnp.float32), jnp.asarray(v_DR, jnp.float32)))


def _free_rank(world: WorldConfig) -> int:
    return max(2, world.width - world.blocks * world.block_rank * world.orthogonal)


def _put(out: dict[tuple[str, str, str], Estimate], group: str, level: str, figure: str, estimate: Estimate, which: str = "") -> None:
    out[group, level, figure + (f", {which}" if which else "")] = estimate


def _latent_figures(
    c: Recovery,
    rule: LabelRule,
    put: Any,
    unit_SFD: np.ndarray,
    cosine_SSF: np.ndarray,
    among_SF: np.ndarray,
    rank: int,
    truth: Truth,
    g: int,
) -> None:
    """Atoms found, p̂ and PW-MCC; chance is that of uniform directions in the group's subspace."""
    s = len(unit_SFD)
    knife = functools.partial(aggregates.jackknifed, seeds=s, confidence=rule.confidence)
    mean = lambda values: functools.partial(seed_mean, values)
    count = max(1, round(float(among_SF.sum(axis=1).mean())))
    chance = lambda theta: nulls.chance_of_match(theta, rank, count)
    share: dict[str, Any] = {"unit": "share", "bounds": (0.0, 1.0)}
    atoms, n_atoms = recovery.atom_recovery(truth, unit_SFD, c.found), int((truth.group_A == g).sum())
    put("latents", knife(mean(among_SF.sum(axis=1).astype(float)), null=None, unit="features"))
    put(_atoms_name(c), knife(mean(atoms.found_SG[:, g]), null=chance(c.found), **share))
    put(f"atoms found one to one at {c.found:g}", knife(mean(atoms.assigned_found_SG[:, g]), null=chance(c.found), **share))
    for theta in sorted({c.theta, c.found}):
        of_pairs = aggregates.share_reappearing(reappearance.reappears(cosine_SSF, theta), among_SF)
        put(f"p̂ at {theta:g}", knife(functools.partial(pair_mean, of_pairs), null=chance(theta), unit="probability", bounds=(0.0, 1.0)))
    pairs_SS = np.full((s, s), np.nan)
    for i in range(s):
        for j in range(i + 1, s):
            pairs_SS[i, j] = pairs_SS[j, i] = recovery.pairwise_assignment(unit_SFD[i][among_SF[i]], unit_SFD[j][among_SF[j]])
    rng = np.random.default_rng((g, 7))
    one = lambda n: recovery.pairwise_assignment(_uniform_rows(rng, n, rank), _uniform_rows(rng, count, rank))
    by_chance = lambda n: float(np.mean([one(n) for _ in range(NULL_DRAWS)])) if n else float("nan")
    cosine: dict[str, Any] = {"unit": "cosine", "bounds": (-1.0, 1.0)}
    put("PW-MCC", knife(functools.partial(pair_mean, pairs_SS), null=by_chance(count), **cosine))
    put(
        "ground-truth MCC",
        knife(mean(atoms.assigned_mean_SG[:, g]), null=by_chance(n_atoms) * min(n_atoms, count) / max(n_atoms, 1), **cosine),
    )


def _uniform_rows(rng: np.random.Generator, n: int, rank: int) -> np.ndarray:
    rows = rng.normal(size=(n, rank))
    result: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return result


def _subspace_figures(
    rule: LabelRule, put: Any, unit_SFD: np.ndarray, among_SF: np.ndarray, basis_DR: np.ndarray, null: PlaneNulls
) -> None:
    """Overlap of the latents' top-r plane with the planted span, and between seeds."""
    rank, s = basis_DR.shape[1], len(unit_SFD)
    knife = functools.partial(aggregates.jackknifed, seeds=s, confidence=rule.confidence)
    planes = [recovery.top_plane(unit_FD[among_F], rank) for unit_FD, among_F in zip(unit_SFD, among_SF, strict=True)]
    planted_S = np.array([np.nan if u is None else span_overlap(u, basis_DR) for u in planes])
    angle_S = np.array([np.nan if u is None else _largest_angle(u, basis_DR) for u in planes])
    pairs_SS = np.full((s, s), np.nan)
    for i, u in enumerate(planes):
        for j, v in enumerate(planes):
            if i != j and u is not None and v is not None:
                pairs_SS[i, j] = span_overlap(u, v)
    share: dict[str, Any] = {"unit": "share", "bounds": (0.0, 1.0)}
    put("top plane, overlap with the planted one", knife(functools.partial(seed_mean, planted_S), null=null.planted_overlap, **share))
    put("top plane, overlap between seeds", knife(functools.partial(pair_mean, pairs_SS), null=null.seed_overlap, **share))
    put("largest principal angle to the planted plane", knife(functools.partial(seed_mean, angle_S), null=null.angle, unit="degrees"))


def _largest_angle(u_DR: np.ndarray, v_DR: np.ndarray) -> float:
    if u_DR.shape[1] < v_DR.shape[1]:
        return 90.0  # some direction of the other is missing altogether
    return float(np.degrees(_angles(u_DR, v_DR)[-1]))


def _random_plane(d: int, rank: int, draw: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng((draw, 3)).normal(size=(d, rank)))[0]
