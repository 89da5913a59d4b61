"""Measured choices of tiles: the rows that benchmarks/ wrote to tuned/<arch>.json, and the rule around them.

A row serves its own architecture, kind of product and padded bottleneck. Outside of what was measured the nearest
hidden size within a factor of two serves, then the nearest number of tokens; for the rest tiles.py has its rules. The
rows of a shape serve for all numbers of tokens or for none: rows and rules may sum a row in different orders.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from .offers import OPTIONAL_FORMS, fits
from .shapes import TOKENS, LaunchConfig, Phase, Problem, kind, padded

FOLDER = Path(__file__).parent / "tuned"
FORMS = ("fused", "split", *OPTIONAL_FORMS)
TILES = ("form", "BLOCK_T", "BLOCK_D", "BLOCK_M", "num_warps", "num_stages")
OPTIONS = ("partial_sums",)
# What else a row says; all but the key are there for the reader.
KEY = ("kind", "phase", "D", "M", "tokens")
MEASURED = ("us_p20", "us_p50", "us_p80", "floor_us", "copy_gbps", "device", "torch", "triton", "commit", "date")

_Table = dict[tuple[str, str, int], dict[int, dict[int, LaunchConfig]]]


def choice(phase: Phase, problem: Problem) -> LaunchConfig | None:
    """The measured tiles for this launch, None where nothing near enough was measured."""
    by_hidden = _table(problem.arch).get((kind(problem), phase, padded(problem.M)))
    if not by_hidden:
        return None
    nearest = min(by_hidden, key=lambda d: (abs(math.log2(d / problem.D)), d))
    if abs(math.log2(nearest / problem.D)) > 1:
        return None
    by_tokens = by_hidden[nearest]

    def row(tokens: int) -> LaunchConfig:
        return by_tokens[min(by_tokens, key=lambda measured: (abs(math.log2(measured / tokens)), measured))]

    whole = all(fits(row(tokens), replace(problem, tokens=tokens)) for tokens in TOKENS)
    return row(problem.tokens) if whole else None


@cache
def _table(arch: str) -> _Table:
    path = FOLDER / f"{arch}.json"
    return parse(json.loads(path.read_text()), str(path)) if path.is_file() else {}


def parse(rows: list[Mapping[str, Any]], where: str) -> _Table:
    """Rows of a tuned table, checked, as kind, phase and bottleneck → hidden size → tokens → tiles.

    Raises:
        ValueError: a row without a field, with a number of tokens that is no bucket, with a form that there is not,
            one given twice, or two rows of one shape that sum a row of y in different orders.
    """
    table: _Table = {}
    for index, row in enumerate(rows):
        missing = [name for name in (*KEY, *TILES, *MEASURED) if name not in row]
        if missing:
            raise ValueError(f"{where}: row {index} has no {', '.join(missing)}")
        if row["tokens"] not in TOKENS:
            raise ValueError(f"{where}: row {index}: tokens must be one of {TOKENS}, got {row['tokens']}")
        if row["form"] not in FORMS:
            raise ValueError(f"{where}: row {index}: form must be one of {FORMS}, got {row['form']!r}")
        config = LaunchConfig(**{name: row[name] for name in TILES}, **{n: row[n] for n in OPTIONS if n in row})
        at = table.setdefault((row["kind"], row["phase"], padded(row["M"])), {}).setdefault(row["D"], {})
        if row["tokens"] in at:
            raise ValueError(f"{where}: row {index} measures a shape a second time")
        other = next(iter(at.values()), config)
        if row["phase"] != "weight_grad" and other.order != config.order:
            raise ValueError(f"{where}: row {index} sums in another order than the other rows of its shape")
        at[row["tokens"]] = config
    return table
