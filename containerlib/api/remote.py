"""Registries as one engine reaches them. Nothing is loaded, and no file is read, before the first contact."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, TypeVar

from containerlib.api.locks import Locks
from containerlib.errors import (
    AuthenticationFailed,
    InvalidReference,
    Offline,
    RateLimited,
    RegistryUnavailable,
    RemoteNotFound,
)
from containerlib.oci.platform import Platform
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from containerlib.errors import RegistryError
    from containerlib.image.image_record import ImageRecord
    from containerlib.image.lock_file import LockedImage
    from containerlib.image.mount_sources import MountSources
    from containerlib.image.progress import Phase, Progress
    from containerlib.oci.descriptor import Descriptor
    from containerlib.registry.client import Registries, RepositoryClient
    from containerlib.registry.credential import Credential
    from containerlib.registry.credentials import Credentials, Memory
    from containerlib.registry.mirrors import RegistriesConfig
    from containerlib.registry.transport import TransportSettings
    from containerlib.store.stores import Stores

__all__ = ["Remote"]

T = TypeVar("T")

# What is no reason not to ask the next place where an image may be.
_ELSEWHERE = (RegistryUnavailable, RemoteNotFound, AuthenticationFailed, RateLimited)


class Remote:
    """How an engine reaches registries. What the configuration files say is read for each operation."""

    def __init__(
        self,
        *,
        offline: bool,
        insecure_registries: Collection[str],
        trusted_token_services: Collection[str] = (),
        settings: TransportSettings | None = None,
        locks: Locks | None = None,
    ) -> None:
        self._offline = offline
        self._settings = settings
        self.locks = locks or Locks()
        self._insecure = insecure_registries
        self._token_services = trusted_token_services
        self._memory: Memory | None = None
        self._lock = threading.Lock()

    def pull(
        self, stores: Stores, name: str, *, platform: str | None, progress: Progress | None
    ) -> ImageRecord:
        """Do what `Images.pull` says: from the first source that has it, mirrors first."""
        from containerlib.image.progress import ignore  # noqa: PLC0415 - see the module
        from containerlib.image.pull import pull_image  # noqa: PLC0415

        own = Reference.parse(name)
        wanted = None if platform is None else Platform.parse(platform)
        locked = self.locked(name, must=True)
        exactly = "" if locked is None else f" as locked to {locked.digest}"
        self._refuse_offline(f"image {own.familiar!r}{exactly} would have to be pulled")
        return self._from_first(
            name if locked is None else locked.reference,
            lambda repository, reference: pull_image(
                stores, repository, reference, platform=wanted, progress=progress or ignore, locked=locked
            ),
        )

    def lock(self, names: Iterable[str], platforms: Iterable[str] | None) -> list[LockedImage]:
        """Do what `Images.lock` says, without the file."""
        from containerlib.image.lock import resolve_lock  # noqa: PLC0415 - see the module

        names = list(names)
        wanted = None if platforms is None else [Platform.parse(platform) for platform in platforms]
        for name in names:
            if Reference.parse(name).digest is not None:
                raise InvalidReference(f"{name!r} has a digest and needs no lock")
            self._refuse_offline(f"image {name!r} would have to be asked for to be locked")
        return [
            self._from_first(name, lambda repository, reference: resolve_lock(repository, reference, wanted))
            for name in names
        ]

    def locked(self, name: str, *, must: bool = False) -> LockedImage | None:
        """Return what the lock file says about `name`, or what else it may mean; see `Locks.get`."""
        if not self.locks.path:
            return None
        return self.locks.get([name, *self.other_names(name)], must=must)

    def _from_first(self, name: str, act: Callable[[RepositoryClient, Reference], T]) -> T:
        """Do something with the first source that has the image that `name` may mean, mirrors first."""
        config = self._config()
        failures: list[RegistryError] = []
        with contextlib.closing(self._registries(config)) as registries:
            for reference in map(Reference.parse, config.candidates(name)):
                for source in config.sources(reference):
                    try:
                        return act(registries.repository(source), reference)
                    except _ELSEWHERE as error:
                        failures.append(error)
        for failure in failures[:-1]:
            failures[-1].add_note(f"before that: {failure}")
        raise failures[-1]

    def other_names(self, name: str) -> list[str]:
        """Return what else than an image of Docker Hub the short `name` may mean on this host."""
        from containerlib.registry.registries_conf import has_registry  # noqa: PLC0415 - see the module

        with contextlib.suppress(InvalidReference):
            if not has_registry(name):
                own = Reference.parse(name)
                names = self._config().candidates(name)
                return [other for other in map(_complete, names) if other != own.canonical]
        return []

    def push(
        self, stores: Stores, record: ImageRecord, name: str, *, progress: Progress | None
    ) -> Descriptor:
        """Do what `Image.push` says."""
        from containerlib.image.progress import ignore  # noqa: PLC0415 - see the module
        from containerlib.image.push import push_image  # noqa: PLC0415

        with self._target(stores, name) as (repository, tag, mounts):
            return push_image(stores, repository, record, tag, progress=progress or ignore, mounts=mounts)

    def push_index(
        self, stores: Stores, records: Sequence[ImageRecord], name: str, *, progress: Progress | None
    ) -> Descriptor:
        """Do what `Images.push_index` says."""
        from containerlib.image.progress import ignore  # noqa: PLC0415 - see the module
        from containerlib.image.push_index import push_index  # noqa: PLC0415

        with self._target(stores, name) as (repository, tag, mounts):
            return push_index(stores, repository, records, tag, progress=progress or ignore, mounts=mounts)

    @contextlib.contextmanager
    def _target(self, stores: Stores, name: str) -> Iterator[tuple[RepositoryClient, str, MountSources]]:
        """Give what is pushed to, for one operation."""
        from containerlib.image.mount_sources import MountSources  # noqa: PLC0415 - see the module

        reference = Reference.parse(name)
        if reference.digest is not None or reference.tag is None:
            raise InvalidReference(
                f"{name!r}: images are pushed by a tag, and have the digest that they have"
            )
        self._refuse_offline(f"image {reference.familiar!r} cannot be pushed")
        config = self._config()
        with contextlib.closing(self._registries(config)) as registries:
            repository = registries.repository(config.push_source(reference), "pull,push")
            yield repository, reference.tag, MountSources(stores, reference)

    def login(self, host: str, credential: Credential, *, store: bool) -> tuple[Credential, str]:
        """Do what `Registry.login` says; return what is kept, and where."""
        from containerlib.registry.login import verified  # noqa: PLC0415 - see the module

        self._refuse_offline(f"nobody can log in to {host}")
        config = self._config()
        kept = verified(config.host_source(host), credential, token_services=self._token_services)
        return kept, self._credentials(config).login(host, kept, persist=store)

    def logout(self, host: str) -> bool:
        """Do what `Registry.logout` says."""
        return self._credentials(self._config()).logout(host)

    def tags(self, reference: Reference) -> list[str]:
        """Do what `Registry.tags` says."""
        from containerlib.registry.listing import list_tags  # noqa: PLC0415 - see the module

        with self._repository(reference) as repository:
            return list_tags(repository, repository.source.name)

    def catalog(self, host: str) -> list[str]:
        """Do what `Registry.catalog` says."""
        from containerlib.registry.listing import list_repositories  # noqa: PLC0415 - see the module

        self._refuse_offline(f"the catalog of {host} cannot be read")
        config = self._config()
        with contextlib.closing(self._registries(config)) as registries:
            return list_repositories(registries.access(config.host_source(host), "registry:catalog:*"), host)

    def resolve(self, reference: Reference) -> Descriptor:
        """Do what `Registry.resolve` says."""
        with self._repository(reference) as repository:
            return repository.describe_manifest(_wanted(reference))

    def manifest(self, reference: Reference) -> tuple[Descriptor, bytes]:
        """Fetch what `Registry.manifest` returns."""
        with self._repository(reference) as repository:
            return repository.fetch_manifest(_wanted(reference))

    def delete(self, reference: Reference) -> None:
        """Do what `Registry.delete` says."""
        with self._repository(reference, "pull,delete") as repository:
            repository.delete_manifest(_wanted(reference))

    def referrers(self, reference: Reference, artifact_type: str | None) -> list[Descriptor]:
        """Do what `Registry.referrers` says."""
        from containerlib.registry.referrers import list_referrers  # noqa: PLC0415 - see the module

        with self._repository(reference) as repository:
            digest = reference.digest or repository.describe_manifest(_wanted(reference)).digest
            return list_referrers(repository, digest, artifact_type)

    def copy(
        self,
        source: Reference,
        target: Reference,
        *,
        platforms: Sequence[Platform] | None,
        with_referrers: bool,
        progress: Progress | None,
    ) -> Descriptor:
        """Do what `Registry.copy` says."""
        from containerlib.image.progress import TransferEvent  # noqa: PLC0415 - see the module
        from containerlib.registry.copying import copy_image  # noqa: PLC0415

        def tell(blob: Descriptor, phase: Phase, current_bytes: int) -> None:
            if progress is not None:
                progress(TransferEvent(str(blob.digest), phase, current_bytes, blob.size))

        if target.digest is not None or target.tag is None:
            raise InvalidReference(f"{target}: images are copied to a tag, and keep their digest")
        self._refuse_offline(f"image {source.familiar!r} cannot be copied")
        config = self._config()
        with contextlib.closing(self._registries(config)) as registries:
            return copy_image(
                registries.repository(config.push_source(source)),
                registries.repository(config.push_source(target), "pull,push"),
                _wanted(source),
                target.tag,
                platforms=platforms,
                with_referrers=with_referrers,
                on_blob=tell,
            )

    @contextlib.contextmanager
    def _repository(self, reference: Reference, actions: str = "pull") -> Iterator[RepositoryClient]:
        """Give the client of the repository itself, not of a mirror, for one operation."""
        self._refuse_offline(f"{reference.name} cannot be asked for")
        config = self._config()
        with contextlib.closing(self._registries(config)) as registries:
            yield registries.repository(config.push_source(reference), actions)

    def _refuse_offline(self, what: str) -> None:
        if self._offline:
            raise Offline(f"{what}: this engine is offline; use one that is not")

    def _config(self) -> RegistriesConfig:
        from containerlib.registry.mirrors import RegistriesConfig  # noqa: PLC0415 - see the module

        return RegistriesConfig.load().with_insecure(self._insecure)

    def _credentials(self, config: RegistriesConfig) -> Credentials:
        from containerlib.registry.credentials import Credentials, Memory  # noqa: PLC0415 - see the module

        with self._lock:
            self._memory = memory = self._memory or Memory()
        return Credentials.load(default_helpers=config.credential_helpers, memory=memory)

    def _registries(self, config: RegistriesConfig) -> Registries:
        from containerlib.registry.client import Registries  # noqa: PLC0415 - see the module

        return Registries(self._credentials(config), self._settings, token_services=self._token_services)


def _complete(name: str) -> str:
    return Reference.parse(name).canonical


def _wanted(reference: Reference) -> str:
    return str(reference.digest or reference.tag)
