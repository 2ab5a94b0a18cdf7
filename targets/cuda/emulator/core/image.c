/* Loads the binary form. Nothing in it is trusted: every count, slot and jump is checked here once,
 * so that operations need not look again.
 *
 * Little-endian 32-bit words (and bytes padded to words):
 *   magic, version, ptx version, target, strings, variables, kernels
 *   string:   bytes, text
 *   variable: name (string), space, align, size, initial bytes (0: zeros), data,
 *             relocations: offset, variable, addend (pairs of words)
 *   kernel:   name, slots, predicates, entry, shared, local, max threads, block[3], cluster[3],
 *             registers, params (size, offset each), param bytes, constants: slots; each constant
 *             (value low, high, variable or NO_PC, wide); code: instructions, operand words; each
 *             instruction: op | t << 16 | s << 24, guard, flags, line, operands...
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "machine.h"

#define MAGIC 0x31504246u /* "FBP1" */
#define VERSION 1u
#define CONSTANT 0x80000000u

const char *const fb_signatures[] = {
#define FB_SIGNATURE(name, operands) operands,
    FB_OPCODES(FB_SIGNATURE)
#undef FB_SIGNATURE
};
const fb_operation fb_operations[] = {
#define FB_HANDLER(name, operands) fb_op_##name,
    FB_OPCODES(FB_HANDLER)
#undef FB_HANDLER
};

typedef struct {
    const uint8_t *at, *end;
    bool bad;
} reader;

static uint32_t word(reader *r) {
    uint32_t value;
    if ((size_t)(r->end - r->at) < 4) {
        r->bad = true;
        return 0;
    }
    memcpy(&value, r->at, 4);
    r->at += 4;
    return value;
}

static const uint8_t *bytes(reader *r, uint32_t size) {
    uint64_t padded = ((uint64_t)size + 3) & ~UINT64_C(3);
    if ((uint64_t)(r->end - r->at) < padded) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *start = r->at;
    r->at += padded;
    return start;
}

/* A count of things that take at least `each` bytes of what is left, so no allocation is absurd. */
static uint32_t count_of(reader *r, uint32_t each) {
    uint32_t value = word(r);
    if (value > (uint64_t)(r->end - r->at) / each) r->bad = true;
    return r->bad ? 0 : value;
}

static fb_status fail(char *error, size_t size, fb_status status, const char *format, ...) {
    va_list list;
    va_start(list, format);
    if (size) vsnprintf(error, size, format, list);
    va_end(list);
    return status;
}

static void *zeros(size_t count, size_t size) { return calloc(count ? count : 1, size); }

static char *string_of(const fb_program *p, uint32_t index) {
    return index < p->string_count ? p->strings[index] : NULL;
}

static uint32_t type_slots(uint8_t type) {
    return type == T_U64 || type == T_S64 || type == T_F64 ? 2 : 1;
}

/* Checks one operand; false when it points outside. */
static bool check_operand(const fb_kernel *k, const fb_insn *in, char kind, uint32_t ref,
                          bool second_address) {
    bool written = kind >= 'A' && kind <= 'Z';
    uint32_t slots = 1;
    switch (written ? kind - 'A' + 'a' : kind) {
        case 'i': return true;
        case 'j': return ref < k->code_size;
        case 'p': return (ref >> 1) < k->predicates && !(written && (ref & 1));
        case 't': slots = type_slots(in->t); break;
        case 's': slots = type_slots(in->s); break;
        case 'w': slots = 1; break;
        case 'q': slots = 2; break;
        case 'd': slots = in->flags & (written ? (uint32_t)FLAG_WIDE_DATA : FLAG_WIDE_SOURCE) ? 2 : 1; break;
        case 'm':
        case 'n': slots = address_flag(in, second_address) ? 1 : 2; break;
        default: return false;
    }
    uint32_t limit = ref & CONSTANT ? k->constant_slots : k->slots;
    if (written && (ref & CONSTANT)) return false;
    uint32_t slot = ref & ~CONSTANT;
    return slot < limit && slots <= limit - slot;
}

static bool check_instruction(const fb_kernel *k, const fb_insn *in) {
    const char *signature = fb_signatures[in->op];
    uint32_t at = 0;
    if (in->guard != NO_PC && (in->guard >> 1) >= k->predicates) return false;
    if (in->t >= T_COUNT || in->s >= T_COUNT) return false;
    for (; *signature; ++signature) {
        bool star = signature[1] == '*';
        do {
            if (at >= in->count) {
                if (star) break;
                return false;
            }
            char kind = *signature;
            if (!check_operand(k, in, kind, in->o[at++], kind == 'n')) return false;
            if ((kind == 'm' || kind == 'n') && at++ >= in->count) return false;
        } while (star);
        if (star) ++signature;
    }
    return at == in->count;
}

static bool read_code(reader *r, fb_kernel *k, char *error, size_t error_size) {
    k->code_size = count_of(r, 16);
    uint32_t total = count_of(r, 4), used = 0;
    if (r->bad || k->entry >= k->code_size) return false;
    k->code = zeros(k->code_size, sizeof *k->code);
    k->operands = zeros(total, sizeof *k->operands);
    if (!k->code || !k->operands) return false;
    for (uint32_t i = 0; i < k->code_size; ++i) {
        fb_insn *in = &k->code[i];
        uint32_t head = word(r), op = head & 0xFFF;
        in->op = (uint16_t)op;
        in->t = head >> 12 & 31;
        in->s = head >> 17 & 31;
        in->count = (uint16_t)(head >> 22);
        in->guard = word(r);
        in->flags = word(r);
        in->line = word(r);
        if (r->bad || op >= OP_COUNT || in->count > total - used) return false;
        in->o = k->operands + used;
        for (uint32_t j = 0; j < in->count; ++j) k->operands[used++] = word(r);
        in->run = fb_operations[op];
        if (r->bad || !check_instruction(k, in)) {
            fail(error, error_size, FB_INVALID_IMAGE,
                 "kernel %s, PTX line %u: damaged instruction %u (%s)", k->name, in->line, i,
                 fb_operation_name(in->op));
            return false;
        }
    }
    /* Nothing runs off the end. */
    uint16_t last = k->code[k->code_size - 1].op;
    return (last == OP_exit || last == OP_ret || last == OP_trap || last == OP_bra) &&
           k->code[k->code_size - 1].guard == NO_PC && used == total;
}

static bool read_constants(reader *r, fb_program *p, fb_kernel *k) {
    uint32_t count = count_of(r, 16);
    k->constant_slots = 2 * count;
    if (r->bad || !(k->constants = zeros(2 * (size_t)count + 8, SLOT_BYTES))) return false;
    for (uint32_t i = 0; i < count; ++i) {
        uint64_t value = word(r);
        value |= (uint64_t)word(r) << 32;
        uint32_t variable = word(r), wide = word(r);
        if (variable != NO_PC) {
            if (variable >= p->variable_count) return false;
            value += p->variables[variable].address;
        }
        uint8_t *slot = k->constants + (size_t)i * 2 * SLOT_BYTES;
        for (int lane = 0; lane < LANES; ++lane) {
            if (wide) ((uint64_t *)(void *)slot)[lane] = value;
            else ((uint32_t *)(void *)slot)[lane] = (uint32_t)value;
        }
    }
    return !r->bad;
}

static bool read_kernel(reader *r, fb_program *p, fb_kernel *k, char *error, size_t error_size) {
    fb_kernel_attributes *a = &k->attributes;
    k->program = p;
    k->name = string_of(p, word(r));
    k->slots = word(r);
    k->predicates = word(r);
    k->entry = word(r);
    a->name = k->name;
    a->static_shared_bytes = word(r);
    a->local_bytes = word(r);
    a->max_threads = word(r);
    for (int i = 0; i < 3; ++i) a->required_block[i] = word(r);
    for (int i = 0; i < 3; ++i) a->required_cluster[i] = word(r);
    a->registers = word(r);
    a->ptx_version = p->ptx_version;
    a->target = p->target;
    uint32_t params = count_of(r, 8);
    if (r->bad || !k->name || k->slots > 1u << 20 || k->predicates > 1u << 20 ||
        a->local_bytes > 1u << 20 || a->static_shared_bytes > 1u << 24 || params > 4096)
        return false;
    a->param_count = (int32_t)params;
    k->param_sizes = zeros(params, 4);
    k->param_offsets = zeros(params, 4);
    if (!k->param_sizes || !k->param_offsets) return false;
    for (uint32_t i = 0; i < params; ++i) {
        k->param_sizes[i] = word(r);
        k->param_offsets[i] = word(r);
    }
    a->param_sizes = k->param_sizes;
    a->param_offsets = k->param_offsets;
    a->param_bytes = word(r);
    if (a->param_bytes > 1u << 16) return false;
    for (uint32_t i = 0; i < params; ++i)
        if (k->param_sizes[i] > a->param_bytes ||
            k->param_offsets[i] > a->param_bytes - k->param_sizes[i])
            return false;
    if (!a->max_threads || a->max_threads > (uint32_t)p->gpu->limits.max_threads_per_block)
        a->max_threads = (uint32_t)p->gpu->limits.max_threads_per_block;
    return read_constants(r, p, k) && read_code(r, k, error, error_size);
}

static bool read_variables(reader *r, fb_program *p) {
    p->variable_count = count_of(r, 20);
    p->variables = zeros(p->variable_count, sizeof *p->variables);
    p->storage = zeros(p->variable_count, sizeof *p->storage);
    if (!p->variables || !p->storage) return false;
    const uint8_t *relocations = r->at;
    for (int pass = 0; pass < 2; ++pass) {
        r->at = relocations;
        for (uint32_t i = 0; i < p->variable_count; ++i) {
            fb_variable *v = &p->variables[i];
            v->name = string_of(p, word(r));
            v->size = word(r);
            uint32_t given = word(r);
            const uint8_t *data = bytes(r, given);
            uint32_t count = count_of(r, 12);
            if (r->bad || !v->name || given > v->size || v->size > 1u << 30) return false;
            if (!pass) {
                /* Constant banks and globals are at most 256-aligned. */
                p->storage[i] = zeros(v->size + 512ull, 1);
                if (!p->storage[i]) return false;
                v->address = ((uint64_t)(uintptr_t)p->storage[i] + 255) & ~UINT64_C(255);
                memcpy((void *)(uintptr_t)v->address, data, given);
                uint64_t size = v->size ? v->size : 1;
                if (fb_gpu_register(p->gpu, v->address, (void *)(uintptr_t)v->address, size,
                                    v->name))
                    return false;
            }
            for (uint32_t j = 0; j < count; ++j) {
                uint32_t offset = word(r), other = word(r), addend = word(r);
                if (r->bad || other >= p->variable_count || v->size < 8 || offset > v->size - 8)
                    return false;
                uint64_t value = p->variables[other].address + addend;
                if (pass) memcpy((uint8_t *)(uintptr_t)v->address + offset, &value, 8);
            }
        }
    }
    return true;
}

fb_status fb_program_load(fb_gpu *gpu, const void *image, size_t image_size, fb_program **program,
                          char *error, size_t error_size) {
    reader r = {image, (const uint8_t *)image + image_size, false};
    *program = NULL;
    if (error_size) *error = 0;
    if (word(&r) != MAGIC || word(&r) != VERSION)
        return fail(error, error_size, FB_INVALID_IMAGE, "not a program of this emulator");
    fb_program *p = zeros(1, sizeof *p);
    if (!p) return fail(error, error_size, FB_NO_MEMORY, "out of memory");
    p->gpu = gpu;
    p->ptx_version = (int32_t)word(&r);
    p->target = (int32_t)word(&r);
    p->string_count = count_of(&r, 4);
    p->strings = zeros(p->string_count, sizeof *p->strings);
    bool good = p->strings != NULL;
    for (uint32_t i = 0; good && i < p->string_count; ++i) {
        uint32_t size = word(&r);
        const uint8_t *text = bytes(&r, size);
        good = !r.bad && (p->strings[i] = zeros(size + 1ull, 1));
        if (good) memcpy(p->strings[i], text, size);
    }
    good = good && read_variables(&r, p);
    if (good) {
        p->kernel_count = count_of(&r, 16);
        good = (p->kernels = zeros(p->kernel_count, sizeof *p->kernels)) != NULL;
    }
    for (uint32_t i = 0; good && i < p->kernel_count; ++i)
        good = read_kernel(&r, p, &p->kernels[i], error, error_size);
    if (good && !r.bad && r.at == r.end) {
        *program = p;
        return FB_OK;
    }
    fb_program_unload(p);
    if (error_size && !*error) fail(error, error_size, FB_INVALID_IMAGE, "damaged program");
    return FB_INVALID_IMAGE;
}

void fb_program_unload(fb_program *p) {
    if (!p) return;
    for (uint32_t i = 0; p->kernels && i < p->kernel_count; ++i) {
        fb_kernel *k = &p->kernels[i];
        free(k->constants);
        free(k->code);
        free(k->operands);
        free(k->param_sizes);
        free(k->param_offsets);
    }
    for (uint32_t i = 0; p->storage && p->variables && i < p->variable_count; ++i) {
        if (p->variables[i].address) fb_gpu_unregister(p->gpu, p->variables[i].address);
        free(p->storage[i]);
    }
    for (uint32_t i = 0; p->strings && i < p->string_count; ++i) free(p->strings[i]);
    free(p->kernels);
    free(p->variables);
    free(p->storage);
    free(p->strings);
    free(p);
}

const fb_kernel *fb_program_kernel(const fb_program *p, const char *name) {
    for (uint32_t i = 0; i < p->kernel_count; ++i)
        if (!strcmp(p->kernels[i].name, name)) return &p->kernels[i];
    return NULL;
}

int32_t fb_program_kernel_count(const fb_program *p) { return (int32_t)p->kernel_count; }

const fb_kernel *fb_program_kernel_at(const fb_program *p, int32_t index) {
    return index >= 0 && (uint32_t)index < p->kernel_count ? &p->kernels[index] : NULL;
}

int32_t fb_program_global(const fb_program *p, const char *name, uint64_t *address,
                          uint64_t *size) {
    for (uint32_t i = 0; i < p->variable_count; ++i) {
        if (strcmp(p->variables[i].name, name)) continue;
        *address = p->variables[i].address;
        *size = p->variables[i].size;
        return 1;
    }
    return 0;
}

void fb_kernel_get_attributes(const fb_kernel *kernel, fb_kernel_attributes *attributes) {
    *attributes = kernel->attributes;
}
