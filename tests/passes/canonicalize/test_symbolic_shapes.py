"""Rules prove what they need of symbolic sizes, or do not fire."""

import numpy as np
import onnx.parser
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.canonicalize import canonicalize
from fewbits.passes.rewrite import Rewriter, operator_of


def imported(signature, nodes):
    text = f'<ir_version: 8, opset_import: ["" : 17]> g {signature} {{ {nodes} }}'
    return import_onnx(onnx.parser.parse_model(text), dynamic=True).module


def operators(module):
    return [operator_of(value) for _, value in Rewriter(module).bindings]


CASES = {
    "reshapes that meet": (
        "(float[N,T,6] x) => (float[A,B,C] y)",
        """s = Shape(x) flat = Flatten<axis=2>(x) back = Reshape(flat, s) y = Relu(back)""",
        ["relax.nn.relu"],
    ),
    "transposes that meet": (
        "(float[N,T,6] x) => (float[A,B,C] y)",
        """t = Transpose<perm=[1, 0, 2]>(x) r = Relu(t) y = Transpose<perm=[1, 0, 2]>(r)""",
        ["relax.nn.relu"],
    ),
    "a transpose of a single row": (
        "(float[N,1,6] x) => (float[A,B] y)",
        """t = Transpose<perm=[1, 0, 2]>(x)
        s = Constant<value_ints=[-1, 6]>() f = Reshape(t, s) y = Relu(f)""",
        ["relax.reshape", "relax.nn.relu"],
    ),
    "a transpose of symbolic axes stays": (
        "(float[N,T] x) => (float[A,B] y)",
        """t = Transpose<perm=[1, 0]>(x) r = Relu(t) y = Softmax<axis=1>(r)""",
        ["relax.permute_dims", "relax.nn.relu", "relax.nn.softmax"],
    ),
    "a slice of everything": (
        "(float[N,T,6] x) => (float[A,B,C] y)",
        """one = Constant<value_ints=[1]>() zero = Constant<value_ints=[0]>()
        t = Shape<start=1, end=2>(x) s = Slice(x, zero, t, one) y = Relu(s)""",
        ["relax.nn.relu"],
    ),
    "scale and shift go into the product": (
        "(float[N,T,2] x) => (float[A,B,C] y)",
        """w = Constant<value = float[2,2] {1.0, 2.0, 3.0, 4.0}>()
        k = Constant<value_floats=[0.5, 0.25]>() b = Constant<value_floats=[1.0, -1.0]>()
        p = MatMul(x, w) s = Mul(p, k) y = Add(s, b)""",
        ["relax.matmul", "relax.add"],
    ),
    "equal computations of equal sizes": (
        "(float[N,T] x) => (float[A,B] y)",
        """s = Shape(x) f = Constant<value_ints=[-1]>()
        a = Reshape(x, f) b = Reshape(x, f) c = Exp(a) d = Exp(b)
        e = Add(c, d) y = Reshape(e, s)""",
        ["relax.reshape", "relax.exp", "relax.add", "relax.reshape"],
    ),
    "a mean over symbolic axes is no normalization": (
        "(float[N,T] x) => (float[A,B] y)",
        """two = Constant<value_float=2.0>() eps = Constant<value_float=1e-5>()
        sq = Pow(x, two) m = ReduceMean<axes=[1]>(sq) v = Add(m, eps) r = Sqrt(v)
        y = Div(x, r)""",
        ["relax.multiply", "relax.mean", "relax.add", "relax.sqrt", "relax.divide"],
    ),
    "a sum over a symbolic axis of a dead channel": (
        "(float[N,2,T] x) => (float[A,B] y)",
        """w = Constant<value = float[2,2,1] {0.0, 0.0, 1.0, 2.0}>()
        c = Conv(x, w) s = ReduceSum<keepdims=0>(c, axis) axis = Constant<value_ints=[2]>()
        v = Constant<value = float[2,2] {1.0, 2.0, 3.0, 4.0}>() y = MatMul(s, v)""",
        ["relax.nn.conv1d", "relax.sum", "relax.matmul"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_canonical_form_at_every_size(name):
    signature, nodes, expected = CASES[name]
    module = imported(signature, nodes)
    after = canonicalize(module)
    assert operators(after) == expected
    [parameter] = module["main"].params
    for n, t in ((1, 1), (3, 5)):
        sizes = {"N": n, "T": t}
        shape = [sizes.get(str(getattr(e, "name", "")), e) for e in parameter.ty.shape.values]
        x = np.random.default_rng(0).normal(size=[int(e) for e in shape]).astype(np.float32)
        [want] = Evaluator(module)({"x": torch.from_numpy(x)}).values()
        [got] = Evaluator(after)({"x": torch.from_numpy(x)}).values()
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
