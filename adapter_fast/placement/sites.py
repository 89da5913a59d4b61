"""Where a configuration puts adapters in a model, which modules are LayerNorms and which are the head."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..common.errors import printable
from ..config import PLACEMENTS, SUB_LAYERS, AdapterConfig, Form
from .families import FAMILIES, HEAD, Family, Stack, SubLayer
from .sharded import whole
from .tuned import base_parameter
from .walk import base_modules, base_parameters, uncompiled_name

SHOWN = 12  # candidates that an error lists
_NORM_NAMES = re.compile(r".*(?:LayerNorm|RMSNorm)")  # transformers has many of its own


@dataclass(frozen=True)
class Site:
    """One place of a model that takes an adapter."""

    name: str  # of the hooked module
    kind: str  # one of SUB_LAYERS, or "target" where target_modules named it
    module: nn.Module
    dense: nn.Module  # gives width, device and dtype
    form: Form = "output"
    entry: nn.Module | None = None  # the module whose input a parallel adapter reads
    layer: str = ""  # the name of its layer; "" for a target
    behind_sum: bool = False  # the hooked output is the residual sum, not a sub-layer's

    @property
    def width(self) -> int:
        """d, the width of the hooked output; ValueError where it cannot be told."""
        width = width_of(self.dense)
        if width is None:
            raise ValueError(
                f"target_modules names {self.name}, a {type(self.dense).__name__} whose width cannot be told: "
                f"expected linear layers or norms"
            )
        return width

    @property
    def weight(self) -> Tensor:
        """A parameter of the dense layer or of what it wraps, or a buffer where it is quantised: device and dtype."""
        values = (self.dense.parameters(recurse=False), self.dense.parameters(), self.dense.buffers())
        return next((value for kind in values for value in kind), torch.empty(0))

    @property
    def device(self) -> torch.device:
        """The weight's device; where accelerate offloads it, which then is on meta, the one it computes on."""
        device = self.weight.device
        hooks = (getattr(module, "_hf_hook", None) for module in self.dense.modules())
        found = (getattr(hook, "execution_device", None) for hook in hooks)
        computes_on = next((each for each in found if each is not None), None)
        return torch.device(computes_on) if device.type == "meta" and computes_on is not None else device


def width_of(module: nn.Module) -> int | None:
    """The last dimension of a module's output, None where the module does not tell."""
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[-1]
    for name in ("out_features", "nf", "embedding_dim"):  # nf: transformers' Conv1D, GPT-2's linear layer
        width = getattr(module, name, None)
        if isinstance(width, int):
            return width
    weight = getattr(module, "weight", None)
    return weight.shape[0] if is_norm(module) and weight is not None and weight.ndim == 1 else None


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a LayerNorm or an RMSNorm, by its type or by the name of transformers' own types."""
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return True
    return "weight" in module._parameters and bool(_NORM_NAMES.fullmatch(type(module).__name__))


def model_type_of(model: nn.Module) -> str | None:
    """model.config.model_type, or None where a model has none."""
    return getattr(getattr(model, "config", None), "model_type", None)


def find_family(model: nn.Module) -> Family | None:
    """The table's row for this model, None for a model that is in none."""
    family = FAMILIES.get(model_type_of(model) or "")
    if family is not None and family.unless is not None:
        setting, value = family.unless
        if getattr(model.config, setting, None) == value:
            return family.otherwise
    return family


def _kind_of_model(model: nn.Module) -> str:
    return f"{type(model).__name__} with model_type {model_type_of(model)!r}"


def family_of(model: nn.Module) -> Family:
    """The table's row for this model; ValueError names its model_type, the known ones and what may be a target."""
    family = find_family(model)
    if family is None:
        raise ValueError(
            f"{_kind_of_model(model)} has no known adapter site: known model types are {', '.join(FAMILIES)}; "
            f"for another model give target_modules, a regular expression of module names: {_candidates(model)}"
        )
    return family


def _candidates(model: nn.Module) -> str:
    """The model's linear layers for an error, alike ones as one pattern."""
    counts: dict[str, int] = {}
    uncalled = _uncalled(model)
    for name, module in base_modules(model):
        if name and name not in uncalled and (hasattr(module, "nf") or _is_linear(module)):
            pattern = re.sub(r"(^|\\\.)\d+(?=\\\.|$)", r"\1\\d+", re.escape(name))
            counts[pattern] = counts.get(pattern, 0) + 1
    listed = [f"{pattern} ({count})" for pattern, count in counts.items()]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"it has {', '.join(listed[:SHOWN])}{more}" if listed else "it has no linear layer"


def _uncalled(model: nn.Module) -> set[str]:
    """Modules whose weights their parent reads without calling them, so that no hook on them would run."""
    return {f"{name}.out_proj" for name, module in base_modules(model) if isinstance(module, nn.MultiheadAttention)}


def _is_linear(module: nn.Module) -> bool:
    return isinstance(getattr(module, "out_features", None), int)


def find_sites(model: nn.Module, config: AdapterConfig | None = None) -> list[Site]:
    """The places where a configuration (default: AdapterConfig()) puts adapters, layer by layer.

    Raises:
        ValueError: an unknown model without target_modules, target_modules that match nothing, a layer that the model
            has not, a sub-layer or placement that its family has not.
    """
    config = AdapterConfig() if config is None else config
    if config.target_modules is not None:
        return _targets(model, config.target_modules)
    family = family_of(model)
    layers = list(find_layers(model, family))
    if not layers:
        patterns = " or ".join(stack.layer for stack in family.stacks)
        raise ValueError(f"{_kind_of_model(model)} has no adapter site: no module matches {patterns}")
    if config.layers is not None and config.layers[-1] >= len(layers):
        raise ValueError(f"layers must be below {len(layers)}, the model's number of layers, got {config.layers[-1]}")
    chosen = range(len(layers)) if config.layers is None else config.layers
    sites = [
        site
        for index in chosen
        for kind in config.adapted
        if (site := _site(model, *layers[index], kind, config.placement)) is not None
    ]
    lacking = [kind for kind in config.adapted if not any(site.kind == kind for site in sites)]
    if lacking:
        raise ValueError(f"sublayers: {_kind_of_model(model)} has no {lacking[0]} in these layers")
    return sites


def find_layers(model: nn.Module, family: Family) -> Iterator[tuple[str, Stack]]:
    """Every layer's name with its row, in the model's order: an encoder's before its decoder's."""
    for name in _names(model):
        for stack in family.stacks:
            if re.fullmatch(stack.layer, name):
                yield name, stack


def _site(model: nn.Module, layer: str, stack: Stack, kind: str, placement: str) -> Site | None:
    """The site of one sub-layer; None where the layer has no such sub-layer, as an encoder's has no cross-attention."""
    sub = getattr(stack, kind)
    base = model.get_submodule(layer)
    if sub is None or (kind == "cross_attention" and sub.hook.split(".")[0] not in base._modules):
        return None
    dense = _part(model, layer, sub.dense)
    place = place_of(sub, placement)
    if place is None:
        raise ValueError(
            f"placement {placement!r} has no place behind the {kind} sub-layer of {_kind_of_model(model)}, whose norms "
            f"come first: expected sublayers {PLACEMENTS[placement].sublayers}"
        )
    hook, form = getattr(sub, place), PLACEMENTS[placement].places[place]
    entry = _part(model, layer, sub.entry) if form == "parallel" else None
    name = f"{layer}.{hook}" if hook else layer
    return Site(name, kind, _part(model, layer, hook), dense, form, entry, layer, behind_sum=place == "sum")


def place_of(sub: SubLayer, placement: str) -> str | None:
    """Which of its fields names the module that takes a sub-layer's adapter; None where it has no such module."""
    return next((field for field in PLACEMENTS[placement].places if getattr(sub, field) is not None), None)


def _part(model: nn.Module, layer: str, name: str) -> nn.Module:
    """A module of a layer by its name in the layer; "" is the layer."""
    try:
        return model.get_submodule(f"{layer}.{name}" if name else layer)
    except AttributeError:
        raise ValueError(
            f"{_kind_of_model(model)} has no adapter site: no module {layer}.{name}, where the transformers versions "
            f"that we know have one (5.5 to 5.23): give target_modules, a regular expression: {_candidates(model)}"
        ) from None


def _targets(model: nn.Module, pattern: str) -> list[Site]:
    sites = [
        Site(name, "target", module, module)
        for name, module in base_modules(model)
        if name and re.fullmatch(pattern, name)
    ]
    if not sites:
        given = printable(repr(pattern))
        raise ValueError(f"target_modules {given} matches no module of {type(model).__name__}: {_candidates(model)}")
    uncalled = _uncalled(model)
    for site in sites:
        if site.name in uncalled:
            raise ValueError(
                f"target_modules names {site.name}, whose weight nn.MultiheadAttention reads without calling it, so "
                f"that an adapter would never run: expected another module"
            )
    return sites


def _names(model: nn.Module) -> Iterator[str]:
    """The names of all modules without torch.compile's wrappers around layers; get_submodule finds them by these."""
    for name, _ in base_modules(model):
        if not name.endswith("_orig_mod"):
            yield uncompiled_name(name)


def _matching(model: nn.Module, patterns: Sequence[str]) -> Iterator[str]:
    """The names of the modules that a pattern matches as a whole."""
    for name in _names(model):
        if any(re.fullmatch(pattern, name) for pattern in patterns):
            yield name


def _parameters_of(model: nn.Module, modules: Sequence[str]) -> list[str]:
    return [f"{name}.{parameter}" for name in modules for parameter, _ in base_parameters(model.get_submodule(name))]


def layer_norm_parameters(model: nn.Module, config: AdapterConfig | None = None) -> list[str]:
    """Names of the parameters of every LayerNorm and RMSNorm, the embeddings' included, the attention's own left out.

    Where the configuration leaves layers out (`layers`), only of those that run behind the lowest adapter of their
    stack, so that the backward pass can end there.
    """
    family = find_family(model)
    if family is None:
        head = head_parameters(model)
        names = [name for name, module in base_modules(model) if is_norm(module)]
        return [parameter for parameter in _parameters_of(model, names) if parameter not in head]
    if config is None or config.layers is None:
        return _parameters_of(model, list(_matching(model, (*family.input_norms, *family.layer_norms))))
    left = _left_out(model, family, config)
    return _parameters_of(model, [name for name in _matching(model, family.layer_norms) if name not in left])


def _left_out(model: nn.Module, family: Family, config: AdapterConfig) -> set[str]:
    """The modules that run before the lowest adapter of their stack, or before the first stack that has adapters.

    A stack without adapters behind one that has some, a decoder's or the next group of ALBERT, runs behind them.
    """
    lowest: dict[str, Site] = {}  # by the stack's name
    for site in find_sites(model, config):
        lowest.setdefault(_stack(site.layer), site)
    layers = list(find_layers(model, family))
    stacks = list(dict.fromkeys(_stack(layer) for layer, _ in layers))
    behind = set() if family.towers else set(stacks[min(stacks.index(stack) for stack in lowest) :])
    left = {name for stack in stacks if stack not in behind | lowest.keys() for name in _around(model, stack)}
    for layer, row in layers:
        first = lowest.get(_stack(layer))
        if first is not None and int(layer.rpartition(".")[2]) < int(first.layer.rpartition(".")[2]):
            left |= {name for name in _names(model) if name.startswith(f"{layer}.")}
        elif first is not None and layer == first.layer:
            left |= {f"{layer}.{name}" for name in _before(row, first.kind, first.behind_sum)}
    return left


def _stack(layer: str) -> str:
    return layer.rpartition(".")[0]


def _around(model: nn.Module, stack: str) -> set[str]:
    """The modules of a stack of layers and those beside it, such as an encoder's last norm."""
    parent = _stack(stack)
    return {name for name in _names(model) if name.startswith(f"{parent}." if parent else "")}


def _before(stack: Stack, kind: str, behind_sum: bool) -> Iterator[str]:
    """The norms of a layer that run before the adapter of this sub-layer, which may stand behind the residual sum."""
    for earlier in SUB_LAYERS[: SUB_LAYERS.index(kind)]:
        sub = getattr(stack, earlier)
        if sub is not None:
            yield from (name for name in (sub.entry, sub.norm, sub.second_norm) if name is not None)
    own = getattr(stack, kind)
    yield own.entry
    if behind_sum and own.second_norm is not None:
        yield own.second_norm


def new_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters that the checkpoint lacked, which transformers' from_pretrained drew at random.

    Empty where the model was not made by from_pretrained, which marks what it has loaded.
    """
    names = [name for name, _ in base_parameters(model)]
    loaded = {name: hasattr(base_parameter(model, name), "_is_hf_initialized") for name in names}
    return [name for name, found in loaded.items() if not found] if any(loaded.values()) else []


def untrained_poolers(model: nn.Module) -> list[str]:
    """Names of the parameters of poolers that the checkpoint has as they were drawn: with a bias of zeros.

    Models trained without a next sentence (MiniLM, and sentence encoders from it) are saved with such a one, and
    from_pretrained marks it as loaded. Empty where the model was not made by from_pretrained.
    """
    return [
        parameter
        for name, module in base_modules(model)
        if isinstance(module, nn.Linear) and "pooler" in name.split(".") and module.bias is not None
        for bias in [base_parameter(model, f"{name}.bias")]
        if hasattr(bias, "_is_hf_initialized") and not bias.is_meta and not whole(bias.detach()).any()
        for parameter in _parameters_of(model, [name])
    ]


def pretrained_parts(model: nn.Module) -> Iterator[str]:
    """The names of what no task makes anew: the layers of a known family, and embeddings."""
    family = find_family(model)
    yield from () if family is None else (name for name, _ in find_layers(model, family))
    yield from (name for name, module in base_modules(model) if isinstance(module, nn.Embedding))


def head_parameters(model: nn.Module) -> list[str]:
    """Names of the task head's parameters; empty for a model without one."""
    family = find_family(model)
    return _parameters_of(model, list(_matching(model, HEAD if family is None else family.head)))


def task_parameters(model: nn.Module, named: bool | Sequence[str]) -> list[str]:
    """Names of the parameters that a task makes anew: True all that are known, False none, or those that are named.

    Raises:
        TypeError, ValueError: `named`, an argument head, is no list of names, or has one that the model has not.
    """
    if isinstance(named, bool):
        found = [*head_parameters(model), *new_parameters(model), *untrained_poolers(model)] if named else []
        return list(dict.fromkeys(found))
    if isinstance(named, str) or not all(isinstance(name, str) for name in named):
        raise TypeError(f"head must be True, False or a list of names of modules or parameters, got {named!r}")
    chosen: dict[str, None] = {}
    for name in named:
        inside = [key for key, _ in base_parameters(model) if key == name or key.startswith(f"{name}.")]
        if not inside:
            raise ValueError(f"head names {name!r}, and {type(model).__name__} has no such module or parameter")
        chosen |= dict.fromkeys(inside)
    return list(chosen)
