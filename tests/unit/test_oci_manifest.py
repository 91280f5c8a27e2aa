from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import InvalidManifest
from containerlib.oci import media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.oci.manifest import Index, Manifest, parse_manifest
from containerlib.oci.platform import Platform

CONFIG = Descriptor.of(b"{}", media_type.OCI_CONFIG)
LAYER = Descriptor.of(b"layer", media_type.OCI_LAYER)


def manifest_document(**changes: object) -> bytes:
    """Return a good manifest with some fields changed; None removes one."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media_type.OCI_MANIFEST,
        "config": CONFIG.to_json(),
        "layers": [LAYER.to_json()],
        **changes,
    }
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


def test_raw_bytes_make_the_digest() -> None:
    """The digest is over the bytes as received, spaces and unknown fields included."""
    raw = manifest_document(unknown=[1, 2]) + b"  \n"
    manifest = parse_manifest(raw)
    assert isinstance(manifest, Manifest)
    assert (manifest.raw, manifest.digest, manifest.layers) == (raw, Digest.of(raw), (LAYER,))
    assert manifest.descriptor == Descriptor(media_type.OCI_MANIFEST, Digest.of(raw), len(raw))


def test_build_is_canonical() -> None:
    """A built manifest has sorted keys, no spaces, and parses to itself."""
    manifest = Manifest.build(CONFIG, [LAYER], {"b": "2", "a": "1"})
    again = parse_manifest(manifest.raw, media_type.OCI_MANIFEST)
    assert isinstance(again, Manifest)
    assert (again.digest, again.config, again.layers) == (manifest.digest, CONFIG, (LAYER,))
    assert manifest.raw.startswith(b'{"annotations":{"a":"1","b":"2"},"config":')
    assert b" " not in manifest.raw


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        manifest_document(schemaVersion=1),
        manifest_document(schemaVersion=None),
        manifest_document(mediaType=None),
        manifest_document(mediaType="text/plain"),
        manifest_document(mediaType=3),
        manifest_document(manifests=[]),
        manifest_document(fsLayers=[]),
        manifest_document(mediaType=media_type.OCI_INDEX),
        manifest_document(config=None),
        manifest_document(config=[]),
        manifest_document(layers={}),
        manifest_document(layers=[1]),
        manifest_document(layers=[{**LAYER.to_json(), "digest": "sha256:../../x"}]),
        manifest_document(layers=[{**LAYER.to_json(), "size": -1}]),
        manifest_document(layers=[{**LAYER.to_json(), "size": 1.5}]),
        manifest_document(layers=[{**LAYER.to_json(), "size": True}]),
        manifest_document(layers=[{**LAYER.to_json(), "size": 1 << 63}]),
        manifest_document(layers=[{**LAYER.to_json(), "mediaType": ""}]),
        manifest_document(layers=[LAYER.to_json()] * 501),
        manifest_document(annotations={"a": 1}),
        manifest_document()[:-1] + b',"layers":[]}',
        b'{"schemaVersion":2,"mediaType":"'
        + media_type.OCI_INDEX.encode()
        + b'","manifests":[],"layers":[]}',
        manifest_document(padding="x" * (4 << 20)),
    ],
)
def test_bad_manifests_are_refused(raw: bytes) -> None:
    """Damaged, ambiguous, old and oversized documents raise InvalidManifest."""
    with pytest.raises(InvalidManifest):
        parse_manifest(raw)


def test_media_type_must_agree() -> None:
    """A document fetched under another media type than its own is refused."""
    with pytest.raises(InvalidManifest, match="calls itself"):
        parse_manifest(manifest_document(), media_type.DOCKER_MANIFEST)


def test_media_type_may_come_from_outside() -> None:
    """A document without a media type is what its descriptor says."""
    manifest = parse_manifest(manifest_document(mediaType=None), media_type.OCI_MANIFEST)
    assert manifest.media_type == media_type.OCI_MANIFEST


def test_docker_manifest() -> None:
    """Docker's second schema is read like OCI's."""
    raw = manifest_document(
        mediaType=media_type.DOCKER_MANIFEST,
        config=Descriptor.of(b"{}", media_type.DOCKER_CONFIG).to_json(),
        layers=[Descriptor.of(b"l", media_type.DOCKER_LAYER_GZIP).to_json()],
    )
    manifest = parse_manifest(raw, media_type.DOCKER_MANIFEST)
    assert isinstance(manifest, Manifest)
    assert manifest.is_image
    assert media_type.layer_compression(manifest.layers[0].media_type) == "gzip"


def test_artifact_is_no_image() -> None:
    """A manifest whose layers are not file systems is told apart."""
    assert not Manifest.build(CONFIG, [Descriptor.of(b"", "text/plain")]).is_image
    with pytest.raises(InvalidManifest):
        media_type.layer_compression("text/plain")


def test_index_selects_the_platform() -> None:
    """An index gives the entry for a platform, or nothing."""
    entries = [
        Descriptor(media_type.OCI_MANIFEST, Digest.of(name), 1, platform=Platform("linux", name.decode()))
        for name in (b"amd64", b"arm64")
    ]
    index = parse_manifest(Index.build(entries).raw)
    assert isinstance(index, Index)
    assert index.manifests == tuple(entries)
    assert index.select(Platform("linux", "arm64")) == entries[1]
    assert index.select(Platform("linux", "s390x")) is None
    assert index.select() in entries


@given(st.data())
def test_mutated_manifests_raise_nothing_else(data: st.DataObject) -> None:
    """A manifest with random bytes changed parses or raises InvalidManifest."""
    raw = bytearray(manifest_document())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidManifest):
        parse_manifest(bytes(raw))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "subject", "annotations"]), JSON)
def test_fields_of_any_type_raise_nothing_else(key: str, value: object) -> None:
    """A field of any JSON type gives a manifest or InvalidManifest."""
    with contextlib.suppress(InvalidManifest):
        parse_manifest(manifest_document(**{key: value}))
