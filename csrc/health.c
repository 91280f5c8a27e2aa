/* The health check of a supervised container. */
#define _GNU_SOURCE
#include "health.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "channel.h"
#include "starter.h"
#include "streams.h"
#include "sys.h"

enum { NEVER = -1, KINDS = 6, EXIT_LATE = -1 };

/* The mount namespace last: from there on names are the container's. */
static const char *const kinds[KINDS] = {"cgroup", "ipc", "uts", "net", "pid", "mnt"};

uint64_t realtime_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int health_open(struct health *h, const struct ctr_order *order, int directory, int spec_fd)
{
    struct child c = CHILD_BLANK;
    size_t size;

    h->order = order;
    h->spec_fd = spec_fd;
    h->file = openat(directory, "health", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (h->file < 0)
        return -1;
    c.fds[CTR_FD_SPEC] = spec_fd;
    c.fd_count = CTR_MAX_FDS; /* who makes the request has counted them */
    h->spec = starter_map(&c, &size);
    if (h->spec && h->spec->flags & CTR_SPEC_JOIN && h->spec->namespace_count == KINDS)
        return 0;
    errno = EBADMSG;
    return -1;
}

static uint32_t interval(const struct health *h, const struct ctr_state *state, int64_t now_ms)
{
    int is_starting = state->health == CTR_HEALTH_STARTING &&
                      now_ms - h->container_ms < (int64_t)h->order->health_start_period_ms;

    return is_starting ? h->order->health_start_interval_ms : h->order->health_interval_ms;
}

void health_begin(struct health *h, struct ctr_state *state, int64_t now_ms)
{
    if (!h->order)
        return;
    state->health = CTR_HEALTH_STARTING;
    state->health_failures = 0;
    h->container_ms = now_ms;
    h->next_ms = now_ms + interval(h, state, now_ms);
}

static void forget(struct health *h)
{
    close_fd(&h->status);
    close_fd(&h->output);
    h->pid = 0;
    h->is_late = 0;
}

void health_end(struct health *h)
{
    if (!h->order)
        return;
    forget(h);
    h->next_ms = NEVER;
}

uint32_t health_watch(const struct health *h, struct pollfd *polls)
{
    uint32_t n = 0;

    if (h->status >= 0)
        polls[n++] = (struct pollfd){.fd = h->status, .events = POLLIN};
    if (h->output >= 0)
        polls[n++] = (struct pollfd){.fd = h->output, .events = POLLIN};
    return n;
}

int64_t health_deadline(const struct health *h)
{
    if (!h->order)
        return NEVER;
    if (h->status >= 0)
        return h->is_late ? NEVER : h->limit_ms;
    return h->next_ms;
}

static int open_namespaces(struct child *c, pid_t pid)
{
    for (int i = 0; i < KINDS; i++) {
        char path[48];

        (void)snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, kinds[i]);
        c->fds[c->fd_count] = open(path, O_RDONLY | O_CLOEXEC);
        if (c->fds[c->fd_count++] < 0)
            return -1;
    }
    return 0;
}

/* The request of one check: streams of its own, the container's cgroups, and its namespaces. */
static int fill(struct health *h, struct child *c, const struct child *parent, const struct ctr_state *state)
{
    int pair[2];
    int output[2];
    uint32_t joins = h->spec->join_count + (h->spec->flags & CTR_SPEC_CGROUP_FD ? 1 : 0);

    c->fd_count = CTR_FD_FIRST_FREE;
    c->spec = h->spec;
    c->program_fd = parent->program_fd;
    c->fds[CTR_FD_SPEC] = fcntl(h->spec_fd, F_DUPFD_CLOEXEC, 3);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    h->status = pair[0];
    c->fds[CTR_FD_STATUS] = pair[1];
    if (pipe2(output, O_CLOEXEC) < 0)
        return -1;
    h->output = output[0];
    c->fds[CTR_FD_STDOUT] = output[1];
    c->fds[CTR_FD_STDERR] = fcntl(output[1], F_DUPFD_CLOEXEC, 3);
    c->fds[CTR_FD_STDIN] = open("/dev/null", O_RDWR | O_CLOEXEC);
    c->fds[CTR_FD_ERROR] = fcntl(c->fds[CTR_FD_STDIN], F_DUPFD_CLOEXEC, 3);
    for (uint32_t i = 0; i < joins; i++)
        c->fds[c->fd_count++] = fcntl(parent->fds[CTR_FD_FIRST_FREE + i], F_DUPFD_CLOEXEC, 3);
    if (fcntl(h->output, F_SETFL, O_NONBLOCK) < 0)
        return -1;
    return open_namespaces(c, state->pid);
}

static void start_check(struct health *h, const struct child *parent, const struct ctr_state *state, int64_t now_ms)
{
    struct child c = CHILD_BLANK;

    for (uint32_t i = 0; i < CTR_MAX_FDS; i++)
        c.fds[i] = -1;
    h->result.number++;
    h->result.started_ns = realtime_ns();
    h->result.output_size = 0;
    h->result.exit_code = 125;
    h->limit_ms = now_ms + h->order->health_timeout_ms;
    if (fill(h, &c, parent, state) == 0)
        (void)starter_join(&c);
    starter_close(&c);
}

/* A session of its own: everything in it, and nothing else in the container. */
static void kill_check(struct health *h)
{
    h->is_late = 1;
    if (h->pid > 0 && kill(-h->pid, SIGKILL) < 0)
        (void)kill(h->pid, SIGKILL);
}

static void read_output(struct health *h)
{
    char rest[4096];

    while (h->output >= 0) {
        uint32_t used = h->result.output_size;
        size_t room = sizeof(h->result.output) - used;
        ssize_t n = room ? read(h->output, h->result.output + used, room) : read(h->output, rest, sizeof(rest));

        if (n > 0 && room)
            h->result.output_size += (uint32_t)n;
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            close_fd(&h->output);
        if (n < 0)
            return;
    }
}

/* Whether the check is over: its end was told, or there is nobody who could. */
static int read_status(struct health *h)
{
    struct ctr_status status = {0};
    uint32_t count;
    int fd = -1;
    ssize_t n;

    while ((n = channel_receive_fds(h->status, &status, sizeof(status), &fd, 1, &count)) > 0) {
        if (count > 0)
            close_fd(&fd);
        if (status.kind == CTR_STATUS_STARTED)
            h->pid = status.pid;
        if (status.kind == CTR_STATUS_EXITED) {
            h->result.exit_code = status.value;
            return 1;
        }
    }
    return n == 0;
}

static void judge(struct health *h, struct ctr_state *state, int64_t now_ms)
{
    int is_starting = state->health == CTR_HEALTH_STARTING &&
                      now_ms - h->container_ms < (int64_t)h->order->health_start_period_ms;

    if (h->result.exit_code == 0) {
        state->health = CTR_HEALTH_HEALTHY;
        state->health_failures = 0;
        return;
    }
    if (is_starting)
        return;
    state->health_failures++;
    if (state->health_failures >= h->order->health_retries)
        state->health = CTR_HEALTH_UNHEALTHY;
}

static void finish(struct health *h, struct ctr_state *state, int64_t now_ms)
{
    off_t place = (off_t)((h->result.number - 1) % CTR_HEALTH_RESULTS * sizeof(h->result));

    read_output(h);
    if (h->is_late)
        h->result.exit_code = EXIT_LATE;
    h->result.ended_ns = realtime_ns();
    (void)!pwrite(h->file, &h->result, sizeof(h->result), place);
    judge(h, state, now_ms);
    forget(h);
    h->next_ms = now_ms + interval(h, state, now_ms);
}

int health_serve(struct health *h, const struct child *parent, struct ctr_state *state, int64_t now_ms)
{
    if (!h->order)
        return 0;
    read_output(h);
    if (h->status >= 0 && read_status(h)) {
        finish(h, state, now_ms);
        return 1;
    }
    if (h->status >= 0 && !h->is_late && now_ms >= h->limit_ms)
        kill_check(h);
    if (h->status < 0 && h->next_ms >= 0 && now_ms >= h->next_ms)
        start_check(h, parent, state, now_ms);
    return 0;
}
