"""Handles for event loops, of those without; each module is loaded when there is something of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from containerlib.aio.attachment import Attachment
    from containerlib.aio.container import Container, Containers
    from containerlib.aio.container_path import ContainerPath
    from containerlib.aio.exec import ExecProcess
    from containerlib.aio.image import Image
    from containerlib.aio.images import Images
    from containerlib.aio.network import Network, Networks
    from containerlib.aio.network_fault import NetworkFault
    from containerlib.aio.registry import Registry
    from containerlib.aio.snapshot import Snapshot
    from containerlib.api import attachment as sync_attachment
    from containerlib.api import container as sync_container
    from containerlib.api import container_path as sync_container_path
    from containerlib.api import exec as sync_exec
    from containerlib.api import image as sync_image
    from containerlib.api import images as sync_images
    from containerlib.api import network as sync_network
    from containerlib.api import network_fault as sync_network_fault
    from containerlib.api import registry as sync_registry
    from containerlib.api import snapshot as sync_snapshot

__all__ = [
    "attachment",
    "container",
    "container_path",
    "containers",
    "exec_process",
    "image",
    "images",
    "network",
    "network_fault",
    "networks",
    "registry",
    "snapshot",
    "unwrap",
]


def unwrap(value: Any) -> Any:
    """What a handle does its work with; everything else stays."""
    return getattr(value, "sync", value)


def attachment(sync: sync_attachment.Attachment) -> Attachment:
    """Streams."""
    from containerlib.aio.attachment import Attachment  # noqa: PLC0415 - see above

    return Attachment(sync)


def container(sync: sync_container.Container) -> Container:
    """A container."""
    from containerlib.aio.container import Container  # noqa: PLC0415 - see above

    return Container(sync)


def containers(sync: sync_container.Containers) -> Containers:
    """The containers of an engine."""
    from containerlib.aio.container import Containers  # noqa: PLC0415 - see above

    return Containers(sync)


def container_path(sync: sync_container_path.ContainerPath) -> ContainerPath:
    """A path in a container."""
    from containerlib.aio.container_path import ContainerPath  # noqa: PLC0415 - see above

    return ContainerPath(sync)


def exec_process(sync: sync_exec.ExecProcess) -> ExecProcess:
    """A command in a container."""
    from containerlib.aio.exec import ExecProcess  # noqa: PLC0415 - see above

    return ExecProcess(sync)


def image(sync: sync_image.Image) -> Image:
    """An image."""
    from containerlib.aio.image import Image  # noqa: PLC0415 - see above

    return Image(sync)


def images(sync: sync_images.Images) -> Images:
    """The images of an engine."""
    from containerlib.aio.images import Images  # noqa: PLC0415 - see above

    return Images(sync)


def network(sync: sync_network.Network) -> Network:
    """A network."""
    from containerlib.aio.network import Network  # noqa: PLC0415 - see above

    return Network(sync)


def network_fault(sync: sync_network_fault.NetworkFault) -> NetworkFault:
    """What is wrong with a place in a network."""
    from containerlib.aio.network_fault import NetworkFault  # noqa: PLC0415 - see above

    return NetworkFault(sync)


def networks(sync: sync_network.Networks) -> Networks:
    """The networks of a store."""
    from containerlib.aio.network import Networks  # noqa: PLC0415 - see above

    return Networks(sync)


def registry(sync: sync_registry.Registry) -> Registry:
    """A registry."""
    from containerlib.aio.registry import Registry  # noqa: PLC0415 - see above

    return Registry(sync)


def snapshot(sync: sync_snapshot.Snapshot) -> Snapshot:
    """What a container had written."""
    from containerlib.aio.snapshot import Snapshot  # noqa: PLC0415 - see above

    return Snapshot(sync)
