"""Convolutions with channels last become kernels: products of pixels, of patches, or windows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from ....ops.symbolic import Extent, extents_of
from ....passes.rewrite import constant
from ....schedules.cuda.convolution import (
    Convolution,
    ImplicitGemm,
    convolution_digest,
    convolution_template,
    convolve,
    filling,
)
from ....schedules.cuda.epilogue import Epilogue
from ....schedules.cuda.weight_format import Dense
from ...vm.calls import tensor_type
from .selection import Selection, rows_of

#: TVM's expressions and types are built by calls that its annotations do not cover.
_relax: Any = relax


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """A convolution's geometry; attributes as `Convolution` has them."""

    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    pad: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Finish:
    """What becomes of the sums.

    Attributes:
        epilogue: from a sum to what is stored.
        extra: its operands, new expressions; matrices are [M, O].
        names: of the layer, and of the result.
    """

    epilogue: Epilogue
    extra: Sequence[relax.Expr]
    names: tuple[str, str]


def emit_convolution(
    selection: Selection,
    x: relax.Expr,
    weight: np.ndarray | relax.Expr,
    window: Window,
    finish: Finish,
) -> relax.Var | None:
    """The result [M, O], M = batch · height · width; None where there is no kernel.

    Args:
        selection: what kernels go into.
        x: [N, H, W, I], a new expression of the type that is multiplied.
        weight: [O, kh, kw, I / groups], of the same type; or, where it is decoded at run time, a
            new expression of float32.
        window: the geometry.
        finish: what becomes of the sums.
    """
    sizes = extents_of(x)
    shape = weight.shape if isinstance(weight, np.ndarray) else extents_of(weight)
    outputs, *kernel, _ = (int(size) for size in shape)
    problem = Convolution(
        int(sizes[3]), outputs, (kernel[0], kernel[1]), window.strides, window.padding,
        window.dilation, window.groups, (_known(sizes[1]), _known(sizes[2])),
        str(x.ty.dtype), window.pad, finish.epilogue,
    )  # fmt: skip
    name = finish.names[1]
    if problem.is_matrix_product and problem.inputs * problem.bytes % 16 == 0:
        return _pixels(selection, problem, x, weight, finish)
    if problem.groups == 1:
        problem, x, weight = _even_channels(selection, problem, x, weight, name)
    template = convolution_template(problem, selection.architecture)
    if template is None:
        return None
    if isinstance(weight, np.ndarray):
        stored: relax.Expr = constant(template.pack(problem, weight))
    elif isinstance(template, ImplicitGemm):
        stored = _packed_patches(selection, problem, weight, name)
    else:
        stored = _packed_windows(selection, problem, weight, name)
    down, across = problem.output_size(sizes[1], sizes[2])
    rows = rows_of((sizes[0], down, across, outputs))
    key = f"{problem.key} M={_known(rows)}"
    if key not in selection.convolutions:
        count = "" if _known(rows) is None else f"_{rows}"
        title = f"convolution_{convolution_digest(problem)}{count}_{selection.architecture.name}"
        selection.convolutions[key] = convolve(
            problem, template, selection.architecture, title, _known(rows)
        )
    found = selection.convolutions[key]
    selection.notes[finish.names[0]] = ", ".join(dict.fromkeys(found.titles))
    given = [x, stored, constant(filling(problem)), *finish.extra]
    result = tensor_type((rows, outputs), finish.epilogue.dtype)
    return selection.call(key, found.host, given, [result], name)


def _known(size: Extent) -> int | None:
    return int(size) if isinstance(size, int) else None


def _pixels(
    selection: Selection,
    problem: Convolution,
    x: relax.Expr,
    weight: np.ndarray | relax.Expr,
    finish: Finish,
) -> relax.Var:
    """A window of one pixel: a product of all pixels with a matrix."""
    name, shape = finish.names[1], (problem.outputs, problem.inputs)
    pixels = selection.matrix(x, problem.activation, name)
    if isinstance(weight, np.ndarray):
        stored: relax.Expr = constant(np.ascontiguousarray(weight.reshape(shape)))
    else:
        matrix = selection.rewriter.emit(_relax.op.reshape(weight, shape), name)
        stored = selection.converted(matrix, problem.activation, name)
    return selection.product(
        pixels, Dense(problem.activation), [stored], problem.outputs, finish.epilogue,
        finish.extra, finish.names,
    )  # fmt: skip


def _even_channels(
    selection: Selection,
    problem: Convolution,
    x: relax.Expr,
    weight: np.ndarray | relax.Expr,
    name: str,
) -> tuple[Convolution, relax.Expr, np.ndarray | relax.Expr]:
    """The same with channels of zeros added, so that a pixel's are whole words.

    The weights of the new channels are zero, so it does not matter what is around the image.
    """
    more = -problem.inputs % (4 // problem.bytes)
    if not more:
        return problem, x, weight
    widths = [0] * 7 + [more]
    x = selection.rewriter.emit(_relax.op.nn.pad(x, widths), name)
    if isinstance(weight, np.ndarray):
        weight = np.pad(weight, [(0, 0)] * 3 + [(0, more)])
    else:
        weight = selection.rewriter.emit(_relax.op.nn.pad(weight, widths), name)
    return dataclasses.replace(problem, inputs=problem.inputs + more), x, weight


def _packed_patches(
    selection: Selection, problem: Convolution, weight: relax.Expr, name: str
) -> relax.Expr:
    """What `ImplicitGemm.pack` does, at run time."""
    emit, op = selection.rewriter.emit, _relax.op
    matrix = emit(op.reshape(weight, (problem.outputs, problem.terms)), name)
    more = problem.linear().inputs - problem.terms
    if more:
        matrix = emit(op.nn.pad(matrix, [0, 0, 0, more]), name)
    return selection.converted(matrix, problem.activation, name)


def _packed_windows(
    selection: Selection, problem: Convolution, weight: relax.Expr, name: str
) -> relax.Expr:
    """What `Windows.pack` does with floats, at run time."""
    emit, op = selection.rewriter.emit, _relax.op
    moved = emit(op.permute_dims(weight, [1, 2, 3, 0]), name)
    each = problem.inputs // problem.groups
    return emit(op.reshape(moved, (problem.taps, each, problem.outputs)), name)
