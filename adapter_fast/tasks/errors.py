"""The one exception the command line turns into a single line."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave: says what was wrong and what was expected."""
