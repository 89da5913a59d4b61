"""The profile of a model's forward behind `adapter-fast profile`."""
