/*
 * floor: what the kernel alone takes for one container.
 *
 * Does the isolation that containerlib does, in the cheapest order known, with every decision taken before the
 * clock starts: no engine, no state, no configuration. A start is timed from the first cgroup directory made to
 * the last one removed, with the program run, exited and reaped in between.
 *
 * usage: floor --rootfs DIR --seccomp FILE [--net new|host] [--count N] [--show] -- PROGRAM [ARGUMENT]...
 *
 * With --count N: N starts, one duration in microseconds per line. Without: one start per line read from stdin,
 * answered by one duration. --show does one start with the stdio of this process (to look inside); otherwise the
 * program gets /dev/null.
 *
 * The child shares memory with this process (CLONE_VM | CLONE_VFORK, on a stack of its own): the parent sleeps
 * until execve, so libc has one user at any time, and nothing of the parent is copied. There is one thread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof(*(array)))
#define CAP(name) (UINT64_C(1) << CAP_##name)
#define KEPT_CAPABILITIES                                                                       \
    (CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(FOWNER) | CAP(FSETID) | CAP(KILL) |                   \
     CAP(NET_BIND_SERVICE) | CAP(SETFCAP) | CAP(SETGID) | CAP(SETPCAP) | CAP(SETUID) | CAP(SYS_CHROOT))
#define CLONED (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
#define HARDENED (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

static const char *const MASKED[] = {
    "proc/acpi",          "proc/asound",      "proc/interrupts",  "proc/kcore",
    "proc/keys",          "proc/latency_stats", "proc/sched_debug", "proc/scsi",
    "proc/timer_list",    "proc/timer_stats", "sys/devices/virtual/powercap", "sys/firmware",
};
static const char *const READ_ONLY[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};

struct option {
    const char *key, *value; /* value NULL: a flag */
};

static const struct api_mount {
    const char *type, *target;
    uint64_t attributes;
    struct option options[4];
} API_MOUNTS[] = {
    {"proc", "proc", HARDENED, {{0}}},
    {"sysfs", "sys", HARDENED | MOUNT_ATTR_RDONLY, {{0}}},
    {"tmpfs", "dev", MOUNT_ATTR_NOSUID, {{"mode", "755"}, {"size", "65536k"}}},
    {"devpts", "dev/pts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
     {{"newinstance", 0}, {"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}}},
    {"tmpfs", "dev/shm", HARDENED, {{"mode", "1777"}, {"size", "65536k"}}},
    {"mqueue", "dev/mqueue", HARDENED, {{0}}},
};
static const struct {
    const char *name;
    unsigned major, minor;
} NODES[] = {
    {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
};
static const struct {
    const char *name, *target;
} LINKS[] = {
    {"fd", "/proc/self/fd"},         {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
    {"stderr", "/proc/self/fd/2"},   {"ptmx", "pts/ptmx"},
};

/* Decided once. The child reads it and writes only failed_step and failed_errno. */
static struct {
    char **argv;
    struct sock_fprog filter;
    int hierarchy_fds[2]; /* memory and pids of cgroup v1; or one cgroup2 directory and -1 */
    int task_fds[2];
    int null_fd;
    int new_net, show;
    char cgroup_name[48];
    char masked_kind[COUNT(MASKED)]; /* 'f'ile, 'd'irectory, or 0: this kernel has no such path */
    char read_only_exists[COUNT(READ_ONLY)];
    uint64_t known_capabilities;
    struct rlimit files;
    const char *failed_step;
    int failed_errno;
} plan;

static char child_stack[64 * 1024] __attribute__((aligned(16)));

static void fail(const char *step) __attribute__((noreturn));
static void fail(const char *step)
{
    plan.failed_step = step;
    plan.failed_errno = errno;
    _exit(127);
}

static int try_(const char *step, long result)
{
    if (result < 0)
        fail(step);
    return (int)result;
}

static void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int need(const char *what, long result)
{
    if (result < 0)
        die(what);
    return (int)result;
}

/* A detached mount, or -1. */
static int make_mount(const char *type, uint64_t attributes, const struct option *options, size_t count)
{
    int context = fsopen(type, FSOPEN_CLOEXEC);
    if (context < 0)
        return -1;
    for (size_t i = 0; i < count && options[i].key; i++) {
        unsigned command = options[i].value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
        if (fsconfig(context, command, options[i].key, options[i].value, 0) < 0)
            return -1;
    }
    if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    int mount = fsmount(context, FSMOUNT_CLOEXEC, (unsigned)attributes);
    close(context);
    return mount;
}

/* Puts a detached mount on a path below the current directory, and closes it. */
static int attach(int mount, const char *target)
{
    int result = move_mount(mount, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH);
    close(mount);
    return result;
}

/* The writable layer is a tmpfs on /scratch: not a detached mount, so that detaching the old root drops it too. */
static void enter_root(void)
{
    static const struct option SCRATCH[] = {{"mode", "755"}};
    static const struct option LAYERS[] = {
        {"lowerdir", "/lower"}, {"upperdir", "/scratch/upper"}, {"workdir", "/scratch/work"}, {"volatile", NULL}};
    int scratch = try_("scratch", make_mount("tmpfs", 0, SCRATCH, COUNT(SCRATCH)));
    try_("attach scratch", attach(scratch, "/scratch"));
    try_("upper", mkdir("/scratch/upper", 0755));
    try_("work", mkdir("/scratch/work", 0700));
    int root = try_("overlay", make_mount("overlay", 0, LAYERS, COUNT(LAYERS)));
    try_("attach root", move_mount(root, "", AT_FDCWD, "/root", MOVE_MOUNT_F_EMPTY_PATH));
    try_("enter root", fchdir(root));
}

static void fill_dev(void)
{
    for (size_t i = 0; i < COUNT(NODES); i++) {
        char path[32] = "dev/";
        dev_t number = makedev(NODES[i].major, NODES[i].minor);
        try_("node", mknod(strcat(path, NODES[i].name), S_IFCHR | 0666, number));
    }
    for (size_t i = 0; i < COUNT(LINKS); i++) {
        char path[32] = "dev/";
        try_("link", symlink(LINKS[i].target, strcat(path, LINKS[i].name)));
    }
    try_("pts", mkdir("dev/pts", 0755));
    try_("shm", mkdir("dev/shm", 01777));
    try_("mqueue", mkdir("dev/mqueue", 01777));
}

static void mount_api(void)
{
    for (size_t i = 0; i < COUNT(API_MOUNTS); i++) {
        const struct api_mount *m = &API_MOUNTS[i];
        int mount = try_(m->type, make_mount(m->type, m->attributes, m->options, COUNT(m->options)));
        try_(m->target, attach(mount, m->target));
        if (!strcmp(m->target, "dev"))
            fill_dev();
    }
}

static void hide_paths(void)
{
    struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};
    for (size_t i = 0; i < COUNT(MASKED); i++)
        if (plan.masked_kind[i]) {
            const char *source = plan.masked_kind[i] == 'd' ? "/empty" : "dev/null";
            try_(MASKED[i], attach(try_(source, open_tree(AT_FDCWD, source, CLONED)), MASKED[i]));
        }
    for (size_t i = 0; i < COUNT(READ_ONLY); i++)
        if (plan.read_only_exists[i]) {
            int tree = try_(READ_ONLY[i], open_tree(AT_FDCWD, READ_ONLY[i], CLONED));
            try_("read only", mount_setattr(tree, "", AT_EMPTY_PATH, &read_only, sizeof(read_only)));
            try_(READ_ONLY[i], attach(tree, READ_ONLY[i]));
        }
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int control = try_("socket", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    try_("lo up", ioctl(control, SIOCSIFFLAGS, &request));
    close(control);
}

static void drop_privileges(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    uint32_t kept[2] = {(uint32_t)KEPT_CAPABILITIES, (uint32_t)(KEPT_CAPABILITIES >> 32)};
    struct __user_cap_data_struct sets[2] = {{kept[0], kept[0], 0}, {kept[1], kept[1], 0}};

    for (unsigned long cap = 0; cap < 64; cap++)
        if (plan.known_capabilities & ~KEPT_CAPABILITIES & (UINT64_C(1) << cap))
            try_("bounding set", prctl(PR_CAPBSET_DROP, cap, 0, 0, 0));
    try_("setgroups", syscall(SYS_setgroups, 0, NULL));
    try_("setresgid", syscall(SYS_setresgid, 0, 0, 0));
    try_("setresuid", syscall(SYS_setresuid, 0, 0, 0));
    try_("capset", syscall(SYS_capset, &header, sets));
    try_("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static void contain(void)
{
    static const struct rlimit NO_CORE = {0, 0};
    static char *const ENVIRONMENT[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};

    for (size_t i = 0; i < COUNT(plan.task_fds); i++)
        if (plan.task_fds[i] >= 0) /* "0" means the writer, which spares the kernel a grace period */
            try_("tasks", write(plan.task_fds[i], "0", 1));
    try_("cgroup namespace", unshare(CLONE_NEWCGROUP));
    enter_root();
    mount_api();
    hide_paths();
    try_("pivot_root", syscall(SYS_pivot_root, ".", "."));
    try_("detach old root", umount2(".", MNT_DETACH));
    try_("chdir", chdir("/"));
    try_("sethostname", sethostname("bench", 5));
    if (plan.new_net)
        raise_loopback();
    try_("session keyring", syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL));
    try_("open files", setrlimit(RLIMIT_NOFILE, &plan.files));
    try_("core size", setrlimit(RLIMIT_CORE, &NO_CORE));
    for (int fd = 0; fd < 3 && !plan.show; fd++)
        try_("stdio", dup2(plan.null_fd, fd));
    try_("setsid", setsid());
    try_("close_range", syscall(SYS_close_range, 3, ~0U, 0));
    drop_privileges();
    try_("seccomp", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &plan.filter));
    execve(plan.argv[0], plan.argv, ENVIRONMENT);
    fail("execve");
}

/* clone3 whose child runs contain() on child_stack. It never returns into this frame: the compiler sees one return. */
static long clone_contained(struct clone_args *args)
{
#if defined(__x86_64__)
    long result;
    register void (*entry)(void) __asm__("r12") = contain;
    __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\txor %%ebp, %%ebp\n\tcall *%%r12\n\tud2\n1:"
                     : "=a"(result)
                     : "a"((long)SYS_clone3), "D"(args), "S"(sizeof(*args)), "r"(entry)
                     : "rcx", "r11", "memory", "cc");
#elif defined(__aarch64__)
    register long result __asm__("x0") = (long)args;
    register size_t size __asm__("x1") = sizeof(*args);
    register long number __asm__("x8") = SYS_clone3;
    register void (*entry)(void) __asm__("x19") = contain;
    __asm__ volatile("svc #0\n\tcbnz x0, 1f\n\tmov x29, #0\n\tblr x19\n\tbrk #1\n1:"
                     : "+r"(result)
                     : "r"(size), "r"(number), "r"(entry)
                     : "memory", "cc");
#else
#error "no clone3 for this machine here"
#endif
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

static int open_in_cgroup(int hierarchy, const char *file, int flags)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/%s", plan.cgroup_name, file);
    return need(path, openat(hierarchy, path, flags | O_CLOEXEC));
}

/* Makes the container's cgroups. Returns the directory to clone into (cgroup2), or -1. */
static int make_cgroups(void)
{
    int memory = plan.hierarchy_fds[0], pids = plan.hierarchy_fds[1], is_v2 = pids < 0;

    need("cgroup", mkdirat(memory, plan.cgroup_name, 0755));
    if (!is_v2)
        need("cgroup", mkdirat(pids, plan.cgroup_name, 0755));
    int limit = open_in_cgroup(is_v2 ? memory : pids, "pids.max", O_WRONLY);
    need("pids.max", write(limit, "2048", 4));
    close(limit);
    if (is_v2)
        return open_in_cgroup(memory, ".", O_PATH | O_DIRECTORY);
    plan.task_fds[0] = open_in_cgroup(memory, "tasks", O_WRONLY);
    plan.task_fds[1] = open_in_cgroup(pids, "tasks", O_WRONLY);
    return -1;
}

static void remove_cgroups(int into)
{
    char peak[32];
    const char *file = into < 0 ? "memory.max_usage_in_bytes" : "memory.peak";
    int usage = open_in_cgroup(plan.hierarchy_fds[0], file, O_RDONLY);

    need("peak memory", read(usage, peak, sizeof(peak)));
    close(usage);
    for (size_t i = 0; i < COUNT(plan.hierarchy_fds); i++) {
        if (plan.task_fds[i] >= 0)
            close(plan.task_fds[i]);
        if (plan.hierarchy_fds[i] >= 0)
            need("remove cgroup", unlinkat(plan.hierarchy_fds[i], plan.cgroup_name, AT_REMOVEDIR));
    }
    if (into >= 0)
        close(into);
}

static double run_one(void)
{
    struct timespec start, end;
    int status = 0;

    clock_gettime(CLOCK_MONOTONIC, &start);
    int into = make_cgroups();
    struct clone_args args = {
        .flags = CLONE_VM | CLONE_VFORK | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC |
                 (plan.new_net ? CLONE_NEWNET : 0) | (into < 0 ? 0 : CLONE_INTO_CGROUP),
        .exit_signal = SIGCHLD,
        .stack = (uintptr_t)child_stack,
        .stack_size = sizeof(child_stack),
        .cgroup = into < 0 ? 0 : (uint64_t)into,
    };
    long pid = clone_contained(&args);
    int error = errno;
    if (pid > 0)
        need("wait", waitpid((pid_t)pid, &status, 0));
    remove_cgroups(into);
    clock_gettime(CLOCK_MONOTONIC, &end);
    errno = plan.failed_step ? plan.failed_errno : error;
    if (plan.failed_step || pid < 0)
        die(plan.failed_step ? plan.failed_step : "clone3");
    if (status) {
        fprintf(stderr, "floor: %s: wait status %d\n", plan.argv[0], status);
        exit(1);
    }
    return (double)(end.tv_sec - start.tv_sec) * 1e6 + (double)(end.tv_nsec - start.tv_nsec) / 1e3;
}

static void load_filter(const char *path)
{
    static struct sock_filter program[4096]; /* BPF_MAXINSNS */
    int file = need(path, open(path, O_RDONLY | O_CLOEXEC));
    ssize_t size = need(path, read(file, program, sizeof(program)));
    plan.filter = (struct sock_fprog){.len = (unsigned short)((size_t)size / sizeof(*program)), .filter = program};
    close(file);
}

/* What an engine learns once per host: hierarchies, hidden paths that exist, capabilities, the limit of files. */
static void look_at_host(void)
{
    int is_v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
    const char *memory = is_v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory", *pids = "/sys/fs/cgroup/pids";
    struct stat found;

    snprintf(plan.cgroup_name, sizeof(plan.cgroup_name), "bench-%d-floor-%d", getppid(), getpid());
    plan.hierarchy_fds[1] = plan.task_fds[0] = plan.task_fds[1] = -1;
    plan.hierarchy_fds[0] = need(memory, open(memory, O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!is_v2)
        plan.hierarchy_fds[1] = need(pids, open(pids, O_PATH | O_DIRECTORY | O_CLOEXEC));
    int root = need("/", open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    for (size_t i = 0; i < COUNT(MASKED); i++)
        if (fstatat(root, MASKED[i], &found, 0) == 0)
            plan.masked_kind[i] = S_ISDIR(found.st_mode) ? 'd' : 'f';
    for (size_t i = 0; i < COUNT(READ_ONLY); i++)
        plan.read_only_exists[i] = faccessat(root, READ_ONLY[i], F_OK, 0) == 0;
    close(root);
    for (unsigned long cap = 0; cap < 64 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        plan.known_capabilities |= UINT64_C(1) << cap;
    need("open files", getrlimit(RLIMIT_NOFILE, &plan.files));
    plan.files.rlim_cur = 1024;
    plan.null_fd = need("/dev/null", open("/dev/null", O_RDWR | O_CLOEXEC));
}

/* A mount namespace with nothing in it but what containers are made of: each start copies and detaches it all. */
static void enter_bare_namespace(const char *rootfs)
{
    static const char *const PLACES[] = {"lower", "scratch", "root", "empty"};
    static const struct option EMPTY[] = {{"mode", "755"}, {"size", "4k"}};

    need("mount namespace", unshare(CLONE_NEWNS));
    need("private", mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    int lower = need(rootfs, open_tree(AT_FDCWD, rootfs, CLONED));
    int base = need("base", make_mount("tmpfs", 0, NULL, 0));
    need("attach base", move_mount(base, "", AT_FDCWD, rootfs, MOVE_MOUNT_F_EMPTY_PATH));
    need("enter base", fchdir(base));
    for (size_t i = 0; i < COUNT(PLACES); i++)
        need(PLACES[i], mkdir(PLACES[i], 0755));
    need("lower", attach(lower, "lower"));
    int empty = need("empty", make_mount("tmpfs", HARDENED | MOUNT_ATTR_RDONLY, EMPTY, COUNT(EMPTY)));
    need("attach empty", attach(empty, "empty"));
    need("pivot_root", syscall(SYS_pivot_root, ".", "."));
    need("detach", umount2(".", MNT_DETACH));
    need("/", chdir("/"));
    close(base);
}

int main(int argc, char **argv)
{
    const char *rootfs = NULL;
    long count = 0;
    char line[64];
    int i = 1;

    plan.new_net = 1;
    for (; i < argc && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "--show"))
            plan.show = 1;
        else if (i + 1 == argc)
            break;
        else if (!strcmp(argv[i], "--rootfs"))
            rootfs = argv[++i];
        else if (!strcmp(argv[i], "--seccomp"))
            load_filter(argv[++i]);
        else if (!strcmp(argv[i], "--net"))
            plan.new_net = !strcmp(argv[++i], "new");
        else if (!strcmp(argv[i], "--count"))
            count = atol(argv[++i]);
    }
    if (!rootfs || !plan.filter.len || i + 1 >= argc) {
        fputs("usage: floor --rootfs DIR --seccomp FILE [--net new|host] [--count N] [--show] -- PROGRAM...\n", stderr);
        return 2;
    }
    plan.argv = argv + i + 1;
    umask(0);
    look_at_host();
    enter_bare_namespace(rootfs);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (plan.show)
        return run_one() < 0;
    while (count ? count-- > 0 : fgets(line, sizeof(line), stdin) != NULL)
        printf("%.1f\n", run_one());
    return 0;
}
