"""What the rooms below are given for a configuration."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

from veilwatch.detection.alerting.allow import AllowList, parse_allow
from veilwatch.detection.alerting.gate import Policy
from veilwatch.detection.alerting.limits import Limits
from veilwatch.detection.alerting.maintenance import MaintenanceWindow
from veilwatch.detection.alerting.site import SiteThresholds, parse_site
from veilwatch.errors import VeilwatchError
from veilwatch.schema.units import SECOND_NS
from veilwatch.sensor.config import MaintenanceSection, SensorConfig
from veilwatch.store import ArchiveLimits, Retention, Store
from veilwatch.traffic.capture.live import LiveSettings
from veilwatch.traffic.flow import InterimPoints, MeterConfig

STORE_PATIENCE_S: Final = 1.0
"""How long a process of the sensor waits for the store. Who holds it longer makes a sensor that
stores later, and not one that stops scoring or is taken to hang."""

MIN_TOKEN: Final = 16
"""Shortest token, characters: 64 bits where it is drawn in hexadecimal digits."""

SCORES: Final = "scores/"
"""What the names of state begin with under which scores are kept, hour by hour."""

SCORES_DAYS: Final = 90.0
"""How long they are kept: as long as a quiet period may be."""

GIGABYTE = 10**9


def policy(config: SensorConfig) -> Policy:
    """Return what is told and how often; reads the allow-list.

    Raises
    ------
    VeilwatchError
        If the allow-list cannot be read.
    """
    alerts = config.alerts
    return Policy(
        allow=AllowList()
        if alerts.allow_file is None
        else parse_allow(_text(alerts.allow_file, "allow-list"), alerts.allow_file),
        maintenance=tuple(map(_window, alerts.maintenance)),
        limits=Limits(
            host_per_hour=alerts.host_per_hour,
            host_burst=alerts.host_burst,
            per_hour=alerts.per_hour,
            burst=alerts.burst,
            summary_s=alerts.summary_s,
        ),
        dedup_s=alerts.dedup_s,
        quiet_close_s=alerts.quiet_close_s,
    )


def site(config: SensorConfig) -> SiteThresholds | None:
    """Return the thresholds of the site, None where the model's own are used.

    Raises
    ------
    VeilwatchError
        If the file cannot be read.
    """
    file = config.alerts.site
    return None if file is None else parse_site(_text(file, "thresholds of the site"), file)


def meter(config: SensorConfig) -> MeterConfig:
    """Return how flows are cut."""
    return MeterConfig(
        idle_timeout_s=config.flow.idle_timeout_s,
        active_timeout_s=config.flow.active_timeout_s,
        max_flows=config.flow.max_flows,
    )


def early(config: SensorConfig) -> InterimPoints | None:
    """Return when flows are scored before they end, None for never."""
    chosen = config.early
    if not chosen.packets and not chosen.age_s and not chosen.silence_s:
        return None
    return InterimPoints(tuple(chosen.packets), chosen.age_s or None, chosen.silence_s or None)


def live(config: SensorConfig) -> LiveSettings:
    """Return how packets are taken from an interface."""
    return LiveSettings(ring_mb=config.capture.ring_mb, snaplen=config.capture.snaplen)


def metrics_token(config: SensorConfig) -> str:
    """Return the token that a reader of metrics has to show, '' for none.

    Raises
    ------
    VeilwatchError
        If the file cannot be read or holds no token.
    """
    file = config.metrics.token_file
    if file is None:
        return ""
    token = _text(file, "token of the metrics").strip()
    if len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable():
        raise VeilwatchError(
            f"not a token: fewer than {MIN_TOKEN} characters, or others than ASCII",
            where=file,
            hint=f"write one: openssl rand -hex 32 > {file}",
        )
    return token


def store(config: SensorConfig) -> Store:
    """Open the store.

    Raises
    ------
    VeilwatchError
        If it cannot be opened.
    """
    return Store(config.store_url, patience_s=STORE_PATIENCE_S)


def retention(config: SensorConfig) -> Retention:
    """Return what the store keeps."""
    return Retention(
        days=config.store.retention_days,
        max_bytes=int(config.store.max_gb * GIGABYTE),
        state_days={SCORES: SCORES_DAYS},
    )


def archive(config: SensorConfig) -> ArchiveLimits:
    """Return what the archive keeps."""
    return ArchiveLimits(
        days=config.archive.days,
        max_bytes=int(config.archive.max_gb * GIGABYTE),
        keep_free=int(config.archive.keep_free_gb * GIGABYTE),
    )


def _window(section: MaintenanceSection) -> MaintenanceWindow:
    return MaintenanceWindow(
        reason=section.reason,
        begins_ns=int(section.begins.timestamp()) * SECOND_NS,
        ends_ns=int(section.ends.timestamp()) * SECOND_NS,
        networks=tuple(map(ipaddress.ip_network, section.hosts)),
        minutes=section.minutes,
        weekdays=section.weekdays,
    )


def _text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise VeilwatchError(f"cannot read the {what}: {reason}", where=path) from error
