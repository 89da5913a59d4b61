"""Our op inside AdapterHub's `adapters`, for models that stay on the transformers 4 which that library needs."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

# sha256 of the source of every function of theirs that ours replace, call around or leave out. Those of adapters 1.2.0
# and 1.3.0 are the same.
_KNOWN = {
    "Adapter.__init__": "326bf97ae2f65c573db9859dfed7251292a2a66999a011716457298c513d2fad",
    "Adapter.forward": "9f9b4b9aa456257eb6ea86475de3de7e77c4f0ace2be8a03da7b714c3a0f0a42",
    "BottleneckLayer.bottleneck_layer_forward": "19459f7c96e93996fc3cc0e8718c9cb5968f27a5713fbac159fdd53daa961082",
    "BottleneckLayer.compose": "7591416a1f24fd4b07dfac35db4f1350819979ef0d5e00b57e1db55a69ec66f0",
    "BottleneckLayer.compose_single": "ca9eef6e88472d9caf605d806c69dbb57e447b960bc65aeed08b7b882ecbf2b4",
    "BottleneckLayer.compose_fuse": "951915857c8ab31609ed2c88ec2d7ecb8f61716cac2fe9bafd143acd9a65d856",
    "BottleneckLayer.compose_stack": "9af9c905da270486b0885587d6956e5d71cd14cd044ff275648fc890f10c72e5",
    "BottleneckLayer.pre_block": "476eeecc0451dcba85add11ca03022d473ffcbea17771d292594c74dc04d6872",
    "BottleneckLayer.get_active_setup": "f6f15db48482a77026ddac04e426ff6c784a2d3f2d2d88ed2d1f09e5da8ce05e",
}

_theirs: dict[tuple[type, str], Callable[..., Any]] = {}  # what patch() replaced, while it is replaced


def patch() -> None:
    """Make AdapterHub's bottleneck adapters compute with fused_adapter, in every model of this process.

    Adapter.forward uses the fused op where that computes the same: a plain pair of linear layers around an activation
    that we have, a fixed scaling, and no dropout, drop path, gating or LayerNorm of its own; under autocast where the
    residual has autocast's dtype. It returns (output, None, None) then: the branch by itself, which only Fuse reads,
    does not exist. All else is computed as before: Fuse's children, Compacter, ParallelAdapter, gated adapters.
    BottleneckLayer.bottleneck_layer_forward calls a single active adapter straight, without the composition's
    machinery. Gradients are those of fused_adapter, differentiable once. Calling it again changes nothing.

    Raises:
        ImportError: `adapters` is absent, or cannot be imported beside this transformers.
        RuntimeError: a function of `adapters` is not the one known here: another version, or another patch.
    """
    if _theirs:
        return
    _check_sources(_import_adapters())
    from .replacements import REPLACEMENTS

    for (owner, name), ours in REPLACEMENTS.items():
        _theirs[owner, name] = owner.__dict__[name]
        setattr(owner, name, ours)


def unpatch() -> None:
    """Put back the very functions that patch() replaced; without a patch there is nothing to do.

    Raises:
        RuntimeError: one of them was replaced again since, by someone else; nothing is changed.
    """
    if not _theirs:
        return
    from .replacements import REPLACEMENTS

    for (owner, name), ours in REPLACEMENTS.items():
        if owner.__dict__[name] is not ours:
            raise RuntimeError(f"{owner.__name__}.{name} was replaced after patch(): undo that first")
    for (owner, name), function in _theirs.items():
        setattr(owner, name, function)
    _theirs.clear()


def _import_adapters() -> ModuleType:
    """The library's two modules that matter are loaded with it."""
    try:
        import adapters.methods.bottleneck as bottleneck
    except ImportError as error:
        found = [f"{name} {_version(name)}" for name in ("adapters", "transformers")]
        raise ImportError(
            f"AdapterHub's library cannot be imported ({', '.join(found)}): {error}; it needs transformers 4: "
            'pip install "adapters==1.3.0" "transformers==4.57.6"'
        ) from error
    return bottleneck


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _check_sources(bottleneck: ModuleType) -> None:
    for path, known in _KNOWN.items():
        function: Any = bottleneck
        for name in path.split("."):
            function = getattr(function, name, None)
        try:
            source = inspect.getsource(function)
        except (OSError, TypeError):
            source = ""
        if hashlib.sha256(source.encode()).hexdigest() != known:
            raise RuntimeError(
                f"adapters {_version('adapters')}: {path} is not the function known from adapters 1.2.0 and 1.3.0, "
                "it is of another version or patched already"
            )
