"""`adapter-fast demo`: one task four ways, each in a process of its own, and the verdict."""
