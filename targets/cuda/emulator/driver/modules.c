/* Modules, their functions, and launches. */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FATBIN_MAGIC 0xBA55ED50u
#define MOST_IMAGE_BYTES (UINT64_C(1) << 32)

struct function {
    function *next;
    module *owner;
    const fb_kernel *kernel;
    fb_kernel_attributes attributes;
    int64_t dynamic_shared; /* what a launch may ask for */
    int wide_clusters;      /* whether clusters of more than 8 blocks are allowed */
};

struct module {
    module *next;
    fb_program *program;
    device *on;
    function *functions;
    int held; /* by its user, and by graphs */
};

/* CUlaunchAttribute and CUlaunchConfig. */
typedef struct {
    int32_t id;
    int32_t padding;
    union {
        uint32_t dimensions[3];
        int32_t number;
        char bytes[64];
    } value;
} launch_attribute;

typedef struct {
    uint32_t grid[3], block[3];
    uint32_t shared_bytes;
    void *stream;
    const launch_attribute *attributes;
    uint32_t attribute_count;
} launch_config;

_Static_assert(sizeof(launch_attribute) == 72 && sizeof(launch_config) == 56, "as in cuda.h");

enum { ATTRIBUTE_COOPERATIVE = 2, ATTRIBUTE_CLUSTER = 4 };
enum { FUNCTION_DYNAMIC_SHARED = 8, FUNCTION_WIDE_CLUSTERS = 14 };
#define PORTABLE_CLUSTER 8

static module *modules;

static module *find_module(const void *handle) {
    module *m = modules;
    while (m && m != handle) m = m->next;
    return m;
}

static function *find_function(const void *handle) {
    for (module *m = modules; m; m = m->next)
        for (function *f = m->functions; f; f = f->next)
            if (f == handle) return f;
    return NULL;
}

/* Bytes of what cuModuleLoadData is given: a fat binary says it, PTX ends in 0; else 0. */
static uint64_t image_size(const uint8_t *image) {
    uint32_t magic;
    memcpy(&magic, image, sizeof magic);
    if (magic == FATBIN_MAGIC) {
        uint16_t header;
        uint64_t size;
        memcpy(&header, image + 6, sizeof header);
        memcpy(&size, image + 8, sizeof size);
        return size < MOST_IMAGE_BYTES ? header + size : 0;
    }
    return memcmp(image, "\177ELF", 4) ? strlen((const char *)image) : 0;
}

static int load(module **made, device *on, const uint8_t *program, uint64_t size) {
    char text[TEXT_BYTES] = "";
    *made = calloc(1, sizeof **made);
    if (!*made) return fail(CUDA_OUT_OF_MEMORY, "no host memory");
    fb_status status =
        core.fb_program_load(on->gpu, program, size, &(*made)->program, text, sizeof text);
    if (status != FB_OK) {
        free(*made);
        return fail(status == FB_NO_MEMORY ? CUDA_OUT_OF_MEMORY : CUDA_INVALID_IMAGE, "%s", text);
    }
    (*made)->on = on;
    (*made)->held = 1;
    (*made)->next = modules;
    modules = *made;
    return CUDA_OK;
}

/* The translator is Python: it is called without the lock, as it waits for other threads. */
EXPORT int cuModuleLoadData(void **handle, const void *image) {
    char text[TEXT_BYTES] = "";
    int error = enter();
    if (!error) error = capture_forbids("cuModuleLoadData");
    device *on = current;
    leave(error);
    if (error) return error;
    uint64_t size = image_size(image), program_size = 0;
    const uint8_t *program = NULL;
    if (!size) {
        enter_always();
        return leave(fail(CUDA_NO_BINARY_FOR_GPU,
                          "the emulated GPU runs PTX, and the module has none"));
    }
    error = translate(image, size, on->capability, on->specific, &program, &program_size, text,
                      sizeof text);
    enter_always();
    if (error) return leave(fail(error, "%s", text));
    module *made;
    error = load(&made, on, program, program_size);
    if (!error) *handle = made;
    return leave(error);
}

static void release(module *m) {
    if (--m->held) return;
    for (module **place = &modules; *place; place = &(*place)->next)
        if (*place == m) {
            *place = m->next;
            break;
        }
    while (m->functions) {
        function *gone = m->functions;
        m->functions = gone->next;
        free(gone);
    }
    core.fb_program_unload(m->program);
    free(m);
}

void module_keep(function *of) { ++of->owner->held; }
void module_release(function *of) { release(of->owner); }

EXPORT int cuModuleUnload(void *handle) {
    enter_always();
    module *m = find_module(handle);
    if (!m) return leave(fail(CUDA_INVALID_HANDLE, "no such module"));
    release(m);
    return leave(CUDA_OK);
}

static int get_function(function **found, void *handle, const char *name) {
    module *m = find_module(handle);
    if (!m) return fail(CUDA_INVALID_HANDLE, "no such module");
    const fb_kernel *kernel = core.fb_program_kernel(m->program, name);
    if (!kernel) return fail(CUDA_NOT_FOUND, "the module has no kernel %s", name);
    function *f = m->functions;
    while (f && f->kernel != kernel) f = f->next;
    if (!f) {
        f = calloc(1, sizeof *f);
        if (!f) return fail(CUDA_OUT_OF_MEMORY, "no host memory");
        f->owner = m;
        f->kernel = kernel;
        core.fb_kernel_get_attributes(kernel, &f->attributes);
        f->dynamic_shared = m->on->limits.max_shared_default - f->attributes.static_shared_bytes;
        f->next = m->functions;
        m->functions = f;
    }
    *found = f;
    return CUDA_OK;
}

EXPORT int cuModuleGetFunction(void **handle, void *of, const char *name) {
    function *found = NULL;
    int error = enter();
    if (!error) error = get_function(&found, of, name);
    if (!error) *handle = found;
    return leave(error);
}

static int set_attribute(function *f, int number, int value) {
    if (!f) return fail(CUDA_INVALID_HANDLE, "no such function");
    int64_t most = f->owner->on->limits.max_shared_per_block - f->attributes.static_shared_bytes;
    switch (number) {
        case FUNCTION_DYNAMIC_SHARED:
            if (value < 0 || value > most)
                return fail(CUDA_INVALID_VALUE,
                            "%s: %d bytes of dynamic shared memory, where a block has %lld",
                            f->attributes.name, value, (long long)most);
            f->dynamic_shared = value;
            return CUDA_OK;
        case FUNCTION_WIDE_CLUSTERS: f->wide_clusters = value != 0; return CUDA_OK;
        case 9: return CUDA_OK; /* the preferred share of shared memory: only about time */
        default: return fail(CUDA_INVALID_VALUE, "no attribute %d of functions can be set", number);
    }
}

EXPORT int cuFuncSetAttribute(void *handle, int number, int value) {
    int error = enter();
    return leave(error ? error : set_attribute(find_function(handle), number, value));
}

/* What CUDA checks before a kernel starts; the interpreter checks the rest. */
static int check(const function *f, const fb_launch_config *config) {
    const char *name = f->attributes.name;
    if (config->dynamic_shared_bytes > f->dynamic_shared)
        return fail(CUDA_INVALID_VALUE,
                    "%s: %u bytes of dynamic shared memory, where %lld are allowed "
                    "(cuFuncSetAttribute allows more)",
                    name, config->dynamic_shared_bytes, (long long)f->dynamic_shared);
    uint64_t cluster = (uint64_t)config->cluster[0] * config->cluster[1] * config->cluster[2];
    if (cluster > (uint64_t)f->owner->on->limits.max_cluster ||
        (cluster > PORTABLE_CLUSTER && !f->wide_clusters))
        return fail(CUDA_INVALID_CLUSTER_SIZE, "%s: clusters of %llu blocks", name,
                    (unsigned long long)cluster);
    return CUDA_OK;
}

static int read_config(const launch_config *from, fb_launch_config *into) {
    memset(into, 0, sizeof *into);
    memcpy(into->grid, from->grid, sizeof into->grid);
    memcpy(into->block, from->block, sizeof into->block);
    into->dynamic_shared_bytes = from->shared_bytes;
    for (uint32_t i = 0; i < from->attribute_count; ++i) {
        const launch_attribute *attribute = &from->attributes[i];
        if (attribute->id == ATTRIBUTE_CLUSTER)
            memcpy(into->cluster, attribute->value.dimensions, sizeof into->cluster);
        else if (attribute->id == ATTRIBUTE_COOPERATIVE && attribute->value.number)
            return fail(CUDA_NOT_SUPPORTED, "the emulated GPU has no cooperative launches");
        /* All others are about time and order, and everything here happens in order. */
    }
    return CUDA_OK;
}

static int error_of(fb_status status) {
    switch (status) {
        case FB_OK: return CUDA_OK;
        case FB_INVALID_LAUNCH: return CUDA_INVALID_VALUE;
        case FB_NO_MEMORY: return CUDA_OUT_OF_MEMORY;
        case FB_ILLEGAL_ADDRESS: return CUDA_ILLEGAL_ADDRESS;
        case FB_MISALIGNED: return CUDA_MISALIGNED_ADDRESS;
        case FB_UNSUPPORTED: return CUDA_ILLEGAL_INSTRUCTION;
        case FB_DEADLOCK: case FB_LIMIT: return CUDA_LAUNCH_TIMEOUT;
        default: return CUDA_LAUNCH_FAILED;
    }
}

int launch_now(const launch *what) {
    char text[TEXT_BYTES] = "";
    fb_launch_statistics one;
    memset(&one, 0, sizeof one);
    fb_status status =
        core.fb_launch(what->function->kernel, &what->config, &one, text, sizeof text);
    ++executed.launches;
    executed.executed.warp_instructions += one.warp_instructions;
    executed.executed.lane_instructions += one.lane_instructions;
    executed.executed.global_load_bytes += one.global_load_bytes;
    executed.executed.global_store_bytes += one.global_store_bytes;
    executed.executed.tensor_instructions += one.tensor_instructions;
    int error = error_of(status);
    if (!error) return CUDA_OK;
    return error < CUDA_ILLEGAL_ADDRESS ? fail(error, "%s", text) : fault(error, text);
}

static int launch_function(const launch_config *config, void *handle, void **parameters,
                           void **extra) {
    launch what = {find_function(handle), {{0}}};
    if (!what.function) return fail(CUDA_INVALID_HANDLE, "no such function");
    if (extra) return fail(CUDA_NOT_SUPPORTED, "parameters are passed one by one only");
    int error = read_config(config, &what.config);
    if (!error) error = check(what.function, &what.config);
    if (error) return error;
    what.config.params = parameters;
    graph *into = stream_graph(config->stream, &error);
    if (error) return error;
    return into ? graph_record_launch(into, &what, &what.function->attributes)
                : launch_now(&what);
}

EXPORT int cuLaunchKernelEx(const void *config, void *handle, void **parameters, void **extra) {
    int error = enter();
    return leave(error ? error : launch_function(config, handle, parameters, extra));
}

EXPORT int cuTensorMapEncodeTiled(void *map, int data_type, uint32_t rank, void *address,
                                  const uint64_t *dimensions, const uint64_t *strides,
                                  const uint32_t *box, const uint32_t *element_strides,
                                  int interleave, int swizzle, int l2_promotion, int oob_fill) {
    int error = enter();
    if (error) return leave(error);
    fb_error text =
        core.fb_tensor_map_encode(map, data_type, rank, (uint64_t)address, dimensions, strides,
                                  box, element_strides, interleave, swizzle, l2_promotion,
                                  oob_fill);
    return leave(text ? fail(CUDA_INVALID_VALUE, "%s", text) : CUDA_OK);
}
