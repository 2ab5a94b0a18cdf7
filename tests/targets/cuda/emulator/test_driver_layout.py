"""Numbers and layouts that the emulated driver writes down are those of NVIDIA's headers."""

from __future__ import annotations

import re
from pathlib import Path

import fewbits.targets.cuda.emulator as package
import pytest
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.toolchain import find_nvcc
from fewbits.targets.mcu.toolchain import compiler_command, run_command

DRIVER = Path(package.__file__).parent / "driver"

ERRORS = {
    "CUDA_OK": "CUDA_SUCCESS",
    "CUDA_CAPTURE_": "CUDA_ERROR_STREAM_CAPTURE_",
    "CUDA_": "CUDA_ERROR_",
}

# The attributes that `attribute` in device.c knows, and where `cudaDeviceProp` has them.
ATTRIBUTES = {
    1: "MaxThreadsPerBlock",
    2: "MaxBlockDimX",
    3: "MaxBlockDimY",
    4: "MaxBlockDimZ",
    5: "MaxGridDimX",
    6: "MaxGridDimY",
    7: "MaxGridDimZ",
    8: "MaxSharedMemoryPerBlock",
    9: "TotalConstantMemory",
    10: "WarpSize",
    12: "MaxRegistersPerBlock",
    13: "ClockRate",
    16: "MultiProcessorCount",
    38: "L2CacheSize",
    39: "MaxThreadsPerMultiProcessor",
    41: "UnifiedAddressing",
    75: "ComputeCapabilityMajor",
    76: "ComputeCapabilityMinor",
    81: "MaxSharedMemoryPerMultiprocessor",
    82: "MaxRegistersPerMultiprocessor",
    95: "CooperativeLaunch",
    97: "MaxSharedMemoryPerBlockOptin",
    106: "MaxBlocksPerMultiprocessor",
    111: "ReservedSharedMemoryPerBlock",
    120: "ClusterLaunch",
}
PROPERTIES = {
    "totalGlobalMem": 288,
    "sharedMemPerBlock": 296,
    "regsPerBlock": 304,
    "warpSize": 308,
    "maxThreadsPerBlock": 320,
    "maxThreadsDim": 324,
    "maxGridSize": 336,
    "major": 360,
    "minor": 364,
    "multiProcessorCount": 384,
    "l2CacheSize": 596,
    "sharedMemPerMultiprocessor": 624,
    "sharedMemPerBlockOptin": 672,
}
OTHERS = """
sizeof(struct cudaDeviceProp) == 1008
sizeof(CUlaunchConfig) == 56
sizeof(CUlaunchAttribute) == 72
offsetof(CUlaunchConfig, sharedMemBytes) == 24
offsetof(CUlaunchConfig, hStream) == 32
offsetof(CUlaunchConfig, attrs) == 40
offsetof(CUlaunchConfig, numAttrs) == 48
offsetof(CUlaunchAttribute, value) == 8
CU_LAUNCH_ATTRIBUTE_COOPERATIVE == 2
CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION == 4
CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES == 8
CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED == 14
CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT == 9
cudaStreamNonBlocking == 1
cudaMemcpyHostToDevice == 1
cudaMemcpyDefault == 4
sizeof(CUtensorMap) == FB_TENSOR_MAP_BYTES
"""


def _expected() -> list[str]:
    text = (DRIVER / "driver.h").read_text()
    claims = []
    for ours, number in re.findall(r"^    (CUDA_\w+) = (\d+)", text, re.MULTILINE):
        prefix = next(p for p in ERRORS if ours.startswith(p))
        claims.append(f"{ERRORS[prefix]}{ours.removeprefix(prefix)} == {number}")
    assert len(claims) > 20
    claims += [f"cudaDevAttr{name} == {number}" for number, name in ATTRIBUTES.items()]
    claims += [
        f"offsetof(struct cudaDeviceProp, {name}) == {at}" for name, at in PROPERTIES.items()
    ]
    return claims + OTHERS.strip().splitlines()


def test_as_in_the_headers_of_cuda_13(tmp_path: Path) -> None:
    reason = testing.no_compiler()
    if reason is not None:
        pytest.skip(reason)
    nvcc = find_nvcc()
    if nvcc.version[0] != 13:
        pytest.skip(f"the headers are those of CUDA {nvcc.release}")
    root = nvcc.path.resolve().parent.parent
    headers = [root / "include", *root.glob("targets/*/include")]
    folder = next((h for h in headers if (h / "cuda_runtime_api.h").is_file()), None)
    if folder is None:
        pytest.skip("CUDA's headers are not installed")
    includes = "#include <stddef.h>\n#include <cuda.h>\n#include <cuda_runtime_api.h>\n"
    claims = [f'_Static_assert({claim}, "");' for claim in _expected()]
    source = tmp_path / "claims.c"
    source.write_text(includes + f'#include "{DRIVER}/driver.h"\n' + "\n".join(claims))
    command = [
        *compiler_command(None),
        "-c",
        f"-I{folder}",
        str(source),
        "-o",
        str(tmp_path / "claims.o"),
    ]
    run_command(command)


def test_the_lists_are_those_of_the_source() -> None:
    text = (DRIVER / "device.c").read_text()
    assert {int(number) for number in re.findall(r"case (\d+):", text)} == set(ATTRIBUTES)
    places = re.findall(r"\{(\d{3}), \d+\}", text)
    within = {324 + 4, 324 + 8, 336 + 4, 336 + 8, 288}
    assert {int(place) for place in places} | within == set(PROPERTIES.values()) | within
