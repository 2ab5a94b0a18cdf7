"""What the template takes, which sizes it offers, and which it chooses."""

from __future__ import annotations

import pytest
import tvm_ffi
from fewbits.schedules.cuda.architecture import SM_80, SM_89, SM_90A
from fewbits.schedules.cuda.epilogue import plain, scaled
from fewbits.schedules.cuda.hopper import Wgmma
from fewbits.schedules.cuda.hopper.sizes import Sizes
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.weight_format import Dense

WGMMA = Wgmma()
E4M3, E5M2 = "float8_e4m3fn", "float8_e5m2"


def product(dtype: str, inputs: int, outputs: int, weight: str | None = None) -> Linear:
    epilogue = scaled("float16") if dtype == "int8" else plain("float32", "float16")
    return Linear(inputs, outputs, dtype, Dense(weight or dtype), epilogue)


@pytest.mark.parametrize("dtype", ["int8", "float16", "bfloat16", E4M3, E5M2])
def test_takes_rows_of_whole_chunks_on_hopper_only(dtype: str) -> None:
    chunk = 8 if dtype in ("float16", "bfloat16") else 16
    assert WGMMA.refusal(product(dtype, 3 * chunk, 5), SM_90A) is None
    assert "16 bytes" in str(WGMMA.refusal(product(dtype, 3 * chunk + 4, 64), SM_90A))
    assert "sm_80" in str(WGMMA.refusal(product(dtype, 64, 64), SM_80))
    assert "sm_89" in str(WGMMA.refusal(product(dtype, 64, 64), SM_89))


def test_fp8_types_may_differ_and_others_not() -> None:
    assert WGMMA.refusal(product(E4M3, 64, 64, E5M2), SM_90A) is None
    assert WGMMA.refusal(product(E5M2, 64, 64, E4M3), SM_90A) is None
    assert "int8" in str(WGMMA.refusal(product("float16", 64, 64, "int8"), SM_90A))
    assert "float32" in str(WGMMA.refusal(product("float32", 64, 64), SM_90A))


@pytest.mark.parametrize("dtype", ["int8", "float16", E4M3])
@pytest.mark.parametrize("outputs", [8, 201, 4096])
def test_space_is_what_fits(dtype: str, outputs: int) -> None:
    problem = product(dtype, 512, outputs)
    choices = list(WGMMA.space(problem, SM_90A))
    assert len(choices) == len(set(choices))
    for sizes in choices:
        sets = 2 if dtype == E4M3 and sizes.promote else 1
        assert sets * sizes.sums <= 192
        assert sizes.stages * sizes.stage_bytes <= SM_90A.shared_memory
        assert sizes.threads in (256, 384)
        assert sizes.cluster <= 8
    for rows in (1, 16, 65, 300, 10_000):
        assert WGMMA.rule(problem, SM_90A, rows) in choices


def test_rule_follows_the_rows() -> None:
    problem = product("int8", 8192, 8192)
    one, many = (WGMMA.rule(problem, SM_90A, rows) for rows in (1, 8192))
    assert one is not None
    assert one.swap
    assert one.columns == 8
    assert many is not None
    assert not many.swap
    assert many.rows * many.columns >= 128 * 128


def test_rule_splits_long_sums_of_small_results() -> None:
    chosen = WGMMA.rule(product("float16", 16384, 256), SM_90A, 16)
    assert chosen is not None
    assert chosen.split > 1


def test_model_prefers_shared_work_over_waiting() -> None:
    problem = product("int8", 8192, 8192)
    wide, narrow = (WGMMA.seconds(problem, SM_90A, 8192, Sizes(128, n, 4)) for n in (256, 16))
    assert wide < narrow


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(128, 264, 3),
        Sizes(128, 256, 9),
        Sizes(128, 256, 4, "pingpong"),
        Sizes(128, 128, 4, cluster_rows=2, split=2),
        Sizes(128, 128, 4, split=8),
        Sizes(128, 128, 1),
    ],
)
def test_other_sizes_are_refused(sizes: Sizes) -> None:
    with pytest.raises(ValueError, match="Sizes"):
        WGMMA.build(product("int8", 512, 512), SM_90A, sizes, "no")


def test_equal_arguments_give_equal_functions() -> None:
    problem = product("int8", 512, 512)
    sizes = Sizes(128, 128, 4, "pingpong", cluster_rows=2)
    one, two = (WGMMA.build(problem, SM_90A, sizes, "same").function for _ in range(2))
    assert tvm_ffi.structural_equal(one, two)
