"""Device functions: the activations of the bottleneck and their slopes, one pair each, and the two dispatchers.

All work on z [BLOCK_T, BLOCK_M] in float32 (float64 under the interpreter) and send NaN to NaN. Each act(0) is 0, so
that padded columns of the bottleneck add nothing.
"""

import triton
import triton.language as tl


@triton.jit
def gelu(z):
    return 0.5 * z * (1.0 + tl.math.erf(z * 0.7071067811865476))


@triton.jit
def gelu_slope(z):
    return 0.5 * (1.0 + tl.math.erf(z * 0.7071067811865476)) + z * 0.3989422804014327 * tl.exp(-0.5 * z * z)


@triton.jit
def gelu_tanh(z):
    # 0.5·(1 + tanh(u)) = sigmoid(2u), which needs one exponential and cannot overflow into NaN.
    return z * tl.sigmoid(1.5957691216057308 * (z + 0.044715 * z * z * z))


@triton.jit
def gelu_tanh_slope(z):
    gate = tl.sigmoid(1.5957691216057308 * (z + 0.044715 * z * z * z))
    return gate + z * gate * (1.0 - gate) * (1.5957691216057308 * (1.0 + 0.134145 * z * z))


@triton.jit
def relu(z):
    return tl.where(z <= 0.0, 0.0, z)


@triton.jit
def relu_slope(z):
    return tl.where(z <= 0.0, 0.0, 1.0).to(z.dtype)


@triton.jit
def silu(z):
    return z * tl.sigmoid(z)


@triton.jit
def silu_slope(z):
    gate = tl.sigmoid(z)
    return gate * (1.0 + z * (1.0 - gate))


@triton.jit
def tanh(z):
    e = tl.exp(-2.0 * tl.abs(z))
    large = (1.0 - e) / (1.0 + e)
    large = tl.where(z < 0.0, -large, large)
    if z.dtype == tl.float32:
        # 1 - e cancels near zero; the series to z⁹ is exact to float32 below 0.25.
        s = z * z
        small = z * (
            1.0
            - s
            * (0.3333333333333333 - s * (0.13333333333333333 - s * (0.05396825396825397 - s * 0.021869488536155203)))
        )
        return tl.where(tl.abs(z) < 0.25, small, large)
    return large


@triton.jit
def tanh_slope(z):
    # 1 - tanh² cancels where tanh saturates; the same in exponentials does not.
    e = tl.exp(-2.0 * tl.abs(z))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    """act(z) for the activation named."""
    if ACTIVATION == "gelu":
        h = gelu(z)
    elif ACTIVATION == "gelu_tanh":
        h = gelu_tanh(z)
    elif ACTIVATION == "relu":
        h = relu(z)
    elif ACTIVATION == "silu":
        h = silu(z)
    elif ACTIVATION == "tanh":
        h = tanh(z)
    else:
        tl.static_assert(ACTIVATION == "identity")
        h = z
    return h


@triton.jit
def activation_slope(z, ACTIVATION: tl.constexpr):
    """act'(z) for the activation named."""
    if ACTIVATION == "gelu":
        slope = gelu_slope(z)
    elif ACTIVATION == "gelu_tanh":
        slope = gelu_tanh_slope(z)
    elif ACTIVATION == "relu":
        slope = relu_slope(z)
    elif ACTIVATION == "silu":
        slope = silu_slope(z)
    elif ACTIVATION == "tanh":
        slope = tanh_slope(z)
    else:
        tl.static_assert(ACTIVATION == "identity")
        slope = tl.zeros_like(z) + 1.0  # z·0 is NaN at infinity
    return slope
