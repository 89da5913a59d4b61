"""Where adapters sit in a transformer: the table of sites, and adding, switching, disabling and removing them."""

from .families import FAMILIES
from .inject import add_adapters, disable_adapters, remove_adapters, set_adapter
from .summary import AdapterSummary, SiteSummary, adapter_summary

__all__ = [
    "FAMILIES",
    "AdapterSummary",
    "SiteSummary",
    "adapter_summary",
    "add_adapters",
    "disable_adapters",
    "remove_adapters",
    "set_adapter",
]
