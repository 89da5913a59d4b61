"""Data sets, metrics and the tuning run behind the command line."""
