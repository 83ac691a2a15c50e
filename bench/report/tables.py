"""The tables of the report, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from bench.kernels.common import OURS
from bench.report.records import Record, Run, best, is_rival
from seamo_fast.model.config import PRESETS


def table(words: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns of words, then columns of numbers."""
    rule = [*("---" for _ in words), *("---:" for _ in numbers)]
    return "\n".join(f"| {' | '.join(line)} |" for line in ((*words, *numbers), rule, *rows))


def details(records: Sequence[Record]) -> str:
    """Every race of an operation, the worst ratio first, ours last."""
    races = [record for record in records if "contestant" in record]
    races.sort(key=lambda r: (r["op"], r["contestant"] == OURS, r["ratio"]))
    return table(
        ("op", "size", "direction", "contestant"),
        ("ratio", "ms", "of matmul", "of copy", "extra MiB"),
        (
            (
                *(record[part] for part in ("op", "size", "direction")),
                record["contestant"] + (" (bound)" if record["yardstick"] else ""),
                "" if record["contestant"] == OURS else f"{record['ratio']:.2f}",
                *_shares(record),
            )
            for record in races
        ),
    )


def _shares(record: Record) -> tuple[str, ...]:
    memory = record["extra MiB"]
    return (
        f"{record['ms']:.3f}",
        f"{record['of matmul']:.0%}",
        f"{record['of copy']:.0%}",
        "?" if memory is None else f"{memory:.1f}",
    )


def ops(records: Sequence[Record]) -> str:
    """Operations as rows and sizes as columns: the best rival and how often ours fits into it."""
    rivals = [record for record in best(records) if is_rival(record)]
    by_width = [_is_width(record["size"]) for record in rivals]
    kinds = [
        [record for record, width in zip(rivals, by_width, strict=True) if width == wanted]
        for wanted in (True, False)
    ]
    return "\n\n".join(_ops(kind) for kind in kinds if kind)


def _is_width(size: str) -> bool:
    return size.split()[0] in PRESETS


def _ops(records: Sequence[Record]) -> str:
    order = list(PRESETS)
    sizes = sorted(
        {record["size"] for record in records},
        key=lambda s: (" " in s, order.index(s.split()[0]) if _is_width(s) else 0, s),
    )
    cells = {(r["op"], r["direction"], r["size"]): _cell(r) for r in records}
    rows = sorted({(r["op"], r["direction"]) for r in records})
    return table(
        ("op", "direction"),
        sizes,
        ((*row, *(cells.get((*row, size), "") for size in sizes)) for row in rows),
    )


def _cell(record: Record) -> str:
    return f"{record['ratio']:.2f} {record['contestant']}"


def ours(records: Sequence[Record]) -> str:
    """What ours takes, and how near it is to the machine's products and copies."""
    rows = [record for record in records if record["contestant"] == OURS]
    rows.sort(key=lambda r: (r["op"], r["size"], r["direction"]))
    return table(
        ("op", "size", "direction"),
        ("ms", "of matmul", "of copy", "extra MiB"),
        ((*(r[part] for part in ("op", "size", "direction")), *_shares(r)) for r in rows),
    )


def boundary(records: Sequence[Record]) -> str:
    """Call, kernel, and what is between them."""
    return table(
        ("op", "gradient"),
        ("call, us", "kernel, us", "boundary, us"),
        (
            (
                record["op"],
                "yes" if record["gradient"] else "no",
                *(f"{record[f'{part} us']:.1f}" for part in ("call", "kernel", "boundary")),
            )
            for record in records
        ),
    )


def steps(records: Sequence[Record]) -> str:
    """Training steps: time and memory of ours over theirs."""
    return table(
        ("model", "ours", "against"),
        ("batch", "ours, s", "times as fast", "its memory", "utilisation"),
        (
            (
                record["model"],
                record["ours"],
                record["against"],
                str(record["batch"]),
                f"{record['seconds']:.2f}",
                f"{1 / record['share']:.2f}",
                f"{record['memory']:.2f}",
                f"{record['mfu']:.2f}" if "mfu" in record else "",
            )
            for record in records
        ),
    )


def inference(records: Sequence[Record]) -> str:
    """The backbone beside timm: contestants as rows, batches as columns."""
    rivals = [record for record in records if is_rival(record)]
    batches = sorted({record["size"] for record in rivals}, key=lambda s: int(s.split("=")[-1]))
    cells = {(r["contestant"], r["size"]): r for r in rivals}
    names = list(dict.fromkeys(r["contestant"] for r in rivals))
    return table(
        ("beside",),
        [f"{size}, times as fast (ours, ms)" for size in batches],
        (
            (
                name,
                *(_beside(cells[name, size]) if (name, size) in cells else "" for size in batches),
            )
            for name in names
        ),
    )


def _beside(record: Record) -> str:
    return f"{record['ratio']:.2f} ({record['ours ms']:.0f})"


def utilisation(records: Sequence[Record]) -> str:
    """The machine's time for the bare products of inference over the time of ours."""
    rows = ((r["model"], str(r["batch"]), f"{r['utilisation']:.2f}") for r in records)
    return table(("inference of",), ("batch", "utilisation"), rows)


def readers(records: Sequence[Record]) -> str:
    """Samples a second of one core, and how often ours fits into the reader's time."""
    by_reader = {
        name: {record["cache"]: record for record in rows}
        for name, rows in groupby(records, key=lambda record: record["reader"])
    }
    return table(
        ("reader",),
        ("samples/s, warm", "times ours, warm", "times ours, cold"),
        (
            (
                name,
                f"{found['warm']['samples_per_second']:.0f}" if "warm" in found else "",
                *(
                    f"{found[cache]['times_ours']:.2f}" if cache in found else ""
                    for cache in ("warm", "cold")
                ),
            )
            for name, found in by_reader.items()
        ),
    )


def loaders(records: Sequence[Record]) -> str:
    """Samples a second of each loader, workers as columns."""
    workers = sorted({record["workers"] for record in records})
    cells = {(r["loader"], r["workers"]): f"{r['samples_per_second']:.0f}" for r in records}
    names = dict.fromkeys(record["loader"] for record in records)
    return table(
        ("samples/s",),
        [f"{count} workers" for count in workers],
        ((name, *(cells.get((name, count), "") for count in workers)) for name in names),
    )


def packing(records: Sequence[Record]) -> str:
    """Locations a second, and the rate beside reading and summing the same files."""
    return table(
        (),
        ("locations", "locations/s", "times as fast as reading with tifffile"),
        (
            (
                str(record["locations"]),
                f"{record['locations_per_second']:.0f}",
                f"{record['times_tifffile']:.2f}",
            )
            for record in records
        ),
    )


def probes(records: Sequence[Record]) -> str:
    """Linear probes: seconds of each contestant, and how often ours fits into them."""
    return table(
        ("features", "by"),
        ("s", "times ours", "accuracy"),
        (
            (
                record["features"],
                record["by"],
                f"{record['seconds']:.1f}",
                f"{record['seconds'] / record['ours seconds']:.2f}",
                f"{record['accuracy']:.4f}",
            )
            for record in records
        ),
    )


# by the names of markers: the records that a table is made of, and how
TABLES: dict[str, tuple[str, Callable[[Sequence[Record]], str]]] = {
    "ops": ("ops", ops),
    "ours": ("ops", ours),
    "boundary": ("boundary", boundary),
    "steps": ("steps", steps),
    "inference": ("inference", inference),
    "utilisation": ("utilisation", utilisation),
    "readers": ("readers", readers),
    "loaders": ("loaders", loaders),
    "packing": ("packing", packing),
    "probes": ("probes", probes),
}


def summary(records: Sequence[Record]) -> str:
    """The front page: a row a question, from what was measured."""
    rows = [*_step_rows(records), *_inference_rows(records), *_kernel_rows(records)]
    return table(("", "beside"), ("times as fast", "its memory"), rows)


def _step_rows(records: Sequence[Record]) -> list[Sequence[str]]:
    """A row a headline: the race in which ours is the least ahead."""
    hardest: dict[str, Record] = {}
    for record in records:
        if record["table"] == "steps" and record["headline"]:
            kept = hardest.setdefault(record["headline"], record)
            hardest[record["headline"]] = max(kept, record, key=lambda r: r["share"])
    return [
        (f"training step, {record['model']}, batch {record['batch']}", record["against"],
         f"{1 / record['share']:.2f}", f"{record['memory']:.2f}")
        for record in hardest.values()
    ]  # fmt: skip


def _inference_rows(records: Sequence[Record]) -> list[Sequence[str]]:
    found = [record for record in records if record["table"] == "inference" and is_rival(record)]
    if not found:
        return []
    largest = max(found, key=lambda record: int(record["size"].split("=")[-1]))["size"]
    races = [record for record in found if record["size"] == largest]
    hardest = min(races, key=lambda record: float(record["ratio"]))
    return [
        (f"inference, ViT-B/16, {largest.split()[-1]}", hardest["contestant"],
         f"{hardest['ratio']:.2f}", "")
    ]  # fmt: skip


def _kernel_rows(records: Sequence[Record]) -> list[Sequence[str]]:
    """The two operations that are furthest from their best rivals, at the width `small`."""
    races = [record for record in records if record["table"] == "ops"]
    rivals = [r for r in best(races) if is_rival(r) and r["size"] in ("small", "s2l2a")]
    widest: dict[str, Record] = {}
    for record in rivals:
        kept = widest.setdefault(record["op"], record)
        # forward and backward, where there is a backward pass
        widest[record["op"]] = max(kept, record, key=lambda r: len(r["direction"]))
    order = sorted(widest.values(), key=lambda record: -record["ratio"])[:2]
    names = ", ".join(f"`{record['op']}`" for record in order)
    rivals_names = ", ".join(f"{record['contestant']}" for record in order)
    speeds = ", ".join(f"{record['ratio']:.2f}" for record in order)
    return [(f"single kernels {names}", f"best of PyTorch: {rivals_names}", speeds, "")]


def block(name: str, runs: Sequence[Run]) -> str:
    """A table with the machines, commands and commits that it comes from; "" without records.

    Args:
        name: In TABLES, or `summary`.
        runs: Where its records are.
    """
    if name == "summary":
        wanted, make = {"ops", "steps", "inference"}, summary
    else:
        source, make = TABLES[name]
        wanted = {source}
    used = [run for run in runs if any(r["table"] in wanted for r in run.records)]
    records = [r for run in used for r in run.records if r["table"] in wanted]
    if not records:
        return ""
    return "\n".join((make(records), "", *dict.fromkeys(run.origin for run in used)))
