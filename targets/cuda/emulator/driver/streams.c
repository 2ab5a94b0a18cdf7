/* Streams and events: queues in name only, but with the rules of capture. */
#include "driver.h"

#include <stdlib.h>
#include <time.h>

struct stream {
    stream *next;
    int blocking;     /* waits for the default stream, and that for it */
    graph *into;      /* what is captured into, or NULL */
    int origin;       /* whether the capture began here */
    int unjoined;     /* work was captured here that the origin has not waited for */
};

typedef struct event {
    struct event *next;
    graph *captured_in; /* where the last record was captured; compared only */
    stream *captured_on;
    struct timespec recorded;
    int has_time;
} event;

static stream *streams;
static event *events;

static int is_default(const void *handle) { return (uintptr_t)handle <= 2; }

stream *find_stream(void *handle) {
    stream *s = streams;
    while (s && s != handle) s = s->next;
    return s;
}

static event *find_event(void *handle) {
    event *e = events;
    while (e && e != handle) e = e->next;
    return e;
}

static void end_capture(graph *into) {
    for (stream *s = streams; s; s = s->next)
        if (s->into == into) {
            s->into = NULL;
            s->origin = s->unjoined = 0;
        }
    for (event *e = events; e; e = e->next)
        if (e->captured_in == into) e->captured_in = NULL;
}

void end_captures(void) {
    for (stream *s = streams; s; s = s->next)
        if (s->into && s->origin) {
            graph *into = s->into;
            end_capture(into);
            graph_release(into);
        }
}

int capture_forbids(const char *call) {
    int captured = 0;
    for (stream *s = streams; s; s = s->next)
        if (s->into) {
            graph_invalidate(s->into);
            captured = 1;
        }
    return captured ? fail(CUDA_CAPTURE_UNSUPPORTED, "%s while a stream is captured", call)
                    : CUDA_OK;
}

graph *stream_graph(void *handle, int *error) {
    if (is_default(handle)) {
        for (stream *s = streams; s; s = s->next)
            if (s->into && s->blocking && (uintptr_t)handle != 2) {
                graph_invalidate(s->into);
                *error = fail(CUDA_CAPTURE_IMPLICIT, "the default stream is used in a capture");
            }
        return NULL;
    }
    stream *s = find_stream(handle);
    if (!s) {
        *error = fail(CUDA_INVALID_HANDLE, "no such stream");
        return NULL;
    }
    if (s->into && !graph_is_valid(s->into)) {
        *error = fail(CUDA_CAPTURE_INVALIDATED, "%s", "");
        return NULL;
    }
    if (s->into && !s->origin) s->unjoined = 1;
    return s->into;
}

static int create_stream(void **handle, int blocking) {
    int error = enter();
    if (error) return leave(error);
    stream *made = calloc(1, sizeof *made);
    if (!made) return leave(fail(CUDA_OUT_OF_MEMORY, "no host memory"));
    made->blocking = blocking;
    made->next = streams;
    streams = made;
    *handle = made;
    return leave(CUDA_OK);
}

EXPORT int cudaStreamCreate(void **handle) { return create_stream(handle, 1); }

EXPORT int cudaStreamCreateWithFlags(void **handle, unsigned flags) {
    return create_stream(handle, !(flags & 1));
}

/* Works after a fault: TVM destroys streams while an exception is under way. */
EXPORT int cudaStreamDestroy(void *handle) {
    enter_always();
    for (stream **place = &streams; *place; place = &(*place)->next)
        if (*place == handle) {
            stream *gone = *place;
            if (gone->into && gone->origin) {
                graph *into = gone->into;
                end_capture(into);
                graph_release(into);
            } else if (gone->into) {
                graph_invalidate(gone->into);
            }
            *place = gone->next;
            free(gone);
            return leave(CUDA_OK);
        }
    return leave(fail(CUDA_INVALID_HANDLE, "no such stream"));
}

EXPORT int cudaStreamSynchronize(void *handle) {
    int error = enter();
    if (error) return leave(error);
    stream *s = find_stream(handle);
    if (!s && !is_default(handle)) return leave(fail(CUDA_INVALID_HANDLE, "no such stream"));
    if (s && s->into) {
        graph_invalidate(s->into);
        error = fail(CUDA_CAPTURE_UNSUPPORTED, "cudaStreamSynchronize of a captured stream");
    }
    return leave(error);
}

EXPORT int cudaStreamBeginCapture(void *handle, int mode) {
    int error = enter();
    if (error) return leave(error);
    stream *s = find_stream(handle);
    if (mode < 0 || mode > 2) return leave(fail(CUDA_INVALID_VALUE, "no capture mode %d", mode));
    if (is_default(handle))
        return leave(fail(CUDA_CAPTURE_UNSUPPORTED, "the default stream cannot be captured"));
    if (!s) return leave(fail(CUDA_INVALID_HANDLE, "no such stream"));
    if (s->into) return leave(fail(CUDA_CAPTURE_UNSUPPORTED, "the stream is captured already"));
    s->into = graph_create();
    if (!s->into) return leave(fail(CUDA_OUT_OF_MEMORY, "no host memory"));
    s->origin = 1;
    return leave(CUDA_OK);
}

/* Ends the capture even after a fault, or where it fails. */
EXPORT int cudaStreamEndCapture(void *handle, graph **captured) {
    enter_always();
    *captured = NULL;
    stream *s = find_stream(handle);
    if (!s || !s->into) return leave(fail(CUDA_INVALID_VALUE, "the stream is not captured"));
    if (!s->origin) return leave(fail(CUDA_CAPTURE_UNMATCHED, "%s", ""));
    graph *into = s->into;
    int error = graph_is_valid(into) ? CUDA_OK : fail(CUDA_CAPTURE_INVALIDATED, "%s", "");
    for (stream *other = streams; other && !error; other = other->next)
        if (other->into == into && other->unjoined) error = fail(CUDA_CAPTURE_UNJOINED, "%s", "");
    end_capture(into);
    if (error)
        graph_release(into);
    else
        *captured = into;
    return leave(error);
}

EXPORT int cudaEventCreate(void **handle) {
    int error = enter();
    if (error) return leave(error);
    event *made = calloc(1, sizeof *made);
    if (!made) return leave(fail(CUDA_OUT_OF_MEMORY, "no host memory"));
    made->next = events;
    events = made;
    *handle = made;
    return leave(CUDA_OK);
}

EXPORT int cudaEventDestroy(void *handle) {
    enter_always();
    for (event **place = &events; *place; place = &(*place)->next)
        if (*place == handle) {
            event *gone = *place;
            *place = gone->next;
            free(gone);
            return leave(CUDA_OK);
        }
    return leave(fail(CUDA_INVALID_HANDLE, "no such event"));
}

EXPORT int cudaEventRecord(void *handle, void *on) {
    int error = enter();
    event *e = error ? NULL : find_event(handle);
    if (!error && !e) error = fail(CUDA_INVALID_HANDLE, "no such event");
    stream *s = find_stream(on);
    int was_unjoined = s ? s->unjoined : 0;
    graph *into = error ? NULL : stream_graph(on, &error);
    if (error) return leave(error);
    if (s) s->unjoined = was_unjoined;
    e->captured_in = into;
    e->captured_on = into ? s : NULL;
    e->has_time = !into;
    clock_gettime(CLOCK_MONOTONIC, &e->recorded);
    return leave(CUDA_OK);
}

/* Waiting for a captured event takes a stream into the capture, or joins the event's stream. */
EXPORT int cudaStreamWaitEvent(void *on, void *handle, unsigned flags) {
    (void)flags;
    int error = enter();
    event *e = error ? NULL : find_event(handle);
    if (!error && !e) error = fail(CUDA_INVALID_HANDLE, "no such event");
    stream *s = find_stream(on);
    if (!error && !s && !is_default(on)) error = fail(CUDA_INVALID_HANDLE, "no such stream");
    if (error || !e->captured_in) return leave(error);
    if (!s) return leave(fail(CUDA_CAPTURE_IMPLICIT, "the default stream waits for a capture"));
    if (s->into && s->into != e->captured_in) {
        graph_invalidate(s->into);
        graph_invalidate(e->captured_in);
        return leave(fail(CUDA_CAPTURE_MERGE, "%s", ""));
    }
    if (!s->into) s->unjoined = 1;
    s->into = e->captured_in;
    if (find_stream(e->captured_on) && e->captured_on != s) e->captured_on->unjoined = 0;
    return leave(CUDA_OK);
}

EXPORT int cudaEventSynchronize(void *handle) {
    int error = enter();
    if (!error && !find_event(handle)) error = fail(CUDA_INVALID_HANDLE, "no such event");
    return leave(error);
}

/* The host's time between two records: how long the emulator took. */
EXPORT int cudaEventElapsedTime(float *milliseconds, void *from, void *to) {
    int error = enter();
    if (error) return leave(error);
    event *a = find_event(from), *b = find_event(to);
    if (!a || !b || !a->has_time || !b->has_time)
        return leave(fail(CUDA_INVALID_HANDLE, "an event that was not recorded"));
    double seconds = (double)(b->recorded.tv_sec - a->recorded.tv_sec) +
                     1e-9 * (double)(b->recorded.tv_nsec - a->recorded.tv_nsec);
    *milliseconds = (float)(1e3 * seconds);
    return leave(CUDA_OK);
}
