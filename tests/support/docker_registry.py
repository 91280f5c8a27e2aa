"""Debian's docker-registry on loopback, one process per context."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["DockerRegistry", "docker_registry", "skopeo_copy"]

_PATIENCE_S = 30.0


@attrs.frozen
class DockerRegistry:
    """A registry that is running: its host with port, and the file with what it logs."""

    host: str
    log: Path

    def requests(self) -> list[str]:
        """Return method and path of every request so far."""
        return [
            line.split('"')[1].removesuffix(" HTTP/1.1")
            for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            if " HTTP/1.1" in line
        ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        if process.poll() is not None:
            raise AssertionError(f"docker-registry ended: {log.read_text(encoding='utf-8')}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), _PATIENCE_S):
            return


@contextlib.contextmanager
def docker_registry(
    directory: Path,
    *,
    htpasswd: str | None = None,
    tls: tuple[Path, Path] | None = None,
    tokens: Mapping[str, str] | None = None,
) -> Iterator[DockerRegistry]:
    """Run a registry with its files below `directory`.

    Args:
        directory: Empty, and long-lived enough.
        htpasswd: Content of a password file; None lets everybody in.
        tls: Files of the certificate and of its key; None for plain http.
        tokens: Settings of the token service that it sends everybody to.
    """
    port = _free_port()
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "data")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}", **_tls(tls)},
    }
    if htpasswd is not None:
        (directory / "htpasswd").write_text(htpasswd, encoding="ascii")
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    if tokens is not None:
        config["auth"] = {"token": dict(tokens)}
    file = directory / "config.yml"
    file.write_text(json.dumps(config), encoding="ascii")  # JSON is YAML
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(file)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        _wait(port, process, log)
        yield DockerRegistry(f"127.0.0.1:{port}", log)
    finally:
        process.kill()
        process.wait()


def _tls(tls: tuple[Path, Path] | None) -> Mapping[str, object]:
    return {} if tls is None else {"tls": {"certificate": str(tls[0]), "key": str(tls[1])}}


def skopeo_copy(source: str, target: str, *options: str) -> None:
    """Copy an image with skopeo, which checks no signatures and no certificates."""
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", *options]
    flags = ["--src-tls-verify=false", "--dest-tls-verify=false"]
    done = subprocess.run([*command, *flags, source, target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
