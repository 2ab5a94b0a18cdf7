/* cp.async.bulk: lines of bytes between global memory and the shared memory of blocks. */
#include "internal.h"

#include <string.h>

static fb_error check_bulk(const fb_shared *shared, uint32_t address, uint64_t other,
                           uint32_t size) {
    if (size % 16 || other % 16) {
        return fbt_fail("cp.async.bulk: %u bytes at 0x%llx are not multiples of 16", size,
                       (unsigned long long)other);
    }
    return fbt_check_shared(shared, address, size, 16, "cp.async.bulk");
}

static fb_error check_global(const void *at, uint64_t address, uint32_t size) {
    return at ? NULL
              : fbt_fail("cp.async.bulk: %u bytes at 0x%llx are outside of every allocation", size,
                        (unsigned long long)address);
}

fb_error fb_bulk_load(const fb_global *global, uint64_t source, fb_shared *shared,
                      uint32_t destination, uint32_t size) {
    fb_error error = check_bulk(shared, destination, source, size);
    if (error || size == 0) return error;
    void *from = global->at(global->context, source, size, false);
    error = check_global(from, source, size);
    if (!error) memcpy(shared->bytes + destination, from, size);
    return error;
}

fb_error fb_bulk_store(const fb_global *global, uint64_t destination, const fb_shared *shared,
                       uint32_t source, uint32_t size) {
    fb_error error = check_bulk(shared, source, destination, size);
    if (error || size == 0) return error;
    void *to = global->at(global->context, destination, size, true);
    error = check_global(to, destination, size);
    if (!error) memcpy(to, shared->bytes + source, size);
    return error;
}

fb_error fb_bulk_copy(const fb_shared *from, uint32_t source, fb_shared *to, uint32_t destination,
                      uint32_t size) {
    fb_error error = check_bulk(to, destination, source, size);
    if (!error) error = fbt_check_shared(from, source, size, 16, "cp.async.bulk");
    if (!error) memmove(to->bytes + destination, from->bytes + source, size);
    return error;
}
