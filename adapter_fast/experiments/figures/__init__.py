"""The experiments' plots."""
