/* PAX records: "length key=value\n", where the length counts itself and the end of the line. */
#define _GNU_SOURCE
#include "tar_pax.h"

#include <string.h>

#include "tar_input.h"

enum { MAX_LENGTH_DIGITS = 8 };

int pax_next(char *data, size_t size, char end, size_t *cursor, struct tar_text *ret_key,
             struct tar_text *ret_value)
{
    size_t begin = *cursor;
    size_t at = begin;
    size_t length = 0;
    char *equals;

    if (begin >= size)
        return 0;
    while (at < size && at - begin <= MAX_LENGTH_DIGITS && data[at] >= '0' && data[at] <= '9')
        length = length * 10 + (size_t)(data[at++] - '0');
    if (at == begin || at >= size || data[at] != ' ' || length > size - begin || length <= at - begin + 1)
        return -1;
    /* Where the records were parsed before, the line ends are NULs. */
    if (data[begin + length - 1] != end)
        return -1;
    at++;
    equals = memchr(data + at, '=', begin + length - at);
    if (!equals || equals == data + at)
        return -1;
    data[begin + length - 1] = 0;
    *ret_key = (struct tar_text){data + at, (size_t)(equals - data) - at};
    *ret_value = (struct tar_text){equals + 1, begin + length - 1 - (size_t)(equals + 1 - data)};
    *cursor = begin + length;
    return 1;
}

static int is_key(const struct tar_text *key, const char *name)
{
    return key->size == strlen(name) && memcmp(key->data, name, key->size) == 0;
}

/* An offset and the number of bytes there come in records of their own, in turn. */
static int add_span(struct tar_pax *pax, struct tar_span *spans, const struct tar_text *value, int is_offset)
{
    int64_t number;

    if (decimal_number(value->data, value->size, &number) < 0 || number < 0 || is_offset == pax->has_offset ||
        pax->span_count >= TAR_SPANS_MAX)
        return -1;
    if (is_offset)
        spans[pax->span_count].offset = (uint64_t)number;
    else
        spans[pax->span_count++].size = (uint64_t)number;
    pax->has_offset = is_offset;
    return 0;
}

static int note_sparse(struct tar_pax *pax, struct tar_span *spans, const struct tar_text *key,
                       const struct tar_text *value)
{
    pax->is_sparse = 1;
    if (is_key(key, "GNU.sparse.offset"))
        return add_span(pax, spans, value, 1);
    if (is_key(key, "GNU.sparse.numbytes"))
        return add_span(pax, spans, value, 0);
    if (is_key(key, "GNU.sparse.name"))
        pax->sparse_name = *value;
    else if (is_key(key, "GNU.sparse.major"))
        pax->sparse_major = *value;
    else if (is_key(key, "GNU.sparse.minor"))
        pax->sparse_minor = *value;
    else if (is_key(key, "GNU.sparse.size") || is_key(key, "GNU.sparse.realsize"))
        pax->sparse_size = *value;
    else if (is_key(key, "GNU.sparse.map"))
        pax->sparse_map = *value;
    else if (!is_key(key, "GNU.sparse.numblocks"))
        return -1;
    return 0;
}

/* The last of several records with one key counts, and an empty one takes it back. */
static void note_text(struct tar_pax *pax, const struct tar_text *key, const struct tar_text *value)
{
    struct {
        const char *name;
        struct tar_text *text;
    } known[] = {{"path", &pax->path}, {"linkpath", &pax->linkpath}, {"uid", &pax->uid},
                 {"gid", &pax->gid},   {"size", &pax->size_text},    {"mtime", &pax->mtime}};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (is_key(key, known[i].name))
            *known[i].text = value->size ? *value : (struct tar_text){NULL, 0};
}

int pax_parse(struct tar_pax *pax, char *data, size_t size, struct tar_span *spans,
              struct ctr_unpack_result *result)
{
    struct tar_text key;
    struct tar_text value;
    size_t cursor = 0;
    int more;

    *pax = (struct tar_pax){.data = data, .size = size};
    while ((more = pax_next(data, size, '\n', &cursor, &key, &value)) > 0) {
        if (memchr(key.data, 0, key.size) ||
            ((is_key(&key, "path") || is_key(&key, "linkpath") || is_key(&key, "GNU.sparse.name")) &&
             memchr(value.data, 0, value.size)))
            return unpack_fail(result, CTR_UNPACK_PAX_NUL, key.data, key.size);
        if (key.size > 11 && memcmp(key.data, "GNU.sparse.", 11) == 0) {
            if (!spans || note_sparse(pax, spans, &key, &value) < 0)
                return unpack_fail(result, CTR_UNPACK_SPARSE, key.data, key.size);
        } else {
            note_text(pax, &key, &value);
        }
    }
    if (more < 0)
        return unpack_fail(result, CTR_UNPACK_PAX_LENGTH, NULL, 0);
    return 0;
}
