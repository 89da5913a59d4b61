"""The model card of a saved adapter: README.md, as the Hugging Face hub shows it."""

from __future__ import annotations

import os
from pathlib import Path

from ..common.errors import printable
from .record import Record

CARD_FILE = "README.md"
_MARK = "<!-- Written by adapter_fast: remove this line to keep what you write here. -->"


def card_of(record: Record, directory: str | os.PathLike[str]) -> bytes:
    """README.md for a directory; one that is there and was changed by hand stays."""
    path = Path(directory) / CARD_FILE
    if path.is_file():
        present = path.read_bytes()
        if _MARK.encode() not in present:
            return present
    return _text(record).encode()


def _text(record: Record) -> str:
    base = record.base.get("name")
    on_hub = isinstance(base, str) and base.count("/") <= 1 and not base.startswith((".", "/")) and base.isprintable()
    named = base if on_hub else f"a {record.model_type}"
    config = record.config
    lines = [
        "---",
        *([f"base_model: {base}"] if on_hub else []),
        "library_name: adapter_fast",
        f"tags: [adapter_fast, bottleneck-adapter, {record.model_type}]",
        "---",
        _MARK,
        "",
        f"# A bottleneck adapter for {named}",
        "",
        f"m = {config.get('bottleneck')}, {config.get('activation')}, placement {config.get('placement')} "
        f"(Houlsby et al. 2019, arXiv 1902.00751), with {len(record.layer_norms)} LayerNorm and "
        f"{len(record.head)} head tensors of its own.",
    ]
    if record.labels:
        lines += ["", f"Classes: {', '.join(map(printable, record.labels))}."]
    lines += [
        "",
        "```python",
        "from adapter_fast import load_adapters  # pip install adapter_fast",
        "",
        f"load_adapters(model, directory)  # model: {named}; directory: this repository, downloaded",
        "```",
        "",
        "`adapter-fast pull OWNER/NAME DIRECTORY` downloads it.",
        f"Made with adapter_fast {record.library_version}, transformers {record.transformers_version or 'unknown'}.",
        "",
    ]
    return "\n".join(lines)
