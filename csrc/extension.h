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

/* Starts our program from `program_fd` in the role `role`, without copying this process and without a SIGCHLD
 * to it: "ctr-spawner" as process 1 of a new PID namespace, with `second_fd` its owner; "ctr-supervisor", "ctr-creator"
 * and "ctr-companion" with no `second_fd` (-1); "ctr-unpacker" with `second_fd` the directory to unpack into, and the archive and the owner
 * as `join_fds`. namespaces: CLONE_NEW* flags of what it gets for itself. ret_pidfd: its pidfd. reterr: which step
 * failed. */
int ctr_launch(const char *role, int program_fd, int control_fd, int second_fd, int owner_is_pidfd,
               int namespaces, const int *join_fds, uint32_t join_count, int *ret_pidfd,
               struct ctr_error *reterr);

/* A connected pair of sockets that keep records apart, close-on-exec. */
int ctr_channel(int *ret_pair);

int ctr_send(int socket, const void *data, uint32_t size, const int *fds, uint32_t count);
/* A socket called `name` in a directory, to listen on or connected to; in the place of one that nobody listens on. */
int ctr_listen(int directory, const char *name);
int ctr_connect(int directory, const char *name);

/* A descriptor that becomes readable when a file of the directory is written, made or removed. */
int ctr_watch(const char *directory);

int ctr_receive(int socket, struct ctr_status *ret_status, int *ret_fd);
int ctr_check_message(const void *data, uint64_t size, uint32_t fd_count);
int ctr_open_in_root(int root_fd, const char *path, int flags, int no_symlinks);
int ctr_clone_tree(int fd, int recursive);
/* Shows the unattached mount `fd` with the ids of the user namespace `user_fd`; recursive: and the mounts below it. */
int ctr_map_ids(int fd, int user_fd, int recursive);
/* A tmpfs, unattached: `options` is `count` texts, "key" or "key=value". */
int ctr_mount_tmpfs(const char *const *options, uint32_t count);
int ctr_unmount(const char *path);
/* A network namespace; devices that come into it are without version 6 until somebody says otherwise. */
int ctr_new_network(void);
int ctr_network_socket(int namespace_fd, int domain, int type, int protocol);
/* An overlay, unattached: `lowers` is `count` paths, the top-most first. Nothing of it survives a power loss. */
int ctr_mount_overlay(const char *const *lowers, uint32_t count, const char *upper, const char *work);
/* The type of the file system that `fd` lies on, as statfs(2) says it. */
int64_t ctr_filesystem_type(int fd);
int ctr_sync_filesystem(int fd);
/* Puts this thread into the namespace `fd`. */
int ctr_setns(int fd);
uint32_t ctr_features(void);

/* CDEF END */

#endif
