/* The output of a supervised container. */
#define _GNU_SOURCE
#include "streams.h"

#include <errno.h>
#include <time.h>

#include "sys.h"

enum { PIECES_AT_ONCE = 16, SLOWEST_READER_MS = 10000, DRAIN_MS = 2000 };

static char piece[STREAMS_PIECE];

int64_t monotonic_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int open_pipe(int *ret_reading, int *ret_writing, int nonblocking)
{
    int pair[2];

    if (pipe2(pair, O_CLOEXEC) < 0)
        return -1;
    *ret_reading = pair[0];
    *ret_writing = pair[1];
    return fcntl(pair[nonblocking], F_SETFL, O_NONBLOCK);
}

int streams_open(struct streams *s, const struct ctr_order *order, int directory)
{
    if (order->flags & CTR_ORDER_LOG) {
        _cleanup_close_ int log = -1;

        if (mkdirat(directory, "log", 0700) < 0 && errno != EEXIST)
            return -1;
        log = openat(directory, "log", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (log < 0 || log_open(&s->log, log, order->log_limit_bytes, order->log_keep) < 0)
            return -1;
        (void)take_fd(&log);
        s->has_log = 1;
    }
    if (order->flags & CTR_ORDER_INPUT && open_pipe(&s->inner[0], &s->input, 1) < 0)
        return -1;
    for (int i = 0; i < 2; i++)
        if (order->flags & (i == 0 ? CTR_ORDER_LOG_OUT : CTR_ORDER_LOG_ERR) &&
            open_pipe(&s->outer[i], &s->inner[1 + i], 0) < 0)
            return -1;
    return 0;
}

void streams_mark_start(struct streams *s)
{
    if (s->has_log)
        log_write(&s->log, CTR_LOG_START, "", 0);
}

void streams_enter(const struct streams *s, struct child *c)
{
    for (int i = 0; i < 3; i++)
        if (s->inner[i] >= 0)
            c->fds[CTR_FD_STDIN + i] = s->inner[i];
}

static void drop_reader(struct streams *s, uint32_t i)
{
    close_fd(&s->readers[i].fds[0]);
    close_fd(&s->readers[i].fds[1]);
    s->readers[i] = s->readers[--s->reader_count];
}

static int fd_of(const struct streams *s, uint32_t i)
{
    return s->readers[i].fds[s->stream == CTR_LOG_STDERR];
}

static int is_behind(const struct streams *s, uint32_t i)
{
    return s->size > 0 && fd_of(s, i) >= 0 && s->readers[i].sent < s->size;
}

uint32_t streams_watch(const struct streams *s, struct pollfd *polls)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < s->reader_count; i++)
        if (is_behind(s, i))
            polls[n++] = (struct pollfd){.fd = fd_of(s, i), .events = POLLOUT};
    if (n > 0)
        return n;
    for (int i = 0; i < 2; i++)
        if (s->outer[i] >= 0)
            polls[n++] = (struct pollfd){.fd = s->outer[i], .events = POLLIN};
    if (s->console >= 0)
        polls[n++] = (struct pollfd){.fd = s->console, .events = POLLIN};
    return n;
}

int64_t streams_deadline(const struct streams *s)
{
    return s->size > 0 ? s->deadline_ms : -1;
}

/* Whether all readers have the piece, or are gone. */
static int pass_on(struct streams *s, int64_t now_ms)
{
    int behind = 0;

    for (uint32_t i = 0; i < s->reader_count;) {
        struct reader *reader = &s->readers[i];
        ssize_t n;

        if (!is_behind(s, i)) {
            i++;
            continue;
        }
        n = write(fd_of(s, i), piece + reader->sent, s->size - reader->sent);
        if (n > 0)
            reader->sent += (size_t)n;
        if ((n < 0 && errno != EAGAIN && errno != EINTR) || (is_behind(s, i) && now_ms >= s->deadline_ms)) {
            drop_reader(s, i);
            continue;
        }
        behind |= is_behind(s, i);
        i++;
    }
    if (!behind)
        s->size = 0;
    return !behind;
}

/* One piece of output. Whether there was one. */
static int take(struct streams *s, int *fd, int stream, int64_t now_ms)
{
    ssize_t n = *fd < 0 ? 0 : read(*fd, piece, sizeof(piece));

    /* A terminal that nobody has open any more fails; it is opened again with the next start. */
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        close_fd(fd);
    if (n <= 0)
        return 0;
    if (s->has_log)
        log_write(&s->log, (uint32_t)stream, piece, (size_t)n);
    for (uint32_t i = 0; i < s->reader_count; i++)
        s->readers[i].sent = 0;
    s->stream = stream;
    s->size = (size_t)n;
    s->deadline_ms = now_ms + SLOWEST_READER_MS;
    return 1;
}

void streams_serve(struct streams *s, int64_t now_ms)
{
    for (int i = 0; i < PIECES_AT_ONCE; i++) {
        int found = 0;

        if (s->size > 0 && !pass_on(s, now_ms))
            return;
        for (int k = 0; k < 3; k++) {
            int *fd = k < 2 ? &s->outer[k] : &s->console;

            if (!take(s, fd, k == 0 ? CTR_LOG_STDOUT : k == 1 ? CTR_LOG_STDERR : CTR_LOG_TTY, now_ms))
                continue;
            found = 1;
            if (!pass_on(s, now_ms))
                return;
        }
        if (!found)
            return;
    }
}

void streams_drain(struct streams *s)
{
    int64_t limit_ms = monotonic_ms() + DRAIN_MS;
    struct pollfd polls[STREAMS_POLLS];

    for (;;) {
        int64_t now_ms = monotonic_ms();
        uint32_t n;

        /* Nobody waits for the end of a container because somebody else does not read. */
        if (s->size > 0 && s->deadline_ms > limit_ms)
            s->deadline_ms = limit_ms;
        streams_serve(s, now_ms);
        n = streams_watch(s, polls);
        if (n == 0 || poll(polls, n, s->size > 0 ? 50 : 0) == 0) {
            if (s->size == 0)
                return;
        }
    }
}

int streams_attach(struct streams *s, int out, int err)
{
    int fds[2] = {out, err};

    if (s->reader_count == STREAMS_READERS) {
        errno = EMFILE;
        return -1;
    }
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0 && fcntl(fds[i], F_SETFL, O_NONBLOCK) < 0)
            return -1;
    /* What is under way was there before. */
    s->readers[s->reader_count++] = (struct reader){.fds = {out, err}, .sent = s->size};
    return 0;
}

void streams_close(struct streams *s)
{
    while (s->reader_count > 0)
        drop_reader(s, 0);
}
