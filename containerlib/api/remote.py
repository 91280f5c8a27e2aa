"""Registries as one engine reaches them. Nothing is loaded, and no file is read, before the first contact."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from containerlib.api.locks import Locks
from containerlib.errors import (
    AuthenticationFailed,
    InvalidReference,
    Offline,
    RegistryUnavailable,
    RemoteNotFound,
)
from containerlib.oci.platform import Platform
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from containerlib.image.image_record import ImageRecord
    from containerlib.image.lock_file import LockedImage
    from containerlib.image.progress import Progress
    from containerlib.oci.descriptor import Descriptor
    from containerlib.registry.client import Registries, RepositoryClient
    from containerlib.registry.credential import Credential
    from containerlib.registry.credentials import Credentials
    from containerlib.registry.mirrors import RegistriesConfig
    from containerlib.registry.transport import TransportSettings
    from containerlib.store.stores import Stores

__all__ = ["Remote"]

T = TypeVar("T")


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
        self._logins: dict[str, Credential] = {}

    def pull(
        self, stores: Stores, name: str, *, platform: str | None, progress: Progress | None
    ) -> ImageRecord:
        """Do what `Images.pull` says: from the first source that has it, mirrors first."""
        from containerlib.image.progress import ignore  # noqa: PLC0415 - see the module
        from containerlib.image.pull import pull_image  # noqa: PLC0415

        reference = Reference.parse(name)
        wanted = None if platform is None else Platform.parse(platform)
        locked = self.locks.get(name, must=True)
        if self._offline:
            exactly = "" if locked is None else f" as locked to {locked.digest}"
            raise Offline(
                f"image {reference.familiar!r}{exactly} would have to be pulled, and this engine is offline; "
                "pull it while it is not"
            )
        return self._from_first(
            reference,
            lambda repository: pull_image(
                stores, repository, reference, platform=wanted, progress=progress or ignore, locked=locked
            ),
        )

    def lock(self, names: Iterable[str], platforms: Iterable[str] | None) -> list[LockedImage]:
        """Do what `Images.lock` says, without the file."""
        from containerlib.image.lock import resolve_lock  # noqa: PLC0415 - see the module

        references = [Reference.parse(name) for name in names]
        wanted = None if platforms is None else [Platform.parse(platform) for platform in platforms]
        for reference in references:
            if reference.digest is not None:
                raise InvalidReference(f"{reference.familiar!r} has a digest and needs no lock")
            self._refuse_offline(f"image {reference.familiar!r} would have to be asked for to be locked")
        return [
            self._from_first(
                reference,
                lambda repository, reference=reference: resolve_lock(  # type: ignore[misc]
                    repository, reference, wanted
                ),
            )
            for reference in references
        ]

    def _from_first(self, reference: Reference, act: Callable[[RepositoryClient], T]) -> T:
        """Do something with the first source that has an image."""
        config = self._config()
        with contextlib.closing(self._registries(config)) as registries:
            *mirrors, last = config.sources(reference)
            for source in mirrors:
                with contextlib.suppress(RegistryUnavailable, RemoteNotFound, AuthenticationFailed):
                    return act(registries.repository(source))
            return act(registries.repository(last))

    def push(
        self, stores: Stores, record: ImageRecord, name: str, *, progress: Progress | None
    ) -> Descriptor:
        """Do what `Image.push` says."""
        from containerlib.image.mount_sources import MountSources  # noqa: PLC0415
        from containerlib.image.progress import ignore  # noqa: PLC0415 - see the module
        from containerlib.image.push import push_image  # noqa: PLC0415

        reference = Reference.parse(name)
        if reference.digest is not None or reference.tag is None:
            raise InvalidReference(
                f"{name!r}: images are pushed by a tag, and have the digest that they have"
            )
        if self._offline:
            raise Offline(f"image {reference.familiar!r} cannot be pushed: this engine is offline")
        config = self._config()
        with contextlib.closing(self._registries(config)) as registries:
            repository = registries.repository(config.push_source(reference), "pull,push")
            return push_image(
                stores,
                repository,
                record,
                reference.tag,
                progress=progress or ignore,
                mounts=MountSources(stores, reference),
            )

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

    @contextlib.contextmanager
    def _repository(self, reference: Reference, actions: str = "pull") -> Iterator[RepositoryClient]:
        """Give the client of the repository itself, not of a mirror, for one operation."""
        self._refuse_offline(f"{reference.name} cannot be asked for")
        config = self._config()
        with contextlib.closing(self._registries(config)) as registries:
            yield registries.repository(config.push_source(reference), actions)

    def _refuse_offline(self, what: str) -> None:
        if self._offline:
            raise Offline(f"{what}: this engine is offline")

    def _config(self) -> RegistriesConfig:
        from containerlib.registry.mirrors import RegistriesConfig  # noqa: PLC0415 - see the module

        return RegistriesConfig.load().with_insecure(self._insecure)

    def _credentials(self, config: RegistriesConfig) -> Credentials:
        from containerlib.registry.credentials import Credentials  # noqa: PLC0415 - see the module

        return Credentials.load(default_helpers=config.credential_helpers, logins=self._logins)

    def _registries(self, config: RegistriesConfig) -> Registries:
        from containerlib.registry.client import Registries  # noqa: PLC0415 - see the module

        return Registries(self._credentials(config), self._settings, token_services=self._token_services)


def _wanted(reference: Reference) -> str:
    return str(reference.digest or reference.tag)
