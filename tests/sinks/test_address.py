"""Of a path at a web server no more than a first plain word is seen, anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sinks.events import make
from veilwatch.errors import VeilwatchError
from veilwatch.sensor.load import masked
from veilwatch.sinks.address import parse, shown_path
from veilwatch.sinks.base import open_sink
from veilwatch.sinks.spool import Spool

SECRET = "T024BE7LD"


@pytest.mark.parametrize(
    ("url", "begin"),
    [
        (f"webhook+https://hooks.example/services/{SECRET}/B0/x", "webhook+https://hooks.example/"),
        (f"webhook+http://h:8080/a/{SECRET}", "webhook+http://h:8080/a/"),
        (f"webhook+https://h/{SECRET}", "webhook+https://h/…"),
        (f"webhook+https://h/{SECRET}/soc", "webhook+https://h/…"),
        (f"elastic+https://h:9200/{SECRET * 4}/index", "elastic+https://h:9200/"),
        (f"webhook+https://[::1]:8443/x/{SECRET}?secret-file=/k", "webhook+https://[::1]:8443/x/"),
    ],
)
def test_a_secret_in_a_path_is_seen_nowhere(url: str, begin: str) -> None:
    address = parse(url, ("secret-file",))
    for text in (address.shown, repr(address), masked(url)):
        assert SECRET not in text
    assert address.shown.startswith(begin) and masked(url).startswith(begin)
    with pytest.raises(VeilwatchError) as told:
        parse(f"{url}{'&' if '?' in url else '?'}colour=red", ("secret-file",))
    assert SECRET not in str(told.value)


def test_what_is_no_secret_is_shown_whole() -> None:
    for url in (
        "eve+file:///var/log/veilwatch/eve.json",
        "webhook+https://h/alerts",
        "kafka://h/veilwatch-alerts",
    ):
        assert parse(url).shown == url == masked(url)


@pytest.mark.parametrize(
    ("segment", "plain"),
    [
        ("hooks", True),
        ("Services", True),
        ("api-v2", True),
        ("webhookb2", True),
        ("abcdefghijkl", True),
        ("abcdefghijklm", False),
        ("a123", False),
        ("k3v9", False),
        ("aBc", False),
        ("ABCDEF", False),
        ("5f4dcc3b", False),
        ("bot12:AAF", False),
        ("my_hook", False),
        ("café", False),
        ("%6bey", False),
        ("ab\n", False),
    ],
)
def test_only_a_plain_word_is_shown(segment: str, plain: bool) -> None:
    assert shown_path(f"/{segment}/rest") == (f"/{segment}/…" if plain else "/…")
    assert shown_path(f"/{segment}") == (f"/{segment}" if plain else "/…")


def test_two_hooks_of_one_host_have_names_of_their_own() -> None:
    one, other = (parse(f"webhook+https://h/services/{end}") for end in ("a/b", "a/c"))
    assert one.shown != other.shown
    assert one.shown == parse("webhook+https://h/services/a/b").shown


def test_what_waited_under_an_older_name_goes_on(tmp_path: Path) -> None:
    address = parse(f"webhook+https://h/services/{SECRET}")
    with Spool(tmp_path / "spool.db") as spool:
        spool.append([make(1), make(2)], [address.shown_before])
        spool.append([make(2), make(3)], [address.shown])
        for _ in range(2):
            spool.rename_sinks({address.shown_before: address.shown})
        assert spool.sinks() == [address.shown]
        assert spool.counts(address.shown).pending == 3
        spool.append([make(4)], [address.shown])
        assert len(spool.take(address.shown, 10, 1)) == 4


def test_a_url_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "hook url"
    file.write_text(f"https://hooks.example/services/{SECRET}\n")
    file.chmod(0o600)
    key = tmp_path / "key"
    key.write_text("k" * 20)
    url = f"webhook+https:///?url-file={file}&secret-file={key}"
    with open_sink(url) as sink:
        assert (sink.address.host, sink.address.path) == (
            "hooks.example",
            f"/services/{SECRET}",
        )
        assert SECRET not in sink.address.shown and sink.address.parameters["secret-file"]
    file.chmod(0o644)
    with pytest.raises(VeilwatchError, match="everybody may read"):
        open_sink(url)
    file.chmod(0o640)
    open_sink(url).close()
    for wrong in (f"http://h/{SECRET}", f"hooks.example/{SECRET}", "", "https://h/a b", "x\ny"):
        file.write_text(wrong)
        with pytest.raises(VeilwatchError, match="holds no URL") as told:
            open_sink(url)
        assert SECRET not in str(told.value)
    file.unlink()
    with pytest.raises(VeilwatchError, match="No such file"):
        open_sink(url)
