"""Registries as one engine reaches them. Nothing is loaded, and no file is read, before the first contact."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

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
    from collections.abc import Collection

    from containerlib.image.image_record import ImageRecord
    from containerlib.image.progress import Progress
    from containerlib.oci.descriptor import Descriptor
    from containerlib.registry.client import Registries
    from containerlib.registry.mirrors import RegistriesConfig
    from containerlib.store.stores import Stores

__all__ = ["Remote"]


class Remote:
    """How an engine reaches registries. What the configuration files say is read for each operation."""

    def __init__(self, *, offline: bool, insecure_registries: Collection[str]) -> None:
        self._offline = offline
        self._insecure = insecure_registries

    def pull(
        self, stores: Stores, name: str, *, platform: str | None, progress: Progress | None
    ) -> ImageRecord:
        """Do what `Images.pull` says: from the first source that has it, mirrors first."""
        from containerlib.image.progress import ignore  # noqa: PLC0415 - see the module
        from containerlib.image.pull import pull_image  # noqa: PLC0415

        reference = Reference.parse(name)
        wanted = None if platform is None else Platform.parse(platform)
        if self._offline:
            raise Offline(f"image {reference.familiar!r} would have to be pulled, and this engine is offline")
        config = self._config()
        with contextlib.closing(_registries(config)) as registries:
            *mirrors, last = config.sources(reference)
            for source in mirrors:
                with contextlib.suppress(RegistryUnavailable, RemoteNotFound, AuthenticationFailed):
                    repository = registries.repository(source)
                    return pull_image(
                        stores, repository, reference, platform=wanted, progress=progress or ignore
                    )
            repository = registries.repository(last)
            return pull_image(stores, repository, reference, platform=wanted, progress=progress or ignore)

    def push(
        self, stores: Stores, record: ImageRecord, name: str, *, progress: Progress | None
    ) -> Descriptor:
        """Do what `Image.push` says."""
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
        with contextlib.closing(_registries(config)) as registries:
            repository = registries.repository(config.push_source(reference), "pull,push")
            return push_image(stores, repository, record, reference.tag, progress=progress or ignore)

    def _config(self) -> RegistriesConfig:
        from containerlib.registry.mirrors import RegistriesConfig  # noqa: PLC0415 - see the module

        return RegistriesConfig.load().with_insecure(self._insecure)


def _registries(config: RegistriesConfig) -> Registries:
    from containerlib.registry.client import Registries  # noqa: PLC0415 - see the module
    from containerlib.registry.credentials import Credentials  # noqa: PLC0415

    return Registries(Credentials.load(default_helpers=config.credential_helpers))
