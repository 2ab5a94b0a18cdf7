import numpy as np
import pytest
import torch
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from tvm import relax


@pytest.fixture
def module():
    x = relax.Var("in put", relax.TensorType((1, 3), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            halves = builder.emit(relax.op.split(relax.op.nn.relu(x), 3, 1), "halves\n'")
            first = builder.emit(relax.TupleGetItem(halves, 0), "first")
            total = builder.emit(relax.op.add(first, relax.const(1.0, "float32")), "total")
            outputs = [builder.emit_output(value) for value in (total, first)]
        builder.emit_func_output(relax.Tuple(outputs))
    result = builder.get()
    result["main"] = result["main"].with_attr("output_names", ["o/1", "o 2"])
    return result


def test_outputs_by_name_and_every_binding_observed_in_order(module):
    seen = []
    outputs = Evaluator(module)(
        {"in put": torch.tensor([[2.0, -1.0, 0.5]])}, lambda name, _value: seen.append(name)
    )
    assert list(outputs) == ["o/1", "o 2"]
    assert outputs["o/1"].tolist() == [[3.0]]
    assert [name for name in seen if name in ("halves\n'", "first", "total")] == [
        "halves\n'",
        "first",
        "total",
    ]


def test_batches_keep_samples_apart_and_cast(module):
    samples = np.arange(15, dtype=np.float64).reshape(5, 3)
    chunks = list(Evaluator(module).batched({"in put": samples}, ["first"], chunk=2))
    assert [len(chunk["o/1"]) for chunk in chunks] == [2, 2, 1]
    joined = np.concatenate([chunk["first"].numpy() for chunk in chunks])
    assert joined.reshape(-1).tolist() == [0, 3, 6, 9, 12]


def test_a_missing_input_is_named(module):
    with pytest.raises(FewbitsError, match="missing") as error:
        next(iter(Evaluator(module).batched({"input": np.zeros((1, 3))})))
    assert error.value.where == "in put"


def test_a_sample_of_another_size_is_refused(module):
    with pytest.raises(FewbitsError, match=r"\(4,\).*\(1, 3\)"):
        next(iter(Evaluator(module).batched({"in put": np.zeros((2, 4))})))


def test_an_operator_without_meaning_is_refused():
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            y = builder.emit_output(builder.emit(relax.op.collapse_sum_to(x, (1,)), "sum here"))
        builder.emit_func_output(y)
    broken = builder.get()
    broken["main"] = broken["main"].with_attr("output_names", ["y"])
    with pytest.raises(FewbitsError, match="collapse_sum_to") as error:
        Evaluator(broken)
    assert error.value.code == "unsupported-operator"
    assert error.value.where == "sum here"
