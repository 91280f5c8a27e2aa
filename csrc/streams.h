/* What a supervised container writes: read from its pipes, put into its log, passed on to whoever is attached.
 * Nothing grows: there is one piece of output at a time, and who takes it too slowly is left behind. */
#ifndef CTR_STREAMS_H
#define CTR_STREAMS_H

#include <poll.h>
#include <stdint.h>

#include "child.h"
#include "log.h"

enum { STREAMS_READERS = 16, STREAMS_POLLS = 3 + STREAMS_READERS, STREAMS_PIECE = 32768 };

struct reader {
    int fds[2]; /* for standard output and standard error; -1: not wanted */
    size_t sent;
};

struct streams {
    struct log log;
    int has_log;
    int inner[3];   /* what the container gets; -1: what its starter has given */
    int outer[2];   /* our ends of its two outputs */
    int input;      /* our end of its standard input */
    int console;    /* the master side of its terminal, in the place of all three */
    struct reader readers[STREAMS_READERS];
    uint32_t reader_count;
    int stream;     /* of the piece that readers still have to take */
    size_t size;
    int64_t deadline_ms;
};

/* Opens what the order asks for. 0, or -1 with errno. */
int streams_open(struct streams *s, const struct ctr_order *order, int directory);

/* Says in the log that what follows is of another start. */
void streams_mark_start(struct streams *s);

/* Puts the container's ends into a request. */
void streams_enter(const struct streams *s, struct child *c);

/* What to wait for. The number of entries, at most STREAMS_POLLS. */
uint32_t streams_watch(const struct streams *s, struct pollfd *polls);

/* When readers who are too slow are to be left behind, in milliseconds of the monotonic clock; -1: never. */
int64_t streams_deadline(const struct streams *s);

/* Moves what can be moved without waiting, a bounded amount. */
void streams_serve(struct streams *s, int64_t now_ms);

/* The container has ended: moves everything that is left. */
void streams_drain(struct streams *s);

/* Passes output on from now on. The descriptors become ours. 0, or -1 with errno. */
int streams_attach(struct streams *s, int out, int err);

/* The end of all output, for who is attached. */
void streams_close(struct streams *s);

int64_t monotonic_ms(void);

#endif
