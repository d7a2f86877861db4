import jinja2

from interpret.contexts import Context
from reports import page, text


def test_text_of_contexts_cannot_become_markup():
    source = jinja2.Environment(autoescape=True).from_string("{{ c.before }}<mark>{{ c.token }}</mark>{{ c.after }}")
    shown = source.render(c=Context("<script>alert(1)</script>", "&", "</div>", "x"))
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "&amp;" in shown
    template = (page.importlib.resources.files("reports") / "page.html.jinja").read_text()
    assert template.count("| safe") == 2  # the library and the figures' specs, neither of them text from outside


def test_specs_cannot_end_their_script():
    assert "</script" not in page._script_json({"name": "</script><b>\u2028"})


def test_numbers():
    assert [text.number(x) for x in (None, 3, 1234567, 0.0, 0.12345, 0.00001234, 12.0)] == [
        "–",
        "3",
        "1,234,567",
        "0",
        "0.123",
        "1.2e-05",
        "12",
    ]
    assert text.with_interval({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.5 [0.25, 0.75]"
    assert text.with_interval({"value": None, "low": None, "high": None}) == "not measured"
