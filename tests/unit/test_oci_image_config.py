from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import InvalidManifest
from containerlib.oci.digest import Digest, chain_id
from containerlib.oci.image_config import Config, History, ImageConfig
from containerlib.oci.platform import Platform

LAYER = Digest.of(b"layer")


def config_document(config: object = None, **changes: object) -> bytes:
    """Return a good configuration document with some fields changed; None removes one."""
    document: dict[str, object] = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [LAYER]},
        **changes,
    }
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


def test_all_fields_are_read() -> None:
    """Every field that starts a container comes out as written."""
    config = ImageConfig.parse(
        config_document(
            {
                "User": "1000:1000",
                "Env": ["PATH=/bin", "EMPTY=", "A=b=c"],
                "Entrypoint": ["/init"],
                "Cmd": [],
                "WorkingDir": "/srv",
                "Labels": {"a": "b"},
                "StopSignal": "SIGQUIT",
                "Volumes": {"/data": {}, "/cache": {}},
                "ExposedPorts": {"80/tcp": {}},
                "Healthcheck": {"Test": ["NONE"]},
                "Shell": ["/bin/sh", "-c"],
                "OnBuild": ["RUN true"],
                "ArgsEscaped": True,
            },
            history=[{"created_by": "x", "empty_layer": True}],
            created="2020-01-01T00:00:00Z",
        )
    )
    assert config.config == Config(  # noqa: S604 - a field of the configuration
        user="1000:1000",
        env=("PATH=/bin", "EMPTY=", "A=b=c"),
        entrypoint=("/init",),
        cmd=(),
        working_dir="/srv",
        labels={"a": "b"},
        stop_signal="SIGQUIT",
        volumes=("/cache", "/data"),
        exposed_ports=("80/tcp",),
        healthcheck={"Test": ["NONE"]},
        shell=("/bin/sh", "-c"),
        on_build=("RUN true",),
        extra={"ArgsEscaped": True},
    )
    assert config.history == (History(created_by="x", empty_layer=True),)
    assert config.chain_id == chain_id([LAYER])
    assert config.platform == Platform("linux", "amd64")


def test_nulls_are_absent() -> None:
    """Docker writes null for what is not set, and that reads as not set."""
    config = ImageConfig.parse(config_document({"Env": None, "Cmd": None, "Labels": None, "Volumes": None}))
    assert config.config == Config()


def test_raw_bytes_make_the_id() -> None:
    """The id of an image is the digest of its configuration as received."""
    raw = config_document({"Unknown": 1}) + b"\n"
    assert ImageConfig.parse(raw).digest == Digest.of(raw)


def test_build_round_trip() -> None:
    """A built configuration is canonical, carries unknown fields on, and is read back."""
    config = Config(cmd=("sh",), env=("A=1",), extra={"ArgsEscaped": True})
    first = ImageConfig.build([LAYER], config=config, platform=Platform("linux", "arm", "v7"))
    second = ImageConfig.parse(first.raw)
    assert (second.config, second.diff_ids, second.platform) == (
        config,
        (LAYER,),
        Platform("linux", "arm", "v7"),
    )
    assert b"created" not in first.raw
    assert b" " not in first.raw
    assert first.descriptor.digest == second.digest


@pytest.mark.parametrize("entry", ["", "=", "=x", "PATH", "*", "PATH*", "A\nB=1", "A\0=1", "A=\0", "\x01=1"])
def test_bad_environment_is_refused(entry: str) -> None:
    """An entry without a name or without an equals sign could import a variable of the host."""
    with pytest.raises(InvalidManifest):
        ImageConfig.parse(config_document({"Env": [entry]}))
    with pytest.raises(InvalidManifest):
        Config(env=(entry,))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        config_document(os=None),
        config_document(architecture=""),
        config_document(rootfs=None),
        config_document(rootfs={"type": "other", "diff_ids": []}),
        config_document(rootfs={"type": "layers", "diff_ids": ["sha256:x"]}),
        config_document(rootfs={"type": "layers", "diff_ids": "sha256:x"}),
        config_document([]),
        config_document({"Cmd": "sh"}),
        config_document({"Cmd": [1]}),
        config_document({"Cmd": ["a\0b"]}),
        config_document({"User": 0}),
        config_document({"User": "a\0"}),
        config_document({"Labels": {"a": None}}),
        config_document({"Volumes": ["/x"]}),
        config_document(history={}),
        config_document(created=1),
        config_document(padding="x" * (8 << 20)),
    ],
)
def test_bad_configurations_are_refused(raw: bytes) -> None:
    """Damaged and oversized configurations raise InvalidManifest."""
    with pytest.raises(InvalidManifest):
        ImageConfig.parse(raw)


@given(st.data())
def test_mutated_configurations_raise_nothing_else(data: st.DataObject) -> None:
    """A configuration with random bytes changed parses or raises InvalidManifest."""
    raw = bytearray(config_document({"Env": ["A=1"], "Cmd": ["sh"], "Labels": {"a": "b"}}))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidManifest):
        ImageConfig.parse(bytes(raw))
