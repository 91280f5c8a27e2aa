"""Pulling images: from Debian's registry, with what skopeo has pushed there, and from registries that lie."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.archives import archive, file
from support.capabilities import need
from support.docker_registry import DockerRegistry, docker_registry, skopeo_copy
from support.engine import busybox_tree
from support.oci_layout import CONFIG, INDEX, LAYER, MANIFEST, OciLayout
from support.session import temporary_directory

import containerlib as cl
from containerlib.image.collect import collect
from containerlib.store.stores import Stores
from containerlib.store.view import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine

pytestmark = [pytest.mark.root]

PEERS = ("docker-registry", "skopeo", "busybox")
HTPASSWD = "ann:$2b$04$A4gdF34YbxXzojKIPZplCeiPVBBfPc9I8A.gPFqcb.C20iQc31VYK\n"  # the password is "secret"


def tar_of(directory: Path) -> bytes:
    """Return an archive of a tree, written by the standard library."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(directory, ".")
    return data.getvalue()


@pytest.fixture(scope="module")
def layers() -> list[bytes]:
    """Return two layers: busybox, and one that adds a file and removes another."""
    with temporary_directory("t") as tree:
        busybox_tree(tree)
        (tree / "etc" / "old").write_text("old", encoding="ascii")
        first = tar_of(tree)
    return [first, archive(file(b"etc/new", b"new"), file(b"etc/.wh.old", b""))]


@pytest.fixture(scope="module")
def layout(layers: list[bytes]) -> Iterator[OciLayout]:
    """Return a layout for the images of this module."""
    with temporary_directory("o") as path:
        made = OciLayout(path / "layout")
        made.add_image(layers)
        yield made


@pytest.fixture(scope="module")
def registry(request: pytest.FixtureRequest) -> Iterator[DockerRegistry]:
    """Return a registry that lets everybody in."""
    need(request.config, "peers", PEERS)
    with temporary_directory("g") as path, docker_registry(path) as running:
        yield running


@pytest.fixture(scope="module")
def pushed(registry: DockerRegistry, layout: OciLayout, layers: list[bytes]) -> str:
    """Return the name of an image that skopeo has pushed."""
    image = layout.add_image(layers, config={"Cmd": ["cat", "/etc/new"], "Env": ["PATH=/bin", "A=b"]})
    skopeo_copy(layout.name(image, "1"), f"docker://{registry.host}/team/box:1")
    return f"{registry.host}/team/box:1"


def blobs(engine: Engine) -> set[str]:
    """Return the names of everything in the content store, unfinished files included."""
    found = subprocess.run(
        ["find", f"{engine.root}/blobs", "-type", "f", "-printf", "%f\n"],
        capture_output=True,
        text=True,
        check=False,
    )
    return set(found.stdout.split())


def test_what_skopeo_pushed_runs(engine: Engine, pushed: str) -> None:
    """An image is pulled and unpacked with its whiteouts, and its own command runs in it."""
    image = engine.images.pull(pushed)
    assert image.references == (pushed,)
    assert image.call().stdout == b"new"
    assert image.call(["ls", "/etc/old"]).exit_code == 1
    assert image.config.env == ("PATH=/bin", "A=b")


def test_digests_are_those_of_the_registry(engine: Engine, pushed: str, registry: DockerRegistry) -> None:
    """The image has the digest that skopeo sees, and is found by it."""
    image = engine.images.pull(pushed)
    command = ["skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{pushed}"]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert image.digest == seen
    assert engine.images.get(f"{registry.host}/team/box@{seen}") == image
    assert engine.images.pull(f"{registry.host}/team/box@{seen}") == image


def test_second_pull_fetches_no_layer(engine: Engine, pushed: str, registry: DockerRegistry) -> None:
    """What is in the store is not asked for again."""
    image = engine.images.pull(pushed)
    before = len(registry.requests())
    events: list[cl.TransferEvent] = []
    assert engine.images.pull(pushed, progress=events.append) == image
    asked = " ".join(registry.requests()[before:])
    assert not any(str(layer.digest) in asked for layer in image.layers)
    assert {event.phase for event in events} == {"exists", "done"}


def test_run_pulls_what_is_missing(pushed: str) -> None:
    """`containerlib.run` with the name of an image that the store does not have fetches it first."""
    script = "import sys, containerlib as cl; print(cl.run(['cat', '/etc/new'], image=sys.argv[1]).text)"
    with temporary_directory("d") as base:
        environment = {
            **os.environ,
            "HOME": str(base),
            "CONTAINERLIB_ROOT": str(base / "r"),
            "CONTAINERLIB_RUN_ROOT": str(base / "n"),
        }
        command = [sys.executable, "-c", script, pushed]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "new", done.stderr


def test_command_line_pulls(engine: Engine, pushed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`containerlib pull` prints the name, and the image is there afterwards."""
    monkeypatch.setenv("CONTAINERLIB_ROOT", engine.root)
    monkeypatch.setenv("CONTAINERLIB_RUN_ROOT", engine.run_root)
    command = [sys.executable, "-m", "containerlib", "pull", pushed]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, pushed), done.stderr
    assert "Pull complete" in done.stderr
    assert engine.images.get(pushed).digest in done.stderr


def test_docker_schema_is_read(engine: Engine, pushed: str, registry: DockerRegistry) -> None:
    """An image in Docker's own format is pulled like any other."""
    name = f"{registry.host}/team/box:schema2"
    skopeo_copy(f"docker://{pushed}", f"docker://{name}", "--format=v2s2")
    image = engine.images.pull(name)
    assert image.record.manifest.media_type == "application/vnd.docker.distribution.manifest.v2+json"
    assert image.call().stdout == b"new"


def test_platform_is_chosen_from_an_index(
    engine: Engine, registry: DockerRegistry, layout: OciLayout, layers: list[bytes]
) -> None:
    """Of an index the wanted image is taken; a platform that it does not have names the others."""
    images = [
        layout.add_image(layers, architecture=name, config={"Env": [f"WHICH={name}"]})
        for name in ("arm64", "amd64")
    ]
    name = f"{registry.host}/team/many:1"
    skopeo_copy(layout.name(layout.add_index(images), "m"), f"docker://{name}", "--all")
    chosen = engine.images.pull(name, platform="linux/amd64")
    assert "WHICH=amd64" in chosen.config.env
    other = engine.images.pull(name, platform="linux/arm64")
    assert "WHICH=arm64" in other.config.env
    assert "WHICH=arm64" in engine.images.get(name).config.env
    assert chosen.digest == other.digest
    with pytest.raises(cl.PlatformNotFound, match="linux/arm64, linux/amd64") as caught:
        engine.images.pull(name, platform="linux/s390x")
    assert set(caught.value.platforms) == {"linux/arm64", "linux/amd64"}


def test_unknown_tag_names_those_there_are(engine: Engine, pushed: str, registry: DockerRegistry) -> None:
    """A tag or repository that does not exist is told apart from the others."""
    assert pushed
    with pytest.raises(cl.RemoteNotFound, match=r"tags there are: .*1") as caught:
        engine.images.pull(f"{registry.host}/team/box:nope")
    assert isinstance(caught.value, cl.ImageNotFound)
    assert caught.value.status == 404
    with pytest.raises(cl.RemoteNotFound, match="no such repository"):
        engine.images.pull(f"{registry.host}/nobody/nothing:1")
    assert blobs(engine) == set()


def test_offline_engine_asks_nobody(engine: Engine, pushed: str) -> None:
    """An engine that is offline uses what it has and refuses to fetch."""
    engine.images.pull(pushed)
    with cl.Engine(engine.root, engine.run_root, cl.EngineConfig(offline=True)) as offline:
        assert offline.images.find(pushed).references == (pushed,)
        with pytest.raises(cl.Offline, match="offline"):
            offline.images.find(pushed.replace(":1", ":2"))


def test_policy_never_and_always(engine: Engine, pushed: str) -> None:
    """``never`` looks into the store only; ``always`` asks the registry; anything else is refused."""
    with pytest.raises(cl.ImageNotFound, match="pull it"):
        engine.images.find(pushed, pull="never")
    assert engine.images.find(pushed, pull="always").references == (pushed,)
    with pytest.raises(cl.InvalidOption, match="missing"):
        engine.images.find(pushed, pull="sometimes")  # type: ignore[arg-type]


def test_password_is_asked_for(
    engine: Engine,
    layout: OciLayout,
    layers: list[bytes],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No credentials, wrong ones and right ones are told apart, and no message holds a password."""
    need(request.config, "peers", PEERS)
    with temporary_directory("p") as path, docker_registry(path, htpasswd=HTPASSWD) as locked:
        image = layout.add_image(layers)
        name = f"{locked.host}/private:1"
        skopeo_copy(layout.name(image, "1"), f"docker://{name}", "--dest-creds=ann:secret")
        monkeypatch.setenv("HOME", str(path))
        with pytest.raises(cl.AuthenticationFailed, match="none are known"):
            engine.images.pull(name)
        auth: dict[str, Any] = {"auths": {locked.host: {"username": "ann", "password": "wrong"}}}
        monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps(auth))
        with pytest.raises(cl.AuthenticationFailed, match="access denied") as caught:
            engine.images.pull(name)
        assert "wrong" not in str(caught.value)
        auth["auths"][locked.host] |= {"password": "secret"}
        monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps(auth))
        assert engine.images.pull(name).references == (name,)


def test_mirror_stands_in(
    engine: Engine,
    pushed: str,
    registry: DockerRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mirror of registries.conf is asked first, the name stays the registry's, and blocked is blocked."""
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f"""
        [[registry]]
        prefix = "images.invalid"
        location = "images.invalid"
        [[registry.mirror]]
        location = "{registry.host}"
        insecure = true
        [[registry]]
        location = "blocked.invalid"
        blocked = true
        """,
        encoding="ascii",
    )
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    image = engine.images.pull("images.invalid/team/box:1")
    assert image.references == ("images.invalid/team/box:1",)
    assert image.digest == engine.images.pull(pushed).digest
    with pytest.raises(cl.RegistryUnavailable, match="no such host"):
        engine.images.pull("images.invalid/team/box:other")
    with pytest.raises(cl.RegistryBlocked, match=r"blocked\.invalid"):
        engine.images.pull("blocked.invalid/x:1")


def test_short_names_mean_what_the_host_says(
    engine: Engine,
    pushed: str,
    registry: DockerRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Aliases and search registries say what a name without a registry means, also in the store."""
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f"""
        unqualified-search-registries = ["127.0.0.1:9", "{registry.host}"]
        [aliases]
        "box" = "{registry.host}/team/box"
        """,
        encoding="ascii",
    )
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    image = engine.images.pull("box:1")
    assert image.references == (pushed,)
    assert engine.images.find("box:1", pull="never") == image
    assert engine.images.pull("team/box:1") == image
    assert engine.images.get("team/box:1") == image
    with pytest.raises(cl.RemoteNotFound, match="tags there are") as caught:
        engine.images.pull("team/box:nope")
    assert "127.0.0.1:9" in caught.value.__notes__[0]
    assert engine.images.remove("box:1").untagged == (pushed,)
    with pytest.raises(cl.ImageNotFound):
        engine.images.get("box:1")


def test_mirror_that_is_out_of_order_costs_little(
    engine: Engine, liar: _Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror that answers with errors is asked twice, and then the registry itself."""
    asked: list[str] = []

    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(503)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with liar.serve() as name, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as mirror:
        thread = threading.Thread(target=mirror.serve_forever, args=(0.01,))
        thread.start()
        host = name.partition("/")[0]
        conf = tmp_path / "registries.conf"
        mirrors = f'[[registry.mirror]]\nlocation = "127.0.0.1:{mirror.server_port}"\n'
        conf.write_text(f'[[registry]]\nlocation = "{host}"\n{mirrors}', encoding="ascii")
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
        assert engine.images.pull(name).references == (name,)
        mirror.shutdown()
        thread.join()
    assert len(asked) == 2


def test_unknown_host_and_refused_connection(engine: Engine) -> None:
    """A host that does not exist and a port where nobody listens are told apart, without delay."""
    with pytest.raises(cl.RegistryUnavailable, match="no such host"):
        engine.images.pull("registry.invalid/x:1")
    with pytest.raises(cl.RegistryUnavailable, match="cannot connect"):
        engine.images.pull("127.0.0.1:9/x:1")


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers from a table of paths; `cut` breaks the first answers after so many bytes."""

    protocol_version = "HTTP/1.1"
    table: dict[str, tuple[str, bytes]]
    cut: dict[str, list[int]]
    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        """Answer one request, from a byte on if it asks for that."""
        asked = self.headers.get("Range")
        self.seen.append((self.path, asked))
        if self.path not in self.table:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        kind, data = self.table[self.path]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        cuts = self.cut.get(self.path, [])
        if cuts:
            self.wfile.write(data[start : start + cuts.pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(data[start:])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Liar:
    """A registry with one image, any part of which can be made wrong."""

    def __init__(self, layer: bytes) -> None:
        self.layer = layer
        self.table: dict[str, tuple[str, bytes]] = {}
        self.cut: dict[str, list[int]] = {}
        self.seen: list[tuple[str, str | None]] = []
        config = json.dumps(
            {
                "os": "linux",
                "architecture": "amd64",
                "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            }
        ).encode()
        self.manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": _digest(config), "size": len(config)},
            "layers": [{"mediaType": LAYER, "digest": _digest(layer), "size": len(layer)}],
        }
        self.blob_path = f"/v2/x/blobs/{_digest(layer)}"
        self.table[f"/v2/x/blobs/{_digest(config)}"] = ("application/octet-stream", config)
        self.table[self.blob_path] = ("application/octet-stream", layer)
        self.publish(self.manifest)

    def publish(self, manifest: object, kind: str = MANIFEST) -> None:
        """Let the tag be this document."""
        self.table["/v2/x/manifests/1"] = (kind, json.dumps(manifest).encode())

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        """Answer requests on a port of loopback, and give the name of the image."""
        handler = type("Handler", (_Handler,), {"table": self.table, "cut": self.cut, "seen": self.seen})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"127.0.0.1:{server.server_port}/x:1"
            finally:
                server.shutdown()
                thread.join()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def liar() -> _Liar:
    """Return a registry that tells the truth until it is changed."""
    return _Liar(archive(file(b"etc/motd", b"hello" * 40_000)))


def refuse(engine: Engine, liar: _Liar, error: type[Exception], match: str) -> None:
    """Pull, expect the error, and find nothing in the store."""
    with liar.serve() as name, pytest.raises(error, match=match):
        engine.images.pull(name)
    assert engine.images.list() == []
    assert blobs(engine) == set()


def test_broken_connection_is_continued(engine: Engine, liar: _Liar) -> None:
    """A download that breaks off goes on at the byte where it stopped."""
    liar.cut[liar.blob_path] = [70_000, 50_000]
    with liar.serve() as name:
        engine.images.pull(name)
    ranges = [asked for path, asked in liar.seen if path == liar.blob_path]
    assert ranges == [None, "bytes=70000-", "bytes=120000-"]


def test_download_that_never_advances_is_given_up(engine: Engine, liar: _Liar) -> None:
    """A connection that breaks each time before anything came is not tried for ever."""
    liar.cut[liar.blob_path] = [0] * 100
    refuse(engine, liar, cl.RegistryUnavailable, "broke|ends after")
    assert len(liar.cut[liar.blob_path]) > 50


def test_lying_blob_is_refused(engine: Engine, liar: _Liar) -> None:
    """Content of the right size and the wrong digest is not stored."""
    liar.table[liar.blob_path] = ("application/octet-stream", bytes(len(liar.layer)))
    refuse(engine, liar, cl.DigestMismatch, "expected sha256:")


def test_too_long_blob_is_refused(engine: Engine, liar: _Liar) -> None:
    """More bytes than promised end the download."""
    liar.table[liar.blob_path] = ("application/octet-stream", liar.layer + b"more")
    refuse(engine, liar, cl.SizeMismatch, "expected")


def test_wrong_diff_id_is_refused(engine: Engine, liar: _Liar) -> None:
    """A layer that is what the manifest says but not what the configuration says is not unpacked."""
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [_digest(b"other")]},
        }
    ).encode()
    liar.table[f"/v2/x/blobs/{_digest(config)}"] = ("application/octet-stream", config)
    liar.publish(
        {**liar.manifest, "config": {"mediaType": CONFIG, "digest": _digest(config), "size": len(config)}}
    )
    refuse(engine, liar, cl.DigestMismatch, "layer")


def test_ambiguous_document_is_refused(engine: Engine, liar: _Liar) -> None:
    """A document that is a manifest and an index at once, and one under a wrong type, are refused."""
    liar.publish({**liar.manifest, "manifests": []})
    refuse(engine, liar, cl.InvalidManifest, "both|ambiguous|manifests")
    liar.publish(liar.manifest, INDEX)
    refuse(engine, liar, cl.InvalidManifest, "was fetched as")


def test_first_schema_is_refused(engine: Engine, liar: _Liar) -> None:
    """Docker's first manifest format, which nothing verifies, is not read."""
    liar.publish({"schemaVersion": 1}, "application/vnd.docker.distribution.manifest.v1+prettyjws")
    refuse(engine, liar, cl.InvalidManifest, "media type")


def test_layer_that_would_harm_the_host_is_refused(engine: Engine) -> None:
    """A layer with a path out of its tree is refused, and nothing of the image stays."""
    refuse(engine, _Liar(archive(file(b"../escape"))), cl.UnsafePath, "leads out")


def test_failed_pull_keeps_the_old_image(engine: Engine, liar: _Liar) -> None:
    """When a tag has moved to something that cannot be pulled, what it was stays."""
    with liar.serve() as name:
        before = engine.images.pull(name)
        liar.publish({**liar.manifest, "config": {"mediaType": CONFIG, "digest": _digest(b"no"), "size": 2}})
        with pytest.raises(cl.RemoteNotFound):
            engine.images.pull(name)
        assert engine.images.get(name) == before


def test_a_later_pull_goes_on_where_an_earlier_one_broke_off(engine: Engine, liar: _Liar) -> None:
    """What a failed pull has of a layer is not fetched again by the next, which checks it all the same."""
    liar.cut[liar.blob_path] = [70_000, *([0] * 100)]
    refuse(engine, liar, cl.RegistryUnavailable, "broke|ends after")
    liar.cut.clear()
    liar.seen.clear()
    with liar.serve() as name:
        assert engine.images.pull(name).size_bytes > len(liar.layer)
    assert [asked for path, asked in liar.seen if path == liar.blob_path] == ["bytes=70000-"]
    assert os.listdir(f"{engine.root}/ingest") == []


def test_what_was_kept_of_a_lie_does_not_spoil_the_truth(engine: Engine, liar: _Liar) -> None:
    """The beginning of a wrong blob is dropped when the whole turns out wrong, and then fetched anew."""
    wrong = bytes(80_000) + liar.layer[80_000:]
    honest = liar.table[liar.blob_path]
    liar.table[liar.blob_path] = ("application/octet-stream", wrong)
    liar.cut[liar.blob_path] = [80_000, *([0] * 100)]
    refuse(engine, liar, cl.RegistryUnavailable, "broke|ends after")
    liar.cut.clear()
    liar.table[liar.blob_path] = honest
    with liar.serve() as name:
        assert engine.images.pull(name)


def test_a_damaged_blob_of_the_store_is_fetched_again(engine: Engine, liar: _Liar) -> None:
    """A blob with flipped bytes, or of another size, is found out when it is unpacked, and mended."""
    with liar.serve() as name:
        for damage in (b"x" * len(liar.layer), b"short"):
            image = engine.images.pull(name)
            path = f"{engine.root}/blobs/sha256/{_digest(liar.layer).removeprefix('sha256:')}"
            engine.images.remove(name)
            assert not os.path.exists(path)
            with open(path, "wb") as blob:
                blob.write(damage)
            assert engine.images.pull(name) == image
            with open(path, "rb") as blob:
                assert blob.read() == liar.layer


def test_prune_removes_what_was_never_finished(engine: Engine, liar: _Liar) -> None:
    """The beginning of a layer is kept for the next pull until unneeded content is collected."""
    liar.cut[liar.blob_path] = [70_000, *([0] * 100)]
    refuse(engine, liar, cl.RegistryUnavailable, "broke|ends after")
    assert len(os.listdir(f"{engine.root}/ingest")) == 1
    collect(Stores.open(engine.root, engine.run_root))
    assert os.listdir(f"{engine.root}/ingest") == []


def test_layers_are_unpacked_in_any_order(engine: Engine) -> None:
    """Many layers, some alike and some empty, end up on each other in the order of the manifest."""
    same = archive(file(b"same", b"1"))
    layers = [archive(file(b"top", b"%d" % n), file(b"n%d" % n, b"x" * 1000 * (20 - n))) for n in range(12)]
    layers[3:3] = [same, archive(), same, archive()]
    liar = _Liar(b"")
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
        }
    ).encode()
    for blob in (config, *layers):
        liar.table[f"/v2/x/blobs/{_digest(blob)}"] = ("application/octet-stream", blob)
    described = [{"mediaType": LAYER, "digest": _digest(layer), "size": len(layer)} for layer in layers]
    liar.publish(
        {
            **liar.manifest,
            "config": {"mediaType": CONFIG, "digest": _digest(config), "size": len(config)},
            "layers": described,
        }
    )
    with liar.serve() as name:
        image = engine.images.pull(name)
    assert read_file(image.record.lowers, "top", limit=10) == b"11"
    assert all(read_file(image.record.lowers, f"n{n}", limit=100_000) is not None for n in range(12))
    assert len(image.record.lowers) == len(layers)
