"""The lock file: which image a reference means, for each platform, until somebody decides otherwise.

A text file to be kept under version control: JSON, sorted, one digest a line. It is read strictly, because
what stands in it decides what runs. Knows nothing of registries and stores.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import TYPE_CHECKING

import attrs

from containerlib._util import strict_json
from containerlib._util.atomic_file import write_atomic
from containerlib.errors import InvalidInputError, PlatformNotFound
from containerlib.oci.digest import Digest
from containerlib.oci.platform import Platform
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Self

__all__ = ["LockFile", "LockedImage"]

_VERSION = 1
_MAX_BYTES = 4 << 20
_NEW_MODE = 0o644


@attrs.frozen
class LockedImage:
    """What a reference means.

    Attributes:
        reference: The name, in canonical form.
        digest: Of what the tag pointed at: an index of several platforms, or a manifest.
        platforms: Digest of the manifest for each platform, by the platform's name.
    """

    reference: str
    digest: Digest
    platforms: Mapping[str, Digest]

    def select(self, platform: Platform | None) -> tuple[Platform, Digest]:
        """Return the locked platform that `platform` (this host's if None) runs best, and its manifest.

        Raises:
            PlatformNotFound: None of them.
        """
        wanted = Platform.host() if platform is None else platform
        known = [Platform.parse(name) for name in self.platforms]
        index = wanted.best_of(known)
        if index is None:
            name = Reference.parse(self.reference).familiar
            raise PlatformNotFound(
                f"the lock file has {name!r} for {', '.join(self.platforms)}, not for {wanted}; "
                f"lock it for that platform as well: containerlib lock --platform {wanted} {name}",
                platforms=tuple(self.platforms),
            )
        return known[index], self.platforms[str(known[index])]

    def to_json(self) -> dict[str, object]:
        """Return it as it stands in the file."""
        return {"digest": self.digest, "platforms": dict(sorted(self.platforms.items()))}


@attrs.frozen
class LockFile:
    """What a file says.

    Attributes:
        path: The file.
        images: What it locks, by canonical reference.
    """

    path: str
    images: Mapping[str, LockedImage]

    @classmethod
    def load(cls, path: str, *, may_be_missing: bool = False) -> Self:
        """Read a file.

        Args:
            path: The file.
            may_be_missing: Whether one that does not exist counts as one that locks nothing.

        Raises:
            InvalidInputError: It cannot be read, or is not exactly what `update` writes.
        """
        try:
            with open(path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            if may_be_missing:
                return cls(path, {})
            raise InvalidInputError(
                f"lock file {path!r} does not exist; make it with: containerlib lock -f {path} NAME..."
            ) from None
        except OSError as error:
            raise InvalidInputError(f"lock file {path!r}: {error.strerror}") from None
        try:
            return cls(path, _parse(data))
        except InvalidInputError as error:
            raise InvalidInputError(
                f"lock file {path!r}: {error}; mend it, or make it anew with: containerlib lock"
            ) from None

    def get(self, reference: Reference) -> LockedImage | None:
        """Return what `reference` is locked to; None if the file does not know it."""
        return self.images.get(reference.canonical)

    @classmethod
    def update(cls, path: str, images: Iterable[LockedImage]) -> None:
        """Let the file at `path` lock `images` as well, and what it locked before if it is not among them.

        Two processes that do this at the same time lose nothing. The file is replaced in one step, and keeps
        its mode.
        """
        path = os.path.realpath(path)
        with _writing(os.path.dirname(path)):
            known = dict(cls.load(path, may_be_missing=True).images)
            known.update({image.reference: image for image in images})
            try:
                mode = os.stat(path).st_mode & 0o777
            except FileNotFoundError:
                mode = _NEW_MODE
            write_atomic(path, _print(known), durable=False)
            os.chmod(path, mode)


@contextlib.contextmanager
def _writing(directory: str) -> Iterator[None]:
    """Hold the lock of those who write here. It is on the directory: a file of its own would be litter."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInputError(f"directory {directory!r} of the lock file: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _print(images: Mapping[str, LockedImage]) -> bytes:
    document = {
        "version": _VERSION,
        "images": {name: image.to_json() for name, image in sorted(images.items())},
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def _parse(data: bytes) -> dict[str, LockedImage]:
    document = strict_json.loads_object(data, limit=_MAX_BYTES, what="it")
    version = document.get("version")
    if version != _VERSION or isinstance(version, bool):
        raise InvalidInputError(f"its version is {version!r}, and only {_VERSION} is known")
    _check_keys(document, {"version", "images"}, "it")
    images = document["images"]
    if not isinstance(images, dict):
        raise InvalidInputError("'images' is not an object")
    return {name: _parse_image(name, entry) for name, entry in images.items()}


def _parse_image(name: str, entry: object) -> LockedImage:
    reference = Reference.parse(name)
    if reference.canonical != name or reference.digest is not None:
        raise InvalidInputError(
            f"{name!r} is not a complete reference with a tag, such as {_example(reference)!r}"
        )
    if not isinstance(entry, dict):
        raise InvalidInputError(f"{name!r} is not an object")
    _check_keys(entry, {"digest", "platforms"}, repr(name))
    platforms = entry["platforms"]
    if not isinstance(platforms, dict) or not platforms:
        raise InvalidInputError(f"{name!r} has no platforms")
    for platform in platforms:
        if str(Platform.parse(platform)) != platform:
            raise InvalidInputError(f"{name!r}: {platform!r} is not the usual name of a platform")
    return LockedImage(
        name, Digest(entry["digest"]), {each: Digest(digest) for each, digest in platforms.items()}
    )


def _example(reference: Reference) -> str:
    return attrs.evolve(reference, digest=None, tag=reference.tag or "latest").canonical


def _check_keys(document: Mapping[str, object], keys: set[str], what: str) -> None:
    if document.keys() != keys:
        different = ", ".join(repr(key) for key in sorted(document.keys() ^ keys))
        raise InvalidInputError(f"{what}: exactly {sorted(keys)} are expected; see {different}")
