"""Background of infected hosts, told by name."""

from __future__ import annotations

import polars as pl
import pytest

from veilwatch.corpus.hygiene import BACKGROUND, is_background


def judge(sni: str = "", query: str = "", resolved: str = "") -> bool:
    frame = pl.DataFrame({"tls_sni": [sni], "dns_query": [query], "resolved": [resolved]})
    return bool(frame.select(is_background("resolved")).item())


@pytest.mark.parametrize("name", [name for names in BACKGROUND.values() for name in names])
def test_every_name_counts_with_what_lies_below_it(name: str) -> None:
    assert len(name) > 4  # no text taken apart by mistake
    assert judge(sni=name) and judge(query=name.upper() + ".") and judge(sni=f"a.b.{name}")
    # A dot is a dot, and a name ends where its label ends.
    assert not judge(sni=name + "y")
    assert not judge(sni=f"evil{name}") and not judge(sni=f"{name}.attacker.example")


@pytest.mark.parametrize(
    "name",
    [
        *("ocsp.some-authority.example", "crl3.example.org"),
        *("wpad", "wpad.ward.hospital.example", "isatap", "ISATAP.example."),
    ],
)
def test_certificate_status_of_anybody_and_what_windows_seeks_in_any_domain(name: str) -> None:
    assert judge(query=name)


@pytest.mark.parametrize(
    "name",
    [
        *("officecdn.microsoft.com", "officeclient.microsoft.com", "ecs.office.com"),
        *("nexusrules.officeapps.live.com", "roaming.officeapps.live.com"),
        *("contentstorage.osi.office.net", "config.edge.skype.com", "maps.windows.com"),
        *("img-s-msn-com.akamaized.net", "img-prod-cms-rt-microsoft-com.akamaized.net"),
        *("fp.msedge.net", "a-ring.msedge.net", "store-images.s-microsoft.com"),
        *("c.s-microsoft.com", "a0069ea3.clo.footprintdns.com", "x1.c.lencr.org"),
        *("legacy.watson.data.microsoft.com.akadns.net", "teredo.ipv6.microsoft.com.nsatc.net"),
        *("global.asimov.events.data.trafficmanager.net", "array607.prod.do.dsp.mp.microsoft.com"),
        *("fpdownload.macromedia.com", "www.java.com", "detectportal.firefox.com"),
        *("_googlecast._tcp.local", "printer._ipps._tcp.local", "46.1.168.192.in-addr.arpa"),
        *("1.0.16.172.in-addr.arpa", "1.0.31.172.in-addr.arpa", "2.0.0.10.in-addr.arpa"),
        *("px.ads.linkedin.com", "static.ak.facebook.com", "glb-ads.atwola.adtechus.com"),
        *("o.aolcdn.com", "b.grvcdn.com", "api.gravity.com", "dnl-01.geo.kaspersky.com"),
        *("filerep-replica-win.ff.avast.com", "sadownload.mcafee.com", "threat.api.mcafee.com"),
        *("beacons.gcp.gvt2.com", "autoupdate.geo.opera.com", "connectivitycheck.android.com"),
    ],
)
def test_what_systems_browsers_and_pages_ask_for(name: str) -> None:
    assert judge(sni=name)


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
        # Addresses of hosts.
        *("icanhazip.com", "ipinfo.io", "checkip.dyndns.org", "geoip.ubuntu.com"),
        # Files and pages of anybody.
        *("1drv.ms", "storage.live.com", "www.dropbox.com", "storage.googleapis.com"),
        *("www.googleapis.com", "view.officeapps.live.com", "raw.githubusercontent.com"),
        *("github.com", "pastebin.com", "paste.ubuntu.com", "salsa.debian.org", "s3.amazonaws.com"),
        *("exposebox.blob.core.windows.net", "d3p8zr0ffa9t17.cloudfront.net"),
        *("addons.mozilla.org", "technet.microsoft.com", "social.technet.microsoft.com"),
        # Messages of anybody.
        *("discord.com", "cdn.discordapp.com", "api.telegram.org", "t.me", "www.facebook.com"),
        *("twitter.com", "www.linkedin.com", "graph.microsoft.com", "teams.microsoft.com"),
        *("outlook.office365.com", "mtalk.google.com", "push.services.mozilla.com"),
        # Names that anybody may rent or that lead elsewhere.
        *("evil.trafficmanager.net", "evil.akadns.net", "evil.akamaized.net", "evil.nsatc.net"),
        *("evil.azurefd.net", "evil.cloudapp.net", "bit.ly", "a1961.g2.akamai.net"),
        # Public addresses, and names that only look local.
        *("8.8.8.8.in-addr.arpa", "1.0.15.172.in-addr.arpa", "1.0.32.172.in-addr.arpa"),
        *("210.in-addr.arpa", "wpadevil.example", "evil.wpad", "dc.example.local"),
    ],
)
def test_what_malware_uses_too_stays(name: str) -> None:
    assert not judge(sni=name) and not judge(query=name) and not judge(resolved=name)


def test_the_server_name_goes_before_the_question() -> None:
    assert not judge(sni="evil.example", query="windowsupdate.com")


def test_a_further_name_counts_where_the_flow_itself_says_none() -> None:
    assert judge(resolved="fe2.update.microsoft.com")
    assert not judge(sni="evil.example", resolved="windowsupdate.com")
    assert not judge(query="evil.example", resolved="windowsupdate.com")
    assert judge(sni="windowsupdate.com", resolved="evil.example")
    # Without such a column nothing else changes.
    flows = pl.DataFrame({"tls_sni": ["", "bing.com"], "dns_query": ["", ""]})
    assert flows.select(is_background()).to_series().to_list() == [False, True]
