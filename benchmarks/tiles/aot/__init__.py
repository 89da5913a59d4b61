"""Compiles the kernels for GPUs that are not there and reads what the compiler made: registers, spills, shared memory.

    python -m benchmarks.tiles.aot                                        every case, every architecture
    python -m benchmarks.tiles.aot --arch sm_90 --filter forward          while tuning
    python -m benchmarks.tiles.aot --output benchmarks/results/aot        keep the readings as JSON
    TRITON_CACHE_DIR=build/aot python -m benchmarks.tiles.aot             compile what is not there yet

Exit code 1 lists the cases that spill, want more shared memory than a block can have, do not assemble, or hold a
16-bit dot that the compiler put on no tensor core, or on sm_90 with 64 tokens a tile on anything but wgmma.
"""
