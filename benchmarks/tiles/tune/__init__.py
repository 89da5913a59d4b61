"""Searches tiles on a GPU and writes the table that select_tiles reads: kernels/tuned/<arch>.json.

    python -m benchmarks.tiles.tune                            the whole campaign, the headline shapes first
    python -m benchmarks.tiles.tune --minutes 25 --resume      what fits into 25 minutes, less what is measured already
    python -m benchmarks.tiles.tune --phase forward --hidden 768 --bottleneck 64
    python -m benchmarks.tiles.tune --rehearse                 the same path on a CPU under Triton's interpreter

For each shape and phase: candidates, those that the traffic model (../traffic.py) holds for promising; each is
compiled and held against float64 in a process of its own, which may crash or hang; those that pass take turns in CUDA
graphs on cold inputs, all in a coarse round and the best in a fine one. A choice replaces the rules' own where it is
2 % faster beyond the spread, the optional one (sliced) where it is 5 % faster.
"""
