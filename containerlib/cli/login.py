"""``containerlib login`` and ``logout``, in the words of Docker."""

from __future__ import annotations

import sys

import click

from containerlib.api.engine import Engine

__all__ = ["login", "logout"]

_HUB = "docker.io"
_MAX_PASSWORD_BYTES = 1 << 20
_INSECURE = "WARNING! Using --password via the CLI is insecure. Use --password-stdin."
_UNENCRYPTED = (
    "WARNING! Your {what} is stored unencrypted in {path!r}.\n"
    "Configure a credential helper to remove this warning."
)


def _read_password(username: str | None, password: str | None, *, from_stdin: bool) -> str:
    """Return the password from where the options say that it is."""
    if password is not None and from_stdin:
        raise click.UsageError("--password and --password-stdin are mutually exclusive")
    if from_stdin:
        if not username:
            raise click.UsageError("Must provide --username with --password-stdin")
        data = sys.stdin.buffer.read(_MAX_PASSWORD_BYTES + 1)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise click.UsageError("The password on standard input is not UTF-8") from None
        if len(data) > _MAX_PASSWORD_BYTES:
            raise click.UsageError(f"The password is over {_MAX_PASSWORD_BYTES} bytes")
        return text.removesuffix("\n").removesuffix("\r")
    if password is not None:
        click.echo(_INSECURE, err=True)
        return password
    return _ask("Password", is_hidden=True)


def _ask(what: str, *, is_hidden: bool = False) -> str:
    answer: str = click.prompt(what, hide_input=is_hidden, default="", show_default=False)
    return answer


def _login(*, host: str, username: str | None, password: str | None, password_stdin: bool) -> None:
    if not password_stdin and (username is None or password is None) and not sys.stdin.isatty():
        raise click.UsageError("Cannot perform an interactive login from a non TTY device")
    if username is None and not password_stdin:
        username = _ask("Username").strip()
    secret = _read_password(username, password, from_stdin=password_stdin)
    if not username or not secret:
        raise click.UsageError("User name and password must not be empty")
    with Engine() as engine:
        done = engine.registry(host).login(username, secret)
    if done.kept_in.startswith("/"):
        what = "identity token" if done.is_token else "password"
        click.echo(_UNENCRYPTED.format(what=what, path=done.kept_in), err=True)
    click.echo("Login Succeeded")


def _logout(*, host: str) -> None:
    with Engine() as engine:
        registry = engine.registry(host)
        was_known = registry.logout()
    if was_known:
        click.echo(f"Removing login credentials for {registry.host}")
    else:
        click.echo(f"Not logged in to {registry.host}")


def _host() -> click.Argument:
    return click.Argument(["host"], metavar="[HOST]", default=_HUB, required=False)


login = click.Command(
    "login",
    callback=_login,
    params=[
        click.Option(["-u", "--username"], metavar="NAME", help="Who; asked for if it is missing."),
        click.Option(["-p", "--password"], metavar="TEXT", help="Password; others can see it here."),
        click.Option(["--password-stdin"], is_flag=True, help="Read the password from standard input."),
        _host(),
    ],
    help=(
        "Log in to a registry, Docker Hub if none is named. The registry is asked first. The credential is "
        "kept where docker login keeps it: by the credential helper of the configuration, or in the file."
    ),
    short_help="Log in to a registry.",
)

logout = click.Command(
    "logout",
    callback=_logout,
    params=[_host()],
    help="Forget the credentials of a registry, Docker Hub if none is named, wherever they are kept.",
    short_help="Log out of a registry.",
)
