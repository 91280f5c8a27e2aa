/* A strict reader of tar archives: bytes in, entries out; touches no file system.
 *
 * Reads what layers are made of: ustar, PAX, GNU long names, sparse files of all four forms, and the variants of
 * Go and old Unix. Where two readers could see two different archives it refuses. */
#ifndef CTR_TAR_H
#define CTR_TAR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ctr.h"

enum tar_limit {
    TAR_BLOCK = 512,
    TAR_NAME_MAX = 4096,
    TAR_META_MAX = 1 << 20,
    TAR_SPANS_MAX = 1 << 16,
    TAR_BUFFER = 1 << 20
};

enum tar_kind { TAR_FILE, TAR_DIRECTORY, TAR_SYMLINK, TAR_HARDLINK, TAR_FIFO, TAR_CHAR, TAR_BLOCK_DEVICE };

/* Bytes inside one of the reader's buffers, with a NUL behind them, good until the next entry. */
struct tar_text {
    const char *data;
    size_t size;
};

/* A part of a sparse file that has content. */
struct tar_span {
    uint64_t offset;
    uint64_t size;
};

struct tar_entry {
    enum tar_kind kind;
    struct tar_text name;
    struct tar_text link;
    uint32_t mode;
    uint32_t uid;
    uint32_t gid;
    uint32_t major;
    uint32_t minor;
    uint64_t stored; /* bytes of content in the archive */
    uint64_t size;   /* of the file that is made of them */
    int64_t mtime_ns;
    int is_sparse;
    uint32_t span_count;
    const struct tar_span *spans;
};

/* Where the archive comes from, and what failed first. One per process; see `tar_open`. */
struct tar_reader;

/* Reads from `fd`, which does not block, until its end or until `owner_fd` (a pidfd, or -1) says that its
 * process is gone. Returns the one reader of this process. */
struct tar_reader *tar_open(int fd, int owner_fd, struct ctr_unpack_result *result);

/* 1 with the next entry, 0 at the end mark, -1 on failure. What is left of the entry before is skipped. */
int tar_next(struct tar_reader *reader, struct tar_entry *ret_entry);

/* Gives the next piece of the present entry's content, at most `limit` bytes. Its size, 0 at the end, or -1. */
ssize_t tar_content(struct tar_reader *reader, size_t limit, const uint8_t **ret_data);

/* Walks over the extended attributes of the present entry; *cursor begins with 0. 1 with one, 0 at the end, -1. */
int tar_xattr(struct tar_reader *reader, size_t *cursor, struct tar_text *ret_name, struct tar_text *ret_value);

/* Reads on to the end of the input and drops it. */
void tar_drain(struct tar_reader *reader);

/* Notes what failed, with errno for the reasons that have one; a later call changes nothing. Returns -1. */
int unpack_fail(struct ctr_unpack_result *result, enum ctr_unpack_reason reason, const void *detail, size_t size);

#endif
