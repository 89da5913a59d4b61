"""Who is measured, on one adapter (op.py, op_peers.py) and on whole models (model.py, model_peers.py)."""
