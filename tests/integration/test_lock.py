"""Lock files and offline engines: what was decided is what is used, and nobody is asked."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.archives import archive, file
from support.capabilities import need
from support.docker_registry import docker_registry, skopeo_copy
from support.engine import new_engine
from support.fault_registry import FaultRegistry, digest_of
from support.network_guard import attempts_at_the_network
from support.oci_layout import INDEX, MANIFEST, OciLayout
from support.session import temporary_directory, tracked_root

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Engine

pytestmark = [pytest.mark.root]


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    """Return a registry with an image."""
    with FaultRegistry() as running:
        running.add_image([archive(file(b"old", b"old"))], "1")
        yield running


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return where the lock file is."""
    return str(tmp_path / "images.lock")


def locked_engine(engine: Engine, path: str, **more: Any) -> Engine:
    """Return another engine on the same store, with a lock file."""
    return cl.Engine(engine.root, engine.run_root, cl.EngineConfig(lock_file=path, **more))


def index(registry: FaultRegistry, content: bytes, *names: str) -> dict[str, dict[str, Any]]:
    """Keep an index of two platforms and something that is no image; return its entries by architecture."""
    entries = {}
    for name in ("amd64", "arm64"):
        made = registry.add_image([archive(file(b"x", content + name.encode()))], architecture=name)
        platform = {"os": "linux", "architecture": name}
        entries[name] = {**registry.add_manifest(made, MANIFEST), "platform": platform}
    other = {**entries["amd64"], "platform": {"os": "unknown", "architecture": "unknown"}}
    registry.add_manifest(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*entries.values(), other]}, INDEX, *names
    )
    return entries


def test_tag_that_moved_is_still_what_was_locked(engine: Engine, registry: FaultRegistry, path: str) -> None:
    """After locking, the tag may move: what is found and pulled is what was locked, and is called so."""
    old = digest_of(registry.manifests["1"][1])
    (locked,) = engine.images.lock([registry.name], path=path)
    assert (locked.reference, locked.digest, dict(locked.platforms)) == (
        registry.name,
        old,
        {"linux/amd64": old},
    )
    registry.add_image([archive(file(b"new", b"new"))], "1")
    assert engine.images.pull(registry.name).digest != old
    with locked_engine(engine, path) as other:
        with pytest.raises(cl.ImageNotFound, match=f"is locked to {old}, which is not in the store; pull it"):
            other.images.get(registry.name)
        found = other.images.find(registry.name)
        assert (found.digest, found.references) == (old, (registry.name,))
        assert other.images.pull(registry.name).digest == old
        assert other.images.get(registry.name) == found


def test_file_is_for_people_and_for_diffs(engine: Engine, registry: FaultRegistry, path: str) -> None:
    """The file is sorted JSON with a digest a line, keeps what is not named, and keeps its mode."""
    entries = index(registry, b"1", "many", "other")
    engine.images.lock([f"{registry.host}/x:other", f"{registry.host}/x:many"], path=path)
    text = Path(path).read_text(encoding="ascii")
    document = json.loads(text)
    assert text == json.dumps(document, indent=2) + "\n"
    assert list(document["images"]) == sorted(document["images"])
    assert document["images"][f"{registry.host}/x:many"] == {
        "digest": digest_of(registry.manifests["many"][1]),
        "platforms": {f"linux/{name}": entry["digest"] for name, entry in sorted(entries.items())},
    }
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    os.chmod(path, 0o640)
    before = document["images"][f"{registry.host}/x:other"]
    index(registry, b"2", "many", "other")
    engine.images.lock([f"{registry.host}/x:many"], path=path)
    after = json.loads(Path(path).read_bytes())["images"]
    assert after[f"{registry.host}/x:other"] == before
    assert after[f"{registry.host}/x:many"] != document["images"][f"{registry.host}/x:many"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert os.listdir(os.path.dirname(path)) == ["images.lock"]


def test_only_the_platforms_that_were_asked_for(engine: Engine, registry: FaultRegistry, path: str) -> None:
    """A platform that is not locked is an error with the remedy; one that there is not cannot be locked."""
    entries = index(registry, b"1", "many")
    name = f"{registry.host}/x:many"
    (locked,) = engine.images.lock([name], path=path, platforms=["linux/arm64"])
    assert dict(locked.platforms) == {"linux/arm64": entries["arm64"]["digest"]}
    with locked_engine(engine, path) as other:
        pulled = other.images.pull(name, platform="linux/arm64")
        assert pulled.record.manifest.digest == entries["arm64"]["digest"]
        with pytest.raises(cl.PlatformNotFound, match="containerlib lock --platform linux/amd64"):
            other.images.pull(name)
        with pytest.raises(cl.PlatformNotFound, match="for linux/arm64, not for linux/amd64"):
            other.images.find(name)
    with pytest.raises(cl.PlatformNotFound, match="there are: linux/amd64, linux/arm64"):
        engine.images.lock([name], path=path, platforms=["linux/s390x"])


def test_locked_manifest_must_be_the_one(engine: Engine, registry: FaultRegistry, path: str) -> None:
    """A lock file whose two digests do not belong together is refused, whatever the registry says."""
    index(registry, b"1", "many")
    name = f"{registry.host}/x:many"
    engine.images.lock([name], path=path)
    document = json.loads(Path(path).read_bytes())
    document["images"][name]["platforms"]["linux/amd64"] = digest_of(registry.manifests["1"][1])
    Path(path).write_text(json.dumps(document), encoding="ascii")
    with locked_engine(engine, path) as other, pytest.raises(cl.DigestMismatch, match="as locked"):
        other.images.pull(name)
    assert engine.images.list() == []


def test_nothing_else_may_be_used(engine: Engine, registry: FaultRegistry, path: str) -> None:
    """A strict engine refuses names that are not locked; ids and digests say themselves what they are."""
    engine.images.lock([registry.name], path=path)
    index(registry, b"1", "many")
    with locked_engine(engine, path, locked=True) as other:
        image = other.images.find(registry.name)
        for verb in (other.images.find, other.images.pull):
            with pytest.raises(cl.NotLocked, match="add it with: containerlib lock -f"):
                verb(f"{registry.host}/x:many")
        assert other.images.find(image.id) == image
        pinned = f"{registry.host}/x@{digest_of(registry.manifests['many'][1])}"
        assert other.images.pull(pinned).digest in pinned
    with locked_engine(engine, path) as other:
        assert other.images.pull(f"{registry.host}/x:many")
    with pytest.raises(cl.InvalidOption, match="lock_file"):
        cl.EngineConfig(locked=True)


def test_offline_touches_no_network(engine: Engine, registry: FaultRegistry, path: str) -> None:
    """An offline engine finds what is locked by its digest; what is missing is an error, not a request."""
    engine.images.lock([registry.name], path=path)
    name = "registry.invalid/x:1"
    with locked_engine(engine, path) as other:
        kept = other.images.pull(registry.name)
    registry.add_image([archive(file(b"new", b"new"))], "1")
    engine.images.pull(registry.name)
    with attempts_at_the_network() as attempts, locked_engine(engine, path, offline=True) as offline:
        assert offline.images.find(registry.name) == kept
        assert offline.images.find(registry.name, pull="missing").digest == kept.digest
        acts = {
            "find": lambda: offline.images.find(name),
            "pull": lambda: offline.images.pull(registry.name),
            "lock": lambda: offline.images.lock([name], path=path),
            "push": lambda: kept.push(name),
        }
        with pytest.raises(cl.Offline, match=r"as locked to sha256:.* offline; use one that is not"):
            acts.pop("pull")()
        for verb in ("find", "lock"):
            with pytest.raises(cl.Offline, match=r"registry\.invalid/x:1.*offline"):
                acts[verb]()
        with pytest.raises(cl.Offline, match="cannot be pushed"):
            offline.images.push(registry.name, progress=None)
    assert attempts == []
    with attempts_at_the_network() as attempts, pytest.raises(cl.RegistryUnavailable):
        engine.images.pull(name)
    assert attempts, "the guard sees nothing at all"


def test_archive_brings_what_is_locked(
    engine: Engine, registry: FaultRegistry, path: str, tmp_path: Path
) -> None:
    """A host without network gets an image as a file, and finds it there by the lock file."""
    index(registry, b"1", "many")
    name = f"{registry.host}/x:many"
    (locked,) = engine.images.lock([name], path=path)
    with locked_engine(engine, path) as other:
        other.images.pull(name)
        other.images.save([name], tmp_path / "image.tar", format="oci")
    with temporary_directory("l") as base, tracked_root(base / "n"):
        config = cl.EngineConfig(lock_file=path, locked=True, offline=True)
        with attempts_at_the_network() as attempts, new_engine(base / "r", base / "n", config=config) as far:
            with pytest.raises(cl.Offline, match="as locked"):
                far.images.find(name)
            far.images.load(tmp_path / "image.tar")
            found = far.images.find(name)
    assert str(found.record.manifest.digest) == locked.platforms["linux/amd64"]
    assert attempts == []


def test_change_of_the_file_counts_at_once(engine: Engine, registry: FaultRegistry, path: str) -> None:
    """An engine that has read the file sees what becomes of it: changed in place, replaced, removed."""
    engine.images.lock([registry.name], path=path)
    old = Path(path).read_text(encoding="ascii")
    os.utime(path, (1, 1))
    with locked_engine(engine, path, locked=True) as other:
        kept = other.images.find(registry.name)
        assert other.images.find(registry.name) == kept
        digest = str(kept.digest)
        for _ in range(3):
            Path(path).write_text(old.replace(digest, digest[:-4] + "0000"), encoding="ascii")
            with pytest.raises(cl.ImageNotFound, match="0000, which is not in the store"):
                other.images.get(registry.name)
            Path(path).write_text(old, encoding="ascii")
            assert other.images.get(registry.name) == kept
        os.unlink(path)
        with pytest.raises(cl.InvalidInputError, match="does not exist"):
            other.images.find(registry.name)


BAD_FILES = {
    "missing": (None, "does not exist; make it with: containerlib lock -f"),
    "empty": ("", "mend it, or make it anew"),
    "no JSON": ("{", "mend it"),
    "version": ('{"version": 2, "images": {}}', "version is 2, and only 1 is known"),
    "version true": ('{"version": true, "images": {}}', "version is True"),
    "more": ('{"version": 1, "images": {}, "x": 1}', "'x'"),
    "less": ('{"version": 1}', "'images'"),
    "twice": ('{"version": 1, "images": {}, "images": {}}', "images"),
    "short name": ('{"version": 1, "images": {"a": {}}}', "such as 'docker.io/library/a:latest'"),
    "digest in the name": (
        json.dumps({"version": 1, "images": {f"h.example/a@sha256:{'0' * 64}": {}}}),
        "complete reference with a tag",
    ),
    "no digest": (
        '{"version": 1, "images": {"h.example/a:1": {"digest": "s", "platforms": {"linux/amd64": "x"}}}}',
        "not a sha256",
    ),
    "no platforms": (
        '{"version": 1, "images": {"h.example/a:1": {"digest": "sha256:1", "platforms": {}}}}',
        "no platforms",
    ),
    "odd platform": (
        '{"version": 1, "images": {"h.example/a:1": {"digest": "", "platforms": {"linux/x86_64": "x"}}}}',
        "usual name",
    ),
    "not an object": ('{"version": 1, "images": {"h.example/a:1": 7}}', "not an object"),
    "list": ('{"version": 1, "images": []}', "'images' is not an object"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files(engine: Engine, path: str, kind: str) -> None:
    """A file that is not exactly a lock file is refused before anybody is asked, and is left alone."""
    text, match = BAD_FILES[kind]
    if text is not None:
        Path(path).write_text(text, encoding="ascii")
    with attempts_at_the_network() as attempts, locked_engine(engine, path) as other:
        for verb in (other.images.find, other.images.get, other.images.pull):
            with pytest.raises(cl.InvalidInputError, match=match) as caught:
                verb("h.example/a:1")
            assert path in str(caught.value)
        if text is not None:
            with pytest.raises(cl.InvalidInputError, match=match):
                other.images.lock(["h.example/a:1"])
            assert Path(path).read_text(encoding="ascii") == text
    assert attempts == []


def test_bad_requests_to_lock(engine: Engine, registry: FaultRegistry, path: str, tmp_path: Path) -> None:
    """A digest needs no lock, a text is no list, nothing is locked by half, and the directory must exist."""
    with pytest.raises(cl.InvalidReference, match="needs no lock"):
        engine.images.lock([f"{registry.host}/x@sha256:{'0' * 64}"], path=path)
    with pytest.raises(cl.InvalidOption, match="give a list"):
        engine.images.lock(registry.name, path=path)
    with pytest.raises(cl.RemoteNotFound, match="tags there are: 1"):
        engine.images.lock([registry.name, f"{registry.host}/x:2"], path=path)
    with pytest.raises(cl.InvalidInputError, match="directory"):
        engine.images.lock([registry.name], path=str(tmp_path / "no" / "images.lock"))
    registry.add_manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}, INDEX, "none")
    with pytest.raises(cl.InvalidManifest, match="not a container image"):
        engine.images.lock([f"{registry.host}/x:none"], path=path)
    assert os.listdir(tmp_path) == []


def test_two_who_lock_at_once(engine: Engine, registry: FaultRegistry, path: str) -> None:
    """Of several that write one file at the same time, none loses what another one wrote."""
    names = [str(number) for number in range(8)]
    for name in names:
        registry.add_image([archive(file(b"x", name.encode()))], name)
    threads = [
        threading.Thread(
            target=engine.images.lock, args=([f"{registry.host}/x:{name}"],), kwargs={"path": path}
        )
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(Path(path).read_bytes())["images"]) == len(names)


def test_symbolic_link_stays(engine: Engine, registry: FaultRegistry, path: str, tmp_path: Path) -> None:
    """A lock file that is a symbolic link is written where the link leads."""
    real = tmp_path / "real.lock"
    real.write_text('{"version": 1, "images": {}}', encoding="ascii")
    os.symlink(real, path)
    engine.images.lock([registry.name], path=path)
    assert os.path.islink(path)
    assert registry.name in real.read_text(encoding="ascii")


def test_settings_of_the_environment() -> None:
    """Engines without settings of their own go by the environment; nonsense in it is an error."""
    environ = {"CONTAINERLIB_OFFLINE": "1", "CONTAINERLIB_LOCK_FILE": "a.lock", "CONTAINERLIB_LOCKED": "true"}
    made = cl.EngineConfig.from_environment(environ)
    assert made == cl.EngineConfig(offline=True, lock_file="a.lock", locked=True)
    assert cl.EngineConfig.from_environment({"CONTAINERLIB_OFFLINE": "0"}) == cl.EngineConfig()
    with pytest.raises(cl.InvalidOption, match="CONTAINERLIB_OFFLINE='maybe'"):
        cl.EngineConfig.from_environment({"CONTAINERLIB_OFFLINE": "maybe"})


def test_command_line(registry: FaultRegistry, path: str) -> None:
    """`containerlib lock` writes the file, and --lock-file, --locked and --offline hold for every command."""
    index(registry, b"1", "many")
    many = f"{registry.host}/x:many"
    with temporary_directory("l") as base, tracked_root(base / "n"), new_engine(base / "r", base / "n"):
        environment = {
            **os.environ,
            "CONTAINERLIB_ROOT": str(base / "r"),
            "CONTAINERLIB_RUN_ROOT": str(base / "n"),
        }

        def run(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "containerlib", *args],
                env={**environment, **more},
                capture_output=True,
                text=True,
                check=False,
                cwd=os.path.dirname(path),
            )

        done = run("lock", "--platform", "linux/arm64", "--platform", "amd64", many)
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr
        assert f"{many} linux/arm64 sha256:" in done.stdout
        done = run("--lock-file", "images.lock", "--locked", "pull", "-q", registry.name)
        assert done.returncode == 125
        assert "is not in lock file" in done.stderr
        assert run("--lock-file", "images.lock", "--locked", "pull", "-q", many).returncode == 0
        index(registry, b"2", "many")
        before = len(registry.seen)
        done = run("--offline", "--lock-file", "images.lock", "pull", many)
        assert done.returncode == 125
        assert "offline" in done.stderr
        assert run("pull", many, CONTAINERLIB_OFFLINE="1").returncode == 125
        assert len(registry.seen) == before
        assert run("lock", "-f", "other.lock", registry.name, CONTAINERLIB_LOCK_FILE="none").returncode == 0
        assert Path(path).with_name("other.lock").exists()


def test_short_name_is_locked_as_what_it_means(
    engine: Engine, registry: FaultRegistry, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short name that registries.conf explains is locked by its full name, and found by the short one."""
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[aliases]\n"tool" = "{registry.host}/x"\n', encoding="ascii")
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    (locked,) = engine.images.lock(["tool:1"], path=path)
    assert locked.reference == registry.name
    registry.add_image([archive(file(b"new", b"new"))], "1")
    with locked_engine(engine, path, locked=True) as other:
        assert other.images.find("tool:1").digest == locked.digest
        assert other.images.get("tool:1").references == (registry.name,)
        with pytest.raises(cl.NotLocked, match="'tool:2' is not in lock file"):
            other.images.find("tool:2")


def test_index_of_a_real_registry(
    engine: Engine, path: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What skopeo has pushed to Debian's registry is locked, and is what it was after the tag has moved."""
    need(request.config, "peers", ("docker-registry", "skopeo"))
    with temporary_directory("g") as directory, docker_registry(directory) as running:
        name = f"{running.host}/team/many:1"
        layout = OciLayout(tmp_path / "layout")

        def publish(content: bytes) -> list[dict[str, object]]:
            images = [
                layout.add_image(
                    [archive(file(b"x", content))], architecture=each, config={"Env": [f"A={each}"]}
                )
                for each in ("arm64", "amd64")
            ]
            skopeo_copy(layout.name(layout.add_index(images), "m"), f"docker://{name}", "--all")
            return images

        arm, amd = publish(b"old")
        (locked,) = engine.images.lock([name], path=path)
        assert dict(locked.platforms) == {"linux/amd64": amd["digest"], "linux/arm64": arm["digest"]}
        publish(b"new")
        with locked_engine(engine, path, locked=True) as other:
            for platform, wanted in (("linux/arm64", arm), ("linux/amd64", amd)):
                image = other.images.pull(name, platform=platform)
                assert (image.digest, image.record.manifest.digest) == (locked.digest, wanted["digest"])
    with locked_engine(engine, path, locked=True, offline=True) as offline:
        assert offline.images.find(name).record.manifest.digest == amd["digest"]
