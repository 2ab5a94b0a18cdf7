"""What a run of a module consists of: its bindings in order, and the values they have so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tvm import ir, relax

from .symbolic import is_symbol, symbols

CONSTANT: Any = ir.GenericConst


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One binding of the module.

    Attributes:
        var: the variable that is bound; its name is the layer's.
        run: the meaning of the operator that is called, None where nothing is computed.
        value: the expression that is bound to it.
        last: variables that neither a later step nor an output uses.
    """

    var: relax.Var
    run: Callable[..., Any] | None
    value: Any
    last: tuple[relax.Var, ...] = ()


@dataclasses.dataclass
class Environment:
    """What the variables are at some point of a run. Values may be replaced between steps.

    Attributes:
        values: by variable. In a run over samples their first axis counts samples: in a module
            with a symbolic batch that axis is the batch; in others (`mapped`) it is one more axis,
            before those that the module declares.
        sizes: the symbolic dimensions.
        mapped: whether the module is written for one sample, and `torch.vmap` runs it on many.
        count: how many samples there are.
        shared: values that are the same for all samples and have no axis for them.
    """

    values: dict[relax.Var, Any]
    sizes: dict[relax.Var, int]
    mapped: bool = False
    count: int = 1
    shared: dict[relax.Var, Any] = dataclasses.field(default_factory=dict)

    def __getitem__(self, var: relax.Var) -> Any:
        """The variable's value, with or without an axis for samples."""
        return self.values[var] if var in self.values else self.shared[var]


def leaves_of(expression: Any) -> Iterable[Any]:
    """The variables, symbolic dimensions and constants of an expression."""
    if isinstance(expression, CONSTANT):
        yield expression
    elif isinstance(expression.ty, ir.PrimType):
        yield from symbols([expression])
    elif isinstance(expression, relax.Var):
        yield expression
    elif isinstance(expression, relax.ShapeExpr):
        yield from symbols(expression.values)
    elif isinstance(expression, relax.TupleGetItem):
        yield from leaves_of(expression.tuple_value)
    elif isinstance(expression, relax.Tuple | relax.Call):
        operands: Any = expression
        for operand in operands.fields if isinstance(expression, relax.Tuple) else operands.args:
            yield from leaves_of(operand)


def variables_of(expression: Any) -> list[relax.Var]:
    """The variables that hold values, each once."""
    leaves = (leaf for leaf in leaves_of(expression) if isinstance(leaf, relax.Var))
    return list(dict.fromkeys(leaf for leaf in leaves if not is_symbol(leaf)))


def last_uses(values: Sequence[Any], result: Any) -> list[list[relax.Var]]:
    """By binding, the variables that it is the last to use."""
    seen = set(variables_of(result))
    last: list[list[relax.Var]] = []
    for value in reversed(values):
        final = [var for var in variables_of(value) if var not in seen]
        seen.update(final)
        last.append(final)
    return last[::-1]


def sampled(environment: Environment, var: relax.Var) -> Any:
    """A value; under `torch.vmap` what is the same for all samples is repeated for each."""
    value = environment[var]
    if not environment.mapped or var in environment.values:
        return value
    if isinstance(value, tuple):
        return tuple(part.expand(environment.count, *part.shape) for part in value)
    return value.expand(environment.count, *value.shape)
