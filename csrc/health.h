/* The health check of a supervised container: a command that joins it again and again. */
#ifndef CTR_HEALTH_H
#define CTR_HEALTH_H

#include <poll.h>
#include <sys/types.h>

#include "child.h"

enum { HEALTH_POLLS = 2 };

struct health {
    const struct ctr_order *order;
    const struct ctr_spec *spec;
    int spec_fd;
    int file;
    int64_t container_ms; /* when the container was started */
    int64_t next_ms;      /* when the next check is due; -1: while one runs */
    int64_t limit_ms;     /* when the one that runs has had its time */
    int status;           /* where its end is told */
    int output;
    pid_t pid;
    int is_late;
    struct ctr_health_result result;
};

/* Opens the file of results. 0, or -1 with errno. */
int health_open(struct health *h, const struct ctr_order *order, int directory, int spec_fd);

/* The container was started: it is healthy when a check says so. */
void health_begin(struct health *h, struct ctr_state *state, int64_t now_ms);

/* The container has ended, and its check with it. */
void health_end(struct health *h);

uint32_t health_watch(const struct health *h, struct pollfd *polls);

/* When there is something to do without an event, in milliseconds of the monotonic clock; -1: never. */
int64_t health_deadline(const struct health *h);

/* Starts a check that is due, ends one that takes too long, takes note of one that has ended. `parent` has the cgroups
 * to join. Whether the state has changed. */
int health_serve(struct health *h, const struct child *parent, struct ctr_state *state, int64_t now_ms);

uint64_t realtime_ns(void);

#endif
