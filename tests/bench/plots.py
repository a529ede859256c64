"""A question's plot: bars from nothing to the median, a line from the lowest to the highest."""

from __future__ import annotations

import io
from typing import Any

from .questions import Question, scale, shown

# Grey that can be read on white and on black alike: the page may be shown on either.
TEXT = "#7d7d7d"
RANGE = "#59636e"
OURS, PEERS, LIMIT = "#58a6ff", "#afb8c1", "#56b870"
INCHES_WIDE, INCHES_A_BAR, INCHES_AROUND = 7.2, 0.34, 0.75


def draw(question: Question) -> str:
    """Return the plot as SVG, on a transparent ground, the same for the same figures."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text: smaller, and set in the reader's own font
        "svg.hashsalt": question.key,
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": TEXT,
    }
    names = list(question.measured)
    medians = [question.median(name) for name in names]
    _, factor, unit = scale(max(medians), question.unit)
    with rc_context(settings):
        figure = Figure(figsize=(INCHES_WIDE, INCHES_AROUND + INCHES_A_BAR * len(names)))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        places = range(len(names))
        axes.barh(
            places,
            [median / factor for median in medians],
            color=[colour(question, name) for name in names],
            height=0.62,
        )
        # One slow round of a noisy machine must not squeeze the bars: lines are cut at the edge.
        edge = 1.3 * max(medians) / factor
        for place, name in zip(places, names, strict=True):
            values = question.measured[name]
            high = min(max(values) / factor, edge)
            axes.plot([min(values) / factor, high], [place, place], color=RANGE, linewidth=1.6)
            axes.annotate(
                shown(question.median(name), question.unit),
                (max(high, question.median(name) / factor), place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_xlim(0, edge * 1.18)
        axes.set_xlabel(f"{unit}, less is better", color=TEXT)
        axes.tick_params(colors=TEXT, length=0)
        axes.grid(axis="x", color=TEXT, alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        for side in axes.spines.values():
            side.set_visible(False)
        figure.tight_layout(pad=0.4)
        picture = io.StringIO()
        figure.savefig(picture, format="svg", transparent=True, metadata={"Date": None})
    return "\n".join(line.rstrip() for line in picture.getvalue().splitlines()) + "\n"


def colour(question: Question, name: str) -> str:
    """Return a contender's colour: ours, the limit's or a peer's."""
    if name in question.ours:
        return OURS
    return LIMIT if name == question.limit else PEERS
