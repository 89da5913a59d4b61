"""GLUE (Wang et al. 2019): its nine tasks and the diagnostic set, as published on disk and on the hub."""
