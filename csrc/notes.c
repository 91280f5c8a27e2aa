/* Notes lie behind each other in one block, in the order of the archive. */
#define _GNU_SOURCE
#include "notes.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attribute.h"

enum { MAX_BYTES = 256 << 20 };

struct note {
    int64_t mtime_ns;
    uint32_t size;
    char path[];
};

static size_t space_of(size_t path_size)
{
    return (sizeof(struct note) + path_size + 7) & ~(size_t)7;
}

static const struct note *note_at(const struct notes *notes, size_t at)
{
    return (const struct note *)(notes->data + at);
}

int notes_add(struct notes *notes, const char *path, size_t size, int64_t mtime_ns)
{
    size_t wanted = space_of(size);
    struct note *note;

    if (notes->used + wanted > notes->room) {
        size_t room = notes->room ? 2 * notes->room : 1 << 20;
        char *more = room > MAX_BYTES ? NULL : realloc(notes->data, room);

        if (!more)
            return -1;
        notes->data = more;
        notes->room = room;
    }
    note = (struct note *)(notes->data + notes->used);
    note->mtime_ns = mtime_ns;
    note->size = (uint32_t)size;
    memcpy(note->path, path, size);
    notes->used += wanted;
    return 0;
}

/* A directory may since have been replaced by something else, which has its own time. */
int notes_set_times(const struct notes *notes, struct tree *tree)
{
    for (size_t at = 0; at < notes->used; at += space_of(note_at(notes, at)->size)) {
        const struct note *note = note_at(notes, at);
        int fd = tree_find(tree, note->path, note->size);

        if (fd >= 0 && attribute_time(fd, ".", note->mtime_ns) < 0)
            return -1;
    }
    return 0;
}

static int compare(const void *left, const void *right)
{
    const struct note *a = *(const struct note *const *)left;
    const struct note *b = *(const struct note *const *)right;
    int order = memcmp(a->path, b->path, a->size < b->size ? a->size : b->size);

    return order ? order : (a->size > b->size) - (a->size < b->size);
}

struct report {
    int control;
    struct tree *tree;
    const struct note **sorted;
    size_t count;
};

/* What has an entry of its own has said how it shall be; what is no directory any more does not count. */
static int report_one(void *context, const char *path, size_t size)
{
    static struct ctr_unpack_implied record = {.reason = CTR_UNPACK_IMPLIED};
    static union {
        struct note note;
        char room[sizeof(struct note) + TREE_PATH];
    } wanted;
    const struct report *report = context;
    const struct note *key = &wanted.note;

    wanted.note.size = (uint32_t)size;
    memcpy(wanted.note.path, path, size);
    if (bsearch(&key, report->sorted, report->count, sizeof(key), compare) ||
        tree_find(report->tree, path, size) < 0)
        return 0;
    memcpy(record.path, path, size);
    return write(report->control, &record, offsetof(struct ctr_unpack_implied, path) + size) < 0 ? -1 : 0;
}

int notes_report_implied(const struct notes *notes, struct tree *tree, int control)
{
    struct report report = {.control = control, .tree = tree};
    size_t count = 0;

    for (size_t at = 0; at < notes->used; count++)
        at += space_of(note_at(notes, at)->size);
    report.sorted = malloc((count + 1) * sizeof(*report.sorted));
    if (!report.sorted)
        return -1;
    for (size_t at = 0; at < notes->used; at += space_of(note_at(notes, at)->size))
        report.sorted[report.count++] = note_at(notes, at);
    qsort(report.sorted, report.count, sizeof(*report.sorted), compare);
    return tree_implied(tree, report_one, &report);
}
