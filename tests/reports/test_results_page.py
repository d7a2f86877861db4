"""What a run says of its page."""

import os

from etils import epath

from reports import headline
from reports.results import Results
from storage import files


def test_a_page_that_is_older_than_figures_is_said_to_be(tmp_path, capsys):
    root = epath.Path(tmp_path)
    for stage in ("stability", "function", "report"):
        (root / stage).mkdir()
        files.write_json(root / stage / "summary.json", {})
    headline.show_page(Results(root, ("stability", "report")))
    assert capsys.readouterr().out == ""
    (root / "report" / "index.html").write_text("")
    os.utime(tmp_path / "stability" / "summary.json", (1, 1))
    headline.show_page(Results(root, ("stability", "report")))
    assert capsys.readouterr().out == f"\nreport: {root / 'report' / 'index.html'}\n"
    os.utime(tmp_path / "report" / "index.html", (0, 0))
    headline.show_page(Results(root, ("stability", "function", "report")))
    assert capsys.readouterr().out.endswith("index.html, older than stability, function: run the stage 'report' too\n")
