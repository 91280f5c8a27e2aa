"""The registries as one engine reaches them. Nothing is loaded before the first contact."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from containerlib.errors import InvalidReference, Offline
from containerlib.oci.platform import Platform
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Collection

    from containerlib.image.image_record import ImageRecord
    from containerlib.image.progress import Progress
    from containerlib.oci.descriptor import Descriptor
    from containerlib.registry.client import Registries
    from containerlib.store.stores import Stores

__all__ = ["Remote"]


class Remote:
    """Connections and credentials of an engine. Shared by threads."""

    def __init__(self, *, offline: bool, insecure_registries: Collection[str]) -> None:
        self._offline = offline
        self._insecure = insecure_registries
        self._lock = threading.Lock()
        self._registries: Registries | None = None

    def pull(
        self, stores: Stores, name: str, *, platform: str | None, progress: Progress | None
    ) -> ImageRecord:
        """Do what `Images.pull` says."""
        from containerlib.image.progress import ignore  # noqa: PLC0415 - see the module
        from containerlib.image.pull import pull_image  # noqa: PLC0415
        from containerlib.registry.locate import source_of  # noqa: PLC0415

        reference = Reference.parse(name)
        if reference.tag is None and reference.digest is None:
            raise InvalidReference(f"{name!r} names no image")
        wanted = None if platform is None else Platform.parse(platform)
        if self._offline:
            raise Offline(f"image {reference.familiar!r} would have to be pulled, and this engine is offline")
        registries = self._open()
        repository = registries.repository(source_of(reference, insecure=self._insecure))
        try:
            return pull_image(stores, repository, reference, platform=wanted, progress=progress or ignore)
        finally:
            registries.close()

    def push(
        self, stores: Stores, record: ImageRecord, name: str, *, progress: Progress | None
    ) -> Descriptor:
        """Do what `Image.push` says."""
        from containerlib.image.progress import ignore  # noqa: PLC0415 - see the module
        from containerlib.image.push import push_image  # noqa: PLC0415
        from containerlib.registry.locate import source_of  # noqa: PLC0415

        reference = Reference.parse(name)
        if reference.digest is not None or reference.tag is None:
            raise InvalidReference(
                f"{name!r}: images are pushed by a tag, and have the digest that they have"
            )
        if self._offline:
            raise Offline(f"image {reference.familiar!r} cannot be pushed: this engine is offline")
        registries = self._open()
        source = source_of(reference, insecure=self._insecure)
        try:
            repository = registries.repository(source, "pull,push")
            return push_image(stores, repository, record, reference.tag, progress=progress or ignore)
        finally:
            registries.close()

    def _open(self) -> Registries:
        from containerlib.registry.client import Registries  # noqa: PLC0415 - see the module
        from containerlib.registry.credentials import Credentials  # noqa: PLC0415

        with self._lock:
            if self._registries is None:
                self._registries = Registries(Credentials())
            return self._registries
