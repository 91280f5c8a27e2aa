/* The unpacker role. The archive comes through a pipe, already decompressed; what became of it goes back in one
 * record. */
#define _GNU_SOURCE
#include "unpack.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "apply.h"
#include "child.h"
#include "confine.h"
#include "path.h"
#include "sys.h"
#include "tar.h"

enum { ARGUMENTS = 8 };

struct unpacker {
    int control;
    int root;
    int archive;
    int owner;
};

static int number(const char *text)
{
    return (int)strtol(text, NULL, 10);
}

static void close_others(const struct unpacker *u)
{
    const int keep[4] = {u->control, u->root, u->archive, u->owner};

    close_all_but(keep, 4);
    for (int fd = 0; fd < 3; fd++)
        if (fd != keep[0] && fd != keep[1] && fd != keep[2] && fd != keep[3])
            (void)close(fd);
}

/* Signals meant for the group of our owner must not end us before it has decided what they mean. */
static int leave_group(void)
{
    sigset_t all;

    sigfillset(&all);
    (void)umask(0);
    (void)setsid();
    return sigprocmask(SIG_SETMASK, &all, NULL);
}

static int set_blocking(int fd, int on)
{
    int flags = fcntl(fd, F_GETFL);

    return flags < 0 ? -1 : fcntl(fd, F_SETFL, on ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}

void unpacker_role(int argc, char **argv)
{
    static struct ctr_unpack_result result;
    struct ctr_unpack_order order;
    struct tar_reader *reader;
    struct unpacker u;

    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    (void)prctl(PR_SET_NAME, "ctr-unpacker", 0, 0, 0);
    if (argc != ARGUMENTS)
        _exit(125);
    u = (struct unpacker){number(argv[1]), number(argv[2]), number(argv[6]), number(argv[7])};
    if (argv[3][0] != 'p') {
        (void)close(u.owner);
        u.owner = -1;
    }
    features = features_probe();
    close_others(&u);
    if (read(u.control, &order, sizeof(order)) != sizeof(order))
        _exit(0);
    reader = tar_open(u.archive, u.owner, &result);
    if (leave_group() < 0 || set_blocking(u.archive, 0) < 0 ||
        confine(u.root, (order.flags & CTR_UNPACK_DEVICES) != 0) < 0)
        (void)unpack_fail(&result, CTR_UNPACK_CONFINE, NULL, 0);
    else if (apply_archive(reader, u.root, &order, &result) == 0) {
        /* First of all the rest: the other side listens when it has nothing more to say. */
        tar_drain(reader);
        if (apply_report_implied(u.control) < 0)
            (void)unpack_fail(&result, CTR_UNPACK_SYSTEM, NULL, 0);
    }
    (void)!write(u.control, &result, sizeof(result));
    _exit(0);
}
