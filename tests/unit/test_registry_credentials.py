# ruff: noqa: S106 - the secrets here are made up
from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from containerlib.errors import AuthenticationFailed, InvalidInputError
from containerlib.registry import credential_helper
from containerlib.registry.auth_file import auth_files
from containerlib.registry.config_file import MAX_CONFIG_BYTES, home_directory, read_config_file
from containerlib.registry.credential import HUB_SERVER, normal_key
from containerlib.registry.credential_helper import CredentialHelper
from containerlib.registry.credentials import Credential, Credentials

if TYPE_CHECKING:
    from pathlib import Path

HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
SECRET = "s3cret:with:colons"  # noqa: S105 - a made-up one

# A helper that keeps its secrets in a JSON file beside it and writes down how it was called.
HELPER = f"""#!{sys.executable}
import json, os, sys
base = os.path.dirname(os.path.abspath(__file__))
verb, text = sys.argv[1], sys.stdin.read()
with open(base + "/calls", "a") as calls:
    print(verb, json.loads(text)["ServerURL"] if verb == "store" else text, file=calls)
with open(base + "/environ", "w") as environ:
    json.dump(dict(os.environ), environ)
path = base + "/kept.json"
kept = json.load(open(path)) if os.path.exists(path) else {{}}
if verb == "store":
    entry = json.loads(text)
    kept[entry.pop("ServerURL")] = entry
elif text not in kept:
    print("credentials not found in native keychain")
    sys.exit(1)
elif verb == "get":
    print(json.dumps(dict(kept[text], ServerURL=text)))
else:
    del kept[text]
json.dump(kept, open(path, "w"))
"""


def pair(username: str, secret: str = SECRET) -> dict[str, str]:
    """Return an entry of ``auths`` as Docker writes it."""
    return {"auth": base64.b64encode(f"{username}:{secret}".encode()).decode()}


class Host:
    """A home directory with configuration files and helper programs."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        self.programs = root / "bin"
        self.home.mkdir()
        self.programs.mkdir()
        self.environ = {"PATH": str(self.programs), "HOME": str(self.home)}

    def write(self, path: str, document: object) -> Path:
        """Write a JSON file below the home directory."""
        target = self.home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(document))
        return target

    def helper(self, name: str, script: str = HELPER) -> None:
        """Install a credential helper."""
        path = self.programs / f"docker-credential-{name}"
        path.write_text(script)
        path.chmod(0o755)

    def keep(self, kept: dict[str, tuple[str, str]]) -> None:
        """Put secrets into the helpers."""
        entries = {server: {"Username": user, "Secret": secret} for server, (user, secret) in kept.items()}
        (self.programs / "kept.json").write_text(json.dumps(entries))

    @property
    def kept(self) -> dict[str, object]:
        """What the helpers keep."""
        return dict(json.loads((self.programs / "kept.json").read_text()))

    @property
    def calls(self) -> list[str]:
        """How helpers were called."""
        path = self.programs / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def load(self, **environ: str) -> Credentials:
        """Return the credentials of this host."""
        return Credentials.load({**self.environ, **environ}, home=str(self.home))

    def username(self, host: str, repository: str = "", **environ: str) -> str | None:
        """Return the user name found for a repository."""
        found = self.load(**environ).find(host, repository)
        return None if found is None else found.username


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Give a host without any configuration."""
    return Host(tmp_path)


def test_nothing_configured_means_anonymous(host: Host) -> None:
    """Without files, helpers and variables there is no credential, and asking leaves nothing behind."""
    assert host.load().find("example.com", "a/b") is None
    assert not host.load().logout("example.com")
    assert list(host.home.iterdir()) == []


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("docker.io/library/alpine", "docker.io/library/alpine"),
        ("https://Example.com/v2/", "example.com"),
        ("http://example.com:5000", "example.com:5000"),
        ("https://example.com/team", "example.com"),
        ("example.com/team/app", "example.com/team/app"),
        ("[::1]:5000", "[::1]:5000"),
        ("ftp://example.com", None),
        ("a b", None),
        ("", None),
        ("example.com:port", None),
    ],
)
def test_names_have_one_normal_form(written: str, key: str | None) -> None:
    """Every spelling of a registry is brought to one form, and what is no registry to none."""
    assert normal_key(written) == key


@pytest.mark.parametrize(
    "written", [HUB_SERVER, "docker.io", "index.docker.io", "https://registry-1.docker.io/v2/"]
)
@pytest.mark.parametrize("asked", HUB_NAMES)
def test_hub_has_many_names(host: Host, written: str, asked: str) -> None:
    """A credential for Docker Hub is found under each of its names, however it was written."""
    host.write(".docker/config.json", {"auths": {written: pair("me")}})
    assert host.username(asked, "library/alpine") == "me"
    assert host.username("example.com") is None


def test_hub_key_of_docker_wins(host: Host) -> None:
    """Of several entries for Docker Hub, the one under Docker's own key counts, in any order."""
    entries = {"docker.io": pair("other"), HUB_SERVER: pair("docker"), "index.docker.io": pair("third")}
    host.write(".docker/config.json", {"auths": entries})
    assert host.username("docker.io") == "docker"


def test_ports_are_different_registries(host: Host) -> None:
    """An entry with a port is for that port only, and one without is for no port."""
    host.write(".docker/config.json", {"auths": {"r.test:5000": pair("five"), "r.test": pair("none")}})
    assert host.username("r.test:5000") == "five"
    assert host.username("r.test") == "none"
    assert host.username("r.test:5001") is None
    assert host.username("sub.r.test") is None


def test_namespaces_match_most_specific_first(host: Host) -> None:
    """The entry with the longest path that begins the repository's name wins, by whole components."""
    names = ("r.test", "r.test/ns", "r.test/ns/user/image")
    host.write(".config/containers/auth.json", {"auths": {name: pair(name) for name in names}})
    assert host.username("r.test", "ns/user/image") == "r.test/ns/user/image"
    assert host.username("r.test", "ns/user/image2") == "r.test/ns"
    assert host.username("r.test", "nsx") == "r.test"
    assert host.username("r.test") == "r.test"


def test_files_are_asked_in_order(host: Host) -> None:
    """The first file with a credential wins: explicit, runtime, configuration, Docker, legacy."""
    explicit = host.write("explicit.json", {"auths": {"r.test": pair("explicit")}})
    runtime = host.write("run/containers/auth.json", {"auths": {"r.test": pair("runtime")}})
    xdg = host.write("xdg/containers/auth.json", {"auths": {"r.test": pair("xdg")}})
    docker = host.write(".docker/config.json", {"auths": {"r.test": pair("docker")}})
    host.write(".dockercfg", {"r.test": {**pair("legacy"), "email": "x"}})
    environ = {
        "REGISTRY_AUTH_FILE": str(explicit),
        "XDG_RUNTIME_DIR": f"{host.home}/run",
        "XDG_CONFIG_HOME": f"{host.home}/xdg",
    }
    assert host.username("r.test", **environ) == "explicit"
    explicit.unlink()
    assert host.username("r.test", **environ) == "xdg"  # the explicit one stands for that of the session
    del environ["REGISTRY_AUTH_FILE"]
    for path, expected in ((runtime, "runtime"), (xdg, "xdg"), (docker, "docker")):
        assert host.username("r.test", **environ) == expected
        path.unlink()
    assert host.username("r.test", **environ) == "legacy"


def test_without_a_session_the_file_of_the_user_is_asked() -> None:
    """Where no session has a directory of its own, podman's file below /run is asked first."""
    assert auth_files({}, "/h")[0].path == f"/run/containers/{os.getuid()}/auth.json"


def test_login_replaces_what_would_win_later(host: Host) -> None:
    """A login is written to the file whose entry another process would find first."""
    host.write("run/containers/auth.json", {"auths": {"r.test": pair("old"), "other.test": pair("other")}})
    environ = {"XDG_RUNTIME_DIR": f"{host.home}/run"}
    path = host.load(**environ).login("r.test", Credential("new", "s"), persist=True)
    assert path == f"{host.home}/run/containers/auth.json"
    assert host.username("r.test", **environ) == "new"
    assert host.load(**environ).login("else.test", Credential("new", "s"), persist=True) == (
        f"{host.home}/.docker/config.json"
    )


def test_docker_config_names_the_directory(host: Host) -> None:
    """DOCKER_CONFIG stands for the directory of Docker and rules out the legacy file."""
    host.write(".docker/config.json", {"auths": {"r.test": pair("home")}})
    host.write("other/config.json", {"auths": {"r.test": pair("other")}})
    host.write(".dockercfg", {"legacy.test": pair("legacy")})
    other = f"{host.home}/other"
    assert host.username("r.test", DOCKER_CONFIG=other) == "other"
    assert host.username("legacy.test", DOCKER_CONFIG=other) is None
    assert host.username("legacy.test") == "legacy"


def test_files_are_read_again_when_they_change(host: Host) -> None:
    """One object follows the files: what another program changes counts at the next question."""
    credentials = host.load()
    path = host.write(".docker/config.json", {"auths": {"r.test": pair("aa")}})
    os.utime(path, ns=(1, 1))
    for name in ("aa", "bb"):
        host.write(".docker/config.json", {"auths": {"r.test": pair(name)}})
        found = [credentials.find("r.test") for _ in range(2)]
        assert [each.username for each in found if each] == [name, name]
    path.unlink()
    assert credentials.find("r.test") is None


def test_entries_have_several_forms(host: Host) -> None:
    """Plain pairs, identity tokens, registry tokens and padded passwords are all understood."""
    padded = base64.b64encode(b"u:p\0\0").decode()
    entries = {
        "plain.test": {"username": "u", "password": "p"},
        "identity.test": {"auth": base64.b64encode(b"u:").decode(), "identitytoken": "it"},
        "registry.test": {"registrytoken": "rt"},
        "padded.test": {"auth": padded},
        "wrapped.test": {"auth": padded[:4] + "\n" + padded[4:]},
        "empty.test": {},
        "null.test": {"auth": None},
    }
    host.write(".docker/config.json", {"auths": entries, "HttpHeaders": {"a": 1}, "unknown": []})
    find = host.load().find
    assert find("plain.test") == find("padded.test") == find("wrapped.test") == Credential("u", "p")
    assert find("identity.test") == Credential("u", identity_token="it")
    assert find("registry.test") == Credential("", registry_token="rt")
    assert find("empty.test") is None
    assert find("null.test") is None


def test_inline_configuration_wins_over_files(host: Host) -> None:
    """DOCKER_AUTH_CONFIG is asked before any file, and what it does not know is asked of the files."""
    host.write(".docker/config.json", {"auths": {"r.test": pair("file"), "f.test": pair("file")}})
    inline = json.dumps({"auths": {"r.test": pair("inline")}})
    assert host.username("r.test", DOCKER_AUTH_CONFIG=inline) == "inline"
    assert host.username("f.test", DOCKER_AUTH_CONFIG=inline) == "file"


def test_inline_configuration_names_helpers(host: Host) -> None:
    """DOCKER_AUTH_CONFIG may hold credHelpers and credsStore, with or without auths."""
    host.helper("one")
    host.keep({"h.test": ("<token>", "tok"), HUB_SERVER: ("hub", "x")})
    inline = json.dumps({"credHelpers": {"h.test": "one"}, "credsStore": "one"})
    credentials = host.load(DOCKER_AUTH_CONFIG=inline)
    assert credentials.find("h.test") == Credential("<token>", identity_token="tok")
    assert credentials.find("docker.io") == Credential("hub", "x")
    assert host.calls == ["get h.test", f"get {HUB_SERVER}"]


def test_helpers_are_asked_for_their_registry_only(host: Host) -> None:
    """A helper of credHelpers runs for its registry alone; others, even broken ones, do not run."""
    host.helper("one")
    host.keep({"h.test": ("me", SECRET)})
    helpers = {"h.test": "one", "other.test": "missing", "bad.test": "../evil"}
    host.write(".docker/config.json", {"credHelpers": helpers, "auths": {"p.test": pair("plain")}})
    assert host.username("p.test") == "plain"
    assert host.calls == []
    assert host.load().find("h.test") == Credential("me", SECRET)
    assert host.calls == ["get h.test"]


def test_helper_of_a_registry_replaces_its_entry(host: Host) -> None:
    """With credHelpers the file's own entry is not used, with credsStore it is if the helper has none."""
    host.helper("one")
    auths = {"h.test": pair("stale"), "s.test": pair("plain"), "https://u.test/v1/": {}}
    host.write(".docker/config.json", {"credHelpers": {"h.test": "one"}, "credsStore": "one", "auths": auths})
    host.keep({"https://u.test/v1/": ("url", "x")})
    assert host.username("h.test") is None
    assert host.username("s.test") == "plain"
    assert host.username("u.test") == "url"
    assert host.calls == ["get h.test", "get s.test", "get https://u.test/v1/"]


def test_default_helpers_are_asked_in_order(host: Host) -> None:
    """The helpers of registries.conf are asked in their order, with the files where these are named."""
    host.helper("one")
    host.keep({"r.test": ("helper", "x"), "h.test": ("helper", "x")})
    host.write(".docker/config.json", {"auths": {"r.test": pair("file")}})

    def find(*names: str) -> list[str]:
        credentials = Credentials.load(host.environ, home=str(host.home), default_helpers=names)
        found = [credentials.find(name) for name in ("r.test", "h.test")]
        return [each.username for each in found if each]

    assert find("containers-auth.json", "one") == ["file", "helper"]
    assert find("one", "containers-auth.json") == ["helper", "helper"]
    assert find("containers-auth.json") == ["file"]


def test_helper_gets_a_clean_environment(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper sees what it needs to find its keys, and neither our secrets nor anything else."""
    monkeypatch.setenv("LEAKED", "1")
    host.helper("one")
    extra = {
        "DOCKER_AUTH_CONFIG": "x",
        "LD_PRELOAD": "/x",
        "XDG_RUNTIME_DIR": "/r",
        "DBUS_SESSION_BUS_ADDRESS": "d",
    }
    helper = CredentialHelper("one", {**host.environ, **extra})
    assert helper.get("r.test") is None
    seen = set(json.loads((host.programs / "environ").read_text())) - {"LC_CTYPE"}
    assert seen == {"HOME", "PATH", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"}


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", "a.b", "a\n", "-é"])
def test_helper_names_are_checked(host: Host, name: str) -> None:
    """A name that is not of letters, digits, '_' and '-' is refused before anything runs."""
    with pytest.raises(InvalidInputError, match="not made of letters"):
        CredentialHelper(name, host.environ)


def test_helper_is_found_in_absolute_directories_only(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper in the working directory is not run, whatever relative entries PATH has."""
    host.helper("one")
    monkeypatch.chdir(host.programs)
    with pytest.raises(AuthenticationFailed, match="docker-credential-one is not in an absolute directory"):
        CredentialHelper("one", {"PATH": f":.:../bin:{host.home}"}).get("r.test")
    assert host.calls == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("#!/bin/sh\ncat >/dev/null\necho s3cret; exit 3\n", "exit code 3"),
        ("#!/bin/sh\nkill -9 $$\n", "exit code -9"),
        ("#!/bin/sh\necho 's3cret {'\n", "JSON object"),
        ("#!/bin/sh\necho '[\"s3cret\"]'\n", "JSON object"),
        ('#!/bin/sh\necho \'{"Username": 1, "Secret": "s3cret"}\'\n', "not a text"),
        ('#!/bin/sh\necho \'{"Username": "a:b", "Secret": "s3cret"}\'\n', "colon"),
        (f"#!{sys.executable}\nprint('s3cret' * 400000)\n", "more than 1048576 bytes"),
        ("not a program", "cannot be executed"),
    ],
)
def test_failing_helpers_are_named(host: Host, script: str, reason: str) -> None:
    """Whatever a helper does wrong, the error names the program and never quotes its output."""
    host.helper("bad", script)
    host.write(".docker/config.json", {"credsStore": "bad"})
    with pytest.raises(AuthenticationFailed, match="docker-credential-bad") as caught:
        host.load().find("r.test")
    assert reason in str(caught.value)
    assert "config.json: key 'credsStore'" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_slow_helper_is_killed_with_its_group(host: Host) -> None:
    """A helper over its time is killed together with what it started."""
    fifo = host.programs / "alive"
    os.mkfifo(fifo)
    # The child holds the pipe open for as long as it lives.
    host.helper("slow", f"#!/bin/sh\nsleep 1000 3>{fifo} &\nexec sleep 1000\n")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        environ = {"PATH": f"{host.programs}:{os.environ['PATH']}"}
        with pytest.raises(AuthenticationFailed, match=r"did not end within 0\.5 s, and was killed"):
            CredentialHelper("slow", environ, timeout_s=0.5).get("r.test")
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_helper_may_leave_a_process_behind(host: Host) -> None:
    """A background process that keeps the output open does not hold up the answer."""
    script = '#!/bin/sh\nsleep 1000 & echo $! >"$0.pid"\necho \'{"Username": "u", "Secret": "s"}\'\n'
    host.helper("agent", script)
    environ = {"PATH": f"{host.programs}:{os.environ['PATH']}"}
    try:
        found = CredentialHelper("agent", environ).get("r.test")
    finally:
        os.kill(int((host.programs / "docker-credential-agent.pid").read_text()), 9)
    assert found == Credential("u", "s")


def test_helper_without_a_secret_means_anonymous(host: Host) -> None:
    """A helper that answers with an empty secret keeps none."""
    host.helper("empty", '#!/bin/sh\necho \'{"Username": "", "Secret": ""}\'\n')
    assert CredentialHelper("empty", host.environ).get("r.test") is None


def test_large_secrets_pass_both_pipes(host: Host) -> None:
    """A secret larger than a pipe's buffer is stored and read back whole."""
    host.helper("one")
    helper = CredentialHelper("one", host.environ)
    helper.store("r.test", Credential("u", "x" * 300_000))
    assert helper.get("r.test") == Credential("u", "x" * 300_000)
    with pytest.raises(InvalidInputError, match="over"):
        helper.store("r.test", Credential("u", "x" * credential_helper._MAX_INPUT_BYTES))


def test_login_in_this_process_wins(host: Host) -> None:
    """A login of this object is used before files and helpers, which are not even asked."""
    host.helper("one")
    host.keep({"r.test": ("helper", "x")})
    host.write(".docker/config.json", {"credsStore": "one"})
    credentials = host.load(DOCKER_AUTH_CONFIG=json.dumps({"auths": {"other.test": pair("x")}}))
    before = sorted(host.home.rglob("*"))
    credentials.login("https://R.test/v2/", Credential("me", SECRET), persist=False)
    assert credentials.find("r.test", "a/b") == Credential("me", SECRET)
    assert host.calls == []
    assert sorted(host.home.rglob("*")) == before
    assert host.username("r.test") == "helper"


def test_login_is_written_to_the_file(host: Host) -> None:
    """A lasting login replaces every spelling, keeps unknown keys, and leaves one file of mode 0600."""
    entries = {"docker.io": pair("old"), "r.test": pair("r")}
    path = host.write(".docker/config.json", {"zzz": {"b": [1, 2.5, None]}, "auths": entries, "aaa": "é"})
    path.chmod(0o644)
    credentials = host.load()
    credentials.login("docker.io", Credential("me", SECRET), persist=True)
    document = json.loads(path.read_text())
    assert document["zzz"] == {"b": [1, 2.5, None]}
    assert document["aaa"] == "é"
    assert document["auths"] == {"r.test": pair("r"), HUB_SERVER: pair("me")}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["config.json"]
    assert host.load().find("docker.io") == Credential("me", SECRET)


@pytest.mark.parametrize(
    "credential",
    [
        Credential("u", SECRET),
        Credential("u", "p", identity_token="it"),
        Credential("u", identity_token="it"),
        Credential("<token>", identity_token="it"),
        Credential("", registry_token="rt"),
    ],
)
def test_login_makes_the_file(host: Host, credential: Credential) -> None:
    """Every kind of credential is read back as it was written, from a file that was not there."""
    host.load().login("r.test:5000", credential, persist=True)
    assert host.load().find("r.test:5000") == credential
    assert stat.S_IMODE((host.home / ".docker").stat().st_mode) == 0o700


def test_login_follows_the_explicit_file(host: Host) -> None:
    """REGISTRY_AUTH_FILE and DOCKER_CONFIG say which file a login is written to, in this order."""
    explicit = host.home / "deep/auth.json"
    docker = host.home / "docker"
    host.load(DOCKER_CONFIG=str(docker)).login("r.test", Credential("u", "p"), persist=True)
    assert (docker / "config.json").exists()
    both = host.load(DOCKER_CONFIG=str(docker), REGISTRY_AUTH_FILE=str(explicit))
    both.login("x.test", Credential("u", "p"), persist=True)
    assert json.loads(explicit.read_text())["auths"] == {"x.test": pair("u", "p")}


def test_login_keeps_a_link(host: Host) -> None:
    """A configuration file that is a symbolic link stays one; its target is replaced."""
    real = host.write("dotfiles/config.json", {})
    (host.home / ".docker").mkdir()
    (host.home / ".docker/config.json").symlink_to(real)
    host.load().login("r.test", Credential("u", "p"), persist=True)
    assert (host.home / ".docker/config.json").is_symlink()
    assert "r.test" in json.loads(real.read_text())["auths"]


@pytest.mark.parametrize("configuration", [{"credsStore": "one"}, {"credHelpers": {"r.test": "one"}}])
def test_login_and_logout_use_the_helper(host: Host, configuration: dict[str, object]) -> None:
    """With a helper for the host a lasting login goes there, and no secret stays in the file."""
    host.helper("one")
    path = host.write(".docker/config.json", {**configuration, "auths": {"r.test": pair("old")}})
    host.load().login("r.test", Credential("me", SECRET), persist=True)
    assert host.kept == {"r.test": {"Username": "me", "Secret": SECRET}}
    assert json.loads(path.read_text()) == {**configuration, "auths": {"r.test": {}}}
    credentials = host.load()
    assert credentials.find("r.test") == Credential("me", SECRET)
    assert credentials.logout("r.test")
    assert host.kept == {}
    assert json.loads(path.read_text()) == {**configuration, "auths": {}}
    assert not credentials.logout("r.test")


def test_identity_token_goes_to_the_helper(host: Host) -> None:
    """An identity token is stored under the user name ``<token>``, a registry token is refused."""
    host.helper("one")
    host.write(".docker/config.json", {"credsStore": "one"})
    host.load().login("docker.io", Credential("me", identity_token="it"), persist=True)
    assert host.kept == {HUB_SERVER: {"Username": "<token>", "Secret": "it"}}
    with pytest.raises(InvalidInputError, match="cannot keep a registry token"):
        host.load().login("docker.io", Credential("me", registry_token="rt"), persist=True)
    assert host.load().find("docker.io") == Credential("<token>", identity_token="it")


def test_default_helper_keeps_logins(host: Host) -> None:
    """If registries.conf names a helper first, lasting logins go there and logout takes them back."""
    host.helper("one")
    credentials = Credentials.load(host.environ, home=str(host.home), default_helpers=["one"])
    credentials.login("docker.io", Credential("me", SECRET), persist=True)
    assert host.kept == {"docker.io": {"Username": "me", "Secret": SECRET}}
    assert credentials.logout("index.docker.io")
    assert host.kept == {}
    assert credentials.find("docker.io") is None


def test_logout_forgets_everywhere(host: Host) -> None:
    """A logout removes the credential from every file in every spelling, and nothing else."""
    auth = host.write(
        ".config/containers/auth.json", {"auths": {"r.test": pair("a"), "r.test/ns": pair("ns")}}
    )
    docker = host.write(
        ".docker/config.json", {"auths": {"https://r.test/v1/": pair("b"), "o.test": pair("o")}}
    )
    legacy = host.write(".dockercfg", {"R.test": pair("c"), "o.test": pair("o")})
    credentials = host.load()
    credentials.login("r.test", Credential("me", "x"), persist=False)
    assert credentials.logout("r.test")
    assert json.loads(auth.read_text()) == {"auths": {"r.test/ns": pair("ns")}}
    assert json.loads(docker.read_text()) == {"auths": {"o.test": pair("o")}}
    assert json.loads(legacy.read_text()) == {"o.test": pair("o")}
    assert credentials.find("r.test") is None
    assert not credentials.logout("r.test")


def test_logout_cannot_change_the_environment(host: Host) -> None:
    """A credential of DOCKER_AUTH_CONFIG cannot be removed, which is said before anything changes."""
    path = host.write(".docker/config.json", {"auths": {"r.test": pair("b")}})
    credentials = host.load(DOCKER_AUTH_CONFIG=json.dumps({"auths": {"r.test": pair("a")}}))
    with pytest.raises(InvalidInputError, match=r"DOCKER_AUTH_CONFIG has a credential for 'r\.test'"):
        credentials.logout("r.test")
    assert json.loads(path.read_text()) == {"auths": {"r.test": pair("b")}}


def test_logins_at_once_are_all_kept(host: Host) -> None:
    """Lasting logins of many threads at the same time do not lose each other."""
    names = [f"r{number}.test" for number in range(12)]
    threads = [
        threading.Thread(
            target=host.load().login, args=(name, Credential("u", "p")), kwargs={"persist": True}
        )
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    document = json.loads((host.home / ".docker/config.json").read_text())
    assert sorted(document["auths"]) == sorted(names)
    assert os.listdir(host.home / ".docker") == ["config.json"]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "not an object"),
        ({"auths": []}, "'auths'"),
        ({"auths": {"r.test": "x"}}, "auths 'r.test': not an object"),
        ({"auths": {"r.test": {"auth": 1}}}, "auths 'r.test': 'auth' is not a text"),
        ({"auths": {"r.test": {"auth": "s3cret"}}}, "auths 'r.test': 'auth' is not the base64 form"),
        ({"auths": {"r.test": {"auth": base64.b64encode(b"s3cret").decode()}}}, "not the base64 form"),
        ({"auths": {"r.test": {"auth": base64.b64encode(b"\xff:s3cret").decode()}}}, "not the base64 form"),
        ({"auths": {"r.test": {"username": "a:b", "password": "s3cret"}}}, "auths 'r.test': credential"),
        ({"auths": {"r.test": {"identitytoken": "s3cret\n"}}}, "auths 'r.test': credential"),
        ({"credsStore": 1}, "'credsStore'"),
        ({"credHelpers": ["x"]}, "'credHelpers'"),
        ({"credHelpers": {"r.test": None}}, "'credHelpers' 'r.test'"),
    ],
)
def test_malformed_files_are_named(host: Host, document: object, reason: str) -> None:
    """A file that breaks its form is refused by name and key, without its secrets, and is not changed."""
    path = host.write(".docker/config.json", document)
    before = path.read_bytes()
    credentials = host.load()
    for action in (
        lambda: credentials.find("o.test"),
        lambda: credentials.logout("o.test"),
        lambda: credentials.login("o.test", Credential("u", "p"), persist=True),
    ):
        with pytest.raises(InvalidInputError) as caught:
            action()
        assert str(path) in str(caught.value)
        assert reason in str(caught.value)
        assert "s3cret" not in str(caught.value)
    assert path.read_bytes() == before
    with pytest.raises(InvalidInputError, match="DOCKER_AUTH_CONFIG"):
        host.load(DOCKER_AUTH_CONFIG=json.dumps(document)).find("o.test")


def test_empty_files_say_nothing(host: Host) -> None:
    """An empty configuration file is like none."""
    path = host.write(".docker/config.json", {})
    path.write_text("\n")
    assert host.load().find("r.test") is None


def test_files_are_read_with_a_bound(host: Host) -> None:
    """A file over the limit, a directory and a pipe are refused by name, and none of them blocks."""
    path = host.home / ".docker/config.json"
    path.mkdir(parents=True)
    with pytest.raises(InvalidInputError, match="not a regular file"):
        host.load().find("r.test")
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(InvalidInputError, match="not a regular file"):
        host.load().find("r.test")
    path.unlink()
    with path.open("wb") as file:
        file.truncate(MAX_CONFIG_BYTES + 1)
    with pytest.raises(InvalidInputError, match="over the limit"):
        host.load().find("r.test")
    assert read_config_file(f"{path}/below") is None
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_config_file(f"{host.home}/{'x' * 300}")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_config_file("a\0b")


def test_secrets_stay_out_of_representations(host: Host) -> None:
    """No representation of a credential or of what holds one tells a secret."""
    credential = Credential("me", "s3cret-a", identity_token="s3cret-b", registry_token="s3cret-c")
    credentials = host.load(DOCKER_AUTH_CONFIG=json.dumps({"auths": {"r.test": pair("x", "s3cret-d")}}))
    credentials.login("r.test", credential, persist=False)
    for shown in (credential, credentials, vars(credentials)["_memory"], credentials._files):
        assert "s3cret" not in f"{shown!r} {shown!s}"
    assert "s3cret" not in repr(CredentialHelper("one", {"X": "s3cret"}))


def test_credential_keys_tell_credentials_apart() -> None:
    """The key of a credential depends on each part and on where one part ends, and tells none of them."""
    different = [
        Credential("ab", "c"),
        Credential("a", "bc"),
        Credential("ab", identity_token="c"),
        Credential("ab", registry_token="c"),
    ]
    assert len({credential.key for credential in different}) == 4
    assert Credential("ab", "c").key == different[0].key
    other = "from containerlib.registry.credentials import Credential; print(Credential('ab', 'c').key)"
    run = subprocess.run([sys.executable, "-c", other], check=True, capture_output=True, text=True)
    assert run.stdout.strip() != different[0].key


@pytest.mark.parametrize(
    "fields",
    [
        {"username": "a:b", "secret": "s3cret"},
        {"username": "a\n", "secret": "s3cret"},
        {"username": "a", "secret": "s3cret\0"},
        {"username": "a", "identity_token": "s3cret\r\n"},
        {"username": "a", "registry_token": "s3cret\x7f"},
        {"username": "a"},
    ],
)
def test_impossible_credentials_are_refused(fields: dict[str, str]) -> None:
    """A credential that could break out of a header, or that is empty, is refused without being quoted."""
    with pytest.raises(InvalidInputError) as caught:
        Credential(**fields)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "https://", "a b", "ftp://r.test"])
def test_registries_are_checked(host: Host, name: str) -> None:
    """What is no registry is refused, at every verb."""
    credentials = host.load()
    with pytest.raises(InvalidInputError, match="not of the form host"):
        credentials.find(name)
    with pytest.raises(InvalidInputError, match="not of the form host"):
        credentials.login(name, Credential("u", "p"), persist=True)
    with pytest.raises(InvalidInputError, match="not of the form host"):
        credentials.logout(name)


def test_home_has_a_fallback(host: Host) -> None:
    """Without a usable HOME the user database says where the home directory is."""
    assert home_directory(host.environ) == str(host.home)
    assert home_directory({}) == home_directory({"HOME": "relative"})
    assert os.path.isabs(home_directory({}))


def test_real_environment_is_the_default(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the environment of this process counts."""
    host.write(".docker/config.json", {"auths": {"r.test": pair("me")}})
    for name in (
        "DOCKER_CONFIG",
        "DOCKER_AUTH_CONFIG",
        "REGISTRY_AUTH_FILE",
        "XDG_CONFIG_HOME",
        "XDG_RUNTIME_DIR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(host.home))
    found = Credentials.load().find("r.test")
    assert found == Credential("me", SECRET)
