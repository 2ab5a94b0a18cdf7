"""Neighbouring kernels over the same rows become one.

TVM's fusion joins elementwise operators with what precedes them and stops at norms, softmaxes and
quantizations. Read as stages, those are chains over rows, and chains in a row are one chain: a
residual sum, the norm after it and the quantization of its result need one kernel, which writes
what somebody else reads (the sum, the codes, the scales) and nothing in between.

Products of matrices are left alone: what follows them is fused already, and what precedes them
would be computed again for every result.

Calls are collected greedily, in the order of the graph: a call joins when it reads a result of the
group and the whole is still one kernel. What is tried is the real thing: the calls are put into one
function, TVM's ``FuseTIR`` makes one PrimFunc of it, and that is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import ir, relax, tirx
from tvm_ffi import structural_equal

from ....ops.symbolic import is_symbol
from ...stages.program import Stage
from .function import SCHEDULED, groups_of, read_pieces
from .outline import Outline, outline
from .product_form import is_product

_CALL_TIR = "relax.call_tir"
#: How many bindings behind a kernel those that join it may be.
_HORIZON = 48


def merge_rows(module: ir.IRModule) -> ir.IRModule:
    """Join calls of unscheduled PrimFuncs that one kernel can do.

    Args:
        module: after ``FuseTIR``.

    Returns:
        The module with the joined PrimFuncs, and without those that nothing calls any more.
    """
    merger = _Merger(module)
    graphs = {
        variable: merger.merged(function)
        for variable, function in module.functions.items()
        if isinstance(function, relax.Function)
    }
    if not merger.outlines:
        return module
    result = ir.IRModule(dict(module.functions.items()), attrs=module.attrs)
    for made in merger.outlines:
        result[made.variable] = made.function
    for variable, graph in graphs.items():
        result.update_func(variable, graph)
    result = relax.transform.FuseTIR()(result)
    return relax.transform.DeadCodeElimination()(result)


class _Merger:
    """Groups of bindings, found in one function after the other."""

    def __init__(self, module: ir.IRModule) -> None:
        self.module = module
        self.outlines: list[Outline] = []
        self.single: dict[Any, bool] = {}
        self.tried: list[tuple[relax.Function, bool]] = []
        self.reads: dict[Any, set[Any]] = {}

    def merged(self, function: relax.Function) -> relax.Function:
        """The function with calls of outlined groups."""
        results = set(relax.analysis.free_vars(function.body.body))
        for block in function.body.blocks:
            for each in block.bindings:
                self.reads[each.var] = set(relax.analysis.free_vars(each.value))
        blocks = [
            relax.DataflowBlock(self._block(list(block.bindings), results))
            if isinstance(block, relax.DataflowBlock)
            else block
            for block in function.body.blocks
        ]
        body = relax.SeqExpr(blocks, function.body.body)
        return relax.Function(
            function.params, body, function.ret_ty, function.is_pure, function.attrs
        )

    def _block(self, bindings: list[relax.VarBinding], results: set[Any]) -> list[relax.VarBinding]:
        done: list[relax.VarBinding] = []
        while bindings:
            found = self._group(bindings, results)
            if found is None:
                done.append(bindings.pop(0))
                continue
            group, late, made = found
            last = max(n for n, b in enumerate(bindings) if b.var in group and _is_call(b))
            rest = [each for each in bindings[: last + 1] if each.var not in group]
            early = [each for each in rest if each.var not in late]
            after = [each for each in rest if each.var in late]
            for each in made.bindings:
                self.reads[each.var] = set(relax.analysis.free_vars(each.value))
            behind = [each for each in bindings[last + 1 :] if each.var not in group]
            bindings = [*early, *made.bindings, *after, *behind]
        return done

    def _group(
        self, bindings: Sequence[relax.VarBinding], results: set[Any]
    ) -> tuple[set[Any], set[Any], Outline] | None:
        """The group that begins with the first binding: its variables, those of bindings that
        wait for it, and its outline."""
        if not self._mergeable(bindings[0]):
            return None
        group = _with_results(bindings[0], bindings)
        own, late = {each.var for each in group}, set[Any]()
        calls = 1
        for each in bindings[1:_HORIZON]:
            reads = self.reads[each.var]
            if each.var in own or not reads & (own | late):
                continue
            new = _with_results(each, bindings)
            if (
                not reads & late
                and self._mergeable(each)
                and self._joins([*group, *new], bindings, results)
            ):
                group += new
                own |= {one.var for one in new}
                calls += 1
            else:
                late.add(each.var)
        made = self._outline(group, bindings, results) if calls > 1 else None
        if made is None:
            return None
        equal = next(
            (o for o in self.outlines if structural_equal(o.function, made.function)), None
        )
        if equal is None:
            self.outlines.append(made)
        else:
            made = self._outline(group, bindings, results, equal)
            assert made is not None
        return own, late, made

    def _outline(
        self,
        group: Sequence[relax.VarBinding],
        bindings: Sequence[relax.VarBinding],
        results: set[Any],
        same: Outline | None = None,
    ) -> Outline | None:
        """The group as a function; with `same` as calls of that one."""
        own = {each.var for each in group}
        outside = set(results)
        for each in bindings:
            if each.var not in own:
                outside |= self.reads[each.var]
        outputs = [
            each.var
            for each in group
            if each.var in outside or not isinstance(each.var, relax.DataflowVar)
        ]
        names = [str(each.value.args[0].name_hint) for each in group if _is_call(each)]
        name = "_then_".join(dict.fromkeys(names))[:80]
        return outline(group, outputs, f"{name}_{len(self.outlines)}", same)

    def _mergeable(self, binding: relax.VarBinding) -> bool:
        """Whether a binding calls an unscheduled PrimFunc that is one kernel by itself."""
        if not _is_call(binding) or len(binding.value.args) != 2:
            return False
        variable = binding.value.args[0]
        if variable not in self.single:
            function = self.module[variable]
            self.single[variable] = isinstance(function, tirx.PrimFunc) and _one_kernel(function)
        return self.single[variable] and _sizes_match(self.module[variable], binding.value)

    def _joins(
        self,
        group: Sequence[relax.VarBinding],
        bindings: Sequence[relax.VarBinding],
        results: set[Any],
    ) -> bool:
        """Whether the calls are one kernel together. Equal trials are fused once."""
        trial = self._outline(group, bindings, results)
        if trial is None:
            return False
        for other, answer in self.tried:
            if structural_equal(other, trial.function):
                return answer
        module = ir.IRModule({each: self.module[each] for each in trial.called})
        module[trial.variable] = trial.function
        module["main"] = trial.caller()
        fused = relax.transform.FuseTIR()(module)
        name = trial.variable.name_hint
        made = [f for v, f in fused.functions.items() if v.name_hint == name]
        answer = len(made) == 1 and isinstance(made[0], tirx.PrimFunc) and _one_kernel(made[0])
        self.tried.append((trial.function, answer))
        return answer


def _with_results(
    binding: relax.VarBinding, bindings: Sequence[relax.VarBinding]
) -> list[relax.VarBinding]:
    """A call with the bindings that take its tuple apart."""
    items = [
        each
        for each in bindings
        if isinstance(each.value, relax.TupleGetItem)
        and each.value.tuple_value.same_as(binding.var)
    ]
    return [binding, *items]


def _is_call(binding: relax.VarBinding) -> bool:
    return getattr(getattr(binding.value, "op", None), "name", "") == _CALL_TIR


def _sizes_match(function: tirx.PrimFunc, call: Any) -> bool:
    """Whether ``FuseTIR`` can join a call: it gives a function's symbols the caller's, and nothing
    else but symbols."""
    for parameter, value in zip(function.params, call.args[1].fields, strict=False):
        if isinstance(parameter.ty, ir.PrimType):
            continue
        for own, given in zip(parameter.ty.shape, value.ty.shape.values, strict=True):
            if is_symbol(own) and not is_symbol(given):
                return False
    return True


def _one_kernel(function: tirx.PrimFunc) -> bool:
    if SCHEDULED in (function.attrs or {}):
        return False
    pieces = read_pieces(function).pieces
    return (
        bool(pieces)
        and all(isinstance(piece, Stage) for piece in pieces)
        and len(groups_of(pieces)) == 1
        and not any(isinstance(piece, Stage) and is_product(piece) for piece in pieces)
    )
