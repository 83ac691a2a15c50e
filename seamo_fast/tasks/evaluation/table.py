"""The results as tables: of text, of Markdown, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def main_metric(results: dict[str, Any]) -> str:
    """Returns the metric of the table: the task's first."""
    return next(iter(results["figures"]))


def as_text(results: dict[str, Any]) -> str:
    """Returns the table for a terminal, and below it the differences to the reference."""
    lines = [_title(results)]
    for rows in _tables(results):
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += [
            "",
            *(
                "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
                for row in rows
            ),
        ]
    return "\n".join(lines)


def as_markdown(results: dict[str, Any]) -> str:
    """Returns the same in Markdown."""
    lines = [_title(results)]
    for first, *rest in _tables(results):
        rule = ["---"] + ["---:"] * (len(first) - 1)
        lines += ["", *(f"| {' | '.join(row)} |" for row in (first, rule, *rest))]
    return "\n".join(lines) + "\n"


def _title(results: dict[str, Any]) -> str:
    items, config = results["items"], results["config"]
    share = config["train_fraction"]
    return (
        f"{results['dataset']}: {main_metric(results)} on {items['test']} test items with 95 % "
        f"intervals; {items['train']} train and {items['val']} validate"
        + (f", {share:g} of their labels are used" if share < 1 else "")
        + f"; seed {config['seed']}, {config['draws']} draws of few shots"
    )


def _tables(results: dict[str, Any]) -> list[list[list[str]]]:
    """Returns the cells of the table, and of the differences where there is more than a row."""
    columns = results["figures"][main_metric(results)]
    names = list(next(iter(columns.values())))
    head = list(columns)
    table = [["features", *head]]
    table += [[name, *(_value(columns[column][name]) for column in head)] for name in names]
    others = [name for name in names if name != results["reference"]]
    less = [[f"less {results['reference']}", *head]]
    less += [[name, *(_difference(columns[column][name]) for column in head)] for name in others]
    return [table, less] if others else [table]


def _value(figures: dict[str, float]) -> str:
    return f"{figures['value']:.3f} ({figures['low']:.3f}-{figures['high']:.3f})"


def _difference(figures: dict[str, float]) -> str:
    low, high = figures["difference_low"], figures["difference_high"]
    return f"{figures['difference']:+.3f} ({low:+.3f} to {high:+.3f})"


def draw(results: dict[str, Any]) -> Figure:
    """Returns the table as bars with intervals, a group for each column."""
    from matplotlib.figure import Figure  # takes half a second, and only figures need it

    metric = main_metric(results)
    columns = results["figures"][metric]
    names = list(next(iter(columns.values())))
    figure = Figure(figsize=(1.5 + 1.3 * len(columns), 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        cells = [column[name] for column in columns.values()]
        places = [at + (number - (len(names) - 1) / 2) * width for at in range(len(cells))]
        axes.bar(places, [cell["value"] for cell in cells], width, label=name)
        axes.errorbar(
            places,
            [cell["value"] for cell in cells],
            _spread(cells),
            fmt="none",
            ecolor="black",
            capsize=2,
            linewidth=0.8,
        )
    axes.set_xticks(range(len(columns)), list(columns))
    axes.set(ylabel=metric, ylim=(0, 1), title=f"{results['dataset']}: frozen features")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)
    return figure


def _spread(cells: Sequence[dict[str, float]]) -> list[list[float]]:
    return [
        [max(0.0, cell["value"] - cell["low"]) for cell in cells],
        [max(0.0, cell["high"] - cell["value"]) for cell in cells],
    ]
