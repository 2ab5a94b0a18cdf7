import numpy as np
import pytest
import torch
from fewbits.errors import FewbitsError
from fewbits.ops import registry
from fewbits.ops.evaluate import Evaluator
from tvm import relax, tirx


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


def symbolic_module(batch, shared=True):
    """``y = x @ permute_dims(weight) + arange(T)`` over x [batch, T, 3]; mask [batch, T]."""
    length = tirx.Var("T", "int64")
    x = relax.Var("x", relax.TensorType((batch, length, 3), "float32"))
    other = batch if shared else tirx.Var("M", "int64")
    mask = relax.Var("mask", relax.TensorType((other, length), "float32"))
    weight = relax.const(np.arange(6, dtype=np.float32).reshape(2, 3))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, mask]):
        with builder.dataflow():
            turned = builder.emit(relax.op.permute_dims(weight), "turned")
            product = builder.emit(relax.op.matmul(x, turned), "product")
            steps = builder.emit(relax.op.arange(0, length, 1, "float32"), "steps")
            column = builder.emit(relax.op.reshape(steps, (1, length, 1)), "column")
            summed = builder.emit(relax.op.add(product, column), "summed")
            wide = builder.emit(relax.op.expand_dims(mask, 2), "wide")
            y = builder.emit_output(relax.op.multiply(summed, wide))
        builder.emit_func_output(y)
    result = builder.get()
    result["main"] = result["main"].with_attr("output_names", ["y"])
    return result


def expected_of(x, mask):
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    return (x @ weight.T + np.arange(x.shape[1])[None, :, None]) * mask[:, :, None]


@pytest.fixture(params=["symbolic batch", "batch of 1"])
def sequences(request):
    symbolic = request.param == "symbolic batch"
    return symbolic_module(tirx.Var("N", "int64") if symbolic else tirx.IntImm("int64", 1))


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((5, 7, 3)).astype(np.float32),
        "mask": rng.integers(0, 2, (5, 7)).astype(np.float32),
    }


def test_symbolic_dimensions_take_the_sizes_of_the_inputs(sequences, samples):
    chunks = list(Evaluator(sequences).batched(samples, ["product"], chunk=2))
    assert [len(chunk["y"]) for chunk in chunks] == [2, 2, 1]
    y = np.concatenate([chunk["y"].numpy().reshape(-1, 7, 2) for chunk in chunks])
    np.testing.assert_allclose(y, expected_of(**samples), rtol=1e-6)


def test_step_by_step_equals_the_whole(sequences, samples):
    evaluator = Evaluator(sequences)
    environment = evaluator.start(samples)
    for step in evaluator.steps:
        value = evaluator.run_step(step, environment)
        assert value is environment[step.var]
        evaluator.release(step, environment)
    [y] = evaluator.outputs(environment).values()
    np.testing.assert_allclose(y.numpy().reshape(-1, 7, 2), expected_of(**samples), rtol=1e-6)
    live = {var.name for var in (*environment.values, *environment.shared)}
    assert "product" not in live
    assert "x" not in live


def test_a_value_replaced_between_steps_is_what_later_steps_see(sequences, samples):
    evaluator = Evaluator(sequences)
    environment = evaluator.start(samples)
    for step in evaluator.steps:
        value = evaluator.run_step(step, environment)
        if step.var.name == "product":
            environment.values[step.var] = torch.zeros_like(value)
    [y] = evaluator.outputs(environment).values()
    expected = expected_of(np.zeros_like(samples["x"]), samples["mask"])
    np.testing.assert_allclose(y.numpy().reshape(-1, 7, 2), expected, rtol=1e-6)


def test_nested_expressions_are_evaluated_in_an_environment(sequences, samples):
    evaluator = Evaluator(sequences)
    environment = evaluator.start(samples)
    x = evaluator.parameters[0]
    call = relax.op.nn.relu(relax.op.negative(x))
    found = evaluator.evaluate(call, environment).numpy().reshape(5, 7, 3)
    np.testing.assert_array_equal(found, np.maximum(-samples["x"], 0))


def test_what_follows_from_constants_is_computed_once(sequences, samples, monkeypatch):
    calls = []
    original = registry._MEANINGS["relax.permute_dims"]

    def counted(call, *arguments):
        calls.append(call)
        return original(call, *arguments)

    monkeypatch.setitem(registry._MEANINGS, "relax.permute_dims", counted)
    list(Evaluator(sequences).batched(samples, chunk=1))
    assert len(calls) == 1


def test_contradicting_sizes_are_refused(sequences, samples):
    samples["mask"] = samples["mask"][:, :-1]
    with pytest.raises(FewbitsError, match="'T' is 6 here but 7 in input 'x'") as error:
        next(iter(Evaluator(sequences).batched(samples)))
    assert (error.value.code, error.value.where) == ("bad-input", "mask")


def test_another_number_of_samples_is_refused(sequences, samples):
    samples["mask"] = samples["mask"][:-1]
    with pytest.raises(FewbitsError, match="4 samples, but 5 of input 'x'"):
        next(iter(Evaluator(sequences).batched(samples)))


def test_samples_of_another_rank_are_refused(sequences, samples):
    samples["x"] = samples["x"][..., 0]
    with pytest.raises(FewbitsError, match="a sample has shape"):
        next(iter(Evaluator(sequences).batched(samples)))


def test_inputs_with_batches_of_their_own_run_sample_by_sample(samples):
    module = symbolic_module(tirx.Var("N", "int64"), shared=False)
    evaluator = Evaluator(module)
    assert evaluator.batch is None
    [values] = evaluator.batched(samples)
    np.testing.assert_allclose(values["y"].numpy()[:, 0], expected_of(**samples), rtol=1e-6)
