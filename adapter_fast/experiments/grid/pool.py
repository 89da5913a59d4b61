"""Models of one base, built from memory: its files are read once, and what stays frozen is shared by all runs."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from ...common.digest import weights_digest
from ...common.quiet import quiet_transformers
from ...placement.sites import head_parameters
from ...tasks.kinds.base import Kind
from ...tasks.models import Loaded, load_model


class Pool:
    """The base model's weights, and models around them with a new head each, also where the files hold a head."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reads = 0
        self._first: dict[str, Loaded] = {}  # by kind: config, class and processor are taken from it
        self._weights: dict[str, dict[str, Tensor]] = {}

    def load(self, kind: Kind) -> Loaded:
        """The model as it is on disk, for a kind: the processor, the config, the names of what is new. Read once."""
        name = kind.auto_class.__name__
        if name not in self._first:
            self.reads += 1
            loaded = load_model(self.name, kind, [])
            drawn = {*loaded.new_parameters, *head_parameters(loaded.model)}
            state = loaded.model.state_dict()
            self._weights[name] = {key: value for key, value in state.items() if key not in drawn}
            self._first[name] = loaded
        return self._first[name]._replace(kind=kind.for_model(self._first[name].model.config))

    def build(self, kind: Kind, label_names: list[str]) -> Loaded:
        """A model with a newly drawn head for these labels; its base is shared until own_trained."""
        first = self.load(kind)
        config: Any = copy.deepcopy(first.model.config)
        config.problem_type = None  # that of the kind that came first
        if label_names:
            config.id2label = dict(enumerate(label_names))
            config.label2id = {label: number for number, label in enumerate(label_names)}
        for key, value in kind.head_config.items():
            setattr(config, key, value)
        weights = self._weights[kind.auto_class.__name__]
        with quiet_transformers():
            model: Any = type(first.model).from_pretrained(None, config=config, state_dict=dict(weights))  # type: ignore[attr-defined]
        return Loaded(model, first.processor, first.kind, first.new_parameters)

    def size(self, kind: Kind) -> int:
        """The base's number of parameters, the head left out."""
        model = self.load(kind).model
        weights = self._weights[kind.auto_class.__name__]
        return sum(parameter.numel() for name, parameter in model.named_parameters() if name in weights)

    def digest(self, kind: Kind) -> str:
        """16 hex digits of the sha256 of the base's weights as they are now."""
        self.load(kind)
        return weights_digest(self._weights[kind.auto_class.__name__])


def own_trained(model: nn.Module) -> nn.Module:
    """Give the model copies of what it trains, so that the shared base keeps its bytes. Returns the model."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.clone()
    return model
