"""Image layouts made by hand, as a witness that does not depend on what it is to test."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["OciLayout"]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class OciLayout:
    """An OCI image layout in a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blobs: dict[str, bytes] = {}
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="ascii")

    def add(self, data: bytes, media_type: str, **more: object) -> dict[str, object]:
        """Store a blob and return its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        (self.path / "blobs" / "sha256" / digest).write_bytes(data)
        self.blobs[f"sha256:{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    def add_image(
        self,
        layers: Sequence[bytes],
        *,
        config: Mapping[str, object] | None = None,
        architecture: str = "amd64",
        compress: bool | Sequence[str] = True,
        **more: object,
    ) -> dict[str, object]:
        """Store an image of uncompressed archives, and return the descriptor of its manifest.

        What else is given, such as `history`, becomes a member of the configuration document.
        `compress` may say for each layer: ``gzip``, ``zstd``, or nothing.
        """
        kinds = (["gzip" if compress else ""] * len(layers)) if isinstance(compress, bool) else compress
        document = {
            **more,
            "os": "linux",
            "architecture": architecture,
            "config": dict(config or {}),
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
            },
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.add(json.dumps(document).encode(), CONFIG),
            "layers": [self._add_layer(layer, kind) for layer, kind in zip(layers, kinds, strict=True)],
        }
        platform = {"os": "linux", "architecture": architecture}
        return self.add(json.dumps(manifest).encode(), MANIFEST, platform=platform)

    def _add_layer(self, layer: bytes, kind: str) -> dict[str, object]:
        if kind == "gzip":
            layer = gzip.compress(layer, 1, mtime=0)
        elif kind == "zstd":
            layer = zstandard.compress(layer, 3)
        return self.add(layer, f"{LAYER}+{kind}" if kind else LAYER)

    def add_index(self, manifests: Sequence[Mapping[str, object]]) -> dict[str, object]:
        """Store an index and return its descriptor."""
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
        return self.add(json.dumps(document).encode(), INDEX)

    def name(self, descriptor: Mapping[str, object], tag: str) -> str:
        """Let the layout hold this one image under `tag`, and return how skopeo calls it."""
        entry = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}}
        index = {"schemaVersion": 2, "manifests": [entry]}
        (self.path / "index.json").write_text(json.dumps(index), encoding="ascii")
        return f"oci:{self.path}:{tag}"
