/* mbarrier objects: sections "Parallel Synchronization and Communication Instructions: mbarrier".
 *
 * The 64 bits are this emulator's own (the manual calls them opaque):
 *   0-19 pending arrivals, 20-39 expected arrivals, 40-60 tx-count (two's complement), 61 parity
 *   of the current phase, 62-63 the mark of a live object, which neither zeros nor common fill
 *   patterns have. A token is the object before the arrival. */
#include "internal.h"

#include <string.h>

enum { COUNT_MAX = (1 << 20) - 1, MARK = 1 };

typedef struct {
    int64_t pending, expected, transactions;
    uint32_t parity;
} barrier;

static uint64_t encode(const barrier *b) {
    return (uint64_t)b->pending | (uint64_t)b->expected << 20 |
           ((uint64_t)b->transactions & 0x1fffff) << 40 | (uint64_t)b->parity << 61 |
           (uint64_t)MARK << 62;
}

static bool decode(uint64_t bits, barrier *b) {
    b->pending = (int64_t)(bits & COUNT_MAX);
    b->expected = (int64_t)(bits >> 20 & COUNT_MAX);
    b->transactions = (int64_t)((bits >> 40 & 0x1fffff) ^ 0x100000) - 0x100000;
    b->parity = (uint32_t)(bits >> 61 & 1);
    return bits >> 62 == MARK;
}

static fb_error load(const fb_shared *shared, uint32_t address, barrier *b, const char *what) {
    fb_error error = fbt_check_shared(shared, address, 8, 8, what);
    if (error) return error;
    uint64_t bits;
    memcpy(&bits, shared->bytes + address, sizeof bits);
    if (!decode(bits, b)) {
        return fbt_fail("%s: no initialised mbarrier at shared address 0x%x", what, address);
    }
    return NULL;
}

static void store(fb_shared *shared, uint32_t address, const barrier *b) {
    uint64_t bits = encode(b);
    memcpy(shared->bytes + address, &bits, sizeof bits);
}

/* Section "Phase Completion of the mbarrier object". */
static void complete_if_done(barrier *b) {
    if (b->pending == 0 && b->transactions == 0) {
        b->parity ^= 1;
        b->pending = b->expected;
    }
}

static fb_error add_transactions(barrier *b, int64_t bytes, uint32_t address, const char *what) {
    b->transactions += bytes;
    if (b->transactions > COUNT_MAX || b->transactions < -COUNT_MAX) {
        return fbt_fail("%s: tx-count %lld of the mbarrier at 0x%x is out of range", what,
                       (long long)b->transactions, address);
    }
    return NULL;
}

static fb_error check_count(uint32_t count, const char *what) {
    if (count < 1 || count > COUNT_MAX) {
        return fbt_fail("%s: count %u is not in 1 to %d", what, count, COUNT_MAX);
    }
    return NULL;
}

static fb_error arrive(barrier *b, uint32_t count, bool no_complete, uint32_t address,
                       const char *what) {
    fb_error error = check_count(count, what);
    if (error) return error;
    if (count > b->pending) {
        return fbt_fail("%s: %u arrivals at the mbarrier at 0x%x, which waits for %lld only", what,
                       count, address, (long long)b->pending);
    }
    b->pending -= count;
    if (no_complete && b->pending == 0 && b->transactions == 0) {
        return fbt_fail("%s.noComplete completes the phase of the mbarrier at 0x%x", what, address);
    }
    complete_if_done(b);
    return NULL;
}

fb_error fb_mbarrier_init(fb_shared *shared, uint32_t address, uint32_t count) {
    fb_error error = fbt_check_shared(shared, address, 8, 8, "mbarrier.init");
    if (!error) error = check_count(count, "mbarrier.init");
    if (error) return error;
    store(shared, address, &(barrier){.pending = count, .expected = count});
    return NULL;
}

fb_error fb_mbarrier_inval(fb_shared *shared, uint32_t address) {
    barrier b;
    fb_error error = load(shared, address, &b, "mbarrier.inval");
    if (error) return error;
    memset(shared->bytes + address, 0, 8);
    return NULL;
}

fb_error fb_mbarrier_expect_tx(fb_shared *shared, uint32_t address, uint32_t bytes) {
    barrier b;
    fb_error error = load(shared, address, &b, "mbarrier.expect_tx");
    if (!error) error = add_transactions(&b, bytes, address, "mbarrier.expect_tx");
    if (!error) store(shared, address, &b);
    return error;
}

fb_error fb_mbarrier_complete_tx(fb_shared *shared, uint32_t address, uint32_t bytes) {
    barrier b;
    fb_error error = load(shared, address, &b, "mbarrier.complete_tx");
    if (!error) error = add_transactions(&b, -(int64_t)bytes, address, "mbarrier.complete_tx");
    if (error) return error;
    complete_if_done(&b);
    store(shared, address, &b);
    return NULL;
}

fb_error fb_mbarrier_arrive(fb_shared *shared, uint32_t address, uint32_t count, bool no_complete,
                            uint64_t *state) {
    barrier b;
    fb_error error = load(shared, address, &b, "mbarrier.arrive");
    if (error) return error;
    uint64_t before = encode(&b);
    error = arrive(&b, count, no_complete, address, "mbarrier.arrive");
    if (error) return error;
    store(shared, address, &b);
    if (state) *state = before;
    return NULL;
}

fb_error fb_mbarrier_arrive_expect_tx(fb_shared *shared, uint32_t address, uint32_t bytes,
                                      uint64_t *state) {
    barrier b;
    fb_error error = load(shared, address, &b, "mbarrier.arrive.expect_tx");
    if (error) return error;
    uint64_t before = encode(&b);
    error = add_transactions(&b, bytes, address, "mbarrier.arrive.expect_tx");
    if (!error) error = arrive(&b, 1, false, address, "mbarrier.arrive.expect_tx");
    if (error) return error;
    store(shared, address, &b);
    if (state) *state = before;
    return NULL;
}

fb_error fb_mbarrier_arrive_drop(fb_shared *shared, uint32_t address, uint32_t count,
                                 uint32_t bytes, bool no_complete, uint64_t *state) {
    barrier b;
    fb_error error = load(shared, address, &b, "mbarrier.arrive_drop");
    if (error) return error;
    uint64_t before = encode(&b);
    error = add_transactions(&b, bytes, address, "mbarrier.arrive_drop");
    if (!error && count > b.expected) {
        error = fbt_fail("mbarrier.arrive_drop: %u of %lld expected arrivals at 0x%x", count,
                        (long long)b.expected, address);
    }
    if (error) return error;
    b.expected -= count;
    error = arrive(&b, count, no_complete, address, "mbarrier.arrive_drop");
    if (error) return error;
    store(shared, address, &b);
    if (state) *state = before;
    return NULL;
}

fb_error fb_mbarrier_increment_pending(fb_shared *shared, uint32_t address) {
    barrier b;
    fb_error error = load(shared, address, &b, "cp.async.mbarrier.arrive");
    if (!error && b.pending == COUNT_MAX) {
        error = fbt_fail("cp.async.mbarrier.arrive: pending count of 0x%x is full", address);
    }
    if (error) return error;
    b.pending += 1;
    store(shared, address, &b);
    return NULL;
}

fb_error fb_mbarrier_test_wait(const fb_shared *shared, uint32_t address, uint64_t state,
                               bool *complete) {
    barrier b, token;
    fb_error error = load(shared, address, &b, "mbarrier.test_wait");
    if (error) return error;
    if (!decode(state, &token)) {
        return fbt_fail("mbarrier.test_wait: the state was not returned by mbarrier.arrive");
    }
    *complete = token.parity != b.parity;
    return NULL;
}

fb_error fb_mbarrier_test_wait_parity(const fb_shared *shared, uint32_t address, uint32_t parity,
                                      bool *complete) {
    barrier b;
    fb_error error = load(shared, address, &b, "mbarrier.test_wait.parity");
    if (error) return error;
    if (parity > 1) return fbt_fail("mbarrier.test_wait.parity: phaseParity %u", parity);
    *complete = parity != b.parity;
    return NULL;
}

uint32_t fb_mbarrier_pending_count(uint64_t state) {
    return (uint32_t)(state & COUNT_MAX);
}
