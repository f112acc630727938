"""One TOML: every key has a meaning, every fault its place, every value its origin."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from veilwatch.detection.alerting.site import QuietPeriod, SiteThresholds, site_text
from veilwatch.errors import VeilwatchError
from veilwatch.schema.units import DAY_NS
from veilwatch.sensor import settings
from veilwatch.sensor.config import MaintenanceSection, SensorConfig
from veilwatch.sensor.load import leaves, load_config, masked
from veilwatch.sensor.template import reference, template, toml
from veilwatch.traffic.flow import MeterConfig

LEAST = '[capture]\ninterfaces = ["eth1"]\n[model]\npath = "model"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "sensor.toml"
    path.write_text(text)
    return path


def sections() -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = [MaintenanceSection]
    for info in SensorConfig.model_fields.values():
        model = info.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        found.append(model)
    return found


def test_every_setting_is_described_and_has_its_default() -> None:
    for model in sections():
        assert model.__doc__
        for name, info in model.model_fields.items():
            assert info.description and info.description.endswith("."), (model, name)


def test_the_least_file_holds_the_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, LEAST)).config
    assert config.store_url == "/var/lib/veilwatch/veilwatch.db"
    assert config.archive_folder == Path("/var/lib/veilwatch/flows")
    assert config.model.path == tmp_path / "model"
    assert settings.meter(config) == MeterConfig()
    assert settings.live(config).ring_mb == 256
    assert settings.policy(config).dedup_s == 3600
    assert settings.retention(config).max_bytes == 10 * 10**9
    assert settings.archive(config).keep_free == 10**9
    assert settings.site(config) is None


def test_the_template_is_a_good_file_and_its_comments_are_the_defaults(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path, template()))
    assert set(loaded.sources) == {"capture.interfaces", "model.path"}
    opened = re.sub(r"(?m)^# ([a-z_]+ = .+|\[\[.+\]\])$", r"\1", template())
    assert opened != template()
    everything = load_config(write(tmp_path, opened)).config
    assert len(everything.alerts.maintenance) == 1
    without = everything.model_copy(
        update={"alerts": everything.alerts.model_copy(update={"maintenance": []})}
    )
    assert without == loaded.config
    # Every setting stands there, also those without a default.
    for name, _ in leaves(loaded.config):
        if name != "alerts.maintenance":
            assert re.search(rf"(?m)^(# )?{name.split('.')[1]} =", template()), name


def test_the_reference_names_every_setting() -> None:
    rows = {(title, row[0].strip("`")) for title, _, rows in reference() for row in rows}
    names = {(f"[{name.split('.')[0]}]", name.split(".")[1]) for name, _ in leaves(_default())}
    assert names <= rows
    assert len(rows) == len(names) + len(MaintenanceSection.model_fields)
    assert all(row[1] and row[3] for _, _, rows in reference() for row in rows)


def _default() -> SensorConfig:
    return SensorConfig.model_validate(tomllib.loads(LEAST))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[capture\n", "not TOML"),
        (LEAST + "[captur]\n", "unknown name captur (did you mean capture?)"),
        (LEAST.replace("[model]", "ring_mbs = 3\n[model]"), ":3: unknown name capture.ring_mbs "),
        (LEAST + "[flow]\nidle_timeout = 3\n", ":6: unknown name flow.idle_timeout (did you mean"),
        (LEAST + "[log]\nzzz = 3\n", "known here: level, format"),
        (LEAST + "[log]\nlevel = 'loud'\n", ":6: log.level: input should be 'debug'"),
        (LEAST + "[early]\npackets = [8, 8]\n", "counts of packets must rise"),
        (LEAST + "[early]\npackets = [0]\n", "early.packets.0: "),
        (LEAST + "[flow]\nidle_timeout_s = 0\n", "greater than 0 (A flow ends after"),
        (LEAST + "[flow]\nidle_timeout_s = nan\n", "flow.idle_timeout_s"),
        (LEAST + "[metrics]\nlisten = ':9479'\n", "an address and a port"),
        (LEAST + "[metrics]\nlisten = '::1:9479'\n", "an address and a port"),
        (LEAST + "[metrics]\nlisten = '127.0.0.1:99999'\n", "an address and a port"),
        (LEAST + "[metrics]\nlisten = '0.0.0.0:9479'\n", "set token_file"),
        (LEAST + "[sinks]\nurls = ['eve.json']\n", "write a URL"),
        (LEAST + "[sensor]\nname = 'a b'\n", ":6: sensor.name"),
        (LEAST + "[privacy]\nrotation = 'hourly'\n", "'none', 'daily', 'weekly' or 'monthly'"),
        (LEAST + "[[alerts.maintenance]]\nreason = 'x'\n", ":5: alerts.maintenance.0.ends: field"),
        (
            LEAST
            + "[[alerts.maintenance]]\nreason = 'x'\nends = 2020-01-01\nbegins = 2021-01-01\n",
            "ends before it begins",
        ),
        (
            LEAST + "[[alerts.maintenance]]\nreason = 'x'\nends = 2030-01-01\nhost = '10.0.0.1'\n",
            ":8: unknown name alerts.maintenance.0.host (did you mean hosts?)",
        ),
        (
            LEAST + "[[alerts.maintenance]]\nreason='x'\nends=2030-01-01\nhours='25:00-26:00'\n",
            "hours",
        ),
        (
            LEAST + "[[alerts.maintenance]]\nreason='x'\nends=2030-01-01\nhosts=['10.0.0.1/8']\n",
            "network",
        ),
        ("[model]\npath = 'm'\n", "capture: field required"),
        ("[model]\npath = 'm'\n[capture]\n", "name either interfaces or a folder"),
        (LEAST.replace("[model]", "folder = 'x'\n[model]"), "name either interfaces or a folder"),
        (LEAST.replace("eth1", "../eth1"), "capture.interfaces.0"),
        ("capture = 3\n" + "[model]\npath = 'm'\n", "capture: input should be"),
    ],
)
def test_a_fault_has_its_place_and_what_to_do(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(VeilwatchError) as caught:
        load_config(write(tmp_path, text))
    words = str(caught.value)
    assert told in words and words.startswith(str(tmp_path / "sensor.toml")) and "\n" not in words


def test_environment_and_command_line_win_and_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = write(tmp_path, LEAST + "[log]\nlevel = 'error'\n[sensor]\nname = 'file'\n")
    loaded = load_config(
        path,
        environment={
            "VEILWATCH_SENSOR__NAME": "ward-3",
            "VEILWATCH_LOG__LEVEL": "debug",
            "VEILWATCH_SINKS__URLS": '["eve:///tmp/e.json"]',
            "VEILWATCH_ARCHIVE__FOLDER": "hours",
            "VEILWATCH_CORPUS": "x",
            "OTHER__NAME": "x",
        },
        overrides=["log.level=warning", "capture.ring_mb = 256", "sensor.state=relative"],
    )
    config = loaded.config
    assert (config.sensor.name, config.log.level, config.capture.ring_mb) == (
        "ward-3",
        "warning",
        256,
    )
    assert config.sinks.urls == ["eve:///tmp/e.json"]
    # As a shell completes them; paths within the file begin at its folder.
    assert config.sensor.state == tmp_path / "here" / "relative"
    assert config.archive.folder == tmp_path / "here" / "hours"
    assert config.model.path == tmp_path / "model"
    assert loaded.sources == {
        "capture.interfaces": f"{path}:2",
        "model.path": f"{path}:4",
        "sensor.name": "VEILWATCH_SENSOR__NAME",
        "log.level": "--set",
        "sinks.urls": "VEILWATCH_SINKS__URLS",
        "archive.folder": "VEILWATCH_ARCHIVE__FOLDER",
        "capture.ring_mb": "--set",
        "sensor.state": "--set",
    }


@pytest.mark.parametrize(
    ("url", "in_file", "by_option"),
    [
        ("a.db", "{file}/a.db", "{here}/a.db"),
        ("/var/a.db", "/var/a.db", "/var/a.db"),
        ("postgresql://u@h/n", "postgresql://u@h/n", "postgresql://u@h/n"),
        ("sqlite:///a.db", "sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_the_path_of_a_store_begins_where_other_paths_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, in_file: str, by_option: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    places = {"file": tmp_path, "here": tmp_path / "here"}
    path = write(tmp_path, LEAST + f"[store]\nurl = '{url}'\n")
    assert load_config(path).config.store_url == in_file.format_map(places)
    path = write(tmp_path, LEAST)
    loaded = load_config(path, overrides=[f"store.url={url}"]).config
    assert loaded.store_url == by_option.format_map(places)


@pytest.mark.parametrize(
    ("environment", "overrides", "told"),
    [
        ({"VEILWATCH_SENSOR__NAEM": "x"}, [], "VEILWATCH_SENSOR__NAEM: unknown name sensor.naem"),
        ({"VEILWATCH_CAPTURE__RING_MB": "many"}, [], "VEILWATCH_CAPTURE__RING_MB: capture.ring_mb"),
        ({}, ["ring=3"], "--set: unknown name ring"),
        ({}, ["capture.ring_mb"], "--set: 'capture.ring_mb' sets nothing"),
        ({}, ["=3"], "sets nothing"),
        ({}, ["capture.ring_mb.x=3"], "capture.ring_mb: input should"),
        ({}, ["model.path.x=3"], "path is no section"),
        ({}, ["log.level='a'\nx=3"], "log.level"),
    ],
)
def test_faults_outside_the_file(
    tmp_path: Path, environment: dict[str, str], overrides: list[str], told: str
) -> None:
    with pytest.raises(VeilwatchError) as caught:
        load_config(write(tmp_path, LEAST), environment=environment, overrides=overrides)
    assert told in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "long.toml").write_bytes(b"#" * (2 << 20))
    for name, told in (
        ("none.toml", "config init"),
        ("bytes.toml", "UTF-8"),
        ("long.toml", "too long"),
        (".", "cannot read"),
    ):
        with pytest.raises(VeilwatchError, match=told):
            load_config(tmp_path / name)


def test_what_the_rooms_are_given(tmp_path: Path) -> None:
    (tmp_path / "allow.toml").write_text('[[allow]]\nreason="x"\nuntil=2030-01-01\nport=22\n')
    site = SiteThresholds(model="m", period=QuietPeriod(name="w", begins_ns=0, ends_ns=DAY_NS))
    (tmp_path / "site.json").write_text(site_text(site))
    path = write(
        tmp_path,
        LEAST
        + """
[alerts]
allow_file = "allow.toml"
site = "site.json"
burst = 7
[[alerts.maintenance]]
reason = "patches"
begins = 2026-06-01
ends = 2026-06-30T12:00:00
hosts = ["10.0.0.0/24"]
hours = "22:00-04:30"
days = ["sat", "sun"]
""",
    )
    config = load_config(path).config
    policy = settings.policy(config)
    assert policy.allow.entries[0].reason == "x" and policy.limits.burst == 7
    (window,) = policy.maintenance
    assert (window.minutes, window.weekdays) == ((1320, 270), frozenset({5, 6}))
    assert window.begins_ns == 1_780_272_000 * 10**9
    assert window.ends_ns - window.begins_ns == (29 * 24 + 12) * 3600 * 10**9
    assert settings.site(config) == site
    (tmp_path / "allow.toml").unlink()
    with pytest.raises(VeilwatchError, match="cannot read the allow-list"):
        settings.policy(config)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p%40x@h:5/d", "postgresql://u:***@h:5/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("https://u:p@h/x?token=abc&level=3", "https://u:***@h/x?token=***&level=3"),
        ("kafka://h/t?sasl_password=a&api-key=b", "kafka://h/t?sasl_password=***&api-key=***"),
        ("https://u:p:q@r@h/", "https://u:***@h/"),
        ("eve:///var/log/eve.json", "eve:///var/log/eve.json"),
        ("/var/lib/a@b:c/x.db", "/var/lib/a@b:c/x.db"),
    ],
)
def test_secrets_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


VALUES = st.recursive(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]))
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)


@given(VALUES)
def test_values_are_good_toml(value: Any) -> None:
    assert tomllib.loads(f"x = {toml(value)}") == {"x": value}


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    folder = Path("/nonexistent")
    with pytest.raises(VeilwatchError):
        load_config(None, overrides=[text])
    with pytest.raises(VeilwatchError):
        load_config(folder / "x.toml")
