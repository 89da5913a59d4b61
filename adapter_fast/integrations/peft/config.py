"""BottleneckConfig: AdapterConfig as PEFT wants one."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft.config import PeftConfig

from ...common.errors import printable
from ...common.files import write_whole
from ...config import AdapterConfig
from .registration import peft_type

ALL_LINEAR = "all-linear"
CARD_FILE = "README.md"
IMPORT = """
PEFT knows this method, BOTTLENECK, after `import adapter_fast.integrations.peft` (`pip install "adapter_fast[peft]"`);
without it loading ends in `KeyError: 'BOTTLENECK'`.
"""


def _checked_pattern(name: str, value: Any) -> None:
    """Raise unless value is None, a regular expression or a collection of names."""
    if isinstance(value, str):
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:  # nested too deep, a count too large
            given = printable(repr(value))
            raise ValueError(f"{name} must be a list of names or a regular expression, got {given}: {error}") from None
    elif value is not None:
        _checked_names(name, value)


def _checked_names(name: str, value: Any) -> None:
    if not isinstance(value, (list, tuple, set)) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{name} must be a list of strings, got {value!r}")
    if not value or "" in value:
        raise ValueError(f"{name} must name at least one module, none of them empty, got {value!r}")


@dataclass
class BottleneckConfig(PeftConfig):
    """A bottleneck adapter behind each sub-layer of a transformer (Houlsby et al. 2019, arXiv 1902.00751) in PEFT.

    Usable wherever PEFT takes a configuration: get_peft_model, PeftModel.add_adapter, transformers' model.add_adapter.

    Args:
        bottleneck, activation, scale, init, init_std, dropout, implementation, memory: as in AdapterConfig.
        use_bias: whether both projections have a bias. Not `bias`: in PEFT that says which of the base's biases train.
        placement: "houlsby", the one placement that PEFT's way of wrapping modules can express.
        sublayers, layers: as in AdapterConfig. Like PEFT's own defaults they end up in target_modules when a model is
            wrapped: names that the table of families finds in it.
        target_modules: modules that get an adapter behind their output [..., d], as in any PEFT method: a regular
            expression of whole names, or a list of names or their last parts. None takes the model family's sites.
        exclude_modules: modules that get none, written in the same way.
        modules_to_save: modules trained and saved beside the adapter, by the last part of their names: a new head,
            LayerNorms ("LayerNorm" for BERT).
        task_type, inference_mode, base_model_name_or_path, revision: PEFT's own.

    Raises:
        TypeError, ValueError: one line that names the argument, what was expected and what was given.
    """

    bottleneck: int = 64
    activation: str = "gelu"
    placement: str = "houlsby"
    scale: float = 1.0
    use_bias: bool = True
    init_std: float = 1e-2
    implementation: str = "fused"
    memory: str = "speed"
    sublayers: list[str] | None = None
    layers: list[int] | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    init: str = "houlsby"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type()
        if not isinstance(self.use_bias, bool):
            raise TypeError(f"use_bias must be True or False, got {self.use_bias!r}")
        if self.placement != "houlsby":
            raise ValueError(f"placement must be 'houlsby' with PEFT (add_adapters has others), got {self.placement!r}")
        checked = self.adapter_config()
        self.scale, self.init_std, self.dropout = checked.scale, checked.init_std, checked.dropout
        self.sublayers = None if checked.sublayers is None else list(checked.sublayers)
        self.layers = None if checked.layers is None else list(checked.layers)
        self._check_modules()

    def _check_modules(self) -> None:
        _checked_pattern("target_modules", self.target_modules)
        if isinstance(self.target_modules, str) and self.target_modules.lower() == ALL_LINEAR:
            raise ValueError(f"target_modules must name the outputs of sub-layers, got {self.target_modules!r}")
        if self.target_modules is not None and (self.sublayers is not None or self.layers is not None):
            raise ValueError(f"sublayers and layers must be None with target_modules, got {self.target_modules!r}")
        _checked_pattern("exclude_modules", self.exclude_modules)
        if self.modules_to_save is not None:
            _checked_names("modules_to_save", self.modules_to_save)
            self.modules_to_save = list(self.modules_to_save)

    def adapter_config(self) -> AdapterConfig:
        """The AdapterConfig of the same adapter in the same places; target_modules and modules_to_save are left out."""
        return AdapterConfig(
            bottleneck=self.bottleneck,
            activation=self.activation,
            placement=self.placement,
            scale=self.scale,
            bias=self.use_bias,
            init=self.init,  # type: ignore[arg-type]
            init_std=self.init_std,
            dropout=self.dropout,
            implementation=self.implementation,  # type: ignore[arg-type]
            memory=self.memory,
            sublayers=self.sublayers,  # type: ignore[arg-type]
            layers=self.layers,  # type: ignore[arg-type]
        )

    @classmethod
    def from_json_file(cls, path_json_file: str, **kwargs: Any) -> dict[str, Any]:
        """PeftConfig's; ValueError names the loader where save_adapters or AdapterHub wrote the file."""
        values = super().from_json_file(path_json_file, **kwargs)
        if "peft_type" not in values and values.keys() & {"format_version", "version"}:
            writer = "save_adapters" if "format_version" in values else "AdapterHub"
            raise ValueError(f"{path_json_file} is of {writer}, not of PEFT: adapter_fast.load_adapters loads it")
        return values

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """PeftConfig's; a model card beside it then says what a process that loads the adapter must import."""
        super().save_pretrained(save_directory, **kwargs)
        # A named adapter's folder is inside the one with the card.
        for card in (Path(save_directory) / CARD_FILE, Path(save_directory).parent / CARD_FILE):
            text = card.read_text("utf-8") if card.is_file() else ""
            if "library_name: peft" in text and IMPORT.strip() not in text:
                write_whole(card, f"{text.rstrip()}\n{IMPORT}")

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, JSON types only; PEFT keeps some names in a set, which has no order of its own."""
        return {key: sorted(value) if isinstance(value, set) else value for key, value in asdict(self).items()}
