/* Writing the log of a container. */
#define _GNU_SOURCE
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "sys.h"

enum { NAME_SIZE = 24, DIGITS = 8 };

static const char magic[8] = "CTRLOG1";

static void name_of(char name[static NAME_SIZE], uint64_t number)
{
    (void)snprintf(name, NAME_SIZE, "%0*llu", DIGITS, (unsigned long long)number);
}

/* The greatest number of a file; 0 if there is none. */
static uint64_t last_number(int directory)
{
    _Alignas(struct dirent64) char buffer[4096];
    uint64_t last = 0;
    ssize_t n;

    if (lseek(directory, 0, SEEK_SET) < 0)
        return 0;
    while ((n = syscall(SYS_getdents64, directory, buffer, sizeof(buffer))) > 0)
        for (ssize_t at = 0; at < n;) {
            struct dirent64 *entry = (struct dirent64 *)(buffer + at);
            uint64_t number = strtoull(entry->d_name, NULL, 10);

            at += entry->d_reclen;
            if (number > last)
                last = number;
        }
    return last;
}

/* Where the last whole record ends; 0 if the file is none of ours. */
static uint64_t end_of_records(int file, uint64_t size_bytes)
{
    struct ctr_log_record record;
    char head[sizeof(magic)];
    uint64_t at = sizeof(magic) + sizeof(uint64_t);

    if (pread(file, head, sizeof(head), 0) != sizeof(head) || memcmp(head, magic, sizeof(magic)) != 0)
        return 0;
    while (at + sizeof(record) <= size_bytes) {
        if (pread(file, &record, sizeof(record), (off_t)at) != sizeof(record))
            break;
        if (record.size > CTR_LOG_PIECE_BYTES || at + sizeof(record) + record.size > size_bytes)
            break;
        at += sizeof(record) + record.size;
    }
    return at;
}

/* Begins a file. 0, or -1 with errno; then there is none. */
static int begin_file(struct log *log, uint64_t number)
{
    char name[NAME_SIZE];
    struct iovec parts[] = {{(void *)(uintptr_t)magic, sizeof(magic)}, {&number, sizeof(number)}};

    close_fd(&log->file);
    name_of(name, number);
    log->file = openat(log->directory, name, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log->file < 0)
        return -1;
    if (writev(log->file, parts, 2) != (ssize_t)(sizeof(magic) + sizeof(number))) {
        (void)unlinkat(log->directory, name, 0);
        close_fd(&log->file);
        return -1;
    }
    log->number = number;
    log->size_bytes = sizeof(magic) + sizeof(number);
    return 0;
}

static void forget_files(const struct log *log)
{
    char name[NAME_SIZE];

    for (uint64_t i = log->keep; i < log->number; i++) {
        name_of(name, log->number - i);
        if (unlinkat(log->directory, name, 0) < 0)
            return;
    }
}

int log_open(struct log *log, int directory, uint64_t limit_bytes, uint32_t keep)
{
    uint64_t number = last_number(directory);
    char name[NAME_SIZE];
    struct stat st;

    *log = (struct log){.directory = directory, .file = -1, .limit_bytes = limit_bytes, .keep = keep ? keep : 1};
    if (number > 0) {
        _cleanup_close_ int file = -1;

        name_of(name, number);
        file = openat(directory, name, O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
        if (file >= 0 && fstat(file, &st) == 0)
            log->size_bytes = end_of_records(file, (uint64_t)st.st_size);
        /* A record that was cut off would hide all that follow. */
        if (log->size_bytes > 0 && ftruncate(file, (off_t)log->size_bytes) == 0) {
            log->number = number;
            log->file = take_fd(&file);
            return 0;
        }
    }
    /* A full disk is no reason not to start: it may be less full later. */
    if (begin_file(log, number + 1) < 0 && errno != ENOSPC && errno != EDQUOT)
        return -1;
    log->number = number + 1;
    return 0;
}

static uint64_t now_ns(struct log *log)
{
    struct timespec now;
    uint64_t ns;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    /* Whoever sets the clock back does not change the order. */
    if (ns > log->last_ns)
        log->last_ns = ns;
    return log->last_ns;
}

static int append(struct log *log, uint32_t stream, const void *data, size_t size)
{
    struct ctr_log_record record = {.time_ns = now_ns(log), .size = (uint32_t)size, .stream = stream};
    struct iovec parts[] = {{&record, sizeof(record)}, {(void *)(uintptr_t)data, size}};
    ssize_t whole = (ssize_t)(sizeof(record) + size);
    ssize_t n;

    if (log->limit_bytes > 0 && log->file >= 0 && log->size_bytes >= log->limit_bytes) {
        if (begin_file(log, log->number + 1) < 0)
            return -1;
        forget_files(log);
    }
    if (log->file < 0 && begin_file(log, log->number + 1) < 0)
        return -1;
    n = writev(log->file, parts, 2);
    if (n == whole) {
        log->size_bytes += (uint64_t)n;
        return 0;
    }
    if (n > 0)
        (void)!ftruncate(log->file, (off_t)log->size_bytes);
    return -1;
}

void log_write(struct log *log, uint32_t stream, const void *data, size_t size)
{
    uint64_t lost = log->lost_bytes;

    if (lost > 0) {
        if (append(log, CTR_LOG_LOST, &lost, sizeof(lost)) < 0) {
            log->lost_bytes += size;
            return;
        }
        log->lost_bytes = 0;
    }
    if (append(log, stream, data, size) < 0)
        log->lost_bytes += size;
}

void log_close(struct log *log)
{
    close_fd(&log->file);
}
