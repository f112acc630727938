"""The drawings of an evaluation."""

from __future__ import annotations

from markupsafe import Markup

from veilwatch.report.catalogue import Text
from veilwatch.report.charts import curve_class, rates_plot, stroke
from veilwatch.report.evaluation.document import Figures

__all__ = ["roc_plot", "stroke"]


def roc_plot(levels: dict[str, Figures], text: Text) -> Markup:
    """Draw detection rate against the logarithm of the false-positive rate, a line a level."""
    curves = [
        (curve_class(list(levels).index(name)), sorted(figures.curve))
        for name, figures in levels.items()
        if figures.curve
    ]
    return rates_plot(curves, text("plot.roc_title"), text("plot.roc_x"), text("plot.roc_y"))
