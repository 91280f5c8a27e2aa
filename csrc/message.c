/* Checks a start request once, so that the rest of the program may read it without further care. */
#include "message.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

struct checker {
    const struct ctr_spec *spec;
    uint32_t fd_count;
    int bad;
};

/* Only these may be made anew for a container. */
static const uint64_t allowed_namespaces = 0x00020000 /* NEWNS */ | 0x04000000 /* NEWUTS */ |
                                           0x08000000 /* NEWIPC */ | 0x20000000 /* NEWPID */ |
                                           0x40000000 /* NEWNET */;
static const uint64_t new_user_namespace = 0x10000000;

static void check_array(struct checker *c, struct ctr_array array, size_t item, uint32_t limit)
{
    size_t end;

    if (array.count == 0)
        return;
    if (array.count > limit || array.offset < sizeof(struct ctr_spec) || array.offset % 8) {
        c->bad = 1;
        return;
    }
    end = (size_t)array.offset + (size_t)array.count * item;
    if (end > c->spec->size)
        c->bad = 1;
}

static void check_text(struct checker *c, uint32_t offset, int required)
{
    if (offset == 0 ? required : offset < sizeof(struct ctr_spec) || offset >= c->spec->size)
        c->bad = 1;
}

static void check_texts(struct checker *c, struct ctr_array array, uint32_t limit)
{
    const uint32_t *offsets = message_array(c->spec, array);

    check_array(c, array, sizeof(uint32_t), limit);
    for (uint32_t i = 0; !c->bad && i < array.count; i++)
        check_text(c, offsets[i], 1);
}

static void check_mounts(struct checker *c)
{
    const struct ctr_mount *m = message_array(c->spec, c->spec->mounts);

    check_array(c, c->spec->mounts, sizeof(*m), 4096);
    for (uint32_t i = 0; !c->bad && i < c->spec->mounts.count; i++, m++) {
        check_text(c, m->target, 1);
        check_text(c, m->type, m->kind == CTR_MOUNT_FILESYSTEM);
        check_text(c, m->source, m->kind == CTR_MOUNT_BIND && m->fd < 0);
        check_texts(c, m->options, 64);
        if (m->kind != CTR_MOUNT_FILESYSTEM && m->kind != CTR_MOUNT_BIND)
            c->bad = 1;
        if (m->fd >= (int32_t)c->fd_count)
            c->bad = 1;
    }
}

static void check_nodes(struct checker *c)
{
    const struct ctr_node *n = message_array(c->spec, c->spec->nodes);

    check_array(c, c->spec->nodes, sizeof(*n), 1024);
    for (uint32_t i = 0; !c->bad && i < c->spec->nodes.count; i++, n++) {
        check_text(c, n->name, 1);
        check_text(c, n->target, n->kind == CTR_NODE_SYMLINK);
        if (n->kind < CTR_NODE_CHAR || n->kind > CTR_NODE_SYMLINK)
            c->bad = 1;
    }
}

static void check_files(struct checker *c)
{
    const struct ctr_file *f = message_array(c->spec, c->spec->files);

    check_array(c, c->spec->files, sizeof(*f), 64);
    for (uint32_t i = 0; !c->bad && i < c->spec->files.count; i++, f++) {
        check_text(c, f->target, 1);
        check_array(c, f->content, 1, 1 << 20);
    }
}

static void check_sysctls(struct checker *c)
{
    const struct ctr_pair *p = message_array(c->spec, c->spec->sysctls);

    check_array(c, c->spec->sysctls, sizeof(*p), 256);
    for (uint32_t i = 0; !c->bad && i < c->spec->sysctls.count; i++, p++) {
        check_text(c, p->key, 1);
        check_text(c, p->value, 1);
    }
}

/* Mounts are made in one namespace: the container's own, one that is named, or that of the caller. */
static int has_mounts(const struct ctr_spec *s, int gated)
{
    const uint32_t mount_namespace = 0x00020000;
    int is_new = (s->namespaces & mount_namespace) != 0;
    int is_named = (s->flags & CTR_SPEC_MOUNTS_BY_PATH) != 0;
    int is_callers = (s->flags & CTR_SPEC_CHROOT) != 0;

    if (is_new + is_named + is_callers != 1)
        return 0;
    if (!is_new && (!gated || s->namespaces & new_user_namespace))
        return 0;
    return !is_named || s->namespace_count != 0;
}

/* One of ours has a network of its own, the caller's, or one that was made for it. */
static int may_join_network(const struct ctr_spec *s)
{
    return s->namespace_count == 0 || (s->namespace_count == 1 && !(s->namespaces & 0x40000000));
}

/* A new container has namespaces of its own, or joins some; what joins a container brings nothing but its namespaces. */
static void check_kind(struct checker *c)
{
    const struct ctr_spec *s = c->spec;
    int joins = (s->flags & CTR_SPEC_JOIN) != 0;
    int gated = (s->flags & CTR_SPEC_GATE) != 0;
    const uint32_t alien = CTR_SPEC_LOOPBACK | CTR_SPEC_CGROUP_NAMESPACE | CTR_SPEC_INIT | CTR_SPEC_ROOT_READONLY;

    check_text(c, s->staging, !joins);
    check_text(c, s->root_source, s->flags & CTR_SPEC_ROOT_BIND);
    check_text(c, s->root_upper, !joins && !(s->flags & (CTR_SPEC_ROOT_BIND | CTR_SPEC_ROOT_MEMORY)));
    check_text(c, s->root_work, s->root_upper != 0);
    /* Who stands at a gate was described by somebody else, who may want the caller's processes to be seen. */
    if (joins ? s->namespaces != 0 || s->namespace_count == 0 || s->flags & alien
              : s->namespaces & ~(gated ? allowed_namespaces | new_user_namespace : allowed_namespaces) ||
                    !has_mounts(s, gated) ||
                    (!gated && (!may_join_network(s) || !(s->namespaces & 0x20000000))))
        c->bad = 1;
    if (gated && (joins || s->flags & CTR_SPEC_INIT))
        c->bad = 1;
    if (s->flags & CTR_SPEC_USER ? !gated && !joins : (s->namespaces & new_user_namespace) != 0)
        c->bad = 1;
    check_text(c, s->time_offsets, 0);
    check_text(c, s->apparmor, 0);
    if (s->time_offsets && !gated)
        c->bad = 1;
    if (s->namespace_count > 16 || s->kept_count > CTR_MAX_FDS || s->join_count > CTR_MAX_FDS ||
        CTR_FD_FIRST_FREE + s->join_count + s->namespace_count + s->kept_count + (uint32_t)gated +
                (joins && s->flags & CTR_SPEC_CHROOT ? 1 : 0) >
            c->fd_count)
        c->bad = 1;
}

static void check_scalars(struct checker *c)
{
    const struct ctr_spec *s = c->spec;

    check_kind(c);
    check_text(c, s->hostname, 0);
    check_text(c, s->domainname, 0);
    check_text(c, s->workdir, 1);
    if (s->join_count > c->fd_count || CTR_FD_FIRST_FREE + s->join_count > c->fd_count)
        c->bad = 1;
    if (s->flags & CTR_SPEC_CGROUP_FD && (s->cgroup_fd < 0 || s->cgroup_fd >= (int32_t)c->fd_count))
        c->bad = 1;
    if (s->uid == UINT32_MAX || s->gid == UINT32_MAX || s->args.count == 0 || s->programs.count == 0)
        c->bad = 1;
}

int message_check(const void *data, size_t size, uint32_t fd_count)
{
    const struct ctr_spec *s = data;
    struct checker c = {.spec = s, .fd_count = fd_count};

    errno = EBADMSG;
    if (size < sizeof(*s) + 1 || size > UINT32_MAX || fd_count < CTR_FD_FIRST_FREE || fd_count > CTR_MAX_FDS)
        return -1;
    if (s->magic != CTR_MAGIC || s->version != CTR_VERSION || s->size != size)
        return -1;
    if (((const char *)data)[size - 1] != '\0')
        return -1;
    check_scalars(&c);
    check_texts(&c, s->root_lowers, 512);
    check_texts(&c, s->root_options, 64);
    check_texts(&c, s->scratch_options, 64);
    check_mounts(&c);
    check_nodes(&c);
    check_files(&c);
    check_sysctls(&c);
    check_texts(&c, s->readonly_paths, 1024);
    check_texts(&c, s->masked_paths, 1024);
    check_array(&c, s->rlimits, sizeof(struct ctr_rlimit), 64);
    check_array(&c, s->groups, sizeof(uint32_t), CTR_MAX_GROUPS);
    check_array(&c, s->seccomp, 8, 4096);
    check_array(&c, s->scheduler, 1, 256);
    check_array(&c, s->affinity, 1, 8192);
    check_texts(&c, s->args, CTR_MAX_STRINGS);
    check_texts(&c, s->env, CTR_MAX_STRINGS);
    check_texts(&c, s->programs, 256);
    return c.bad ? -1 : 0;
}
