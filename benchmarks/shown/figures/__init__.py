"""Pictures of result rows: one file a kind, on a common sheet; plots.py draws them all."""
