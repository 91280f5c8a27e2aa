/* The contract between Python and C.
 *
 * Everything between the two CDEF lines is plain C without preprocessor: the compiler reads it here, and
 * cffi reads the same text, so the two sides cannot disagree about a layout.
 *
 * A start request is one message: a struct ctr_spec, its arrays and its strings in one flat buffer (a memfd),
 * in which every reference is a byte offset from the start. The last byte of the buffer is NUL, so every string
 * offset inside the buffer is a terminated string. Offset 0 means "none".
 */
#ifndef CTR_H
#define CTR_H

#include <stdint.h>

/* CDEF BEGIN */

enum ctr_limit {
    CTR_MAGIC = 0x31725443,
    CTR_VERSION = 1,
    CTR_MAX_FDS = 240,
    CTR_MAX_CONTAINERS = 16384,
    CTR_MAX_STRINGS = 131072,
    CTR_MAX_GROUPS = 65536
};

/* Steps in the order in which they happen. A failure names one of them; nothing else about it is said in C. */
enum ctr_step {
    CTR_STEP_NONE = 0,
    CTR_STEP_MESSAGE,
    CTR_STEP_TABLE,
    CTR_STEP_CLONE,
    CTR_STEP_TIME_NAMESPACE,
    CTR_STEP_CLOSE_INHERITED,
    CTR_STEP_USER_NAMESPACE,
    CTR_STEP_CGROUP_JOIN,
    CTR_STEP_CGROUP_NAMESPACE,
    CTR_STEP_JOIN_NAMESPACE,
    CTR_STEP_JOIN_CLONE,
    CTR_STEP_NETWORK,
    CTR_STEP_KEYRING,
    CTR_STEP_MOUNT_PRIVATE,
    CTR_STEP_SCRATCH,
    CTR_STEP_ROOT_CREATE,
    CTR_STEP_ROOT_ATTACH,
    CTR_STEP_USER_ROOT,
    CTR_STEP_MOUNT_SOURCE,
    CTR_STEP_MOUNT_CREATE,
    CTR_STEP_MOUNT_TARGET,
    CTR_STEP_MOUNT_ATTACH,
    CTR_STEP_DEVICE,
    CTR_STEP_FILE,
    CTR_STEP_CONSOLE,
    CTR_STEP_LOOPBACK,
    CTR_STEP_SYSCTL,
    CTR_STEP_OOM_SCORE,
    CTR_STEP_READONLY_PATH,
    CTR_STEP_MASKED_PATH,
    CTR_STEP_ROOT_READONLY,
    CTR_STEP_PIVOT,
    CTR_STEP_HOSTNAME,
    CTR_STEP_INIT_EXEC,
    CTR_STEP_INIT_FORK,
    CTR_STEP_SIGNALS,
    CTR_STEP_SESSION,
    CTR_STEP_RLIMIT,
    CTR_STEP_AFFINITY,
    CTR_STEP_SCHEDULER,
    CTR_STEP_IO_PRIORITY,
    CTR_STEP_PERSONALITY,
    CTR_STEP_UMASK,
    CTR_STEP_STDIO,
    CTR_STEP_APPARMOR,
    CTR_STEP_SECCOMP_PRIVILEGED,
    CTR_STEP_BOUNDING,
    CTR_STEP_GROUPS,
    CTR_STEP_WORKDIR,
    CTR_STEP_GID,
    CTR_STEP_UID,
    CTR_STEP_CAPABILITIES,
    CTR_STEP_NO_NEW_PRIVS,
    CTR_STEP_SECCOMP_LISTENER,
    CTR_STEP_GATE,
    CTR_STEP_CLOSE_FDS,
    CTR_STEP_SECCOMP,
    CTR_STEP_EXEC,
    CTR_STEP_COUNT
};

enum ctr_spec_flag {
    CTR_SPEC_LOOPBACK = 1,
    CTR_SPEC_CGROUP_NAMESPACE = 2,
    CTR_SPEC_NO_NEW_PRIVS = 4,
    CTR_SPEC_INIT = 8,
    CTR_SPEC_CONSOLE = 16,
    CTR_SPEC_ROOT_READONLY = 32,
    CTR_SPEC_ROOT_BIND = 64,
    CTR_SPEC_ROOT_MEMORY = 128,
    CTR_SPEC_OOM_SCORE = 256,
    CTR_SPEC_CGROUP_FD = 512,
    CTR_SPEC_JOIN = 1024,
    CTR_SPEC_GATE = 2048,      /* stands before the command until a byte comes through the last descriptor */
    CTR_SPEC_HOOKS = 4096,     /* stands before the switch of the root until told to go on */
    CTR_SPEC_NO_KEYRING = 8192, /* keeps the session keyring of its parent */
    CTR_SPEC_NO_PIVOT = 16384, /* moves the root instead, for roots that pivot_root refuses */
    CTR_SPEC_IO_PRIORITY = 65536,
    CTR_SPEC_PERSONALITY = 131072,
    CTR_SPEC_MOUNTS_BY_PATH = 524288, /* a mount namespace is among those to join, whose root becomes another one */
    CTR_SPEC_CHROOT = 262144,  /* in the mount namespace of the caller, with another root; one that joins such a
                                * container has its root as the mount before the namespaces */
    CTR_SPEC_USER = 32768      /* in a user namespace that is not the host's, whose root it is until it is somebody else */
};

enum ctr_mount_kind {
    CTR_MOUNT_FILESYSTEM = 1,
    CTR_MOUNT_BIND = 2
};

enum ctr_mount_flag {
    CTR_MOUNT_NO_SYMLINKS = 1,
    CTR_MOUNT_DEVICES = 2,
    CTR_MOUNT_RECURSIVE = 4,
    CTR_MOUNT_SOURCE_IS_DIR = 8,
    CTR_MOUNT_PROC = 16,
    CTR_MOUNT_TOP_ATTRIBUTES = 32, /* attributes are for the mount itself, not for those below it */
    CTR_MOUNT_REMOUNT = 64 /* of what lies on the target: the mount alone (BIND), or its file system, too */
};

enum ctr_node_kind {
    CTR_NODE_CHAR = 1,
    CTR_NODE_BLOCK = 2,
    CTR_NODE_FIFO = 3,
    CTR_NODE_SYMLINK = 4
};

/* Where the fixed descriptors stand in the SCM_RIGHTS array. Behind them: join fds, the cgroup 2 directory, mount fds,
 * namespaces to join (of a container to join, CTR_SPEC_JOIN, the mount namespace last but for the user namespace),
 * descriptors for the command, the gate. */
enum ctr_fd {
    CTR_FD_SPEC = 0,
    CTR_FD_STATUS = 1,
    CTR_FD_ERROR = 2,
    CTR_FD_STDIN = 3,
    CTR_FD_STDOUT = 4,
    CTR_FD_STDERR = 5,
    CTR_FD_FIRST_FREE = 6
};

enum ctr_status_kind {
    CTR_STATUS_STARTED = 1,
    CTR_STATUS_CONSOLE = 2,
    CTR_STATUS_HELD = 3,
    CTR_STATUS_EXITED = 4,
    CTR_STATUS_LISTENER = 5 /* with the descriptor of a filter that asks somebody */
};

enum ctr_fault_action {
    CTR_FAULT_NONE = 0,
    CTR_FAULT_FAIL = 1,
    CTR_FAULT_HOLD = 2
};

enum ctr_feature {
    CTR_FEATURE_OPENAT2 = 1,
    CTR_FEATURE_CLONE3 = 2,
    CTR_FEATURE_MOUNT_API = 4,
    CTR_FEATURE_MOUNT_SETATTR = 8,
    CTR_FEATURE_CLOSE_RANGE = 16,
    CTR_FEATURE_PIDFD_OPEN = 32
};

struct ctr_error {
    int32_t step;
    int32_t err;
    int32_t index;
};

struct ctr_status {
    uint32_t kind;
    int32_t pid;
    int32_t code;
    int32_t value;
    uint64_t user_us;
    uint64_t system_us;
    uint64_t max_rss_bytes;
};

struct ctr_array {
    uint32_t offset;
    uint32_t count;
};

struct ctr_mount {
    uint32_t kind;
    uint32_t flags;
    uint32_t source;
    uint32_t target;
    uint32_t type;
    struct ctr_array options;
    uint32_t attributes;
    uint32_t propagation; /* MS_SHARED and the like, with MS_REC; 0 for private */
    int32_t fd;
    uint64_t device;
    uint64_t inode;
};

struct ctr_node {
    uint32_t kind;
    uint32_t name; /* below a /dev that is mounted; with a slash first, below the root */
    uint32_t target;
    uint32_t mode;
    uint32_t major;
    uint32_t minor;
    uint32_t uid;
    uint32_t gid;
};

struct ctr_file {
    uint32_t target;
    uint32_t mode;
    struct ctr_array content;
};

struct ctr_pair {
    uint32_t key;
    uint32_t value;
};

struct ctr_rlimit {
    uint32_t resource;
    uint32_t reserved;
    uint64_t soft;
    uint64_t hard;
};

struct ctr_spec {
    uint32_t magic;
    uint32_t version;
    uint32_t size;
    uint32_t flags;
    uint64_t namespaces;
    uint32_t staging;
    uint32_t root_source;
    uint32_t root_upper;
    uint32_t root_work;
    struct ctr_array root_lowers;
    struct ctr_array root_options;
    struct ctr_array scratch_options;
    struct ctr_array mounts;
    struct ctr_array nodes;
    struct ctr_array files;
    struct ctr_array sysctls;
    struct ctr_array readonly_paths;
    struct ctr_array masked_paths;
    struct ctr_array rlimits;
    struct ctr_array groups;
    struct ctr_array seccomp;
    struct ctr_array args;
    struct ctr_array env;
    struct ctr_array programs;
    uint32_t join_count;
    uint32_t hostname;
    uint32_t domainname;
    uint32_t workdir;
    uint64_t bounding;
    uint64_t permitted;
    uint64_t effective;
    uint64_t inheritable;
    uint64_t ambient;
    uint32_t uid;
    uint32_t gid;
    uint32_t umask;
    int32_t oom_score_adj;
    int32_t cgroup_fd;
    int32_t console_rows;
    int32_t console_columns;
    int32_t fault_action;
    int32_t fault_step;
    int32_t fault_errno;
    int32_t fault_index;
    uint32_t namespace_count;
    uint32_t kept_count;       /* descriptors for the command, from 3 up */
    uint32_t root_propagation; /* of the root at the end; 0 for private */
    uint32_t time_offsets;     /* of a time namespace of its own, as /proc/PID/timens_offsets takes them */
    uint32_t io_priority;
    uint32_t personality;
    uint32_t seccomp_flags;
    uint32_t apparmor; /* name of a profile */
    uint32_t reserved;
    struct ctr_array scheduler; /* bytes of a struct sched_attr */
    struct ctr_array affinity;  /* bytes of a mask of processors */
};

/* What a supervisor shall do with its container besides starting it once. */
enum ctr_restart {
    CTR_RESTART_NO = 0,
    CTR_RESTART_ON_FAILURE,
    CTR_RESTART_ALWAYS
};

enum ctr_order_flag {
    CTR_ORDER_LOG_OUT = 1, /* the supervisor reads this stream, for the log and for who attaches */
    CTR_ORDER_LOG_ERR = 2,
    CTR_ORDER_LOG = 4,   /* and writes what it reads into the log */
    CTR_ORDER_INPUT = 8, /* and keeps the other end of standard input for who attaches */
    CTR_ORDER_REMOVE = 16,
    CTR_ORDER_HEALTH = 32,
    CTR_ORDER_EVENTS = 64 /* the journal is told what happens */
};

enum ctr_order_limit {
    CTR_ORDER_TEXT_BYTES = 4096,
    CTR_HEALTH_OUTPUT_BYTES = 4096,
    CTR_HEALTH_RESULTS = 5
};

/* Goes with the first request to a supervisor. Descriptors behind those of the request: the container's directory,
 * the listening socket, with CTR_ORDER_HEALTH the spec of the check, for a process that joins, and with
 * CTR_ORDER_EVENTS the directory of the journal. cgroups: absolute paths of directories to remove at the end, each with
 * a NUL behind it. */
struct ctr_order {
    uint32_t size;
    uint32_t flags;
    uint32_t restart;
    uint32_t restart_most;
    uint64_t log_limit_bytes;
    uint32_t log_keep;
    uint32_t health_interval_ms;
    uint32_t health_timeout_ms;
    uint32_t health_retries;
    uint32_t health_start_period_ms;
    uint32_t health_start_interval_ms;
    uint32_t cgroups_size;
    uint32_t reserved;
    char id[64];
    char cgroups[4096];
};

enum ctr_event_kind {
    CTR_EVENT_TEXT = 0, /* a document of Python's follows */
    CTR_EVENT_START = 1,
    CTR_EVENT_DIE = 2,     /* value: exit code; code: signal */
    CTR_EVENT_HEALTH = 3,  /* value: enum ctr_health */
    CTR_EVENT_DESTROY = 4
};

enum ctr_event_limit {
    CTR_EVENT_JOURNAL_BYTES = 16777216 /* of a file that nobody has put aside, and that grows no more */
};

/* One record of the journal, which all processes append to, each with one write. size: with what follows. */
struct ctr_event {
    uint32_t magic;
    uint32_t size;
    uint64_t time_ns;
    uint32_t kind;
    int32_t value;
    int32_t code;
    uint32_t reserved;
    char id[64];
};

enum ctr_log_stream {
    CTR_LOG_STDOUT = 1,
    CTR_LOG_STDERR = 2,
    CTR_LOG_TTY = 3,
    CTR_LOG_LOST = 4, /* a count of bytes that could not be written */
    CTR_LOG_START = 5 /* nothing: what follows is of another start of the container */
};

enum ctr_log_limit {
    CTR_LOG_PIECE_BYTES = 65536
};

struct ctr_log_record {
    uint64_t time_ns;
    uint32_t size;
    uint32_t stream;
};

enum ctr_phase {
    CTR_PHASE_RUNNING = 1,
    CTR_PHASE_RESTARTING,
    CTR_PHASE_ENDED
};

enum ctr_health_status {
    CTR_HEALTH_NONE = 0,
    CTR_HEALTH_STARTING,
    CTR_HEALTH_HEALTHY,
    CTR_HEALTH_UNHEALTHY
};

/* What a supervisor leaves in the file "state". The two generations are the same unless it is just being written. */
struct ctr_state {
    uint32_t magic;
    uint32_t generation;
    uint32_t phase;
    uint32_t restarts;
    int32_t pid;
    uint32_t health;
    uint64_t start_ticks;
    uint64_t started_ns;
    uint64_t ended_ns;
    struct ctr_status exit;
    struct ctr_error error;
    uint32_t health_failures;
    uint32_t is_stopped;
    uint32_t last_generation;
};

/* One result in the file "health", a ring of CTR_HEALTH_RESULTS; number 0 is none. */
struct ctr_health_result {
    uint64_t number;
    uint64_t started_ns;
    uint64_t ended_ns;
    int32_t exit_code;
    uint32_t output_size;
    char output[4096];
};

enum ctr_command_kind {
    CTR_COMMAND_JOIN = 1, /* with the descriptors of a request; answered on its own status socket */
    CTR_COMMAND_STOP,     /* a signal after which it is not started again; SIGKILL after grace_ms, if not negative */
    CTR_COMMAND_ATTACH,   /* with pipes for its two outputs; the answer has an end of its input, if there is one */
    CTR_COMMAND_RESTART,  /* signal: a new enum ctr_restart, most: how often */
    CTR_COMMAND_PAUSED    /* signal: whether the container stands still, so that its health is not checked */
};

struct ctr_command {
    uint32_t kind;
    int32_t signal;
    int64_t grace_ms;
    uint32_t most;
    uint32_t reserved;
};

enum ctr_unpack_limit {
    CTR_UNPACK_TEXT_BYTES = 256
};

enum ctr_unpack_flag {
    CTR_UNPACK_DEVICES = 1,
    /* Into a tree that is in use: no whiteouts, mounts are crossed, no directory takes the place of something else
     * or the other way round. */
    CTR_UNPACK_PLAIN = 2
};

/* What became of an archive. What the archive does wrong, and CTR_UNPACK_SYSTEM with errno for the rest. */
enum ctr_unpack_reason {
    CTR_UNPACK_DONE = 0,
    CTR_UNPACK_IMPLIED,
    CTR_UNPACK_SYSTEM,
    CTR_UNPACK_CONFINE,
    CTR_UNPACK_CUT_OFF,
    CTR_UNPACK_CUT_OFF_IN_FILE,
    CTR_UNPACK_BEHIND_END,
    CTR_UNPACK_CHECKSUM,
    CTR_UNPACK_NUMBER,
    CTR_UNPACK_META_SIZE,
    CTR_UNPACK_KIND,
    CTR_UNPACK_DIRECTORY_CONTENT,
    CTR_UNPACK_SIZE,
    CTR_UNPACK_OWNER,
    CTR_UNPACK_NAME_BYTES,
    CTR_UNPACK_COMPONENT_BYTES,
    CTR_UNPACK_PAX_LENGTH,
    CTR_UNPACK_PAX_NUL,
    CTR_UNPACK_PAX_NUMBER,
    CTR_UNPACK_PAX_TIME,
    CTR_UNPACK_XATTR_NAME,
    CTR_UNPACK_XATTR_SIZE,
    CTR_UNPACK_XATTR,
    CTR_UNPACK_SPARSE,
    CTR_UNPACK_ENTRIES,
    CTR_UNPACK_BYTES,
    CTR_UNPACK_MEMORY,
    CTR_UNPACK_REFUSED,
    CTR_UNPACK_LINK_TO_NOTHING,
    CTR_UNPACK_OUTSIDE,
    CTR_UNPACK_ROOT,
    CTR_UNPACK_IN_THE_WAY,
    CTR_UNPACK_OTHER_KIND,
    CTR_UNPACK_LINKS,
    CTR_UNPACK_OTHER_FILE_SYSTEM,
    CTR_UNPACK_DEVICE,
    CTR_UNPACK_DEVICE_NUMBER,
    CTR_UNPACK_DEVICE_WHITEOUT,
    CTR_UNPACK_WHITEOUT_NAME,
    CTR_UNPACK_WHITEOUT_KIND,
    CTR_UNPACK_WHITEOUT_PARENT,
    CTR_UNPACK_WHITEOUT_LINK,
    CTR_UNPACK_HARDLINK_MISSING,
    CTR_UNPACK_HARDLINK_DIRECTORY,
    CTR_UNPACK_HARDLINK_REMOVED,
    CTR_UNPACK_HARDLINK_SELF
};

struct ctr_unpack_order {
    uint64_t entries;
    uint64_t total_bytes;
    uint32_t flags;
    uint32_t reserved;
};

/* A directory that the archive needs and says nothing of; such records come before the result. The path is as long
 * as the record is. */
struct ctr_unpack_implied {
    uint32_t reason;
    char path[4096];
};

/* name: of the entry; detail: what in particular is wrong. Neither is terminated; sizes say how much is there. */
struct ctr_unpack_result {
    uint32_t reason;
    int32_t err;
    uint64_t entries;
    uint64_t size_bytes;
    uint32_t name_size;
    uint32_t detail_size;
    char name[256];
    char detail[256];
};

/* CDEF END */

#endif
