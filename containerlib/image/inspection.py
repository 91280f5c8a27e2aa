"""Everything that is known about one image, as one value and in Docker's form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from containerlib.image.history import unpacked_bytes
from containerlib.oci import timestamp
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    import datetime as dt

    from containerlib.image.image_record import ImageRecord
    from containerlib.oci.image_config import Config
    from containerlib.store.stores import Stores

__all__ = ["ImageInspection", "inspect_image"]

_ALWAYS = ("User", "Env", "Cmd", "Entrypoint", "Volumes", "WorkingDir", "Labels", "OnBuild")


@attrs.frozen
class ImageInspection:
    """What is known about one image.

    Attributes:
        id: Digest of its configuration.
        digest: Digest of what its names point at.
        repo_tags: Its names with a tag, as Docker shows them.
        repo_digests: Its repositories, each with the digest.
        created: When it was made; None if it does not say.
        created_text: The same as its configuration has it, to the nanosecond; empty if it does not say.
        author: Who made it, by its own words.
        comment: What its maker says of the last step.
        config: Defaults for its containers.
        architecture: Processor, in Go's words.
        variant: Variant of the processor, or empty.
        os: Operating system.
        os_version: Version of it, or empty.
        size_bytes: Content of the files of all layers, unpacked; what Docker calls the size.
        stored_bytes: Size of its blobs in the store.
        diff_ids: Digests of its layers, uncompressed, lowest first.
    """

    id: str
    digest: str
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    created: dt.datetime | None
    created_text: str
    author: str
    comment: str
    config: Config
    architecture: str
    variant: str
    os: str
    os_version: str
    size_bytes: int
    stored_bytes: int
    diff_ids: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the object that ``docker image inspect`` prints.

        There is no ``GraphDriver``: layers are not mounted before a container starts.
        """
        config: dict[str, object] = dict.fromkeys(_ALWAYS)
        config.update({"User": "", "WorkingDir": ""}, **self.config.to_json())
        members: dict[str, object] = {
            "Id": self.id,
            "RepoTags": list(self.repo_tags),
            "RepoDigests": list(self.repo_digests),
            "Parent": "",
            "Comment": self.comment,
            "Created": self.created_text or None,
            "Author": self.author,
            "Config": config,
            "Architecture": self.architecture,
            "Variant": self.variant or None,
            "Os": self.os,
            "OsVersion": self.os_version or None,
            "Size": self.size_bytes,
            "RootFS": {"Type": "layers", "Layers": list(self.diff_ids)},
        }
        return {key: value for key, value in members.items() if value is not None}


def inspect_image(stores: Stores, image: ImageRecord) -> ImageInspection:
    """Return what is known about `image`."""
    config, names = image.config, [Reference.parse(name) for name in image.references]
    platform, history, created = config.platform, config.history, timestamp.parse(config.created)
    return ImageInspection(
        id=str(image.id),
        digest=str(image.digest),
        repo_tags=tuple(name.familiar for name in names if name.tag is not None),
        repo_digests=tuple(sorted({f"{name.familiar_name}@{image.digest}" for name in names})),
        created=created,
        created_text="" if created is None else config.created,
        author=config.author,
        comment=history[-1].comment if history else "",
        config=config.config,
        architecture=platform.architecture,
        variant=platform.variant,
        os=platform.os,
        os_version=platform.os_version,
        size_bytes=unpacked_bytes(stores, image),
        stored_bytes=image.size_bytes,
        diff_ids=tuple(map(str, config.diff_ids)),
    )
