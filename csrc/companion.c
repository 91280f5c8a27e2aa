/* The companion: becomes another program, which is nobody's child and has nothing open but its standard streams, of which the
 * first two are what it is given. */
#define _GNU_SOURCE
#include "spawner.h"

#include <poll.h>
#include <signal.h>
#include <string.h>

#include "channel.h"
#include "starter.h"
#include "sys.h"

enum { MOST_TEXT = 64 * 1024, MOST_ARGUMENTS = 32, MOST_GIVEN = 2 };

static char text[MOST_TEXT];

/* The texts that stand one behind the other; NULL after the last. -1 if there are none, or too many. */
static int split(size_t size, char **ret_argv)
{
    size_t count = 0;

    if (size == 0 || text[size - 1] != '\0')
        return -1;
    for (size_t at = 0; at < size; at += strlen(text + at) + 1) {
        if (count == MOST_ARGUMENTS)
            return -1;
        ret_argv[count++] = text + at;
    }
    ret_argv[count] = NULL;
    return 0;
}

void companion_role(int argc, char **argv)
{
    struct starter s = starter_begin(argc, argv, 1);
    struct pollfd request = {.fd = s.control, .events = POLLIN};
    struct ctr_status failed = {.kind = CTR_STATUS_EXITED};
    char *arguments[MOST_ARGUMENTS + 1];
    char *environment[] = {"LC_ALL=C.UTF-8", NULL};
    int given[MOST_GIVEN];
    uint32_t count = 0;
    sigset_t none;
    ssize_t size;

    while (poll(&request, 1, -1) < 1)
        ;
    size = channel_receive_fds(s.control, text, sizeof(text), given, MOST_GIVEN, &count);
    if (size <= 0)
        _exit(0);
    for (int i = 0; i < (int)count; i++)
        (void)dup2(given[i], i);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    errno = EINVAL;
    if (split((size_t)size, arguments) == 0)
        (void)execve(arguments[0], arguments, environment);
    failed.value = errno;
    (void)channel_send(s.control, &failed, -1);
    _exit(127);
}
