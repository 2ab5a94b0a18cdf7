"""A model as firmware: the microcontroller family's side of `targets.base`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base import Golden, Product, Request, Run, Value
from .boards import BOARDS, get_board
from .firmware import Firmware, build_firmware, emit_firmware, make_firmware, map_of
from .integer import IntegerModel, to_integer
from .memory import check_budget
from .runner import Signature

if TYPE_CHECKING:
    from tvm import ir

    from .target import McuTarget


class McuProduct(Product):
    """Kernel calls, memory plan and C files of a model in integers.

    Attributes:
        model: the integer module with the meaning of its values.
        firmware: what is printed and built.
    """

    def __init__(self, model: IntegerModel, firmware: Firmware, request: Request) -> None:
        self.model = model
        self.firmware = firmware
        self.request = request
        self.module = model.module
        self.quantization = model.quantization
        program = firmware.program
        self.inputs, self.outputs = (
            tuple(
                Value(buffer.shape, buffer.dtype, meaning)
                for buffer, meaning in zip(buffers, meanings, strict=True)
            )
            for buffers, meanings in (
                (program.inputs, model.interface.inputs),
                (program.outputs, model.interface.outputs),
            )
        )

    def check_budgets(self) -> None:
        """RAM is known now, and of flash the constants; the code's size once it is built."""
        self._check(self.firmware.constant_bytes, 0)

    def _check(self, flash_bytes: int, static_ram: int) -> None:
        request = self.request
        board = get_board(request.board) if request.board else None
        check_budget(
            self.firmware.plan,
            flash_bytes=flash_bytes,
            static_ram_bytes=static_ram,
            ram=request.ram or (board.ram.size if board else None),
            flash=request.flash or (board.flash.size if board else None),
            devices=[_Device(b.name, b.ram.size, b.flash.size) for b in BOARDS.values()],
        )

    def plan(self) -> dict[str, Any]:
        """The arena and the constants."""
        firmware = self.firmware
        return {
            "ram_bytes": firmware.plan.arena_bytes,
            "peak_layer": firmware.plan.peak_layer,
            "weights_bytes": firmware.constant_bytes,
            "layers": len(firmware.program.calls),
            "macs": sum(call.macs for call in firmware.program.calls),
        }

    def describe(self) -> dict[str, Any]:
        """Sizes, and a row per kernel call; what is measured later is None."""
        program, plan = self.firmware.program, self.firmware.plan
        return {
            "function": f"{self.firmware.interface.model}_run",
            "macs": sum(call.macs for call in program.calls),
            "instructions_per_inference": None,
            "flash_bytes": None,
            "ram_bytes": plan.arena_bytes,
            "text_bytes": None,
            "weights_bytes": self.firmware.constant_bytes,
            "score": None,
            "float_layers": [c.layer for c in program.calls if c.note and "float" in c.note],
            "layers": [
                {
                    "name": call.layer,
                    "operator": call.operator,
                    "kernel": call.function,
                    "macs": call.macs,
                    "live_bytes": live,
                    "scratch_bytes": call.scratch,
                    "flash_bytes": self.firmware.layer_bytes[index],
                    "instructions": None,
                    "snr_db": None,
                    "note": call.note,
                }
                for index, (call, live) in enumerate(
                    zip(program.calls, plan.live_bytes, strict=True)
                )
            ],
        }

    def references(self, reference: ir.IRModule) -> dict[str, ir.IRModule]:
        """The float module, and the one in integers."""
        return {"float": reference, "integer": self.module}

    def emit(self, folder: Path, golden: Golden | None, rows: Mapping[str, object]) -> None:
        """The C project."""
        emit_firmware(self.firmware, folder, golden, map_of(self.request.board), rows)

    def build(self, folder: Path, layers: list[dict[str, Any]]) -> dict[str, Any]:
        """The library that is measured and emulated, and firmware with its self-test."""
        memory = map_of(self.request.board)
        built = build_firmware(self.firmware, folder, self.request.compiler, memory)
        self._check(built.flash_bytes, built.static_ram_bytes)
        for index, layer in enumerate(layers):
            layer["text_bytes"] = built.layer_text.get(f"fb_layer_{index}", 0)
        return {**built.figures(), "compiler": built.compiler}

    def verified(self, run: Run, samples: int, difference: float) -> dict[str, Any]:
        """Instructions and stack of one inference."""
        del difference  # float islands apart, it is 0
        return {
            "instructions_per_inference": run.instructions,
            "stack_bytes": run.stack_bytes,
            "golden": {"samples": samples, "exact": True},
        }


def make_product(module: ir.IRModule, target: McuTarget, request: Request) -> McuProduct:
    """Integers, kernels, a memory plan.

    Raises:
        FewbitsError: see `lower.lower`.
    """
    model = to_integer(module)
    return McuProduct(model, make_firmware(model, target, request.name), request)


def signature_of(manifest: Mapping[str, Any]) -> Signature:
    """What a runner needs, from the manifest."""
    return Signature(
        function=manifest["function"],
        inputs=tuple((tuple(p["shape"]), p["dtype"]) for p in manifest["inputs"]),
        outputs=tuple((tuple(p["shape"]), p["dtype"]) for p in manifest["outputs"]),
        arena_bytes=manifest["ram_bytes"],
        layers=len(manifest["layers"]),
    )


@dataclasses.dataclass(frozen=True)
class _Device:
    """A board as `check_budget` sees it."""

    name: str
    ram: int
    flash: int
