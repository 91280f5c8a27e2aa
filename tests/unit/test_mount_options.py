"""What options of mounts mean."""

from __future__ import annotations

import pytest

from containerlib.errors import InvalidOption, UnsupportedHost
from containerlib.oci.runtime_spec import IdMapping, SpecMount
from containerlib.runtime.mount_options import (
    WORDS,
    MountOptions,
    is_bind,
    is_remount,
    propagation_flags,
    read_options,
    remounts_all,
)

RO, NOSUID, NODEV, NOEXEC, NOATIME, STRICTATIME = 1, 2, 4, 8, 0x10, 0x20
MS_REC, MS_SLAVE, MS_SHARED, MS_UNBINDABLE = 0x4000, 1 << 19, 1 << 20, 1 << 17


def options(*words: str, kind: str = "tmpfs") -> MountOptions:
    """The options of a mount with these words."""
    return read_options(SpecMount(destination="/here", type=kind, options=words))


@pytest.mark.parametrize(
    ("words", "attributes"),
    [
        ((), 0),
        (("ro", "nosuid", "nodev", "noexec"), RO | NOSUID | NODEV | NOEXEC),
        (("ro", "rw"), 0),
        (("rw", "ro"), RO),
        (("nosuid", "noexec", "exec"), NOSUID),
        (("noatime", "strictatime"), STRICTATIME),
        (("strictatime", "relatime"), 0),
        (("noatime", "atime"), 0),
        (("defaults", "async", "diratime", "loud"), 0),
    ],
)
def test_attributes(words: tuple[str, ...], attributes: int) -> None:
    """They add up, and the later of two that contradict each other counts."""
    assert options(*words) == MountOptions(attributes, False, False, 0, ())


def test_what_the_file_system_is_told() -> None:
    """What no table knows is its own; so are flags of a super block."""
    found = options("size=1m", "ro", "sync", "mode=755")
    assert found.rest == ("size=1m", "sync", "mode=755")


@pytest.mark.parametrize(
    ("word", "flags"),
    [
        ("private", 0),
        ("rprivate", 0),
        ("slave", MS_SLAVE),
        ("rslave", MS_SLAVE | MS_REC),
        ("rshared", MS_SHARED | MS_REC),
        ("runbindable", MS_UNBINDABLE | MS_REC),
        ("ro", None),
        ("", None),
    ],
)
def test_propagation(word: str, flags: int | None) -> None:
    """One word of eight, or none."""
    assert propagation_flags(word) == flags
    if flags is not None:
        assert options("rbind", word, kind="bind").propagation == flags


def test_binds() -> None:
    """A bind takes mounts below it along, and its options are for itself or for all of them."""
    assert options("rbind", "ro", kind="bind") == MountOptions(RO, False, True, 0, ())
    assert options("rbind", "rro", "rnosuid", kind="bind") == MountOptions(RO | NOSUID, True, True, 0, ())
    assert options("bind", "sync", kind="none").rest == ()
    assert is_bind(SpecMount(destination="/a", type="none", options=("rbind",)))
    assert not is_bind(SpecMount(destination="/a", type="tmpfs"))
    with pytest.raises(InvalidOption, match="size=1m"):
        options("bind", "size=1m", kind="bind")
    with pytest.raises(InvalidOption, match="do not mix"):
        options("rbind", "ro", "rnosuid", kind="bind")


@pytest.mark.parametrize("word", ["dest-nofollow", "copy-symlink"])
def test_refused(word: str) -> None:
    """What is not supported is refused, and not told to the file system."""
    with pytest.raises(UnsupportedHost, match=f"option '{word}' of the mount on /here"):
        options(word)


def test_mapped_ids() -> None:
    """The mount itself, or all below it, too; mappings alone mean the mount itself."""
    assert options("rbind", "idmap", kind="bind").id_mapped == "idmap"
    assert options("rbind", "ridmap", kind="bind").id_mapped == "ridmap"
    mappings = (IdMapping(container_id=0, host_id=1, size=1),)
    mount = SpecMount(destination="/a", type="bind", uid_mappings=mappings, gid_mappings=mappings)
    assert read_options(mount).id_mapped == "idmap"
    with pytest.raises(InvalidOption, match="only a bind mount"):
        options("idmap")


def test_copy_up() -> None:
    """It is for a tmpfs, which is not told of it."""
    assert options("tmpcopyup", "size=1m").rest == ("size=1m",)
    with pytest.raises(InvalidOption, match="tmpcopyup"):
        options("rbind", "tmpcopyup", kind="bind")
    with pytest.raises(InvalidOption, match="tmpcopyup"):
        options("tmpcopyup", kind="proc")


def test_words() -> None:
    """The list of words has those of the specification that are honoured."""
    assert {
        "ro",
        "rro",
        "idmap",
        "ridmap",
        "nosuid",
        "rbind",
        "rslave",
        "private",
        "sync",
        "nosymfollow",
    } <= WORDS
    assert {"tmpcopyup", "remount"} <= WORDS
    assert not {"size=1m", "copy-symlink"} & WORDS


def mount(kind: str, *words: str, at: str = "/here") -> SpecMount:
    """A mount there."""
    return SpecMount(destination=at, type=kind, options=words)


def test_remounts() -> None:
    """They are for what was mounted there before: the mount alone, or a file system that is its own."""
    assert is_remount(mount("", "remount", "ro"))
    assert not is_bind(mount("bind", "bind", "remount"))
    assert remounts_all(mount("", "remount"), [mount("tmpfs", at="/here/")])
    assert not remounts_all(mount("none", "remount", "bind"), [mount("sysfs")])
    with pytest.raises(InvalidOption, match="mount it first"):
        remounts_all(mount("tmpfs", "remount"), [mount("tmpfs", at="/other")])
    for earlier in (mount("sysfs"), mount("bind", "bind"), mount("proc")):
        with pytest.raises(InvalidOption, match="not the container's own"):
            remounts_all(mount("tmpfs", "remount"), [earlier])
    for words in (("rro",), ("rbind",), ("bind", "size=1m"), ("tmpcopyup",)):
        with pytest.raises(InvalidOption):
            options("remount", *words)
