/* Messages with descriptors over sockets. */
#ifndef CTR_CHANNEL_H
#define CTR_CHANNEL_H

#include <stddef.h>
#include <sys/types.h>

#include "ctr.h"

/* Sends one record, with `passed_fd` unless it is -1. Never blocks, never raises SIGPIPE. 0 or -1. */
int channel_send(int socket, const struct ctr_status *status, int passed_fd);

/* Sends `size` bytes as one record with `count` descriptors. 0 or -1. */
int channel_send_fds(int socket, const void *data, size_t size, const int *fds, uint32_t count);

/* Receives one record without waiting (EAGAIN if there is none); its descriptors are close-on-exec. Returns its size, 0 at the end, -1 on error;
 * more descriptors than `capacity` is EMSGSIZE, and all of them are closed. */
ssize_t channel_receive_fds(int socket, void *data, size_t size, int *ret_fds, uint32_t capacity, uint32_t *ret_count);

#endif
