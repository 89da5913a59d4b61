"""The paper's experiments among the results: results/<device>/paper/<experiment>.json, their tables and pictures.

Scores do not depend on the processor: what CPUs ran is one device, cpu, and a grid may go on on another machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapter_fast.benchmarks.rows import ResultsError
from adapter_fast.benchmarks.rows.provenance import provenance
from adapter_fast.benchmarks.shown.figures.plots import digest_values
from adapter_fast.common.errors import UserError
from adapter_fast.common.files import write_whole
from adapter_fast.common.markdown import markdown_table
from adapter_fast.common.sheet import STYLE, picture
from adapter_fast.experiments import NAMES
from adapter_fast.experiments.find import find_experiment
from adapter_fast.experiments.grid.result import Result, read_result
from adapter_fast.measure.machine import slug

FOLDER = "paper"
FORMATS = ("png", "svg")
ORIGIN = ("device", "commit", "date")
SUMMARY = "paper"  # a table of docs/benchmarks.md: a line an experiment


@dataclass(frozen=True)
class Kept:
    """One experiment's results file in the checkout."""

    path: Path
    origin: dict[str, str]
    result: Result

    @property
    def digest(self) -> str:
        """Changes with anything that a picture may show."""
        return digest_values({"options": self.result.options.to_dict(), "rows": self.result.rows})


def copy_experiments(directory: Path, results: Path) -> list[Path]:
    """Copy DIRECTORY/<experiment>/results.json of every experiment there to <results>/<GPU or cpu>/paper/; the files.

    Raises:
        ResultsError: a file is no experiment's results, or there is none; nothing is written then.
    """
    from adapter_fast.experiments.drive import RESULTS

    found = {name: directory / name / RESULTS for name in NAMES if (directory / name / RESULTS).is_file()}
    if not found:
        raise ResultsError(f"{directory}: expected {RESULTS} in folders of the names {', '.join(NAMES)}, got none")
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    origin = {name: provenance(kind)[name] for name in ORIGIN}
    folder = results / (slug(origin["device"]) if kind == "cuda" else kind) / FOLDER
    texts = {folder / f"{name}.json": _text(origin, _read(path, name)) for name, path in found.items()}
    return [write_whole(path, text) for path, text in texts.items()]


def read_kept(path: Path) -> Kept:
    """A results file that copy_experiments wrote; ResultsError where it is something else."""
    result = _read(path, path.stem)
    values = json.loads(path.read_text("utf-8"))
    missing = [name for name in ORIGIN if name not in values]
    if missing:
        raise ResultsError(f"{path}: lacks {', '.join(missing)}: adapter-fast report --keep-experiments adds them")
    return Kept(path, {name: values[name] for name in ORIGIN}, result)


def _read(path: Path, name: str) -> Result:
    try:
        result = read_result(path)
    except UserError as error:
        raise ResultsError(str(error)) from error
    if result.experiment != name or not result.rows:
        raise ResultsError(f"{path}: expected runs of {name}, got {len(result.rows)} of {result.experiment}")
    return result


def _text(origin: dict[str, str], result: Result) -> str:
    """As an experiment writes it and with its origin, a row a line."""
    processors = sorted({row["processor"] for row in result.rows if "processor" in row})
    if processors and not torch.cuda.is_available():
        origin = {**origin, "device": " and ".join(processors)}
    head = json.dumps(origin | result.head(), indent=1)
    rows = ",\n  ".join(json.dumps(row, allow_nan=False) for row in result.rows)
    return f'{head[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n'


def kept(results: Path, name: str | None = None) -> list[Kept]:
    """Every results file, or those of one experiment, by device."""
    names = NAMES if name is None else (name,)
    devices = sorted(path for path in results.glob(f"*/{FOLDER}") if path.is_dir())
    return [read_kept(path) for device in devices for one in names if (path := device / f"{one}.json").exists()]


def tables(name: str, results: Path) -> str:
    """An experiment's table for each device, or that it was not run; the name "paper" gives a line an experiment."""
    if name == SUMMARY:
        return _summary(results)
    made = [f"{_origin(one)}\n\n{find_experiment(name).table(one.result)}" for one in kept(results, name)]
    return "\n".join(made) or _not_run(name)


def _summary(results: Path) -> str:
    lines = []
    for name in NAMES:
        found = kept(results, name)
        lines += [[name, find_experiment(name).finding(one.result), one.origin["device"]] for one in found]
        lines += [] if found else [[name, f"not run here: `{command(name)}`", ""]]
    return markdown_table(["experiment", "measured", "on"], lines)


def links(name: str, results: Path, folder: str) -> str:
    """A picture's links, a device each; `folder` is that of the results as the page sees it."""
    shown = all_pictures()
    if name not in shown:
        raise ResultsError(f"figure must be one of {', '.join(shown)}, got {name!r}")
    experiment, words = shown[name]
    made = [
        f"![{words}, {one.origin['device']}]({folder}/{one.path.relative_to(results).parent.as_posix()}/{name}.png)\n"
        for one in kept(results, experiment)
        if name in find_experiment(experiment).figures(one.result)
    ]
    return "\n".join(made) or _not_run(experiment)


def all_pictures() -> dict[str, tuple[str, str]]:
    """By name, the experiment, and what the picture shows, in words for those who cannot see it."""
    return {picture: (name, words) for name in NAMES for picture, words in find_experiment(name).PICTURES.items()}


def command(name: str) -> str:
    """What runs an experiment as the paper did."""
    return f"adapter-fast experiment {name} {find_experiment(name).COMMAND}"


def _not_run(name: str) -> str:
    return f"Not run here: `{command(name)}`.\n"


def _origin(one: Kept) -> str:
    hours = sum(row.get("train_seconds", 0.0) for row in one.result.rows) / 3600
    threads = {row["threads"] for row in one.result.rows} - {None}
    each = f" ({threads.pop()} a run)" if len(threads) == 1 else ""
    return (
        f"**{one.origin['device']}{each}**, {one.origin['date']}, commit {one.origin['commit']}: "
        f"{len(one.result.rows)} runs, {hours:.1f} hours of training in all."
    )


def wanted(results: Path) -> dict[Path, str]:
    """Every picture there should be, and its digest."""
    return {path: one.digest for one, name, _ in _figures(results) for path in _paths(one, name)}


def draw_paper(results: Path) -> list[Path]:
    """Draw every picture of every results file; the files."""
    return [
        write_whole(path, picture(figure, path.suffix[1:], one.digest))
        for one, name, figure in _figures(results)
        for path in _paths(one, name)
    ]


def pictures(results: Path) -> list[Path]:
    """Those that are there."""
    return [path for kind in FORMATS for path in sorted(results.glob(f"*/{FOLDER}/*.{kind}"))]


def _paths(one: Kept, name: str) -> list[Path]:
    return [one.path.with_name(f"{name}.{kind}") for kind in FORMATS]


def _figures(results: Path) -> Iterator[tuple[Kept, str, Any]]:
    import matplotlib

    for one in kept(results):
        with matplotlib.rc_context(STYLE):
            made = find_experiment(one.result.experiment).figures(one.result)
            for name, figure in made.items():
                yield one, name, figure
