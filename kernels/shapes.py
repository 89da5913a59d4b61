"""What a choice of tiles depends on, and what it consists of: Problem and LaunchConfig. Pure Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Phase = Literal["forward", "dx", "dx_z", "dx_x", "expand", "weight_grad"]

# Representative numbers of tokens; a launch belongs to the first that is no smaller, or to the last.
TOKENS = (128, 2048, 16384, 65536)


@dataclass(frozen=True)
class LaunchConfig:
    """One launch and its tiles.

    form: "fused", one kernel per direction; "split", a launch for each projection; or an optional form: offers.FORMS.
    partial_sums: the products of BLOCK_D columns are summed one by one instead of running on in one accumulator, which
        is the order of the sliced form: both then give the same bits.
    """

    form: str
    BLOCK_T: int
    BLOCK_D: int
    BLOCK_M: int
    num_warps: int
    num_stages: int
    partial_sums: bool = False

    @property
    def order(self) -> tuple[object, ...]:
        """What fixes the order in which one row is summed: equal orders give equal bits for a row.

        The width of a tile counts only where its products are summed one by one: else they run on in one accumulator.
        """
        return (self.form == "split", self.BLOCK_M, self.partial_sums and self.BLOCK_D, self.BLOCK_T >= 64)


@dataclass(frozen=True)
class Problem:
    """What the choice of tiles depends on.

    D, M: hidden and bottleneck size; x_bytes, w_bytes: bytes of one element of x and of the weights;
    precision: "ieee" or "tf32", of float32 products; arch: "sm_90", "gfx942", …; sms: its multiprocessors;
    aligned: every tensor and every row of x, dy and the residual starts at a multiple of 16 bytes;
    tokens: one of TOKENS; device: index of the GPU; optional: forms asked for; forced: phases with a given choice.
    """

    D: int
    M: int
    x_bytes: int
    w_bytes: int
    precision: str
    arch: str
    sms: int = 132
    aligned: bool = True
    tokens: int = TOKENS[-1]
    device: int = 0
    optional: tuple[str, ...] = ()
    forced: tuple[tuple[str, LaunchConfig], ...] = ()

    def __hash__(self) -> int:
        # Asked for at every launch: the fields are hashed once.
        try:
            return self._hash  # type: ignore[attr-defined]
        except AttributeError:
            values = tuple(getattr(self, name) for name in self.__dataclass_fields__)
            object.__setattr__(self, "_hash", hash(values))
            return self._hash  # type: ignore[attr-defined]

    @property
    def unit(self) -> int:
        """How many elements of x are the 16 bytes that divide every row's stride, or 1 where rows start anywhere."""
        return max(1, 16 // self.x_bytes) if self.aligned else 1

    @property
    def unit_m(self) -> int:
        """The same for rows of m elements, those of W_up, h and slope: 1 where they are no multiple of 16 bytes."""
        return self.unit if self.M % self.unit == 0 else 1

    def units(self, config: LaunchConfig) -> dict[str, int]:
        """What divides the strides, D and M, as compile-time constants; of the sizes whole tiles, where tiles fit: then
        no column of them is masked.
        """
        D = config.BLOCK_D if self.aligned and self.D % config.BLOCK_D == 0 else self.unit
        M = config.BLOCK_M if self.unit_m > 1 and self.M % config.BLOCK_M == 0 else self.unit_m
        return {"UNIT": self.unit, "UNIT_D": D, "UNIT_M": M}


def padded(size: int) -> int:
    """size rounded up to a power of two, at least 16: what a matrix product of tiles needs."""
    return max(16, 1 << (size - 1).bit_length())


def bucket(T: int) -> int:
    """The one of TOKENS that a launch over T tokens belongs to."""
    return next((tokens for tokens in TOKENS if T <= tokens), TOKENS[-1])


def family(arch: str) -> str:
    """The architecture whose tables serve this one: the nearest older one with no more shared memory."""
    if arch.startswith("gfx"):
        return "gfx942"
    number = int(arch.removeprefix("sm_"))
    if number in (86, 87, 89) or number >= 120:
        return "sm_120"
    return "sm_80" if number < 90 else "sm_90" if number < 100 else "sm_100"


def kind(problem: Problem) -> str:
    """Which table: by the bytes of x and of the weights, and the alignment.

    32-bit x has tiles for tf32 alone: exact products are PyTorch's on a GPU, and the interpreter takes any tiles.
    """
    name = "tf32" if problem.x_bytes > 2 else "16" if problem.w_bytes <= 2 else "16/32"
    # Wide weights whose rows start anywhere take registers that only the tiles for such rows have left.
    ragged = not problem.aligned or (problem.unit_m == 1 and (problem.x_bytes > 2 or problem.M > 32))
    return f"{name} ragged" if ragged else name
