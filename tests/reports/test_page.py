import numpy as np

from experiments.interpretation import feature_table
from experiments.pooling import pool_charts
from experiments.subspaces.report import Subspace
from interpret.contexts import Context
from reports import page, text
from reports.claims import Claim
from reports.results import Results
from storage.tables import write_table


def test_text_from_outside_cannot_become_markup():
    """The page's own template, with hostile text wherever text comes in."""
    bad = "<script>alert(1)</script>&"
    example = page.Example(0, 1, "stable", bad, bad, [(1.0, Context(bad, bad, bad, bad))])
    numbers = ("features_per_seed", "agreement_of_halves", "span_agreement", "span_agreement_null", "p_value", "p", "p_by_chance")
    subspace = Subspace({"entry": bad, "rank": 4, "seeds": bad} | dict.fromkeys(numbers, 0.5), [(1.0, Context(bad, bad, bad, bad))])
    claim = Claim(bad, bad, bad, bad, bad)
    summary = {"seeds": [0, 1], "epsilon": 0.05, "theta": 0.7, "confidence": 0.95, "evaluation_rows": 5}
    summary["saes"] = {"kind": bad, "n_features": 3, "k": 2, "of": bad, "training": bad}
    row = dict.fromkeys(("name", "value", "null", "n", "unit", "meaning"), bad)
    shown = page.template().render(
        title=bad, vega="", figures=[{"name": "a", "title": bad, "sentence": bad, "spec": page._script_json({"x": bad})}], rows=[row],
        remarks=[bad], claims=[claim], examples=[example], subspaces=[subspace], study=page.StudyFacts(bad, 0.7, 0.95, 1.0), summary=summary,
        features={"json": page._script_json({"columns": [bad], "rows": [[bad]], "opened": [{"details": [[bad, bad]], "contexts": [[bad] * 5]}]}), "left_out": 3},
    )  # fmt: skip
    assert "<script>alert" not in shown and shown.count("&lt;script&gt;alert") > 15


def test_specs_cannot_end_their_script():
    assert "</script" not in page._script_json({"name": "</script><b>\u2028"})


def test_numbers():
    shown = {None: "–", 3: "3", 1234567: "1,234,567", 0.0: "0", 0.12345: "0.123", 0.00001234: "1.2e-05", 12.0: "12", 1e-18: "< 1e-9"}
    assert {value: text.number(value) for value in shown} == shown
    assert text.with_interval({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.5 [0.25, 0.75]"
    assert text.with_interval({"value": None, "low": None, "high": None}) == "not measured"


def test_the_table_of_features_takes_what_is_there(tmp_path):
    places = [(0, 0), (0, 1), (1, 0)]
    seed, feature = (np.array(x) for x in zip(*places, strict=True))
    common = {"seed": seed, "feature": feature}
    write_table(
        tmp_path / "stability" / "features.parquet",
        common | {"label": np.array(["stable", "unstable", "unstable"]), "p": np.array([1.0, 0.0, 0.123456])},
    )
    write_table(tmp_path / "splice" / "features.parquet", {"seed": seed[:1], "feature": feature[:1], "ce_per_firing": np.array([0.5])})
    write_table(
        tmp_path / "statistics" / "features.parquet",
        common | {"surface_score": np.array([0.9, np.nan, 0.1]), "predictor": np.array(["is «x»", "", "digits"])},
    )
    results = Results(tmp_path, ("stability", "splice", "statistics"))
    assert feature_table.listed_places(results) == places
    found = feature_table.table(results, places[1:], lambda place: [(2.0, Context("a", "b", "c", str(place)))])
    assert found["columns"] == ["seed", "feature", "label", "p̂", "surface form"] and found["left_out"] == 1
    assert found["rows"] == [[0, 1, "unstable", 0.0, None], [1, 0, "unstable", 0.1235, 0.1]]
    assert found["opened"][0] == {"details": [], "contexts": [["2.00", "a", "b", "c", "(0, 1)"]]}
    assert found["opened"][1]["details"] == [["best predictor of firing", "digits"]]
    assert feature_table.table(results, places, lambda place: [])["columns"][-2:] == ["CE per firing", "surface form"]


def test_of_too_many_features_an_even_part_is_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_table, "MOST_LISTED", 10)
    columns = {"seed": np.repeat([0, 1], 25), "feature": np.tile(np.arange(25), 2)}
    write_table(tmp_path / "stability" / "features.parquet", columns)
    places = feature_table.listed_places(Results(tmp_path, ("stability",)))
    assert len(places) == 10 and sum(seed == 0 for seed, _ in places) == 5


def test_a_pool_that_has_no_more_features_is_one_point():
    asked = ((128, 0.9, 0.5), (256, 0.8, 0.6), (512, 0.8, 0.6), (1024, None, None))
    rows = [
        {"over": "features", "kind": "pool", "at": float(n), "figure": figure, "value": value}
        for n, p, explained in asked
        for figure, value in (("p", p), ("explained", explained))
    ]
    found = pool_charts._over_features(rows, "pool")
    assert sorted((r["features"], r["p_value"], r["explained_value"]) for r in found) == [(128, 0.9, 0.5), (256, 0.8, 0.6)]
    assert not pool_charts._over_features(rows, "stable features")


def test_without_the_converter_the_page_is_written_and_says_what_is_missing(tmp_path, monkeypatch, capsys):
    """As where vl-convert is not installed."""
    import types

    import altair as alt
    from etils import epath

    from reports.chart import Figure

    figure = Figure("one", "One", "It shows one point.", alt.Chart(alt.Data(values=[{"x": 1}])).mark_point().encode(x="x:Q"))
    template = types.SimpleNamespace(render=lambda **values: values["vega"])
    monkeypatch.setattr(page, "template", lambda name: template)
    settings = page.StudyFacts("a page", 0.7, 0.95, 1.0)
    whole = page.write(epath.Path(tmp_path / "with"), "x", [figure], settings)
    assert [p.name for p in whole] == ["index.html", "one.png"] and whole[1].read_bytes().startswith(b"\x89PNG")
    assert len(whole[0].read_text()) > 100_000 and "src=" not in whole[0].read_text()[:200]
    monkeypatch.setattr(page, "vl_convert", None)
    alone = page.write(epath.Path(tmp_path / "without"), "x", [figure], settings)
    assert [p.name for p in alone] == ["index.html"] and alone[0].read_text().count("<script src=") == 3
    assert "vl-convert-python is not installed, so there are no PNG copies" in capsys.readouterr().out
