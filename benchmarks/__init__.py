"""What we time, how we time it, and what the compiler makes of the kernels. Not installed: run from the checkout."""
