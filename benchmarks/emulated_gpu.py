"""How fast the emulated GPU interprets PTX: lane instructions per second of one core.

python -m benchmarks.emulated_gpu [--rounds 2000]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from fewbits.targets.cuda.emulator import launch

_KERNEL = """.version 8.5
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 out, .param .u32 rounds)
{
.reg .pred %p<2>; .reg .b32 %r<8>; .reg .f32 %f<8>; .reg .b64 %rd<4>;
.shared .align 4 .b8 s[1024];
ld.param.u64 %rd0, [out]; ld.param.u32 %r0, [rounds];
mov.u32 %r1, %tid.x; mul.wide.u32 %rd1, %r1, 4; add.u64 %rd0, %rd0, %rd1;
shl.b32 %r2, %r1, 2; mov.u32 %r3, s; add.u32 %r3, %r3, %r2;
cvt.rn.f32.u32 %f0, %r1; mov.f32 %f1, 0f3F000000;
AGAIN:
st.shared.f32 [%r3], %f0; bar.sync 0; ld.shared.f32 %f2, [%r3];
fma.rn.f32 %f0, %f2, %f1, %f1; mul.f32 %f3, %f0, %f1; add.f32 %f0, %f0, %f3;
max.f32 %f0, %f0, %f1; xor.b32 %r4, %r4, %r2; add.u32 %r4, %r4, 3;
sub.u32 %r0, %r0, 1; setp.ne.u32 %p0, %r0, 0; @%p0 bra AGAIN;
st.global.f32 [%rd0], %f0;
ret;
}
"""


def main() -> None:
    """Prints the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000, help="of the kernel's loop")
    rounds = parser.parse_args().rounds
    out = np.zeros(256, "f4")
    launch(_KERNEL, "k", 1, 256, [out, 1])
    start = time.perf_counter()
    counts = launch(_KERNEL, "k", 8, 256, [out, rounds])
    seconds = time.perf_counter() - start
    rate = counts.lane_instructions / seconds / 1e6
    print(f"{rate:.0f} million lane instructions per second ({seconds:.2f} s)")


if __name__ == "__main__":
    main()
