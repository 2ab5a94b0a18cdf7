"""The host runner: calls into a library, and survives its crashes."""

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.targets.mcu.host import HostRunner
from fewbits.targets.mcu.target import get_target
from fewbits.targets.mcu.toolchain import build

SOURCE = """
#include <stdint.h>
#include <stdio.h>
int32_t dot(const int8_t *a, const int8_t *b, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}
void twice(int8_t *a, int n) { for (int i = 0; i < n; ++i) a[i] = (int8_t)(2 * a[i]); }
int chatty(void) { puts("this must not disturb"); fflush(stdout); return -7; }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("host")
    (folder / "lib.c").write_text(SOURCE)
    return build([folder / "lib.c"], get_target("c"), folder / "lib.so", shared=True).elf


def test_functions_see_and_change_memory(library):
    with HostRunner(library) as host:
        data = np.arange(-5, 6, dtype=np.int8)
        address = host.place(data, alignment=64)
        assert address % 64 == 0
        assert host.call("dot", address, address, data.size) == int((data.astype(int) ** 2).sum())
        host.call("twice", address, data.size)
        assert np.array_equal(np.frombuffer(host.read(address, data.size), np.int8), 2 * data)
        assert host.call("chatty") == -7
        assert host.symbol("dot") != host.symbol("twice")


def test_a_crash_is_an_error(library):
    with HostRunner(library) as host:
        with pytest.raises(FewbitsError) as caught:
            host.call("dot", 0, 0, 1)
        assert caught.value.code == "host-crash"
        assert "SIGSEGV" in caught.value.message


def test_unknown_functions_and_files_are_errors(library, tmp_path):
    with HostRunner(library) as host, pytest.raises(FewbitsError) as caught:
        host.call("nothing")
    assert caught.value.code == "unknown-symbol"
    (tmp_path / "no.so").write_text("no library")
    with pytest.raises(FewbitsError) as caught:
        HostRunner(tmp_path / "no.so")
    assert caught.value.code == "bad-library"
