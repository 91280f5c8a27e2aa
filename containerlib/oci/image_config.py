"""The configuration of an image: what runs in it by default, and the digests of its layers.

`ImageConfig` keeps the bytes it was parsed from; fields that it does not know stay in them. `Config` is the
part that says how a container is started. All of it was written by whoever made the image: it may be stored
and shown, but never chooses what the host does.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from containerlib._util import strict_json
from containerlib.errors import InvalidDigest, InvalidInputError, InvalidManifest
from containerlib.oci import fields, media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import ChainId, DiffId, Digest, chain_id
from containerlib.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["DEFAULT_PATH", "MAX_CONFIG_BYTES", "Config", "History", "ImageConfig"]

MAX_CONFIG_BYTES = 8 << 20

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ENTRY = re.compile(r"[^=\x00-\x1f]+=")
_KNOWN = frozenset(
    (
        *("User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "StopSignal"),
        *("Volumes", "ExposedPorts", "Healthcheck", "Shell", "OnBuild"),
    )
)


def _env(entries: Sequence[str]) -> tuple[str, ...]:
    for entry in entries:
        if _ENTRY.match(entry) is None or "\0" in entry:
            raise InvalidManifest(f"environment entry {entry[:64]!r} is not NAME=VALUE")
    return tuple(entries)


@attrs.frozen
class Config:
    """Defaults for a container of this image, in Docker's words.

    Attributes:
        cmd: None if the image does not say; an empty tuple is an empty list.
        healthcheck: Docker's object as it is, or None.
        extra: Fields that this library does not know, kept so that they are printed again.
    """

    user: str = ""
    env: tuple[str, ...] = attrs.field(default=(), converter=_env)
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    healthcheck: Mapping[str, object] | None = None
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] = ()
    extra: Mapping[str, object] = attrs.field(factory=dict)

    @classmethod
    def from_json(cls, obj: Mapping[str, object]) -> Config:
        """Read the ``config`` object of an image.

        Raises:
            InvalidManifest: A field has the wrong form, or an environment entry is not ``NAME=VALUE``.
        """
        return cls(
            user=fields.text(obj, "User"),
            env=fields.texts(obj, "Env"),
            entrypoint=fields.optional_texts(obj, "Entrypoint"),
            cmd=fields.optional_texts(obj, "Cmd"),
            working_dir=fields.text(obj, "WorkingDir"),
            labels=fields.text_map(obj, "Labels"),
            stop_signal=fields.text(obj, "StopSignal"),
            volumes=fields.key_set(obj, "Volumes"),
            exposed_ports=fields.key_set(obj, "ExposedPorts"),
            healthcheck=fields.mapping(obj, "Healthcheck"),
            shell=fields.optional_texts(obj, "Shell"),
            on_build=fields.texts(obj, "OnBuild"),
            extra={key: value for key, value in obj.items() if key not in _KNOWN},
        )

    def to_json(self) -> dict[str, object]:
        """Return the object form, without empty fields."""
        members: dict[str, object] = {
            "User": self.user,
            "Env": list(self.env),
            "Entrypoint": _optional_list(self.entrypoint),
            "Cmd": _optional_list(self.cmd),
            "WorkingDir": self.working_dir,
            "Labels": dict(self.labels),
            "StopSignal": self.stop_signal,
            "Volumes": {path: {} for path in self.volumes},
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Healthcheck": None if self.healthcheck is None else dict(self.healthcheck),
            "Shell": _optional_list(self.shell),
            "OnBuild": list(self.on_build),
        }
        known = {key: value for key, value in members.items() if value}
        return {**self.extra, **known}


@attrs.frozen
class History:
    """How one layer, or one change of the configuration, came about."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False

    @classmethod
    def from_json(cls, obj: Mapping[str, object]) -> History:
        """Read one entry of ``history``."""
        return cls(
            created=fields.text(obj, "created"),
            created_by=fields.text(obj, "created_by"),
            author=fields.text(obj, "author"),
            comment=fields.text(obj, "comment"),
            empty_layer=obj.get("empty_layer") is True,
        )

    def to_json(self) -> dict[str, object]:
        """Return the object form, without empty fields."""
        return {key: value for key, value in attrs.asdict(self).items() if value}


@attrs.frozen(eq=False)
class ImageConfig:
    """The configuration document of an image; its digest is the image's id."""

    raw: bytes = attrs.field(repr=False)
    digest: Digest
    platform: Platform
    config: Config
    diff_ids: tuple[DiffId, ...]
    history: tuple[History, ...]
    created: str = ""
    author: str = ""

    @classmethod
    def parse(cls, raw: bytes) -> ImageConfig:
        """Parse the bytes of a configuration document.

        Raises:
            InvalidManifest: The document is damaged, over a limit, or a field has the wrong form.
        """
        try:
            document = strict_json.loads_object(raw, limit=MAX_CONFIG_BYTES, what="image configuration")
        except InvalidManifest:
            raise
        except InvalidInputError as error:
            raise InvalidManifest(str(error)) from None
        return cls(
            raw=raw,
            digest=Digest.of(raw),
            platform=Platform.from_json(document),
            config=Config.from_json(fields.mapping(document, "config") or {}),
            diff_ids=_diff_ids(document),
            history=tuple(map(History.from_json, fields.objects(document, "history"))),
            created=fields.text(document, "created"),
            author=fields.text(document, "author"),
        )

    @classmethod
    def build(
        cls,
        diff_ids: Sequence[Digest],
        *,
        config: Config | None = None,
        platform: Platform | None = None,
        history: Sequence[History] = (),
        created: str = "",
        author: str = "",
    ) -> ImageConfig:
        """Print a new configuration document in canonical form and return it parsed."""
        members: dict[str, object] = {
            **(platform or Platform.host()).to_json(),
            "config": (config or Config()).to_json(),
            "rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]},
            "history": [entry.to_json() for entry in history],
            "created": created,
            "author": author,
        }
        return cls.parse(strict_json.dumps({key: value for key, value in members.items() if value}))

    @property
    def chain_id(self) -> ChainId:
        """The name of the whole stack of layers."""
        return chain_id(self.diff_ids)

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor that points at this document."""
        return Descriptor(media_type.OCI_CONFIG, self.digest, len(self.raw))


def _diff_ids(document: Mapping[str, object]) -> tuple[DiffId, ...]:
    rootfs = fields.mapping(document, "rootfs")
    if rootfs is None or rootfs.get("type") != "layers":
        raise InvalidManifest("image configuration: rootfs is missing or not of type 'layers'")
    try:
        return tuple(DiffId(Digest(text)) for text in fields.texts(rootfs, "diff_ids"))
    except InvalidDigest as error:
        raise InvalidManifest(f"image configuration: {error}") from None


def _optional_list(items: tuple[str, ...] | None) -> list[str] | None:
    return None if items is None else list(items)
