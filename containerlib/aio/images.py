"""The images of a store as the caller sees them."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
# ruff: noqa: A002
from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio import wrap
from containerlib.aio.held import held
from containerlib.aio.loop import call, transfer

if TYPE_CHECKING:
    import builtins
    import datetime as dt
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import BinaryIO

    from containerlib.aio.image import Image
    from containerlib.api import images as sync_module
    from containerlib.api.images import PullPolicy
    from containerlib.image.archive_save import SaveFormat
    from containerlib.image.lock_file import LockedImage
    from containerlib.image.progress import Progress
    from containerlib.image.prune import PruneReport
    from containerlib.image.resolve import Removed
    from containerlib.layer.compress import Compression
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.image_config import Config
__all__ = ["Images"]


class Images:
    """The images of an engine's store."""

    sync: sync_module.Images

    def __init__(self, sync: sync_module.Images) -> None:
        """Take over a handle."""
        self.sync = sync

    async def pull(
        self, reference: str, *, platform: str | None = None, progress: Progress | None = None
    ) -> Image:
        """Fetch an image from its registry, and give it this name in the store.

        Layers that the store has are not fetched again; pulling what has not changed costs one request. What
        was called so before stays, without the name. On failure the store is as it was.

        Args:
            reference: Such as ``python:3.12`` or ``localhost:5000/team/tool@sha256:...``. Without a registry
                it means what the aliases and search registries of registries.conf make of it, else an
                image of Docker Hub; the image then has the full name.
            platform: Such as ``linux/arm64``; what this host runs best if None.
            progress: Called with a `TransferEvent` for each step of each layer, one at a time.

        Raises:
            InvalidReference: It cannot be a name of an image.
            RemoteNotFound: The registry has no such image; the message names the tags that there are.
            PlatformNotFound: There is none for the platform; the error lists those there are.
            AuthenticationFailed: The registry wants other credentials.
            RegistryError: It cannot be reached, limits the rate, or is out of order.
            VerificationError: It sent something else than it promised.
            LayerError: A layer could harm the host, or is damaged.
            NotLocked: The engine's lock file does not have it, and has to.
            Offline: The engine was told to be.
        """
        return wrap.image(
            await transfer(lambda tell: self.sync.pull(reference, platform=platform, progress=tell), progress)
        )

    async def find(
        self, name: str, *, pull: PullPolicy = "missing", progress: Progress | None = None
    ) -> Image:
        """The image called `name`, pulled or loaded first if it is not here.

        Args:
            name: As for `get`; only a reference can be pulled. Or where an image lies: ``oci:DIRECTORY``,
                ``oci-archive:FILE`` or ``docker-archive:FILE``, with ``:REFERENCE`` behind it if it holds
                several. It is loaded when it is used first, without a name.
            pull: ``"missing"`` pulls what the store does not have, ``"always"`` asks the registry each time,
                ``"never"`` is the same as `get`.
            progress: As for `pull`.

        Raises:
            ImageNotFound: There is none, and it must not be pulled.
            NotLocked: The engine's lock file does not have it, and has to.
            InvalidOption: `pull` is something else.
            RegistryError: See `pull`.
        """
        return wrap.image(
            await transfer(lambda tell: self.sync.find(name, pull=pull, progress=tell), progress)
        )

    async def load(
        self, source: str | os.PathLike[str] | BinaryIO, *, platform: str | None = None
    ) -> builtins.list[Image]:
        """Load all images of an archive, or of an OCI layout, with the names that they have there.

        Reads what docker, podman, skopeo and buildah write, plain or compressed. All images are there
        afterwards or none. An image that had one of the names stays, without it.

        Args:
            source: Path of the archive or of the layout's directory, or a binary file open for reading.
            platform: Which images of those for several platforms; what this host runs best if None.

        Returns:
            The images in the order of the archive.

        Raises:
            InvalidInputError: It is not there, holds no images, or is damaged.
            PlatformNotFound: It has images, but not for `platform`.
            LayerError: A layer could harm the host, or is damaged.
            VerificationError: Content is not what its name says.
        """
        return [wrap.image(found) for found in await call(lambda: self.sync.load(source, platform=platform))]

    async def save(
        self,
        names: str | Iterable[str],
        out: str | os.PathLike[str] | BinaryIO,
        *,
        format: SaveFormat = "docker",
        compression: Compression | None = None,
    ) -> None:
        """Write images into an archive or a directory that `load` and other programs read.

        The same images give the same bytes. What goes to a path is there when it is complete, and not before.

        Args:
            names: One name or several, as for `get`. They are the names in the archive; an image that is
                given by its id has all of its names there.
            out: Path, or a binary file open for writing. A file that is there is replaced.
            format: ``"docker"`` for what ``docker save`` writes, ``"oci"`` for an archive of an OCI layout,
                ``"oci-directory"`` for a directory, which must not exist.
            compression: None keeps layers, and so digests; the others write them anew.

        Raises:
            ImageNotFound: There is no such image.
            InvalidOption: There is no such format or compression.
            InvalidInputError: `out` lies in no directory or is one; or for a directory: it exists.
            StoreFull: There is no room where it goes; as with `StoreCorrupted`, nothing is left of it.
        """
        await call(lambda: self.sync.save(names, out, format=format, compression=compression))

    async def lock(
        self,
        references: Iterable[str],
        *,
        path: str | os.PathLike[str] | None = None,
        platforms: Iterable[str] | None = None,
    ) -> tuple[LockedImage, ...]:
        """Note in a lock file what names mean now; engines with this lock file use just that.

        Other entries of the file stay. Nothing is pulled. On failure the file is as it was.

        Args:
            references: Names with tags.
            path: The file; if None, the engine's own, otherwise ``images.lock``.
            platforms: Such as ``linux/arm64``; all that an image is made for if None.

        Returns:
            What was locked, in the order of `references`.

        Raises:
            InvalidReference: One is no name with a tag.
            PlatformNotFound: An image is not made for one of the platforms.
            InvalidInputError: The file that is there is not a lock file.
            RegistryError: See `pull`.
            Offline: The engine was told to be.
        """
        return await call(lambda: self.sync.lock(references, path=path, platforms=platforms))

    def hold(
        self, name: str, *, pull: PullPolicy = "missing", progress: Progress | None = None
    ) -> AbstractAsyncContextManager[Image]:
        """Find an image as `find` does, and keep all others from deleting its content within the block.

        Between finding an image and starting a container of it, another process may prune it. `run` and
        `Popen` of the package hold what they are given by name.

        Args:
            name: As for `find`.
            pull: As for `find`.
            progress: As for `find`.

        Raises:
            ImageNotFound: There is none; or others remove it again and again.
            RegistryError: See `pull`.
        """
        return held(lambda tell: self.sync.hold(name, pull=pull, progress=tell), progress, wrap.image)

    async def prune(
        self,
        *,
        all: bool = False,
        until: dt.datetime | dt.timedelta | None = None,
        labels: Mapping[str, str | None] | None = None,
        without_labels: Mapping[str, str | None] | None = None,
    ) -> PruneReport:
        """Remove images that no container uses, all content that nothing needs, and what dead processes left.

        Args:
            all: Whether to remove images with names, too; only those without one otherwise.
            until: Only images that were pulled, made or named before that time, or longer ago than that. When
                an image was built does not count: it says nothing about its use here.
            labels: Only images with all of these labels; None for any value.
            without_labels: Only images with none of these.

        Returns:
            What was removed. Images that a running engine holds are not.

        Raises:
            InvalidOption: `until` lies before 1970.
            StoreCorrupted: The file of a name is damaged, so that nobody knows what it needs; see
                `Engine.repair`.
        """
        return await call(
            lambda: self.sync.prune(all=all, until=until, labels=labels, without_labels=without_labels)
        )

    async def from_host(
        self, commands: Sequence[str] | None = None, *, reference: str | None = None
    ) -> Image:
        """Make an image of programs of this host, with exactly the libraries that they need.

        The same programs give the same image. Nothing is downloaded, and nothing is executed. If
        ``SOURCE_DATE_EPOCH`` is set, the image has that date, and no file has a later one.

        Args:
            commands: Absolute paths, or names that are looked up in the usual directories; directories are
                taken whole. None for a small userland: a shell, the core utilities, grep, sed, awk, tar.
            reference: A name for the image.

        Raises:
            InvalidOption: A program does not exist, or ``SOURCE_DATE_EPOCH`` is no number of seconds.
            UnsupportedHost: There is not even a shell.

        Cost: proportional to the size of the files; about 0.2 s for the small userland.
        """
        return wrap.image(await call(lambda: self.sync.from_host(commands, reference=reference)))

    async def from_directory(
        self, path: str | os.PathLike[str], *, config: Config | None = None, reference: str | None = None
    ) -> Image:
        """Make an image of a directory tree. The same tree gives the same image.

        The times of the files are not kept: all are the beginning of 1970, or what ``SOURCE_DATE_EPOCH``
        says, which is then the date of the image, too.

        Args:
            path: Directory that becomes the root.
            config: Defaults for its containers.
            reference: A name for the image.

        Raises:
            InvalidInputError: It is not a directory, or holds what an image cannot.
            InvalidOption: ``SOURCE_DATE_EPOCH`` is no number of seconds.
        """
        return wrap.image(
            await call(lambda: self.sync.from_directory(path, config=config, reference=reference))
        )

    async def from_tar(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        config: Config | None = None,
        reference: str | None = None,
        platform: str | None = None,
        comment: str = "",
    ) -> Image:
        """Make an image of a tar archive of a root file system, plain or compressed.

        If ``SOURCE_DATE_EPOCH`` is set, the image has that date, and no file has a later one.

        Args:
            source: Path, or a binary file open for reading.
            config: Defaults for its containers.
            reference: A name for the image.
            platform: What it is for, such as ``linux/arm64``; this host if None.
            comment: Goes into its history.

        Raises:
            UnsafePath: An entry leads outside, or is a device.
            UnsupportedLayer: The archive is damaged, or too large when unpacked.
            InvalidOption: ``SOURCE_DATE_EPOCH`` is no number of seconds.
        """
        return wrap.image(
            await call(
                lambda: self.sync.from_tar(
                    source, config=config, reference=reference, platform=platform, comment=comment
                )
            )
        )

    async def get(self, name: str) -> Image:
        """The image with this reference, id, digest, or beginning of an id.

        A name without a registry means Docker Hub, then what registries.conf makes of it. A name in the
        engine's lock file is what is locked there.

        Raises:
            ImageNotFound: There is none.
            InvalidReference: It cannot be a name of an image.
        """
        return wrap.image(await call(lambda: self.sync.get(name)))

    async def list(
        self,
        *,
        reference: str | Sequence[str] = (),
        dangling: bool | None = None,
        labels: Mapping[str, str | None] | None = None,
        before: str | None = None,
        since: str | None = None,
    ) -> list[Image]:
        """The images of the store, or those for which all the conditions hold.

        Args:
            reference: Pattern such as ``team/*`` or ``python:3.*``, or several. ``*``, ``?`` and ``[...]``
                match no slash. The images have only the names that match.
            dangling: True for images without a name, False for those that have one.
            labels: Labels that they have, each with its value, or with None for any value.
            before: Name of an image that is younger than they are.
            since: Name of an image that is older. An image without a date is older than all that have one.

        Raises:
            ImageNotFound: There is no image called `before` or `since`.
            InvalidOption: A pattern is damaged.
        """
        return [
            wrap.image(found)
            for found in await call(
                lambda: self.sync.list(
                    reference=reference, dangling=dangling, labels=labels, before=before, since=since
                )
            )
        ]

    async def push(self, name: str, *, progress: Progress | None = None) -> Descriptor:
        """Upload the image called `name` to where that name says; see `Image.push`.

        Raises:
            ImageNotFound: There is none.
        """
        return await transfer(lambda tell: self.sync.push(name, progress=tell), progress)

    async def push_index(
        self, reference: str, images: Sequence[Image | str], *, progress: Progress | None = None
    ) -> Descriptor:
        """Upload several images as one that has an image for each of their platforms.

        The images are uploaded as they are, and `reference` then means an index of them. It is an OCI index,
        or Docker's list of manifests if all of them are in Docker's format. The same images in the same order
        give the same digest. Nothing in the store changes.

        Args:
            reference: Registry, repository and tag.
            images: Images or names of images of this store, each for another platform.
            progress: Called with a `TransferEvent` for each step of each blob, one at a time.

        Returns:
            What the tag means now: media type, digest and size.

        Raises:
            InvalidInputError: There are no images, or two are for one platform. Nothing was uploaded.
            InvalidReference: It is no reference, or one with a digest.
            ImageNotFound: There is no image of such a name.
            RegistryError: The registry cannot be reached, or refuses.
            Offline: The engine was told to be.

        Source: OCI image-spec 1.1, "Image Index".
        """
        return await transfer(
            lambda tell: self.sync.push_index(reference, wrap.unwrap(images), progress=tell), progress
        )

    async def tag(self, name: str, reference: str) -> Image:
        """Give an image a further name; see `Image.tag`."""
        return wrap.image(await call(lambda: self.sync.tag(name, reference)))

    async def remove(self, name: str, *, force: bool = False) -> Removed:
        """Take a name away, and with the last one the image.

        Raises:
            ImageNotFound: There is none.
            ResourceInUse: A container of this engine is made of it.
        """
        return await call(lambda: self.sync.remove(name, force=force))
