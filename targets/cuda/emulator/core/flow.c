/* Branches, calls, and what stops or pauses a thread. */
#include <stdio.h>

#include "machine.h"

OPERATION(nop) {
    (void)w, (void)in, (void)mask;
    return FB_NEXT;
}

OPERATION(prefetch) {
    (void)w, (void)in, (void)mask;
    return FB_NEXT;
}

OPERATION(unsupported) {
    const fb_program *p = w->run->kernel->program;
    const char *text = in->o[0] < p->string_count ? p->strings[in->o[0]] : "?";
    return fb_fail(w, in, first_lane(mask), FB_UNSUPPORTED, "the emulator does not know `%s`", text);
}

static fb_next jump(fb_warp *w, uint32_t mask, uint32_t target) {
    if (mask == w->active) {
        w->pc = target;
        return FB_GO;
    }
    EACH(i, w->active) w->pcs[i] = mask >> i & 1 ? target : w->pc + 1;
    return FB_SPLIT;
}

OPERATION(bra) { return jump(w, mask, in->o[0]); }

OPERATION(brx) {
    const uint32_t *index = r32(w, in->o[0]);
    EACH(i, w->active) {
        w->pcs[i] = w->pc + 1;
        if (!(mask >> i & 1)) continue;
        if (index[i] >= in->count - 1u)
            return fb_fail(w, in, (int)i, FB_MISUSE, "index %u of a table of %u branches", index[i],
                           in->count - 1u);
        w->pcs[i] = in->o[1 + index[i]];
    }
    return FB_SPLIT;
}

OPERATION(call) {
    uint32_t *back = r32(w, in->o[1]);
    EACH(i, mask) back[i] = w->pc + 1;
    return jump(w, mask, in->o[0]);
}

OPERATION(ret) {
    const uint32_t *back = r32(w, in->o[0]);
    EACH(i, w->active) {
        w->pcs[i] = mask >> i & 1 ? back[i] : w->pc + 1;
        if (w->pcs[i] >= w->run->kernel->code_size)
            return fb_fail(w, in, (int)i, FB_MISUSE, "return to nowhere");
    }
    return FB_SPLIT;
}

OPERATION(exit) {
    (void)in;
    EACH(i, w->active) w->pcs[i] = w->pc + 1;
    w->live &= ~mask;
    fb_release_barriers(w->block);
    return FB_SPLIT;
}

OPERATION(trap) {
    return fb_fail(w, in, first_lane(mask), FB_TRAP, "the kernel executed trap");
}

OPERATION(pause) {
    (void)w, (void)in, (void)mask;
    return FB_PAUSE;
}

/* A text in global memory, for messages. */
static const char *text_at(fb_warp *w, uint64_t address, char *buffer, size_t size) {
    const fb_allocation *a = fb_find(w->run->gpu, address);
    size_t i = 0;
    for (; a && i + 1 < size && address + i < a->start + a->size; ++i)
        if (!(buffer[i] = (char)a->host[address + i - a->start])) break;
    buffer[i] = 0;
    return buffer;
}

/* One conversion of printf with its argument; advances *offset in the argument buffer. */
static void print_one(fb_warp *w, const fb_insn *in, int lane, const char *spec, uint64_t list,
                      uint32_t *offset) {
    char kind = spec[strlen(spec) - 1], text[256];
    bool wide = strstr(spec, "l") || strchr("eEfFgGaAsp", kind);
    uint32_t size = wide ? 8 : 4;
    *offset = (*offset + size - 1) & ~(size - 1);
    const uint8_t *at = fb_access(w, in, lane, SPACE_GENERIC, list + *offset, size, false);
    uint64_t value = 0;
    double real;
    if (!at) return;
    memcpy(&value, at, size);
    memcpy(&real, &value, 8);
    *offset += size;
    if (kind == 's') printf("%s", text_at(w, value, text, sizeof text));
    else if (strchr("eEfFgGaA", kind)) printf("%g", real);
    else if (kind == 'd' || kind == 'i')
        printf("%lld", (long long)(wide ? (int64_t)value : (int32_t)(uint32_t)value));
    else if (kind == 'c') putchar((int)value);
    else if (kind == 'x' || kind == 'X' || kind == 'p') printf("%llx", (unsigned long long)value);
    else printf("%llu", (unsigned long long)value);
}

static void print(fb_warp *w, const fb_insn *in, int lane, uint64_t format, uint64_t list) {
    char text[1024], spec[32];
    uint32_t offset = 0;
    text_at(w, format, text, sizeof text);
    for (const char *c = text; *c; ++c) {
        if (*c != '%' || c[1] == '%') {
            putchar(*c);
            if (*c == '%') ++c;
            continue;
        }
        size_t n = strspn(c + 1, "0123456789.+- #lhzjt") + 2;
        if (n >= sizeof spec || !c[n - 1]) return;
        memcpy(spec, c, n);
        spec[n] = 0;
        print_one(w, in, lane, spec, list, &offset);
        c += n - 1;
    }
    fflush(stdout);
}

/* Functions that CUDA's run time brings: o[0] which, o[1] and o[2] where arguments and result
 * stand in local memory. */
OPERATION(call_builtin) {
    uint32_t bytes = w->run->local_bytes;
    EACH(i, mask) {
        uint8_t *local = w->local + (size_t)i * bytes;
        if (in->o[1] > bytes || bytes - in->o[1] < 40 || in->o[2] > bytes || bytes - in->o[2] < 4)
            return fb_fail(w, in, (int)i, FB_MISUSE, "arguments outside of the frame");
        uint64_t a[4];
        memcpy(a, local + in->o[1], sizeof a);
        if (in->o[0] == 0) {
            int32_t printed = 0;
            print(w, in, (int)i, a[0], a[1]);
            memcpy(local + in->o[2], &printed, 4);
        } else {
            char what[200], file[200];
            return fb_fail(w, in, (int)i, FB_TRAP, "assertion failed: %s (%s:%u)",
                           text_at(w, a[0], what, sizeof what), text_at(w, a[1], file, sizeof file),
                           (uint32_t)a[2]);
        }
    }
    return FB_NEXT;
}
