"""The static tables of tiles, from ahead-of-time compilation: what does not spill and fits. Pure data, no imports.

select_tiles falls back to them where no measured row (tuned/) serves. None was chosen by a measurement on a GPU yet.
"""

# Kinds of product: "16" 16-bit x and weights, "16/32" 16-bit x under 32-bit weights, "tf32" 32-bit x.
# weight_grad reads no weight: its rows are those of "16" and "tf32".
# A table: (phase, bottleneck padded to a power of two) → (BLOCK_T, BLOCK_D, num_warps, num_stages), where a missing
# bottleneck means the split form, whose launches are ("down", "expand") → (BLOCK_T, BLOCK_D, BLOCK_M, …).
# "dx_z" and "dx_x" rows, and ("down dx_x", …), stand where the memory modes need other tiles than dx.
# "narrow" rows are for where the tokens do not fill the GPU with the wider ones, and must sum in the same order.
Table = dict[object, tuple[int, ...]]

_HALF: Table = {
    ("forward", 16): (64, 64, 4, 3),
    ("forward", 32): (64, 64, 4, 3),
    ("forward", 64): (128, 64, 8, 3),
    ("forward", 128): (128, 64, 8, 3),
    ("forward", 256): (64, 64, 8, 3),
    ("forward narrow", 64): (64, 64, 4, 3),
    ("forward narrow", 128): (64, 64, 4, 3),
    ("dx", 16): (64, 64, 4, 3),
    ("dx", 32): (64, 64, 4, 3),
    ("dx", 64): (128, 64, 8, 3),
    ("dx", 128): (128, 64, 8, 3),
    ("dx", 256): (64, 64, 8, 3),
    ("dx narrow", 64): (64, 64, 4, 3),
    ("dx narrow", 128): (64, 64, 4, 3),
    ("dx_z", 128): (64, 64, 8, 3),
    ("dx_z", 256): (),
    ("dx_x", 128): (64, 64, 8, 2),
    ("dx_x", 256): (64, 32, 8, 2),
    "down": (64, 64, 128, 4, 3),
    "down dx_z": (64, 64, 128, 8, 3),
    "expand": (64, 128, 64, 4, 3),
    ("weight_grad", 16): (64, 64, 4, 3),
    ("weight_grad", 32): (64, 64, 4, 3),
    ("weight_grad", 64): (64, 64, 4, 3),
    ("weight_grad", 128): (64, 64, 4, 3),
}
_TF32: Table = {
    ("forward", 16): (64, 64, 4, 3),
    ("forward", 32): (64, 64, 4, 3),
    ("forward", 64): (128, 64, 8, 3),
    ("forward", 128): (128, 32, 8, 3),
    ("forward", 256): (64, 32, 8, 3),
    ("dx", 16): (64, 64, 4, 3),
    ("dx", 32): (64, 64, 4, 3),
    ("dx", 64): (128, 64, 8, 3),
    ("dx", 128): (128, 32, 8, 3),
    ("dx", 256): (64, 32, 8, 3),
    ("dx_x", 128): (64, 32, 8, 2),
    ("dx_x", 256): (),
    "down": (64, 32, 128, 4, 3),
    "down dx_x": (64, 32, 128, 8, 3),
    "expand": (64, 128, 32, 4, 3),
    ("weight_grad", 16): (64, 64, 4, 2),
    ("weight_grad", 32): (64, 64, 4, 2),
    ("weight_grad", 64): (64, 64, 4, 2),
}
# Rows that start anywhere are loaded element by element, through registers: narrower tiles, and nothing is pipelined.
_RAGGED: Table = {
    ("forward", 16): (64, 64, 8, 1),
    ("forward", 32): (64, 64, 8, 1),
    ("forward", 64): (64, 64, 8, 1),
    ("forward", 128): (64, 32, 8, 1),
    ("dx", 16): (64, 64, 8, 1),
    ("dx", 32): (64, 64, 8, 1),
    ("dx", 64): (64, 64, 8, 1),
    ("dx", 128): (64, 32, 8, 1),
    "down": (64, 64, 64, 8, 1),
    "expand": (64, 64, 64, 8, 1),
    ("weight_grad", 16): (32, 64, 8, 1),
    ("weight_grad", 32): (32, 64, 8, 1),
    ("weight_grad", 64): (32, 64, 8, 1),
}
TABLES: dict[str, Table] = {
    "16": _HALF,
    "16/32": _HALF,
    "tf32": _TF32,
    "16 ragged": _RAGGED,
    "16/32 ragged": _RAGGED,
    "tf32 ragged": _RAGGED,
}

# What spills there are scalar registers, with which lanes are masked.
_RAGGED_AMD: Table = {
    **{(phase, m): (64, 32, 8, 1) for phase in ("forward", "dx") for m in (32, 64)},
    **{("dx_x", m): (16, 32, 4, 1) for m in (32, 64, 128)},
    "down dx_x": (16, 32, 64, 4, 1),
    "expand": (64, 64, 32, 8, 1),
}

# Where a family departs from the table; () takes the fused form away, since it spills unless BY_MODEL says otherwise.
DEPARTURES: dict[tuple[str, str], Table] = {
    ("sm_90", "tf32"): {"down dx_z": (64, 32, 128, 8, 3)},
    ("sm_90", "tf32 ragged"): {("dx_x", 128): (32, 32, 8, 1)},
    ("sm_90", "16/32 ragged"): {("dx_x", 128): (32, 32, 8, 1)},
    ("sm_90", "16 ragged"): {("dx_x", 128): (32, 32, 8, 1)},
    ("sm_100", "tf32"): {("dx_z", 128): (64, 32, 8, 3), ("dx_z", 256): ()},
    ("sm_120", "16 ragged"): {
        ("dx_x", 128): (32, 32, 8, 1),
        ("dx_z", 128): (32, 32, 8, 1),
        ("weight_grad", 64): (16, 64, 8, 1),
    },
    ("sm_80", "16"): {
        "down dx_x": (64, 64, 128, 8, 3),
        ("forward", 256): (64, 32, 8, 2),
        ("dx", 256): (64, 32, 8, 2),
        ("weight_grad", 32): (64, 64, 4, 2),
        ("weight_grad", 64): (64, 64, 8, 2),
        ("weight_grad", 128): (64, 64, 8, 2),
    },
    ("sm_80", "16 ragged"): {
        ("dx_x", 128): (32, 32, 8, 1),
        "down dx": (64, 32, 64, 8, 1),
        ("weight_grad", 64): (32, 32, 8, 1),
    },
    ("sm_80", "16/32 ragged"): {("dx_x", 128): (32, 32, 8, 1)},
    ("sm_80", "16/32"): {
        "down dx_x": (64, 64, 128, 8, 3),
        ("forward", 256): (64, 32, 8, 2),
        ("dx", 256): (),
        ("dx narrow", 128): (),
    },
    ("sm_80", "tf32"): {("dx", 128): (64, 32, 8, 2), ("dx", 256): (), "down dx_z": (64, 32, 128, 8, 3)},
    ("sm_90", "16"): {
        ("forward", 64): (64, 64, 4, 4),
        ("dx", 64): (64, 64, 4, 3),
        ("forward", 256): (),
        ("dx", 256): (),
        ("dx_x", 256): (),
        "down": (128, 64, 128, 8, 3),
        "down narrow": (64, 64, 128, 4, 3),
        "down dx_x": (128, 64, 128, 8, 2),
        "expand": (128, 128, 64, 8, 3),
        "expand narrow": (64, 128, 64, 4, 3),
        ("weight_grad", 128): (64, 128, 8, 3),
    },
    ("sm_90", "16/32"): {
        ("forward", 64): (64, 64, 4, 3),
        ("dx", 64): (64, 64, 4, 3),
        "down dx_x": (64, 64, 128, 8, 3),
    },
    ("sm_100", "16"): {
        ("forward", 64): (64, 64, 4, 3),
        ("dx_x", 64): (64, 64, 8, 2),
        ("dx_x", 32): (64, 64, 8, 2),
        ("dx_x", 256): (),
        "down dx_x": (64, 64, 64, 8, 2),
        ("weight_grad", 64): (64, 64, 8, 2),
    },
    ("sm_100", "16 ragged"): {("dx_x", 128): (32, 32, 8, 1), "down dx_z": (64, 32, 64, 8, 1)},
    ("sm_100", "16/32"): {
        ("forward", 16): (64, 32, 4, 3),
        ("forward", 32): (64, 64, 4, 2),
        ("dx_x", 256): (),
        "down dx": (64, 64, 128, 8, 3),
        "down dx_z": (64, 64, 64, 8, 3),
        "down dx_x": (64, 64, 128, 8, 3),
    },
    ("sm_120", "16"): {
        "down dx_x": (64, 64, 128, 8, 3),
        "expand": (64, 128, 32, 8, 2),
        ("forward", 64): (64, 64, 4, 3),
        ("forward", 128): (128, 64, 8, 2),
        ("dx", 128): (128, 64, 8, 2),
        ("forward", 256): (64, 32, 8, 2),
        ("dx", 256): (64, 32, 8, 2),
        ("weight_grad", 16): (32, 64, 8, 2),
        ("weight_grad", 64): (64, 64, 8, 2),
        ("weight_grad", 128): (32, 64, 8, 2),
    },
    ("sm_120", "16/32"): {
        ("dx", 16): (64, 64, 4, 2),
        ("dx_z", 64): (64, 32, 8, 2),
        ("dx_z", 128): (64, 32, 8, 2),
        ("forward", 64): (64, 64, 4, 3),
        "expand": (64, 128, 32, 8, 2),
        ("forward", 32): (64, 64, 4, 2),
        ("forward", 128): (128, 32, 8, 2),
        ("forward", 256): (64, 32, 8, 2),
        ("dx", 128): (128, 32, 8, 2),
        ("forward narrow", 128): (64, 32, 4, 2),
        ("dx narrow", 128): (64, 32, 4, 2),
        ("dx", 256): (64, 32, 8, 2),
        "down": (64, 64, 128, 8, 2),
    },
    ("sm_120", "tf32"): {
        ("dx_z", 128): (64, 32, 8, 3),
        "down dx_z": (64, 32, 128, 8, 3),
        ("forward", 128): (64, 32, 4, 3),
        ("dx", 128): (64, 32, 4, 3),
        ("forward", 256): (32, 32, 8, 2),
        ("dx", 256): (32, 32, 8, 2),
    },
    ("sm_120", "16/32 ragged"): {"expand": (64, 64, 32, 8, 1), ("dx_x", 128): (32, 32, 8, 1)},
    ("gfx942", "16 ragged"): _RAGGED_AMD,
    ("gfx942", "16/32 ragged"): _RAGGED_AMD | {"down": (64, 32, 64, 8, 1)},
    ("gfx942", "tf32 ragged"): _RAGGED_AMD,
    ("gfx942", "16"): {
        ("dx_x", 32): (16, 64, 4, 2),
        ("forward", 256): (64, 64, 8, 2),
        ("dx", 256): (64, 64, 8, 2),
        ("weight_grad", 128): (64, 64, 4, 2),
    },
    ("gfx942", "16/32"): {
        ("forward narrow", 128): (),
        ("dx narrow", 128): (),
        ("dx_x", 32): (16, 64, 4, 2),
        ("dx_z", 128): (64, 32, 8, 2),
        ("dx_x", 128): (64, 32, 8, 2),
        ("dx_x", 256): (),
        "down dx_z": (64, 64, 128, 8, 2),
        ("forward", 128): (128, 64, 8, 2),
        ("dx", 128): (128, 64, 8, 2),
        ("forward", 256): (),
        ("dx", 256): (),
        "down": (64, 64, 128, 4, 2),
        "expand": (64, 128, 64, 4, 2),
    },
    ("gfx942", "tf32"): {
        ("forward", 64): (128, 32, 8, 3),
        ("dx", 64): (128, 32, 8, 3),
        ("forward", 128): (64, 32, 4, 3),
        ("dx", 128): (64, 32, 4, 3),
        ("forward", 256): (),
        ("dx", 256): (),
    },
}
# Family, kind and padded bottleneck whose fused tiles compile, and are taken away since tiles/traffic.py has the
# split form move less.
BY_MODEL = frozenset({("sm_90", "16", 256)})
