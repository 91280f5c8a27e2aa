/* The init role. It starts the payload, passes signals on to it, reaps whatever is orphaned, and ends with the
 * payload's status; the kernel then ends everything else in the PID namespace. */
#define _GNU_SOURCE
#include "init.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "message.h"
#include "path.h"
#include "sys.h"

enum { FD_COUNT = 6 };

int init_exec(struct child *c)
{
    char numbers[FD_COUNT + 1][12];
    char *argv[FD_COUNT + 3] = {"ctr-init"};
    char *envp[] = {NULL};

    for (int i = 0; i <= FD_COUNT; i++) {
        int fd = i < FD_COUNT ? c->fds[i] : c->tty_fd;

        if (fd >= 0 && fcntl(fd, F_SETFD, 0) < 0)
            return -1;
        (void)snprintf(numbers[i], sizeof(numbers[i]), "%d", fd);
        argv[i + 1] = numbers[i];
    }
    return (int)syscall(SYS_execveat, c->program_fd, "", argv, envp, AT_EMPTY_PATH);
}

static int take_over(struct child *c, char **argv)
{
    struct stat st;
    void *data;

    for (int i = 0; i <= FD_COUNT; i++) {
        int fd = (int)strtol(argv[i + 1], NULL, 10);

        if (fd >= 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
            return -1;
        if (i < FD_COUNT)
            c->fds[i] = fd;
        else
            c->tty_fd = fd;
    }
    c->fd_count = FD_COUNT;
    if (fstat(c->fds[CTR_FD_SPEC], &st) < 0)
        return -1;
    data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, c->fds[CTR_FD_SPEC], 0);
    if (data == MAP_FAILED)
        return -1;
    c->spec = data;
    return message_check(data, (size_t)st.st_size, CTR_MAX_FDS);
}

/* An exit code from a wait status; a process 1 cannot end by a signal of its own, so 128 + n stands for it. */
static int exit_code(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Returns the payload's exit code once it has ended, else -1. */
static int reap(pid_t payload)
{
    int code = -1;
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == payload)
            code = exit_code(status);
    return code;
}

static _Noreturn void run_reaper(pid_t payload, const sigset_t *all)
{
    for (;;) {
        siginfo_t info;
        int sig = sigwaitinfo(all, &info);

        if (sig == SIGCHLD) {
            int code = reap(payload);

            if (code >= 0)
                _exit(code);
        } else if (sig > 0) {
            (void)kill(payload, sig);
        }
    }
}

void init_role(int argc, char **argv)
{
    struct child c = CHILD_BLANK;
    sigset_t all;
    pid_t payload;

    /* First of all: from here on nobody in the container can look into this process. */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    (void)prctl(PR_SET_NAME, "ctr-init", 0, 0, 0);
    if (argc != FD_COUNT + 2)
        _exit(127);
    c.step = CTR_STEP_INIT_EXEC;
    if (take_over(&c, argv) < 0)
        child_fail(&c);
    features = features_probe();
    sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    if (child_at(&c, CTR_STEP_INIT_FORK, 0) < 0)
        child_fail(&c);
    payload = fork();
    if (payload < 0)
        child_fail(&c);
    if (payload == 0) {
        (void)child_walk(&c, enter_steps);
        child_fail(&c);
    }
    close_all_but(NULL, 0);
    for (int fd = 0; fd < 3; fd++)
        (void)close(fd);
    for (const struct step *step = demote_steps; step->run; step++)
        if (step->run(&c) < 0)
            _exit(127);
    run_reaper(payload, &all);
}
