/* The supervisor: the parent of one container, whoever started it. Its starter may go, the container and this
 * process stay. It reads what the container writes, lets further processes join it, starts it again when its policy
 * says so, and leaves word of all that in the container's directory. One loop, no allocation, no logging. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "channel.h"
#include "event.h"
#include "health.h"
#include "remove.h"
#include "spawner.h"
#include "starter.h"
#include "streams.h"
#include "sys.h"

enum {
    CLIENTS = 16,
    POLLS = 5 + CLIENTS + STREAMS_POLLS + HEALTH_POLLS,
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MOST_MS = 60000,
    BACKOFF_FORGET_MS = 10000,
    NEVER = -1,
};

struct supervisor {
    struct starter base;
    struct ctr_order order;
    struct child saved; /* what the container is started from */
    struct streams streams;
    struct health health;
    struct ctr_state state;
    int directory;
    int listener;
    int events;    /* directory of the journal */
    int file;      /* "state" in the directory */
    int pidfd;     /* of the container's first process, while it runs */
    int error;     /* where a failed start is told, while one is under way */
    int report;    /* where the starter waits for that */
    int console;   /* on which a terminal comes */
    int is_first;  /* the start that the starter waits for */
    int is_over;
    int is_paused; /* nobody checks the health of what stands still */
    int clients[CLIENTS];
    uint32_t client_count;
    uint32_t backoff_ms;
    int64_t started_ms;
    int64_t kill_ms;
    int64_t restart_ms;
};

static void write_state(struct supervisor *s)
{
    s->state.magic = CTR_MAGIC;
    s->state.generation++;
    s->state.last_generation = s->state.generation;
    (void)!pwrite(s->file, &s->state, sizeof(s->state), 0);
}

static void tell(const struct supervisor *s, enum ctr_event_kind kind, int32_t value, int32_t code)
{
    event_tell(s->events, s->order.id, kind, value, code);
}

/* By which the process can be told from a later one with its number: field 22 of its stat. */
static uint64_t start_ticks(pid_t pid)
{
    char path[32];
    char text[1024];
    _cleanup_close_ int fd = -1;
    const char *at;
    ssize_t n;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    at = strrchr(text, ')');
    for (int i = 0; at && i < 20; i++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

/* The message has told how many of the descriptors at its end are not of the request. */
static int take_order(struct supervisor *s)
{
    struct child *c = &s->saved;
    uint32_t has_check = s->order.flags & CTR_ORDER_HEALTH ? 1 : 0;
    uint32_t extra = 2 + has_check + (s->order.flags & CTR_ORDER_EVENTS ? 1 : 0);
    int check = -1;

    if (s->order.size != sizeof(s->order) || c->fd_count < CTR_FD_FIRST_FREE + extra ||
        s->order.cgroups_size > CTR_ORDER_TEXT_BYTES) {
        errno = EBADMSG;
        return -1;
    }
    c->fd_count -= extra;
    s->directory = c->fds[c->fd_count];
    s->listener = c->fds[c->fd_count + 1];
    if (has_check)
        check = c->fds[c->fd_count + 2];
    if (s->order.flags & CTR_ORDER_EVENTS)
        s->events = c->fds[c->fd_count + 2 + has_check];
    s->file = openat(s->directory, "state", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->file < 0 || streams_open(&s->streams, &s->order, s->directory) < 0)
        return -1;
    /* Who reads has to see that this is another one. */
    if (pread(s->file, &s->state, sizeof(s->state), 0) != sizeof(s->state) || s->state.magic != CTR_MAGIC)
        s->state = (struct ctr_state){0};
    s->state = (struct ctr_state){.generation = s->state.generation};
    return check < 0 ? 0 : health_open(&s->health, &s->order, s->directory, check);
}

/* An overlay without syncs may be mounted once only; its mark is taken away when all it held is in the same kernel. */
static void renew_work(const struct supervisor *s)
{
    (void)unlinkat(s->directory, "work/work/incompat/volatile/dirty", 0);
    (void)unlinkat(s->directory, "work/work/incompat/volatile", AT_REMOVEDIR);
    (void)unlinkat(s->directory, "work/work/incompat", AT_REMOVEDIR);
}

/* Starts the container once. 0, or the step that failed with errno. */
static int launch(struct supervisor *s)
{
    struct child c = s->saved;
    int errors[2];
    int pair[2] = {-1, -1};

    if (c.spec->fault_action == CTR_FAULT_FAIL && c.spec->fault_step <= CTR_STEP_CLONE) {
        errno = c.spec->fault_errno;
        return c.spec->fault_step;
    }
    if (pipe2(errors, O_CLOEXEC) < 0)
        return CTR_STEP_CLONE;
    s->error = errors[0];
    c.fds[CTR_FD_ERROR] = errors[1];
    /* Only a first start can be held by who started it; a terminal is for us to have. */
    if ((!s->is_first || c.spec->flags & CTR_SPEC_CONSOLE) &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return CTR_STEP_CLONE;
    if (pair[1] >= 0)
        c.fds[CTR_FD_STATUS] = pair[1];
    close_fd(&s->console);
    s->console = pair[0];
    streams_enter(&s->streams, &c);
    s->state.pid = starter_clone(&c, 0, &s->pidfd);
    if (s->state.pid == 0)
        child_main(&c);
    (void)close(errors[1]);
    close_fd(&pair[1]);
    if (s->state.pid < 0)
        return CTR_STEP_CLONE;
    streams_mark_start(&s->streams);
    s->started_ms = monotonic_ms();
    s->state.started_ns = realtime_ns();
    s->state.start_ticks = start_ticks(s->state.pid);
    return 0;
}

static int first_launch(struct supervisor *s)
{
    size_t size;
    int step;

    s->saved.spec = starter_map(&s->saved, &size);
    if (!s->saved.spec || s->saved.spec->flags & CTR_SPEC_JOIN)
        return CTR_STEP_MESSAGE;
    s->saved.program_fd = s->base.program;
    s->report = take_fd(&s->saved.fds[CTR_FD_ERROR]);
    step = launch(s);
    if (step == 0)
        (void)channel_send(s->saved.fds[CTR_FD_STATUS],
                           &(struct ctr_status){.kind = CTR_STATUS_STARTED, .pid = s->state.pid}, s->pidfd);
    close_fd(&s->saved.fds[CTR_FD_STATUS]);
    return step;
}

/* What was moved into the container for its first start is not ours any more: from now on by name. Its network, which
 * comes last, was made for all its starts. */
static void forget_mounts(struct child *c)
{
    uint32_t first = CTR_FD_FIRST_FREE + c->spec->join_count + (c->spec->flags & CTR_SPEC_CGROUP_FD ? 1 : 0);

    for (uint32_t i = first; i < c->fd_count - c->spec->namespace_count; i++)
        close_fd(&c->fds[i]);
}

static void finish(struct supervisor *s)
{
    s->state.phase = CTR_PHASE_ENDED;
    s->is_over = 1;
}

/* The container's command was executed, or could not be. */
static void settle_start(struct supervisor *s)
{
    struct ctr_error error = {0};
    ssize_t n = read(s->error, &error, sizeof(error));

    close_fd(&s->error);
    if (n == sizeof(error)) {
        s->state.error = error;
        if (s->report >= 0)
            (void)!write(s->report, &error, sizeof(error));
    } else {
        s->state.phase = CTR_PHASE_RUNNING;
        s->state.error = (struct ctr_error){0};
        forget_mounts(&s->saved);
        health_begin(&s->health, &s->state, monotonic_ms());
        write_state(s);
        tell(s, CTR_EVENT_START, 0, 0);
    }
    close_fd(&s->report);
}

static int will_restart(const struct supervisor *s)
{
    if (s->state.is_stopped || s->state.error.step != 0)
        return 0;
    if (s->order.restart == CTR_RESTART_ALWAYS)
        return 1;
    if (s->order.restart != CTR_RESTART_ON_FAILURE || s->state.exit.value == 0)
        return 0;
    return s->order.restart_most == 0 || s->state.restarts < s->order.restart_most;
}

static void set_backoff(struct supervisor *s, int64_t now_ms)
{
    if (s->backoff_ms == 0 || now_ms - s->started_ms >= BACKOFF_FORGET_MS)
        s->backoff_ms = BACKOFF_FIRST_MS;
    else if (s->backoff_ms < BACKOFF_MOST_MS / 2)
        s->backoff_ms *= 2;
    else
        s->backoff_ms = BACKOFF_MOST_MS;
    s->restart_ms = now_ms + s->backoff_ms;
}

static void ended(struct supervisor *s, const struct ctr_status *record)
{
    int is_failed_start = 0;

    if (s->error >= 0)
        settle_start(s);
    is_failed_start = s->state.error.step != 0;
    close_fd(&s->pidfd);
    s->kill_ms = NEVER;
    streams_drain(&s->streams);
    health_end(&s->health);
    if (is_failed_start && s->is_first) {
        /* Nothing has been: the file is as it was. */
        s->is_over = 1;
        s->order.flags &= ~(uint32_t)CTR_ORDER_REMOVE;
        return;
    }
    s->is_first = 0;
    s->state.exit = *record;
    s->state.ended_ns = realtime_ns();
    s->state.pid = 0;
    if (will_restart(s)) {
        s->state.phase = CTR_PHASE_RESTARTING;
        set_backoff(s, monotonic_ms());
    } else {
        finish(s);
    }
    write_state(s);
    tell(s, CTR_EVENT_DIE, record->value, record->code);
}

static void start_again(struct supervisor *s)
{
    int step;

    s->restart_ms = NEVER;
    s->state.restarts++;
    renew_work(s);
    step = launch(s);
    if (step == 0)
        return;
    s->state.error = (struct ctr_error){step, errno, 0};
    s->state.pid = 0;
    close_fd(&s->error);
    finish(s);
    write_state(s);
}

static void reap(struct supervisor *s)
{
    struct signalfd_siginfo info;
    struct ctr_status record;
    struct ctr_status first = {0};
    pid_t pid;

    (void)!read(s->base.signals, &info, sizeof(info));
    while ((pid = starter_reap(&record)) > 0)
        if (pid == s->state.pid)
            first = record;
    if (first.kind)
        ended(s, &first);
}

static void send_signal(const struct supervisor *s, int signal)
{
    if (s->pidfd >= 0)
        (void)syscall(SYS_pidfd_send_signal, s->pidfd, signal, NULL, 0);
}

static int stop(struct supervisor *s, const struct ctr_command *command)
{
    s->state.is_stopped = 1;
    if (s->state.phase == CTR_PHASE_RESTARTING) {
        s->restart_ms = NEVER;
        finish(s);
    }
    write_state(s);
    send_signal(s, command->signal);
    if (command->grace_ms >= 0)
        s->kill_ms = monotonic_ms() + command->grace_ms;
    return 0;
}

static void join(struct supervisor *s, struct child *c)
{
    size_t size = 0;
    int step = CTR_STEP_MESSAGE;

    if (c->fd_count < CTR_FD_FIRST_FREE)
        return;
    c->spec = starter_map(c, &size);
    c->program_fd = s->base.program;
    if (c->spec && c->spec->flags & CTR_SPEC_JOIN && starter_count() < CTR_MAX_CONTAINERS)
        step = starter_join(c);
    if (step != 0)
        starter_report_error(c->fds[CTR_FD_ERROR], step);
    if (c->spec)
        (void)munmap((void *)(uintptr_t)c->spec, size);
}

/* Takes two pipes for output, and gives an end of the input or the terminal, if there is one. Also tells the time of
 * the last record in the log: later ones are those that go into the pipes. */
static int attach(struct supervisor *s, int client, struct child *c)
{
    int input = s->streams.console >= 0 ? s->streams.console : s->streams.input;
    struct ctr_status answer = {.kind = CTR_STATUS_STARTED, .value = s->streams.console >= 0};

    if (c->fd_count != 2 || streams_attach(&s->streams, c->fds[0], c->fds[1]) < 0) {
        answer.code = c->fd_count == 2 ? errno : EBADMSG;
        (void)channel_send(client, &answer, -1);
        return -1;
    }
    c->fd_count = 0;
    answer.user_us = s->streams.log.last_ns;
    return channel_send(client, &answer, input);
}

static int obey(struct supervisor *s, int client, const struct ctr_command *command, struct child *c)
{
    struct ctr_status answer = {.kind = CTR_STATUS_STARTED};

    switch (command->kind) {
    case CTR_COMMAND_JOIN:
        join(s, c);
        return 0;
    case CTR_COMMAND_ATTACH:
        return attach(s, client, c);
    case CTR_COMMAND_STOP:
        (void)stop(s, command);
        break;
    case CTR_COMMAND_PAUSED:
        s->is_paused = command->signal != 0;
        break;
    case CTR_COMMAND_RESTART:
        s->order.restart = (uint32_t)command->signal;
        s->order.restart_most = command->most;
        break;
    default:
        answer.code = EINVAL;
    }
    return channel_send(client, &answer, -1);
}

/* 0 when the client is gone. */
static int serve_client(struct supervisor *s, int client)
{
    struct ctr_command command = {0};
    struct child c = CHILD_BLANK;
    ssize_t n = channel_receive_fds(client, &command, sizeof(command), c.fds, CTR_MAX_FDS, &c.fd_count);
    int result;

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return 0;
    result = n == sizeof(command) ? obey(s, client, &command, &c) : -1;
    starter_close(&c);
    return result >= 0;
}

/* Only root and our own user, whatever the permissions of the directory have become. */
static void accept_client(struct supervisor *s)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if (s->client_count == CLIENTS || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
        (peer.uid != 0 && peer.uid != geteuid())) {
        (void)close(fd);
        return;
    }
    s->clients[s->client_count++] = fd;
}

static void take_console(struct supervisor *s)
{
    struct ctr_status status;
    uint32_t count = 0;
    int fd = -1;
    ssize_t n = channel_receive_fds(s->console, &status, sizeof(status), &fd, 1, &count);

    if (n > 0 && status.kind == CTR_STATUS_CONSOLE && count == 1) {
        close_fd(&s->streams.console);
        s->streams.console = take_fd(&fd);
        (void)fcntl(s->streams.console, F_SETFL, O_NONBLOCK);
    }
    close_fd(&fd);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        close_fd(&s->console);
}

static void serve_health(struct supervisor *s, int64_t now_ms)
{
    uint32_t before = s->state.health;

    if (!health_serve(&s->health, &s->saved, &s->state, now_ms))
        return;
    write_state(s);
    if (s->state.health != before)
        tell(s, CTR_EVENT_HEALTH, (int32_t)s->state.health, 0);
}

static void serve_times(struct supervisor *s, int64_t now_ms)
{
    if (s->kill_ms >= 0 && now_ms >= s->kill_ms) {
        s->kill_ms = NEVER;
        send_signal(s, SIGKILL);
    }
    if (s->restart_ms >= 0 && now_ms >= s->restart_ms)
        start_again(s);
    if (s->pidfd >= 0 && s->error < 0 && !s->is_paused)
        serve_health(s, now_ms);
}

static int wait_ms(const struct supervisor *s)
{
    int64_t times[] = {s->kill_ms, s->restart_ms, streams_deadline(&s->streams),
                       s->is_paused ? NEVER : health_deadline(&s->health)};
    int64_t first = NEVER;

    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
        if (times[i] >= 0 && (first < 0 || times[i] < first))
            first = times[i];
    if (first < 0)
        return -1;
    first -= monotonic_ms();
    return first < 0 ? 0 : first > 3600000 ? 3600000 : (int)first;
}

static void run_once(struct supervisor *s)
{
    struct pollfd polls[POLLS] = {
        {.fd = s->base.signals, .events = POLLIN},
        {.fd = s->client_count < CLIENTS ? s->listener : -1, .events = POLLIN},
        {.fd = s->error, .events = POLLIN},
        {.fd = s->console, .events = POLLIN},
    };
    uint32_t clients = s->client_count;
    uint32_t n = 4;

    for (uint32_t i = 0; i < clients; i++)
        polls[n++] = (struct pollfd){.fd = s->clients[i], .events = POLLIN};
    n += streams_watch(&s->streams, polls + n);
    n += health_watch(&s->health, polls + n);
    if (poll(polls, n, wait_ms(s)) < 0)
        return;
    if (polls[2].revents)
        settle_start(s);
    if (polls[3].revents)
        take_console(s);
    streams_serve(&s->streams, monotonic_ms());
    if (polls[0].revents)
        reap(s);
    for (uint32_t i = clients; i-- > 0;)
        if (polls[4 + i].revents && !serve_client(s, s->clients[i])) {
            (void)close(s->clients[i]);
            s->clients[i] = s->clients[--s->client_count];
        }
    if (polls[1].revents)
        accept_client(s);
    serve_times(s, monotonic_ms());
}

/* The first message has everything. 0 if the starter has gone before. */
static int receive(struct supervisor *s)
{
    struct pollfd control = {.fd = s->base.control, .events = POLLIN};
    ssize_t n;

    (void)poll(&control, 1, -1);
    n = channel_receive_fds(s->base.control, &s->order, sizeof(s->order), s->saved.fds, CTR_MAX_FDS,
                            &s->saved.fd_count);
    close_fd(&s->base.control);
    return n == sizeof(s->order) && s->saved.fd_count >= CTR_FD_FIRST_FREE;
}

/* The container's directory disappears whole, by a rename, before it is taken apart. Whether it was there. */
static int remove_container(const struct supervisor *s)
{
    _cleanup_close_ int parent = openat(s->directory, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char link[32];
    char path[4096];
    char name[96];
    const char *own;
    ssize_t n;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", s->directory);
    n = readlink(link, path, sizeof(path) - 1);
    if (parent < 0 || n < 0)
        return 0;
    path[n] = '\0';
    own = strrchr(path, '/');
    (void)snprintf(name, sizeof(name), ".rm-%.64s", own ? own + 1 : path);
    if (!own || renameat(parent, own + 1, parent, name) < 0)
        return 0;
    (void)remove_directory(parent, name);
    return 1;
}

/* Out of the group with the default device rules, in which nobody may be when it is removed. */
static void leave(const char *group)
{
    static const char last[] = "/_default";
    size_t size = strlen(group);
    _cleanup_close_ int fd = -1;
    char path[4096];

    if (size < sizeof(last) || strcmp(group + size - (sizeof(last) - 1), last) != 0)
        return;
    if (snprintf(path, sizeof(path), "%s/../../tasks", group) >= (int)sizeof(path))
        return;
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        (void)!write(fd, "0", 1);
}

static void clean_up(struct supervisor *s)
{
    streams_close(&s->streams);
    /* Who connects from now on is told so at once. */
    (void)unlinkat(s->directory, "control", 0);
    close_fd(&s->listener);
    if (!(s->order.flags & CTR_ORDER_REMOVE))
        return;
    for (uint32_t i = 0; i < s->order.cgroups_size; i += (uint32_t)strlen(s->order.cgroups + i) + 1) {
        leave(s->order.cgroups + i);
        (void)rmdir(s->order.cgroups + i);
    }
    if (remove_container(s))
        tell(s, CTR_EVENT_DESTROY, 0, 0);
}

void supervisor_role(int argc, char **argv)
{
    static struct supervisor s;
    int step;

    s = (struct supervisor){
        .base = starter_begin(argc, argv, 1),
        .saved = CHILD_BLANK,
        .streams = {.inner = {-1, -1, -1}, .outer = {-1, -1}, .input = -1, .console = -1},
        .health = {.file = -1, .status = -1, .output = -1, .spec_fd = -1, .next_ms = NEVER},
        .directory = -1, .listener = -1, .events = -1, .file = -1, .pidfd = -1, .error = -1, .report = -1, .console = -1,
        .is_first = 1, .kill_ms = NEVER, .restart_ms = NEVER,
    };
    close_fd(&s.base.own_network);
    if (!receive(&s))
        _exit(0);
    step = take_order(&s) < 0 ? CTR_STEP_MESSAGE : first_launch(&s);
    if (step != 0) {
        starter_report_error(s.report >= 0 ? s.report : s.saved.fds[CTR_FD_ERROR], step);
        _exit(0);
    }
    while (!s.is_over || starter_count() > 0)
        run_once(&s);
    clean_up(&s);
    _exit(0);
}
