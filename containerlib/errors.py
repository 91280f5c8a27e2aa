"""Every error that containerlib raises, as one tree.

    ContainerlibError
      NotFoundError(LookupError)
        ImageNotFound  ContainerNotFound  VolumeNotFound  NetworkNotFound  BlobNotFound  SnapshotNotFound
          PlatformNotFound(ImageNotFound)
        NotLocked
      ConflictError
        NameInUse  ResourceInUse  InvalidState  AddressesExhausted
      InvalidInputError(ValueError)
        InvalidReference  InvalidDigest  InvalidManifest  InvalidOption  RegistryBlocked
      VerificationError
        DigestMismatch  SizeMismatch
      LayerError
        UnsafePath  UnsupportedLayer
      RegistryError(OSError)
        AuthenticationFailed  RateLimited  RegistryUnavailable(ConnectionError)
        RemoteNotFound (also an ImageNotFound)
      SpawnError(OSError)
        CommandNotFound  CommandNotExecutable
      ContainerFailed
      CgroupError(OSError)
      ContainerFileError(OSError)
      UnsupportedHost
      StoreCorrupted
      StoreFull(OSError)  ReadOnlyStore(OSError)
      EngineClosed
      OutputLimitExceeded
      Offline
      OperationTimeout(TimeoutError)

Classes also inherit the builtin that a caller would catch anyway. Messages say what failed, on what, with
the value quoted, and the remedy where there is one. This module imports nothing of ours.
"""

from __future__ import annotations

import errno

__all__ = [
    "AddressesExhausted",
    "AuthenticationFailed",
    "BlobNotFound",
    "CgroupError",
    "CommandNotExecutable",
    "CommandNotFound",
    "ConflictError",
    "ContainerFailed",
    "ContainerFileError",
    "ContainerNotFound",
    "ContainerlibError",
    "DigestMismatch",
    "EngineClosed",
    "ImageNotFound",
    "InvalidDigest",
    "InvalidInputError",
    "InvalidManifest",
    "InvalidOption",
    "InvalidReference",
    "InvalidState",
    "LayerError",
    "NameInUse",
    "NetworkNotFound",
    "NotFoundError",
    "NotLocked",
    "Offline",
    "OperationTimeout",
    "OutputLimitExceeded",
    "PathNotFound",
    "PlatformNotFound",
    "RateLimited",
    "ReadOnlyStore",
    "RegistryBlocked",
    "RegistryError",
    "RegistryUnavailable",
    "RemoteNotFound",
    "ResourceInUse",
    "SizeMismatch",
    "SnapshotNotFound",
    "SpawnError",
    "StoreCorrupted",
    "StoreFull",
    "UnsafePath",
    "UnsupportedHost",
    "UnsupportedLayer",
    "VerificationError",
    "VolumeNotFound",
]


class ContainerlibError(Exception):
    """Base of everything that containerlib raises on purpose."""


class NotFoundError(ContainerlibError, LookupError):
    """A named object does not exist in this engine's store."""


class ImageNotFound(NotFoundError):
    """No image has this reference or digest."""


class PlatformNotFound(ImageNotFound):
    """The image exists, but not for the platform that was asked for.

    Attributes:
        platforms: The platforms that there are.
    """

    def __init__(self, message: str, *, platforms: tuple[str, ...]) -> None:
        super().__init__(message)
        self.platforms = platforms


class NotLocked(NotFoundError):
    """The lock file does not have this reference, and the engine must use nothing else."""


class ContainerNotFound(NotFoundError):
    """No container has this id or name."""


class PathNotFound(NotFoundError, FileNotFoundError):
    """A container has no file or directory of this path.

    Attributes:
        path: The path in the container.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path
        self.errno = errno.ENOENT


class VolumeNotFound(NotFoundError):
    """No volume has this name."""


class NetworkNotFound(NotFoundError):
    """No network has this name or id."""


class BlobNotFound(NotFoundError):
    """The content store has no blob with this digest."""


class SnapshotNotFound(NotFoundError):
    """No committed snapshot has this chain id."""


class ConflictError(ContainerlibError):
    """The request is well formed but contradicts the present state."""


class NameInUse(ConflictError):
    """Another object already has this name."""


class ResourceInUse(ConflictError):
    """The object is used by another one and cannot go yet."""


class AddressesExhausted(ConflictError):
    """No subnet, or no address in a subnet, is left."""


class InvalidState(ConflictError):
    """The container is not in a state that allows this verb.

    Attributes:
        expected: State or states in which the verb is allowed.
        actual: State the container is in.
    """

    def __init__(self, message: str, *, expected: str, actual: str) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class InvalidInputError(ContainerlibError, ValueError):
    """A value was refused at the edge, before anything was changed."""


class InvalidReference(InvalidInputError):
    """The text is not an image reference."""


class InvalidDigest(InvalidInputError):
    """The text is not a digest of a supported algorithm."""


class InvalidManifest(InvalidInputError):
    """A manifest, index or image configuration breaks its schema."""


class InvalidOption(InvalidInputError):
    """An option has a value that no host could honour.

    Attributes:
        option: Name of the option, as the caller writes it.
        value: The refused value.
    """

    def __init__(self, option: str, value: object, reason: str) -> None:
        super().__init__(f"{option}={value!r}: {reason}")
        self.option = option
        self.value = value


class RegistryBlocked(InvalidInputError):
    """The configuration of this host forbids the registry that a reference names."""


class VerificationError(ContainerlibError):
    """Content is not what its descriptor promised."""


class DigestMismatch(VerificationError):
    """Content hashes to another digest than the promised one."""

    def __init__(self, what: str, *, expected: str, actual: str) -> None:
        super().__init__(f"{what}: digest is {actual}, expected {expected}")
        self.expected = expected
        self.actual = actual


class SizeMismatch(VerificationError):
    """Content is longer or shorter than promised."""

    def __init__(self, what: str, *, expected: int, actual: int) -> None:
        super().__init__(f"{what}: size is {actual} bytes, expected {expected}")
        self.expected = expected
        self.actual = actual


class LayerError(ContainerlibError):
    """A layer archive cannot be applied."""


class UnsafePath(LayerError):
    """An archive entry names a path outside the tree, or one that can harm the host.

    Attributes:
        entry: Name of the entry as it stands in the archive.
    """

    def __init__(self, entry: str, reason: str) -> None:
        super().__init__(f"archive entry {entry!r}: {reason}")
        self.entry = entry


class UnsupportedLayer(LayerError):
    """The archive is damaged, too large, or of a kind we do not read."""


class RegistryError(ContainerlibError, OSError):
    """A registry refused a request, or could not be reached.

    Attributes:
        method: Of the HTTP request; empty if there was none.
        url: Of the request, without what is secret in it.
        status: Status of the answer; None if there was no answer.
        codes: Error codes of the answer's body, such as ``"MANIFEST_UNKNOWN"``.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str = "",
        url: str = "",
        status: int | None = None,
        codes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.method = method
        self.url = url
        self.status = status
        self.codes = codes


class AuthenticationFailed(RegistryError):
    """The registry wants credentials, or refused those that it was given."""


class RateLimited(RegistryError):
    """The registry refuses more requests for now, and waiting as long as it asks was too long.

    Attributes:
        retry_after_s: How long it asks to wait, in seconds; None if it does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        method: str = "",
        url: str = "",
        status: int | None = None,
        codes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, method=method, url=url, status=status, codes=codes)
        self.retry_after_s = retry_after_s


class RegistryUnavailable(RegistryError, ConnectionError):
    """The registry cannot be reached, breaks off, is too slow, or answers that it is out of order."""


class RemoteNotFound(RegistryError, ImageNotFound):
    """The registry has no such repository, tag, manifest or blob, or does not show it to this user."""


class Offline(ContainerlibError):
    """Something is not in the store, and the engine must not fetch it."""


class SpawnError(ContainerlibError, OSError):
    """The kernel refused a step of starting a container.

    Attributes:
        step: Name of the step, such as ``"mount_attach"``.
        errno: The kernel's answer.
        detail: What the step was about (a path, a sysctl, an index).
    """

    def __init__(self, message: str, *, step: str, errno: int, detail: str = "") -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno
        self.detail = detail


class CommandNotFound(SpawnError):
    """The command does not exist in the container (exit code 127)."""


class CommandNotExecutable(SpawnError):
    """The command exists in the container but cannot be executed (exit code 126)."""


class ContainerFailed(ContainerlibError):
    """A finished container had an exit code other than 0, and the caller asked to be told.

    Attributes:
        exit_code: Exit code; 128 + n for signal n.
        stderr_tail: The last bytes of standard error, decoded.
    """

    def __init__(self, message: str, *, exit_code: int, stderr_tail: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail


class CgroupError(ContainerlibError, OSError):
    """A control group could not be made or set.

    Attributes:
        controller: Name of the controller.
        path: The file or directory.
    """

    def __init__(self, message: str, *, controller: str, path: str) -> None:
        super().__init__(message)
        self.controller = controller
        self.path = path


class ContainerFileError(ContainerlibError, OSError):
    """A file of a container could not be read or written; ``errno`` says why, as the kernel does.

    Attributes:
        path: The path in the container.
    """

    def __init__(self, message: str, *, path: str, errno: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.errno = errno


class UnsupportedHost(ContainerlibError):
    """This host cannot honour an option that another host could.

    Attributes:
        feature: What was asked for.
        needed: What the host would have to have.
        found: What it has.
    """

    def __init__(self, feature: str, *, needed: str, found: str) -> None:
        super().__init__(f"{feature} needs {needed}; this host has {found}")
        self.feature = feature
        self.needed = needed
        self.found = found


class StoreCorrupted(ContainerlibError):
    """A file of the store is missing or damaged.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


class StoreFull(ContainerlibError, OSError):
    """There is no room for what has to be written; nothing was changed.

    Attributes:
        path: What was being written.
        errno: The kernel's answer: out of space, of inodes, or of quota.
    """

    def __init__(self, path: str, errno: int) -> None:
        super().__init__(
            f"{path}: no space left on its disk; free some, for instance with 'containerlib system prune'"
        )
        self.path = path
        self.errno = errno


class ReadOnlyStore(ContainerlibError, OSError):
    """The store cannot be changed, because its file system is mounted read-only.

    Attributes:
        path: What was to be written.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path}: the file system is read-only; images of a store on it can be used, not changed"
        )
        self.path = path
        self.errno = 30  # EROFS; this module imports nothing


class EngineClosed(ContainerlibError):
    """The engine was closed, or its spawner is gone."""


class OutputLimitExceeded(ContainerlibError):
    """A finished container wrote more output than the caller allowed to keep in memory."""


class OperationTimeout(ContainerlibError, TimeoutError):
    """The operation did not end in time; what it started has been stopped.

    Attributes:
        timeout_s: The limit in seconds.
        stdout: Output captured so far, if any was captured.
        stderr: Error output captured so far, if any was captured.
    """

    def __init__(self, message: str, *, timeout_s: float, stdout: bytes = b"", stderr: bytes = b"") -> None:
        super().__init__(message)
        self.timeout_s = timeout_s
        self.stdout = stdout
        self.stderr = stderr
