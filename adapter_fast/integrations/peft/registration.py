"""Makes PEFT know the method BOTTLENECK. PEFT takes new methods only from inside: its enum of them must be extended."""

from __future__ import annotations

import peft
from peft import mapping
from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import register_peft_method
from peft.utils.peft_types import PeftType

NAME = "BOTTLENECK"


def peft_type() -> PeftType:
    """The method's member of PEFT's enum, added to it where it is not in it yet."""
    return PeftType.__members__.get(NAME) or _new_member()


def _new_member() -> PeftType:
    member = str.__new__(PeftType, NAME)
    member._name_ = NAME
    member._value_ = NAME
    setattr(PeftType, NAME, member)
    PeftType._member_names_.append(NAME)
    PeftType._member_map_[NAME] = member
    PeftType._value2member_map_[NAME] = member
    return member


def register(config: type[PeftConfig], model: type[BaseTuner]) -> None:
    """Register the method's configuration and model with PEFT; doing it again replaces them.

    Raises:
        ImportError: this PEFT has a method of the same name, or its registry works in another way than 0.18 to 0.21's.
    """
    try:
        taken = mapping.PEFT_TYPE_TO_CONFIG_MAPPING.get(NAME)
        if taken is not None and taken.__module__ != config.__module__:
            raise ValueError(f"it has a method {NAME} already, {taken.__module__}.{taken.__qualname__}")
        for table in (
            mapping.PEFT_TYPE_TO_CONFIG_MAPPING,
            mapping.PEFT_TYPE_TO_TUNER_MAPPING,
            mapping.PEFT_TYPE_TO_PREFIX_MAPPING,
        ):
            table.pop(NAME, None)
        peft_type()
        register_peft_method(name=NAME.lower(), config_cls=config, model_cls=model)
        if PeftType(NAME) not in list(PeftType):
            raise ValueError("PeftType does not list a member added to it")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ImportError(f"adapter_fast cannot register with PEFT {peft.__version__}: {error}") from error
