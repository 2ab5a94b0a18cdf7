"""Run a Relax module with the torch meanings of its operators: oracle and calibration engine.

A whole module at once (`Evaluator.__call__`, `Evaluator.batched`), or binding by binding, for
whoever has to look at, or change, what lies between:

    evaluator = Evaluator(module)
    environment = evaluator.start({"input_ids": ids, "attention_mask": mask})   # n samples
    for step in evaluator.steps:
        value = evaluator.run_step(step, environment)      # first axis: samples
        evaluator.release(step, environment)               # what no later step needs
    outputs = evaluator.outputs(environment)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from tvm import ir, relax

from ..errors import FewbitsError
from . import integer, meanings  # noqa: F401  (they register the operators)
from .meanings.common import share
from .registry import meaning_of
from .samples import fill, leading_symbol, match
from .steps import CONSTANT, Environment, Step, last_uses, leaves_of, sampled, variables_of
from .symbolic import evaluate

__all__ = ["Environment", "Evaluator", "Step", "Values", "largest_sizes", "output_names"]

Values = dict[str, torch.Tensor]


class Evaluator:
    """A module, ready to run on torch tensors.

    What follows from constants alone (a few-bit weight that is decoded) is computed once and kept.

    Args:
        module: one Relax function ``main`` as described in docs/architecture.md. Its symbolic
            dimensions take the sizes that the inputs have.
        device: where to compute, ``"cpu"`` or ``"cuda"``.

    Attributes:
        steps: the module's bindings in order.
        batch: the symbolic dimension that is the first of all inputs, or None. Where there is one,
            many samples simply are a batch; otherwise the module is one for a single sample.

    Raises:
        FewbitsError: ``unsupported-operator`` for the first operator without a meaning.
    """

    def __init__(self, module: ir.IRModule, device: str = "cpu") -> None:
        self.function = module["main"]
        self.device = device
        self.parameters: list[relax.Var] = list(self.function.params)
        self.input_names = [parameter.name for parameter in self.parameters]
        self.output_names = output_names(module)
        self.batch = leading_symbol(self.parameters)
        self._largest = largest_sizes(module)
        bindings = [b for block in self.function.body.blocks for b in block.bindings]
        last = last_uses([b.value for b in bindings], self.function.body.body)
        self.steps = [
            Step(b.var, _meaning(b.value, b.var.name), b.value, tuple(last[index]))
            for index, b in enumerate(bindings)
        ]
        #: By variable, what follows from constants alone; None as long as nobody asked for it.
        self._fixed: dict[relax.Var, Any] = {}
        #: The module's constants on the device, likewise.
        self._constants: dict[Any, torch.Tensor | None] = {}
        for step in self.steps:
            leaves = list(leaves_of(step.value))
            self._constants.update({c: None for c in leaves if isinstance(c, CONSTANT)})
            if all(isinstance(leaf, CONSTANT) or leaf in self._fixed for leaf in leaves):
                self._fixed[step.var] = None

    def __call__(
        self,
        inputs: Mapping[str, torch.Tensor],
        observe: Callable[[str, Any], None] | None = None,
    ) -> Values:
        """Outputs by name. `observe(name, value)` sees every binding's value in order.

        Raises:
            FewbitsError: ``bad-input`` where shapes contradict the module's or each other.
        """
        values = {parameter: inputs[parameter.name] for parameter in self.parameters}
        environment = Environment(dict(values), match(values, largest=self._largest))
        for step in self.steps:
            result = self.run_step(step, environment)
            if observe is not None:
                observe(step.var.name, result)
            self.release(step, environment)
        return self.outputs(environment)

    def batched(
        self,
        inputs: Mapping[str, np.ndarray],
        names: Iterable[str] = (),
        chunk: int = 64,
    ) -> Iterable[Values]:
        """Run many samples: the first axis of every input counts samples.

        A module with a symbolic batch gets `chunk` samples as its batch; one written for a single
        sample (batch 1) runs under `torch.vmap`. Yields, per chunk, the outputs and the values
        called `names`. Their first axis counts samples, except for values in which a module with a
        symbolic batch has merged that axis with others, or that don't depend on it.

        Raises:
            FewbitsError: ``bad-input`` when an input is missing or a sample has another size.
        """
        wanted = set(names)
        count = max((len(inputs[name]) for name in self.input_names if name in inputs), default=0)
        for start in range(0, max(count, 1), chunk):
            with torch.no_grad():
                known = [name for name in self.input_names if name in inputs]
                piece = {name: inputs[name][start : start + chunk] for name in known}
                environment = self.start(piece)
                kept: Values = {}
                for step in self.steps:
                    self.run_step(step, environment)
                    if step.var.name in wanted:
                        kept[step.var.name] = sampled(environment, step.var)
                    self.release(step, environment)
                yield {**kept, **self.outputs(environment)}

    def start(self, inputs: Mapping[str, np.ndarray | torch.Tensor]) -> Environment:
        """An environment that holds the inputs, ready for the first step.

        Args:
            inputs: by name; the first axis of each counts samples. Cast to the declared types.

        Raises:
            FewbitsError: ``bad-input`` when an input is missing or a sample has another shape.
        """
        mapped = self.batch is None
        values: dict[relax.Var, Any] = {}
        for parameter in self.parameters:
            if parameter.name not in inputs:
                known = ", ".join(map(str, inputs))
                raise FewbitsError(
                    "bad-input", "input is missing", where=parameter.name, hint=f"got {known}"
                )
            values[parameter] = fill(parameter, inputs[parameter.name], mapped).to(self.device)
        count = len(values[self.parameters[0]]) if values else 1
        for parameter, value in values.items():
            if len(value) != count:
                raise FewbitsError(
                    "bad-input",
                    f"{len(value)} samples, but {count} of input {self.input_names[0]!r}",
                    where=parameter.name,
                )
        return Environment(values, match(values, mapped, self._largest), mapped, count)

    def run_step(self, step: Step, environment: Environment) -> Any:
        """Compute one binding and keep its value in the environment.

        Returns:
            the value, a tensor or a tuple of them, with the axes that `Environment` describes.
        """
        if step.var in self._fixed:
            if self._fixed[step.var] is None:
                self._fixed[step.var] = self._run(step.value, environment.shared, {}, step.run)
            result = environment.shared[step.var] = self._fixed[step.var]
            return result
        result = self.evaluate(step.value, environment, step.run)
        depends = any(var in environment.values for var in variables_of(step.value))
        (environment.values if depends else environment.shared)[step.var] = result
        return result

    def release(self, step: Step, environment: Environment) -> None:
        """Forget the values that this step was the last to need."""
        for var in step.last:
            environment.values.pop(var, None)
            environment.shared.pop(var, None)

    def outputs(self, environment: Environment) -> Values:
        """The module's outputs by name, when all steps have run."""
        body = self.function.body.body
        fields = list(body.fields) if isinstance(body, relax.Tuple) else [body]
        for field in fields:
            if not isinstance(field, relax.Var):  # an output that no input changes
                environment.shared[field] = self._run(field, {}, environment.sizes)
        results = [sampled(environment, field) for field in fields]
        if len(results) == 1 and isinstance(results[0], tuple):
            results = list(results[0])
        return dict(zip(self.output_names, results, strict=True))

    def evaluate(
        self,
        expression: relax.Expr,
        environment: Environment,
        run: Callable[..., Any] | None = None,
    ) -> Any:
        """The value of any expression over variables of the environment; calls may be nested.

        `run` is the meaning of the outermost call, where it is known already.
        """
        used = {var: environment[var] for var in variables_of(expression)}
        given = [var for var in used if var in environment.values]
        if not environment.mapped or not given:
            return self._run(expression, used, environment.sizes, run)

        def one(sample: tuple[Any, ...]) -> Any:
            local = {**used, **dict(zip(given, sample, strict=True))}
            return self._run(expression, local, environment.sizes, run)

        return torch.vmap(one)(tuple(used[var] for var in given))

    def _run(
        self,
        expression: Any,
        values: Mapping[relax.Var, Any],
        sizes: Mapping[relax.Var, int],
        run: Callable[..., Any] | None = None,
    ) -> Any:
        # Tensors that an operator makes from nothing (arange) have to be on the device as well.
        with contextlib.nullcontext() if self.device == "cpu" else torch.device(self.device):
            return self._value(expression, values, sizes, run)

    def _value(
        self,
        expression: Any,
        values: Mapping[relax.Var, Any],
        sizes: Mapping[relax.Var, int],
        run: Callable[..., Any] | None = None,
    ) -> Any:
        if isinstance(expression, CONSTANT):
            return self._constant(expression)
        if isinstance(expression.ty, ir.PrimType):
            return evaluate(expression, sizes)
        if isinstance(expression, relax.Var):
            return values[expression]
        if isinstance(expression, relax.ShapeExpr):
            return tuple(evaluate(extent, sizes) for extent in expression.values)
        if isinstance(expression, relax.Tuple):
            return tuple(self._value(field, values, sizes) for field in expression.fields)
        if isinstance(expression, relax.TupleGetItem):
            return self._value(expression.tuple_value, values, sizes)[expression.index]
        function = run or _meaning(expression)
        if function is None:
            raise FewbitsError("internal", f"cannot evaluate a {type(expression).__name__}")
        return function(expression, *(self._value(a, values, sizes) for a in expression.args))

    def _constant(self, expression: Any) -> torch.Tensor:
        """A constant as a tensor; those of the module stay on the device."""
        tensor = self._constants.get(expression)
        if tensor is None:
            tensor = share(expression).to(self.device)
            if expression in self._constants:
                self._constants[expression] = tensor
        return tensor


def output_names(module: ir.IRModule) -> list[str]:
    """The module's output names in order."""
    attributes = module["main"].attrs
    return [str(name) for name in attributes["output_names"]]


def largest_sizes(module: ir.IRModule) -> dict[str, int]:
    """By name, the largest size of symbolic dimensions that the model bounds (see the importer)."""
    bounds = module["main"].attrs.get("tir_var_upper_bound", {})
    return {str(name): int(size) for name, size in bounds.items()}


def _meaning(value: Any, where: str | None = None) -> Callable[..., Any] | None:
    if isinstance(value, relax.Call) and isinstance(value.op, ir.Op):
        return meaning_of(str(value.op.name), where=where)  # pyright: ignore[reportAttributeAccessIssue]
    return None
