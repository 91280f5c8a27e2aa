/* What the extension module offers to Python. cffi reads the marked part; it releases the GIL around every call.
 * Functions return 0 or a descriptor, and on failure -errno. Nothing here allocates, logs or keeps state. */
#ifndef CTR_EXTENSION_H
#define CTR_EXTENSION_H

#include <stddef.h>

#include "ctr.h"

/* CDEF BEGIN */

enum ctr_launch_step {
    CTR_LAUNCH_NONE = 0,
    CTR_LAUNCH_CLONE = 1,
    CTR_LAUNCH_EXEC = 2
};

/* Starts the spawner from `program_fd` as process 1 of a new PID namespace, without copying this
 * process and without a SIGCHLD to it. ret_fds: its pidfd. reterr: which step failed. */
int ctr_launch(int program_fd, int control_fd, int owner_fd, int owner_is_pidfd, const int *join_fds,
               uint32_t join_count, int *ret_pidfd, struct ctr_error *reterr);

/* A connected pair of sockets that keep records apart, close-on-exec. */
int ctr_channel(int *ret_pair);

int ctr_send(int socket, const int *fds, uint32_t count);
int ctr_receive(int socket, struct ctr_status *ret_status, int *ret_fd);
int ctr_check_message(const void *data, uint64_t size, uint32_t fd_count);
int ctr_open_in_root(int root_fd, const char *path, int flags, int no_symlinks);
int ctr_clone_tree(int fd, int recursive);
int ctr_bpf(int command, void *attributes, uint32_t size);
uint32_t ctr_features(void);

/* CDEF END */

#endif
