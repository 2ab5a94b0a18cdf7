import numpy as np
import onnx.parser
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.passes.calibration import Calibration
from fewbits.passes.observers import MinMax

TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,T,2] x) => (float[A,B] y) {
    r = Relu(x)
    t = Shape<start=1, end=2>(x)
    f = Cast<to=1>(t)
    s = ReduceSum<keepdims=0>(r, axis)
    axis = Constant<value_ints=[1]>()
    y = Div(s, f)
}"""


@pytest.fixture
def module():
    return import_onnx(onnx.parser.parse_model(TEXT), dynamic=True).module


def batches():
    """Sentences of two lengths."""
    random = np.random.default_rng(0)
    for count, length in ((5, 3), (4, 9)):
        yield {"x": random.normal(size=(count, length, 2)).astype(np.float32)}


def test_batches_of_several_lengths_are_observed_without_their_neighbours(module):
    seen = []
    progress = Calibration(batches, "test", 9, chunk=2, progress=lambda d, t: seen.append((d, t)))
    found = progress.observe(module, ["r", "y", "x"], lambda _name: MinMax())
    everything = [batch["x"] for batch in batches()]
    assert found["x"].low == pytest.approx(min(x.min() for x in everything))
    assert found["r"].low == 0
    assert found["r"].high == pytest.approx(max(x.max() for x in everything))
    means = np.concatenate([np.maximum(x, 0).mean(1) for x in everything])
    assert found["y"].high == pytest.approx(means.max(), rel=1e-5)
    assert seen[-1] == (9, 9)


def test_values_that_overflow_are_named(module):
    calibration = Calibration(lambda: [{"x": np.full((1, 2, 2), 3e38, np.float32)}], "test")
    with pytest.raises(FewbitsError, match="NaN or infinite") as error:
        calibration.observe(module, ["y"], lambda _name: MinMax())
    assert (error.value.code, error.value.where) == ("not-finite", "y")


def test_the_first_axis_counts_samples(module):
    calibration = Calibration(batches, "test", chunk=4)
    counts = [len(values["y"]) for values in calibration.run(module, ["r"])]
    assert counts == [4, 1, 4]
