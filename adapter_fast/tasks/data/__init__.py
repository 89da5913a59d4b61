"""Rows of data: where they come from, how a task reads them, how they are encoded."""
