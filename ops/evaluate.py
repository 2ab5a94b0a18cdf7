"""Run a Relax module with the torch meanings of its operators: oracle and calibration engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from tvm import ir, relax, tirx

from ..errors import FewbitsError
from . import compressed, integer, meanings  # noqa: F401  (they register the operators)
from .meanings.common import from_numpy, ints
from .registry import meaning_of

Values = dict[str, torch.Tensor]


class Evaluator:
    """A module, ready to run on torch tensors.

    Args:
        module: one Relax function ``main`` as described in docs/architecture.md.
        device: where to compute, ``"cpu"`` or ``"cuda"``.

    Raises:
        FewbitsError: ``unsupported-operator`` for the first operator without a meaning.
    """

    def __init__(self, module: ir.IRModule, device: str = "cpu") -> None:
        self.function = module["main"]
        self.device = device
        self.input_names = [parameter.name for parameter in self.function.params]
        self.output_names = output_names(module)
        self._constants: dict[Any, torch.Tensor] = {}
        self._steps: list[tuple[relax.Var, Callable[..., Any] | None, relax.Expr]] = []
        for block in self.function.body.blocks:
            for binding in block.bindings:
                value = binding.value
                run = None
                if isinstance(value, relax.Call) and isinstance(value.op, ir.Op):
                    operator = str(value.op.name)  # pyright: ignore[reportAttributeAccessIssue]
                    run = meaning_of(operator, where=binding.var.name)
                self._steps.append((binding.var, run, value))

    def __call__(
        self,
        inputs: Mapping[str, torch.Tensor],
        observe: Callable[[str, Any], None] | None = None,
    ) -> Values:
        """Outputs by name. `observe(name, value)` sees every binding's value in order."""
        environment: dict[relax.Var, Any] = {}
        for parameter in self.function.params:
            environment[parameter] = inputs[parameter.name]
        for var, run, value in self._steps:
            if run is None:
                result = self._value(value, environment)
            else:
                assert isinstance(value, relax.Call)
                result = run(value, *(self._value(a, environment) for a in value.args))
            environment[var] = result
            if observe is not None:
                observe(var.name, result)
        body = self._value(self.function.body.body, environment)
        results = body if isinstance(body, tuple) else (body,)
        return dict(zip(self.output_names, results, strict=True))

    def batched(
        self,
        inputs: Mapping[str, np.ndarray],
        names: Iterable[str] = (),
        chunk: int = 64,
    ) -> Iterable[Values]:
        """Run many samples at once: the first axis of every input counts samples.

        The module is written for one sample (batch 1); `torch.vmap` runs a chunk of them in one
        go. Yields, per chunk, the outputs and the values called `names`, each with a first axis
        that counts samples. Inputs are cast to the types that the module declares.

        Raises:
            FewbitsError: ``bad-input`` when an input is missing or a sample has another size.
        """
        wanted = set(names)
        for name in self.input_names:
            if name not in inputs:
                known = ", ".join(map(str, inputs))
                raise FewbitsError("bad-input", "input is missing", where=name, hint=f"got {known}")
        count = len(next(iter(inputs.values())))

        def one(sample: Values) -> Values:
            kept: Values = {}

            def keep(name: str, value: Any) -> None:
                if name in wanted:
                    kept[name] = value

            kept.update(self(sample, keep))
            return kept

        for start in range(0, count, chunk):
            batch = {
                parameter.name: self._samples(parameter, inputs[parameter.name], start, chunk)
                for parameter in self.function.params
            }
            with torch.no_grad():
                yield torch.vmap(one)(batch)

    def _samples(self, parameter: Any, array: np.ndarray, start: int, chunk: int) -> torch.Tensor:
        """A chunk of samples, each in the parameter's shape (which has a batch axis of 1)."""
        piece = np.ascontiguousarray(array[start : start + chunk], str(parameter.ty.dtype))
        shape = ints(parameter.ty.shape.values)
        if piece.size != len(piece) * math.prod(shape):
            raise FewbitsError(
                "bad-input",
                f"a sample has shape {piece.shape[1:]}, the model wants {shape}",
                where=parameter.name,
            )
        return torch.from_numpy(piece).reshape(len(piece), *shape).to(self.device)

    def _value(self, expression: relax.Expr, environment: dict[relax.Var, Any]) -> Any:
        if isinstance(expression, relax.Var):
            return environment[expression]
        if isinstance(expression, ir.GenericConst):
            if expression not in self._constants:
                array = expression.value.numpy()  # pyright: ignore[reportAttributeAccessIssue]
                self._constants[expression] = from_numpy(array).to(self.device)
            return self._constants[expression]
        if isinstance(expression, relax.ShapeExpr):
            return ints(expression.values)
        if isinstance(expression, tirx.IntImm | tirx.FloatImm):
            return expression.value
        if isinstance(expression, relax.Tuple):
            return tuple(self._value(field, environment) for field in expression.fields)
        if isinstance(expression, relax.TupleGetItem):
            return self._value(expression.tuple_value, environment)[expression.index]
        raise FewbitsError("internal", f"cannot evaluate a {type(expression).__name__}")


def output_names(module: ir.IRModule) -> list[str]:
    """The module's output names in order."""
    attributes = module["main"].attrs
    return [str(name) for name in attributes["output_names"]]
