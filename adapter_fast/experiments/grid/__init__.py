"""Runs over one frozen base: what a run is, what it needs, who does it, and where its row is kept."""
