"""The options of ``containerlib run`` and ``create``, and what they mean to the library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import attrs
import click

from containerlib.cli import options as parsers
from containerlib.cli.ports import parse_publish
from containerlib.options import HealthCheck, LogFile, Resources, Security

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from containerlib.api.options import RunOptions
    from containerlib.errors import InvalidOption

__all__ = [
    "RUN_OPTIONS",
    "by_flag",
    "check_detached",
    "detached_options",
    "given",
    "limits_of",
    "run_options",
]


def parsing(parse: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Make click's callback of one of our parsers, whose reasons are told with the option's name."""

    def convert_one(ctx: click.Context, param: click.Parameter, text: str) -> object:
        try:
            return parse(text)
        except ValueError as error:
            option = max(param.opts, key=len)
            raise click.BadParameter(f"{text!r}: {error}", ctx=ctx, param_hint=f"'{option}'") from None

    def convert(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if isinstance(value, tuple):
            return [convert_one(ctx, param, each) for each in value]
        return None if value is None else convert_one(ctx, param, value)

    return convert


def _option(
    *names: str,
    help: str,  # noqa: A002 - click's name
    metavar: str,
    parse: Callable[[str], object] | None = None,
    multiple: bool = False,
) -> click.Option:
    callback = None if parse is None else parsing(parse)
    return click.Option(list(names), metavar=metavar, multiple=multiple, callback=callback, help=help)


def _flag(*names: str, help: str) -> click.Option:  # noqa: A002 - click's name
    return click.Option(list(names), is_flag=True, help=help)


# The last name of an option is that of the field of `RunOptions`, `Resources` or `Security` that it sets.
RUN_OPTIONS = [
    _flag("-i", "--interactive", help="Pass standard input on; without it, the command reads nothing."),
    _flag("-t", "--tty", help="Give the command a terminal."),
    _flag("-d", "--detach", help="Leave the container to itself, and print its id."),
    _flag("--rm", help="Remove the container at its end, which always happens without --detach."),
    _option(
        "--restart",
        parse=parsers.parse_restart,
        metavar="POLICY",
        help="With --detach: no, on-failure[:N], always or unless-stopped.",
    ),
    _option("--health-cmd", metavar="COMMAND", help="With --detach: ask by this whether it is healthy."),
    _option("--health-interval", parse=parsers.parse_duration, metavar="TIME", help="Time between checks."),
    _option("--health-timeout", parse=parsers.parse_duration, metavar="TIME", help="Time for a check."),
    _option("--health-retries", parse=parsers.parse_number, metavar="N", help="Failures to be unhealthy."),
    _option(
        "--health-start-period",
        parse=parsers.parse_duration,
        metavar="TIME",
        help="Time from the start in which failures do not count.",
    ),
    _option(
        "--log-driver",
        parse=parsers.parse_log_driver,
        metavar="local|none",
        help="With --detach: whether output is kept.",
    ),
    _option(
        "--log-opt",
        parse=parsers.parse_log_option,
        metavar="NAME=VALUE",
        multiple=True,
        help="With --detach: max-size=SIZE of a file, and max-file=N of them.",
    ),
    _option("--name", metavar="NAME", help="Name of the container."),
    _option(
        "-e", "--env", parse=parsers.parse_env, metavar="NAME=VALUE", multiple=True, help="Set a variable."
    ),
    _option(
        "--env-file",
        parse=parsers.read_env_file,
        metavar="FILE",
        multiple=True,
        help="Set variables of a file.",
    ),
    _option("-w", "--workdir", metavar="DIR", help="Working directory in the container."),
    _option("-u", "--user", metavar="USER[:GROUP]", help="User, by name or number."),
    _option("--group-add", metavar="GROUP", multiple=True, help="Join a further group."),
    _option("-h", "--hostname", metavar="NAME", help="Host name of the container."),
    _option("--domainname", metavar="NAME", help="NIS domain name of the container."),
    _flag("--read-only", help="Mount the root file system read-only."),
    _option(
        "--mount",
        parse=parsers.parse_mount,
        metavar="FIELDS",
        multiple=True,
        help="Mount, as in type=bind,source=DIR,target=DIR,readonly or type=tmpfs,target=DIR.",
    ),
    _option(
        "-v",
        "--volume",
        parse=parsers.parse_volume,
        metavar="SOURCE:TARGET[:ro]",
        multiple=True,
        help="Bind mount a file or directory of the host, which must exist.",
    ),
    _option(
        "--tmpfs",
        parse=parsers.parse_tmpfs,
        metavar="DIR[:OPTIONS]",
        multiple=True,
        help="Mount an empty file system in memory; options are size=, mode= and exec.",
    ),
    _option(
        "--device",
        "devices",
        parse=parsers.parse_device,
        metavar="PATH[:TARGET][:rwm]",
        multiple=True,
        help="Allow the use of a device of the host.",
    ),
    _option(
        "--network",
        metavar="none|host|bridge|container:NAME|NAME",
        multiple=True,
        help="Network; if left out none, with a loopback device only, or bridge for who publishes ports. "
        "Several names for several networks.",
    ),
    _option(
        "--network-alias",
        "network_aliases",
        metavar="NAME",
        multiple=True,
        help="What the others in its first network find it by, besides its name.",
    ),
    _option("--mac-address", metavar="MAC", help="Address of its device in its first network."),
    _option(
        "-p",
        "--publish",
        parse=parse_publish,
        metavar="[[ADDRESS:][HOSTPORT]:]PORT[/PROTOCOL]",
        multiple=True,
        help="Have a port of the host lead to one of the container; on every address if none is given.",
    ),
    _option("--ip", "ip_address", metavar="ADDRESS", help="Its address in that network."),
    _option(
        "--add-host",
        "extra_hosts",
        parse=parsers.parse_host,
        metavar="NAME:ADDRESS",
        multiple=True,
        help="Add a line to /etc/hosts; host-gateway is the host's address.",
    ),
    _option("--dns", metavar="ADDRESS", multiple=True, help="Ask this name server instead of the host's."),
    _option("--dns-search", metavar="DOMAIN", multiple=True, help="Look names up in this domain."),
    _option(
        "--dns-option", "dns_options", metavar="OPTION", multiple=True, help="Set an option of the resolver."
    ),
    _option(
        "-m", "--memory", "memory_bytes", parse=parsers.parse_memory, metavar="SIZE", help="Limit memory."
    ),
    _option(
        "--memory-swap",
        "memory_swap_bytes",
        parse=parsers.parse_swap,
        metavar="SIZE",
        help="Limit memory and swap together; -1 for unlimited swap.",
    ),
    _option(
        "--memory-reservation",
        "memory_reservation_bytes",
        parse=parsers.parse_memory,
        metavar="SIZE",
        help="Memory that is taken from the container last.",
    ),
    _option("--cpus", parse=parsers.parse_cpus, metavar="NUMBER", help="Limit processors, such as 1.5."),
    _option("--cpu-shares", parse=parsers.parse_number, metavar="N", help="Weight; 1024 is normal."),
    _option(
        "--cpu-quota",
        "cpu_quota_us",
        parse=parsers.parse_number,
        metavar="US",
        help="Microseconds per period.",
    ),
    _option(
        "--cpu-period", "cpu_period_us", parse=parsers.parse_number, metavar="US", help="Length of a period."
    ),
    _option("--cpuset-cpus", metavar="LIST", help="Processors it may run on, such as 0-2,4."),
    _option("--cpuset-mems", metavar="LIST", help="Memory nodes it may use."),
    _option(
        "--pids-limit",
        "pids",
        parse=parsers.parse_pids,
        metavar="N",
        help="Limit processes; -1 for no limit.",
    ),
    _option(
        "--blkio-weight",
        "io_weight",
        parse=parsers.parse_number,
        metavar="N",
        help="Weight for block devices, 10 to 1000.",
    ),
    *(
        _option(
            f"--device-{way}-bps",
            f"device_{way}_bps",
            parse=parsers.parse_device_rate,
            metavar="PATH:RATE",
            multiple=True,
            help=f"Limit {what} a device, in bytes a second.",
        )
        for way, what in (("read", "reading from"), ("write", "writing to"))
    ),
    *(
        _option(
            f"--device-{way}-iops",
            f"device_{way}_iops",
            parse=parsers.parse_device_operations,
            metavar="PATH:NUMBER",
            multiple=True,
            help=f"Limit {what} a device, in operations a second.",
        )
        for way, what in (("read", "reading from"), ("write", "writing to"))
    ),
    _option(
        "--oom-score-adj",
        parse=parsers.parse_number,
        metavar="N",
        help="-1000 to 1000; high is killed first.",
    ),
    _option("--cap-add", metavar="NAME", multiple=True, help="Add a capability, or ALL."),
    _option("--cap-drop", metavar="NAME", multiple=True, help="Take a capability away, or ALL."),
    _option(
        "--security-opt",
        parse=parsers.parse_security,
        metavar="OPTION",
        multiple=True,
        help="no-new-privileges[=true|false], seccomp=unconfined or seccomp=FILE.",
    ),
    _option(
        "--sysctl",
        "sysctls",
        parse=parsers.parse_sysctl,
        metavar="NAME=VALUE",
        multiple=True,
        help="Set a sysctl.",
    ),
    _option(
        "--ulimit",
        "rlimits",
        parse=parsers.parse_ulimit,
        metavar="NAME=SOFT[:HARD]",
        multiple=True,
        help="Set a resource limit.",
    ),
    _option(
        "--shm-size", "shm_size_bytes", parse=parsers.parse_memory, metavar="SIZE", help="Size of /dev/shm."
    ),
    _flag("--init", help="Put a process before the command that reaps orphans and passes signals on."),
    _option("--entrypoint", metavar="PROGRAM", help="Replace the image's entrypoint."),
    _option(
        "-l",
        "--label",
        "labels",
        parse=parsers.parse_label,
        metavar="NAME=VALUE",
        multiple=True,
        help="Set a label.",
    ),
    _option(
        "--stop-signal", metavar="SIGNAL", help="Signal that asks the command to end when --timeout is over."
    ),
    _option(
        "--stop-timeout",
        "stop_timeout_s",
        parse=parsers.parse_wait,
        metavar="SECONDS",
        help="Time that it then has to end by itself; 10 if left out.",
    ),
    _option(
        "--timeout",
        "timeout_s",
        parse=parsers.parse_seconds,
        metavar="SECONDS",
        help="End the container after that time.",
    ),
    click.Option(
        ["--pull"],
        type=click.Choice(["missing", "always", "never"]),
        default="missing",
        help="When to fetch the image from its registry; if it is missing here by default.",
    ),
    _flag(
        "--from-host",
        help="Run a program of this host: there is no IMAGE, all arguments are the command. The image has a "
        "small userland of the host, and the program with its libraries.",
    ),
    click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED, metavar="IMAGE [COMMAND]..."),
]

_PLAIN = (
    *("name", "workdir", "user", "group_add", "hostname", "domainname", "read_only", "devices"),
    *("ip_address", "mac_address", "network_aliases", "dns", "dns_search", "dns_options"),
    *("rlimits", "shm_size_bytes", "tty", "init", "stop_signal", "stop_timeout_s"),
)


_DETACHED = (
    *("restart", "health_cmd", "health_interval", "health_timeout", "health_retries"),
    *("health_start_period", "log_driver", "log_opt"),
)

_UNSET: tuple[object, ...] = (None, (), [])


def given(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Those of `names` that have a value, so that all others get the library's defaults."""
    return {name: values[name] for name in names if values[name] not in _UNSET and values[name] is not False}


def run_options(values: Mapping[str, Any]) -> RunOptions:
    """Everything that was said, as the library takes it."""
    options: dict[str, Any] = given(values, _PLAIN)
    if limits := limits_of(values):
        options["resources"] = Resources(**limits)
    security = given(values, ("cap_add", "cap_drop")) | dict(values["security_opt"])
    if security:
        options["security"] = Security(**security)
    if env := parsers.merge_env(values["env_file"], values["env"]):
        options["env"] = env
    for name in ("sysctls", "labels", "extra_hosts"):
        if values[name]:
            options[name] = dict(values[name])
    if values["network"]:
        options["network"], *options["networks"] = values["network"]
    if values["publish"]:
        options["ports"] = [mapping for mappings in values["publish"] for mapping in mappings]
    if mounts := (*values["mount"], *values["volume"], *values["tmpfs"]):
        options["mounts"] = mounts
    if values["entrypoint"] is not None:
        options["entrypoint"] = [values["entrypoint"]] if values["entrypoint"] else []
    # The table above names the fields, so there is nothing that a type checker could follow.
    lasting = detached_options(values) if values["detach"] else {"layer": "memory", "remove": True}
    return cast("RunOptions", {**lasting, **options})


def detached_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is for containers that stay."""
    options: dict[str, Any] = {
        "lifetime": "detached",
        "remove": values["rm"],
        "stdin_open": values["interactive"],
    }
    log = dict(values["log_opt"])
    if values["log_driver"] == "none":
        log["max_files"] = 0
    if log:
        options["log"] = LogFile(**log)
    if values["restart"] is not None:
        options["restart"] = values["restart"]
    if values["health_cmd"] is not None:
        times = {
            "interval_s": values["health_interval"],
            "timeout_s": values["health_timeout"],
            "retries": values["health_retries"],
            "start_period_s": values["health_start_period"],
        }
        said = {name: value for name, value in times.items() if value is not None}
        options["health"] = HealthCheck(command=("/bin/sh", "-c", values["health_cmd"]), **said)
    return options


def limits_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The limits that were given, by the names that they have in `Resources`."""
    return given(values, [field.name for field in attrs.fields(Resources) if field.name in values])


def by_flag(error: InvalidOption) -> str:
    """The library's message with our name of the option, where we have one."""
    flags = {option.name: max(option.opts, key=len) for option in RUN_OPTIONS}
    text = str(error)
    if error.option in flags and text.startswith(f"{error.option}="):
        return f"Invalid value for '{flags[error.option]}': {text.partition('=')[2]}"
    return text


def check_detached(values: Mapping[str, Any], *, is_detached: bool) -> None:
    """Refuse what is for containers that stay if this does not, and what does not fit together.

    Raises:
        click.UsageError: Names the option, and what to do.
    """
    said = [name for name in _DETACHED if values[name] not in _UNSET]
    if said and not is_detached:
        raise click.UsageError(f"--{said[0].replace('_', '-')} is for containers that stay; add --detach")
    health = [name for name in said if name.startswith("health")]
    if health and "health_cmd" not in health:
        raise click.UsageError(f"--{health[0].replace('_', '-')} needs --health-cmd")
