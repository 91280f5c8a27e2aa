/* The records of a PAX extended header. */
#ifndef CTR_TAR_PAX_H
#define CTR_TAR_PAX_H

#include "tar.h"

/* What the records of one entry say; a text without data was not given. */
struct tar_pax {
    char *data; /* the records themselves, for the extended attributes */
    size_t size;
    struct tar_text path;
    struct tar_text linkpath;
    struct tar_text uid;
    struct tar_text gid;
    struct tar_text size_text;
    struct tar_text mtime;
    struct tar_text sparse_name;
    struct tar_text sparse_major;
    struct tar_text sparse_minor;
    struct tar_text sparse_size; /* GNU.sparse.size, or realsize in form 1.0 */
    struct tar_text sparse_map;
    int is_sparse;
    uint32_t span_count; /* of form 0.0, whose records repeat */
    int has_offset;
};

/* Parses the `size` bytes at `data`, a buffer with room for one byte more, in which line ends become NULs.
 * Spans of sparse form 0.0 go to `spans`, and without `spans` no file may be sparse. 0, or -1 with what is wrong noted in `result`. */
int pax_parse(struct tar_pax *pax, char *data, size_t size, struct tar_span *spans,
              struct ctr_unpack_result *result);

/* The next record behind *cursor; `end` is what ends a line: '\n' in the archive, NUL once it was parsed.
 * 1, 0 at the end, -1 if it is damaged. */
int pax_next(char *data, size_t size, char end, size_t *cursor, struct tar_text *ret_key,
             struct tar_text *ret_value);

#endif
