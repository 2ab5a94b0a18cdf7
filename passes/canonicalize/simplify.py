"""Drop what does nothing, and write what has several spellings in one way.

Squeeze, expand_dims and flatten become reshape; ``clip(x, 0, inf)`` and ``maximum(x, 0)`` become
relu; ``minimum(maximum(x, a), b)`` becomes clip; constants stand on the right.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

from tvm import ir, relax

from ...ops.meanings.common import ints
from ..base import Pass, PassContext, register_pass
from ..rewrite import operator_of
from .graph import (
    Graph,
    Rule,
    dtype_of,
    keeps_order,
    op,
    rewrite,
    same_shape,
    scalar_of,
    shape_of,
)

#: Beyond this a bound of a float clip bounds nothing.
_UNBOUNDED = 3.4e38


@register_pass
@dataclasses.dataclass(frozen=True)
class Simplify(Pass):
    """Remove no-ops and unify spellings."""

    name: ClassVar[str] = "simplify"

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The simplified module; the same object if there was nothing to do."""
        return rewrite(module, _RULES)


def _same_type(a: Any, b: Any) -> bool:
    return same_shape(a, b) and dtype_of(a) == dtype_of(b)


def _first_argument(_graph: Graph, _var: Any, value: Any) -> relax.Expr:
    return value.args[0]


def _if_same_type(_graph: Graph, var: Any, call: Any) -> relax.Expr | None:
    """Movement or cast whose result is its argument, judged by the type alone."""
    return call.args[0] if _same_type(var, call.args[0]) else None


def _as_reshape(_graph: Graph, var: Any, call: Any) -> relax.Expr:
    return op.reshape(call.args[0], shape_of(var))


def _reshape_of_reshape(graph: Graph, var: Any, call: Any) -> relax.Expr | None:
    inner = graph.call(call.args[0], "relax.reshape")
    return op.reshape(inner.args[0], shape_of(var)) if inner is not None else None


def _dropped(graph: Graph, _var: Any, item: Any) -> relax.Expr:
    call: Any = graph.definition(item.tuple_value)
    assert isinstance(call, relax.Call)
    return call.args[0]


def _constant_right(_graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    a, b = call.args
    if isinstance(a, ir.GenericConst) and not isinstance(b, ir.GenericConst):
        return relax.Call(call.op, [b, a], call.attrs, call.ty_args)
    return None


def _neutral(element: float) -> Rule:
    """``x op element`` is x, where that does not broadcast it."""

    def rule(_graph: Graph, var: Any, call: Any) -> relax.Expr | None:
        x, other = call.args
        return x if scalar_of(other) == element and _same_type(var, x) else None

    return rule


def _clip(_graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    x, low, high = call.args
    if high.value < _UNBOUNDED or not dtype_of(x).startswith("float"):
        return None
    if low.value == 0:
        return op.nn.relu(x)
    return x if low.value <= -_UNBOUNDED else None


def _nothing_below_zero(graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    """Relu of what is never negative."""
    x = call.args[0]
    inner = graph.definition(x)
    name = operator_of(inner)
    if name in ("relax.nn.relu", "relax.sigmoid", "relax.exp", "relax.abs", "relax.nn.softmax"):
        return x
    if name == "relax.clip" and isinstance(inner, relax.Call) and _limits(inner)[0] >= 0:
        return x
    return None


def _limits(call: Any) -> tuple[float, float]:
    return float(call.args[1].value), float(call.args[2].value)


def _clip_of_clamp(graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    """Clip of relu or of clip is one clip."""
    low, high = _limits(call)
    if graph.call(call.args[0], "relax.nn.relu") is not None:
        inner_low, inner_high = 0.0, math.inf
    else:
        inner = graph.call(call.args[0], "relax.clip")
        if inner is None:
            return None
        inner_low, inner_high = _limits(inner)
    definition: Any = graph.definition(call.args[0])
    assert isinstance(definition, relax.Call)
    low, high = max(low, min(inner_low, high)), min(high, max(inner_high, low))
    return op.clip(definition.args[0], low, high)


def _maximum(_graph: Graph, var: Any, call: Any) -> relax.Expr | None:
    x, bound = call.args
    if scalar_of(bound) == 0 and _same_type(var, x) and dtype_of(x).startswith("float"):
        return op.nn.relu(x)
    return None


def _minimum_of_maximum(graph: Graph, var: Any, call: Any) -> relax.Expr | None:
    x, bound = call.args
    high = scalar_of(bound)
    if high is None or not _same_type(var, x) or not dtype_of(x).startswith("float"):
        return None
    inner = graph.call(x, "relax.maximum", "relax.nn.relu")
    if inner is None:
        return None
    source = inner.args[0]
    low = 0.0 if operator_of(inner) == "relax.nn.relu" else scalar_of(inner.args[1])
    if low is None or low > high or not _same_type(x, source):
        return None
    return op.clip(source, low, high)


def _single(_graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    tensors = call.args[0]
    if isinstance(tensors, relax.Tuple) and len(tensors.fields) == 1:
        return tensors.fields[0]
    return None


def _zero_pad(_graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    return None if any(ints(call.attrs.pad_width)) else call.args[0]


def _over_ones(_graph: Graph, var: Any, call: Any) -> relax.Expr | None:
    """A reduction over axes of length 1 only changes the shape."""
    x = call.args[0]
    shape = shape_of(x)
    axes = range(len(shape)) if call.attrs.axis is None else ints(call.attrs.axis)
    if any(shape[axis] != 1 for axis in axes):
        return None
    return op.reshape(x, shape_of(var))


def _tiny_pool(_graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    attrs = call.attrs
    plain = all(v == 1 for v in (*ints(attrs.pool_size), *ints(attrs.strides)))
    return call.args[0] if plain and not any(ints(attrs.padding)) else None


def _whole(_graph: Graph, var: Any, call: Any) -> relax.Expr | None:
    """A slice of everything, forwards."""
    strides = [stride.value for stride in call.args[4].fields] if len(call.args) > 4 else [1]
    forwards = all(stride > 0 for stride in strides)
    return call.args[0] if forwards and _same_type(var, call.args[0]) else None


def _one_part(_graph: Graph, var: Any, call: Any) -> relax.Expr | None:
    """A split into one, which Relax types as a tensor."""
    return call.args[0] if isinstance(var.ty, relax.TensorType) else None


def _identity_order(_graph: Graph, var: Any, call: Any) -> relax.Expr | None:
    """A transposition that leaves the order of elements alone is a reshape."""
    return op.reshape(call.args[0], shape_of(var)) if keeps_order(call) else None


_RULES: dict[str, tuple[Rule, ...]] = {
    "relax.reshape": (_if_same_type, _reshape_of_reshape),
    **{
        f"relax.{name}": (_if_same_type, _as_reshape)
        for name in ("squeeze", "expand_dims", "flatten", "nn.batch_flatten")
    },
    "relax.astype": (_if_same_type,),
    "relax.broadcast_to": (_if_same_type,),
    "relax.tile": (_if_same_type,),
    "relax.repeat": (_if_same_type,),
    "relax.permute_dims": (_identity_order,),
    "relax.concat": (_single,),
    "relax.nn.pad": (_zero_pad,),
    "relax.nn.dropout[0]": (_dropped,),
    "relax.split": (_one_part,),
    "relax.strided_slice": (_whole,),
    "relax.add": (_constant_right, _neutral(0)),
    "relax.multiply": (_constant_right, _neutral(1)),
    "relax.subtract": (_neutral(0),),
    "relax.divide": (_neutral(1),),
    "relax.power": (_neutral(1),),
    "relax.maximum": (_constant_right, _maximum),
    "relax.minimum": (_constant_right, _minimum_of_maximum),
    "relax.clip": (_clip, _clip_of_clamp),
    "relax.nn.relu": (_nothing_below_zero,),
    **{f"relax.{name}": (_over_ones,) for name in ("sum", "max", "min", "prod")},
    "relax.mean": (_over_ones,),
    "relax.nn.max_pool2d": (_tiny_pool,),
    "relax.nn.avg_pool2d": (_tiny_pool,),
}
