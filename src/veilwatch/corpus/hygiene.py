"""Label hygiene: what an infected host would also have said without its infection.

A capture is labelled as a whole, but its host also fetches updates, checks certificates, searches
and is shown advertising. Such flows are recognised by the name that they ask for. Only names of
services that carry nobody else's content are listed: file sharing and web storage (OneDrive,
Google Drive), web mail and services that tell a host its public address are used by malware and
stay with their capture's label.
"""

from __future__ import annotations

from typing import Final

import polars as pl

BACKGROUND: Final[dict[str, tuple[str, ...]]] = {
    "system updates and time": (
        *("windowsupdate.com", "update.microsoft.com", "delivery.mp.microsoft.com"),
        *("download.microsoft.com", "msftncsi.com", "msftconnecttest.com", "time.windows.com"),
        *("ntp.org", "time.apple.com", "swscan.apple.com", "ubuntu.com", "debian.org"),
        *("gvt1.com", "update.googleapis.com", "clients1.google.com", "clients2.google.com"),
        *("clients3.google.com", "clients4.google.com", "connectivitycheck.gstatic.com"),
        *("update.adobe.com", "armmf.adobe.com", "ardownload.adobe.com", "javadl-esd.sun.com"),
        *("javadl-esd-secure.oracle.com", "update.nai.com", "update.avast.com"),
    ),
    "system telemetry and settings": (
        *("telemetry.microsoft.com", "events.data.microsoft.com", "vortex.data.microsoft.com"),
        *("settings-win.data.microsoft.com", "watson.microsoft.com", "smartscreen.microsoft.com"),
        *("urs.microsoft.com", "licensing.mp.microsoft.com", "wns.windows.com"),
        *("login.live.com", "sls.microsoft.com"),
        *("ieonline.microsoft.com", "go.microsoft.com", "iecvlist.microsoft.com"),
        *("tile-service.weather.microsoft.com", "cdn.onenote.net"),
        *("safebrowsing.google.com", "safebrowsing.googleapis.com", "wpad"),
    ),
    "certificate status": (
        *("digicert.com", "symcd.com", "symcb.com", "verisign.com", "thawte.com", "geotrust.com"),
        *("omniroot.com", "usertrust.com", "comodoca.com", "comodoca4.com", "globalsign.com"),
        *("globalsign.net", "entrust.net", "identrust.com", "letsencrypt.org", "pki.goog"),
        *("amazontrust.com", "godaddy.com", "starfieldtech.com", "sectigo.com", "gandi.net"),
    ),
    "search and portals": (
        *("www.google.com", "bing.com", "msn.com", "s-msn.com", "duckduckgo.com"),
        *("search.yahoo.com", "fonts.googleapis.com", "ajax.googleapis.com", "fonts.gstatic.com"),
        *("ssl.gstatic.com", "www.gstatic.com", "ieframe.dll", "live.com.akadns.net"),
    ),
    "advertising and measurement": (
        *("doubleclick.net", "googlesyndication.com", "googleadservices.com", "adnxs.com"),
        *("google-analytics.com", "googletagmanager.com", "googletagservices.com", "2mdn.net"),
        *("scorecardresearch.com", "chartbeat.net", "chartbeat.com", "demdex.net", "omtrdc.net"),
        *("advertising.com", "atwola.com", "bizographics.com", "rubiconproject.com", "criteo.com"),
        *("adsrvr.org", "casalemedia.com", "pubmatic.com", "openx.net", "quantserve.com"),
        *("moatads.com", "taboola.com", "outbrain.com", "bluekai.com", "krxd.net", "rlcdn.com"),
        *("everesttech.net", "mathtag.com", "turn.com", "yieldmo.com", "serving-sys.com"),
    ),
}
"""Names by what they are for; a name counts with everything below it."""

STATUS_LABELS: Final = ("ocsp", "ocsp2", "crl", "crl2", "crl3", "crl4", "crls")
"""First labels of names that answer questions about certificates, whoever runs them."""

_SUFFIX: Final = "|".join(
    name.replace(".", r"\.") for names in BACKGROUND.values() for name in names
)
_PATTERN: Final = rf"(^|\.)({_SUFFIX})$|^({'|'.join(STATUS_LABELS)})[0-9]*\."


def is_background() -> pl.Expr:
    """Whether a flow asks for a name that a host asks for whether it is infected or not.

    For frames with the columns `tls_sni` and `dns_query` of a flow table.
    """
    asked = pl.when(pl.col("tls_sni") != "").then("tls_sni").otherwise("dns_query")
    return asked.str.to_lowercase().str.strip_chars_end(".").str.contains(_PATTERN)
