"""Lowers single Relax calls, runs the kernels and compares every bit with the oracle."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import fewbits.ops.integer
import fewbits.ops.meanings  # noqa: F401 - registers the meanings of Relax operators
import numpy as np
import pytest
import torch
from fewbits.ops.registry import make_call, meaning_of
from fewbits.targets.mcu import toolchain
from fewbits.targets.mcu.probe import Probe
from fewbits.targets.mcu.program import Buffer, KernelCall
from fewbits.targets.mcu.target import McuTarget, get_target
from tvm import relax

#: One target per kind of instruction set; the host runs under sanitizers where gcc is there.
TARGETS = ("c", "cortex-m0plus", "cortex-m3", "cortex-m4", "rv32imc")


@dataclasses.dataclass(frozen=True)
class Case:
    """A call, the value of each of its tensor arguments, and which of them are constants."""

    call: relax.Call
    values: tuple[np.ndarray, ...]
    constants: frozenset[int] = frozenset()

    @property
    def expected(self) -> tuple[np.ndarray, ...]:
        """The oracle's answer, one array per output."""
        tensors = iter(torch.from_numpy(np.array(value)) for value in self.values)
        arguments = [_value(argument, tensors) for argument in self.call.args]
        result = meaning_of(self.call.op.name)(self.call, *arguments)
        results = result if isinstance(result, tuple) else (result,)
        return tuple(np.ascontiguousarray(r.numpy()) for r in results)

    def lower(
        self, rule: Callable[..., KernelCall | None], target: str | McuTarget
    ) -> KernelCall | None:
        """What the rule makes of the call."""
        core = get_target(target) if isinstance(target, str) else target
        inputs = [
            Buffer(f"in{i}", value.shape, str(value.dtype))
            for i, value in enumerate(self.values)
            if i not in self.constants
        ]
        outputs = [
            Buffer(f"out{i}", value.shape, str(value.dtype))
            for i, value in enumerate(self.expected)
        ]
        several = self.call.op.name == "relax.split"
        constants = {i: self.values[i] for i in self.constants}
        output = outputs if several else outputs[0]
        return rule("layer", self.call, inputs, output, constants, core)


def _value(argument: relax.Expr, tensors: Iterator[torch.Tensor]) -> Any:
    """An argument as meanings expect it; the variables take the tensors in order."""
    if isinstance(argument, relax.Var):
        return next(tensors)
    if isinstance(argument, relax.ShapeExpr):
        return tuple(int(v) for v in argument.values)
    if isinstance(argument, relax.Tuple):
        return tuple(_value(field, tensors) for field in argument.fields)
    return argument.value


def case(
    operator: str | Callable[..., relax.Expr],
    values: Sequence[np.ndarray],
    constants: Sequence[int] = (),
    **attributes: Any,
) -> Case:
    """A case of one of our operators, by name, or of Relax's, by a function of its variables."""
    variables = [
        relax.Var(f"v{i}", relax.TensorType(value.shape, str(value.dtype)))
        for i, value in enumerate(values)
    ]
    if isinstance(operator, str):
        call = make_call(operator, variables, **attributes)
    else:
        call = operator(*variables)
    call = relax.BlockBuilder().normalize(call)
    return Case(call, tuple(values), frozenset(constants))


def assert_exact(
    rule: Callable[..., KernelCall | None], cases: Sequence[Case], target: str | McuTarget
) -> list[int | None]:
    """Every case equals the oracle: apart, and at the distance of overlap that the rule allows.

    Returns the instructions that each case took.
    """
    core = get_target(target) if isinstance(target, str) else target
    calls = [c.lower(rule, core) for c in cases]
    assert all(call is not None for call in calls)
    sanitize = core.family == "host" and shutil.which("gcc") is not None
    probe = Probe(calls, core, sanitize=sanitize)
    counts = []
    for index, (call, one) in enumerate(zip(calls, cases, strict=True)):
        inputs = [v for i, v in enumerate(one.values) if i not in one.constants]
        outcome = probe.run(index, inputs)
        counts.append(outcome.instructions)
        _compare(one, call, outcome.outputs, "apart")
        for distance in _distances(call):
            outcome = probe.run(index, inputs, distance=distance)
            _compare(one, call, outcome.outputs, f"output {distance} bytes before the input")
    return counts


def _distances(call: KernelCall) -> list[int]:
    """The allowed distance, and a larger one where that is allowed too."""
    if not call.overlap or call.overlap[0] is None:
        return []
    distance = -(-call.overlap[0] // 4) * 4
    return [distance] if call.overlap_exact else [distance, distance + 4]


def _compare(one: Case, call: KernelCall, outputs: Sequence[np.ndarray], where: str) -> None:
    for got, wanted in zip(outputs, one.expected, strict=True):
        message = f"{one.call.op.name} {call.arguments} ({where})"
        np.testing.assert_array_equal(got, wanted, err_msg=message)


def requantization(
    rng: np.random.Generator, sums: np.ndarray, shift: int
) -> tuple[np.ndarray, np.ndarray]:
    """bias and multiplier [channels] that spread sums [..., channels] over the whole int8 range."""
    spread = np.abs(sums.reshape(-1, sums.shape[-1])).max(axis=0) + 1
    scale = rng.uniform(100, 200, spread.shape) / spread
    multiplier = np.minimum(scale * 2.0 ** (32 - shift), 2.0**31 - 1).astype(np.int64)
    offset = rng.uniform(-40, 40, spread.shape) + 0.5
    bias = np.clip(offset * 2.0**32 / multiplier, -(2.0**28), 2.0**28)
    return bias.astype(np.int32), multiplier.astype(np.int32)


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    """Name of each target in turn."""
    return request.param


@pytest.fixture
def halves_on_host(monkeypatch: pytest.MonkeyPatch) -> McuTarget:
    """The host as a core with 16-bit lanes: the DSP paths of kernels, under its sanitizers."""
    build = functools.partial(toolchain.build, defines=("FB_HALVES=1",))
    monkeypatch.setattr(toolchain, "build", build)
    return dataclasses.replace(get_target("c"), dsp=True)


@pytest.fixture
def tools() -> Mapping[str, Any]:
    """This file's functions, for tests (which cannot import one another)."""
    return {"case": case, "assert_exact": assert_exact, "requantization": requantization}
