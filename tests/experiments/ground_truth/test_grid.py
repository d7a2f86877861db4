"""A grid of worlds: which cells share a program, padding that is not there, the start at the truth, what is told of cells."""

import json

import numpy as np
import pytest
from etils import epath

from configs import common, synthetic_causes, synthetic_controls, synthetic_phase
from experiments import registry
from experiments.data import dictionary_list
from experiments.ground_truth import cells as grid_cells
from experiments.ground_truth import grid, start
from experiments.ground_truth.cells import HELD, RANDOM, STARTS, TRUTH
from experiments.training import population, train
from runtime import interrupts
from runtime.mesh import make_mesh
from saes.assembly import NEVER
from saes.lanes import initial_keys, plan_lanes
from storage.tables import read_records
from tests.experiments.tasks import run_stage, task


def small(**cells):
    c = common.synthetic_grid()
    common.tiny_grid(c)
    c.train.tokens = 12_000
    for name, change in cells.items():
        c.cells[name] = change
    return c


CELLS = {
    "easy": {"at": {"rank": 3, "atoms per rank": 1}, "synthetic": {"block_atoms": 3, "block_active": 1, "block_presence": 0.5}, "sae": {"n_features": 19, "k": 3}},
    "crowded": {"at": {"rank": 3, "atoms per rank": 4}},
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    c = small(**CELLS)
    c.reference, c.contrasts = "crowded", (("crowding", "easy", "crowded"),)
    workdir = epath.Path(tmp_path_factory.mktemp("grid"))
    for name in c.stages:
        run_stage(name, c, workdir)
    return task("verdicts", c, workdir), workdir


def saes(of, name, at):
    """What the only group of a grid has left of a cell."""
    return dictionary_list.load(grid.home(of, 0, name, at) / dictionary_list.NAME)


def test_cells_share_a_program_unless_their_shapes_or_steps_differ():
    groups = grid_cells.groups(task("grid", synthetic_controls.get_config()))
    assert sorted(len(g.cells) for g in groups) == [1, 1, 1, 6]
    largest = max(groups, key=lambda g: len(g.cells))
    assert (largest.sae.n_features, largest.sae.k) == (320, 10)
    phase = grid_cells.groups(task("grid", synthetic_phase.get_config()))
    assert sum(len(g.cells) for g in phase) == 45 and len(phase) <= 2


def test_every_cell_has_its_own_world_and_all_rates_are_what_the_diagram_says():
    every = grid_cells.all_cells(task("grid", synthetic_phase.get_config()))
    assert len(every) == 45
    for cell in every:
        at = dict(cell.coordinates)
        assert cell.world.block_rank == at["rank"]
        assert cell.world.block_rate == pytest.approx(at.get("firing rate", 0.01))
        assert cell.world.block_atoms == at["rank"] * at.get("atoms per rank", 4)
        assert cell.sae.n_features == cell.world.free_atoms + cell.world.block_atoms and cell.sae.k == cell.world.active


def test_dictionaries_have_their_own_size_and_padding_leaves_no_trace(finished):
    of, workdir = finished
    for name, features, k in (("easy", 19, 3), ("crowded", 28, 4)):
        for at in STARTS:
            listed = saes(of, name, at)
            assert listed.w_dec_SFD.shape == (3, features, 24) and [d.k for d in listed.dictionaries] == [k] * 3
            assert max(np.abs(d.b_enc_F).max() for d in listed.dictionaries) < 100
    summary = json.loads((workdir / "grid" / "group-0" / "train" / "summary.json").read_text())
    assert [c["l0"]["value"] for c in summary["cells"]] == pytest.approx([4, 4, 4, 3, 3, 3], abs=0.05)


def test_a_cell_alone_is_the_cell_among_others(finished, tmp_path):
    """Padding, other worlds and other starts beside it change it by no more than rounding in its tokens does."""
    of, _ = finished
    alone = small(crowded={})
    run_stage("grid", alone, tmp_path)
    rows = [saes(where, "crowded", RANDOM).w_dec_SFD for where in (of, task("verdicts", alone, tmp_path))]
    cosine = np.sum(rows[0] * rows[1], axis=-1)
    assert np.median(cosine) > 0.98  # one scale for all worlds of a grid, so not the same to the last digit


def test_saes_from_the_truth_begin_there():
    of = task("grid", small(**CELLS))
    (group,) = grid_cells.groups(of)
    source, who = group.source(of), group.population(of)
    member = next(m for m in who.members if who.cells[m.cell].start == TRUTH and who.cells[m.cell].n_features == 19)
    stream = source.stream(0, None, member.world)
    parameters, atom = start._parameters(
        initial_keys(np.array([0]))[0], source.truths[member.world], source.energies[member.world], stream, 19, 2.0
    )
    assert sorted(atom) == list(range(19))
    rows, encoder, bias = (parameters[name] for name in ("w_dec_FD", "w_enc_DF", "b_enc_F"))
    assert (parameters["b_dec_D"] == 0).all()
    atoms = source.truths[member.world].atoms_AD
    np.testing.assert_allclose((rows @ atoms.T).max(axis=1), 1.0, atol=1e-5)
    x, z = 2.0 * stream.rows(50_000, 500), 2.0 * stream.codes(50_000, 500)
    order = (rows @ atoms.T).argmax(axis=1)
    assert np.corrcoef((x @ encoder + bias).ravel(), z[:, order].ravel())[0, 1] > 0.8


def test_padding_is_silent_and_only_held_rows_that_are_atoms_stand_still():
    of = task("grid", small(**CELLS, wide={"sae": {"n_features": 35}}))
    (group,) = grid_cells.groups(of)
    source, who = group.source(of), group.population(of)
    streams, plan = population.streams(source, who.members), plan_lanes(len(who.members), 1, 2)
    was = train._init(who, who.members, streams, plan, np.float32(2.0), make_mesh())
    state = start.at_truth(who, source)(was, plan, who.members, streams, 2.0)
    rate = np.asarray(state.knobs.decoder_rate)
    assert len(plan.members) == len(who.members) + 1 and rate.shape == (len(plan.members), 35, 1)  # the last lane only fills its group
    for lane, m in enumerate(plan.members):
        cell = who.cells[who.members[m].cell]
        n, atoms = cell.n_features, source.truths[cell.world].atoms_AD
        for name, behind in (("w_dec_FD", (slice(n, None),)), ("w_enc_DF", (slice(None), slice(n, None)))):
            before, after = (np.asarray(getattr(s.params, name))[lane] for s in (was, state))
            np.testing.assert_array_equal(after[behind], before[behind])
            assert (after == before).all() == (cell.start == RANDOM)
        bias, idle = np.asarray(state.params.b_enc_F)[lane], np.asarray(state.idle_steps_F)[lane]
        assert (bias[n:] == np.float32(NEVER)).all() and (np.abs(bias[:n]) < 100).all()
        assert (idle[:n] == 0).all() and (idle[n:] == -(2**30)).all()
        is_atom = (np.asarray(state.params.w_dec_FD)[lane, :n] @ atoms.T).max(axis=1) > 0.999
        assert cell.start == RANDOM or is_atom.sum() == min(n, len(atoms))
        held = is_atom if cell.start == HELD else np.zeros(n, bool)
        np.testing.assert_array_equal(rate[lane, :, 0], np.append(~held, np.ones(35 - n, bool)))
        assert (np.asarray(state.params.b_dec_D)[lane] == 0).all() == (cell.start != RANDOM)


def test_stopped_in_training_a_grid_ends_with_the_same_bytes(tmp_path, monkeypatch):
    c = small(**CELLS)
    c.train.tokens, c.seeds = 6_000, (2,)
    whole = run_stage("grid", c, tmp_path / "whole")
    asked = []

    def stop_requested():
        asked.append(1)
        if len(asked) in (3, 7):
            interrupts._requested.append("SIGTERM")
        return bool(interrupts._requested)

    monkeypatch.setattr(interrupts, "stop_requested", stop_requested)
    for step in (24, 56):
        with pytest.raises(interrupts.Stopped, match=f"train saved at step {step} of"):
            run_stage("grid", c, tmp_path / "stopped")
        interrupts.reset()
    again = run_stage("grid", c, tmp_path / "stopped")
    assert [p.relative_to(tmp_path / "stopped") for p in again] == [p.relative_to(tmp_path / "whole") for p in whole]
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in whole]


def test_a_held_decoder_stays_at_the_truth_while_the_encoder_learns(finished):
    of, _ = finished
    (group,) = grid_cells.groups(of)
    atoms = group.source(of).truths[0].atoms_AD
    held, free = (saes(of, "crowded", at) for at in (HELD, TRUTH))
    np.testing.assert_allclose(np.einsum("sfd,ad->sfa", held.w_dec_SFD, atoms).max(axis=2), 1.0, atol=1e-5)
    assert np.einsum("sfd,ad->sfa", free.w_dec_SFD, atoms).max(axis=2).min() < 0.999
    assert np.abs(held.w_enc_SFD - free.w_enc_SFD).max() > 0.01


def test_figures_verdicts_and_page_are_there(finished):
    _, workdir = finished
    rows = read_records(workdir / "verdicts" / "verdicts.parquet")
    assert [r["cell"] for r in rows] == ["crowded", "easy"]
    assert all(r["rank"] == 3 and r["verdict"] and 0 <= r["kept"] <= 1 for r in rows)
    kept = {r["cell"]: r["kept"] for r in rows}
    assert kept["easy"] == 1.0  # three orthogonal-ish atoms, one at a time: nothing draws them away
    summary = json.loads((workdir / "verdicts" / "summary.json").read_text())
    whats = {c["what"] for c in summary["contrasts"]}
    assert whats == {"crowding", "the start"}
    cells = {(r["cell"], r["start"], r["figure"]): r["value"] for r in read_records(workdir / "verdicts" / "cells.parquet")}
    assert 0 < cells["crowded", "truth", "explained variance inside"] < 1
    seeds = read_records(workdir / "verdicts" / "seeds.parquet")
    assert {r["seeds"] for r in seeds} == {2, 3}
    page = (workdir / "report" / "index.html").read_text()
    assert "crowding" in page and "phase_rank_atoms_per_rank" in page and "block_3d" in page
    assert len((workdir / "report" / "phase_rank_atoms_per_rank.png").read_bytes()) > 10_000


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({}, "config.cells=.*at least one"),
        ({"a/b": {}}, "a name of letters"),
        ({"a": {"lm": {}}}, "config.cells.a.lm is no section"),
        ({"a": {"synthetic": {"block_rank": 99}}}, "block_rank=99"),
        ({"a": {"synthetic": {"nonsense": 1}}}, "config.cells.a.synthetic.nonsense=1: no field of config.synthetic"),
        ({"a": {"sae": {"k": "3"}}}, "sae.k='3': must be of type int"),
        ({"a": {"train": {"steps_per_dispatch": 7}}}, "train.checkpoint_every=80: must be a multiple of steps_per_dispatch=7"),
        ({"a": {"sae": {"variant": "gated"}}}, "sae.variant='gated': one of"),
        ({"a": {"sae": {"variant": "matryoshka"}}}, "sae.variant='matryoshka': one of"),
        ({"a": {"synthetic": {"blocks": 0, "block_atoms": 0, "block_active": 0}}}, "synthetic.blocks=0: cell 'a' has no block"),
        ({"a": {"synthetic": {"width": 30}}, "b": {}}, "synthetic.width, blocks and code_law must be the same"),
    ],
)
def test_cells_that_cannot_be_name_the_field(cells, says):
    with pytest.raises(ValueError, match=says):
        registry.validated(small(**cells))


def test_contrasts_and_reference_are_of_cells_there_are():
    c = small(**CELLS)
    c.contrasts = (("rank", "easy", "nobody"),)
    with pytest.raises(ValueError, match="config.contrasts"):
        registry.validated(c)
    c.contrasts, c.reference = (), "nobody"
    with pytest.raises(ValueError, match="config.reference='nobody'"):
        registry.validated(c)


def test_cells_that_rules_were_chosen_on_are_cells_there_are():
    c = synthetic_causes.get_config("tiny")
    c.tuned_on = ("nobody",)
    with pytest.raises(ValueError, match=r"config.tuned_on=\('nobody',\): some of the cells"):
        registry.validated(c)


def test_a_world_has_no_documents_and_no_moments_that_are_drawn_from():
    for field, value in (("halves", True), ("data", "gaussian")):
        c = small(**CELLS)
        c.train[field] = value
        with pytest.raises(ValueError, match="config.train.data=.*: a world has no stored rows"):
            registry.validated(c)


def test_what_cells_are_compared_for_is_nothing_that_their_saes_depend_on():
    c = small(**CELLS)
    was = {name: task(name, c).fingerprint() for name in ("grid", "verdicts")}
    c.reference, c.contrasts = "easy", (("crowding", "easy", "crowded"),)
    now = {name: task(name, c).fingerprint() for name in was}
    assert now["grid"] == was["grid"] and now["verdicts"] != was["verdicts"]
