from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from containerlib.errors import InvalidInputError, InvalidReference, RegistryBlocked
from containerlib.oci.reference import Reference
from containerlib.registry.config_file import MAX_CONFIG_BYTES
from containerlib.registry.mirrors import RegistriesConfig
from containerlib.registry.registries_conf import find_files, read_files
from containerlib.registry.source import Source

if TYPE_CHECKING:
    from pathlib import Path

MIRROR = "[[registry]]\nlocation = 'r.test'\n[[registry.mirror]]\nlocation = 'm.test'\n"
DIGEST = "sha256:" + "a" * 64
MANUAL = """
unqualified-search-registries = ["example.com"]

[[registry]]
prefix = "example.com/foo"
insecure = false
blocked = false
location = "internal-registry-for-example.com/bar"

[[registry.mirror]]
location = "example-mirror-0.local/mirror-for-foo"

[[registry.mirror]]
location = "example-mirror-1.local/mirrors/foo"
insecure = true

[[registry]]
location = "registry.com"

[[registry.mirror]]
location = "mirror.registry.com"
"""


class Configuration:
    """Writes files and reads them as the configuration."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def load(self, *texts: str) -> RegistriesConfig:
        """Return the configuration that these files make, in their order."""
        paths = []
        for number, text in enumerate(texts):
            path = self.directory / f"{number}.conf"
            path.write_text(text)
            paths.append(str(path))
        return RegistriesConfig.load(paths=paths)

    def pull(self, text: str, name: str) -> list[str]:
        """Return the names of the places where an image is pulled from."""
        return [source.name for source in self.load(text).sources(Reference.parse(name))]


@pytest.fixture
def conf(tmp_path: Path) -> Configuration:
    """Give a place for configuration files."""
    return Configuration(tmp_path)


def test_without_configuration_a_name_means_itself() -> None:
    """Nothing is configured: images are where their names say, and short names are Docker Hub's."""
    config = RegistriesConfig()
    assert config.sources(Reference.parse("alpine")) == [Source("registry-1.docker.io", "library/alpine")]
    assert config.push_source(Reference.parse("r.test:5000/a/b")) == Source("r.test:5000", "a/b")
    assert config.candidates("alpine") == ["docker.io/library/alpine"]
    assert config.candidates("a/b:1") == ["docker.io/a/b:1"]
    assert config.credential_helpers == ()


def test_example_of_the_manual(conf: Configuration) -> None:
    """The example of the manual page is resolved as the manual page says."""
    assert conf.pull(MANUAL, "example.com/foo/image:latest") == [
        "example-mirror-0.local/mirror-for-foo/image",
        "example-mirror-1.local/mirrors/foo/image",
        "internal-registry-for-example.com/bar/image",
    ]
    assert conf.pull(MANUAL, "registry.com/image") == ["mirror.registry.com/image", "registry.com/image"]
    assert conf.pull(MANUAL, "example.com/other") == ["example.com/other"]
    sources = conf.load(MANUAL).sources(Reference.parse("example.com/foo/image"))
    assert [source.is_mirror for source in sources] == [True, True, False]
    assert [source.verify_tls for source in sources] == [True, False, True]
    assert [source.allows_http for source in sources] == [False, True, False]
    assert {source.scheme for source in sources} == {"https"}


def test_longest_prefix_wins(conf: Configuration) -> None:
    """Of several prefixes the longest counts, and a prefix ends where a part of the name ends."""
    text = "".join(
        f'[[registry]]\nprefix = "{prefix}"\nlocation = "{location}"\n'
        for prefix, location in (
            ("r.test", "host.test"),
            ("r.test/a/b:1", "tag.test/x:1"),
            ("r.test/a", "ns.test/n"),
            ("r.test/a/b", "repo.test/r"),
            ("r.test:5000", "port.test"),
        )
    )
    assert conf.pull(text, "r.test/a/b:1") == ["tag.test/x"]
    assert conf.pull(text, "r.test/a/b:12") == ["repo.test/r"]
    assert conf.pull(text, f"r.test/a/b@{DIGEST}") == ["repo.test/r"]
    assert conf.pull(text, "r.test/a/bc") == ["ns.test/n/bc"]
    assert conf.pull(text, "r.test/ab") == ["host.test/ab"]
    assert conf.pull(text, "R.Test/ab") == ["host.test/ab"]
    assert conf.pull(text, "r.test:5000/ab") == ["port.test/ab"]
    assert conf.pull(text, "r.test:5001/ab") == ["r.test:5001/ab"]
    assert conf.pull(text, "xr.test/ab") == ["xr.test/ab"]


def test_wildcards_match_subdomains(conf: Configuration) -> None:
    """A wildcard stands for any number of subdomains but not for none, and loses to an exact host."""
    text = """
    [[registry]]
    prefix = "*.example.com"
    insecure = true
    [[registry]]
    prefix = "*.sub.example.com"
    location = "all.test/mirror"
    [[registry]]
    location = "one.sub.example.com"
    """
    config = conf.load(text)
    for host in ("a.example.com", "a.b.example.com", "a.example.com:5000"):
        [source] = config.sources(Reference.parse(f"{host}/x"))
        assert (source.host, source.verify_tls) == (host, False)
    for host in ("example.com", "aexample.com", "a.example.com.evil.test"):
        [source] = config.sources(Reference.parse(f"{host}/a.example.com"))
        assert (source.host, source.verify_tls) == (host, True)
    assert conf.pull(text, "x.sub.example.com/a/b") == ["all.test/mirror/a/b"]
    assert conf.pull(text, "one.sub.example.com/a") == ["one.sub.example.com/a"]


def test_hub_is_matched_by_its_full_names(conf: Configuration) -> None:
    """Docker Hub is matched as docker.io with ``library/``, and reached at its own host if not replaced."""
    text = """
    [[registry]]
    location = "docker.io"
    [[registry.mirror]]
    location = "hub.test:5000/proxy"
    [[registry]]
    prefix = "docker.io/library/busybox"
    location = "docker.io/me/busybox"
    """
    assert conf.pull(text, "alpine") == [
        "hub.test:5000/proxy/library/alpine",
        "registry-1.docker.io/library/alpine",
    ]
    assert conf.pull(text, "index.docker.io/a/b") == [
        "hub.test:5000/proxy/a/b",
        "registry-1.docker.io/a/b",
    ]
    assert conf.pull(text, "busybox") == ["registry-1.docker.io/me/busybox"]


@pytest.mark.parametrize(
    ("registry", "mirror", "by_tag", "by_digest"),
    [
        ("", "", True, True),
        ("", 'pull-from-mirror = "all"', True, True),
        ("", 'pull-from-mirror = ""', True, True),
        ("", 'pull-from-mirror = "digest-only"', False, True),
        ("", 'pull-from-mirror = "tag-only"', True, False),
        ("mirror-by-digest-only = true", "", False, True),
        ("mirror-by-digest-only = false", 'pull-from-mirror = "tag-only"', True, False),
    ],
)
def test_mirrors_by_tag_and_digest(
    conf: Configuration, registry: str, mirror: str, *, by_tag: bool, by_digest: bool
) -> None:
    """A mirror is used for tags, digests or both, as it says; with both in the name the digest counts."""
    text = (
        f'[[registry]]\nlocation = "r.test"\n{registry}\n[[registry.mirror]]\nlocation = "m.test"\n{mirror}\n'
    )
    assert (conf.pull(text, "r.test/a:1")[0] == "m.test/a") is by_tag
    assert (conf.pull(text, f"r.test/a@{DIGEST}")[0] == "m.test/a") is by_digest
    assert (conf.pull(text, f"r.test/a:1@{DIGEST}")[0] == "m.test/a") is by_digest
    assert conf.pull(text, "r.test/a:1")[-1] == "r.test/a"


def test_blocked_images_are_refused(conf: Configuration) -> None:
    """What is blocked can neither be pulled nor pushed; a longer prefix may allow a part again."""
    text = """
    [[registry]]
    location = "r.test"
    blocked = true
    [[registry]]
    location = "r.test/good"
    [[registry]]
    prefix = "*.bad.test"
    blocked = true
    """
    config = conf.load(text)
    for name in ("r.test/a", "x.bad.test:99/a"):
        with pytest.raises(RegistryBlocked, match="blocks what begins with"):
            config.sources(Reference.parse(name))
        with pytest.raises(RegistryBlocked, match="blocks what begins with"):
            config.push_source(Reference.parse(name))
    assert config.push_source(Reference.parse("r.test/good/a")).name == "r.test/good/a"


def test_pushes_go_where_the_name_says(conf: Configuration) -> None:
    """A push uses neither mirrors nor another location, but the host may be insecure."""
    text = """
    [[registry]]
    prefix = "r.test"
    location = "other.test/x"
    insecure = true
    [[registry.mirror]]
    location = "m.test"
    """
    source = conf.load(text).push_source(Reference.parse("r.test/a"))
    assert source == Source("r.test", "a", verify_tls=False, allows_http=True)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "[::1]"]
)
def test_loopback_is_insecure(host: str) -> None:
    """This host itself may do without TLS, as it may for Docker; https is still tried first."""
    [source] = RegistriesConfig().sources(Reference.parse(f"{host}/a"))
    assert source == Source(host, "a", scheme="https", verify_tls=False, allows_http=True)


@pytest.mark.parametrize(
    "host", ["128.0.0.1", "127.0.0.1.evil.test", "localhost.evil.test", "[::2]", "10.0.0.1:5000"]
)
def test_other_hosts_are_not_loopback(host: str) -> None:
    """Nothing else is taken for this host."""
    [source] = RegistriesConfig().sources(Reference.parse(f"{host}/a"))
    assert source.verify_tls
    assert not source.allows_http


def test_loopback_can_be_made_secure(conf: Configuration) -> None:
    """``insecure = false`` that stands in the file holds for this host too."""
    text = '[[registry]]\nlocation = "localhost:5000"\ninsecure = false\n'
    [source] = conf.load(text).sources(Reference.parse("localhost:5000/a"))
    assert source.verify_tls
    assert not source.allows_http


def test_callers_name_insecure_hosts(conf: Configuration) -> None:
    """Hosts that the caller names are insecure wherever they are reached, and only with their port."""
    text = '[[registry]]\nlocation = "r.test"\ninsecure = false\n[[registry.mirror]]\nlocation = "m.test:1"\n'
    before = conf.load(text)
    config = before.with_insecure(["R.test"]).with_insecure(["m.test:1", "docker.io"])
    assert [source.verify_tls for source in config.sources(Reference.parse("r.test/a"))] == [False, False]
    assert [source.verify_tls for source in config.sources(Reference.parse("r.test:2/a"))] == [True]
    assert not config.push_source(Reference.parse("alpine")).verify_tls
    assert [source.verify_tls for source in before.sources(Reference.parse("r.test/a"))] == [True, True]


@pytest.mark.parametrize("host", ["", "10.0.0.0/8", "https://r.test", "r.test:port", "*.test"])
def test_insecure_hosts_are_checked(host: str) -> None:
    """What is no host is refused, rather than never matched."""
    with pytest.raises(InvalidInputError, match="not of the form host"):
        RegistriesConfig().with_insecure([host])


def test_short_names_are_searched(conf: Configuration) -> None:
    """A short name is tried in each search registry, with its tag or digest; a full name is not."""
    config = conf.load('unqualified-search-registries = ["r.test:5000", "docker.io", "index.docker.io"]')
    assert config.candidates("alpine:3") == ["r.test:5000/alpine:3", "docker.io/library/alpine:3"]
    assert config.candidates(f"a/b@{DIGEST}") == [f"r.test:5000/a/b@{DIGEST}", f"docker.io/a/b@{DIGEST}"]
    for name in ("localhost/a", "q.test/a:1", "h:5/a"):
        assert config.candidates(name) == [name]
    assert config.candidates("docker.io/alpine") == ["docker.io/library/alpine"]


@pytest.mark.parametrize("mode", ["", "permissive", "disabled"])
def test_ambiguity_is_permitted(conf: Configuration, mode: str) -> None:
    """Where no person must choose, all candidates are given in order."""
    config = conf.load(f'unqualified-search-registries = ["a.test", "b.test"]\nshort-name-mode = "{mode}"')
    assert config.candidates("x") == ["a.test/x", "b.test/x"]


def test_ambiguity_is_refused(conf: Configuration) -> None:
    """In enforcing mode an ambiguous name is refused with its candidates; one candidate is not ambiguous."""
    mode = 'short-name-mode = "enforcing"\n'
    config = conf.load(
        f'{mode}unqualified-search-registries = ["a.test", "b.test"]\n[aliases]\ny = "c.test/y"'
    )
    with pytest.raises(InvalidReference, match=r"a\.test/x:1 or b\.test/x:1"):
        config.candidates("x:1")
    assert config.candidates("y") == ["c.test/y"]
    assert config.candidates("d.test/x") == ["d.test/x"]
    single = conf.load(f'{mode}unqualified-search-registries = ["a.test"]')
    assert single.candidates("x") == ["a.test/x"]


def test_short_names_can_be_forbidden(conf: Configuration) -> None:
    """An empty list of search registries allows aliases and full names only."""
    config = conf.load('unqualified-search-registries = []\n[aliases]\ny = "c.test/y"')
    with pytest.raises(InvalidReference, match="write the full name"):
        config.candidates("x")
    assert config.candidates("y") == ["c.test/y"]


def test_aliases_win(conf: Configuration) -> None:
    """An alias stands for its full name with whatever tag or digest; an empty one takes it back."""
    aliases = '[aliases]\nimage = "r.test/ns/image"\n"a/b" = "r.test/ab"\nhub = "docker.io/hub"\n'
    config = conf.load(aliases)
    assert config.candidates("image") == ["r.test/ns/image"]
    assert config.candidates("image:1") == ["r.test/ns/image:1"]
    assert config.candidates(f"image:1@{DIGEST}") == [f"r.test/ns/image:1@{DIGEST}"]
    assert config.candidates("a/b") == ["r.test/ab"]
    assert config.candidates("hub") == ["docker.io/library/hub"]
    assert config.candidates("image2") == ["docker.io/library/image2"]
    assert conf.load(aliases, '[aliases]\nimage = ""\n').candidates("image") == ["docker.io/library/image"]


def test_candidates_are_references() -> None:
    """What is no reference at all is refused."""
    with pytest.raises(InvalidReference):
        RegistriesConfig().candidates("A B")


def test_later_files_win(conf: Configuration) -> None:
    """Files are merged: lists are replaced, tables by prefix and aliases by name."""
    first = """
    unqualified-search-registries = ["a.test"]
    short-name-mode = "enforcing"
    credential-helpers = ["one"]
    [[registry]]
    prefix = "p.test"
    location = "first.test"
    [[registry.mirror]]
    location = "m.test"
    [[registry]]
    prefix = "q.test"
    location = "first.test"
    [aliases]
    x = "first.test/x"
    y = "first.test/y"
    """
    second = """
    unqualified-search-registries = ["b.test", "c.test"]
    short-name-mode = "permissive"
    credential-helpers = ["containers-auth.json", "two"]
    [[registry]]
    prefix = "p.test"
    location = "second.test"
    [aliases]
    y = "second.test/y"
    """
    config = conf.load(first, second, "")
    assert config.candidates("z") == ["b.test/z", "c.test/z"]
    assert config.candidates("x") == ["first.test/x"]
    assert config.candidates("y") == ["second.test/y"]
    assert config.credential_helpers == ("containers-auth.json", "two")
    assert [source.name for source in config.sources(Reference.parse("p.test/a"))] == ["second.test/a"]
    assert [source.name for source in config.sources(Reference.parse("q.test/a"))] == ["first.test/a"]


def _touch(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_files_are_found_in_order(tmp_path: Path) -> None:
    """System file, system directory, user directory, in lexical order, and nothing that is not *.conf."""
    system, home = tmp_path / "system", tmp_path / "home"
    user = home / ".config/containers"
    _touch(
        system,
        "registries.conf",
        "registries.conf.d/b.conf",
        "registries.conf.d/a.conf",
        "registries.conf.d/c.txt",
    )
    _touch(user, "registries.conf.d/0.conf")
    (user / "registries.conf.d/dir.conf").mkdir()

    def find(**environ: str) -> list[str]:
        found = find_files(environ, str(home), system=str(system))
        return [os.path.relpath(path, tmp_path) for path in found]

    drop_ins = ["system/registries.conf.d/a.conf", "system/registries.conf.d/b.conf"]
    user_drop_in = "home/.config/containers/registries.conf.d/0.conf"
    assert find() == ["system/registries.conf", *drop_ins, user_drop_in]
    _touch(tmp_path, "explicit.conf")
    explicit = str(tmp_path / "explicit.conf")
    assert find(CONTAINERS_REGISTRIES_CONF=explicit) == ["explicit.conf", *drop_ins, user_drop_in]
    _touch(user, "registries.conf")
    assert find() == ["home/.config/containers/registries.conf", user_drop_in]
    assert find(CONTAINERS_REGISTRIES_CONF=explicit)[0] == "explicit.conf"


def test_missing_files_say_nothing(tmp_path: Path) -> None:
    """No file anywhere is fine, unless one was named."""
    found = find_files({}, str(tmp_path), system=str(tmp_path / "none"))
    assert RegistriesConfig(read_files(found)) == RegistriesConfig()
    missing = str(tmp_path / "missing")
    with pytest.raises(InvalidInputError, match=r"CONTAINERS_REGISTRIES_CONF names .*missing"):
        find_files({"CONTAINERS_REGISTRIES_CONF": missing}, str(tmp_path))
    with pytest.raises(InvalidInputError, match="missing: no such file"):
        RegistriesConfig.load(paths=[missing])


def test_configuration_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the environment of this process says where the files are."""
    path = tmp_path / "x.conf"
    path.write_text('[[registry]]\nlocation = "r.test"\nblocked = true\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RegistryBlocked):
        RegistriesConfig.load().sources(Reference.parse("r.test/a"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[registries.search]\nregistries = ['a.test']", "version 1 of this format"),
        ("a = ", "not TOML"),
        ("\xff", "not TOML"),
        ("a = " + "[" * 50_000, "nested too deeply"),
        ("registry = 1", "'registry': not a list of tables"),
        ("registry = [1]", "'registry': not a list of tables"),
        ("[[registry]]\ninsecure = true", "'registry[0].location': missing"),
        ("[[registry]]\nlocation = 1", "'registry[0].location': not a text"),
        ("[[registry]]\nprefix = 'r.test'", "'registry[0].location': missing"),
        ("[[registry]]\nlocation = 'https://r.test'", "has a scheme"),
        ("[[registry]]\nlocation = 'mirror/foo'", "does not begin with a host"),
        ("[[registry]]\nlocation = 'a b.test'", "does not begin with a host"),
        ("[[registry]]\nlocation = '*.test'", "only 'prefix' may have one"),
        ("[[registry]]\nprefix = '*.test/foo'", "not of the form *.example.com"),
        ("[[registry]]\nprefix = '*.test:5000'", "not of the form *.example.com"),
        ("[[registry]]\nprefix = 'a.*.test'\nlocation = 'r.test'", "does not begin with a host"),
        (
            "[[registry]]\nlocation = 'r.test'\nblocked = 'yes'",
            "'registry[0].blocked': neither true nor false",
        ),
        ("[[registry]]\nlocation = 'r.test'\ninsecure = 1", "neither true nor false"),
        (
            "[[registry]]\nlocation = 'r.test'\n[[registry.mirror]]\n",
            "'registry[0].mirror[0].location': missing",
        ),
        (
            "[[registry]]\nlocation = 'r.test'\n[[registry.mirror]]\nlocation = '*.m.test'",
            "has a wildcard",
        ),
        (
            f"{MIRROR}pull-from-mirror = 'no'",
            "'no' is not one of all, digest-only, tag-only",
        ),
        (
            MIRROR.replace("[[registry.", "mirror-by-digest-only = true\n[[registry.")
            + "pull-from-mirror = 'all'",
            "contradicts 'mirror-by-digest-only'",
        ),
        (
            "[[registry]]\nlocation = 'r.test'\n[[registry]]\nlocation = 'r.test'\nblocked = true",
            "two different [[registry]] tables for 'r.test'",
        ),
        ("unqualified-search-registries = 'a.test'", "not a list of texts"),
        ("unqualified-search-registries = ['a.test/ns']", "not of the form host"),
        ("short-name-mode = 'ask'", "'ask' is not one of enforcing, permissive, disabled"),
        ("credential-helpers = [1]", "not a list of texts"),
        ("aliases = 1", "'aliases': not a table"),
        ("[aliases]\nx = 1", "'x' is not a text"),
        ("[aliases]\nx = 'y'", "not a full name"),
        ("[aliases]\nx = 'r.test/y:1'", "not a full name without tag"),
        ("[aliases]\n'x:1' = 'r.test/y'", "not a short name without tag"),
        ("[aliases]\n'r.test/x' = 'r.test/y'", "not a short name"),
        ("[aliases]\n'X' = 'r.test/y'", "must be lower case"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, text: str, reason: str) -> None:
    """A file that breaks its form is refused with its name and the key."""
    path = tmp_path / "bad.conf"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInputError) as caught:
        RegistriesConfig.load(paths=[str(path)])
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)


def test_unknown_keys_are_left_alone(conf: Configuration) -> None:
    """Keys of newer versions are not an error."""
    text = "new = 1\n" + MIRROR.replace("[[registry.", "new = 1\n[[registry.") + "new = 1\n"
    assert conf.pull(text, "r.test/a") == ["m.test/a", "r.test/a"]
    assert conf.pull('[[registry]]\nlocation = "r.test/x/"\n' * 2, "r.test/x/a") == ["r.test/x/a"]


def test_large_files_are_refused(tmp_path: Path) -> None:
    """A file over the limit is not parsed."""
    path = tmp_path / "big.conf"
    with path.open("wb") as file:
        file.truncate(MAX_CONFIG_BYTES + 1)
    with pytest.raises(InvalidInputError, match="over the limit"):
        RegistriesConfig.load(paths=[str(path)])


def test_locations_must_make_references(conf: Configuration) -> None:
    """A location that gives no name, or another tag, is an error of the configuration."""
    text = '[[registry]]\nprefix = "r.test/a"\nlocation = "l.test/B"\n'
    with pytest.raises(InvalidInputError, match=r"location 'l\.test/B' for r\.test/a/x:latest") as caught:
        conf.pull(text, "r.test/a/x")
    assert not isinstance(caught.value, InvalidReference)
    text = '[[registry]]\nprefix = "r.test/a:1"\nlocation = "l.test/a:2"\n'
    with pytest.raises(InvalidInputError, match="would change the tag"):
        conf.pull(text, "r.test/a:1")
