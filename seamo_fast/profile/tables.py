"""Tables as text and as CSV, and horizontal bars."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from seamo_fast.files import write_text
from seamo_fast.training.reporting.figures import new_figure, save_figure

Row = tuple[str | int | float, ...]


def as_text(header: Sequence[str], rows: Sequence[Row]) -> str:
    """Returns rows as aligned columns; the first is flush left, numbers have two decimals."""
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = []
    for line in cells:
        rest = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join([line[0].ljust(widths[0]), *rest]))
    return "\n".join(lines)


def _cell(value: str | float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Row]) -> None:
    """Writes rows as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def draw_bars(path: Path, charts: dict[str, dict[str, float]], unit: str) -> None:
    """Draws a chart of horizontal bars for each title.

    Args:
        path: A PNG.
        charts: For each title the bars, from top to bottom.
        unit: Of their lengths.
    """
    heights = [len(bars) + 2 for bars in charts.values()]
    figure = new_figure((8, 0.24 * sum(heights)))
    axes = figure.subplots(len(charts), squeeze=False, gridspec_kw={"height_ratios": heights})
    for axis, (title, bars) in zip(axes[:, 0], charts.items(), strict=True):
        drawn = axis.barh(list(bars), list(bars.values()))
        axis.bar_label(drawn, fmt="%.1f", padding=2, fontsize=7)
        axis.margins(x=0.08)
        axis.invert_yaxis()
        axis.tick_params(labelsize=7)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(unit, fontsize=7)
    save_figure(figure, path)
