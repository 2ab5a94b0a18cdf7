"""Channels last through whole networks: what it means stays, and transpositions are few."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.rewrite import Rewriter, operator_of
from fewbits.targets.cuda.layout import channels_last
from tvm import relax, tirx

op: Any = relax.op
RNG = np.random.default_rng(3)


def const(*shape: int) -> Any:
    return relax.const(RNG.standard_normal(shape).astype(np.float32))


def module(build: Any, *shape: Any) -> Any:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))  # type: ignore[call-arg]
    with builder.function("main", [x], {"input_names": ["x"], "output_names": ["y"]}):
        with builder.dataflow():
            result = builder.emit_output(build(builder.emit, x))
        builder.emit_func_output(result)
    return builder.get()


def operators(changed: Any) -> Counter[str | None]:
    return Counter(operator_of(value) for _, value in Rewriter(changed).bindings)


def same(before: Any, *shape: int) -> Counter[str | None]:
    """Both mean the same; gives the changed module's operators."""
    after = channels_last(before)
    x = torch.from_numpy(RNG.standard_normal(shape).astype(np.float32))
    old, new = (Evaluator(m)({"x": x})["y"] for m in (before, after))
    assert old.shape == new.shape
    torch.testing.assert_close(new, old, rtol=1e-5, atol=1e-5)
    for _, value in Rewriter(after).bindings:
        if operator_of(value) == "relax.nn.conv2d":
            assert value.attrs.data_layout == "NHWC"  # type: ignore[attr-defined]
    return operators(after)


def test_a_residual_network_is_transposed_at_its_ends_only() -> None:
    def build(emit: Any, x: Any) -> Any:
        a = emit(op.nn.conv2d(x, const(8, 3, 3, 3), strides=[2, 1], padding=[1, 0, 2, 1]))
        a = emit(op.nn.relu(emit(op.add(a, const(1, 8, 1, 1)))))
        b = emit(op.nn.conv2d(a, const(8, 1, 3, 3), padding=1, groups=8))
        b = emit(op.clip(emit(op.add(b, const(8, 1, 1))), 0.0, 6.0))
        c = emit(op.nn.max_pool2d(emit(op.add(a, b)), [2, 2], strides=[2, 2]))
        d = emit(op.nn.avg_pool2d(c, [3, 3], padding=[1, 1, 1, 1], count_include_pad=True))
        gate = emit(op.mean(c, axis=[2, 3], keepdims=True))
        gate = emit(op.sigmoid(emit(op.nn.conv2d(gate, const(8, 8, 1, 1)))))
        e = emit(op.concat([emit(op.multiply(c, gate)), d], axis=1))
        return emit(op.nn.pad(e, [0, 0, 1, 0, 2, 1, 0, 3]))

    found = same(module(build, 2, 3, 11, 9), 2, 3, 11, 9)
    assert found["relax.permute_dims"] == 2


@pytest.mark.parametrize("head", ["mean", "adaptive", "flatten"])
def test_heads_of_classifiers(head: str) -> None:
    def build(emit: Any, x: Any) -> Any:
        a = emit(op.nn.conv2d(emit(op.permute_dims(x, [0, 3, 1, 2])), const(8, 4, 3, 3)))
        if head == "mean":
            a = emit(op.mean(a, axis=[2, 3]))
        elif head == "adaptive":
            pooled = emit(op.nn.adaptive_avg_pool2d(a, [1, 1]))
            a = emit(op.reshape(pooled, (2, 8)))
        else:
            return emit(op.matmul(emit(op.reshape(a, (2, 8 * 12))), const(96, 5)))
        return emit(op.matmul(a, const(8, 5)))

    found = same(module(build, 2, 5, 6, 4), 2, 5, 6, 4)
    assert found["relax.permute_dims"] == (1 if head == "flatten" else 0)


def test_one_dimension() -> None:
    def build(emit: Any, x: Any) -> Any:
        a = emit(op.nn.conv1d(x, const(6, 4, 3), strides=2, padding=[2, 1], dilation=2))
        a = emit(op.nn.relu(emit(op.add(a, const(1, 6, 1)))))
        return emit(op.nn.conv1d(a, const(6, 2, 2), groups=3))

    found = same(module(build, 2, 4, 17), 2, 4, 17)
    assert found["relax.nn.conv1d"] == 0 and found["relax.nn.conv2d"] == 2
    assert found["relax.permute_dims"] == 2


def test_what_reads_the_old_order_gets_it() -> None:
    def build(emit: Any, x: Any) -> Any:
        a = emit(op.nn.conv2d(x, const(4, 4, 1, 1)))
        b = emit(op.nn.softmax(a, axis=3))
        c = emit(op.strided_slice(a, axes=[1], begin=[1], end=[3], strides=[1]))
        d = emit(op.mean(a, axis=[1]))
        whole = emit(op.add(emit(op.add(a, b)), emit(op.concat([c, c], axis=1))))
        return emit(op.add(whole, emit(op.expand_dims(d, 1))))

    same(module(build, 1, 4, 5, 6), 1, 4, 5, 6)


def test_symbolic_sizes() -> None:
    batch, height = tirx.Var("N", "int64"), tirx.Var("H", "int64")

    def build(emit: Any, x: Any) -> Any:
        a = emit(op.nn.relu(emit(op.nn.conv2d(x, const(4, 3, 3, 3), padding=1))))
        return emit(op.nn.conv2d(a, const(2, 4, 3, 3)))

    same(module(build, batch, 3, height, 9), 3, 3, 7, 9)


def test_modules_without_convolutions_stay() -> None:
    before = module(lambda emit, x: emit(op.permute_dims(x, [0, 3, 1, 2])), 1, 2, 3, 4)
    assert channels_last(before).same_as(before)
