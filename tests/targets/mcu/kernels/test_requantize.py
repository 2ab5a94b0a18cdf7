"""The requantization rule and the instruction wrappers give the same bits on every core."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fewbits.targets.mcu import probe, toolchain
from fewbits.targets.mcu.emulator import Emulator
from fewbits.targets.mcu.target import get_target

SOURCE = """
#include "requantize.h"
int32_t mulh(int32_t v, int32_t m);
int32_t mulh(int32_t v, int32_t m) { return fb_mulh(v, m); }
int32_t requantize(int32_t acc, int32_t b, int32_t m, int32_t shift);
int32_t requantize(int32_t acc, int32_t b, int32_t m, int32_t shift) {
    return fb_requantize(acc, b, m, shift, -128, 127);
}
int32_t limited(int32_t acc, int32_t b, int32_t m);
int32_t limited(int32_t acc, int32_t b, int32_t m) { return fb_requantize(acc, b, m, 0, -5, 100); }
int32_t rectified(int32_t acc, int32_t b, int32_t m);
int32_t rectified(int32_t acc, int32_t b, int32_t m) { return fb_requantize(acc, b, m, 0, 0, 127); }
int32_t dot(int32_t word, int32_t other, int32_t sum);
int32_t dot(int32_t word, int32_t other, int32_t sum) {
    return fb_smlad(fb_sxtb16((uint32_t)word), fb_sxtb16_ror8((uint32_t)other), sum);
}
"""
ROOTS = ("mulh", "requantize", "limited", "rectified", "dot")
ENDS = [-(2**31), -(2**31) + 1, -65537, -65536, -1, 0, 1, 65535, 65536, 2**31 - 1]


@pytest.fixture(params=["cortex-m0plus", "cortex-m3", "cortex-m4", "rv32imc"])
def core(request: pytest.FixtureRequest, tmp_path: Path) -> Emulator:
    """Each core with the functions above."""
    target = get_target(request.param)
    source = tmp_path / "functions.c"
    source.write_text(SOURCE)
    built = toolchain.build(
        [source], target, tmp_path / "functions.elf", include=[probe.KERNELS], roots=ROOTS
    )
    return Emulator(built.elf, target)


def _signed_bytes(word: int, first: int) -> tuple[int, int]:
    raw = (word & 0xFFFFFFFF).to_bytes(4, "little")
    values = np.frombuffer(raw, np.int8)
    return int(values[first]), int(values[first + 2])


def test_high_half_of_the_product(core: Emulator) -> None:
    rng = np.random.default_rng(1)
    values = [*ENDS, *rng.integers(-(2**31), 2**31, 30).tolist()]
    multipliers = [0, 1, 65535, 65536, 2**26, 2**31 - 1, *rng.integers(0, 2**31, 6).tolist()]
    for value in values:
        for multiplier in multipliers:
            assert core.call("mulh", value, multiplier).value == (value * multiplier) >> 32


def test_requantize(core: Emulator) -> None:
    rng = np.random.default_rng(2)
    for _ in range(100):
        shift = int(rng.integers(0, 4))
        acc, bias = (int(v) for v in rng.integers(-(2**24), 2**24, 2))
        multiplier = int(2 ** rng.uniform(8, 30))
        wanted = (((acc << shift) + bias) * multiplier) >> 32
        call = core.call("requantize", acc, bias, multiplier, shift)
        assert call.value == min(max(wanted, -128), 127)
        wanted = ((acc + bias) * multiplier) >> 32
        assert core.call("limited", acc, bias, multiplier).value == min(max(wanted, -5), 100)
        assert core.call("rectified", acc, bias, multiplier).value == min(max(wanted, 0), 127)


def test_dot_products_of_halves(core: Emulator) -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        word, other, total = (int(v) for v in rng.integers(-(2**31), 2**31, 3))
        (a0, a2), (b1, b3) = _signed_bytes(word, 0), _signed_bytes(other, 1)
        wanted = (total + a0 * b1 + a2 * b3 + 2**31) % 2**32 - 2**31
        assert core.call("dot", word, other, total).value == wanted


def test_no_core_calls_a_library_for_the_product(core: Emulator) -> None:
    assert core.call("mulh", -(2**31), 2**31 - 1).instructions < 25
