from fewbits.passes.canonicalize import MergeEqual
from tvm.relax import op


def test_equal_branches_become_one(build, apply, operators, const):
    def model(steps, x):
        branches = []
        for name in "abc":
            weight = const([[1.0, 2.0], [3.0, 4.0]])  # equal by content, not the same object
            y = steps(op.matmul(x, weight), f"{name} dense")
            branches.append(steps(op.nn.relu(y), f"{name} relu"))
        last = steps(op.matmul(x, const([[1.0, 2.0], [3.0, 5.0]])), "other")
        return steps(op.concat([*branches, last], 1), "all")

    after = apply(MergeEqual(), build(model, x=(1, 2)), tolerance=0)
    assert operators(after) == ["matmul", "nn.relu", "matmul", "concat"]


def test_attributes_and_types_tell_apart(build, const):
    def model(steps, x):
        a = steps(op.nn.softmax(x, 0), "a")
        b = steps(op.nn.softmax(x, 1), "b")
        c = steps(op.add(a, const(1.0)), "c")
        d = steps(op.add(b, const([1.0])), "d")
        return steps(op.add(c, d), "e")

    module = build(model, x=(2, 2))
    assert MergeEqual().apply(module, None) is module


def test_outputs_keep_their_own_variables(build, apply, operators):
    def model(steps, x):
        return steps(op.exp(x), "a"), steps(op.exp(x), "b")

    assert operators(apply(MergeEqual(), build(model, x=(2,)))) == ["exp", "exp"]
