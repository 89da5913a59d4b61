"""The module that holds a site's adapters, and the hooks that call it."""

from __future__ import annotations

from collections.abc import Mapping
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Form
from .masters import run_with_masters
from .walk import CHILD, INLET, base_modules


class Inlet(nn.Module):
    """Carries a sub-layer's input from where it enters to the parallel adapter behind the sub-layer.

    A child of the entry module and of the site: a module without parameters, so that copies of the model (deepcopy,
    pickle, data parallel) have their own, and no state-dict key is new. Threads that call one model at the same time
    have an input each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers = 0  # sites whose active adapter reads it: two where one norm feeds both sub-layers, as in Phi
        self.held: dict[int, tuple[Tensor, int]] = {}  # by thread: the input, and how many readers are left

    def fill(self, x: Tensor) -> None:
        """Keep the input until every reader has taken it."""
        self.held[_thread()] = (x, self.readers)

    def take(self) -> Tensor:
        """The input, forgotten with the last reader; RuntimeError where the sub-layer has not been entered."""
        thread = _thread()
        if thread not in self.held:
            raise RuntimeError("the parallel adapter's sub-layer ended without being entered: its modules ran apart")
        x, left = self.held.pop(thread)
        if left > 1:
            self.held[thread] = (x, left - 1)
        return x

    def __getstate__(self) -> dict[str, Any]:
        """Without what a forward that failed has left: a copy has no use for it, and a graph cannot be copied."""
        return {**self.__dict__, "held": {}}


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else get_ident()


class AdapterSite(nn.Module):
    """All adapters of one site: a child of the hooked module, so that it travels with it.

    State-dict keys below the hooked module: adapter_site.adapters.{name}.down.weight and so on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.forms: dict[str, Form] = {}
        self.active: str | None = None
        self.enabled = True

    def add(self, name: str, adapter: nn.Module, form: Form = "output") -> None:
        """Give the site an adapter; it does not compute before switch."""
        self.adapters[name] = adapter
        self.forms[name] = form

    def remove(self, name: str) -> None:
        """Take an adapter out, if it is here."""
        if name in self.adapters:
            del self.adapters[name], self.forms[name]

    def switch(self, active: str | None, enabled: bool | None = None) -> None:
        """Make an adapter the one that computes, where the site has it; enabled None leaves that as it is."""
        reading = self._reads()
        self.active = active if active is not None and active in self.adapters else None
        self.enabled = self.enabled if enabled is None else enabled
        if self._reads() != reading:
            self._inlet().readers += -1 if reading else 1

    def _inlet(self) -> Inlet:
        return self._modules[INLET]  # type: ignore[return-value]

    def _reads(self) -> bool:
        return self.enabled and self.active is not None and self.forms[self.active] == "parallel"

    def extra_repr(self) -> str:
        """Which adapter computes."""
        return f"active={self.active!r}, enabled={self.enabled}"


def run_site(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    """The forward hook: the output of the module with its site's active adapter, or as it is where none is enabled.

    The site is found through the argument, so that every copy of the model runs its own adapters. output: a tensor
    [..., d], or a tuple that begins with one. With y = residual + scale · f(x), f the bottleneck:

        output     x and residual are the output: Houlsby; behind the residual sum of a pre-LN layer: Pfeiffer
        norm       the module is a LayerNorm behind the residual sum s: LN(s + scale · f(LN(s))), Pfeiffer
        parallel   x is what entered the sub-layer, residual the output
    """
    # Past nn.Module's attribute lookup and calls, which cost a small call microseconds.
    try:
        site: Any = module._modules[CHILD]
    except KeyError:  # quantize_dynamic and their like hand on the hooks of what they replace, and drop its children
        raise RuntimeError(
            f"a {type(module).__qualname__} took the place of a module with adapters, and they are lost: replace it "
            f"before add_adapters"
        ) from None
    name = site.active
    if name is None or not site.enabled:
        return output
    adapter, form = site._modules["adapters"]._modules[name], site.forms[name]
    if isinstance(output, tuple):
        return (_adapted(module, site, adapter, form, args, output[0]), *output[1:])
    return adapter(output) if form == "output" else _adapted(module, site, adapter, form, args, output)


def _adapted(module: nn.Module, site: Any, adapter: Any, form: Form, args: tuple[Any, ...], output: Tensor) -> Tensor:
    if form == "output":
        return adapter(output)
    if form == "norm":
        return run_with_masters(module, adapter(output, args[0]))
    return adapter(site._modules[INLET].take(), output)


def fill_inlet(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """The forward pre-hook of an entry module: keep its first argument for the parallel adapter."""
    inlet = getattr(module, INLET)
    if inlet.readers:
        inlet.fill(args[0] if args else next(iter(kwargs.values())))


def _guard_hooks() -> None:
    """Let torch.compile see that a module has hooks.

    By default its guards leave hooks out: a graph compiled for a model without adapters would then serve the same
    model once it has them, and every other model of its class.
    """
    import torch._dynamo

    if torch._dynamo.config.skip_nnmodule_hook_guards:
        torch._dynamo.config.skip_nnmodule_hook_guards = False
        if torch._dynamo.convert_frame.FRAME_COUNTER:  # what was compiled so far has no such guards
            torch.compiler.reset()


def attach(module: nn.Module, first: bool = False) -> AdapterSite:
    """Give a module an empty site and the hook; returns the site.

    first: ahead of hooks that are there already. So behind a whole layer, for transformers collects hidden states by
    hooks on it; but behind a linear layer tensor parallelism's hook, which gathers its output, has to come before.
    """
    _guard_hooks()
    site = AdapterSite()
    site.train(module.training)
    setattr(module, CHILD, site)
    module.register_forward_hook(run_site, prepend=first)
    return site


def attach_inlet(site: AdapterSite, entry: nn.Module) -> None:
    """Let a site's parallel adapters read what enters this module."""
    if INLET in site._modules:
        return
    inlet = entry._modules.get(INLET)
    if inlet is None:
        inlet = Inlet().train(entry.training)
        setattr(entry, INLET, inlet)
        entry.register_forward_pre_hook(fill_inlet, with_kwargs=True)
    setattr(site, INLET, inlet)


def detach(module: nn.Module) -> None:
    """Take the site and the hook away; works on copies and unpickled modules, whose hook handles are lost."""
    delattr(module, CHILD)
    for key in [key for key, hook in module._forward_hooks.items() if hook is run_site]:
        del module._forward_hooks[key]


def detach_inlet(module: nn.Module) -> None:
    """Take the inlet and its hook away."""
    delattr(module, INLET)
    for key in [key for key, hook in module._forward_pre_hooks.items() if hook is fill_inlet]:
        del module._forward_pre_hooks[key]
        del module._forward_pre_hooks_with_kwargs[key]


def site_of(module: nn.Module) -> AdapterSite | None:
    """The module's site, or None."""
    site = module._modules.get(CHILD)
    return site if isinstance(site, AdapterSite) else None


def sites_in(model: nn.Module) -> dict[str, AdapterSite]:
    """Every site in the model by its hooked module's name, in the model's order."""
    return {name: site for name, module in base_modules(model) if (site := site_of(module)) is not None}
