/*
 * What the emulator calls for every block of instructions and, on request, for every memory access.
 *
 * It counts, attributes and checks. In Python the same work would take twenty times as long as the
 * emulation. `tracer.py` compiles this file for the host and mirrors the structures below.
 */
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t start, end; /* [start, end) */
    uint32_t writable, reserved;
} fb_range;

typedef struct {
    /* Code: its range, its bytes, and arrays with one element per halfword of it. */
    uint64_t code_start, code_end;
    const uint8_t *code;
    uint64_t *executed;   /* instructions executed in blocks that start here */
    uint32_t *block_size; /* bytes of the block that starts here, when last seen */
    uint32_t *block_count;/* its instructions */
    const uint16_t *owner;/* 0: whoever called; otherwise the region this code belongs to */
    uint64_t *region;     /* instructions by region */
    uint64_t total, limit, trap;
    int (*stop)(void *engine);
    int (*read_register)(void *engine, int name, void *value);
    int (*write_register)(void *engine, int name, const void *value);
    /* Memory checks. */
    const fb_range *ranges;
    uint64_t ranges_count;
    uint64_t bad_address, bad_size, bad_pc;
    uint32_t current;     /* region being executed */
    uint32_t riscv;       /* instruction encoding */
    uint32_t alignment;   /* 0: unchecked, 1: multiword accesses, 2: all accesses */
    uint32_t problem;     /* see fb_problem */
    int32_t pc;           /* the emulator's name of the program counter */
    int32_t epsr;         /* and of the execution status of an Arm core */
    uint32_t armv6m;      /* refuse instructions that Armv6-M lacks */
} fb_tracer;

enum fb_problem {
    FB_NONE,
    FB_LIMIT,
    FB_OUTSIDE_CODE,
    FB_UNALIGNED,
    FB_GUARD_READ,
    FB_GUARD_WRITE,
    FB_UNDEFINED
};

static uint32_t halfword(const uint8_t *code)
{
    return (uint32_t)code[0] | (uint32_t)code[1] << 8;
}

/* Whether Armv6-M has a Thumb instruction; unicorn's Cortex-M0 executes those of Armv7-M too. */
static int in_armv6m(uint32_t first, uint32_t second, int wide)
{
    if (!wide) {
        int compare_and_branch = (first & 0xF500) == 0xB100;
        int if_then = (first & 0xFF00) == 0xBF00 && (first & 0xF) != 0;
        return !compare_and_branch && !if_then;
    }
    return ((first & 0xF800) == 0xF000 && (second & 0xD000) == 0xD000) /* BL */
        || (first & 0xFFE0) == 0xF380                                  /* MSR */
        || (first & 0xFFE0) == 0xF3E0                                  /* MRS */
        || (first & 0xFFF0) == 0xF3B0;                                 /* DMB, DSB, ISB */
}

/* The number of instructions in a block, or 0 when the core lacks one of them. */
static uint32_t instructions(const fb_tracer *tracer, const uint8_t *code, uint32_t size)
{
    uint32_t count = 0;
    uint32_t at = 0;
    while (at < size) {
        uint32_t half = halfword(code + at);
        int wide = tracer->riscv ? (half & 3) == 3 : (half >> 11) >= 0x1D;
        if (tracer->armv6m && !in_armv6m(half, wide ? halfword(code + at + 2) : 0, wide)) {
            return 0;
        }
        at += wide ? 4 : 2;
        ++count;
    }
    return count;
}

/* Keeps the first problem and ends the run. */
static void problem(fb_tracer *tracer, void *engine, uint32_t kind, uint64_t address, uint64_t size)
{
    if (tracer->problem == FB_NONE) {
        uint32_t pc = 0;
        tracer->read_register(engine, tracer->pc, &pc);
        tracer->problem = kind;
        tracer->bad_address = address;
        tracer->bad_size = size;
        tracer->bad_pc = pc;
    }
    tracer->stop(engine);
}

/*
 * Whether the Thumb instruction being executed needs word alignment on every Cortex-M: LDM, STM,
 * LDRD, STRD, LDREX and the floating-point unit's loads and stores.
 */
static int needs_words(const fb_tracer *tracer, void *engine)
{
    uint32_t pc = 0;
    tracer->read_register(engine, tracer->pc, &pc);
    if (pc < tracer->code_start || pc + 2 > tracer->code_end) {
        return 0;
    }
    const uint8_t *code = tracer->code + (pc - tracer->code_start);
    uint32_t half = halfword(code);
    return (half & 0xF000) == 0xC000 || (half & 0xFE00) == 0xE800 || (half & 0xFE00) == 0xEC00;
}

/* Before a block is executed. */
void fb_on_block(void *engine, uint64_t address, uint32_t size, void *user)
{
    fb_tracer *tracer = user;
    if (address == tracer->trap) {
        return;
    }
    if (address < tracer->code_start || address + size > tracer->code_end) {
        problem(tracer, engine, FB_OUTSIDE_CODE, address, size);
        return;
    }
    uint64_t index = (address - tracer->code_start) >> 1;
    if (tracer->block_size[index] != size) {
        tracer->block_size[index] = size;
        tracer->block_count[index] =
            instructions(tracer, tracer->code + (address - tracer->code_start), size);
    }
    uint32_t count = tracer->block_count[index];
    if (count == 0) {
        problem(tracer, engine, FB_UNDEFINED, address, size);
        return;
    }
    if (tracer->owner[index]) {
        tracer->current = tracer->owner[index];
    }
    tracer->region[tracer->current] += count;
    tracer->executed[index] += count;
    tracer->total += count;
    if (tracer->total > tracer->limit) {
        problem(tracer, engine, FB_LIMIT, address, size);
    }
}

/* Before a memory access; type 16 is a read and 17 a write. */
void fb_on_access(void *engine, int type, uint64_t address, int size, int64_t value, void *user)
{
    fb_tracer *tracer = user;
    uint64_t bytes = (uint64_t)size;
    (void)value;
    if (!tracer->riscv) {
        /*
         * To know the program counter here, unicorn 2 restores the state of the core before the
         * instruction, and with it the IT bits of a conditional access, which translated code
         * expects to be zero. They would make the next block conditional. Only the Thumb bit stays.
         */
        uint32_t thumb = 1u << 24;
        tracer->write_register(engine, tracer->epsr, &thumb);
    }
    if (tracer->alignment != 0 && (address & (bytes - 1)) != 0
        && (tracer->alignment == 2 || ((address & 3) != 0 && needs_words(tracer, engine)))) {
        problem(tracer, engine, FB_UNALIGNED, address, bytes);
        return;
    }
    for (uint64_t i = 0; i < tracer->ranges_count; ++i) {
        const fb_range *range = &tracer->ranges[i];
        if (address >= range->start && address + bytes <= range->end) {
            if (type == 17 && !range->writable) {
                break;
            }
            return;
        }
    }
    if (tracer->ranges_count) {
        problem(tracer, engine, type == 17 ? FB_GUARD_WRITE : FB_GUARD_READ, address, bytes);
    }
}
