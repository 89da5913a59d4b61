"""A rehearsal of GPU commands on a CPU: the real Triton, its real launchers, and a libcuda that launches nothing."""
