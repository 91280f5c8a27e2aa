"""Credential helpers: programs called ``docker-credential-<name>`` that keep secrets for others.

A helper is asked about one registry at a time, gets the server's name on its standard input and answers with
JSON. What it says when it fails stays unsaid here, since it may contain what it keeps.

Source: the protocol of docker-credential-helpers.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import time
from typing import IO, TYPE_CHECKING

from containerlib._util import strict_json
from containerlib.errors import AuthenticationFailed, InvalidInputError
from containerlib.registry.credential import TOKEN_USER, Credential

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CredentialHelper"]

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_MAX_OUTPUT_BYTES = 1 << 20
_MAX_INPUT_BYTES = 1 << 20
_TIMEOUT_S = 30.0
_CHUNK_BYTES = 64 << 10
_POLL_S = 0.05
_NOT_FOUND = b"credentials not found"

# Helpers find their key rings, agents and cloud identities through these, and need no other variable. Above
# all not the ones that hold credentials for us.
_VARIABLES = frozenset(
    {
        *("HOME", "PATH", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR"),
        *("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "GNOME_KEYRING_CONTROL"),
        *("GNUPGHOME", "GPG_TTY", "PASSWORD_STORE_DIR", "DOCKER_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
        *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    }
)
_PREFIXES = ("XDG_", "DBUS_", "LC_", "AWS_", "AZURE_", "CLOUDSDK_")


class CredentialHelper:
    """One helper program.

    Args:
        name: What stands after ``docker-credential-``.
        environ: Environment of the caller; the program is looked up in its ``PATH``.
        where: What names the helper, for messages.
        timeout_s: How long one call may take.
    """

    def __init__(
        self, name: str, environ: Mapping[str, str], *, where: str = "", timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._where = f"{where}: " if where else ""
        if _NAME.fullmatch(name) is None:
            raise InvalidInputError(
                f"{self._where}credential helper {name[:80]!r}: not made of letters, digits, '_' and '-'"
            )
        self.program = f"docker-credential-{name}"
        self._environ = environ
        self._timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"CredentialHelper({self.program!r})"

    def get(self, server: str) -> Credential | None:
        """Return the credential that the helper keeps for `server`, or None if it keeps none.

        Raises:
            AuthenticationFailed: The program is missing, failed, took too long or answered nonsense.
        """
        status, output = self._call("get", server, server.encode())
        if status != 0:
            if _NOT_FOUND in output.lower():
                return None
            raise self._failed("get", server, f"ended with exit code {status}")
        return self._parse(output, server)

    def store(self, server: str, credential: Credential) -> None:
        """Have the helper keep `credential` for `server`.

        Raises:
            InvalidInputError: It is of a kind that helpers cannot keep.
            AuthenticationFailed: As for `get`.
        """
        if credential.registry_token or (credential.identity_token and credential.secret):
            raise InvalidInputError(
                f"{self.program} cannot keep a registry token, nor a password and a token together"
            )
        if credential.identity_token:
            username, secret = TOKEN_USER, credential.identity_token
        else:
            username, secret = credential.username, credential.secret
        payload = json.dumps({"ServerURL": server, "Username": username, "Secret": secret}).encode()
        self._change("store", server, payload)

    def erase(self, server: str) -> None:
        """Have the helper forget what it keeps for `server`; nothing there is not an error."""
        self._change("erase", server, server.encode())

    def _change(self, verb: str, server: str, payload: bytes) -> None:
        status, output = self._call(verb, server, payload)
        if status != 0 and not (verb == "erase" and _NOT_FOUND in output.lower()):
            raise self._failed(verb, server, f"ended with exit code {status}")

    def _parse(self, output: bytes, server: str) -> Credential | None:
        try:
            answer = strict_json.loads_object(output, limit=_MAX_OUTPUT_BYTES)
        except InvalidInputError:
            # The reason could quote from the answer.
            raise self._failed("get", server, "did not answer with a JSON object") from None
        username, secret = answer.get("Username", ""), answer.get("Secret", "")
        if not isinstance(username, str) or not isinstance(secret, str):
            raise self._failed("get", server, "answered with a Username or Secret that is not a text")
        if not secret:
            return None
        try:
            if username == TOKEN_USER:
                return Credential(username, identity_token=secret)
            return Credential(username, secret)
        except InvalidInputError as error:
            raise self._failed("get", server, f"answered with an impossible {error}") from None

    def _call(self, verb: str, server: str, payload: bytes) -> tuple[int, bytes]:
        if len(payload) > _MAX_INPUT_BYTES:
            raise InvalidInputError(f"{self.program} {verb}: over {_MAX_INPUT_BYTES} bytes for it")
        path = self._find()
        try:
            process = subprocess.Popen(
                [path, verb],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: value for name, value in self._environ.items() if _is_passed(name)},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise self._failed(verb, server, f"cannot be executed: {error.strerror}") from None
        with process:
            try:
                output = self._exchange(process, verb, server, payload)
                return process.wait(), output
            except BaseException:
                # Not reaped yet, so the number of the group is still its own.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise

    def _find(self) -> str:
        # An empty or relative directory of PATH means the working directory, which anyone may have filled.
        for directory in self._environ.get("PATH", "").split(os.pathsep):
            path = os.path.join(directory, self.program)
            if os.path.isabs(directory) and os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        raise AuthenticationFailed(
            f"{self._where}credential helper {self.program} is not in an absolute directory of PATH; "
            "install it, or remove its name from the configuration"
        )

    def _exchange(self, process: subprocess.Popen[bytes], verb: str, server: str, payload: bytes) -> bytes:
        """Write all of `payload`, read until the program has ended or closed its output."""
        deadline = time.monotonic() + self._timeout_s
        too_late = f"did not end within {self._timeout_s:g} s, and was killed"
        exchange = _Exchange(process, payload)
        with exchange.selector:
            while not exchange.is_done:
                exchange.step()
                if len(exchange.output) > _MAX_OUTPUT_BYTES:
                    raise self._failed(verb, server, f"answered with more than {_MAX_OUTPUT_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise self._failed(
                        verb, server, f"did not end within {self._timeout_s:g} s, and was killed"
                    )
        try:
            process.wait(max(deadline - time.monotonic(), _POLL_S))
        except subprocess.TimeoutExpired:
            raise self._failed(verb, server, too_late) from None
        return bytes(exchange.output)

    def _failed(self, verb: str, server: str, what: str) -> AuthenticationFailed:
        return AuthenticationFailed(
            f"{self._where}credential helper {self.program} {verb} for {server!r} {what}; "
            f"to see why, give it that name on its standard input: {self.program} get"
        )


class _Exchange:
    """The two pipes of a running helper."""

    def __init__(self, process: subprocess.Popen[bytes], payload: bytes) -> None:
        self.selector = selectors.DefaultSelector()
        self.output = bytearray()
        self.is_done = False
        self._process = process
        self._rest = memoryview(payload)
        for stream, event in (
            (process.stdin, selectors.EVENT_WRITE),
            (process.stdout, selectors.EVENT_READ),
        ):
            if stream is not None:  # both are pipes
                os.set_blocking(stream.fileno(), False)
                self.selector.register(stream, event)

    def step(self) -> None:
        """Wait a moment for a pipe or for the end of the program, and move what can be moved."""
        # A background process may keep the output open after the end, so that is asked first: what the
        # program itself wrote is then in the pipe already.
        has_ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        ready = self.selector.select(0 if has_ended else _POLL_S)
        for key, _events in ready:
            if key.fileobj is self._process.stdin:
                self._write(self._process.stdin)
            elif self._process.stdout is not None:
                self._read(self._process.stdout)
        self.is_done |= has_ended and not ready

    def _write(self, stream: IO[bytes]) -> None:
        try:
            self._rest = self._rest[os.write(stream.fileno(), self._rest) :]
        except BrokenPipeError:
            self._rest = self._rest[:0]  # it did not want to know
        if not self._rest:
            self.selector.unregister(stream)
            stream.close()

    def _read(self, stream: IO[bytes]) -> None:
        data = os.read(stream.fileno(), _CHUNK_BYTES)
        self.output += data
        self.is_done = not data


def _is_passed(name: str) -> bool:
    return name in _VARIABLES or name.startswith(_PREFIXES)
