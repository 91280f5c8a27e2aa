"""The handles of `containerlib` for event loops: the same names, to be awaited.

    from containerlib import aio

    async with aio.Engine() as engine:
        image = await engine.images.from_host(["echo"])
        print((await image.call(["echo", "hello"])).text)

What waits for a container (`wait`, `exec`, `call`, `logs`, `events` and so on) waits in the loop for its
pidfd and pipes. What works without waiting for anybody is done in threads. Cancelling a task cancels the
work: what was begun is ended or taken back before the cancellation comes out. Values, options and errors are
those of `containerlib`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containerlib.aio.attachment import Attachment
    from containerlib.aio.container import Container, Containers
    from containerlib.aio.container_path import ContainerPath
    from containerlib.aio.engine import Engine
    from containerlib.aio.exec import ExecProcess
    from containerlib.aio.functions import Popen, default_engine, run
    from containerlib.aio.image import Image
    from containerlib.aio.images import Images
    from containerlib.aio.network import Network, Networks
    from containerlib.aio.network_fault import NetworkFault
    from containerlib.aio.process import Process
    from containerlib.aio.registry import Registry
    from containerlib.aio.snapshot import Snapshot
    from containerlib.aio.streams import PipeReader, PipeWriter

__all__ = [
    "Attachment",
    "Container",
    "ContainerPath",
    "Containers",
    "Engine",
    "ExecProcess",
    "Image",
    "Images",
    "Network",
    "NetworkFault",
    "Networks",
    "PipeReader",
    "PipeWriter",
    "Popen",
    "Process",
    "Registry",
    "Snapshot",
    "default_engine",
    "run",
]

_HOME = {
    "Attachment": "attachment",
    "Container": "container",
    "ContainerPath": "container_path",
    "Containers": "container",
    "Engine": "engine",
    "ExecProcess": "exec",
    "Image": "image",
    "Images": "images",
    "Network": "network",
    "Networks": "network",
    "PipeReader": "streams",
    "PipeWriter": "streams",
    "Popen": "functions",
    "Process": "process",
    "Registry": "registry",
    "NetworkFault": "network_fault",
    "Snapshot": "snapshot",
    "default_engine": "functions",
    "run": "functions",
}


def __getattr__(name: str) -> object:
    import importlib  # noqa: PLC0415 - importing this package shall cost nothing

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
