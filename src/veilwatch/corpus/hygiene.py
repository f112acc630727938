"""Label hygiene: what an infected host would also have said without its infection.

A capture is labelled as a whole, but its host also fetches updates, checks certificates, searches
and is shown advertising. Such flows are recognised by the name that they ask for. Only names of
services that carry nobody else's content are listed: file sharing and web storage (OneDrive,
Google Drive, buckets), pages that anybody may write, web mail, links that lead elsewhere, clouds
where anybody may rent a name, push services and services that tell a host its public address are
used by malware and stay with their capture's label.
"""

from __future__ import annotations

from typing import Final

import polars as pl

BACKGROUND: Final[dict[str, tuple[str, ...]]] = {
    # Asked by every system of its kind by itself; what comes back is its maker's, signed.
    "system updates and time": (
        *("windowsupdate.com", "update.microsoft.com", "windowsupdate.microsoft.com"),
        *("delivery.mp.microsoft.com", "do.dsp.mp.microsoft.com", "dsx.mp.microsoft.com"),
        *("download.microsoft.com", "msftncsi.com", "msftconnecttest.com", "time.windows.com"),
        *("au-msedge.net", "definitionupdates.microsoft.com", "wd.microsoft.com"),
        *("ipv6.microsoft.com", "ipv4only.arpa"),
        *("ntp.org", "time.apple.com", "time.google.com", "time.android.com", "time.nist.gov"),
        *("swscan.apple.com", "swcdn.apple.com", "swdist.apple.com", "mesu.apple.com"),
        *("gdmf.apple.com", "captive.apple.com"),
        *("archive.ubuntu.com", "security.ubuntu.com", "ports.ubuntu.com", "ntp.ubuntu.com"),
        *("connectivity-check.ubuntu.com", "changelogs.ubuntu.com", "motd.ubuntu.com"),
        *("deb.debian.org", "security.debian.org", "ftp.debian.org", "httpredir.debian.org"),
        *("connectivitycheck.gstatic.com", "connectivitycheck.android.com"),
        *("android.clients.google.com", "android.googleapis.com"),
    ),
    # Telemetry, settings and pictures of the system's own screens. Of akamaized.net, akadns.net and
    # trafficmanager.net, where anybody may have a name, only those of Microsoft.
    "system telemetry and settings": (
        *("telemetry.microsoft.com", "data.microsoft.com", "watson.microsoft.com"),
        *("aria.microsoft.com", "sqm.microsoft.com", "smartscreen.microsoft.com"),
        *("smartscreen-prod.microsoft.com", "checkappexec.microsoft.com", "wdcp.microsoft.com"),
        *("wdcpalt.microsoft.com", "spynet2.microsoft.com", "urs.microsoft.com"),
        *("licensing.mp.microsoft.com", "sls.microsoft.com", "login.live.com", "c.live.com"),
        *("wns.windows.com", "activity.windows.com", "maps.windows.com"),
        *("inference.location.live.net", "api.iris.microsoft.com", "api.cdp.microsoft.com"),
        *("ieonline.microsoft.com", "go.microsoft.com", "iecvlist.microsoft.com"),
        *("r20swj13mr.microsoft.com", "edge.microsoft.com", "static.edge.microsoftapp.net"),
        *("weather.microsoft.com", "markets.books.microsoft.com", "services.social.microsoft.com"),
        *("cdn.onenote.net", "s-microsoft.com", "store-images.microsoft.com", "www.microsoft.com"),
        *("msedge.net", "footprintdns.com", "exp-tas.com"),
        *("config.edge.skype.com", "config.skype.com"),
        *("microsoft.com.nsatc.net", "windows.com.nsatc.net", "live.com.nsatc.net"),
        *("msn.com.nsatc.net", "microsoft.com.akadns.net", "windows.com.akadns.net"),
        *("msn.com.akadns.net", "live.com.akadns.net"),
        *("settingsfd-geo.trafficmanager.net", "asimov.events.data.trafficmanager.net"),
        *("img-prod-cms-rt-microsoft-com.akamaized.net", "officecdn-microsoft-com.akamaized.net"),
        *("ls.apple.com", "configuration.apple.com", "init.itunes.apple.com", "xp.apple.com"),
        *("bag.itunes.apple.com", "gs-loc.apple.com", "radarsubmissions.apple.com"),
        "play.googleapis.com",
    ),
    # What is installed on most desks asks at every start for news of itself.
    "office suites": (
        *("officecdn.microsoft.com", "officeclient.microsoft.com", "ecs.office.com"),
        *("clients.config.office.net", "templates.cdn.office.net", "res.cdn.office.net"),
        *("content.office.net", "osi.office.net", "nel.measure.office.net"),
        *("lifecycle.office.com", "templateservice.office.com"),
        # Not all of officeapps.live.com: its viewer shows documents of anybody.
        *("nexus.officeapps.live.com", "nexusrules.officeapps.live.com"),
        *("odc.officeapps.live.com", "ocws.officeapps.live.com", "ocsredir.officeapps.live.com"),
        *("roaming.officeapps.live.com", "mrodevicemgr.officeapps.live.com"),
        "ols.officeapps.live.com",
    ),
    # Updates, lists and experiments of browsers; no add-ons, which are strangers', and no push.
    "browsers": (
        *("gvt1.com", "gvt2.com", "gvt3.com", "nel.goog", "dl.google.com", "cache.pack.google.com"),
        *(
            "update.googleapis.com",
            "clients1.google.com",
            "clients2.google.com",
            "tools.google.com",
        ),
        *("clients3.google.com", "clients4.google.com", "clientservices.googleapis.com"),
        *("optimizationguide-pa.googleapis.com", "content-autofill.googleapis.com"),
        *("safebrowsing.google.com", "safebrowsing.googleapis.com", "sb-ssl.google.com"),
        *("safebrowsing.googleusercontent.com", "safebrowsing.brave.com", "go-updater.brave.com"),
        *("variations.brave.com", "autoupdate.opera.com", "autoupdate.geo.opera.com"),
        *("sitecheck.opera.com", "exchange.opera.com", "osp.opera.software", "update.vivaldi.com"),
        *("firefox.settings.services.mozilla.com", "contile.services.mozilla.com"),
        *("shavar.services.mozilla.com", "classify-client.services.mozilla.com"),
        *("location.services.mozilla.com", "normandy.cdn.mozilla.net", "aus5.mozilla.org"),
        *("aus3.mozilla.org", "aus4.mozilla.org", "telemetry.mozilla.org", "ads.mozilla.org"),
        *("content-signature-2.cdn.mozilla.net", "tracking-protection.cdn.mozilla.net"),
        *("firefox-settings-attachments.cdn.mozilla.net", "download.cdn.mozilla.net"),
        *("download.mozilla.org", "detectportal.firefox.com", "spocs.getpocket.com"),
        *("versioncheck-bg.addons.mozilla.org", "use-application-dns.net"),
    ),
    # Updaters that run by themselves.
    "plug-ins and runtimes": (
        *("update.adobe.com", "armmf.adobe.com", "ardownload.adobe.com", "ardownload2.adobe.com"),
        *("acroipm.adobe.com", "acroipm2.adobe.com", "get.adobe.com", "geo2.adobe.com"),
        *("macromedia.com", "java.com", "java.sun.com", "javadl-esd.sun.com", "javadl.sun.com"),
        *("javadl-esd-secure.oracle.com", "javadl.oracle.com"),
    ),
    # Signatures and reputation. Their questions go out whatever runs on the host; forums and
    # sites of the makers are not listed.
    "antivirus": (
        *("update.nai.com", "sadownload.mcafee.com", "download.mcafee.com", "gti.mcafee.com"),
        *("api.mcafee.com", "update.avast.com", "ff.avast.com", "stats.avast.com", "avcdn.net"),
        *("update.avg.com", "kaspersky-labs.com", "geo.kaspersky.com", "touch.kaspersky.com"),
        *("symantecliveupdate.com", "liveupdate.symantec.com", "ratings-wrs.symantec.com"),
        *("shasta-rrs.symantec.com", "update.eset.com", "ts.eset.com", "nimbus.bitdefender.net"),
        *("upgrade.bitdefender.com", "avira-update.com", "mbamupdates.com", "mwbsys.com"),
        *("telemetry.malwarebytes.com", "sophosxl.net", "sophosupd.com", "sophosupd.net"),
        "activeupdate.trendmicro.com",
    ),
    # Revocation and missing links of chains, asked for with every handshake.
    "certificate status": (
        *("digicert.com", "symcd.com", "symcb.com", "verisign.com", "thawte.com", "geotrust.com"),
        *("omniroot.com", "usertrust.com", "comodoca.com", "comodoca4.com", "globalsign.com"),
        *("globalsign.net", "entrust.net", "identrust.com", "letsencrypt.org", "lencr.org"),
        *("pki.goog", "amazontrust.com", "godaddy.com", "starfieldtech.com", "sectigo.com"),
        *("gandi.net", "rapidssl.com", "certum.pl", "msocsp.com", "public-trust.com"),
        "ws.symantec.com",
    ),
    # Start pages of browsers, and what makes up their pages.
    "search and portals": (
        *("www.google.com", "bing.com", "msn.com", "s-msn.com", "duckduckgo.com"),
        *("search.yahoo.com", "search.brave.com", "www.mozilla.org", "www.firefox.com"),
        *("fonts.googleapis.com", "ajax.googleapis.com", "fonts.gstatic.com", "ssl.gstatic.com"),
        *("www.gstatic.com", "csi.gstatic.com", "ogs.google.com", "apis.google.com"),
        *("img-s-msn-com.akamaized.net", "static-spartan-eas-s-msn-com.akamaized.net"),
        *("static-hp-eus-s-msn-com.akamaized.net", "static-hp-wus-s-msn-com.akamaized.net"),
        *("statics-marketingsites-eus-ms-com.akamaized.net", "ieframe.dll", "s.yimg.com"),
        *("statics-marketingsites-wcus-ms-com.akamaized.net", "o.aolcdn.com"),
    ),
    # In most pages that a person opens. Of social networks only the scripts and counters that
    # others' pages include: what their users write is used as a dead drop.
    "advertising and measurement": (
        *("doubleclick.net", "googlesyndication.com", "googleadservices.com", "adnxs.com"),
        *("google-analytics.com", "googletagmanager.com", "googletagservices.com", "2mdn.net"),
        *("adservice.google.com", "adtrafficquality.google", "imasdk.googleapis.com"),
        *("scorecardresearch.com", "chartbeat.net", "chartbeat.com", "demdex.net", "omtrdc.net"),
        *("advertising.com", "atwola.com", "bizographics.com", "rubiconproject.com", "criteo.com"),
        *("adsrvr.org", "casalemedia.com", "pubmatic.com", "openx.net", "quantserve.com"),
        *("moatads.com", "taboola.com", "outbrain.com", "bluekai.com", "krxd.net", "rlcdn.com"),
        *("everesttech.net", "mathtag.com", "turn.com", "yieldmo.com", "serving-sys.com"),
        *("adtechus.com", "adtech.de", "adap.tv", "pictela.net", "gravity.com", "grvcdn.com"),
        *("gravity.com.akadns.net", "ads.linkedin.com", "snap.licdn.com", "connect.facebook.net"),
        *("static.xx.fbcdn.net", "static.ak.fbcdn.net", "fbstatic-a.akamaihd.net"),
        *("static.ak.facebook.com", "staticxx.facebook.com", "platform.twitter.com"),
        *("syndication.twitter.com", "analytics.twitter.com", "ads-twitter.com", "ads.yahoo.com"),
        *("analytics.yahoo.com", "amazon-adsystem.com", "adsafeprotected.com", "adform.net"),
        *("bidswitch.net", "1rx.io", "tapad.com", "exelator.com", "agkn.com", "dotomi.com"),
        *("spotxchange.com", "stickyadstv.com", "sitescout.com", "ipredictive.com", "clarity.ms"),
        *("samplicio.us", "tidaltv.com", "smartadserver.com", "media.net", "contextweb.com"),
        *("adobedtm.com", "adobedc.net", "2o7.net", "stats.adobe.com", "sstats.adobe.com"),
        *("app-measurement.com", "appsflyer.com", "appsflyersdk.com", "crashlytics.com"),
        "crashlyticsreports-pa.googleapis.com",
        *("flurry.com", "adjust.com", "applovin.com", "unityads.unity3d.com", "localytics.com"),
    ),
    # Asked for by multicast, and of the names of private addresses (RFC 6763, RFC 6303): printers,
    # televisions, other hosts.
    "neighbours": (
        *("_tcp.local", "_udp.local", "10.in-addr.arpa", "168.192.in-addr.arpa"),
        *(f"{second}.172.in-addr.arpa" for second in range(16, 32)),
        *("254.169.in-addr.arpa", "8.e.f.ip6.arpa", "d.f.ip6.arpa"),
    ),
}
"""Names by what they are for; a name counts with everything below it."""

STATUS_LABELS: Final = ("ocsp", "ocsp2", "crl", "crl2", "crl3", "crl4", "crls")
"""First labels of names that answer questions about certificates, whoever runs them."""

LOCAL_LABELS: Final = ("wpad", "isatap")
"""First labels by which Windows looks for a proxy and a tunnel in its own domain, again and again,
whatever the domain is called."""

ASKED: Final = ("tls_sni", "dns_query")
"""Columns of a flow table with the name that a flow asks for."""

_SUFFIX: Final = "|".join(
    name.replace(".", r"\.") for names in BACKGROUND.values() for name in names
)
_PATTERN: Final = "|".join(
    (
        rf"(^|\.)({_SUFFIX})$",
        rf"^({'|'.join(STATUS_LABELS)})[0-9]*\.",
        rf"^({'|'.join(LOCAL_LABELS)})(\.|$)",
    )
)


def is_background(*more: str) -> pl.Expr:
    """Whether a flow asks for a name that a host asks for whether it is infected or not.

    For frames with the columns `ASKED` of a flow table.

    Parameters
    ----------
    more
        Further columns of names, '' none, for flows that ask for none themselves: as the one that
        their destination was resolved from.
    """
    names = [pl.when(pl.col(name) != "").then(name) for name in (*ASKED, *more)]
    asked = pl.coalesce(names).fill_null("")
    return asked.str.to_lowercase().str.strip_chars_end(".").str.contains(_PATTERN)
