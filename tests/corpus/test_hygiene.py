"""Background of infected hosts, told by name."""

from __future__ import annotations

import polars as pl
import pytest

from veilwatch.corpus.hygiene import BACKGROUND, is_background


def judge(sni: str = "", query: str = "") -> bool:
    frame = pl.DataFrame({"tls_sni": [sni], "dns_query": [query]})
    return bool(frame.select(is_background()).item())


@pytest.mark.parametrize("name", [name for names in BACKGROUND.values() for name in names])
def test_every_name_counts_with_what_lies_below_it(name: str) -> None:
    assert judge(sni=name) and judge(query=name.upper() + ".") and judge(sni=f"a.b.{name}")
    # A dot is a dot, and a name ends where its label ends.
    assert not judge(sni=name + "y")
    assert not judge(sni=f"evil{name}") and not judge(sni=f"{name}.attacker.example")


@pytest.mark.parametrize("name", ["ocsp.some-authority.example", "crl3.example.org"])
def test_certificate_status_of_anybody(name: str) -> None:
    assert judge(query=name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "onedrive.live.com",
        "drive.google.com",
        "docs.google.com",
        "api.ipify.org",
        "smtp.gmail.com",
        "ocspevil.example",
        "tontrumuchtors.com",
    ],
)
def test_what_malware_uses_too_stays(name: str) -> None:
    assert not judge(sni=name) and not judge(query=name)


def test_the_server_name_goes_before_the_question() -> None:
    assert not judge(sni="evil.example", query="windowsupdate.com")
