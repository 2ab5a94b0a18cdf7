"""Convolution, matrix products, pooling and resizing."""

from __future__ import annotations

import numpy as np

from .graph import Node, Unsupported, integers, onnx_type
from .rules import direct, rule

_DATA = {3: "NCW", 4: "NCHW", 5: "NCDHW"}
_KERNEL = {3: "OIW", 4: "OIHW", 5: "OIDHW"}
_TRANSPOSED_KERNEL = {3: "IOW", 4: "IOHW", 5: "IODHW"}


def export_convolution(node: Node, bias: str | None = None) -> None:
    """``Conv`` or ``ConvTranspose``; `bias` is the ONNX name of a vector with a value a channel."""
    attrs = node.attrs
    rank = node.rank()
    transposed = "transpose" in node.operator
    kernel = (_TRANSPOSED_KERNEL if transposed else _KERNEL)[rank]
    node.require_layout(data_layout=_DATA[rank], kernel_layout=kernel, out_layout=_DATA[rank])
    operator = "ConvTranspose" if transposed else "Conv"
    inputs = [node[0], node[1]] + ([bias] if bias else [])
    if node.dtype() == "int8" and node.result_dtype == "int32" and not transposed:
        operator = "ConvInteger"
        inputs = [_unsigned(node), node[1], node.constant(128, "zero", "uint8")]
    elif node.result_dtype != node.dtype():
        raise Unsupported(f"a {node.dtype()} convolution with {node.result_dtype} result")
    node.done(
        operator,
        *inputs,
        kernel_shape=node.shape(1)[2:],
        strides=integers(attrs.strides),
        pads=integers(attrs.padding),
        dilations=integers(attrs.dilation),
        group=int(attrs.groups),
        output_padding=integers(attrs.output_padding) if transposed else None,
    )


def _unsigned(node: Node) -> str:
    """int8 data as uint8, 128 more, the only form in which onnxruntime convolves integers."""
    node.require(18, "an integer convolution")
    codes = node.step("Cast", node[0], to=onnx_type("uint8"))
    return node.step("BitwiseXor", codes, node.constant(128, "zero", "uint8"))


@rule("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
@rule("relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose", "relax.nn.conv3d_transpose")
def _convolution(node: Node) -> None:
    export_convolution(node)


@rule("relax.matmul")
def _matmul(node: Node) -> None:
    if node.dtype() in ("int8", "uint8") and node.result_dtype == "int32":
        node.done("MatMulInteger", node[0], node[1])
    elif node.result_dtype == node.dtype():
        node.done("MatMul", node[0], node[1])
    else:
        raise Unsupported(f"a {node.dtype()} product with {node.result_dtype} result")


@rule("relax.einsum")
def _einsum(node: Node) -> None:
    node.done("Einsum", *node.fields(), equation=node.attrs.subscripts)


@rule("relax.nn.max_pool1d", "relax.nn.max_pool2d", "relax.nn.max_pool3d")
@rule("relax.nn.avg_pool1d", "relax.nn.avg_pool2d", "relax.nn.avg_pool3d")
def _pool(node: Node) -> None:
    attrs = node.attrs
    layout = _DATA[node.rank()]
    node.require_layout(layout=layout, out_layout=layout)
    average = "avg" in node.operator
    dilation = integers(attrs.dilation)
    if average and any(extent != 1 for extent in dilation):
        node.require(19, "dilated AveragePool")
    node.done(
        "AveragePool" if average else "MaxPool",
        node[0],
        kernel_shape=integers(attrs.pool_size),
        strides=integers(attrs.strides),
        pads=integers(attrs.padding),
        dilations=dilation if any(extent != 1 for extent in dilation) else None,
        ceil_mode=int(attrs.ceil_mode),
        count_include_pad=int(attrs.count_include_pad) if average else None,
    )


@rule("relax.nn.adaptive_avg_pool1d", "relax.nn.adaptive_avg_pool2d")
@rule("relax.nn.adaptive_avg_pool3d")
def _adaptive_pool(node: Node) -> None:
    layout = _DATA[node.rank()]
    node.require_layout(layout=layout, out_layout=layout)
    extents, outputs = integers(node.extents()[2:]), integers(node.result_extents[2:])
    if all(output == 1 for output in outputs):
        node.done("GlobalAveragePool", node[0])
    elif all(extent % output == 0 for extent, output in zip(extents, outputs, strict=True)):
        kernel = [extent // output for extent, output in zip(extents, outputs, strict=True)]
        node.done("AveragePool", node[0], kernel_shape=kernel, strides=kernel)
    elif len(extents) == 2:
        # Windows of unequal size: averaging is linear along each axis.
        rows = node.constant(_averaging(extents[0], outputs[0]), "rows")
        columns = node.constant(_averaging(extents[1], outputs[1]).T.copy(), "columns")
        node.done("MatMul", node.step("MatMul", rows, node[0]), columns)
    else:
        raise Unsupported(f"adaptive pooling from {extents} to {outputs}")


def _averaging(extent: int, outputs: int) -> np.ndarray:
    """The matrix [outputs, extent] that averages adaptive windows along one axis."""
    matrix = np.zeros((outputs, extent))
    for row in range(outputs):
        start, stop = row * extent // outputs, -(-(row + 1) * extent // outputs)
        matrix[row, start:stop] = 1 / (stop - start)
    return matrix


_RESIZE_MODES = {"nearest_neighbor": "nearest", "linear": "linear", "cubic": "cubic"}
_ROUNDING = {"round": "round_prefer_floor"}


@rule("relax.image.resize2d", "relax.image.resize3d")
def _resize(node: Node) -> None:
    attrs = node.attrs
    node.require_layout(layout=_DATA[node.rank()])
    mode = attrs.coordinate_transformation_mode
    if mode == "tf_crop_and_resize":
        raise Unsupported("resizing a region of interest")
    method = _RESIZE_MODES[attrs.method]
    cubic = method == "cubic"
    rounding = _ROUNDING.get(attrs.rounding_method, attrs.rounding_method) or None
    node.done(
        "Resize",
        node[0],
        "",
        "",
        node.sizes(node.result_extents, "sizes"),
        mode=method,
        coordinate_transformation_mode=mode,
        nearest_mode=rounding if method == "nearest" else None,
        cubic_coeff_a=float(attrs.cubic_alpha) if cubic else None,
        exclude_outside=int(attrs.cubic_exclude) if cubic else None,
    )


@rule("relax.nn.pixel_shuffle")
def _pixel_shuffle(node: Node) -> None:
    factor = int(node.attrs.upscale_factor)
    node.done("DepthToSpace", node[0], blocksize=factor, mode="CRD")


direct("Flatten", "relax.nn.batch_flatten")
