/* Whatever an archive could make of the unpacker, it can only write files below its root: no path leads out of
 * it, no other process can be reached, nothing can be executed. */
#define _GNU_SOURCE
#include "confine.h"

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "sys.h"

#if defined(__x86_64__)
#define OWN_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCH AUDIT_ARCH_AARCH64
#else
#error "no filter for this architecture"
#endif

/* sysinfo: the C library asks how much memory there is before it sorts. */
static const int allowed[] = {
    SYS_read,       SYS_write,     SYS_pwrite64,   SYS_lseek,     SYS_close,     SYS_openat,    SYS_fstat,
    SYS_newfstatat, SYS_statx,     SYS_mkdirat,    SYS_symlinkat, SYS_linkat,    SYS_unlinkat,  SYS_readlinkat,
    SYS_fchown,     SYS_fchownat,  SYS_fchmod,     SYS_fchmodat,  SYS_fsetxattr, SYS_utimensat, SYS_ftruncate,
    SYS_getdents64, SYS_ppoll,     SYS_brk,        SYS_munmap,    SYS_mremap,    SYS_exit,      SYS_exit_group,
    SYS_rt_sigreturn, SYS_restart_syscall, SYS_sysinfo,
#ifdef SYS_poll
    SYS_poll,
#endif
};

/* Giving files away, writing into directories of others, set-id bits, nodes, capabilities of files; and
 * CAP_SYS_ADMIN for the attributes of overlayfs. */
static const int kept[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_MKNOD, CAP_SETFCAP, CAP_SYS_ADMIN};

enum { COUNT = sizeof(allowed) / sizeof(allowed[0]), MAX_PROGRAM = 2 * COUNT + 32 };

#define ARGUMENT(n) ((unsigned)(offsetof(struct seccomp_data, args) + 8 * (n)))
#define ADD(...) program[size++] = (struct sock_filter)__VA_ARGS__

static int load_filter(int may_make_devices)
{
    struct sock_filter program[MAX_PROGRAM];
    unsigned size = 0;
    struct sock_fprog whole = {.filter = program};

    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCH, 1, 0));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
    for (unsigned i = 0; i < COUNT; i++) {
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], 0, 1));
        ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    }
    /* Memory, but none that could be executed. */
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 4));
    ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARGUMENT(2)));
    ADD(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    /* Whiteouts and fifos; devices only if they are wanted. */
    ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mknodat, 1, 0));
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    if (!may_make_devices) {
        ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARGUMENT(3)));
        ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0));
        ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    }
    ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    whole.len = (unsigned short)size;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &whole);
}

static int keep_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct own[2] = {0};
    struct __user_cap_data_struct data[2] = {0};

    if (syscall(SYS_capget, &header, own) < 0)
        return -1;
    for (unsigned i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
        data[kept[i] / 32].permitted |= 1u << kept[i] % 32;
    for (int i = 0; i < 2; i++)
        data[i].effective = data[i].permitted &= own[i].permitted;
    return (int)syscall(SYS_capset, &header, data);
}

int confine(int root_fd, int may_make_devices)
{
    const struct rlimit none = {0, 0};

    if (fchdir(root_fd) < 0 || chroot(".") < 0)
        return -1;
    if (setrlimit(RLIMIT_CORE, &none) < 0 || keep_capabilities() < 0)
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -1;
    return load_filter(may_make_devices);
}
