"""A reference to content: media type, digest and size, and what the specification allows beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidDigest, InvalidManifest
from containerlib.oci import fields
from containerlib.oci.digest import Digest
from containerlib.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Descriptor"]


@attrs.frozen
class Descriptor:
    """Points at content and says enough to verify it."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = attrs.field(factory=dict)
    urls: tuple[str, ...] = ()
    platform: Platform | None = None
    artifact_type: str = ""

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Descriptor:
        """Return the descriptor of `data`."""
        return cls(media_type, Digest.of(data), len(data))

    @classmethod
    def from_json(cls, obj: Mapping[str, object]) -> Descriptor:
        """Read a descriptor object.

        Raises:
            InvalidManifest: A required field is missing or a field has the wrong form.
        """
        platform = fields.mapping(obj, "platform")
        try:
            digest = Digest(obj.get("digest"))
        except InvalidDigest as error:
            raise InvalidManifest(f"descriptor: {error}") from None
        return cls(
            media_type=fields.required_text(obj, "mediaType"),
            digest=digest,
            size=fields.integer(obj, "size"),
            annotations=fields.text_map(obj, "annotations"),
            urls=fields.texts(obj, "urls"),
            platform=None if platform is None else Platform.from_json(platform),
            artifact_type=fields.text(obj, "artifactType"),
        )

    def to_json(self) -> dict[str, object]:
        """Return the object form, without empty fields."""
        result: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            result["annotations"] = dict(self.annotations)
        if self.urls:
            result["urls"] = list(self.urls)
        if self.platform is not None:
            result["platform"] = self.platform.to_json()
        if self.artifact_type:
            result["artifactType"] = self.artifact_type
        return result
