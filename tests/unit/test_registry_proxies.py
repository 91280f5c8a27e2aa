from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from containerlib.errors import InvalidInputError
from containerlib.registry.proxies import Proxies

if TYPE_CHECKING:
    from collections.abc import Mapping

PROXY = "http://proxy.test:3128"


@pytest.mark.parametrize(
    ("environ", "for_https", "for_http"),
    [
        ({}, None, None),
        ({"HTTPS_PROXY": PROXY}, PROXY, None),
        ({"https_proxy": PROXY}, PROXY, None),
        ({"HTTP_PROXY": PROXY}, None, PROXY),
        ({"http_proxy": PROXY}, None, PROXY),
        ({"ALL_PROXY": PROXY}, PROXY, PROXY),
        ({"all_proxy": PROXY, "https_proxy": "http://b.test"}, "http://b.test", PROXY),
        ({"HTTPS_PROXY": PROXY, "https_proxy": "http://b.test"}, PROXY, None),
        ({"HTTPS_PROXY": " ", "https_proxy": PROXY}, PROXY, None),
        ({"HTTPS_PROXY": "proxy.test:3128"}, PROXY, None),
        ({"HTTPS_PROXY": "socks5h://u:p@s.test:1080"}, "socks5h://u:p@s.test:1080", None),
        ({"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None, None),
        ({"http_proxy": PROXY, "REQUEST_METHOD": "GET"}, None, PROXY),
    ],
)
def test_variables_choose_the_proxy(
    environ: Mapping[str, str], for_https: str | None, for_http: str | None
) -> None:
    """Each scheme has its variable in two spellings, upper case first, and one variable is for the rest."""
    proxies = Proxies.load(environ)
    assert proxies.proxy_for("https://r.test/v2/") == for_https
    assert proxies.proxy_for("http://r.test/v2/") == for_http


@pytest.mark.parametrize(
    ("no_proxy", "direct", "proxied"),
    [
        ("*", ["r.test", "10.0.0.1"], []),
        ("r.test", ["r.test", "R.Test", "sub.r.test", "r.test:5000", "r.test."], ["xr.test", "r.test.evil"]),
        (".r.test", ["sub.r.test", "a.b.r.test"], ["r.test"]),
        ("*.r.test", ["sub.r.test"], ["r.test"]),
        ("r.test:5000", ["r.test:5000", "sub.r.test:5000"], ["r.test", "r.test:5001"]),
        ("r.test:443", ["r.test", "r.test:443"], ["r.test:444"]),
        ("10.0.0.0/8", ["10.1.2.3", "10.1.2.3:5000"], ["11.0.0.1", "ten.test"]),
        ("10.1.2.3/8", ["10.9.9.9"], []),
        ("192.0.2.1", ["192.0.2.1"], ["192.0.2.10"]),
        ("192.0.2.1:5000", ["192.0.2.1:5000"], ["192.0.2.1"]),
        ("fd00::/8", ["[fd00::1]", "[fd00::1]:5000"], ["[fe80::1]"]),
        ("[2001:db8::1]:5000", ["[2001:db8::1]:5000"], ["[2001:db8::1]"]),
        ("2001:db8::1", ["[2001:db8::1]:5000"], ["[2001:db8::2]"]),
        (" a.test , b.test c.test,", ["a.test", "b.test", "c.test"], ["d.test"]),
        ("10.0.0.0/99,:80,,.", [], ["10.0.0.1", "r.test:80", "r.test"]),
    ],
)
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_exceptions_go_direct(name: str, no_proxy: str, direct: list[str], proxied: list[str]) -> None:
    """Names, suffixes, networks and ports of NO_PROXY are reached directly, and nothing else is."""
    proxies = Proxies.load({"HTTPS_PROXY": PROXY, name: no_proxy})
    assert [host for host in direct if proxies.proxy_for(f"https://{host}/v2/")] == []
    assert [host for host in proxied if not proxies.proxy_for(f"https://{host}/v2/")] == []


@pytest.mark.parametrize(
    "url", ["http://localhost:5000/", "http://127.1.2.3/", "http://[::1]:80/", "http+unix://x/"]
)
def test_this_host_needs_no_proxy(url: str) -> None:
    """This host and sockets in the file system are never reached through a proxy."""
    assert Proxies.load({"ALL_PROXY": PROXY}).proxy_for(url) is None


@pytest.mark.parametrize(
    "value",
    [
        "ftp://u:s3cret@p.test",
        "file:///s3cret",
        "http://",
        "http://u:s3cret@",
        "http://u:s3cret@p.test:port",
        "http://u:s3cret@p.test:0",
        "http://u:s3cret@p.test\r\nX: y",
        "http://[s3cret",
    ],
)
def test_impossible_proxies_are_refused(value: str) -> None:
    """A proxy that cannot be used is an error that names the variable and tells no password."""
    proxies = Proxies.load({"https_proxy": value, "no_proxy": "direct.test"})
    assert proxies.proxy_for("https://direct.test/") is None
    with pytest.raises(InvalidInputError, match=r"^https_proxy: ") as caught:
        proxies.proxy_for("https://r.test/")
    assert "s3cret" not in str(caught.value)


def test_passwords_stay_out_of_representations() -> None:
    """The password of a proxy is not in the representation of what holds it."""
    assert "s3cret" not in repr(Proxies.load({"HTTPS_PROXY": "http://u:s3cret@p.test"}))


def test_real_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the environment of this process counts, as it was at that moment."""
    for name in ("HTTPS_PROXY", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", PROXY)
    proxies = Proxies.load()
    monkeypatch.delenv("https_proxy")
    assert proxies.proxy_for("https://r.test/") == PROXY
