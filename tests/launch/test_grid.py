"""A grid of worlds: which cells share a program, padding that is not there, the start at the truth, what is told of cells."""

import json

import numpy as np
import pytest
from etils import epath

from configs import common, synthetic_controls, synthetic_phase
from launch import config, dictionary_list, grid, roster
from launch.sources import SyntheticSource
from launch.stages import grid as stage
from launch.stages import report, verdicts
from storage.tables import read_records


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
    settings, workdir = config.validated(c), epath.Path(tmp_path_factory.mktemp("grid"))
    for module, name in ((stage, "grid"), (verdicts, "verdicts"), (report, "report")):
        (workdir / name).mkdir()
        module.run(settings, workdir)
    return settings, workdir


def test_cells_share_a_program_unless_their_shapes_or_steps_differ():
    settings = config.validated(synthetic_controls.get_config())
    groups = grid.groups(settings)
    assert sorted(len(g.cells) for g in groups) == [1, 1, 1, 6]
    largest = max(groups, key=lambda g: len(g.cells))
    assert (largest.sae.n_features, largest.sae.k) == (320, 10)
    phase = grid.groups(config.validated(synthetic_phase.get_config()))
    assert sum(len(g.cells) for g in phase) == 45 and len(phase) <= 2


def test_every_cell_has_its_own_world_and_all_rates_are_what_the_diagram_says():
    for cell in config.validated(synthetic_phase.get_config()).cells:
        at = dict(cell.at)
        assert cell.synthetic.block_rank == at["rank"]
        assert cell.synthetic.block_rate == pytest.approx(at.get("firing rate", 0.01))
        assert cell.synthetic.block_atoms == at["rank"] * at.get("atoms per rank", 4)
        assert cell.sae.n_features == cell.synthetic.free_atoms + cell.synthetic.block_atoms and cell.sae.k == cell.synthetic.active


def test_dictionaries_have_their_own_size_and_padding_leaves_no_trace(finished):
    settings, workdir = finished
    for name, features, k in (("easy", 19, 3), ("crowded", 28, 4)):
        for start in roster.STARTS:
            home = workdir / "grid" / "group-0" / "train" / "cells" / roster.cell_name(name, start)
            listed = dictionary_list.load(home / "dictionaries.json")
            assert listed.w_dec_SFD.shape == (3, features, 24) and [d.k for d in listed.dictionaries] == [k] * 3
            assert max(np.abs(d.b_enc_F).max() for d in listed.dictionaries) < 100
    summary = json.loads((workdir / "grid" / "group-0" / "train" / "summary.json").read_text())
    assert [c["l0"]["value"] for c in summary["cells"]] == pytest.approx([4, 4, 4, 3, 3, 3], abs=0.05)


def test_a_cell_alone_is_the_cell_among_others(finished, tmp_path):
    """Padding, other worlds and other starts beside it change it by no more than rounding in its tokens does."""
    settings, workdir = finished
    alone = config.validated(small(crowded={}))
    stage.run(alone, epath.Path(tmp_path))
    of = lambda where: dictionary_list.load(
        where / "grid" / "group-0" / "train" / "cells" / roster.cell_name("crowded", "random") / "dictionaries.json"
    )
    cosine = np.sum(of(workdir).w_dec_SFD * of(epath.Path(tmp_path)).w_dec_SFD, axis=-1)
    assert np.median(cosine) > 0.98  # one scale for all worlds of a grid, so not the same to the last digit


def test_saes_from_the_truth_begin_there(tmp_path):
    settings = config.validated(small(**CELLS))
    (group,) = grid.groups(settings)
    source = SyntheticSource(group)
    members = roster.members(group)
    cells = roster.cells(group)
    place = next(i for i, m in enumerate(members) if cells[m.cell].start == "truth" and cells[m.cell].n_features == 19)
    stream = source.stream(0, None, members[place].world)
    from saes.lanes import initial_keys

    world = members[place].world
    rows, encoder, bias, atom = grid._at_truth(
        initial_keys(np.array([0]))[0], source.truths[world], source.energies[world], stream, 19, 2.0
    )
    assert sorted(atom) == list(range(19))
    atoms = source.truths[members[place].world].atoms_AD
    np.testing.assert_allclose((rows @ atoms.T).max(axis=1), 1.0, atol=1e-5)
    x, z = 2.0 * stream.rows(50_000, 500), 2.0 * stream.codes(50_000, 500)
    order = (rows @ atoms.T).argmax(axis=1)
    assert np.corrcoef((x @ encoder + bias).ravel(), z[:, order].ravel())[0, 1] > 0.8


def test_a_held_decoder_stays_at_the_truth_while_the_encoder_learns(finished):
    settings, workdir = finished
    (group,) = grid.groups(settings)
    atoms = SyntheticSource(group).truths[0].atoms_AD
    of = lambda start: dictionary_list.load(workdir / "grid" / "group-0" / "train" / "cells" / roster.cell_name("crowded", start) / "dictionaries.json")  # fmt: skip
    held, free = (of(start) for start in (roster.HELD, roster.TRUTH))
    np.testing.assert_allclose(np.einsum("sfd,ad->sfa", held.w_dec_SFD, atoms).max(axis=2), 1.0, atol=1e-5)
    assert np.einsum("sfd,ad->sfa", free.w_dec_SFD, atoms).max(axis=2).min() < 0.999
    assert np.abs(held.w_enc_SFD - free.w_enc_SFD).max() > 0.01


def test_figures_verdicts_and_page_are_there(finished):
    settings, workdir = finished
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
        ({}, "config.cells"),
        ({"a/b": {}}, "a name of letters"),
        ({"a": {"lm": {}}}, "config.cells.a.lm is no section"),
        ({"a": {"synthetic": {"block_rank": 99}}}, "block_rank=99"),
        ({"a": {"synthetic": {"nonsense": 1}}}, "config.cells.a.synthetic.nonsense is no field"),
        ({"a": {"sae": {"variant": "gated"}}}, "sae.variant='gated': one of"),
        ({"a": {"sae": {"variant": "matryoshka"}}}, "sae.variant='matryoshka': one of"),
        ({"a": {"synthetic": {"blocks": 0, "block_atoms": 0, "block_active": 0}}}, "synthetic.blocks=0: cell 'a' has no block"),
        ({"a": {"synthetic": {"width": 30}}, "b": {}}, "synthetic.width, blocks and code_law must be the same"),
    ],
)
def test_cells_that_cannot_be_name_the_field(cells, says):
    with pytest.raises(ValueError, match=says):
        config.validated(small(**cells))


def test_contrasts_and_reference_are_of_cells_there_are():
    c = small(**CELLS)
    c.contrasts = (("rank", "easy", "nobody"),)
    with pytest.raises(ValueError, match="config.contrasts"):
        config.validated(c)
    c.contrasts, c.reference = (), "nobody"
    with pytest.raises(ValueError, match="config.reference='nobody'"):
        config.validated(c)
