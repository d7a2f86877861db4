"""Results of a run that are made up, with the same figures at a quarter and at half of training."""

from reports.results import Earlier, Results


class FinishedRun(Results):
    """`summary`: figures by stage; `earlier`: those at 250 and 500 of 1,000 training tokens, by default the same without their intervals' width."""

    def __init__(self, summary, earlier=None):
        self.summary, self._stages = summary, tuple(summary)
        self._earlier = earlier if earlier is not None else [exact(summary)] * 2

    @property
    def tokens(self):
        return 1000

    def earlier(self):
        return [Earlier(tokens, summary) for tokens, summary in zip((250, 500), self._earlier, strict=False)]


def exact(summary):
    """The same figures, each known exactly."""
    if not isinstance(summary, dict):
        return summary
    if {"value", "low", "high"} <= summary.keys() and summary["low"] is not None:
        return summary | {"low": summary["value"], "high": summary["value"]}
    return {name: exact(value) for name, value in summary.items()}


def moved(summary, change):
    """The figures at a quarter and at half where every one changes by so much per doubling of training tokens until the end."""
    return [_moved(exact(summary), -2 * change), _moved(exact(summary), -change)]


def _moved(summary, change):
    if not isinstance(summary, dict):
        return summary
    if {"value", "low", "high"} <= summary.keys() and summary["low"] is not None:
        return summary | {name: summary[name] + change for name in ("value", "low", "high")}
    return {name: _moved(value, change) for name, value in summary.items()}
