"""Our registry and clients that are slow, greedy, broken or many; and its own death while they upload."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from support.authority import Authority
from support.oci_layout import MANIFEST
from support.registry_http import EMPTY, RawRegistry, artifact, digest_of, serve_command, until

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib.registry.server.start import Running

pytestmark = pytest.mark.root

BLOB = bytes(range(256)) * 4096
DIGEST = digest_of(BLOB)
MIB = 1 << 20


def files(directory: Path) -> set[str]:
    """Return the files of a registry's directory, without its own."""
    found = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    return found - {"registry.json", "lock"}


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[RawRegistry]:
    """Return a client of a registry that takes little."""
    limits = {"max_blob_bytes": 2 * MIB, "max_uploads": 3, "upload_expiry_s": 600.0}
    with cl.Registry.serve(directory=tmp_path / "d", **limits) as server:  # type: ignore[arg-type]
        yield RawRegistry(server.host, server.port)


@contextlib.contextmanager
def impatient(directory: Path, *, connections: int = 512) -> Iterator[Running]:
    """Serve with short limits of time, as the inner part of the registry allows."""
    from containerlib._util.http_service import HttpLimits  # noqa: PLC0415 - loads aiohttp
    from containerlib.registry.server.directory import DirectoryStorage  # noqa: PLC0415
    from containerlib.registry.server.service import ServerSettings  # noqa: PLC0415
    from containerlib.registry.server.start import Endpoint, start  # noqa: PLC0415

    limits = HttpLimits(
        connections=connections,
        header_timeout_s=0.3,
        idle_timeout_s=0.3,
        stall_timeout_s=0.5,
        drain_timeout_s=0.5,
    )
    running = start(
        Endpoint(limits=limits), DirectoryStorage(str(directory)), ServerSettings(stall_timeout_s=0.5)
    )
    try:
        yield running
    finally:
        running.stop()


def place_of(raw: RawRegistry, repository: str = "x") -> str:
    """Open an upload."""
    reply = raw.ask("POST", f"/v2/{repository}/blobs/uploads/")
    assert reply.status == 202, reply
    return reply.headers["location"]


def test_large_manifest(raw: RawRegistry) -> None:
    """A manifest of 4 MiB is taken, one of a byte more is 413, with a length or without one."""
    raw.push_blob("x", EMPTY)
    frame = len(json.dumps(artifact(annotations={"a": ""})))
    data = json.dumps(artifact(annotations={"a": "a" * (1 << 20)})).encode()
    data += b" " * (4 * MIB - len(data))
    assert frame < len(data) == 4 * MIB
    headers = {"Content-Type": MANIFEST}
    assert raw.ask("PUT", "/v2/x/manifests/1", data, headers).status == 201
    for body in (data + b" ", iter([data, b" "])):
        reply = raw.ask("PUT", "/v2/x/manifests/2", body, headers)
        assert (reply.status, reply.codes) == (413, ["MANIFEST_INVALID"])
    assert raw.ask("GET", "/v2/x/tags/list").json["tags"] == ["1"]


def test_large_blob(raw: RawRegistry, tmp_path: Path) -> None:
    """A blob over the limit is 413 however it comes, and nothing of it stays."""
    data = b"x" * (2 * MIB + 1)
    replies = [
        raw.ask("POST", f"/v2/x/blobs/uploads/?digest={digest_of(data)}", data),
        raw.ask("PATCH", place_of(raw), iter([data[:MIB], data[MIB:]])),
        raw.ask("PUT", f"{place_of(raw)}?digest={digest_of(data)}", data),
    ]
    place = place_of(raw)
    assert raw.ask("PATCH", place, data[:MIB]).status == 202
    replies.append(raw.ask("PATCH", place, data[MIB:]))
    assert {(reply.status, *reply.codes) for reply in replies} == {(413, "SIZE_INVALID")}
    assert raw.ask("GET", place).status == 404
    assert files(tmp_path / "d") == set()


def test_too_many_uploads(raw: RawRegistry) -> None:
    """Uploads beyond the number that may be open are 429 and say when to try again; ending one makes room."""
    places = [place_of(raw) for _ in range(3)]
    reply = raw.ask("POST", "/v2/x/blobs/uploads/")
    assert (reply.status, reply.codes) == (429, ["TOOMANYREQUESTS"])
    assert reply.headers["retry-after"].isdecimal()
    raw.ask("DELETE", places[0])
    place_of(raw)


def test_upload_expires(tmp_path: Path) -> None:
    """An upload that nobody goes on with is ended, and its file is gone."""
    with cl.Registry.serve(directory=tmp_path, upload_expiry_s=0.2) as server:
        raw = RawRegistry(server.host, server.port)
        place = place_of(raw)
        raw.ask("PATCH", place, BLOB)
        until(lambda: files(tmp_path) == set(), "the upload's end")
        assert raw.ask("GET", place).codes == ["BLOB_UPLOAD_UNKNOWN"]


def test_upload_is_of_its_repository(raw: RawRegistry) -> None:
    """The id of an upload is worth nothing in another repository."""
    place = place_of(raw).replace("/v2/x/", "/v2/y/")
    for method in ("GET", "PATCH", "DELETE"):
        assert raw.ask(method, place, b"").codes == ["BLOB_UPLOAD_UNKNOWN"]


def test_size_of_chunks(tmp_path: Path, raw: RawRegistry) -> None:
    """A registry that wants large chunks says so when an upload begins, and takes a small last one."""
    assert "oci-chunk-min-length" not in raw.ask("POST", "/v2/x/blobs/uploads/").headers
    with cl.Registry.serve(directory=tmp_path / "m", min_chunk_bytes=1000) as server:
        there = RawRegistry(server.host, server.port)
        begun = there.ask("POST", "/v2/x/blobs/uploads/")
        assert begun.headers["oci-chunk-min-length"] == "1000"
        place = begun.headers["location"]
        assert there.ask("PATCH", place, b"x" * 10, {"Content-Range": "0-9"}).status == 202
        assert there.ask("PUT", f"{place}?digest={digest_of(b'x' * 10)}", b"").status == 201


def test_clients_that_leave(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves in the middle of a download or an upload is nothing to report."""
    certificate, key = Authority("test").issue("server")
    (tmp_path / "cert").write_bytes(certificate)
    (tmp_path / "key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    files = {"tls_cert": tmp_path / "cert", "tls_key": tmp_path / "key"}
    for options, client in (({}, None), (files, context)):
        with cl.Registry.serve(**options) as server:  # type: ignore[arg-type]
            raw = RawRegistry(server.host, server.port, client)
            digest = raw.push_blob("x", BLOB * 64)
            for _ in range(3):
                connection = raw.connect()
                connection.request("GET", f"/v2/x/blobs/{digest}")
                assert connection.getresponse().read(1000)
                assert connection.sock is not None
                connection.sock.close()
                connection.close()
                connection = raw.connect()
                connection.putrequest("PATCH", place_of(raw))
                connection.putheader("Content-Length", str(len(BLOB)))
                connection.endheaders(BLOB[:5000])
                connection.close()
            assert raw.ask("GET", "/v2/").status == 200
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_encoded_bodies_are_refused(raw: RawRegistry) -> None:
    """A body that would have to be decompressed first is 415: its bytes are not those of the digest."""
    headers = {"Content-Encoding": "gzip", "Content-Type": MANIFEST}
    replies = [
        raw.ask("PATCH", place_of(raw), b"\x1f\x8b", headers),
        raw.ask("PUT", "/v2/x/manifests/1", b"\x1f\x8b", headers),
    ]
    assert [(reply.status, *reply.codes) for reply in replies] == [(415, "UNSUPPORTED")] * 2


def test_upload_goes_on_after_a_break(raw: RawRegistry) -> None:
    """Of a chunk whose connection breaks off, what came is kept, and the client can ask how much that is."""
    place = place_of(raw)
    connection = raw.connect()
    connection.putrequest("PATCH", place)
    connection.putheader("Content-Length", str(len(BLOB)))
    connection.endheaders(BLOB[:5000])
    connection.close()
    until(lambda: raw.ask("GET", place).headers["range"] == "0-4999", "the part that came")
    rest = {"Content-Range": f"5000-{len(BLOB) - 1}"}
    assert raw.ask("PATCH", place, BLOB[5000:], rest).status == 202
    assert raw.ask("PUT", f"{place}?digest={DIGEST}", b"").status == 201
    assert raw.ask("GET", f"/v2/x/blobs/{DIGEST}").body == BLOB


def test_two_requests_for_one_upload(raw: RawRegistry) -> None:
    """While one request adds to an upload, another one is 409, and the first is not disturbed."""
    place = place_of(raw)
    connection = raw.connect()
    connection.putrequest("PATCH", place)
    connection.putheader("Content-Length", str(len(BLOB)))
    connection.endheaders(BLOB[:5000])
    until(lambda: raw.ask("PATCH", place, b"").status == 409, "the first request")
    connection.send(BLOB[5000:])
    assert connection.getresponse().status == 202
    connection.close()
    assert raw.ask("PUT", f"{place}?digest={DIGEST}", b"").status == 201


def test_many_upload_the_same(tmp_path: Path) -> None:
    """Eight clients push the same blob at once: each succeeds, there is one copy, nothing is left over."""
    with cl.Registry.serve(directory=tmp_path) as server:
        raw = RawRegistry(server.host, server.port)
        gate = threading.Barrier(8)

        def push(number: int) -> int:
            place = place_of(raw, f"r{number % 2}")
            raw.ask("PATCH", place, BLOB[:1000])
            gate.wait(30)
            return raw.ask("PUT", f"{place}?digest={DIGEST}", BLOB[1000:]).status

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(push, range(8))) == [201] * 8
        assert raw.ask("GET", f"/v2/r0/blobs/{DIGEST}").body == BLOB
        name = DIGEST.replace(":", "-")
        assert files(tmp_path) == {
            f"blobs/{DIGEST.replace(':', '/')}",
            f"repositories/r0/_blobs/{name}",
            f"repositories/r1/_blobs/{name}",
        }


def test_slow_header(tmp_path: Path) -> None:
    """A client that takes too long for the header of its request, or between two, is cut off."""
    with impatient(tmp_path) as server:
        with socket.create_connection((server.host, server.port), 30) as client:
            client.sendall(b"GET /v2/ HTTP/1.1\r\nHost:")
            assert client.recv(1) == b""
        with socket.create_connection((server.host, server.port), 30) as client:
            client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while data := client.recv(4096):
                answer += data
            assert answer.startswith(b"HTTP/1.1 200 ")


def test_slow_body(tmp_path: Path) -> None:
    """A client whose body stalls is told so, and what came of its upload is kept."""
    with impatient(tmp_path) as server:
        raw = RawRegistry(server.host, server.port)
        place = place_of(raw)
        connection = raw.connect()
        connection.putrequest("PATCH", place)
        connection.putheader("Content-Length", "100")
        connection.endheaders(b"ten bytes!")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["errors"][0]["code"]) == (408, "SIZE_INVALID")
        connection.close()
        assert raw.ask("GET", place).headers["range"] == "0-9"


def test_crawling_body(tmp_path: Path) -> None:
    """A body that comes byte by byte for ever is cut off, although something comes all the time."""
    with impatient(tmp_path) as server:
        raw = RawRegistry(server.host, server.port)
        connection = raw.connect()
        connection.putrequest("PATCH", place_of(raw))
        connection.putheader("Content-Length", "1000000")
        connection.endheaders()
        with contextlib.suppress(ConnectionError):
            for _ in range(3000):
                connection.send(b"x")
                ready, _, _ = select.select([connection.sock], [], [], 0.01)
                if ready:
                    break
            assert connection.getresponse().status == 408
        connection.close()


def server_sockets(port: int) -> int:
    """Count the connections that the kernel has on a port of this host."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split()[1:4] for line in table.read().splitlines()[1:]]
    return sum(local.endswith(f":{port:04X}") and state == "01" for local, _remote, state in rows)


def test_slow_reader(tmp_path: Path) -> None:
    """A client that does not take what it asked for loses its connection."""
    with impatient(tmp_path) as server:
        raw = RawRegistry(server.host, server.port)
        large = BLOB * 32
        digest = raw.push_blob("x", large)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((server.host, server.port))
            client.sendall(f"GET /v2/x/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert client.recv(8) == b"HTTP/1.1"
            until(lambda: server_sockets(server.port) == 0, "the end of the connection")
        assert raw.ask("GET", f"/v2/x/blobs/{digest}").body == large


def test_too_many_connections(tmp_path: Path) -> None:
    """Connections beyond the limit are dropped, and those that there are go on."""
    with impatient(tmp_path, connections=2) as server:
        raw = RawRegistry(server.host, server.port)
        held = [raw.connect(), raw.connect()]
        for connection in held:
            connection.putrequest("POST", "/v2/x/blobs/uploads/?digest=" + DIGEST)
            connection.putheader("Content-Length", str(len(BLOB)))
            connection.endheaders(BLOB[:10])
        until(lambda: server_sockets(server.port) >= 2, "the connections")
        dropped = socket.create_connection((server.host, server.port), 30)
        with dropped, contextlib.suppress(ConnectionError):
            assert dropped.recv(1) == b""
        for connection in held:
            connection.send(BLOB[10:])
            assert connection.getresponse().status == 201
            connection.close()


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v2/ HTTP/9.9\r\n\r\n",
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"POST /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PATCH /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /v2/x/manifests/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["tls", "version", "path", "header", "headers", "smuggling", "length", "bytes"],
)
def test_junk(tmp_path: Path, junk: bytes) -> None:
    """What is no request is answered with 4xx or nothing, and the next client is served."""
    with impatient(tmp_path) as server:
        with socket.create_connection((server.host, server.port), 30) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(junk)
            answer = b""
            with contextlib.suppress(ConnectionError):
                while data := client.recv(4096):
                    answer += data
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer
        assert RawRegistry(server.host, server.port).ask("GET", "/v2/").status == 200


def test_full_disk(tmp_path: Path) -> None:
    """Where there is no room left the client is told so, what was there stays, and what came is removed."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(directory)], check=True)
    try:
        with cl.Registry.serve(directory=directory / "d") as server:
            raw = RawRegistry(server.host, server.port)
            kept = raw.push_image("x", "1")
            place = place_of(raw)
            reply = raw.ask("PATCH", place, BLOB * 4)
            assert (reply.status, reply.codes) == (507, ["UNKNOWN"])
            assert raw.ask("GET", place).status == 404
            assert raw.ask("HEAD", "/v2/x/manifests/1").headers["docker-content-digest"] == kept
            assert raw.push_blob("x", BLOB) == DIGEST
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_killed_while_uploading(tmp_path: Path) -> None:
    """SIGKILL in the middle of an upload leaves nothing to be seen, and the next start removes the rest."""
    with serve_command(f"--directory={tmp_path}") as (process, raw):
        kept = raw.push_image("x", "1")
        before = files(tmp_path)
        place = place_of(raw)
        raw.ask("PATCH", place, BLOB[:5000])
        connection = raw.connect()
        connection.putrequest("PUT", f"{place}?digest={DIGEST}")
        connection.putheader("Content-Length", str(len(BLOB) - 5000))
        connection.endheaders(BLOB[5000:90_000])
        until(lambda: raw.ask("PATCH", place, b"").status == 409, "the upload")
        process.kill()
        process.wait()
        connection.close()
        left = files(tmp_path) - before
        assert len(left) == 1
        assert left.pop().startswith("incoming/.tmp-")
    with serve_command(f"--directory={tmp_path}") as (_, raw):
        assert files(tmp_path) == before
        assert raw.ask("GET", place).codes == ["BLOB_UPLOAD_UNKNOWN"]
        assert raw.ask("HEAD", f"/v2/x/blobs/{DIGEST}").status == 404
        assert raw.ask("HEAD", "/v2/x/manifests/1").headers["docker-content-digest"] == kept
        assert raw.push_blob("x", BLOB) == DIGEST


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """The command ends with 0 on the signals that ask for it, in the middle of an upload, too."""
    with serve_command(f"--directory={tmp_path}") as (process, raw):
        raw.ask("PATCH", place_of(raw), BLOB[:5000])
        os.kill(process.pid, number)
        assert process.wait(30) == 0
        assert process.communicate()[1] == ""
        assert files(tmp_path) == set()
