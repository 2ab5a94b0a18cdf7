"""The emulator: right values, exact counts, and errors where the real core would fail."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.targets.mcu.emulator import Emulator
from fewbits.targets.mcu.target import TARGETS, get_target
from fewbits.targets.mcu.toolchain import build

_FOLDER = tempfile.TemporaryDirectory()
BARE = [name for name, target in TARGETS.items() if target.family != "host"]
ARM = [name for name in BARE if name != "rv32imc"]

FUNCTIONS = """
#include <stdint.h>
int32_t dot(const int8_t *a, const int8_t *b, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}
int32_t high(int32_t a, int32_t b) { return (int32_t)(((int64_t)a * b) >> 32); }
int32_t ten(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j)
{
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j;
}
int32_t scaled(int32_t v) { return (int32_t)((float)v * 1.5f); }
static int32_t calls = 40;
int32_t count(void) { return ++calls; }
uint32_t load(const void *p) { return *(const volatile uint32_t *)p; }
void store(volatile uint8_t *p, int v) { *p = (uint8_t)v; }
int32_t deep(int n) { volatile int32_t local[8] = {0}; local[n & 7] = n;
                      return n ? deep(n - 1) + local[n & 7] : 0; }
void endless(void) { for (;;) __asm volatile(""); }
int32_t jump(int32_t (*to)(void)) { return to() + 1; }
"""

LAYERS = """
#include <stdint.h>
#define LAYER static __attribute__((noinline))
LAYER int32_t helper(int32_t n)
{
#pragma clang loop unroll(disable)
    for (int32_t i = 0; i < n; ++i) __asm volatile("");
    return n;
}
LAYER int32_t fb_layer_0(int32_t n) { return helper(n) + 1; }
LAYER int32_t fb_layer_1(int32_t n) { return helper(10 * n) + helper(n); }
LAYER void fb_layer_2(volatile uint8_t *p) { p[100] = 1; }
int32_t run(int32_t n, volatile uint8_t *p)
{
    int32_t result = fb_layer_0(n);
    result += fb_layer_1(n);
    if (p) fb_layer_2(p);
    return result;
}
"""

# Hand-counted. Every line says how often it is executed for an argument of n >= 1.
ARM_LOOP = r"""
__asm(".syntax unified\n.thumb\n.text\n.global counted\n.type counted, %function\ncounted:\n"
      " movs r1, #0\n"          /* 1 */
      "1: adds r1, r1, #3\n"    /* n */
      " subs r0, r0, #1\n"      /* n */
      " bne 1b\n"               /* n */
      " movs r0, r1\n"          /* 1 */
      " bx lr\n"                /* 1 */
      ".size counted, . - counted\n");
"""
IT_LOOP = r"""
__asm(".syntax unified\n.thumb\n.text\n.global counted\n.type counted, %function\ncounted:\n"
      " push {r4, lr}\n"        /* 1 */
      " sub sp, sp, #8\n"       /* 1 */
      " mov.w r1, #0\n"         /* 1, wide */
      "1: tst r0, #1\n"         /* n, wide */
      " itte ne\n"              /* n */
      " strne r0, [sp]\n"       /* n, done or skipped */
      " addne r1, r1, #3\n"     /* n, done or skipped */
      " addeq.w r1, r1, #0x100\n" /* n, done or skipped, wide */
      " subs r0, r0, #1\n"      /* n */
      " it eq\n"                /* n */
      " beq 2f\n"               /* n */
      " b 1b\n"                 /* n - 1 */
      "2: mov r0, r1\n"         /* 1 */
      " add sp, sp, #8\n"       /* 1 */
      " pop {r4, pc}\n"         /* 1 */
      ".size counted, . - counted\n");
"""
RISCV_LOOP = r"""
__asm(".text\n.global counted\n.type counted, @function\ncounted:\n"
      " li a1, 0\n"             /* 1, compressed */
      "1: addi a1, a1, 3\n"     /* n, compressed */
      " xori a2, a1, 5\n"       /* n, wide */
      " addi a0, a0, -1\n"      /* n, compressed */
      " bnez a0, 1b\n"          /* n, compressed */
      " mv a0, a1\n"            /* 1, compressed */
      " ret\n"                  /* 1, compressed */
      ".size counted, . - counted\n");
"""
# Unaligned accesses of every kind.
ARM_ACCESSES = r"""
#define FUNCTION(name, body) \
    __asm(".syntax unified\n.thumb\n.text\n.global " name "\n.type " name ", %function\n" \
          name ":\n push {r4, lr}\n" body "\n pop {r4, pc}\n.size " name ", . - " name "\n");
FUNCTION("word", "ldr r1, [r0]")
FUNCTION("half", "ldrh r1, [r0]")
FUNCTION("store", "str r1, [r0]")
FUNCTION("multiple", "ldmia r0!, {r1, r2}")
#if __ARM_ARCH >= 7
FUNCTION("pair", "ldrd r1, r2, [r0]")
FUNCTION("store_pair", "strd r1, r2, [r0]")
#endif
#if defined(__ARM_FP)
FUNCTION("real", "vldr s0, [r0]")
#endif
"""
RISCV_ACCESSES = r"""
#include <stdint.h>
#define READ(name, type) \
    void name(void *p) { type v; __asm volatile(INSTRUCTION " %0, 0(%1)" : "=r"(v) : "r"(p)); }
#define INSTRUCTION "lw"
READ(word, int32_t)
#undef INSTRUCTION
#define INSTRUCTION "lh"
READ(half, int32_t)
"""


@functools.lru_cache
def built(text: str, target: str) -> Path:
    folder = Path(tempfile.mkdtemp(dir=_FOLDER.name))
    (folder / "code.c").write_text(text)
    return build([folder / "code.c"], get_target(target), folder / "code.elf").elf


def machine(text: str, target: str, **options) -> Emulator:
    return Emulator(built(text, target), get_target(target), workspace=1 << 20, **options)


@pytest.mark.parametrize("target", BARE)
def test_functions_compute(target):
    core = machine(FUNCTIONS, target)
    a = np.arange(-50, 50, dtype=np.int8)
    b = np.arange(100, dtype=np.int8)[::-1].copy()
    result = core.call("dot", core.place(a), core.place(b), 100)
    assert result.value == int(a.astype(int) @ b.astype(int))
    assert core.call("high", -5, 1 << 30).value == -2
    assert core.call("ten", *range(1, 9), -9, 10).value == sum(i * i for i in range(1, 11)) - 162
    assert core.call("scaled", -5).value == -7
    assert [core.call("count").value for _ in range(3)] == [41, 42, 43]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("n", [1, 2, 1000])
@pytest.mark.parametrize("target", BARE)
def test_counts_are_exact(target, n, strict):
    text = RISCV_LOOP if target == "rv32imc" else ARM_LOOP
    core = machine(text, target, check_alignment=strict, guard=strict)
    per_turn = 4 if target == "rv32imc" else 3
    for _ in range(2):
        result = core.call("counted", n)
        assert result.value == 3 * n
        assert result.instructions == 3 + per_turn * n
        assert result.per_function == {"counted": result.instructions}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("target", [name for name in ARM if name != "cortex-m0plus"])
def test_conditional_instructions_count_once(target, strict):
    core = machine(IT_LOOP, target, check_alignment=strict, guard=strict)
    for n in (1, 2, 7, 1000):
        result = core.call("counted", n)
        assert result.value == 3 * ((n + 1) // 2) + 256 * (n // 2)
        assert result.instructions == 6 + 8 * n + (n - 1)
        assert result.stack_bytes == 16


@pytest.mark.parametrize("target", BARE)
def test_helpers_count_for_the_layer_that_calls_them(target):
    core = machine(LAYERS, target)
    short = core.call("run", 5, 0)
    result = core.call("run", 50, 0)
    assert result.value == 50 + 1 + 500 + 50
    assert list(result.per_region) == ["fb_layer_0", "fb_layer_1", "fb_layer_2"]
    assert result.per_region["fb_layer_2"] == 0
    turn, rest = divmod(result.per_region["fb_layer_0"] - short.per_region["fb_layer_0"], 45)
    assert rest == 0 and turn >= 2
    both = result.per_region["fb_layer_1"] - short.per_region["fb_layer_1"]
    assert both == 11 * 45 * turn
    assert sum(result.per_function.values()) == result.instructions
    outside = result.instructions - sum(result.per_region.values())
    assert outside == result.per_function["run"]
    assert result.per_function["helper"] > 500 * turn


def test_regions_can_be_chosen():
    core = machine(LAYERS, "cortex-m4", regions=["helper"])
    result = core.call("run", 50, 0)
    # The layers are no regions here; what they do after a helper returns counts for the helper.
    assert list(result.per_region) == ["helper"]
    assert result.per_region["helper"] >= result.per_function["helper"]
    with pytest.raises(FewbitsError, match="no symbol 'helpr'"):
        machine(LAYERS, "cortex-m4", regions=["helpr"])


@pytest.mark.parametrize("target", BARE)
def test_memory_outside_what_was_handed_over_is_refused(target):
    core = machine(LAYERS, target, guard=True)
    fits, small = core.allocate(101), core.allocate(100)
    core.call("run", 1, fits)
    with pytest.raises(FewbitsError) as caught:
        core.call("run", 1, small)
    assert caught.value.code == "emulator-crash"
    assert f"write of 1 bytes at {small + 100:#010x}" in caught.value.message
    assert "fb_layer_2+" in str(caught.value.where)
    core.permit(small + 100, 1)
    core.call("run", 1, small)
    core.release()
    with pytest.raises(FewbitsError, match="not handed"):
        core.call("run", 1, fits)


def test_read_only_memory_is_not_written():
    core = machine(FUNCTIONS, "cortex-m4", guard=True)
    constant = core.place(b"abcd", writable=False)
    assert core.call("load", constant).value == int.from_bytes(b"abcd", "little")
    with pytest.raises(FewbitsError, match="write of 1 bytes"):
        core.call("store", constant, 1)
    lax = machine(FUNCTIONS, "cortex-m4")
    with pytest.raises(FewbitsError, match="read-only memory"):
        lax.call("store", lax.symbol("dot"), 1)


@pytest.mark.parametrize("target", BARE)
def test_unaligned_accesses_fail_where_they_do_on_the_core(target):
    strict = target in ("cortex-m0plus", "rv32imc")
    text = RISCV_ACCESSES if target == "rv32imc" else ARM_ACCESSES
    core = machine(text, target, check_alignment=True)
    lax = machine(text, target)
    address = core.place(bytes(64))
    lax.place(bytes(64))
    single = {"word", "half", "store"} & core.symbols.keys()
    several = {"multiple", "pair", "store_pair", "real"} & core.symbols.keys()
    assert len(single) + len(several) == {
        "cortex-m0plus": 4, "cortex-m3": 6, "rv32imc": 2,
    }.get(target, 7)  # fmt: skip
    for name in single | several:
        core.call(name, address)
        lax.call(name, address + 1)
        if name in several or strict:
            with pytest.raises(FewbitsError, match="unaligned access") as caught:
                core.call(name, address + 1)
            assert name in str(caught.value.where)
        else:
            core.call(name, address + 1)


@pytest.mark.parametrize("target", BARE)
def test_crashes_say_where(target):
    core = machine(FUNCTIONS, target)
    with pytest.raises(FewbitsError, match="read of 4 bytes at 0x00000000") as caught:
        core.call("load", 0)
    assert caught.value.code == "emulator-crash"
    assert str(caught.value.where).startswith("load+")
    with pytest.raises(FewbitsError, match=r"jump to|instruction fetch"):
        core.call("jump", core.place(bytes(16)) | 1)
    with pytest.raises(FewbitsError) as caught:
        core.call("endless", max_instructions=10_000)
    assert caught.value.code == "emulator-limit"
    assert "endless+0x0" in str(caught.value.where)
    assert core.call("high", 1 << 30, 8).value == 2  # and the machine is still usable


def test_undefined_instructions_crash():
    bad = '__asm(".text\\n.thumb\\n.global bad\\n.type bad, %function\\nbad: {}\\n bx lr\\n");'
    core = machine(bad.format("udf #0"), "cortex-m4")
    with pytest.raises(FewbitsError, match="crashed") as caught:
        core.call("bad")
    assert "bad+0x0" in str(caught.value.where)
    # Armv6-M has no MOVW: a 32-bit instruction of Armv7-M.
    for target, fails in (("cortex-m3", False), ("cortex-m0plus", True)):
        core = machine(bad.format(".short 0xf240\\n .short 0x0001"), target)
        if fails:
            with pytest.raises(FewbitsError, match="crashed"):
                core.call("bad")
        else:
            core.call("bad")


@pytest.mark.parametrize("target", BARE)
def test_the_stack_is_measured(target):
    core = machine(FUNCTIONS, target)
    shallow, deeper = core.call("deep", 1).stack_bytes, core.call("deep", 11).stack_bytes
    frame, rest = divmod(deeper - shallow, 10)
    assert rest == 0 and 32 <= frame <= 96
    assert core.call("deep", 1).stack_bytes == shallow
    with pytest.raises(FewbitsError, match="not handed"):
        machine(FUNCTIONS, target, guard=True).call("deep", 10_000)


def test_misuse_is_explained():
    core = machine(FUNCTIONS, "cortex-m4")
    with pytest.raises(FewbitsError) as caught:
        core.call("dott")
    assert caught.value.code == "unknown-symbol" and "'dot'" in str(caught.value.hint)
    with pytest.raises(FewbitsError) as caught:
        core.write(0x7000_0000, b"x")
    assert caught.value.code == "bad-address"
    with pytest.raises(FewbitsError) as caught:
        core.allocate(1 << 21)
    assert caught.value.code == "out-of-memory"
    with pytest.raises(FewbitsError) as caught:
        Emulator(built(FUNCTIONS, "cortex-m4"), get_target("c"))
    assert caught.value.code == "not-emulated"
