"""The cells of the baselines and of the adapters over their sizes, alike for every experiment that compares them."""

from __future__ import annotations

from typing import Any

from ...common.errors import UserError
from ...placement.sites import find_sites, layer_norm_parameters
from .cells import Cell
from .lab import Lab
from .options import Options
from .spec import Spec
from .task import Task


def cell(lab: Lab, task: Task, options: Options, method: str, **changes: Any) -> Cell:
    """One method on one task, over the options' learning rates and epochs."""
    spec = Spec(
        model=options.model,
        base=lab.base(task),
        task=task.name,
        data=lab.data(task),
        method=method,
        batch_size=options.batch_size,
        max_length=options.max_length,
        precision=options.precision,
        stride=options.stride,
        **changes,
    )
    seeds = options.seeds_of(task.name)
    epochs = options.epochs_of(task.name)
    return Cell(spec, options.rates_of(method), epochs, seeds, options.sweep_seeds or seeds)


def adapter_cells(lab: Lab, task: Task, options: Options, **changes: Any) -> list[Cell]:
    """Adapters, one cell for each m: those of the options, or the one that the budget gives."""
    sizes = options.bottlenecks if options.budget is None else (bottleneck_for(lab, task, options.budget),)
    return [cell(lab, task, options, "adapters", bottleneck=size, **changes) for size in sizes]


def top_cells(lab: Lab, task: Task, options: Options) -> list[Cell]:
    """Fine-tuning of the top k layers for each k that the model has."""
    layers = number_of_layers(lab, task)
    return [cell(lab, task, options, "top", top=top) for top in options.tops if top <= layers]


def number_of_layers(lab: Lab, task: Task) -> int:
    """How many layers the model has that adapters can stand in."""
    return len({site.layer for site in find_sites(lab.pool.load(task.kind).model)})


def bottleneck_for(lab: Lab, task: Task, budget: float) -> int:
    """The largest m with which adapters and LayerNorms have at most this share of the base's parameters.

    An adapter has 2·m·d + d + m (section 2.1); the head, which every method trains, does not count.

    Raises:
        UserError: less than m = 1 needs.
    """
    model = lab.pool.load(task.kind).model
    widths = [site.width for site in find_sites(model)]
    norms = sum(model.get_parameter(name).numel() for name in layer_norm_parameters(model))
    weights = lab.pool.size(task.kind)
    free = budget * weights - norms - sum(widths)  # what m may take, at 2·d + 1 an adapter and unit
    size = int(free // sum(2 * width + 1 for width in widths))
    if size < 1:
        least = (norms + sum(3 * width + 1 for width in widths)) / weights
        raise UserError(f"budget {100 * budget:g} % is too small: m = 1 with the LayerNorms takes {100 * least:.2f} %")
    return size
