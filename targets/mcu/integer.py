"""From the compress phase to what a microcontroller computes: the target's own passes, in order."""

from __future__ import annotations

import dataclasses

from tvm import ir

from ...passes.channels_last import channels_last
from ...passes.integer_only import integer_only
from ...passes.interface import Interface, integer_interface, quantization_of


@dataclasses.dataclass(frozen=True)
class IntegerModel:
    """A module in integer form, with the meaning of its interface and of its values.

    Attributes:
        module: int8 dialect; islands without an integer form stay float.
        interface: how real inputs and outputs become codes.
        quantization: (scale, zero point) of int8 values by variable name.
    """

    module: ir.IRModule
    interface: Interface
    quantization: dict[str, tuple[float, int]]


def to_integer(module: ir.IRModule) -> IntegerModel:
    """Integer-only arithmetic, channels last, int8 interface. A float module stays float."""
    module = integer_only(module)
    module = channels_last(module)
    module, interface = integer_interface(module)
    return IntegerModel(module, interface, quantization_of(module, interface))
