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
from support.capabilities import need
from support.docker_registry import DockerRegistry, docker_registry, skopeo_copy
from support.oci_layout import OciLayout
from support.session import temporary_directory

import containerlib as cl

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
