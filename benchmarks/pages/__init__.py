"""The pages that are written from results. For those who build this: not installed."""
