"""What all figures share: a chart with what is said of it, and one look."""

from typing import Any, NamedTuple

import altair as alt

WIDTH, HEIGHT = 450, 290
NULL_COLOUR = "#bdbdbd"


class Figure(NamedTuple):
    """A chart with its file name, title, and the sentence that says what it shows."""

    name: str
    title: str
    sentence: str
    chart: alt.TopLevelMixin


def data(records: list[dict[str, Any]]) -> alt.Data:
    return alt.Data(values=records)


def banded(base: alt.Chart, title: str, tooltip: list[Any], opacity: float = 0.2, **marks: Any) -> alt.LayerChart:
    """A share between 0 and 1 as a line with points in the band of its interval: columns value, low, high."""
    band = base.mark_area(opacity=opacity, **marks).encode(y=alt.Y("low:Q", title=""), y2="high:Q")
    y = alt.Y("value:Q", title=title, scale=alt.Scale(domain=[0, 1]))
    result: alt.LayerChart = band + base.mark_line(point=True, **marks).encode(y=y, tooltip=tooltip)
    return result


def sized(chart: alt.Chart | alt.LayerChart, height: int = HEIGHT, width: int = WIDTH) -> alt.TopLevelMixin:
    return styled(chart.properties(width=width, height=height))


def styled(chart: Any) -> alt.TopLevelMixin:
    """Legends below, so that every figure has the same width; one font in page and PNG."""
    chart = chart.configure(font="Liberation Sans, Arial, sans-serif")  # first: it replaces what was configured before
    chart = chart.configure_legend(orient="bottom", columns=3, labelLimit=260, symbolLimit=50, titleLimit=200, symbolOpacity=1)
    result: alt.TopLevelMixin = chart.configure_view(stroke=None).configure_axis(gridColor="#eaeef2")
    return result
