"""Where operators are declared: their type rule for TVM, and their meaning in torch.

The meaning is the oracle: every back end's result is compared with it, calibration runs on it, and
integer operators must be reproduced bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tvm import get_global_func, ir, relax

from ..errors import FewbitsError

#: ``(call, *arguments) -> tensor or tuple of tensors``. Arguments are torch tensors; a
#: ``ShapeExpr`` arrives as a tuple of ints and a ``relax.Tuple`` as a tuple of tensors.
Meaning = Callable[..., Any]
_F = TypeVar("_F", bound=Meaning)

_MEANINGS: dict[str, Meaning] = {}


def meaning(*names: str) -> Callable[[_F], _F]:
    """Decorator: the function is the meaning of these operators (``"relax.add"``, ...)."""

    def register(function: _F) -> _F:
        for name in names:
            _MEANINGS[name] = function
        return function

    return register


def has_meaning(name: str) -> bool:
    """Whether the evaluator can run the operator."""
    return name in _MEANINGS


def meaning_of(name: str, where: str | None = None) -> Meaning:
    """The registered meaning of an operator.

    Raises:
        FewbitsError: ``unsupported-operator``.
    """
    if name not in _MEANINGS:
        raise FewbitsError(
            "unsupported-operator",
            f"operator {name} has no reference meaning",
            where=where,
            hint="add one under ops/ with @meaning",
        )
    return _MEANINGS[name]


def define(
    name: str, description: str, infer: Callable[[relax.Call], ir.Type]
) -> Callable[[_F], _F]:
    """Declare a Relax operator of ours; decorates its meaning.

    `infer` gives the result's type from the call (its arguments' types are known).
    """
    if name not in ir.Op.list_op_names():
        get_global_func("ir.RegisterOp")(name, description)
        operator = ir.Op.get(name)
        operator.set_attr("FPurity", True)
        operator.set_attr("FInferType", lambda call, _builder: infer(call))
    return meaning(name)


def make_call(name: str, arguments: list[relax.Expr], **attributes: Any) -> relax.Call:
    """A call of one of our operators, its attributes as a ``DictAttrs``."""
    attrs = ir.make_node("ir.DictAttrs", **attributes)
    return relax.Call(ir.Op.get(name), arguments, attrs)
