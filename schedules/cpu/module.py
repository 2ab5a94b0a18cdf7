"""The entry: every PrimFunc of a Relax module gets its loops, and weights their layout."""

from __future__ import annotations

from collections.abc import Iterator

from tvm import ir, relax, tirx
from tvm import target as tvm_target

from ..tuning.choices import Choices
from ..tuning.sites import ProductChoice
from .function import SCHEDULED, ChooseTile, Scheduled, by_rule, schedule_function
from .machine import Machine

_CALL_TIR = "relax.call_tir"


def schedule_module(
    module: ir.IRModule, target: tvm_target.Target, choices: Choices | None = None
) -> ir.IRModule:
    """Give every PrimFunc loops for the target.

    Weights of products are packed: the calls get the packed constants.

    Args:
        module: after ``LegalizeOps``, ``FuseOps`` and ``FuseTIR``; functions that have a schedule
            (attribute ``tirx.is_scheduled``) stay as they are. Sizes may be symbolic.
        target: an ``llvm`` target.
        choices: decides about the sizes of products' kernels; None: their rule.
    """
    machine = Machine.of(target)
    module = relax.transform.RewriteDataflowReshape()(module)
    constants = _constant_arguments(module)
    calls: dict[ir.GlobalVar, list[relax.Call]] = {}
    for call in _calls(module):
        calls.setdefault(call.args[0], []).append(call)
    scheduled: dict[ir.GlobalVar, Scheduled] = {}
    for variable, function in module.functions.items():
        if not isinstance(function, tirx.PrimFunc) or SCHEDULED in (function.attrs or {}):
            continue
        packable = constants.get(variable, frozenset())
        choose: ChooseTile = by_rule
        if choices is not None and variable in calls:
            choose = ProductChoice(choices, function, machine, packable, calls[variable])
        faster = schedule_function(function, machine, packable, choose)
        if faster is not None:
            scheduled[variable] = faster
    return _Rewriter(module, scheduled).rewritten()


def _constant_arguments(module: ir.IRModule) -> dict[ir.GlobalVar, frozenset[int]]:
    """For each function the arguments that are constants in all its calls."""
    found: dict[ir.GlobalVar, frozenset[int]] = {}
    for call in _calls(module):
        here = frozenset(
            n for n, arg in enumerate(call.args[1].fields) if isinstance(arg, ir.GenericConst)
        )
        variable = call.args[0]
        found[variable] = found[variable] & here if variable in found else here
    return found


def _calls(module: ir.IRModule) -> Iterator[relax.Call]:
    calls: list[relax.Call] = []

    def visit(expression: relax.Expr) -> None:
        if isinstance(expression, relax.Call) and getattr(expression.op, "name", "") == _CALL_TIR:
            calls.append(expression)

    for function in module.functions.values():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    return iter(calls)


@relax.expr_functor.mutator
class _Rewriter(relax.PyExprMutator):
    """Puts scheduled functions and packed constants into the module."""

    def __init__(self, module: ir.IRModule, scheduled: dict[ir.GlobalVar, Scheduled]) -> None:
        super().__init__(module)
        self.module = module
        self.scheduled = scheduled
        self.packed: dict[ir.GlobalVar, ir.GlobalVar] = {}

    def rewritten(self) -> ir.IRModule:
        """The module; functions whose parameters changed have new names."""
        for variable, result in self.scheduled.items():
            if result.packings:
                name = f"{variable.name_hint}_packed"
                self.packed[variable] = self.builder_.add_func(result.function, name)
            else:
                self.builder_.update_func(variable, result.function)
        for variable, function in self.module.functions.items():
            if isinstance(function, relax.Function):
                self.builder_.update_func(variable, self.visit_expr(function))
        result = self.builder_.get()
        for variable in self.packed:
            del result[variable]
        return result

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        """Give a call of a function with packed parameters the packed constants."""
        if getattr(call.op, "name", "") != _CALL_TIR or call.args[0] not in self.packed:
            return super().visit_call_(call)
        fields = [self.visit_expr(field) for field in call.args[1].fields]
        for position, packing in self.scheduled[call.args[0]].packings.items():
            fields[position] = relax.const(packing.apply(fields[position].value.numpy()))
        function = self.packed[call.args[0]]
        arguments = [function, relax.Tuple(fields), *call.args[2:]]
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)
