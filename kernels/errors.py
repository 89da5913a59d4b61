"""The one error of a kernel that cannot be imported, compiled or launched. Without Triton, which may be what fails."""

import sys

import torch


class KernelError(RuntimeError):
    """A kernel could not be imported, compiled or launched; raised from what Triton or the driver raised."""


def kernel_error(what: str, error: Exception, tiles: str = "") -> KernelError:
    """One line on what failed and how to go on; tiles: the compile-time settings of a launch."""
    said = str(getattr(error, "error_message", None) or error).strip().splitlines() or [""]
    triton = getattr(sys.modules.get("triton"), "__version__", "not imported")
    where = f"{tiles}torch {torch.__version__}, Triton {triton}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return KernelError(
        f"{what} failed: {type(error).__name__}: {said[0]} ({where}, {device}). "
        f"ADAPTER_FAST_BACKEND=torch computes with PyTorch instead; please report this line among the project's issues"
    )
