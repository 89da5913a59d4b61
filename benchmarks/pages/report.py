"""The tables and figures of docs/benchmarks.md and docs/paper.md, written from benchmarks/results/ and never by hand.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, where NAME is demo, op, modes, model, latency, memory,
an experiment (glue, classification …), or paper: a line for each experiment. The benchmarks' figures stand between
`<!-- figures -->` and `<!-- end -->`, one of an experiment behind `<!-- figure: NAME -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from adapter_fast.benchmarks.pages import paper, suite_tables
from adapter_fast.benchmarks.pages.demo import copy_demo, demo_table, read_demo
from adapter_fast.benchmarks.rows import SUITES, ResultsError, Row, read_rows
from adapter_fast.benchmarks.rows.compare import dtypes
from adapter_fast.benchmarks.rows.provenance import CHECKOUT
from adapter_fast.benchmarks.shown.figures.plots import FIGURES, digest_of, digest_rows, draw_plots, drawable
from adapter_fast.common.files import write_whole

BLOCK = re.compile(r"(<!-- (?:(table|figure): ([\w-]+)|figures) -->\n)(.*?)(<!-- end -->)", re.S)
TABLES: dict[str, Callable[[list[Row]], str]] = {
    "op": suite_tables.op_table,
    "model": suite_tables.model_table,
    "latency": suite_tables.latency_table,
    "memory": suite_tables.memory_table,
    "modes": suite_tables.modes_table,
}
SUITE_OF = {"modes": "op"}  # tables of another suite's rows
BENCHMARKS, PAPER, RESULTS = "docs/benchmarks.md", "docs/paper.md", "benchmarks/results"  # pictures lie by their rows
FORMATS = ("png", "svg")


def report(
    check: bool = False,
    keep_demo: Path | None = None,
    keep_experiments: Path | None = None,
    root: Path | None = None,
) -> int:
    """Write the pages and the pictures from the results, or say where they differ; the exit code.

    Args:
        check: write nothing; 1 where a page or a picture is not what the results give.
        keep_demo: a demo's results.json, put among the results first.
        keep_experiments: what `adapter-fast experiment` wrote to, its results put among the results first.
        root: the checkout, by default our own.

    Raises:
        ResultsError: a results file of another schema, a table of an unknown name, or no checkout to write to.
    """
    root = root or CHECKOUT
    if root is None:
        raise ResultsError("root must be a checkout: this is an installed package, and its pages are not here")
    if keep_demo:
        print(f"wrote {copy_demo(keep_demo, root / RESULTS)}")
    for path in paper.copy_experiments(keep_experiments, root / RESULTS) if keep_experiments else ():
        print(f"wrote {path}")
    if check:
        found = disagreements(root)
        print("\n".join(found) if found else f"{', '.join(_pages(root))} and the pictures agree with the results")
        return int(bool(found))
    texts = {root / page: render(text, root / RESULTS, page) for page, text in _pages(root).items()}
    pictures = draw_figures(root / RESULTS)
    for path in (*pictures, *(write_whole(page, text) for page, text in texts.items())):
        print(f"wrote {path}")
    return 0


def disagreements(root: Path) -> list[str]:
    """A line for each thing in a checkout that is not what its results give."""
    found = [
        f"{page} and the results differ: run adapter-fast report"
        for page, text in _pages(root).items()
        if render(text, root / RESULTS, page) != text
    ]
    wanted = {path: digest_rows(rows) for path, rows in _wanted(root / RESULTS).items()} | paper.wanted(root / RESULTS)
    for path, mark in wanted.items():
        name = path.relative_to(root)
        if not path.exists():
            found.append(f"{name} is missing: run adapter-fast report")
        elif digest_of(path) != mark:
            found.append(f"{name} was drawn from other results: run adapter-fast report")
    found += [f"{path.relative_to(root)} has no results" for path in _pictures(root / RESULTS) if path not in wanted]
    return found


def render(text: str, results: Path, page: str = BENCHMARKS) -> str:
    """A page's text with each table and the figures' links made anew from the files in `results`.

    Args:
        page: its path in the checkout, which links to pictures start from.
    """
    folder = "../" * page.count("/") + RESULTS

    def fresh(found: re.Match[str]) -> str:
        _, kind, name, _, _ = found.groups()
        if kind == "table":
            made = _tables(name, results)
        else:
            made = paper.links(name, results, folder) if kind else _links(results, folder)
        return found[1] + made + found[5]

    return BLOCK.sub(fresh, text)


def _pages(root: Path) -> dict[str, str]:
    """The text of each page that the checkout has."""
    return {page: (root / page).read_text("utf-8") for page in (BENCHMARKS, PAPER) if (root / page).exists()}


def draw_figures(results: Path) -> list[Path]:
    """Draw <results>/<device>/**/*.png and *.svg, take away those that have no rows any more; the files written."""
    written = [path for device in _devices(results) for path in draw_plots(_rows(device), device, FORMATS)]
    written += paper.draw_paper(results)
    for path in _pictures(results):
        if path not in written:
            path.unlink()
    return written


def _tables(name: str, results: Path) -> str:
    """One table for each device and dtype that was measured."""
    if name == "demo":
        files = sorted(results.glob("*/demo.json"))
        made = [demo_table(read_demo(path)) for path in files]
    elif name in TABLES:
        measured = [_rows(device).get(SUITE_OF.get(name, name), []) for device in _devices(results)]
        alike = [[row for row in rows if row.dtype == dtype] for rows in measured for dtype in dtypes(rows)]
        made = [TABLES[name](rows) for rows in alike]
    elif name in (paper.SUMMARY, *paper.NAMES):
        return paper.tables(name, results)
    else:
        known = ("demo", *TABLES, paper.SUMMARY, *paper.NAMES)
        raise ResultsError(f"table must be one of {', '.join(known)}, got {name!r}")
    command = "make demo" if name == "demo" else f"adapter-fast bench --suite {SUITE_OF.get(name, name)}"
    return "\n".join(made) or f"Not measured yet: `{command}`.\n"


def _links(results: Path, folder: str) -> str:
    """The pictures of each device, and a line that says what they show."""
    parts = []
    for device in _devices(results):
        shown = drawable(_rows(device))
        if shown:
            name = next(iter(shown.values()))[0].device
            parts += [f"![{_upper(FIGURES[f][1])}, {name}]({folder}/{device.name}/{f}.png)" for f in shown]
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
    ours = [path for kind in FORMATS for path in sorted(results.glob(f"*/*.{kind}")) if path.stem in FIGURES]
    return ours + paper.pictures(results)


def _devices(results: Path) -> list[Path]:
    return sorted(path for path in results.glob("*") if path.is_dir())


def _rows(device: Path) -> dict[str, list[Row]]:
    """By suite, whatever was measured on one device."""
    return {suite: read_rows(path) for suite in SUITES if (path := device / f"{suite}.json").exists()}


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
