/* The log of a container: records as they were read, in numbered files of bounded size.
 *
 * A file: eight bytes of magic, its number, then records: struct ctr_log_record and the bytes. Nothing is allocated,
 * and nothing that the disk does ever fails the container: what cannot be written is counted, and the count written
 * when that works again. */
#ifndef CTR_LOG_H
#define CTR_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "ctr.h"

struct log {
    int directory;
    int file;
    uint64_t limit_bytes; /* of a file; 0 for none */
    uint32_t keep;        /* how many files stay */
    uint64_t number;      /* of the file */
    uint64_t size_bytes;
    uint64_t last_ns;
    uint64_t lost_bytes;
};

/* Goes on behind what is in the directory. `directory` stays the caller's. 0, or -1 with errno. */
int log_open(struct log *log, int directory, uint64_t limit_bytes, uint32_t keep);

/* Adds one record of an enum ctr_log_stream. */
void log_write(struct log *log, uint32_t stream, const void *data, size_t size);

void log_close(struct log *log);

#endif
