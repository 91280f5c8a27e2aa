/* The container's first process between clone and exec. */
#ifndef CTR_CHILD_H
#define CTR_CHILD_H

#include "ctr.h"

/* What the steps share. Descriptors that are not open are -1. */
struct child {
    const struct ctr_spec *spec;
    int fds[CTR_MAX_FDS];
    uint32_t fd_count;
    int program_fd; /* our own sealed program, for the init role */
    int answer_fd;  /* where who joins a container says which process that is */
    int network_fd; /* a network namespace made in advance, with loopback up */
    int root_fd;
    int scratch_fd;
    int proc_fd;
    int dev_fd;
    int tty_fd;
    int32_t step;
    int32_t index;
};

#define CHILD_BLANK                                                                                              \
    (struct child)                                                                                               \
    {                                                                                                            \
        .program_fd = -1, .answer_fd = -1, .network_fd = -1, .root_fd = -1, .scratch_fd = -1, .proc_fd = -1, .dev_fd = -1,       \
        .tty_fd = -1                                                                                             \
    }

/* One row of a list of steps. */
struct step {
    int32_t step;
    int (*run)(struct child *c);
};

/* Notes where we are, and plays the fault that a test asked for here. 0, or -1 with errno. */
int child_at(struct child *c, int32_t step, int32_t index);

/* Says where this process is, and stands still until a byte comes: for a test, or while hooks run. 0, or -1. */
int child_hold(const struct child *c);

/* Where in its descriptors those begin that stay open after the switch of the root. */
uint32_t child_first_kept(const struct child *c);

/* Walks a list of steps that ends with a row of CTR_STEP_NONE. 0, or -1 with errno, c->step and c->index. */
int child_walk(struct child *c, const struct step *steps);

/* Reports the failed step on the error pipe and ends the process. */
_Noreturn void child_fail(struct child *c);

/* Everything up to and including exec; never returns. */
_Noreturn void child_main(struct child *c);

/* The same for a process that joins a container: this one ends when that one has begun; never returns. */
_Noreturn void join_main(struct child *c);

/* Sets the loopback device of this thread's network namespace up. 0 or -1. */
int loopback_up(void);

/* Closes everything from 3 up but the `count` descriptors in `keep`. */
void close_all_but(const int *keep, uint32_t count);

/* The second half of the steps: from resource limits to exec. */
extern const struct step enter_steps[];

/* What a creator does on its own before it clones. */
extern const struct step creator_steps[];

/* The steps by which the reaper gives up its privileges. */
extern const struct step demote_steps[];

/* root.c */
int step_mount_private(struct child *c);
int step_scratch(struct child *c);
int step_root_create(struct child *c);
int step_mounts(struct child *c);
int step_root_readonly(struct child *c);
int step_pivot(struct child *c);

/* user_namespace.c */
int step_user_namespace(struct child *c);
int step_user_root(struct child *c);
int step_join_oom_score(struct child *c);
int step_raise_limits(struct child *c);

/* scheduling.c */
int step_affinity(struct child *c);
int step_scheduler(struct child *c);
int step_io_priority(struct child *c);
int step_personality(struct child *c);

/* device.c */
int make_devices(struct child *c);
int step_devices(struct child *c);
int step_console(struct child *c);
int step_join_console(struct child *c);

/* view.c */
int step_files(struct child *c);
int step_sysctls(struct child *c);
int step_readonly_paths(struct child *c);
int step_masked_paths(struct child *c);
int step_oom_score(struct child *c);

/* credential.c */
int step_apparmor(struct child *c);
int step_seccomp_privileged(struct child *c);
int step_bounding(struct child *c);
int step_groups(struct child *c);
int step_gid(struct child *c);
int step_uid(struct child *c);
int step_capabilities(struct child *c);
int step_no_new_privs(struct child *c);
int step_seccomp_listener(struct child *c);
int step_seccomp(struct child *c);

#endif
