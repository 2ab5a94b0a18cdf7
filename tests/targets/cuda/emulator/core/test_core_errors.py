"""Planted errors are found and named; damaged programs are refused."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.targets.cuda.emulator import LaunchError, launch, machine
from fewbits.targets.cuda.emulator.program import translate

STORE = "mov.u32 %r1, %tid.x; mul.wide.u32 %rd5, %r1, 4; add.u64 %rd6, %rd0, %rd5;\n"


def status(*args, **options) -> tuple[str, str]:
    with pytest.raises(LaunchError) as caught:
        launch(*args, **options)
    return caught.value.status, str(caught.value)


def test_out_of_bounds_names_everything(ptx) -> None:
    x = np.zeros(20, "i4")
    kind, text = status(ptx(f"{STORE}st.global.u32 [%rd6], 1;", "u64"), "k", 1, 32, [x])
    assert kind == "illegal-address"
    place = ("kernel k", "line 13", "(st)", "thread (20, 0, 0)")
    for part in (*place, "write of 4 bytes", "0 bytes after the end", "80 bytes", "argument 0"):
        assert part in text


def test_misaligned(ptx) -> None:
    x = np.zeros(64, "i4")
    body = f"{STORE}add.u64 %rd6, %rd6, 2; st.global.u32 [%rd6], 1;"
    assert status(ptx(body, "u64"), "k", 1, 32, [x])[0] == "misaligned"


def test_uninitialised_shared_memory(ptx) -> None:
    body = "ld.shared.u32 %r2, [s+4];"
    kind, text = status(ptx(body, shared=".shared .align 4 .b8 s[16];"), "k", 1, 32, [])
    assert kind == "uninitialised"
    assert "nothing has written" in text
    launch(
        ptx(body, shared=".shared .align 4 .b8 s[16];"), "k", 1, 32, [], options={"shared_init": 0}
    )


def test_shared_memory_ends(ptx) -> None:
    body = "st.shared.u32 [s+16], 1;"
    assert (
        status(ptx(body, shared=".shared .align 4 .b8 s[16];"), "k", 1, 32, [])[0]
        == "illegal-address"
    )


def test_deadlock_names_the_waiting_warps(ptx) -> None:
    body = """mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 32;
    @%p1 bra FIRST; bar.sync 1, 64; bra DONE;
    FIRST: bar.sync 2, 64; DONE:"""
    kind, text = status(ptx(body), "k", 1, 64, [])
    assert kind == "deadlock"
    assert "warp 0" in text and "warp 1" in text and "a barrier of the block (0x2)" in text


def test_shuffle_without_its_lanes_is_a_deadlock(ptx) -> None:
    body = """mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 16;
    @%p1 bra FIRST; bar.sync 0; bra DONE;
    FIRST: shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1; bar.sync 0; DONE:"""
    kind, text = status(ptx(body), "k", 1, 32, [])
    assert kind == "deadlock"
    assert "other lanes of its warp" in text


def test_barriers_of_two_places_are_misuse(ptx) -> None:
    body = """mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 16;
    @%p1 bra FIRST; bar.sync 0; bra DONE;
    FIRST: bar.sync 0; DONE:"""
    assert status(ptx(body), "k", 1, 32, [])[0] == "misuse"


def test_copy_that_nobody_waits_for(ptx) -> None:
    body = """mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 4; mov.u32 %r3, s; add.u32 %r3, %r3, %r2;
    cvt.u64.u32 %rd5, %r2; add.u64 %rd6, %rd0, %rd5; add.u64 %rd7, %rd1, %rd5;
    cp.async.cg.shared.global [%r3], [%rd6], 16; cp.async.commit_group;
    WAIT
    ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r3];
    st.global.v4.u32 [%rd7], {%r10, %r11, %r12, %r13};"""
    x, y = np.arange(128, dtype="i4"), np.zeros(128, "i4")
    shared = ".shared .align 16 .b8 s[512];"
    launch(
        ptx(body.replace("WAIT", "cp.async.wait_group 0;"), "u64,u64", shared), "k", 1, 32, [x, y]
    )
    np.testing.assert_array_equal(x, y)
    for wait in ("", "cp.async.wait_group 1;"):
        kind, text = status(ptx(body.replace("WAIT", wait), "u64,u64", shared), "k", 1, 32, [x, y])
        assert kind == "uninitialised"
        assert "asynchronous copy" in text


def test_races_between_warps(ptx) -> None:
    body = """mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 2; mov.u32 %r3, s; add.u32 %r4, %r3, %r2;
    st.shared.u32 [%r4], %r1; WAIT xor.b32 %r5, %r2, 128; add.u32 %r5, %r5, %r3;
    ld.shared.u32 %r6, [%r5];"""
    shared = ".shared .align 4 .b8 s[256];"
    options = {"races": 1, "shared_init": 0}
    launch(ptx(body.replace("WAIT", "bar.sync 0;"), shared=shared), "k", 1, 64, [], options=options)
    text = ptx(body.replace("WAIT", ""), shared=shared)
    assert status(text, "k", 1, 64, [], options=options)[0] == "race"


def test_unknown_instructions_are_named(ptx) -> None:
    kind, text = status(ptx("frobnicate.sync.b32 %r1, %r2;"), "k", 1, 32, [])
    assert kind == "unsupported"
    assert "frobnicate.sync.b32" in text and "line 11" in text
    launch(ptx("bra OVER; frobnicate.b32 %r1, %r2; OVER:"), "k", 1, 32, [])


def test_endless_loops_end(ptx) -> None:
    text = ptx("AGAIN: add.u32 %r1, %r1, 1; bra AGAIN;")
    assert status(text, "k", 1, 32, [], options={"max_instructions": 10000})[0] == "limit"


def test_trap(ptx) -> None:
    assert status(ptx("trap;"), "k", 1, 32, [])[0] == "trap"


def test_launches_that_the_device_refuses(ptx) -> None:
    text = ptx("")
    assert status(text, "k", 1, 2000, [])[0] == "invalid-launch"
    assert status(text, "k", 3, 32, [], cluster=2)[0] == "invalid-launch"
    assert status(text, "k", 1, 32, [], shared=300_000)[0] == "invalid-launch"
    assert status(text, "k", 1, 32, [1])[0] == "invalid-launch"


@pytest.mark.parametrize(
    "text",
    ["", ".version 8.0", "}", ".entry k(", "nonsense", "\0\0\0", ".entry k(){ add " + "[" * 9999],
)
def test_what_is_no_ptx(text) -> None:
    try:
        translate(text)
    except FewbitsError as error:
        assert error.code == "ptx-syntax"


def test_cut_and_garbled_ptx_does_not_crash(ptx) -> None:
    text = ptx(
        f"{STORE}st.global.v2.u32 [%rd6], {{%r1, %r2}}; @%p1 bra L; L: mov.u32 %r1, s;", "u64"
    )
    rng = np.random.default_rng(3)
    read = 0
    for _ in range(300):
        letters = list(text[: rng.integers(1, len(text))])
        for _ in range(rng.integers(0, 4)):
            letters[rng.integers(len(letters))] = "{}[]();,.%@:|0a"[rng.integers(15)]
        try:
            translate("".join(letters))
            read += 1
        except FewbitsError as error:
            assert error.code in ("ptx-syntax", "ptx-unsupported")
    assert read < 300


def test_damaged_programs_are_refused(ptx) -> None:
    image = bytearray(translate(ptx(f"{STORE}st.global.u32 [%rd6], 1; bra L; L:", "u64")))
    assert machine.load(bytes(image)) is None
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(2000):
        copy = bytearray(image)
        for _ in range(rng.integers(1, 4)):
            copy[rng.integers(len(copy))] = rng.integers(256)
        refused += machine.load(bytes(copy[: rng.integers(8, len(copy) + 200)])) is not None
    assert refused > 500
