"""The README's tables and figures, written from benchmarks/results/ and never by hand.

In README.md a table stands between `<!-- table: NAME -->` and `<!-- end -->`, where NAME is demo, op, modes, model,
latency or memory, and the figures between `<!-- figures -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from adapter_fast.benchmarks import markdown
from adapter_fast.benchmarks.compare import dtypes
from adapter_fast.benchmarks.demo import demo_table, keep, read
from adapter_fast.benchmarks.plots import FIGURES, digest, digest_of, draw, drawable
from adapter_fast.benchmarks.provenance import CHECKOUT
from adapter_fast.benchmarks.rows import ResultsError, Row, read_rows
from adapter_fast.benchmarks.suites import SUITES
from adapter_fast.profiler.files import write_whole

BLOCK = re.compile(r"(<!-- (?:table: ([\w-]+)|figures) -->\n)(.*?)(<!-- end -->)", re.S)
TABLES: dict[str, Callable[[list[Row]], str]] = {
    "op": markdown.op_table,
    "model": markdown.model_table,
    "latency": markdown.latency_table,
    "memory": markdown.memory_table,
    "modes": markdown.modes_table,
}
SUITE_OF = {"modes": "op"}  # tables of another suite's rows
README, RESULTS = "README.md", "benchmarks/results"  # inside a checkout; pictures lie beside their rows
FORMATS = ("png", "svg")


def report(check: bool = False, keep_demo: Path | None = None, root: Path | None = None) -> int:
    """Write README.md and the pictures from the results, or say where they differ; the exit code.

    Args:
        check: write nothing; 1 where README or a picture is not what the results give.
        keep_demo: a demo's results.json, put among the results first. root: the checkout, by default our own.

    Raises:
        ResultsError: a results file of another schema, a table of an unknown name, or no checkout to write to.
    """
    root = root or CHECKOUT
    if root is None:
        raise ResultsError("root must be a checkout: this is an installed package, and its README is not here")
    if keep_demo:
        print(f"wrote {keep(keep_demo, root / RESULTS)}")
    if check:
        found = disagreements(root)
        print("\n".join(found) if found else f"{README} and the pictures agree with the results")
        return int(bool(found))
    text = render((root / README).read_text("utf-8"), root / RESULTS)
    pictures = draw_figures(root / RESULTS)
    for path in (*pictures, write_whole(root / README, text)):
        print(f"wrote {path}")
    return 0


def disagreements(root: Path) -> list[str]:
    """A line for each thing in a checkout that is not what its results give."""
    text = (root / README).read_text("utf-8")
    found = (
        [] if render(text, root / RESULTS) == text else [f"{README} and the results differ: run adapter-fast report"]
    )
    wanted = _wanted(root / RESULTS)
    for path, rows in wanted.items():
        name = path.relative_to(root)
        if not path.exists():
            found.append(f"{name} is missing: run adapter-fast report")
        elif digest_of(path) != digest(rows):
            found.append(f"{name} was drawn from other results: run adapter-fast report")
    found += [f"{path.relative_to(root)} has no results" for path in _pictures(root / RESULTS) if path not in wanted]
    return found


def render(text: str, results: Path) -> str:
    """README text with each table and the figures' links made anew from the files in `results`."""

    def fresh(found: re.Match[str]) -> str:
        return found[1] + (_tables(found[2], results) if found[2] else _links(results)) + found[4]

    return BLOCK.sub(fresh, text)


def draw_figures(results: Path) -> list[Path]:
    """Draw <results>/<device>/*.png and *.svg, take away those that have no rows any more; the files written."""
    written = [path for device in _devices(results) for path in draw(_rows(device), device, FORMATS)]
    for path in _pictures(results):
        if path not in written:
            path.unlink()
    return written


def _tables(name: str, results: Path) -> str:
    """One table for each device and dtype that was measured."""
    if name == "demo":
        files = sorted(results.glob("*/demo.json"))
        made = [demo_table(read(path)) for path in files]
    elif name in TABLES:
        measured = [_rows(device).get(SUITE_OF.get(name, name), []) for device in _devices(results)]
        alike = [[row for row in rows if row.dtype == dtype] for rows in measured for dtype in dtypes(rows)]
        made = [TABLES[name](rows) for rows in alike]
    else:
        raise ResultsError(f"{README}: table must be one of demo, {', '.join(TABLES)}, got {name!r}")
    command = "make demo" if name == "demo" else f"adapter-fast bench --suite {SUITE_OF.get(name, name)}"
    return "\n".join(made) or f"Not measured yet: `{command}`.\n"


def _links(results: Path) -> str:
    """The pictures of each device, and a line that says what they show."""
    parts = []
    for device in _devices(results):
        shown = drawable(_rows(device))
        if shown:
            name = next(iter(shown.values()))[0].device
            parts += [f"![{_upper(FIGURES[f][1])}, {name}]({RESULTS}/{device.name}/{f}.png)" for f in shown]
            parts.append(f"{name}: {'; '.join(FIGURES[figure][1] for figure in shown)}.")
    return "\n\n".join(parts) + "\n" if parts else "Not measured yet: `adapter-fast bench`.\n"


def _wanted(results: Path) -> dict[Path, list[Row]]:
    """Every picture there should be, and the rows it shows."""
    return {
        device / f"{name}.{kind}": rows
        for device in _devices(results)
        for name, rows in drawable(_rows(device)).items()
        for kind in FORMATS
    }


def _pictures(results: Path) -> list[Path]:
    return [path for kind in FORMATS for path in sorted(results.glob(f"*/*.{kind}")) if path.stem in FIGURES]


def _devices(results: Path) -> list[Path]:
    return sorted(path for path in results.glob("*") if path.is_dir())


def _rows(device: Path) -> dict[str, list[Row]]:
    """By suite, whatever was measured on one device."""
    return {suite: read_rows(path) for suite in SUITES if (path := device / f"{suite}.json").exists()}


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
