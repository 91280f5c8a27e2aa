"""Docker's engine as a Python library: images and containers in your own process.

    import containerlib as cl

    image = cl.default_engine().images.from_host()
    print(cl.run(["sh", "-c", "echo hello from $(hostname)"], image=image).text)

Importing this package does no I/O and loads nothing else; every name is loaded when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containerlib.api.attachment import Attachment
    from containerlib.api.container import Container, Containers
    from containerlib.api.container_path import ContainerPath
    from containerlib.api.doctor import Finding
    from containerlib.api.engine import Engine, EngineConfig, default_engine
    from containerlib.api.exec import ExecProcess
    from containerlib.api.image import Image
    from containerlib.api.images import Images
    from containerlib.api.network import Network, Networks
    from containerlib.api.network_fault import NetworkFault
    from containerlib.api.options import RunOptions
    from containerlib.api.process import Process
    from containerlib.api.registry import Login, Registry, RemoteManifest
    from containerlib.api.registry_server import RegistryServer
    from containerlib.api.result import CompletedRun
    from containerlib.api.run import Popen, run
    from containerlib.api.snapshot import Snapshot
    from containerlib.container.disk_usage import ContainerUsage, DiskUsage, VolumeUsage
    from containerlib.container.events import Event
    from containerlib.container.health import HealthResult, HealthStatus
    from containerlib.container.inspection import ContainerInspection
    from containerlib.container.logs import LogLine
    from containerlib.container.prune import SystemPruneReport
    from containerlib.container.restore import RecoveryReport
    from containerlib.container.state import ContainerState
    from containerlib.container.streams import DEVNULL, PIPE, STDOUT
    from containerlib.errors import (
        AddressesExhausted,
        AuthenticationFailed,
        BlobNotFound,
        CgroupError,
        CommandNotExecutable,
        CommandNotFound,
        ConflictError,
        ContainerFailed,
        ContainerFileError,
        ContainerlibError,
        ContainerNotFound,
        DigestMismatch,
        EngineClosed,
        ImageNotFound,
        InvalidDigest,
        InvalidInputError,
        InvalidManifest,
        InvalidOption,
        InvalidReference,
        InvalidState,
        LayerError,
        NameInUse,
        NetworkNotFound,
        NotFoundError,
        NotLocked,
        Offline,
        OperationTimeout,
        OutputLimitExceeded,
        PathNotFound,
        PlatformNotFound,
        RateLimited,
        ReadOnlyStore,
        RegistryBlocked,
        RegistryError,
        RegistryUnavailable,
        RemoteNotFound,
        ResourceInUse,
        SizeMismatch,
        SnapshotNotFound,
        SpawnError,
        StoreCorrupted,
        StoreFull,
        UnsafePath,
        UnsupportedHost,
        UnsupportedLayer,
        VerificationError,
        VolumeNotFound,
    )
    from containerlib.image.export import Exported
    from containerlib.image.history import HistoryEntry
    from containerlib.image.inspection import ImageInspection
    from containerlib.image.lock_file import LockedImage
    from containerlib.image.progress import TransferEvent
    from containerlib.image.prune import PruneReport
    from containerlib.image.repair import RepairReport
    from containerlib.image.resolve import Removed
    from containerlib.image.usage import ImagesUsage, ImageUsage
    from containerlib.layer.compare import Change
    from containerlib.network.inspection import NetworkInspection
    from containerlib.network_options import NetworkAttachment, PortMapping
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.image_config import Config as ImageDefaults
    from containerlib.options import (
        Device,
        HealthCheck,
        LogCallback,
        LogFile,
        Mount,
        Resources,
        RestartPolicy,
        Rlimit,
        Security,
    )
    from containerlib.runtime.process_table import ProcessInfo
    from containerlib.runtime.stats import (
        ContainerStats,
        CpuStats,
        IoStats,
        MemoryStats,
        NetworkStats,
        PidsStats,
        PressureStats,
    )
    from containerlib.runtime.usage import ExitStatus, Usage
    from containerlib.store.damage import Damage

__version__ = "0.1.0"

_MODULES = {
    "containerlib.api.container": ("Container", "Containers"),
    "containerlib.api.container_path": ("ContainerPath",),
    "containerlib.api.doctor": ("Finding",),
    "containerlib.api.engine": ("Engine", "EngineConfig", "default_engine"),
    "containerlib.api.image": ("Image",),
    "containerlib.api.images": ("Images",),
    "containerlib.api.network": ("Network", "Networks"),
    "containerlib.api.options": ("RunOptions",),
    "containerlib.api.exec": ("ExecProcess",),
    "containerlib.api.process": ("Process",),
    "containerlib.api.registry": ("Login", "Registry", "RemoteManifest"),
    "containerlib.api.registry_server": ("RegistryServer",),
    "containerlib.api.result": ("CompletedRun",),
    "containerlib.api.run": ("Popen", "run"),
    "containerlib.api.network_fault": ("NetworkFault",),
    "containerlib.api.snapshot": ("Snapshot",),
    "containerlib.container.disk_usage": ("ContainerUsage", "DiskUsage", "VolumeUsage"),
    "containerlib.container.prune": ("SystemPruneReport",),
    "containerlib.container.restore": ("RecoveryReport",),
    "containerlib.container.state": ("ContainerState",),
    "containerlib.container.streams": ("DEVNULL", "PIPE", "STDOUT"),
    "containerlib.errors": (
        *("BlobNotFound", "CgroupError", "CommandNotExecutable", "CommandNotFound", "ConflictError"),
        *("ContainerFailed", "ContainerNotFound", "ContainerlibError", "DigestMismatch", "EngineClosed"),
        *("ImageNotFound", "InvalidDigest", "InvalidInputError", "InvalidManifest", "InvalidOption"),
        *("InvalidReference", "InvalidState", "LayerError", "NameInUse", "NetworkNotFound", "NotFoundError"),
        *("OperationTimeout", "OutputLimitExceeded", "ResourceInUse", "SizeMismatch", "SnapshotNotFound"),
        *("SpawnError", "StoreCorrupted", "UnsafePath", "UnsupportedHost", "UnsupportedLayer"),
        *("VerificationError", "VolumeNotFound", "AuthenticationFailed", "Offline", "PlatformNotFound"),
        *("RateLimited", "RegistryBlocked", "RegistryError", "RegistryUnavailable", "RemoteNotFound"),
        *("ReadOnlyStore", "StoreFull", "NotLocked", "ContainerFileError", "PathNotFound"),
        "AddressesExhausted",
    ),
    "containerlib.image.export": ("Exported",),
    "containerlib.image.history": ("HistoryEntry",),
    "containerlib.image.inspection": ("ImageInspection",),
    "containerlib.image.lock_file": ("LockedImage",),
    "containerlib.image.progress": ("TransferEvent",),
    "containerlib.image.prune": ("PruneReport",),
    "containerlib.image.repair": ("RepairReport",),
    "containerlib.image.resolve": ("Removed",),
    "containerlib.image.usage": ("ImageUsage", "ImagesUsage"),
    "containerlib.layer.compare": ("Change",),
    "containerlib.network.inspection": ("NetworkInspection",),
    "containerlib.oci.descriptor": ("Descriptor",),
    "containerlib.oci.image_config": ("Config",),
    "containerlib.options": (
        "Device",
        "HealthCheck",
        "LogCallback",
        "LogFile",
        "Mount",
        "Resources",
        "RestartPolicy",
        "Rlimit",
        "Security",
    ),
    "containerlib.network_options": ("NetworkAttachment", "PortMapping"),
    "containerlib.runtime.process_table": ("ProcessInfo",),
    "containerlib.runtime.stats": (
        *("ContainerStats", "CpuStats", "IoStats", "MemoryStats"),
        *("NetworkStats", "PidsStats", "PressureStats"),
    ),
    "containerlib.runtime.usage": ("ExitStatus", "Usage"),
    "containerlib.container.inspection": ("ContainerInspection",),
    "containerlib.api.attachment": ("Attachment",),
    "containerlib.container.events": ("Event",),
    "containerlib.container.health": ("HealthResult", "HealthStatus"),
    "containerlib.container.logs": ("LogLine",),
    "containerlib.store.damage": ("Damage",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_RENAMED = {"ImageDefaults": "Config"}

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "AddressesExhausted",
    "Attachment",
    "AuthenticationFailed",
    "BlobNotFound",
    "CgroupError",
    "Change",
    "CommandNotExecutable",
    "CommandNotFound",
    "CompletedRun",
    "ConflictError",
    "Container",
    "ContainerFailed",
    "ContainerFileError",
    "ContainerInspection",
    "ContainerNotFound",
    "ContainerPath",
    "ContainerState",
    "ContainerStats",
    "ContainerUsage",
    "ContainerlibError",
    "Containers",
    "CpuStats",
    "Damage",
    "Descriptor",
    "Device",
    "DigestMismatch",
    "DiskUsage",
    "Engine",
    "EngineClosed",
    "EngineConfig",
    "Event",
    "ExecProcess",
    "ExitStatus",
    "Exported",
    "Finding",
    "HealthCheck",
    "HealthResult",
    "HealthStatus",
    "HistoryEntry",
    "Image",
    "ImageDefaults",
    "ImageInspection",
    "ImageNotFound",
    "ImageUsage",
    "Images",
    "ImagesUsage",
    "InvalidDigest",
    "InvalidInputError",
    "InvalidManifest",
    "InvalidOption",
    "InvalidReference",
    "InvalidState",
    "IoStats",
    "LayerError",
    "LockedImage",
    "LogCallback",
    "LogFile",
    "LogLine",
    "Login",
    "MemoryStats",
    "Mount",
    "NameInUse",
    "Network",
    "NetworkAttachment",
    "NetworkFault",
    "NetworkInspection",
    "NetworkNotFound",
    "NetworkStats",
    "Networks",
    "NotFoundError",
    "NotLocked",
    "Offline",
    "OperationTimeout",
    "OutputLimitExceeded",
    "PathNotFound",
    "PidsStats",
    "PlatformNotFound",
    "Popen",
    "PortMapping",
    "PressureStats",
    "Process",
    "ProcessInfo",
    "PruneReport",
    "RateLimited",
    "ReadOnlyStore",
    "RecoveryReport",
    "Registry",
    "RegistryBlocked",
    "RegistryError",
    "RegistryServer",
    "RegistryUnavailable",
    "RemoteManifest",
    "RemoteNotFound",
    "Removed",
    "RepairReport",
    "ResourceInUse",
    "Resources",
    "RestartPolicy",
    "Rlimit",
    "RunOptions",
    "Security",
    "SizeMismatch",
    "Snapshot",
    "SnapshotNotFound",
    "SpawnError",
    "StoreCorrupted",
    "StoreFull",
    "SystemPruneReport",
    "TransferEvent",
    "UnsafePath",
    "UnsupportedHost",
    "UnsupportedLayer",
    "Usage",
    "VerificationError",
    "VolumeNotFound",
    "VolumeUsage",
    "__version__",
    "default_engine",
    "run",
]


def __getattr__(name: str) -> object:
    """Load a public name when it is first used (PEP 562)."""
    original = _RENAMED.get(name, name)
    module = _HOME.get(original)
    if module is None or (name not in _RENAMED and name in _RENAMED.values()):
        raise AttributeError(f"module 'containerlib' has no attribute {name!r}")
    import importlib  # noqa: PLC0415 - not needed by who only imports the package

    value: object = getattr(importlib.import_module(module), original)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
