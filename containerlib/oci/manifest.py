"""Manifests and indexes: parsed from the bytes as received, which are kept and are what the digest is over.

A document that two programs could read as two things is refused: duplicate keys, both a list of manifests and
a list of layers, a media type that contradicts the one it was fetched under, and Docker's first schema.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from containerlib._util import strict_json
from containerlib.errors import InvalidInputError, InvalidManifest
from containerlib.oci import fields, media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["MAX_LAYERS", "MAX_MANIFEST_BYTES", "Index", "Manifest", "parse_manifest"]

MAX_MANIFEST_BYTES = 4 << 20
MAX_LAYERS = 500
MAX_INDEX_ENTRIES = 1000

_SCHEMA_VERSION = 2


@attrs.frozen(eq=False)
class Manifest:
    """One image: its configuration and its layers, lowest first."""

    raw: bytes = attrs.field(repr=False)
    media_type: str
    digest: Digest
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    subject: Descriptor | None = None
    artifact_type: str = ""

    @classmethod
    def build(
        cls, config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
    ) -> Manifest:
        """Print a new OCI manifest in canonical form and return it parsed."""
        document: dict[str, object] = {
            "schemaVersion": _SCHEMA_VERSION,
            "mediaType": media_type.OCI_MANIFEST,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
        if annotations:
            document["annotations"] = dict(annotations)
        return _manifest(strict_json.dumps(document), media_type.OCI_MANIFEST, document)

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor that points at this manifest."""
        return Descriptor(self.media_type, self.digest, len(self.raw))

    @property
    def is_image(self) -> bool:
        """Whether this is a container image and not some other artifact."""
        return media_type.is_config(self.config.media_type) and all(
            media_type.is_layer(layer.media_type) for layer in self.layers
        )


@attrs.frozen(eq=False)
class Index:
    """A list of manifests, usually the same image for several platforms."""

    raw: bytes = attrs.field(repr=False)
    media_type: str
    digest: Digest
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    subject: Descriptor | None = None
    artifact_type: str = ""

    @classmethod
    def build(cls, manifests: Sequence[Descriptor], kind: str | None = None) -> Index:
        """Print a new index in canonical form and return it parsed; `kind` may be Docker's media type."""
        kind = kind or media_type.OCI_INDEX
        document: dict[str, object] = {
            "schemaVersion": _SCHEMA_VERSION,
            "mediaType": kind,
            "manifests": [manifest.to_json() for manifest in manifests],
        }
        return _index(strict_json.dumps(document), kind, document)

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor that points at this index."""
        return Descriptor(self.media_type, self.digest, len(self.raw))

    def select(self, platform: Platform | None = None) -> Descriptor | None:
        """Return the entry that `platform` (this host's if None) runs best, or None if it runs none."""
        wanted = Platform.host() if platform is None else platform
        index = wanted.best_of([entry.platform for entry in self.manifests])
        return None if index is None else self.manifests[index]


def parse_manifest(raw: bytes, expected_media_type: str | None = None) -> Manifest | Index:
    """Parse the bytes of a manifest or an index.

    Args:
        raw: The document exactly as received.
        expected_media_type: What a descriptor or the server calls it. The document may leave the media
            type out only if this is given.

    Raises:
        InvalidManifest: The document is damaged, ambiguous, of an old schema or over a limit.
    """
    try:
        document = strict_json.loads_object(raw, limit=MAX_MANIFEST_BYTES, what="manifest")
    except InvalidManifest:
        raise
    except InvalidInputError as error:
        raise InvalidManifest(str(error)) from None
    kind = _checked_media_type(document, expected_media_type)
    return _index(raw, kind, document) if media_type.is_index(kind) else _manifest(raw, kind, document)


def _checked_media_type(document: Mapping[str, object], expected: str | None) -> str:
    if document.get("schemaVersion") != _SCHEMA_VERSION:
        raise InvalidManifest(f"manifest: schemaVersion is {document.get('schemaVersion')!r}, expected 2")
    own = fields.optional_text(document, "mediaType")
    if own is not None and expected is not None and own != expected:
        raise InvalidManifest(f"manifest: calls itself {own!r} but was fetched as {expected!r}")
    kind = own or expected
    if kind is None:
        raise InvalidManifest("manifest: no mediaType, in the document or beside it")
    forbidden = ("config", "layers") if media_type.is_index(kind) else ("manifests",)
    for key in (*forbidden, "fsLayers"):
        if key in document:
            raise InvalidManifest(f"manifest: {kind!r} has the field {key!r}")
    if not (media_type.is_index(kind) or media_type.is_manifest(kind)):
        raise InvalidManifest(f"manifest: media type {kind!r} is not a manifest or index")
    return kind


def _manifest(raw: bytes, kind: str, document: Mapping[str, object]) -> Manifest:
    config = fields.mapping(document, "config")
    layers = fields.objects(document, "layers")
    subject = fields.mapping(document, "subject")
    if config is None:
        raise InvalidManifest("manifest: field 'config' is missing")
    if len(layers) > MAX_LAYERS:
        raise InvalidManifest(f"manifest: {len(layers)} layers, more than the limit of {MAX_LAYERS}")
    return Manifest(
        raw=raw,
        media_type=kind,
        digest=Digest.of(raw),
        config=Descriptor.from_json(config),
        layers=tuple(map(Descriptor.from_json, layers)),
        annotations=fields.text_map(document, "annotations"),
        subject=None if subject is None else Descriptor.from_json(subject),
        artifact_type=fields.text(document, "artifactType"),
    )


def _index(raw: bytes, kind: str, document: Mapping[str, object]) -> Index:
    manifests = fields.objects(document, "manifests")
    subject = fields.mapping(document, "subject")
    if len(manifests) > MAX_INDEX_ENTRIES:
        raise InvalidManifest(f"index: {len(manifests)} entries, more than the limit of {MAX_INDEX_ENTRIES}")
    return Index(
        raw=raw,
        media_type=kind,
        digest=Digest.of(raw),
        manifests=tuple(map(Descriptor.from_json, manifests)),
        annotations=fields.text_map(document, "annotations"),
        subject=None if subject is None else Descriptor.from_json(subject),
        artifact_type=fields.text(document, "artifactType"),
    )
