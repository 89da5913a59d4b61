"""Runs over one frozen base: what is asked, what a run is, who does it, where its row is kept and how tables say it."""
