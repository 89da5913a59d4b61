"""Small kernels for test_aot.py: one good, and one for each fault that the ahead-of-time gate must catch."""

from dataclasses import dataclass, field

import triton
import triton.language as tl


@dataclass
class Sample:
    name: str
    fn: triton.JITFunction
    signature: dict
    constexprs: dict = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 2
    expects_tensor_core: bool = False
    divisible_by_16: tuple = ("a_ptr", "b_ptr", "c_ptr", "x_ptr", "y_ptr", "stride_a")
    kernel: str = "sample"

    @property
    def options(self) -> dict:
        return {"num_warps": self.num_warps, "num_stages": self.num_stages}


@triton.jit
def matmul(
    a_ptr, b_ptr, c_ptr, K, stride_a, N: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr, WIDE: tl.constexpr
):
    offs_m = tl.arange(0, BLOCK)
    offs_n = tl.arange(0, N)
    acc = tl.zeros((BLOCK, N), tl.float32)
    for start in range(0, K, BLOCK_K):
        offs_k = start + tl.arange(0, BLOCK_K)
        a = tl.load(a_ptr + offs_m[:, None] * stride_a + offs_k[None, :])
        b = tl.load(b_ptr + offs_k[:, None] * N + offs_n[None, :])
        if WIDE:
            a, b = a.to(tl.float32), b.to(tl.float32)
        acc = tl.dot(a, b, acc, input_precision="ieee")
    tl.store(c_ptr + offs_m[:, None] * N + offs_n[None, :], acc)


@triton.jit
def hoard(x_ptr, y_ptr, SIZE: tl.constexpr):
    offs = tl.arange(0, SIZE)
    x = tl.load(x_ptr + offs)
    total = tl.sum(x, 0)
    tl.store(y_ptr + offs, x / total)


MATMUL = {"a_ptr": "*bf16", "b_ptr": "*bf16", "c_ptr": "*fp32", "K": "i32", "stride_a": "i32"}
GOOD = {"N": 64, "BLOCK": 64, "BLOCK_K": 64, "WIDE": False}


def cases(arch: str) -> list[Sample]:
    return [
        Sample("good", matmul, MATMUL, GOOD, expects_tensor_core=True),
        Sample("spills", hoard, {"x_ptr": "*fp32", "y_ptr": "*fp32"}, {"SIZE": 32768}),
        Sample("shared", matmul, MATMUL, {**GOOD, "BLOCK": 128, "BLOCK_K": 256}, num_warps=8, num_stages=4),
        Sample(
            "no_tensor_core",
            matmul,
            MATMUL,
            {**GOOD, "BLOCK": 32, "BLOCK_K": 16, "WIDE": True},
            expects_tensor_core=True,
        ),
        Sample("no_compile", matmul, MATMUL, {**GOOD, "N": 48}),
    ]
