/* Graphs: launches and copies with all their parameters, in the order in which they were captured.
 *
 * That order agrees with every dependency, as what is waited for was captured before.
 */
#include "driver.h"

#include <stdlib.h>
#include <string.h>

typedef struct node {
    struct node *next;
    launch launch; /* a launch, or, where it has no function, a copy */
    void *to;
    const void *from;
    size_t size;
    int kind;
} node;

struct graph {
    graph *next;
    node *first, **end;
    int held; /* by its user, and by what was made of it */
    int valid;
};

static graph *graphs;

static int exists(const graph *wanted) {
    const graph *of = graphs;
    while (of && of != wanted) of = of->next;
    return of != NULL;
}

graph *graph_create(void) {
    graph *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    made->end = &made->first;
    made->held = made->valid = 1;
    made->next = graphs;
    graphs = made;
    return made;
}

void graph_release(graph *of) {
    if (--of->held) return;
    graph **place = &graphs;
    while (*place != of) place = &(*place)->next;
    *place = of->next;
    while (of->first) {
        node *gone = of->first;
        of->first = gone->next;
        if (gone->launch.function) module_release(gone->launch.function);
        free((void *)gone->launch.config.param_buffer);
        free(gone);
    }
    free(of);
}

int graph_is_valid(const graph *of) { return of->valid; }
void graph_invalidate(graph *of) { of->valid = 0; }

static void append(graph *into, node *made) {
    *into->end = made;
    into->end = &made->next;
}

int graph_record_copy(graph *into, void *to, const void *from, size_t size, int kind) {
    node *made = calloc(1, sizeof *made);
    if (!made) return fail(CUDA_OUT_OF_MEMORY, "no host memory");
    made->to = to;
    made->from = from;
    made->size = size;
    made->kind = kind;
    append(into, made);
    return CUDA_OK;
}

int graph_record_launch(graph *into, const launch *what, const fb_kernel_attributes *attributes) {
    node *made = calloc(1, sizeof *made);
    unsigned char *parameters = calloc(1, attributes->param_bytes + 1);
    if (!made || !parameters) {
        free(made);
        free(parameters);
        return fail(CUDA_OUT_OF_MEMORY, "no host memory");
    }
    for (int32_t i = 0; i < attributes->param_count; ++i)
        memcpy(parameters + attributes->param_offsets[i], what->config.params[i],
               attributes->param_sizes[i]);
    made->launch = *what;
    made->launch.config.params = NULL;
    made->launch.config.param_buffer = parameters;
    made->launch.config.param_buffer_size = attributes->param_bytes;
    module_keep(what->function);
    append(into, made);
    return CUDA_OK;
}

EXPORT int cudaGraphInstantiate(graph **executable, graph *of, unsigned long long flags) {
    (void)flags;
    int error = enter();
    if (error) return leave(error);
    if (!exists(of)) return leave(fail(CUDA_INVALID_VALUE, "no such graph"));
    ++of->held;
    *executable = of;
    return leave(CUDA_OK);
}

static int destroy(graph *of) {
    enter_always();
    if (!exists(of)) return leave(fail(CUDA_INVALID_VALUE, "no such graph"));
    graph_release(of);
    return leave(CUDA_OK);
}

EXPORT int cudaGraphDestroy(graph *of) { return destroy(of); }
EXPORT int cudaGraphExecDestroy(graph *of) { return destroy(of); }

EXPORT int cudaGraphLaunch(graph *of, void *on) {
    int error = enter();
    if (!error && !exists(of)) error = fail(CUDA_INVALID_VALUE, "no such graph");
    graph *into = error ? NULL : stream_graph(on, &error);
    if (into) {
        graph_invalidate(into);
        error = fail(CUDA_NOT_SUPPORTED, "the emulated GPU captures no launches of graphs");
    }
    for (node *n = error ? NULL : of->first; n && !error; n = n->next)
        error = n->launch.function ? launch_now(&n->launch)
                                   : copy_now(n->to, n->from, n->size, n->kind);
    return leave(error);
}
