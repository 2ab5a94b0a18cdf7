"""Symbolic dimensions: what is imported once computes what onnxruntime does, at every size."""

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.canonicalize import canonicalize
from tvm import relax

SIZES = [{"N": 1, "T": 1, "S": 1}, {"N": 3, "T": 17, "S": 4}, {"N": 2, "T": 8, "S": 8}]


def model(signature, body, opset=17):
    """A model from a graph in ONNX's text form; ``float[N,T] x => float[A,B] y``."""
    given, wanted = signature.split("=>")
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    return onnx.parser.parse_model(f"{head} g ({given}) => ({wanted}) {{ {body} }}")


#: name: (inputs and outputs, nodes)
CASES = {
    "flattened and back": (
        "float[N,T,6] x => float[A,B] flat, float[A,B,C] y",
        """shape = Shape(x)
        flat = Flatten<axis=2>(x)
        twice = Mul(flat, flat)
        y = Reshape(twice, shape)""",
    ),
    "heads apart and together": (
        "float[N,T,8] x => float[A,B,C] y",
        """apart = Constant<value_ints=[0, 0, 2, -1]>()
        together = Constant<value_ints=[0, 0, -1]>()
        heads = Reshape(x, apart)
        moved = Transpose<perm=[0, 2, 1, 3]>(heads)
        soft = Softmax<axis=-1>(moved)
        back = Transpose<perm=[0, 2, 1, 3]>(soft)
        y = Reshape(back, together)""",
    ),
    "a shape put together from parts": (
        "float[N,T,8] x => float[A,B,C] y",
        """shape = Shape(x)
        zero = Constant<value_int=0>()
        one = Constant<value_int=1>()
        axes = Constant<value_ints=[0]>()
        last = Constant<value_ints=[2, 4]>()
        n = Gather(shape, zero)
        t = Gather(shape, one)
        rows = Mul(n, t)
        rows1 = Unsqueeze(rows, axes)
        target = Concat<axis=0>(rows1, last)
        y = Reshape(x, target)""",
    ),
    "attention with a causal mask": (
        "float[N,T,8] x => float[A,B,C] y",
        """shape = Shape(x)
        zero = Constant<value_int=0>()
        one = Constant<value_int=1>()
        t = Gather(shape, one)
        positions = Range(zero, t, one)
        first = Constant<value_ints=[0]>()
        second = Constant<value_ints=[1]>()
        row = Unsqueeze(positions, first)
        column = Unsqueeze(positions, second)
        seen = LessOrEqual(row, column)
        none = Constant<value_float=0.0>()
        far = Constant<value_float=-1e9>()
        mask = Where(seen, none, far)
        keys = Transpose<perm=[0, 2, 1]>(x)
        scores = MatMul(x, keys)
        masked = Add(scores, mask)
        p = Softmax<axis=-1>(masked)
        y = MatMul(p, x)""",
    ),
    "a triangle of ones": (
        "float[N,T,4] x => float[A,B] y",
        """shape = Shape<start=1, end=2>(x)
        square = Concat<axis=0>(shape, shape)
        ones = ConstantOfShape<value = float[1] {1.0}>(square)
        y = Trilu<upper=0>(ones)""",
    ),
    "expanded": (
        "float[N,1,4] x, float[T] z => float[A,B,C] y, float[A,B] w",
        """t = Shape(z)
        one = Constant<value_ints=[1]>()
        target = Concat<axis=0>(one, t, one)
        y = Expand(x, target)
        n = Shape<end=1>(x)
        wide = Concat<axis=0>(n, t)
        w = Expand(z, wide)""",
    ),
    "expanded where a size is minus one": (
        "float[N,1,4] x, float[T] z => float[A,B,C] y",
        """shape = Shape(x)
        t = Shape(z)
        minus = Constant<value_ints=[-1]>()
        wish = Concat<axis=0>(minus, t, minus)
        isminus = Equal(wish, minus)
        target = Where(isminus, shape, wish)
        y = Expand(x, target)""",
    ),
    "slices": (
        "float[N,T,6] x => float[A,B,C] first, float[A,B,C] last, float[A,B,C] odd, float[A,B,C] b",
        """axis = Constant<value_ints=[1]>()
        zero = Constant<value_ints=[0]>()
        one = Constant<value_ints=[1]>()
        minus = Constant<value_ints=[-1]>()
        huge = Constant<value_ints=[9223372036854775807]>()
        tiny = Constant<value_ints=[-9223372036854775807]>()
        two = Constant<value_ints=[2]>()
        first = Slice(x, zero, one, axis)
        last = Slice(x, minus, huge, axis)
        odd = Slice(x, zero, huge, axis, two)
        b = Slice(x, minus, tiny, axis, minus)""",
    ),
    "half of a computed size": (
        "float[N,T,6] x => float[A,B] y",
        """n = Shape<end=1>(x)
        t = Shape<start=1, end=2>(x)
        two = Constant<value_ints=[2]>()
        six = Constant<value_ints=[6]>()
        twice = Mul(t, two)
        again = Div(twice, two)
        wide = Mul(again, six)
        shape = Concat<axis=0>(n, wide)
        y = Reshape(x, shape)""",
    ),
    "picked": (
        "float[N,T,6] x => float[A,B] first, float[A,B] last, float[A,B,C] some",
        """zero = Constant<value_int=0>()
        minus = Constant<value_int=-1>()
        both = Constant<value_ints=[-1, 0]>()
        first = Gather<axis=1>(x, zero)
        last = Gather<axis=1>(x, minus)
        some = Gather<axis=1>(x, both)""",
    ),
    "joined": (
        "float[N,T,6] x, float[N,S,6] z => float[A,B,C] y, int64[K] k",
        """y = Concat<axis=1>(x, z)
        k = Shape(y)""",
    ),
    "a size as a number": (
        "float[N,T,6] x => float[A,B,C] y",
        """t = Shape<start=1, end=2>(x)
        f = Cast<to=1>(t)
        root = Sqrt(f)
        y = Div(x, root)""",
    ),
    "repeated": (
        "float[N,4] x, float[T] z => float[A,B] y",
        """t = Shape(z)
        one = Constant<value_ints=[1]>()
        repeats = Concat<axis=0>(one, t)
        y = Tile(x, repeats)""",
    ),
    "normalized": (
        "float[N,T,6] x => float[A,B,C] y",
        """axes = Constant<value_ints=[-1]>()
        two = Constant<value_float=2.0>()
        eps = Constant<value_float=1e-5>()
        mean = ReduceMean<axes=[-1]>(x)
        centred = Sub(x, mean)
        squares = Pow(centred, two)
        var = ReduceMean<axes=[-1]>(squares)
        sum = Add(var, eps)
        dev = Sqrt(sum)
        y = Div(centred, dev)""",
    ),
    "an image": (
        "float[N,3,8,8] x => float[A,B] y",
        """w = ConstantOfShape<value = float[1] {0.1}>(s)
        s = Constant<value_ints=[5, 3, 3, 3]>()
        c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)
        r = Relu(c)
        p = GlobalAveragePool(r)
        y = Flatten(p)""",
    ),
    "elements counted": (
        "float[N,T] x => float[A,B] y",
        """n = Size(x)
        f = Cast<to=1>(n)
        y = Div(x, f)""",
    ),
}


def feeds_of(imported, sizes):
    random = np.random.default_rng(1)
    return {
        info.name: random.normal(size=[sizes.get(e, e) for e in info.shape]).astype(info.dtype)
        for info in imported.inputs
    }


def run(module, feeds):
    results = Evaluator(module)({key: torch.from_numpy(value) for key, value in feeds.items()})
    return [result.numpy() for result in results.values()]


@pytest.mark.parametrize("name", CASES)
def test_equals_onnxruntime_at_every_size(name):
    imported = import_onnx(model(*CASES[name]), dynamic=True)
    relax.analysis.well_formed(imported.module)
    canonical = canonicalize(imported.module)
    relax.analysis.well_formed(canonical)
    session = onnxruntime.InferenceSession(imported.onnx_model.SerializeToString())
    for sizes in SIZES:
        feeds = feeds_of(imported, sizes)
        expected = session.run(None, feeds)
        for module in (imported.module, canonical):
            for found, wanted in zip(run(module, feeds), expected, strict=True):
                assert found.shape == wanted.shape
                assert found.dtype == wanted.dtype
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_one_dimension_is_one_variable_in_all_inputs():
    text = "float[N,T] x, float[N,T] z, float[T] v => float[A,B] y"
    imported = import_onnx(model(text, "s = Add(x, z) y = Mul(s, v)"), dynamic=True)
    x, z, v = imported.module["main"].params
    assert x.ty.shape.values[1].same_as(z.ty.shape.values[1])
    assert x.ty.shape.values[1].same_as(v.ty.shape.values[0])
    assert [i.shape for i in imported.inputs] == [("N", "T"), ("N", "T"), ("T",)]
    assert imported.outputs[0].shape == ("N", "T")


def test_bound_dimensions_are_numbers_and_others_stay():
    text = "float[N,T] x => float[A,B] y"
    imported = import_onnx(model(text, "y = Relu(x)"), dynamic=True, bind={"T": 5})
    assert imported.inputs[0].shape == ("N", 5)
    assert imported.outputs[0].shape == ("N", 5)


def test_without_dynamic_the_batch_is_one_and_the_rest_must_be_bound():
    with pytest.raises(FewbitsError, match="'T'") as error:
        import_onnx(model("float[N,T] x => float[A,B] y", "y = Relu(x)"))
    assert error.value.code == "unbound-dimension"


def test_computed_sizes_are_spelled_in_the_interface():
    text, nodes = CASES["joined"]
    imported = import_onnx(model(text, nodes), dynamic=True)
    assert imported.outputs[0].shape[1] in ("T + S", "S + T")


def test_dimensions_without_a_name_get_one():
    proto = model("float[N,T] x => float[A,B] y", "y = Relu(x)")
    for dim in proto.graph.input[0].type.tensor_type.shape.dim:
        dim.ClearField("dim_param")
    imported = import_onnx(proto, dynamic=True)
    assert imported.inputs[0].shape == ("x_0", "x_1")
    assert any("has no name" in note for note in imported.notes)


TABLE = """table = ConstantOfShape<value = float[1] {0.5}>(s)
s = Constant<value_ints=[32, 4]>()
t = Shape<start=1, end=2>(x)
zero = Constant<value_ints=[0]>()
rows = Slice(table, zero, t, zero)
y = Add(x, rows)"""


def test_a_table_of_positions_bounds_the_length():
    imported = import_onnx(model("float[N,T,4] x => float[A,B,C] y", TABLE), dynamic=True)
    assert imported.module["main"].attrs["tir_var_upper_bound"]["T"] == 32
    assert any("'T' is at most 32" in note for note in imported.notes)
    [y] = run(imported.module, {"x": np.zeros((2, 32, 4), np.float32)})
    assert (y == 0.5).all()
    with pytest.raises(FewbitsError, match="'T' is 33; the model allows 32"):
        run(canonicalize(imported.module), {"x": np.zeros((2, 33, 4), np.float32)})


REFUSED = {
    "a reshape that fits some sizes only": (
        "float[N,T] x => float[A,B] y",
        "s = Constant<value_ints=[2, -1]>() y = Reshape(x, s)",
        "'?N|--bind N=128 --bind T=128",
    ),
    "a split of an open axis": (
        "float[N,T] x => float[A,B] y, float[A,B] z",
        "y, z = Split<axis=1>(x)",
        "--bind T=128",
    ),
    "repeats that are data": (
        "float[N,T] x => float[A,B] y",
        """d = Shape(x) e = EyeLike(x) y = Mul(x, e)""",
        "--bind N=128",
    ),
    "reflected padding of an open axis": (
        "float[N,T] x => float[A,B] y",
        'p = Constant<value_ints=[0, 1, 0, 1]>() y = Pad<mode="reflect">(x, p)',
        "--bind T=128",
    ),
    "a question of size": (
        "float[N,T] x => float[A] y",
        """t = Shape<start=1>(x)
        five = Constant<value_ints=[5]>()
        isfive = Equal(t, five)
        s = Where(isfive, five, t)
        y = ConstantOfShape(s)""",
        "only constants|--bind",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_must_be_known_is_refused_with_the_way_out(name):
    signature, nodes, hint = REFUSED[name]
    with pytest.raises(FewbitsError) as error:
        import_onnx(model(signature, nodes), dynamic=True)
    assert error.value.code in ("symbolic-dimension", "dynamic-argument")
    assert any(part in (error.value.hint or "") for part in hint.split("|"))


def test_a_refused_model_is_accepted_when_bound():
    signature, nodes, _ = REFUSED["a split of an open axis"]
    imported = import_onnx(model(signature, nodes), dynamic=True, bind={"T": 6})
    assert [output.shape for output in imported.outputs] == [("N", 3), ("N", 3)]
