"""Read by every Python process of a rehearsal, whose PYTHONPATH begins here: changes modules once they are imported."""

import os
import sys
from importlib.abc import MetaPathFinder

CHANGES = {"torch": "pretend_torch", "triton": "pretend_triton", "adapter_fast.testing": "pretend_results"}


class _AfterImport(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in CHANGES:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                __import__(CHANGES[name]).change(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "REHEARSE" in os.environ:
    sys.meta_path.insert(0, _AfterImport())
