/* Makes odd system calls inside a container, and prints how each of them ended.
 *
 *     probe COMMAND ARGUMENT... [-- COMMAND ARGUMENT...]...
 *
 * One line is printed for each command; all of them run in one process, in order. Commands:
 *
 *     call NUMBER ARGUMENT...  a system call; an argument is a number, "s:text" or "b:size" (zeroes);
 *                              prints its result, or -errno
 *     stat PATH                prints type, major:minor, permission bits and size, or -errno
 *     open PATH                opens for reading without waiting, reads a byte; prints the count, or -errno
 *     fds                      prints the numbers of all open descriptors
 *     cwd                      prints the working directory as the kernel says it
 *     cling                    makes three processes that nothing but SIGKILL ends, each of which writes one
 *                              byte first; does not return
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static unsigned long parse(const char *text)
{
    if (strncmp(text, "s:", 2) == 0)
        return (unsigned long)(uintptr_t)(text + 2);
    if (strncmp(text, "b:", 2) == 0)
        return (unsigned long)(uintptr_t)calloc(1, strtoul(text + 2, NULL, 0));
    return strtoul(text, NULL, 0);
}

static void do_call(int argc, char **argv)
{
    unsigned long a[7] = {0};
    long result;

    for (int i = 0; i < argc && i < 7; i++)
        a[i] = parse(argv[i]);
    result = syscall((long)a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
    printf("%ld\n", result == -1 ? -(long)errno : result);
}

static const char *type_name(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG: return "file";
    case S_IFDIR: return "dir";
    case S_IFLNK: return "link";
    case S_IFCHR: return "char";
    case S_IFBLK: return "block";
    default: return "other";
    }
}

static void do_stat(const char *path)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        printf("%d\n", -errno);
    else
        printf("%s %u:%u %o %lld\n", type_name(st.st_mode), major(st.st_rdev), minor(st.st_rdev),
               st.st_mode & 07777u, (long long)st.st_size);
}

static void do_open(const char *path)
{
    char byte;
    ssize_t n;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd < 0) {
        printf("%d\n", -errno);
        return;
    }
    n = read(fd, &byte, 1);
    printf("%d\n", n < 0 ? -errno : (int)n);
    (void)close(fd);
}

static void do_fds(void)
{
    for (int fd = 0; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("%d ", fd);
    printf("\n");
}

static void do_cwd(void)
{
    char name[4096];

    printf("%s\n", syscall(SYS_getcwd, name, sizeof(name)) < 0 ? strerror(errno) : name);
}

static _Noreturn void cling_alone(void)
{
    (void)prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
    for (int sig = 1; sig < 65; sig++)
        (void)signal(sig, SIG_IGN);
    (void)!write(1, "r", 1);
    for (;;)
        pause();
}

/* A process, a child of it, and a grandchild in a session of its own whose parent has left. */
static _Noreturn void do_cling(void)
{
    if (fork() == 0)
        cling_alone();
    if (fork() == 0) {
        (void)setsid();
        if (fork() == 0)
            cling_alone();
        _exit(0);
    }
    cling_alone();
}

static int run(int argc, char **argv)
{
    if (strcmp(argv[0], "call") == 0)
        do_call(argc - 1, argv + 1);
    else if (strcmp(argv[0], "stat") == 0 && argc == 2)
        do_stat(argv[1]);
    else if (strcmp(argv[0], "open") == 0 && argc == 2)
        do_open(argv[1]);
    else if (strcmp(argv[0], "fds") == 0)
        do_fds();
    else if (strcmp(argv[0], "cwd") == 0)
        do_cwd();
    else if (strcmp(argv[0], "cling") == 0)
        do_cling();
    else
        return -1;
    return fflush(stdout);
}

int main(int argc, char **argv)
{
    for (int start = 1; start < argc;) {
        int end = start;

        while (end < argc && strcmp(argv[end], "--") != 0)
            end++;
        if (end == start || run(end - start, argv + start) < 0)
            return 2;
        start = end + 1;
    }
    return 0;
}
