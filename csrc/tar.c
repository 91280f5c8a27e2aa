/* Headers of an archive become entries. */
#define _GNU_SOURCE
#include "tar.h"

#include <errno.h>
#include <string.h>

#include "tar_input.h"
#include "tar_pax.h"
#include "tar_sparse.h"

/* The fields of a header block. */
struct header {
    char name[100];
    char mode[8];
    char uid[8];
    char gid[8];
    char size[12];
    char mtime[12];
    char checksum[8];
    char type;
    char link[100];
    char magic[8];
    char owner[32];
    char group[32];
    char major[8];
    char minor[8];
    char prefix[155];
    char rest[12];
};
_Static_assert(sizeof(struct header) == TAR_BLOCK, "a header is one block");

static const int64_t MAX_ID = 4294967294;
static const int64_t MAX_SIZE = (int64_t)1 << 62;

struct tar_reader {
    struct tar_input input;
    struct ctr_unpack_result *result;
    struct tar_pax pax;
    struct header header;
    uint64_t left;    /* content of the present entry that was not read */
    uint64_t padding; /* behind it */
    size_t long_name_size;
    size_t long_link_size;
    char name[TAR_BLOCK]; /* a name put together from the header */
    char link[TAR_BLOCK];
    struct tar_span spans[TAR_SPANS_MAX];
    uint8_t buffer[TAR_BUFFER];
    char extended[TAR_META_MAX + TAR_BLOCK];
    char global[TAR_META_MAX + TAR_BLOCK];
    char long_name[TAR_META_MAX + TAR_BLOCK];
    char long_link[TAR_META_MAX + TAR_BLOCK];
};

/* One process reads one archive; what is not touched of this costs nothing. */
static struct tar_reader the_reader;

struct tar_reader *tar_open(int fd, int owner_fd, struct ctr_unpack_result *result)
{
    the_reader.input = (struct tar_input){.fd = fd, .owner_fd = owner_fd, .buffer = the_reader.buffer};
    the_reader.result = result;
    return &the_reader;
}

int unpack_fail(struct ctr_unpack_result *result, enum ctr_unpack_reason reason, const void *detail, size_t size)
{
    if (result->reason != CTR_UNPACK_DONE)
        return -1;
    result->reason = reason;
    result->err = errno;
    result->detail_size = (uint32_t)(size < CTR_UNPACK_TEXT_BYTES ? size : CTR_UNPACK_TEXT_BYTES);
    if (result->detail_size)
        memcpy(result->detail, detail, result->detail_size);
    return -1;
}

static int fail(struct tar_reader *r, enum ctr_unpack_reason reason)
{
    return unpack_fail(r->result, reason, NULL, 0);
}

/* A number in a header, or what is wrong with it. */
static int number(struct tar_reader *r, const char *field, size_t size, int64_t *ret_number)
{
    if (header_number(field, size, ret_number) < 0)
        return unpack_fail(r->result, CTR_UNPACK_NUMBER, field, size);
    return 0;
}

/* A number that a PAX record may override. */
static int number_of(struct tar_reader *r, const struct tar_text *text, const char *field, size_t size,
                     int64_t *ret_number)
{
    if (!text->data)
        return number(r, field, size, ret_number);
    if (decimal_number(text->data, text->size, ret_number) < 0)
        return unpack_fail(r->result, CTR_UNPACK_PAX_NUMBER, text->data, text->size);
    return 0;
}

/* Reads the next block into the header. 1, 0 at the end of the input, -1. */
static int read_block(struct tar_reader *r)
{
    ssize_t n = input_need(&r->input, TAR_BLOCK);

    if (n < 0)
        return fail(r, CTR_UNPACK_SYSTEM);
    if (n == 0)
        return 0;
    if (n < TAR_BLOCK)
        return fail(r, CTR_UNPACK_CUT_OFF);
    memcpy(&r->header, r->input.buffer + r->input.start, TAR_BLOCK);
    r->input.start += TAR_BLOCK;
    return 1;
}

static int is_zero(const struct header *header)
{
    const char *bytes = (const char *)header;

    return bytes[0] == 0 && memcmp(bytes, bytes + 1, TAR_BLOCK - 1) == 0;
}

/* Some old programs summed signed characters. */
static int check_sum(struct tar_reader *r)
{
    const uint8_t *bytes = (const uint8_t *)&r->header;
    int64_t stored;
    int64_t plain = 0;
    int64_t high = 0;

    if (number(r, r->header.checksum, sizeof(r->header.checksum), &stored) < 0)
        return -1;
    for (int i = 0; i < TAR_BLOCK; i++) {
        int byte = i >= 148 && i < 156 ? ' ' : bytes[i];

        plain += byte;
        high += byte > 127;
    }
    if (stored != plain && stored != plain - 256 * high)
        return fail(r, CTR_UNPACK_CHECKSUM);
    return 0;
}

int tar_extra_block(struct tar_reader *r, uint8_t *ret_block)
{
    ssize_t n = input_need(&r->input, TAR_BLOCK);

    if (n < TAR_BLOCK)
        return fail(r, n < 0 ? CTR_UNPACK_SYSTEM : CTR_UNPACK_CUT_OFF);
    memcpy(ret_block, r->input.buffer + r->input.start, TAR_BLOCK);
    r->input.start += TAR_BLOCK;
    return 1;
}

int tar_bad_sparse(struct tar_reader *r)
{
    return fail(r, CTR_UNPACK_SPARSE);
}

/* Reads a header; 0 at the end of the archive: two blocks of zeros, one, or none at all. */
static int read_header(struct tar_reader *r, int after_meta)
{
    int more = read_block(r);

    if (more < 0)
        return -1;
    if (more == 0)
        return after_meta ? fail(r, CTR_UNPACK_CUT_OFF) : 0;
    if (is_zero(&r->header)) {
        if (after_meta)
            return fail(r, CTR_UNPACK_BEHIND_END);
        more = read_block(r);
        if (more > 0 && !is_zero(&r->header))
            return fail(r, CTR_UNPACK_BEHIND_END);
        return more < 0 ? -1 : 0;
    }
    return check_sum(r) < 0 ? -1 : 1;
}

/* Reads the content of an extended header into `data`, which has room for it and for a NUL. */
static int read_meta(struct tar_reader *r, char *data, size_t *ret_size)
{
    int64_t size;
    size_t done = 0;

    if (number(r, r->header.size, sizeof(r->header.size), &size) < 0)
        return -1;
    if (size < 0 || size > TAR_META_MAX)
        return fail(r, CTR_UNPACK_META_SIZE);
    while (done < (size_t)size) {
        ssize_t n = input_need(&r->input, TAR_BLOCK);

        if (n < TAR_BLOCK)
            return fail(r, n < 0 ? CTR_UNPACK_SYSTEM : CTR_UNPACK_CUT_OFF);
        memcpy(data + done, r->input.buffer + r->input.start, TAR_BLOCK);
        r->input.start += TAR_BLOCK;
        done += TAR_BLOCK;
    }
    data[size] = 0;
    *ret_size = (size_t)size;
    return 0;
}

static int read_long(struct tar_reader *r, char *data, size_t *ret_size)
{
    size_t size;

    if (read_meta(r, data, &size) < 0)
        return -1;
    *ret_size = strlen(data);
    return 0;
}

/* Reads the headers that only say something about the next one. 1 when that has been read, 0 at the end, -1. */
static int read_headers(struct tar_reader *r)
{
    int seen = 0;
    int more;
    size_t size;

    r->pax = (struct tar_pax){0};
    r->long_name_size = r->long_link_size = 0;
    while ((more = read_header(r, seen)) > 0) {
        switch (r->header.type) {
        case 'x':
            if (read_meta(r, r->extended, &size) < 0 ||
                pax_parse(&r->pax, r->extended, size, r->spans, r->result) < 0)
                return -1;
            seen |= size > 0;
            break;
        case 'g': { /* like Docker: checked, then ignored */
            struct tar_pax ignored;

            if (read_meta(r, r->global, &size) < 0 ||
                pax_parse(&ignored, r->global, size, NULL, r->result) < 0)
                return -1;
            break;
        }
        case 'L':
            if (read_long(r, r->long_name, &r->long_name_size) < 0)
                return -1;
            seen |= r->long_name_size > 0;
            break;
        case 'K':
            if (read_long(r, r->long_link, &r->long_link_size) < 0)
                return -1;
            seen |= r->long_link_size > 0;
            break;
        default:
            return 1;
        }
    }
    return more;
}

/* The name of an entry without extensions: ustar splits long ones. */
static struct tar_text header_name(struct tar_reader *r)
{
    size_t size = strnlen(r->header.name, sizeof(r->header.name));
    size_t prefix = 0;

    if (memcmp(r->header.magic, "ustar\00000", 8) == 0)
        prefix = strnlen(r->header.prefix, sizeof(r->header.prefix));
    if (prefix) {
        memcpy(r->name, r->header.prefix, prefix);
        r->name[prefix++] = '/';
    }
    memcpy(r->name + prefix, r->header.name, size);
    r->name[prefix + size] = 0;
    return (struct tar_text){r->name, prefix + size};
}

static struct tar_text header_link(struct tar_reader *r)
{
    size_t size = strnlen(r->header.link, sizeof(r->header.link));

    memcpy(r->link, r->header.link, size);
    r->link[size] = 0;
    return (struct tar_text){r->link, size};
}

static int set_names(struct tar_reader *r, struct tar_entry *e)
{
    e->name = header_name(r);
    e->link = header_link(r);
    if (r->pax.path.data)
        e->name = r->pax.path;
    if (r->long_name_size)
        e->name = (struct tar_text){r->long_name, r->long_name_size};
    if (r->pax.sparse_name.size)
        e->name = r->pax.sparse_name;
    if (r->pax.linkpath.data)
        e->link = r->pax.linkpath;
    if (r->long_link_size)
        e->link = (struct tar_text){r->long_link, r->long_link_size};
    r->result->name_size = (uint32_t)(e->name.size < CTR_UNPACK_TEXT_BYTES ? e->name.size : CTR_UNPACK_TEXT_BYTES);
    memcpy(r->result->name, e->name.data, r->result->name_size);
    if (e->name.size > TAR_NAME_MAX || e->link.size > TAR_NAME_MAX)
        return fail(r, CTR_UNPACK_NAME_BYTES);
    return 0;
}

static int set_kind(struct tar_reader *r, struct tar_entry *e)
{
    static const char types[] = "1234567";
    static const enum tar_kind kinds[] = {TAR_HARDLINK,  TAR_SYMLINK, TAR_CHAR, TAR_BLOCK_DEVICE,
                                          TAR_DIRECTORY, TAR_FIFO,    TAR_FILE};
    const char *found;

    e->is_sparse = r->header.type == 'S' || r->pax.is_sparse;
    if (r->header.type == '0' || r->header.type == 0 || r->header.type == 'S') {
        e->kind = TAR_FILE;
        if (r->header.type == 0 && e->name.size && e->name.data[e->name.size - 1] == '/')
            e->kind = TAR_DIRECTORY;
        return 0;
    }
    found = strchr(types, r->header.type);
    if (!found)
        return unpack_fail(r->result, CTR_UNPACK_KIND, &r->header.type, 1);
    e->kind = kinds[found - types];
    return 0;
}

static int set_sizes(struct tar_reader *r, struct tar_entry *e)
{
    int64_t size = 0;

    if (e->kind == TAR_FILE || (e->kind == TAR_DIRECTORY && r->header.type == 0))
        if (number_of(r, &r->pax.size_text, r->header.size, sizeof(r->header.size), &size) < 0)
            return -1;
    if (size < 0 || size >= MAX_SIZE)
        return fail(r, CTR_UNPACK_SIZE);
    if (e->kind == TAR_DIRECTORY && size)
        return fail(r, CTR_UNPACK_DIRECTORY_CONTENT);
    e->stored = e->size = (uint64_t)size;
    r->left = (uint64_t)size;
    r->padding = -(uint64_t)size % TAR_BLOCK;
    e->spans = NULL;
    e->span_count = 0;
    if (!e->is_sparse)
        return 0;
    if (e->kind != TAR_FILE)
        return fail(r, CTR_UNPACK_SPARSE);
    e->spans = r->spans;
    return sparse_map(r, r->header.type == 'S' ? (const char *)&r->header : NULL, &r->pax, r->spans, e);
}

static int set_attributes(struct tar_reader *r, struct tar_entry *e)
{
    const struct header *h = &r->header;
    int64_t mode, uid, gid, mtime, major = 0, minor = 0;
    int is_device = e->kind == TAR_CHAR || e->kind == TAR_BLOCK_DEVICE;

    if (number(r, h->mode, sizeof(h->mode), &mode) < 0 ||
        number_of(r, &r->pax.uid, h->uid, sizeof(h->uid), &uid) < 0 ||
        number_of(r, &r->pax.gid, h->gid, sizeof(h->gid), &gid) < 0)
        return -1;
    if (is_device && (number(r, h->major, sizeof(h->major), &major) < 0 ||
                      number(r, h->minor, sizeof(h->minor), &minor) < 0))
        return -1;
    if (uid < 0 || uid > MAX_ID || gid < 0 || gid > MAX_ID)
        return fail(r, CTR_UNPACK_OWNER);
    if (r->pax.mtime.data) {
        if (decimal_time(r->pax.mtime.data, r->pax.mtime.size, &mtime) < 0)
            return unpack_fail(r->result, CTR_UNPACK_PAX_TIME, r->pax.mtime.data, r->pax.mtime.size);
    } else {
        if (number(r, h->mtime, sizeof(h->mtime), &mtime) < 0)
            return -1;
        if (__builtin_mul_overflow(mtime, 1000000000, &mtime))
            mtime = 0;
    }
    e->mode = (uint32_t)mode & 07777;
    e->uid = (uint32_t)uid;
    e->gid = (uint32_t)gid;
    e->mtime_ns = mtime < 0 || mtime == INT64_MAX ? 0 : mtime;
    e->major = major < 0 || major > UINT32_MAX ? UINT32_MAX : (uint32_t)major;
    e->minor = minor < 0 || minor > UINT32_MAX ? UINT32_MAX : (uint32_t)minor;
    return 0;
}

/* Skips content and padding that nobody has read. */
static int skip_rest(struct tar_reader *r)
{
    uint64_t padding = r->padding, left = r->left + padding;

    r->left = r->padding = 0;
    while (left) {
        ssize_t n = input_need(&r->input, 1);
        size_t ready;

        if (n == 0 && left <= padding)
            return 0; /* Programs in Go leave it out at the end, as "umoci insert" does. */
        if (n <= 0)
            return fail(r, n < 0 ? CTR_UNPACK_SYSTEM : CTR_UNPACK_CUT_OFF_IN_FILE);
        ready = r->input.end - r->input.start;
        if (ready > left)
            ready = (size_t)left;
        r->input.start += ready;
        left -= ready;
    }
    return 0;
}

int tar_next(struct tar_reader *r, struct tar_entry *e)
{
    int more;

    if (skip_rest(r) < 0)
        return -1;
    r->result->name_size = 0;
    more = read_headers(r);
    if (more <= 0)
        return more;
    if (set_names(r, e) < 0 || set_kind(r, e) < 0 || set_sizes(r, e) < 0 || set_attributes(r, e) < 0)
        return -1;
    return 1;
}

ssize_t tar_content(struct tar_reader *r, size_t limit, const uint8_t **ret_data)
{
    size_t ready;
    ssize_t n;

    if (limit > r->left)
        limit = (size_t)r->left;
    if (limit == 0)
        return 0;
    n = input_need(&r->input, 1);
    if (n <= 0)
        return fail(r, n < 0 ? CTR_UNPACK_SYSTEM : CTR_UNPACK_CUT_OFF_IN_FILE);
    ready = r->input.end - r->input.start;
    if (ready > limit)
        ready = limit;
    *ret_data = r->input.buffer + r->input.start;
    r->input.start += ready;
    r->left -= ready;
    return (ssize_t)ready;
}

int tar_xattr(struct tar_reader *r, size_t *cursor, struct tar_text *ret_name, struct tar_text *ret_value)
{
    static const char prefix[] = "SCHILY.xattr.";
    struct tar_text key;
    int more;

    if (!r->pax.data)
        return 0;
    while ((more = pax_next(r->pax.data, r->pax.size, 0, cursor, &key, ret_value)) > 0) {
        if (key.size < sizeof(prefix) - 1 || memcmp(key.data, prefix, sizeof(prefix) - 1) != 0)
            continue;
        *ret_name = (struct tar_text){key.data + sizeof(prefix) - 1, key.size - (sizeof(prefix) - 1)};
        if (ret_name->size < 1 || ret_name->size > 255)
            return unpack_fail(r->result, CTR_UNPACK_XATTR_NAME, ret_name->data, ret_name->size);
        if (ret_value->size > 65536)
            return unpack_fail(r->result, CTR_UNPACK_XATTR_SIZE, ret_name->data, ret_name->size);
        return 1;
    }
    return more;
}

void tar_drain(struct tar_reader *r)
{
    do
        r->input.start = r->input.end;
    while (input_need(&r->input, 1) > 0);
}
