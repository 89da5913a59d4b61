"""The paper's experiments as grids of runs over one frozen model: resumable, parallel, with tables and figures."""
