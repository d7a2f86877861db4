"""How often rules say yes: the committed table, what it must show, and what `--plan` says of it."""

import json

import pytest

from experiments.robustness import power

KNOWN = json.loads(power.FILE.read_text())


def test_the_table_has_every_claim_by_what_its_size_counts():
    assert KNOWN.keys() == {"C1", "C6", *power.LAWS}
    for claim, entry in KNOWN.items():
        counted, sizes = (power.GROUPS, power.POOLS) if claim == "C6" else (power.SEEDS, power.SIZES)
        assert entry["size"] == counted and list(entry["power"]) == [str(s) for s in sizes] and entry["law"]


@pytest.mark.parametrize("claim", list(power.LAWS))
@pytest.mark.parametrize("seeds", [6, 21])
def test_the_table_is_what_the_simulation_gives(claim, seeds):
    assert power.power(claim, seeds) == pytest.approx(KNOWN[claim]["power"][str(seeds)], abs=5e-3)  # last bits of a processor


def test_c1_by_fewer_tables():
    assert power.power("C1", 6, 25) == pytest.approx(KNOWN["C1"]["power"]["6"], abs=0.25)


def test_c6_is_what_the_simulation_gives():
    assert power.power("C6", 3) == pytest.approx(KNOWN["C6"]["power"]["3"], abs=5e-3)


def test_power_of_c6_rises_with_groups(monkeypatch):
    values = [*KNOWN["C6"]["power"].values()]
    assert values == sorted(values) and values[0] < values[-1]
    for name in ("LONG", "TUNED"):
        monkeypatch.setattr(power, name, getattr(power, name)._replace(explained=0.009))  # half the distance from the margin
    assert power.power("C6", 3, 60) + 0.2 < power.power("C6", 6, 60)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shared", {power.ALL: 0.45, power.LIVE: 0.69}),  # by the margin less than SAEs trained on alike and longer
        ("explained", -0.02),
    ],
)
def test_c6_asks_for_every_figure(monkeypatch, field, value):
    monkeypatch.setattr(power, "POOLED", power.POOLED._replace(**{field: value}))
    assert power.power("C6", 5, 20) == 0


def test_a_margin_of_nothing_is_rarely_a_yes(monkeypatch):
    """At the threshold itself an interval lies above it in 1 of 40."""
    monkeypatch.setitem(power.LAWS, "C3b", power.Stated("", (power.Law(0.0, 0.1),)))
    assert power.power("C3b", 8, 4000) == pytest.approx(0.025, abs=0.01)


def test_plan_names_rules_that_are_too_weak(monkeypatch):
    monkeypatch.setattr(power, "at_size", lambda size, counted: {"C1": 0.9, "C7": 0.3})
    assert power.text(8).endswith("too small to tell: C7 (0.30); C1 0.90")
    monkeypatch.undo()
    assert "decide no claim" in power.text(5) and power.at_size(7) == power.at_size(6)


def test_plan_says_what_trained_worlds_said(monkeypatch, tmp_path):
    entry = {"seeds": 8, "true": {"yes": 3, "no": 1, "undecided": 4}}
    monkeypatch.setattr(power, "WORLDS", tmp_path / "worlds.json")
    power.WORLDS.write_text(json.dumps({"C4": entry, "C5": entry | {"true": {"yes": 8, "no": 0, "undecided": 0}}}))
    assert power.on_worlds() == "power on trained worlds of 8 SAEs, plateau aside: C4 3 of 8 (no 1), C5 8 of 8"


def test_plan_says_c6_of_pools_alone():
    assert "C6" not in power.text(21) and power.at_size(3, power.GROUPS).keys() == {"C6"}
    assert "at 3 independent pools" in power.text(3, power.GROUPS) and "C6" in power.text(3, power.GROUPS)
    assert power.text(2, power.GROUPS) == "power: 2 independent pools decide no claim (config.claims.c6_groups)"
