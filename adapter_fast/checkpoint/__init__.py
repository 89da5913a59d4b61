"""Adapters on disk: this library's own directories, and those of AdapterHub's `adapters` 1.x, both ways."""

from .adapterhub.write import export_adapterhub
from .convert import convert_adapter
from .load import load_adapters
from .save import save_adapters

__all__ = ["convert_adapter", "export_adapterhub", "load_adapters", "save_adapters"]
