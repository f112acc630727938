"""The configuration of a sensor: every setting, its default, its bounds and what it means.

The models here are the only place where settings are named: the file that `veilwatch config init`
writes and docs/sensor-config.md are made from them.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, date, datetime, time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from veilwatch.files import BOXED_MODEL
from veilwatch.schema.packets import MAX_CAPTURED
from veilwatch.traffic.capture.live import MAX_WORKERS
from veilwatch.traffic.capture.live.options import MAX_RING_MB, MIN_SNAPLEN
from veilwatch.traffic.flow.meter import MAX_FLOWS, MeterConfig
from veilwatch.traffic.subscriber import Rotation

DEFAULT_STATE: Final = Path("/var/lib/veilwatch")
"""Where a sensor keeps what it must not forget; the place that Linux has for that."""

BASE: Final = "base"
"""Key of the validation context under which the folder lies that relative paths begin at."""

MAX_ITEMS: Final = 64
"""Most interfaces, ports, sinks or maintenance windows: each is read by people."""

MAX_EARLY_POINTS: Final = 8
"""Most early points of a flow: each costs a score of every flow that gets there."""

_METER = MeterConfig()
_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://\S+")


def _resolved(path: Path, info: ValidationInfo) -> Path:
    """Take `~` for the user's home, and relative paths from the configuration's folder."""
    base = (info.context or {}).get(BASE)
    path = path.expanduser()
    return path if base is None else Path(base, path)


Place = Annotated[Path, AfterValidator(_resolved)]


def is_path(section: type[BaseModel] | None, key: str) -> bool:
    """Whether a setting is a path, or may be one."""
    found = section.model_fields.get(key) if section else None
    if found is None:
        return False
    kinds = (found.annotation, *get_args(found.annotation))
    return Path in kinds or Place in kinds or StoreUrl in kinds


def _store_url(url: str, info: ValidationInfo) -> str:
    """Take what is no URL for the path of a file."""
    return url if "://" in url else str(_resolved(Path(url), info))


StoreUrl = Annotated[str, Field(min_length=1), AfterValidator(_store_url)]


def _endpoint(address: str) -> str:
    host, colon, port = address.rpartition(":")
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        good = bool(colon) and port.isdecimal() and 0 <= int(port) <= 65_535
    except ValueError:
        good = False
    if not good or (":" in host and not host.startswith("[")):
        raise ValueError("write an address and a port, such as 127.0.0.1:9479 or [::1]:9479")
    return address


def _url(url: str) -> str:
    if not _SCHEME.fullmatch(url):
        raise ValueError("write a URL, such as eve+file:///var/log/veilwatch")
    return url


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"no address or network: {error}") from error


def _moment(value: Any) -> Any:
    """Take a date for its beginning, and a time without zone for UTC."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    return value


Url = Annotated[str, AfterValidator(_url)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Seconds = Annotated[float, Field(ge=0, le=10 * 365 * 86_400, allow_inf_nan=False)]
Gigabytes = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
Days = Annotated[float, Field(gt=0, le=36_500, allow_inf_nan=False)]


class Section(BaseModel):
    """A table of the file: no key that is not named here, nothing changed after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SensorSection(Section):
    """Who the sensor is and where it keeps what it must not forget."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "veilwatch"
    """Name in every event and part of every id: choose it once."""

    state: Place = DEFAULT_STATE
    """Folder of the store, the spool and what else must survive a restart. Others lose what they
    may do there."""

    spare_memory_mb: Annotated[int, Field(ge=0, le=1_048_576)] = 256
    """MiB of free memory below which flows are not archived, and below half of which early reports
    are dropped, until there is more; 0 never."""


class CaptureSection(Section):
    """Where packets come from: interfaces, or a folder that capture files are put into."""

    interfaces: Annotated[
        list[Annotated[str, Field(pattern=r"^[^\s/]{1,15}$")]], Field(max_length=MAX_ITEMS)
    ] = []
    """Network interfaces that the mirror arrives at. Nothing is ever sent there."""

    folder: Place | None = None
    """Folder of capture files to read as they are finished, instead of interfaces."""

    quiet_s: Annotated[Seconds, Field(gt=0)] = 900.0
    """Without a new file in the folder for so long, the time that passed counts: flows that were
    alive end. More than the time that one file spans, or flows are cut between files."""

    ring_mb: Annotated[int, Field(ge=1, le=MAX_RING_MB)] = 256
    """MiB of packets that may wait in each worker's ring."""

    snaplen: Annotated[int, Field(ge=MIN_SNAPLEN, le=MAX_CAPTURED)] = MAX_CAPTURED
    """Most bytes captured of a packet."""

    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = 1
    """Processes that share each interface by the pairs of addresses inside tunnels. Control traffic
    reaches one of them: the others name subscribers by their tunnels alone."""

    gtp_ports: Annotated[list[Port], Field(max_length=MAX_ITEMS)] = []
    """UDP ports at which to look for GTP-U beside 2152."""

    user: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,31}$")] | None = None
    """User to become once the sockets are open; by default the one that the service runs as."""

    emulated: bool = False
    """Whether the traffic is made in a laboratory: every alert then says so."""

    @model_validator(mode="after")
    def _one_source(self) -> CaptureSection:
        if bool(self.interfaces) == bool(self.folder):
            raise ValueError("name either interfaces or a folder")
        if len(self.interfaces) * self.workers > MAX_WORKERS:
            raise ValueError(f"more than {MAX_WORKERS} processes: fewer interfaces or workers")
        return self


class FlowSection(Section):
    """How packets are joined to flows, see docs/flows.md."""

    idle_timeout_s: Annotated[Seconds, Field(gt=0)] = _METER.idle_timeout_s
    """A flow ends after this many seconds of silence."""

    active_timeout_s: Annotated[Seconds, Field(gt=0)] = _METER.active_timeout_s
    """A longer flow is cut into records of this many seconds."""

    max_flows: Annotated[int, Field(ge=1, le=MAX_FLOWS)] = _METER.max_flows
    """Most live flows, 2 KiB each; beyond it the oldest are ended and counted."""


class EarlySection(Section):
    """When a flow is scored before it ends."""

    packets: Annotated[
        list[Annotated[int, Field(ge=1, le=4096)]], Field(max_length=MAX_EARLY_POINTS)
    ] = [8, 32]
    """Packets of both directions after which a flow is scored; none to go by time alone."""

    age_s: Seconds = 30.0
    """Age of a flow in seconds at which it is scored; 0 never."""

    silence_s: Seconds = 10.0
    """Seconds of silence after which a flow is scored as it is, before `flow.idle_timeout_s` ends
    it; 0 never."""

    @model_validator(mode="after")
    def _rising(self) -> EarlySection:
        if sorted(set(self.packets)) != self.packets:
            raise ValueError("counts of packets must rise")
        return self


class ModelSection(Section):
    """What scores flows."""

    path: Place | None = None
    """Folder of the model, as `veilwatch train` writes it; without it the model that ships with the
    package. A changed one is loaded on SIGHUP."""

    @property
    def folder(self) -> Path:
        """Where the model lies."""
        return self.path or BOXED_MODEL


class WindowsSection(Section):
    """What is judged of a host as a whole."""

    every_s: Annotated[float, Field(ge=1, le=3600)] = 30.0
    """How often windows that are not over yet are judged, as far as their flows have ended."""


class MaintenanceSection(Section):
    """A time of the traffic in which alerts are counted and not told."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]
    """Why, in words."""

    begins: Annotated[datetime, BeforeValidator(_moment)] = datetime(1970, 1, 1, tzinfo=UTC)
    """From when on; a date without quotes, UTC."""

    ends: Annotated[datetime, BeforeValidator(_moment)]
    """Until when; a date without quotes, UTC. Every window ends some day."""

    hosts: Annotated[
        list[Annotated[str, AfterValidator(_network)]], Field(max_length=MAX_ITEMS)
    ] = []
    """Addresses or networks of the hosts concerned; none for all."""

    hours: Annotated[str, Field(pattern=f"^{_HOURS.pattern}$")] | None = None
    """Hours of the day, UTC, such as "22:00-04:00"; by default the whole day."""

    days: list[Annotated[str, Field(pattern=f"^({'|'.join(_WEEKDAYS)})$")]] = []
    """Days on which it begins, such as ["sat", "sun"]; none for every day."""

    @model_validator(mode="after")
    def _ends_later(self) -> MaintenanceSection:
        if self.begins >= self.ends:
            raise ValueError("it ends before it begins")
        return self

    @property
    def minutes(self) -> tuple[int, int] | None:
        """First and last minute of the day that `hours` says."""
        found = _HOURS.fullmatch(self.hours or "")
        if found is None:
            return None
        first, last = (int(found[n]) * 60 + int(found[n + 1]) for n in (1, 3))
        return first, min(last, 1440)

    @property
    def weekdays(self) -> frozenset[int]:
        """Numbers of `days`, 0 Monday."""
        return frozenset(map(_WEEKDAYS.index, self.days))


class AlertsSection(Section):
    """What is told, and how often."""

    target_false_alerts_per_day: Annotated[float, Field(gt=0, le=100_000)] = 5.0
    """What thresholds are learned for in a quiet period, for flows and for hosts each."""

    site: Place | None = None
    """File of thresholds learned at this site; without one the model's own are used."""

    dedup_s: Seconds = 3600.0
    """How long repeats of one service of a host are held back; 0 never."""

    host_per_hour: Annotated[float, Field(gt=0, le=100_000)] = 12.0
    """Alerts an hour of one host or subscriber, in the long run."""

    host_burst: Annotated[int, Field(ge=1, le=100_000)] = 6
    """Alerts of one host or subscriber at once."""

    per_hour: Annotated[float, Field(gt=0, le=1_000_000)] = 240.0
    """Alerts an hour of all together, in the long run; hosts that are new have as many of their
    own."""

    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 60
    """Alerts of all together at once."""

    summary_s: Annotated[Seconds, Field(ge=1)] = 900.0
    """How long alerts are held back before one event says how many there were."""

    quiet_close_s: Annotated[Seconds, Field(ge=60)] = 14_400.0
    """An incident without evidence for this long is closed."""

    allow_file: Place | None = None
    """Allow-list: what is known to be harmless here, each entry with reason and end."""

    maintenance: Annotated[list[MaintenanceSection], Field(max_length=MAX_ITEMS)] = []
    """Times in which alerts are counted and not told: tables [[alerts.maintenance]]."""


class StoreSection(Section):
    """Where alerts, incidents, verdicts and counters are kept."""

    url: StoreUrl | None = None
    """Path of a file, sqlite:///path or postgresql://user@host/name; by default veilwatch.db in
    the state folder."""

    retention_days: Days = 365.0
    """Age at which alerts and closed incidents are deleted, counted from when they were recorded;
    open incidents never are."""

    max_gb: Gigabytes = 10.0
    """Size in GB above which the oldest are deleted earlier."""


class ArchiveSection(Section):
    """Where flows are kept, as Parquet files by hour. It is the first to go on a full disk."""

    enabled: bool = True
    """Whether flows are kept at all."""

    folder: Place | None = None
    """Folder of the files; by default flows in the state folder."""

    days: Days = 30.0
    """Age at which files are deleted."""

    max_gb: Gigabytes = 50.0
    """Size in GB above which the oldest files are deleted earlier."""

    keep_free_gb: Annotated[float, Field(ge=0, le=1_000_000)] = 1.0
    """GB of the disk that are left free: the oldest files go first."""


class SinksSection(Section):
    """Where alerts are sent."""

    urls: Annotated[list[Url], Field(max_length=MAX_ITEMS)] = []
    """One URL for each destination; `veilwatch sinks list` shows the kinds. A URL that is a secret
    itself stands in a file of its own: `webhook+https:///?url-file=/etc/veilwatch/hook.url`."""


class MetricsSection(Section):
    """Metrics for Prometheus and health for a supervisor."""

    listen: Annotated[str, AfterValidator(_endpoint)] = "127.0.0.1:9479"
    """Address and port, 0 for a free one."""

    token_file: Place | None = None
    """File with the token that a reader of metrics has to show, 16 characters at least
    (`Authorization: Bearer …`). Needed on another address than loopback. Probes ask for none: they
    say whether the sensor is well."""

    @model_validator(mode="after")
    def _guarded(self) -> MetricsSection:
        host = self.listen.rpartition(":")[0].strip("[]")
        if self.token_file is None and not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"whoever reaches {self.listen} could read metrics: set token_file")
        return self


class LogLevel(StrEnum):
    """Least level of what is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """Form of the log."""

    CONSOLE = "console"
    JSON = "json"


class LogSection(Section):
    """What the service writes about itself, to standard error."""

    level: LogLevel = LogLevel.INFO
    """Least level that is logged."""

    format: LogFormat = LogFormat.JSON
    """Lines for people, or one JSON object a line."""


class PrivacySection(Section):
    """How subscribers are made pseudonymous, see docs/subscribers.md."""

    subscriber_key_file: Place | None = None
    """Secret key of pseudonyms, at least 32 bytes, readable by its owner only. Without one,
    pseudonyms last until the next start."""

    rotation: Rotation = Rotation.NONE
    """How often pseudonyms change, in packet time."""


class SensorConfig(Section):
    """The whole file."""

    sensor: SensorSection = SensorSection()
    capture: CaptureSection
    flow: FlowSection = FlowSection()
    early: EarlySection = EarlySection()
    model: ModelSection = ModelSection()
    windows: WindowsSection = WindowsSection()
    alerts: AlertsSection = AlertsSection()
    store: StoreSection = StoreSection()
    archive: ArchiveSection = ArchiveSection()
    sinks: SinksSection = SinksSection()
    metrics: MetricsSection = MetricsSection()
    log: LogSection = LogSection()
    privacy: PrivacySection = PrivacySection()

    @property
    def store_url(self) -> str:
        """URL of the store, the default filled in."""
        return self.store.url or str(self.sensor.state / "veilwatch.db")

    @property
    def archive_folder(self) -> Path:
        """Folder of the archive, the default filled in."""
        return self.archive.folder or self.sensor.state / "flows"


EXAMPLES: Final = {
    "capture.interfaces": ["eth1"],
    "model.path": "/etc/veilwatch/model",
}
"""What a new file says where there is no default, or the default does not serve."""
