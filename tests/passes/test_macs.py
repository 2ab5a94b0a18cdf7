import numpy as np
from fewbits.passes.macs import macs
from fewbits.passes.rewrite import assemble
from tvm import relax
from tvm.relax import op


def test_layers_that_multiply_are_counted_by_name():
    normalize = relax.BlockBuilder().normalize
    x = relax.Var("x", relax.TensorType((1, 4, 8, 8), "float32"))
    bindings = []

    def steps(call, name):
        call = normalize(call)
        bindings.append((relax.DataflowVar(name, call.ty), call))
        return bindings[-1][0]

    def zeros(*shape):
        return relax.const(np.zeros(shape, np.float32), "float32")

    y = steps(op.nn.conv2d(x, zeros(6, 4, 3, 3), padding=[1] * 4, strides=2), "conv")
    y = steps(op.nn.conv2d(y, zeros(6, 1, 3, 3), groups=6), "depthwise")
    y = steps(op.nn.relu(y), "relu")
    y = steps(op.nn.conv2d_transpose(y, zeros(6, 5, 2, 2), strides=[2, 2]), "up")
    y = steps(op.reshape(y, (1, 80)), "flat")
    y = steps(op.matmul(y, zeros(80, 3)), "dense")
    module = assemble([x], bindings, y, {})
    assert macs(module) == {
        "conv": 6 * 16 * 4 * 9,
        "depthwise": 6 * 4 * 9,
        "up": 6 * 4 * 5 * 4,
        "dense": 80 * 3,
    }
