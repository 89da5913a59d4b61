"""The module that holds a site's adapters, and the one hook that calls it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

CHILD = "adapter_site"  # its name inside the hooked module; the base's own state-dict keys stay as they are


class AdapterSite(nn.Module):
    """All adapters of one site: a child of the hooked module, so that it travels with it.

    State-dict keys below the hooked module: adapter_site.adapters.{name}.down.weight and so on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()
        self.active: str | None = None
        self.enabled = True

    def forward(self, x: Tensor) -> Tensor:
        """x [..., d] → the active adapter's output, or x itself where none is active or they are disabled."""
        if self.active is None or not self.enabled:
            return x
        return self.adapters[self.active](x)

    def extra_repr(self) -> str:
        """Which adapter computes."""
        return f"active={self.active!r}, enabled={self.enabled}"


def run_site(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """The forward hook: the hooked module's own site, from its argument, so that every copy runs its own adapters."""
    return getattr(module, CHILD)(output)


def attach(module: nn.Module) -> AdapterSite:
    """Give a module an empty site and the hook; returns the site."""
    site = AdapterSite()
    site.train(module.training)
    setattr(module, CHILD, site)
    module.register_forward_hook(run_site)
    return site


def detach(module: nn.Module) -> None:
    """Take the site and the hook away; works on copies and unpickled modules, whose hook handles are lost."""
    delattr(module, CHILD)
    for key in [key for key, hook in module._forward_hooks.items() if hook is run_site]:
        del module._forward_hooks[key]


def site_of(module: nn.Module) -> AdapterSite | None:
    """The module's site, or None."""
    site = module._modules.get(CHILD)
    return site if isinstance(site, AdapterSite) else None


def sites_in(model: nn.Module) -> dict[str, AdapterSite]:
    """Every site in the model by its hooked module's name, in the model's order."""
    return {name: site for name, module in model.named_modules() if (site := site_of(module)) is not None}
