"""The paper's experiments as grids of runs over one frozen model: resumable, parallel, with tables and figures."""

# Each is a module here with the names that find.Experiment has.
NAMES = ("glue", "classification", "squad", "tradeoff", "sequential", "ablation")
