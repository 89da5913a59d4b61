"""On the PYTHONPATH of a rehearsal, whose processes import these modules by their own names."""
