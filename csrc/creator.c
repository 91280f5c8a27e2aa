/* The creator: starts one process for a command that is about to end, and ends itself. What it starts is a child of that
 * command, and once that has ended, of whoever collects its orphans: so it is that an engine runs an OCI runtime. */
#define _GNU_SOURCE
#include "spawner.h"

#include <poll.h>
#include <sched.h>

#include "channel.h"
#include "starter.h"
#include "sys.h"

static int create(const struct starter *s, struct child *c)
{
    int pidfd = -1;
    pid_t pid;

    c->program_fd = s->program;
    if (c->spec->flags & CTR_SPEC_JOIN)
        join_main(c);
    if (child_walk(c, creator_steps) < 0)
        child_fail(c);
    pid = starter_clone(c, CLONE_PARENT, &pidfd);
    if (pid < 0)
        return CTR_STEP_CLONE;
    if (pid == 0)
        child_main(c);
    (void)channel_send(c->fds[CTR_FD_STATUS], &(struct ctr_status){.kind = CTR_STATUS_STARTED, .pid = pid}, pidfd);
    return 0;
}

void creator_role(int argc, char **argv)
{
    struct starter s = starter_begin(argc, argv, 0);
    struct pollfd request = {.fd = s.control, .events = POLLIN};
    struct child c = CHILD_BLANK;
    int step = CTR_STEP_MESSAGE;
    uint32_t ignored;
    size_t size;

    while (poll(&request, 1, -1) < 1)
        ;
    if (channel_receive_fds(s.control, &ignored, sizeof(ignored), c.fds, CTR_MAX_FDS, &c.fd_count) <= 0)
        _exit(0);
    c.spec = starter_map(&c, &size);
    if (c.spec)
        step = create(&s, &c);
    if (step != 0 && c.fd_count > CTR_FD_ERROR)
        starter_report_error(c.fds[CTR_FD_ERROR], step);
    _exit(0);
}
