"""A stage is one file in a room: it is found, validated, planned and run, and what does not keep to the contract is refused by name."""

import importlib
import json
import re
import sys

import ml_collections
import numpy as np
import pyarrow.parquet as pq
import pytest
from etils import epath

from configs import compare, quickstart
from experiments import registry
from experiments.data.seeds import Seeds
from launch import describe, plan
from launch import run as runner
from runtime import interrupts
from saes.dictionary import Dictionary
from saes.formats import saelens
from tests.stability import planted

TOY = '''"""Stage: a toy."""

from experiments.data.costs import Cost
from experiments.data.seeds import Seeds
from experiments.fields import config, field
from experiments.stage import Stage


@config("toy")
class Toy:
    """What is counted."""

    n: int = field(default=3, doc="of what is counted", gt=0)
    how_many: int = field(default=1, doc="at a time", how=True)


STAGE = Stage(config=Toy, optional=(Seeds,), needs=({needs}))


def run(task, out):
    n = task.section(Toy).n
    out.table("counts", {{"n": list(range(n))}})
    out.summary({{"n": n}})
'''
COST = """

def cost(settings, size, on):
    return Cost("toy", settings[Toy].n, 5e12, 0.0, 0.0, 0.0, "match")
"""


def toy(needs=""):
    return TOY.format(needs=f"{needs!r}," if needs else "")


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Puts files into a room; the house is looked through anew."""
    folder = tmp_path / "room"
    folder.mkdir()
    package = importlib.import_module("experiments.reappearance")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    names = []

    def put(**files):
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
            names.append(name)
        importlib.invalidate_caches()
        registry.house.cache_clear()

    yield put
    monkeypatch.undo()
    for name in names:
        sys.modules.pop(f"experiments.reappearance.{name}", None)
        if hasattr(package, name):
            delattr(package, name)
    registry.house.cache_clear()


def names():
    return list(registry.house().stages)


def test_one_file_is_a_stage(room):
    before = names()
    assert "toy" not in before
    room(toy=toy("stability"), a_later=toy("toy").replace('"toy")', '"later")'))
    found = names()
    assert [name for name in found if name not in ("toy", "a_later")] == before
    assert found.index("stability") < found.index("toy") < found.index("a_later")
    stage = registry.house().stages["toy"]
    assert (stage.name, stage.room, stage.needs) == ("toy", "reappearance", ("stability",)) and stage.config in registry.house().classes


def test_its_section_is_in_default_configs_and_described(room):
    room(toy=toy())
    c = registry.default_config(("toy",))
    assert c.toy.to_dict() == {"n": 3, "how_many": 1} and c.stages == ("toy",)
    (task,) = registry.tasks(registry.validated(c), epath.Path())
    assert task.fingerprint() == {"toy.n": 3}
    c.toy.n = 4
    assert "* toy.n = 4 (default 3): of what is counted" in describe.text(c) and "| `toy.n` |" in describe.page()
    c.toy.n = 0
    with pytest.raises(ValueError, match="config.toy.n=0: must be above 0"):
        registry.validated(c)


def with_toy(c):
    c.stages = (*c.stages, "toy")
    c.toy = registry.default_config(("toy",)).toy
    return registry.validated(c)


def test_what_it_needs_must_be_there(room):
    room(toy=toy("stability"))
    c = registry.default_config(("toy",))
    with pytest.raises(ValueError, match=r"config.stages=\('toy',\): 'toy' reads what 'stability' writes"):
        registry.validated(c)


def test_its_cost_is_in_the_plan_and_without_one_it_is_not_planned(room):
    on = plan.hardware("h100", "float32")
    room(toy=toy("stability"))
    found, unplanned = plan.of_tasks(with_toy(quickstart.get_config("tiny")), on)
    assert "toy" in unplanned and "toy" not in [cost.stage for cost in found]
    room(toy_with_cost=toy("stability").replace('"toy")', '"priced")') + COST)
    c = quickstart.get_config("tiny")
    c.stages, c.priced = (*c.stages, "toy_with_cost"), registry.default_config(("toy_with_cost",)).priced
    settings = registry.validated(c)
    found, unplanned = plan.of_tasks(settings, on)
    (cost,) = [cost for cost in found if cost.stage == "toy_with_cost"]
    assert (cost.tokens, cost.flops) == (3, 5e12) and "toy_with_cost" not in unplanned
    text = plan.text(settings, on)
    (unplanned_line,) = [line for line in text.splitlines() if line.startswith("not planned: ")]
    assert "toy_with_cost" in text and "toy_with_cost" not in unplanned_line


def go(c, workdir, overwrite=False):
    interrupts.reset()
    runner.run(c, registry.validated(c), epath.Path(workdir), [], "", overwrite)


@pytest.fixture
def measured(tmp_path):
    """A comparison of SAEs, of stages that take a second."""
    rng = np.random.default_rng(0)
    shared = planted.anywhere(rng, 10, 24)
    for seed in range(3):
        rows = np.concatenate([shared, planted.anywhere(rng, 10, 24)]).astype(np.float32)
        sae = Dictionary(rows.T.copy(), np.zeros(20, np.float32), rows, np.zeros(24, np.float32), architecture="standard")
        saelens.save(epath.Path(tmp_path) / "saes" / f"seed-{seed}", sae, {"model_name": "small", "seed": seed})
    c = compare.get_config()
    c.stages, c.saes, c.stability.null_draws = ("collect", "stability"), str(tmp_path / "saes"), 1
    return c


def test_it_runs_on_what_other_stages_wrote(room, measured, tmp_path, capsys):
    text = toy("stability").replace(
        "    n = task", '    assert task.has("stability") and task.summary("stability")["mean_p_all"]\n    n = task'
    )
    room(toy=text.replace("list(range(n))", 'task.table("stability/features", ["p"])["p"][:n]'))
    with_toy(measured)
    go(measured, tmp_path / "w")
    features, counts = (pq.read_table(tmp_path / "w" / f"{name}.parquet") for name in ("stability/features", "toy/counts"))
    assert counts["n"].to_pylist() == features["p"].to_pylist()[:3]
    assert json.loads((tmp_path / "w" / "summary.json").read_text())["toy"] == {"n": 3}
    record = json.loads((tmp_path / "w" / "toy" / "stage.json").read_text())
    assert record["fingerprint"]["config"] == {"toy.n": 3} and record["fingerprint"]["inputs"].keys() == {"stability"}
    assert record["outputs"].keys() == {"counts.parquet", "summary.json"}
    measured.toy.how_many = 8
    capsys.readouterr()
    go(measured, tmp_path / "w")
    assert "toy: done already, skipped" in capsys.readouterr().out
    measured.toy.n = 2
    go(measured, tmp_path / "w")
    said = capsys.readouterr().out
    assert "toy: its config or inputs changed, running again" in said and said.count("done already, skipped") == 2


IN_PARTS = """
MADE, FAILS = [], [True]


def run(task, out):
    def one(number):
        if FAILS[0] and number == 2:
            raise RuntimeError("killed")
        MADE.append(number)
        return {"number": number, "x": np.full(3, number)}

    found = [out.part(f"number {number}", lambda: one(number)) for number in (1, 2)]
    out.table("counts", {"n": [part["number"] for part in found]})
"""


def in_parts():
    return "import numpy as np\n" + toy().split("def run")[0] + IN_PARTS


def test_a_stage_that_was_killed_does_not_make_again_what_it_had(room, tmp_path):
    room(toy=in_parts())
    c = registry.default_config(("toy",))
    module, folder = registry.house().stages["toy"].module, tmp_path / "w" / "toy"
    with pytest.raises(RuntimeError, match="killed"):
        go(c, tmp_path / "w")
    (part,) = (folder / "parts").iterdir()
    assert module.MADE == [1] and part.name.startswith("number_1-")
    assert f"parts/{part.name}" in (folder / "written.txt").read_text()
    module.FAILS[0] = False
    go(c, tmp_path / "w")
    assert module.MADE == [1, 2] and not (folder / "parts").exists()
    assert pq.read_table(folder / "counts.parquet")["n"].to_pylist() == [1, 2]
    assert sorted(p.name for p in folder.iterdir()) == ["counts.parquet", "stage.json", "written.txt"]
    go(c, tmp_path / "w")
    assert module.MADE == [1, 2]


@pytest.mark.parametrize("change", ["damaged", "config"])
def test_a_damaged_part_and_one_of_another_config_are_made_again(room, tmp_path, change):
    room(toy=in_parts())
    c = registry.default_config(("toy",))
    module, folder = registry.house().stages["toy"].module, tmp_path / "w" / "toy"
    with pytest.raises(RuntimeError, match="killed"):
        go(c, tmp_path / "w")
    (part,) = (folder / "parts").iterdir()
    if change == "damaged":
        data = part.read_bytes()
        part.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    else:
        c.toy.n = 5
    module.FAILS[0] = False
    go(c, tmp_path / "w")
    assert module.MADE == [1, 1, 2] and not (folder / "parts").exists()
    assert not list((tmp_path / "w").glob("*.replaced-*"))


def test_parts_that_a_kill_left_beside_complete_results_are_removed(room, tmp_path):
    room(toy=in_parts())
    c = registry.default_config(("toy",))
    registry.house().stages["toy"].module.FAILS[0] = False
    go(c, tmp_path / "w")
    left = tmp_path / "w" / "toy" / "parts" / "number_1-00000000.part"
    left.parent.mkdir()
    left.write_bytes(b"")
    go(c, tmp_path / "w")
    assert not left.parent.exists()


def test_a_stage_runs_children_of_its_own_alone(room, tmp_path):
    parent = toy().replace('"toy")', '"parent")').replace("needs=()", 'children=("toy",)').split("def run")[0]
    parent = (
        "from experiments import registry\n"
        + parent
        + (
            "def run(task, out):\n"
            "    name = 'toy' if task.section(Toy).n == 3 else 'stability'\n"
            "    registry.run_child(task, name, task.folder / 'inside', task.settings.only('toy'))\n"
            "    out.json('x.json', task.settings.stages)\n"
        )
    )
    room(toy=in_parts(), parent=parent)
    c = registry.default_config(("parent", "toy"))
    c.stages = ("parent",)
    registry.house().stages["toy"].module.FAILS[0] = False
    go(c, tmp_path / "w")
    inside = tmp_path / "w" / "parent" / "inside" / "toy"
    assert (inside / "counts.parquet").exists() and not (inside / "parts").exists()
    c.toy.n = 4  # what a child reads counts as read by who runs it
    (task,) = registry.tasks(registry.validated(c), epath.Path())
    assert task.fingerprint() == {"parent.n": 3, "toy.n": 4}
    c.parent.n = 4
    with pytest.raises(LookupError, match="'parent' runs 'stability', which it does not declare"):
        go(c, tmp_path / "other")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"toy": toy().replace("def run", "def walk")}, r"the stage 'toy' has no function run\(task, out\)"),
        (
            {"toy": toy().replace("optional=(Seeds,)", "optional=(int,)")},
            "the stage 'toy' declares <class 'int'>, which is no config class",
        ),
        ({"toy": toy().replace("config=Toy", "config=Toy()")}, r"the stage 'toy' declares Toy\(.*\), which is no config class"),
        ({"toy": toy().replace("needs=()", "children=('nobody',)")}, "the stage 'toy' runs 'nobody', which is no stage"),
        ({"toy": toy("other"), "other": toy("toy").replace('"toy")', '"other")')}, "the stages .*other.*toy.* read each other in a circle"),
    ],
    ids=["no run", "no config class", "an instance", "no such child", "circle"],
)
def test_what_does_not_keep_to_the_contract_is_refused_by_name(room, files, says):
    room(**files)
    with pytest.raises(ValueError, match=says):
        registry.house()


def test_a_run_that_changes_an_unknown_field_is_refused():
    for changes, says in (
        ({"nonsense": 1}, "config.runs.again.nonsense: changes a field that this config has not"),
        ({"train": {"lr": 0.1, "nonsense": 1}}, "config.runs.again.train.nonsense: changes a field"),
        ({"atlas": {"nonsense": {"deep": 1}}}, "config.runs.again.atlas.nonsense.deep: changes a field"),
        ({"train": {"lr": "much"}}, "config.runs.again: config.train.lr='much': must be of type float"),
        ({"train": {"lr": -1.0}}, "config.runs.again: config.train.lr=-1.0: "),
        ({"seeds": 3}, "config.runs.again: config.seeds=3: must be a tuple"),
        ({"train": {"checkpoint_every": 801}}, "config.runs.again: config.train.checkpoint_every=801: must be a multiple of"),
    ):
        c = quickstart.get_config("tiny")
        c.runs.again = ml_collections.ConfigDict(changes)
        c.stages = (*c.stages, "again")
        with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
            registry.validated(c)


@pytest.mark.parametrize("name", ["stability", "train", "train/again", "again/train", "/again", "", "-again", "a//b", "a,b"])
def test_a_run_that_would_write_elsewhere_than_in_a_folder_of_its_own_is_refused(name):
    c = quickstart.get_config("tiny")
    c.runs[name] = ml_collections.ConfigDict({})
    with pytest.raises(ValueError, match=f"config.runs='{re.escape(name)}': a run is named as its folder"):
        registry.validated(c)


def test_new_seeds_are_those_that_the_study_does_not_have():
    c = quickstart.get_config("tiny")
    c.runs.again = ml_collections.ConfigDict({"new_seeds": 2})
    c.stages, c.seeds = (*c.stages, "again"), (3, 7, 5)
    (task,) = [task for task in registry.tasks(registry.validated(c), epath.Path()) if task.run == "again"]
    assert task.section(Seeds).list == (8, 9) and task.label == "again/train"
