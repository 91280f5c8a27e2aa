/* Sparse files: GNU's own header with its continuations, and the forms 0.0, 0.1 and 1.0 in PAX records. */
#define _GNU_SOURCE
#include "tar_sparse.h"

#include <string.h>

#include "tar_input.h"

enum { SPAN_FIELD = 12, IN_HEADER = 4, IN_BLOCK = 21, HEADER_SPANS = 386, HEADER_MORE = 482, HEADER_SIZE = 483, BLOCK_MORE = 504 };

static int text_number(const struct tar_text *text, uint64_t *ret_number)
{
    int64_t number;

    if (!text->data || decimal_number(text->data, text->size, &number) < 0 || number < 0)
        return -1;
    *ret_number = (uint64_t)number;
    return 0;
}

/* Adds the spans of a block of GNU's form; one that is empty ends them. */
static int gnu_spans(const char *block, int count, struct tar_span *spans, struct tar_entry *e)
{
    for (int i = 0; i < count; i++, block += 2 * SPAN_FIELD) {
        int64_t offset, size;

        if (block[SPAN_FIELD] == 0)
            return 0;
        if (e->span_count >= TAR_SPANS_MAX || header_number(block, SPAN_FIELD, &offset) < 0 ||
            header_number(block + SPAN_FIELD, SPAN_FIELD, &size) < 0 || offset < 0 || size < 0)
            return -1;
        spans[e->span_count++] = (struct tar_span){(uint64_t)offset, (uint64_t)size};
    }
    return 0;
}

static int gnu_map(struct tar_reader *reader, const char *header, struct tar_span *spans, struct tar_entry *e)
{
    uint8_t block[TAR_BLOCK];
    int64_t size;
    int more = header[HEADER_MORE] != 0;

    if (header_number(header + HEADER_SIZE, SPAN_FIELD, &size) < 0 || size < 0 ||
        gnu_spans(header + HEADER_SPANS, IN_HEADER, spans, e) < 0)
        return tar_bad_sparse(reader);
    e->size = (uint64_t)size;
    while (more) {
        if (tar_extra_block(reader, block) < 0)
            return -1;
        if (gnu_spans((const char *)block, IN_BLOCK, spans, e) < 0)
            return tar_bad_sparse(reader);
        more = block[BLOCK_MORE] != 0;
    }
    return 0;
}

/* Form 0.1: all numbers in one record, with commas between. */
static int comma_map(const struct tar_text *map, struct tar_span *spans, struct tar_entry *e)
{
    const char *at = map->data;
    const char *end = map->data + map->size;
    int is_offset = 1;

    while (at < end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        struct tar_text text = {at, (size_t)((comma ? comma : end) - at)};
        uint64_t number;

        if (e->span_count >= TAR_SPANS_MAX || text_number(&text, &number) < 0)
            return -1;
        if (is_offset)
            spans[e->span_count].offset = number;
        else
            spans[e->span_count++].size = number;
        is_offset = !is_offset;
        at = comma ? comma + 1 : end;
    }
    return is_offset ? 0 : -1;
}

/* The lines at the beginning of the content in form 1.0. */
struct lines {
    struct tar_reader *reader;
    const uint8_t *data;
    size_t left;
    size_t taken;
};

static int next_byte(struct lines *lines)
{
    if (lines->left == 0) {
        ssize_t n = tar_content(lines->reader, TAR_BLOCK - lines->taken % TAR_BLOCK, &lines->data);

        if (n <= 0)
            return -1;
        lines->left = (size_t)n;
        lines->taken += (size_t)n;
    }
    lines->left--;
    return *lines->data++;
}

static int next_line(struct lines *lines, uint64_t *ret_number)
{
    char text[24];
    size_t size = 0;
    int byte;

    while ((byte = next_byte(lines)) != '\n') {
        if (byte < 0 || size >= sizeof(text))
            return -1;
        text[size++] = (char)byte;
    }
    return text_number(&(struct tar_text){text, size}, ret_number);
}

/* Form 1.0: the number of spans and the spans, a number a line, filled up to whole blocks. */
static int line_map(struct tar_reader *reader, struct tar_span *spans, struct tar_entry *e)
{
    struct lines lines = {.reader = reader};
    uint64_t count;

    if (next_line(&lines, &count) < 0 || count > TAR_SPANS_MAX)
        return -1;
    for (uint64_t i = 0; i < count; i++)
        if (next_line(&lines, &spans[i].offset) < 0 || next_line(&lines, &spans[i].size) < 0)
            return -1;
    while (lines.left || lines.taken % TAR_BLOCK)
        if (next_byte(&lines) < 0)
            return -1;
    e->span_count = (uint32_t)count;
    e->stored -= lines.taken;
    return 0;
}

static int pax_map(struct tar_reader *reader, const struct tar_pax *pax, struct tar_span *spans,
                   struct tar_entry *e)
{
    uint64_t major = 0, minor = 0;

    if (text_number(&pax->sparse_size, &e->size) < 0 ||
        (pax->sparse_major.data && text_number(&pax->sparse_major, &major) < 0) ||
        (pax->sparse_minor.data && text_number(&pax->sparse_minor, &minor) < 0))
        return -1;
    if (major == 1 && minor == 0 && !pax->sparse_map.data && !pax->span_count)
        return line_map(reader, spans, e);
    if (major != 0)
        return -1;
    if (pax->sparse_map.data)
        return pax->span_count ? -1 : comma_map(&pax->sparse_map, spans, e);
    e->span_count = pax->span_count;
    return pax->has_offset ? -1 : 0;
}

/* In order, without overlaps, inside the file, and together exactly what is stored. */
static int check(const struct tar_entry *e)
{
    uint64_t position = 0;
    uint64_t sum = 0;

    if (e->size >= (uint64_t)1 << 62)
        return -1;
    for (uint32_t i = 0; i < e->span_count; i++) {
        const struct tar_span *span = &e->spans[i];

        if (span->offset < position || span->offset > e->size || span->size > e->size - span->offset)
            return -1;
        position = span->offset + span->size;
        sum += span->size;
    }
    return sum == e->stored ? 0 : -1;
}

int sparse_map(struct tar_reader *reader, const char *header, const struct tar_pax *pax, struct tar_span *spans,
               struct tar_entry *entry)
{
    if (header && pax->is_sparse)
        return tar_bad_sparse(reader);
    if (header && gnu_map(reader, header, spans, entry) < 0)
        return -1;
    if (!header && pax_map(reader, pax, spans, entry) < 0)
        return tar_bad_sparse(reader);
    return check(entry) < 0 ? tar_bad_sparse(reader) : 0;
}
