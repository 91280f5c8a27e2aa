"""The registry object and its commands, against Debian's registry, and with what skopeo has pushed there."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.archives import archive, file
from support.authority import Authority
from support.capabilities import need
from support.cutting_proxy import cutting_proxy
from support.docker_registry import DockerRegistry, docker_registry, skopeo_copy
from support.oci_layout import OciLayout
from support.session import temporary_directory
from support.small_registry import Reply, serve

import containerlib as cl
from containerlib.registry import chunks, mirrors, upload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine

PEERS = ("docker-registry", "skopeo")
HTPASSWD = "ann:$2b$04$A4gdF34YbxXzojKIPZplCeiPVBBfPc9I8A.gPFqcb.C20iQc31VYK\n"  # the password is "secret"
TOKEN = "t"  # noqa: S105 - a made-up one


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a home directory of its own, and nothing else that holds credentials."""
    for name in ("DOCKER_AUTH_CONFIG", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def registry(request: pytest.FixtureRequest) -> Iterator[DockerRegistry]:
    """Return a registry that lets everybody in."""
    need(request.config, "peers", PEERS)
    with temporary_directory("g") as path, docker_registry(path) as running:
        yield running


@pytest.fixture(scope="module")
def locked(request: pytest.FixtureRequest) -> Iterator[DockerRegistry]:
    """Return a registry that wants a password."""
    need(request.config, "peers", PEERS)
    with temporary_directory("p") as path, docker_registry(path, htpasswd=HTPASSWD) as running:
        yield running


@pytest.fixture(scope="module")
def layout() -> Iterator[OciLayout]:
    """Return a layout for the images of this module."""
    with temporary_directory("o") as path:
        yield OciLayout(path / "layout")


def fill(layout: OciLayout, name: str, *options: str, content: bytes = b"1") -> str:
    """Let skopeo push an image under this name, and return its digest."""
    image = layout.add_image([archive(file(b"a", content))])
    skopeo_copy(layout.name(image, "1"), f"docker://{name}", *options)
    return str(image["digest"])


def command_line(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line with this input."""
    command = [sys.executable, "-m", "containerlib", *args]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def test_what_there_is_is_listed_and_resolved(
    engine: Engine, registry: DockerRegistry, layout: OciLayout
) -> None:
    """Tags, repositories, and what a name means, are those that skopeo has pushed."""
    digest = fill(layout, f"{registry.host}/team/tool:1")
    fill(layout, f"{registry.host}/team/tool:2", content=b"2")
    here = engine.registry(registry.host)
    assert sorted(here.tags("team/tool")) == ["1", "2"]
    assert "team/tool" in here.catalog()
    found = here.resolve("team/tool:1")
    assert found.digest == digest
    assert here.resolve(f"{registry.host}/team/tool:1") == found
    assert here.resolve(f"team/tool@{digest}") == found
    manifest = here.manifest("team/tool:1")
    assert manifest.descriptor == found
    assert len(manifest.raw) == found.size
    assert (manifest.is_index, len(manifest.layers)) == (False, 1)


def test_what_is_not_there_is_said(engine: Engine, registry: DockerRegistry, layout: OciLayout) -> None:
    """Unknown tags and repositories, and names of other registries, are told apart."""
    fill(layout, f"{registry.host}/known:1")
    here = engine.registry(registry.host)
    with pytest.raises(cl.RemoteNotFound, match="tags there are: 1"):
        here.resolve("known:2")
    with pytest.raises(cl.RemoteNotFound):
        here.tags("nobody/nothing")
    with pytest.raises(cl.InvalidReference, match="another registry"):
        here.tags("registry.invalid/x")
    with pytest.raises(cl.InvalidReference, match="without tag"):
        here.tags("known:1")


def test_image_is_removed_by_digest(engine: Engine, registry: DockerRegistry, layout: OciLayout) -> None:
    """A digest removes the image with its tags; a tag alone is no reason to remove more than the tag."""
    digest = fill(layout, f"{registry.host}/gone:1")
    here = engine.registry(registry.host)
    with pytest.raises(cl.RegistryError, match="cannot remove a single tag"):
        here.delete("gone:1")
    assert here.resolve("gone:1").digest == digest
    for vague in ("gone", f"gone:1@{digest}"):
        with pytest.raises(cl.InvalidReference, match="to say what is removed"):
            here.delete(vague)
    here.delete(f"gone@{digest}")
    with pytest.raises(cl.RemoteNotFound):
        here.resolve("gone:1")


def test_login_is_verified_before_it_is_kept(
    engine: Engine, locked: DockerRegistry, layout: OciLayout, home: Path
) -> None:
    """A wrong password is refused and kept nowhere; the right one lets this engine and others in."""
    fill(layout, f"{locked.host}/private:1", "--dest-creds=ann:secret")
    here = engine.registry(locked.host)
    with pytest.raises(cl.AuthenticationFailed, match="none are known"):
        here.tags("private")
    with pytest.raises(cl.AuthenticationFailed, match="access denied"):
        here.login("ann", "wrong")
    assert not (home / ".docker").exists()
    done = here.login("ann", "secret")
    assert done == cl.Login("ann", str(home / ".docker/config.json"), is_token=False)
    assert stat.S_IMODE(os.stat(done.kept_in).st_mode) == 0o600
    assert here.tags("private") == ["1"]
    with cl.Engine(engine.root, engine.run_root) as other:
        assert other.registry(locked.host).tags("private") == ["1"]
    command = ["skopeo", "inspect", "--tls-verify=false", f"docker://{locked.host}/private:1"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert here.logout()
    assert not here.logout()
    with pytest.raises(cl.AuthenticationFailed):
        here.tags("private")


def test_login_of_an_engine_only(
    engine: Engine, locked: DockerRegistry, layout: OciLayout, home: Path
) -> None:
    """A login that is not stored counts for this engine alone, before any other credential."""
    fill(layout, f"{locked.host}/private:2", "--dest-creds=ann:secret")
    wrong = {"auths": {locked.host: {"username": "ann", "password": "wrong"}}}
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(json.dumps(wrong))
    done = engine.registry(locked.host).login("ann", "secret", store=False)
    assert done.kept_in == ""
    assert json.loads((home / ".docker/config.json").read_text()) == wrong
    assert engine.images.pull(f"{locked.host}/private:2").references == (f"{locked.host}/private:2",)
    with cl.Engine(engine.root, engine.run_root) as other, pytest.raises(cl.AuthenticationFailed):
        other.registry(locked.host).resolve("private:2")


def test_login_at_a_registry_that_lets_everybody_in(engine: Engine, registry: DockerRegistry) -> None:
    """A registry without passwords takes any, as it does for docker; a token it cannot judge."""
    assert engine.registry(registry.host).login("ann", "whatever", store=False).username == "ann"
    with pytest.raises(cl.AuthenticationFailed, match="asks for no credentials"):
        engine.registry(registry.host).login("ann", identity_token=TOKEN, store=False)


def test_bad_logins_are_refused(engine: Engine) -> None:
    """Nothing to log in with, too much, no user, and no registry are errors before anybody is asked."""
    here = engine.registry("127.0.0.1:9")
    with pytest.raises(cl.InvalidOption, match="give a password"):
        here.login("ann")
    with pytest.raises(cl.InvalidOption, match="give a password") as caught:
        here.login("ann", "hunter2", identity_token=TOKEN)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(cl.InvalidOption, match="name of its user"):
        here.login("", "hunter2")
    with pytest.raises(cl.RegistryUnavailable):
        here.login("ann", "hunter2")
    for host in ("a/b", "registry", "http://"):
        with pytest.raises(cl.InvalidReference):
            engine.registry(host)


def test_names_of_docker_hub_are_one(engine: Engine) -> None:
    """However Docker's own registry is called, it is one."""
    names = ("docker.io", "index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io")
    assert {engine.registry(name).host for name in names} == {"docker.io"}


def test_offline_engine_asks_no_registry(engine: Engine) -> None:
    """Every verb that would have to ask refuses; forgetting needs no registry."""
    config = cl.EngineConfig(offline=True)
    with cl.Engine(engine.root, engine.run_root, config) as offline:
        here = offline.registry("127.0.0.1:9")
        verbs = (here.tags, here.resolve, here.manifest, here.referrers)
        for verb in verbs:
            with pytest.raises(cl.Offline):
                verb("x")
        with pytest.raises(cl.Offline):
            here.catalog()
        with pytest.raises(cl.Offline):
            here.delete("x:1")
        with pytest.raises(cl.Offline):
            here.login("ann", "secret")
        assert not here.logout()


def test_command_line_logs_in_and_out(locked: DockerRegistry, home: Path) -> None:
    """`login` and `logout` speak as docker does, and docker's file holds the login in between."""
    wrong = command_line("login", "-u", "ann", "--password-stdin", locked.host, stdin="wrong\n")
    assert (wrong.returncode, wrong.stdout) == (125, "")
    assert "access denied" in wrong.stderr
    done = command_line("login", "-u", "ann", "--password-stdin", locked.host, stdin="secret\n")
    assert (done.returncode, done.stdout) == (0, "Login Succeeded\n"), done.stderr
    assert "stored unencrypted" in done.stderr
    assert list(json.loads((home / ".docker/config.json").read_text())["auths"]) == [locked.host]
    done = command_line("logout", locked.host)
    assert done.stdout == f"Removing login credentials for {locked.host}\n"
    assert command_line("logout", locked.host).stdout == f"Not logged in to {locked.host}\n"
    done = command_line("login", "-u", "ann", "-p", "secret", locked.host)
    assert done.stdout == "Login Succeeded\n"
    assert "Using --password via the CLI is insecure" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-p", "x", "--password-stdin"], "mutually exclusive"),
        (["--password-stdin"], "Must provide --username"),
        (["-u", "ann"], "non TTY device"),
        (["-u", "ann", "--password-stdin"], "must not be empty"),
        (["-u", "", "-p", "x"], "must not be empty"),
    ],
)
def test_command_line_says_what_is_missing(args: list[str], message: str) -> None:
    """Without a terminal nothing is asked for; what is missing is said as docker says it."""
    done = command_line("login", *args, "127.0.0.1:9")
    assert done.returncode == 125
    assert message in done.stderr


def test_command_line_shows_registries(registry: DockerRegistry, layout: OciLayout) -> None:
    """`registry tags`, `catalog`, `resolve` and `delete` do what the methods do."""
    name = f"{registry.host}/shown"
    digest = fill(layout, f"{name}:1")
    assert command_line("registry", "tags", name).stdout == "1\n"
    assert "shown" in command_line("registry", "catalog", registry.host).stdout.splitlines()
    assert digest in command_line("registry", "resolve", f"{name}:1").stdout
    found = json.loads(command_line("registry", "resolve", "--format=json", f"{name}:1").stdout)
    assert found["digest"] == digest
    assert command_line("registry", "delete", f"{name}@{digest}").returncode == 0
    assert "tags there are: none" in command_line("registry", "resolve", f"{name}:1").stderr


def test_image_is_copied_between_registries(
    engine: Engine, registry: DockerRegistry, locked: DockerRegistry, layout: OciLayout
) -> None:
    """A whole index goes from an open registry to one with a password, and is the same there for skopeo."""
    images = [layout.add_image([archive(file(b"a", n.encode()))], architecture=n) for n in ("amd64", "arm64")]
    source, target = f"{registry.host}/copied:1", f"{locked.host}/team/copied:2"
    skopeo_copy(layout.name(layout.add_index(images), "m"), f"docker://{source}", "--all")
    here = engine.registry(registry.host)
    with pytest.raises(cl.AuthenticationFailed):
        here.copy("copied:1", target)
    engine.registry(locked.host).login("ann", "secret", store=False)
    assert here.copy("copied:1", target) == here.resolve("copied:1")
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", "--creds=ann:secret", f"docker://{target}"]
    seen = subprocess.run(command, capture_output=True, check=True).stdout
    assert seen == here.manifest("copied:1").raw
    image = engine.images.pull(target, platform="linux/arm64")
    assert image.record.manifest.digest == images[1]["digest"]


def test_copy_within_a_registry_moves_nothing(
    engine: Engine, registry: DockerRegistry, layout: OciLayout
) -> None:
    """Debian's registry takes blobs from one of its repositories into another."""
    fill(layout, f"{registry.host}/mount/from:1", content=b"mounted")
    before = len(registry.requests())
    here = engine.registry(registry.host)
    here.copy("mount/from:1", "mount/to:1")
    asked = registry.requests()[before:]
    assert not any(line.startswith(("PATCH", "GET /v2/mount/from/blobs")) for line in asked)
    assert not any(line.startswith("PUT") and "/blobs/uploads/" in line for line in asked)
    assert here.resolve("mount/to:1") == here.resolve("mount/from:1")


def test_push_takes_blobs_from_other_repositories(
    engine: Engine, registry: DockerRegistry, layout: OciLayout
) -> None:
    """What an image of the store has in another repository of the same registry is not sent again."""
    name = f"{registry.host}/pulled/from:1"
    fill(layout, name, content=b"pulled")
    image = engine.images.pull(name)
    before = len(registry.requests())
    events: list[cl.TransferEvent] = []
    image.push(f"{registry.host}/pushed/to:1", progress=events.append)
    asked = registry.requests()[before:]
    assert len([line for line in asked if line.startswith("POST") and "mount=" in line]) == 2
    assert not any(line.startswith(("PATCH", "PUT")) and "/blobs/uploads/" in line for line in asked)
    assert {event.phase for event in events} <= {"exists", "uploading"}


def test_command_line_copies(registry: DockerRegistry, layout: OciLayout) -> None:
    """`registry copy` prints the new name, and the digest that it has."""
    digest = fill(layout, f"{registry.host}/cli/from:1")
    target = f"{registry.host}/cli/to:2"
    done = command_line("registry", "copy", f"{registry.host}/cli/from:1", target)
    assert (done.returncode, done.stdout) == (0, f"{target}\n"), done.stderr
    assert f"Digest: {digest}" in done.stderr
    assert command_line("registry", "copy", "-q", target, f"{target}x").stderr == ""


def test_chunks_reach_a_real_registry(
    engine: Engine, registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image whose blobs are sent in chunks is the same in Debian's registry."""
    monkeypatch.setattr(chunks, "_CHUNK_BYTES", 1_000_000)
    monkeypatch.setattr(upload, "_least", lambda _answer: 1)
    name = f"{registry.host}/chunks:1"
    image = engine.images.from_host(["sh", "cat"], reference=name)
    before = len(registry.requests())
    image.push(name)
    assert len([line for line in registry.requests()[before:] if line.startswith("PATCH")]) > 2
    assert engine.registry(registry.host).resolve("chunks:1").digest == image.digest


def test_registry_with_tls_of_an_authority_of_its_own(
    engine: Engine,
    request: pytest.FixtureRequest,
    home: Path,
    layout: OciLayout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Log in, list and copy over TLS, once the authority is where containers-certs.d(5) says, not before."""
    need(request.config, "peers", PEERS)
    authority = Authority("ours")
    certificate, key = authority.issue("registry")
    with temporary_directory("t") as path:
        for name, content in (("server.crt", certificate), ("server.key", key)):
            (path / name).write_bytes(content)
        files = (path / "server.crt", path / "server.key")
        with docker_registry(path, htpasswd=HTPASSWD, tls=files) as secure:
            fill(layout, f"{secure.host}/safe:1", "--dest-creds=ann:secret")
            # As for registries that are not on this machine.
            monkeypatch.setattr(mirrors, "_is_loopback", lambda _host: False)
            here = engine.registry(secure.host)
            with pytest.raises(cl.RegistryUnavailable, match="TLS failed"):
                here.login("ann", "secret")
            certificates = home / ".config/containers/certs.d" / secure.host
            certificates.mkdir(parents=True)
            (certificates / "ca.crt").write_bytes(authority.pem)
            here.login("ann", "secret")
            assert here.tags("safe") == ["1"]
            assert here.copy("safe:1", "safe:2") == here.resolve("safe:1")


def test_command_line_asks_on_a_terminal(locked: DockerRegistry, home: Path) -> None:
    """Without options `login` asks for name and password; the password is not shown."""
    controller, terminal = os.openpty()
    with os.fdopen(controller, "r+b", buffering=0) as screen:
        process = subprocess.Popen(
            [sys.executable, "-m", "containerlib", "login", locked.host],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        shown = b""
        for prompt, answer in ((b"Username: ", b"ann\n"), (b"Password: ", b"secret\n")):
            while prompt not in shown:
                shown += screen.read(1024)
            screen.write(answer)
        while b"Login Succeeded" not in shown:
            shown += screen.read(1024)
        assert process.wait() == 0
    assert b"secret" not in shown
    assert (home / ".docker/config.json").exists()


def test_breaks_at_a_real_registry_are_survived(
    engine: Engine, registry: DockerRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's registry cannot say where an upload stands that broke inside a chunk, and gets it anew."""
    monkeypatch.setattr(chunks, "_CHUNK_BYTES", 2_000_000)
    monkeypatch.setattr(upload, "_least", lambda _answer: 1)
    (tmp_path / "root.tar").write_bytes(archive(file(b"random", os.urandom(12_000_000))))
    with cutting_proxy(registry.host, [3_000_000, 9_000_000]) as proxy:
        name = f"{proxy.host}/cut:1"
        image = engine.images.from_tar(tmp_path / "root.tar", reference=name)
        assert image.push(name).digest == image.digest
        assert proxy.cuts == 2
    assert engine.registry(registry.host).resolve("cut:1").digest == image.digest


def test_what_a_registry_says_does_not_reach_the_terminal_as_commands() -> None:
    """Control characters in the messages of a registry are shown as question marks."""
    error = json.dumps({"errors": [{"code": "DENIED", "message": "\x1b[31mred\x07\u009b1m"}]}).encode()
    with serve() as small:
        small.intercept = lambda _request: Reply(403, {}, error)
        done = command_line("registry", "tags", f"{small.host}/x")
    assert done.returncode == 125
    assert "?[31mred??1m" in done.stderr
