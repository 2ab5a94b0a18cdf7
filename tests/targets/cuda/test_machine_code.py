"""What is read from machine code is what is known to be in it."""

from __future__ import annotations

import pytest
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.compile import fatbin
from fewbits.targets.cuda.machine_code import MachineCode, report_fatbin, sass
from fewbits.targets.cuda.toolchain import disassembler

pytestmark = [
    pytest.mark.skipif(testing.no_compiler() is not None, reason=str(testing.no_compiler())),
    pytest.mark.skipif(disassembler("nvdisasm") is None, reason="nvdisasm is not installed"),
]

PRODUCT = """
extern "C" __global__ void product(const unsigned *x, int *y) {
    __shared__ int kept[256];
    unsigned a = x[threadIdx.x], b = x[threadIdx.x + 32];
    int d0 = 0, d1 = 0, d2 = 0, d3 = 0;
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, "
                 "{%4,%4,%5,%5}, {%4,%5}, {%0,%1,%2,%3};"
                 : "+r"(d0), "+r"(d1), "+r"(d2), "+r"(d3) : "r"(a), "r"(b));
    kept[threadIdx.x] = d0 + d1 + d2 + d3;
    __syncthreads();
    y[threadIdx.x] = kept[255 - threadIdx.x];
}
extern "C" __global__ void stacked(int *y, int n) {
    int values[64];
    for (int i = 0; i < 128; ++i) values[(i * n) & 63] = y[i];
    y[0] = values[n & 63];
}
extern "C" __global__ void __launch_bounds__(1024) spilling(float *y) {
    float v[128];
    #pragma unroll
    for (int i = 0; i < 128; ++i) v[i] = y[i * 1024 + threadIdx.x];
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < 128; ++i) y[i * 1024 + threadIdx.x] = v[127 - i] * v[i];
}
"""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def codes(request: pytest.FixtureRequest) -> dict[str, MachineCode]:
    return report_fatbin(fatbin(PRODUCT, request.param))


def test_every_kernel_is_reported(codes: dict[str, MachineCode]) -> None:
    assert set(codes) == {"product", "stacked", "spilling"}
    for name, code in codes.items():
        assert code.name == name
        assert f".entry {name}(" in code.ptx
        assert code.count("EXIT") >= 1


def test_tensor_instructions_are_counted_by_mnemonic(codes: dict[str, MachineCode]) -> None:
    code = codes["product"]
    assert code.count("IMMA") == code.count("IMMA.16832") == 1
    assert code.count("IMMA.16832.S8.S8") == 1
    assert code.count("IMM") == code.count("HMMA") == code.count("NOP") == 0
    assert codes["stacked"].count("IMMA") == 0


def test_memory_and_registers(codes: dict[str, MachineCode]) -> None:
    product, stacked, spilling = (codes[name] for name in ("product", "stacked", "spilling"))
    assert (product.shared, product.stack, product.spill) == (1024, 0, 0)
    assert (stacked.shared, stacked.stack) == (0, 256)
    assert spilling.registers == 64
    assert spilling.spill > 0
    assert 0 < product.registers < 64


def test_text_of_the_machine_code() -> None:
    text = sass(fatbin(PRODUCT, "sm_90a"))
    assert text.count(".text.product:") == 1
    assert "IMMA.16832.S8.S8" in text
