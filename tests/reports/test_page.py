from configs import common
from interpret.contexts import Context
from launch.config import validated
from reports import page, text
from reports.claims import Claim


def test_text_from_outside_cannot_become_markup():
    """The page's own template, with hostile text wherever text comes in."""
    bad = "<script>alert(1)</script>&"
    example = page.Example(0, 1, "stable", bad, bad, [(1.0, Context(bad, bad, bad, bad))])
    numbers = ("features_per_seed", "agreement_of_halves", "span_agreement", "span_agreement_null", "p_value", "p", "p_by_chance")
    subspace = page.Subspace({"entry": bad, "rank": 4, "seeds": bad} | dict.fromkeys(numbers, 0.5), [(1.0, Context(bad, bad, bad, bad))])
    claim = Claim(bad, bad, bad, bad, bad)
    summary = {"seeds": [0, 1], "epsilon": 0.05, "theta": 0.7, "confidence": 0.95, "evaluation_rows": 5}
    summary["saes"] = {"kind": bad, "n_features": 3, "k": 2, "of": bad, "training": bad}
    row = dict.fromkeys(("name", "value", "null", "n", "unit", "meaning"), bad)
    shown = page.template().render(
        title=bad, vega="", figures=[{"name": "a", "title": bad, "sentence": bad, "spec": page._script_json({"x": bad})}], rows=[row],
        remarks=[bad], claims=[claim], examples=[example], subspaces=[subspace], settings=validated(common.study()), summary=summary,
        reasons={"rows": page._script_json([{"seed": 0, "feature": 1, "reason": bad}]), "left_out": 0},
    )  # fmt: skip
    assert "<script>alert" not in shown and shown.count("&lt;script&gt;alert") > 15


def test_specs_cannot_end_their_script():
    assert "</script" not in page._script_json({"name": "</script><b>\u2028"})


def test_numbers():
    shown = {None: "–", 3: "3", 1234567: "1,234,567", 0.0: "0", 0.12345: "0.123", 0.00001234: "1.2e-05", 12.0: "12", 1e-18: "< 1e-9"}
    assert {value: text.number(value) for value in shown} == shown
    assert text.with_interval({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.5 [0.25, 0.75]"
    assert text.with_interval({"value": None, "low": None, "high": None}) == "not measured"
