"""docs/families.md: the table of model families, from placement/families.py and the lists that the tests run through.

python -m benchmarks.pages.families [--check]
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from importlib import import_module
from pathlib import Path

from adapter_fast.checkpoint.adapterhub.names import HUB_FAMILIES
from adapter_fast.config import PLACEMENTS
from adapter_fast.placement.families import FAMILIES, Family, Stack, SubLayer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/families.md"
YES, NO = "✓", "–"

HEAD = """# Model families

Written by `python -m benchmarks.pages.families` from adapter_fast/placement/families.py and the lists of tests/; a
test fails where it is not up to date. The names are those of transformers 5.5 to 5.23.

Each family is tested with each placement on a tiny model built from a configuration
(tests/placement/test_families.py): identity at the start, sites counted and run once a pass, what the adapter reads
and where its output goes, gradients equal to the plain PyTorch adapter's, only adapters train, the backward pass ends
at the lowest adapter, copies run their own adapters, save and load bit for bit, removal bit for bit. The last columns
name what is tested for some families.

For a model that is not here: `AdapterConfig(target_modules=r"model\\.layers\\.\\d+\\.mlp\\.down_proj")`, a regular
expression that whole module names must match. Without a match the error lists the model's linear layers.

"""
LAST = '- **cross-attention**: `sublayers=("attention", "cross_attention", "feed_forward")`.\n\n'
COLUMNS = (
    "model",
    "model_type",
    "houlsby: attention, feed-forward",
    "pfeiffer",
    "parallel reads",
    "cross-attention",
    "generate() with cache",
    "AdapterHub files",
    "whole model compiled",
)


def _listed() -> tuple[set[str], set[str], set[str]]:
    """What the tests run through: the families that generate, whose files AdapterHub exchanges, that are compiled."""
    sys.path.insert(0, str(ROOT / "tests/helpers"))
    try:
        tiny_models = import_module("tiny_models")
    finally:
        sys.path.remove(str(ROOT / "tests/helpers"))
    return set(tiny_models.GENERATING), set(HUB_FAMILIES), set(tiny_models.COMPILED)


def _pfeiffer(sub: SubLayer) -> str:
    if sub.norm is not None:
        return f"around `{sub.norm}`"
    return f"behind `{sub.sum}`" if sub.sum else "behind the layer"


def _unique(values: list[str]) -> str:
    """Both stacks' where they differ, as in T5."""
    return " / ".join(dict.fromkeys(values))


def _row(model: str, model_type: str, family: Family, marks: list[str]) -> str:
    stacks: tuple[Stack, ...] = family.stacks
    cells = [
        model,
        f"`{model_type}`",
        _unique([f"`{stack.attention.hook}`, `{stack.feed_forward.hook}`" for stack in stacks]),
        _unique([_pfeiffer(stack.feed_forward) for stack in stacks]),
        _unique([f"`{stack.feed_forward.entry}`" for stack in stacks]),
        _unique([f"`{stack.cross_attention.hook}`" for stack in stacks if stack.cross_attention]) or NO,
        *marks,
    ]
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The whole page."""
    lists = _listed()
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    notes = []
    for model_type, family in FAMILIES.items():
        marks = [YES if model_type in one else NO for one in lists]
        lines.append(_row(family.models, model_type, family, marks))
        if family.otherwise is not None and family.unless is not None:
            setting, value = family.unless
            lines.append(_row(f"{family.models}, {setting}={value}", model_type, family.otherwise, marks))
        if family.note:
            notes.append(f"- {family.models}: {family.note}.")
    placements = [
        textwrap.fill(f"- **{name}**: {placement.computes}.", 119, subsequent_indent="  ") + "\n"
        for name, placement in PLACEMENTS.items()
    ]
    return HEAD + "".join(placements) + LAST + "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the page differs")
    if parser.parse_args(arguments).check:
        same = PAGE.exists() and PAGE.read_text("utf-8") == page()
        print(f"{PAGE.name} is {'up to date' if same else 'not up to date: python -m benchmarks.pages.families'}")
        return 0 if same else 1
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
