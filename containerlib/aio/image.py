"""Images as the caller sees them."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
# ruff: noqa: A002
from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio import waiting, wrap
from containerlib.aio.loop import call, transfer
from containerlib.container.communicate import DEFAULT_OUTPUT_LIMIT
from containerlib.container.streams import DEVNULL, PIPE

if TYPE_CHECKING:
    import datetime as dt
    import os
    from collections.abc import Sequence
    from typing import BinaryIO, Unpack

    from containerlib.aio.container import Container
    from containerlib.api import image as sync_module
    from containerlib.api.options import RunOptions
    from containerlib.api.result import CompletedRun
    from containerlib.container.streams import Input, Output
    from containerlib.image.archive_save import SaveFormat
    from containerlib.image.changes import Change
    from containerlib.image.export import Exported
    from containerlib.image.history import HistoryEntry
    from containerlib.image.inspection import ImageInspection
    from containerlib.image.progress import Progress
    from containerlib.image.resolve import Removed
    from containerlib.layer.compress import Compression
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.image_config import Config
__all__ = ["Image"]


class Image:
    """One image of the store. Frozen: what changes is which references point at it."""

    sync: sync_module.Image

    def __init__(self, sync: sync_module.Image) -> None:
        """Take over a handle."""
        self.sync = sync

    def __repr__(self) -> str:
        return f"<aio {self.sync!r}>"

    def __eq__(self, other: object) -> bool:
        return bool(self.sync == wrap.unwrap(other))

    def __hash__(self) -> int:
        return self.sync.__hash__()

    @property
    def id(self) -> str:
        """Digest of its configuration; what Docker calls the image id."""
        return self.sync.id

    @property
    def digest(self) -> str:
        """Digest of its manifest."""
        return self.sync.digest

    @property
    def references(self) -> tuple[str, ...]:
        """Names that pointed at it when it was looked up, in canonical form."""
        return self.sync.references

    @property
    def config(self) -> Config:
        """Defaults for its containers."""
        return self.sync.config

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """Its layers as stored, lowest first."""
        return self.sync.layers

    @property
    def size_bytes(self) -> int:
        """Size of its blobs."""
        return self.sync.size_bytes

    @property
    def created(self) -> dt.datetime | None:
        """When it was made; None if it does not say."""
        return self.sync.created

    async def history(self) -> tuple[HistoryEntry, ...]:
        """How it was made, newest step first, each with the size of its layer.

        Raises:
            InvalidManifest: Its history speaks of more layers than it has.
        """
        return await call(self.sync.history)

    async def inspect(self) -> ImageInspection:
        """Everything that is known about it; ``to_json()`` of that is what Docker prints."""
        return await call(self.sync.inspect)

    async def changes(self, other: Image) -> list[Change]:
        """What is different in it, compared with `other`, by path.

        A path is added if only this image has it, and deleted if only `other` has it. It is modified if its
        type, mode, owner, extended attributes, link target, device number or content differ; a time alone is
        no difference. Everything below a directory that is added or deleted is listed, too.

        Args:
            other: An image of the same store.

        Raises:
            InvalidOption: It is in another store.
            ImageNotFound: One of the two was removed meanwhile.

        Cost: layers that both have below their own are not read. Files of one size are, unless they have the
        same time to the nanosecond.
        """
        return await call(lambda: self.sync.changes(wrap.unwrap(other)))

    async def export(self, out: str | os.PathLike[str] | BinaryIO) -> Exported:
        """Write its root file system as one uncompressed tar archive.

        That is what a container of it finds, without layers and whiteouts; `Images.from_tar` reads it. It has
        the same bytes every time; only directories that no layer has an entry for have the time at which
        they were unpacked. Times later than ``SOURCE_DATE_EPOCH``, if that is set, become it.

        Args:
            out: Path of the archive, which appears or is replaced when it is complete; or a binary stream,
                which is not closed.

        Returns:
            Digest and size of the archive.

        Raises:
            InvalidInputError: The path is a directory, or lies in none.
            InvalidOption: ``SOURCE_DATE_EPOCH`` is no number of seconds.
            ImageNotFound: The image was removed meanwhile.
        """
        return await call(lambda: self.sync.export(out))

    async def run(
        self,
        command: Sequence[str] | None = None,
        *,
        stdin: Input = None,
        stdout: Output = None,
        stderr: Output = None,
        **options: Unpack[RunOptions],
    ) -> Container:
        """Start a container of this image; see `Containers.run`."""
        return wrap.container(
            await call(
                lambda: self.sync.run(command, stdin=stdin, stdout=stdout, stderr=stderr, **options),
                undo=lambda made: made.remove(force=True),
            )
        )

    async def call(
        self,
        command: Sequence[str] | None = None,
        *,
        stdin: Input = DEVNULL,
        stdout: Output = PIPE,
        stderr: Output = PIPE,
        timeout_s: float | None = None,
        check: bool = False,
        output_limit_bytes: int = DEFAULT_OUTPUT_LIMIT,
        **options: Unpack[RunOptions],
    ) -> CompletedRun:
        """Run a command to its end in a new container, and remove the container.

        Args:
            command: Replaces the image's command.
            stdin: Bytes to be read, `DEVNULL` (the default), a descriptor or file; None to inherit.
            stdout: `PIPE` to capture (the default), `DEVNULL`, a descriptor or file; None to inherit.
            stderr: The same, or `STDOUT`.
            timeout_s: Kill everything in the container after so many seconds.
            check: Raise if the exit code is not 0.
            output_limit_bytes: Most output to keep.
            options: See `RunOptions`.

        Raises:
            OperationTimeout: It took longer; the error has what was captured.
            ContainerFailed: With `check`, the exit code is not 0.
            OutputLimitExceeded: It wrote more than `output_limit_bytes`.
            SpawnError: It was not started; `CommandNotFound` and `CommandNotExecutable` are kinds of it.
            InvalidOption: A value does not fit the image, or no host could honour it.
            UnsupportedHost: This host cannot honour a value.
        """
        return await waiting.image_call(
            self.sync,
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            timeout_s=timeout_s,
            check=check,
            output_limit_bytes=output_limit_bytes,
            options=options,
        )

    async def save(
        self,
        out: str | os.PathLike[str] | BinaryIO,
        *,
        format: SaveFormat = "docker",
        compression: Compression | None = None,
    ) -> None:
        """Write it with all its names into an archive or a directory; see `Images.save`."""
        await call(lambda: self.sync.save(out, format=format, compression=compression))

    async def tag(self, reference: str) -> Image:
        """Give it a further name; another image that has the name loses it.

        Raises:
            InvalidReference: It is not a reference.
        """
        return wrap.image(await call(lambda: self.sync.tag(reference)))

    async def push(self, reference: str, *, progress: Progress | None = None) -> Descriptor:
        """Upload it to a registry, and let `reference` mean it there.

        What the registry has already is not uploaded again. The bytes are those of the store, so the digest
        is the same there. An image that came as one of an index of several platforms is pushed as the index
        if all of it is here, else alone.

        Args:
            reference: Registry, repository and tag; need not be a name of the image here.
            progress: Called with a `TransferEvent` for each step of each blob, one at a time.

        Returns:
            What the tag means now: media type, digest and size.

        Raises:
            InvalidReference: It is no reference, or one with a digest.
            AuthenticationFailed: The registry wants other credentials.
            RegistryError: It cannot be reached, or refuses.
            Offline: The engine was told to be.
        """
        return await transfer(lambda tell: self.sync.push(reference, progress=tell), progress)

    async def remove(self, *, force: bool = False) -> Removed:
        """Remove it with all its names; content that no other image needs goes as well.

        Raises:
            ResourceInUse: A container of this engine is made of it, or it has several names and `force` is
                not set.
        """
        return await call(lambda: self.sync.remove(force=force))
