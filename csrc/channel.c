/* Messages with descriptors over sockets. */
#define _GNU_SOURCE
#include "channel.h"

#include <string.h>
#include <sys/socket.h>

#include "sys.h"

union control {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int) * CTR_MAX_FDS)];
};

int channel_send_fds(int socket, const void *data, size_t size, const int *fds, uint32_t count)
{
    struct iovec part = {(void *)(uintptr_t)data, size};
    union control control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t n;

    if (count > CTR_MAX_FDS) {
        errno = E2BIG;
        return -1;
    }
    if (count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        memset(&control, 0, message.msg_controllen);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * count);
    }
    do
        n = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -1 : 0;
}

int channel_send(int socket, const struct ctr_status *status, int passed_fd)
{
    return channel_send_fds(socket, status, sizeof(*status), &passed_fd, passed_fd >= 0 ? 1 : 0);
}

ssize_t channel_receive_fds(int socket, void *data, size_t size, int *ret_fds, uint32_t capacity, uint32_t *ret_count)
{
    struct iovec part = {data, size};
    union control control;
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    uint32_t count = 0;
    ssize_t n;

    do
        n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -1;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
        int received[CTR_MAX_FDS];
        uint32_t k = (uint32_t)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));

        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS || k > CTR_MAX_FDS)
            continue;
        memcpy(received, CMSG_DATA(h), sizeof(int) * k);
        for (uint32_t i = 0; i < k; i++, count++)
            if (count < capacity)
                ret_fds[count] = received[i];
            else
                (void)close(received[i]);
    }
    if (count <= capacity && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
        *ret_count = count;
        return n;
    }
    for (uint32_t i = 0; i < count && i < capacity; i++)
        (void)close(ret_fds[i]);
    *ret_count = 0;
    errno = EMSGSIZE;
    return -1;
}
