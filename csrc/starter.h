/* What spawner, supervisor and creator have in common: they clone processes, reap them, and tell how they ended. */
#ifndef CTR_STARTER_H
#define CTR_STARTER_H

#include <stddef.h>
#include <sys/types.h>

#include "child.h"

struct starter {
    int control;
    int second; /* what the role is given at launch: whose death ends the spawner */
    int second_is_pidfd;
    int signals;
    int program;
    int own_network; /* the network namespace that this process belongs in */
};

/* What all roles begin with. argv: see spawner.h. is_detached: to be nobody's child. */
struct starter starter_begin(int argc, char **argv, int is_detached);

/* Clones the first process of a container, which goes on in child_main. flags: CLONE_PARENT, or 0. Its pid, or -1. */
pid_t starter_clone(struct child *c, uint64_t flags, int *ret_pidfd);

/* Lets a process join a container and enters it in the table. 0, or the step that failed. */
int starter_join(struct child *c);

/* Enters a process whose end is reported on `status_fd`, which the table closes. -1 if it is full. */
int starter_enter(pid_t pid, int status_fd, const int *parked);

/* How many processes of the table run. */
uint32_t starter_count(void);

/* Takes one ended child; 0 if there is none. The end of one that is in the table is reported. */
pid_t starter_reap(struct ctr_status *ret_record);

/* The spec of a request, mapped and checked; NULL with errno. */
const struct ctr_spec *starter_map(const struct child *c, size_t *ret_size);

/* Says on the error pipe which step failed, with errno. */
void starter_report_error(int fd, int32_t step);

/* Closes all descriptors of a request that are still open. */
void starter_close(struct child *c);

enum { STARTER_PARKED = 3 };

#endif
