/* The text of errors: what, where in the PTX, and which thread. */
#include <stdarg.h>
#include <stdio.h>

#include "machine.h"

static const char *const names[] = {
#define FB_NAME(name, operands) #name,
    FB_OPCODES(FB_NAME)
#undef FB_NAME
};

const char *fb_operation_name(uint16_t op) { return op < OP_COUNT ? names[op] : "?"; }

fb_next fb_fail(fb_warp *w, const fb_insn *in, int lane, fb_status status, const char *format,
                ...) {
    fb_run *run = w->run;
    if (run->status) return FB_STOP;
    run->status = status;
    if (!run->error_size) return FB_STOP;
    const fb_block *b = w->block;
    uint32_t t = w->index * LANES + (lane < 0 ? 0 : (uint32_t)lane);
    int used = snprintf(run->error, run->error_size,
                        "kernel %s, PTX line %u (%s), block (%u, %u, %u), %s (%u, %u, %u): ",
                        run->kernel->name, in ? in->line : 0, in ? fb_operation_name(in->op) : "-",
                        b->ctaid[0], b->ctaid[1], b->ctaid[2],
                        lane < 0 ? "warp of thread" : "thread", t % run->block[0],
                        t / run->block[0] % run->block[1], t / run->block[0] / run->block[1]);
    if (used >= 0 && (size_t)used < run->error_size) {
        va_list list;
        va_start(list, format);
        vsnprintf(run->error + used, run->error_size - (size_t)used, format, list);
        va_end(list);
    }
    return FB_STOP;
}
