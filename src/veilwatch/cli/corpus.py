"""`veilwatch corpus`: manifests, their flows, blends, and GTP-U wrapping."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from veilwatch.cli import reading
from veilwatch.cli.options import CorpusManifest, Processes, Seed, Threads
from veilwatch.cli.outputs import Force, check_folder, check_output, leaving, output_option
from veilwatch.cli.realism import print_realism
from veilwatch.cli.terminal import AsJson, Quiet, console, warn, warn_of_faults, working
from veilwatch.corpus.blend import SIZES
from veilwatch.corpus.blend_files import PER_SIZE, REFUSED, BlendOptions, write_blends
from veilwatch.corpus.catalogue import load_corpus
from veilwatch.corpus.encapsulate import EncapsulateOptions, encapsulate, parse_networks
from veilwatch.corpus.lab import build_lab
from veilwatch.corpus.manifest import read_manifest
from veilwatch.errors import CorpusError
from veilwatch.report.listing import Listing, numbers, texts, whole

app = typer.Typer(
    no_args_is_help=True,
    help="Catalogues of labelled captures.",
    rich_markup_mode=None,
)

MANIFEST: Final = "MANIFEST.csv"

CACHED: Final = "flows of captures that were read stay in the cache"

BLENDED: Final = "blends that are whole stay and are not made again"

Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST.csv", help="Labelled captures.")]


@app.command()
def show(
    manifest: Manifest,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Check a manifest and show what it holds, family by family.

    Example: `veilwatch corpus show MANIFEST.csv`
    """
    families: dict[tuple[str, str], dict[str, Any]] = defaultdict(
        lambda: {"captures": 0, "groups": set(), "sources": set(), "ransomware": False}
    )
    entries = read_manifest(manifest)
    for entry in entries:
        # Benign rows name single applications: they are summed up by source.
        name = entry.family if entry.label == "malicious" else entry.source_repo
        row = families[(entry.label, name)]
        row["captures"] += 1
        row["groups"].add(entry.group)
        row["sources"].add(entry.source_repo)
        row["ransomware"] |= entry.is_ransomware
    rows = [
        {
            "label": label,
            "family": name,
            "captures": row["captures"],
            "groups": len(row["groups"]),
            "sources": len(row["sources"]),
            "ransomware": row["ransomware"],
        }
        for (label, name), row in sorted(
            families.items(), key=lambda item: (item[0][0], -item[1]["captures"])
        )
    ]
    if as_json:
        typer.echo(json.dumps({"captures": len(entries), "families": rows}, indent=1))
        return
    counted = numbers("captures", "groups", "sources")
    table = Listing([*whole("label"), *texts("family or source"), *counted, *whole("ransomware")])
    for item in rows:
        table.add(
            *(item["label"], Text(item["family"]), f"{item['captures']:,}"),
            *(f"{item['groups']:,}", f"{item['sources']:,}", "yes" if item["ransomware"] else ""),
        )
    console.print(table)
    if not quiet:
        console.print(f"{len(entries):,} captures")


@app.command()
def extract(
    manifest: Manifest,
    workers: Processes = 0,
    quiet: Quiet = False,
) -> None:
    """Read the flows of every capture into the cache, ahead of training.

    Example: `veilwatch corpus extract MANIFEST.csv`
    """
    with working(quiet) as progress, leaving(kept=CACHED):
        corpus = load_corpus(manifest, workers=workers or None, progress=progress)
    for name, fault in corpus.faults.items():
        warn(f"{name}: {fault}")
    if not quiet:
        console.print(f"{corpus.flows.height:,} flows of {len(corpus.entries):,} captures")
    if corpus.faults:
        raise typer.Exit(reading.INCOMPLETE)


@app.command(name="encapsulate")
def wrap(
    captures: Annotated[list[str], typer.Argument(metavar="CAPTURE", help="Captures to wrap.")],
    output: Annotated[Path, output_option("FILE.pcapng", "Where to write.")],
    inside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address or network of subscribers; may be given more than once.",
        ),
    ] = None,
    pdu_session: Annotated[
        bool, typer.Option(help="Add a PDU session container with QFI, as on N3.")
    ] = True,
    outer_ipv6: Annotated[bool, typer.Option("--outer-ipv6", help="Tunnels over IPv6.")] = False,
    gnbs: Annotated[int, typer.Option(min=1, max=250, help="Base stations.")] = 4,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Wrap captures in GTP-U, as a probe on N3 would see them; marked as synthetic wrapping.

    Example: `veilwatch corpus encapsulate infected.pcap -o infected-n3.pcapng`
    """
    options = EncapsulateOptions(
        pdu_session=pdu_session,
        inside=parse_networks(inside) if inside else None,
        gnbs=gnbs,
        outer_ipv6=outer_ipv6,
        seed=seed,
    )
    check_output(output, force=force)
    with working(quiet) as progress, leaving(output):
        summary = encapsulate(captures, output, options=options, progress=progress)
    warn_of_faults(summary.captures, quiet=quiet)
    dropped = ", ".join(
        f"{count:,} {reason.replace('_', ' ')}"
        for reason, count in summary.dropped.items()
        if count
    )
    nothing = 0 < summary.read == sum(summary.dropped[reason] for reason in ("not_ip", "cut"))
    if nothing:
        warn(f"none of {summary.read:,} packets could be decoded: {dropped}")
    elif not quiet:
        console.print(
            f"{summary.uplink + summary.downlink:,} of {summary.read:,} packets wrapped for "
            f"{len(summary.subscribers):,} subscribers ({summary.uplink:,} up, "
            f"{summary.downlink:,} down)" + (f"; dropped: {dropped}" if dropped else "")
        )
    if not quiet:
        console.print(Text(f"Synthetic wrapping, written to {output}"))
    reading.settle(summary.captures)
    if nothing:
        raise typer.Exit(reading.INCOMPLETE)


@app.command()
def blend(
    manifest: CorpusManifest,
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where to write captures and manifest.")
    ],
    sizes: Annotated[
        str, typer.Option(metavar="N,N", help="How many used hosts are merged with a capture.")
    ] = ",".join(map(str, SIZES)),
    per_size: Annotated[
        int, typer.Option(min=1, max=100_000, help="Captures of each size, chosen at random.")
    ] = PER_SIZE,
    families: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="Only captures of these; all by default.")
    ] = "",
    benign: Annotated[
        bool, typer.Option("--benign", help="Blend benign captures instead of malicious ones.")
    ] = False,
    workers: Processes = 0,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Merge captures with the traffic of people's hosts under one address; emulated use.

    Example: `veilwatch corpus blend --corpus MANIFEST.csv --out blends --sizes 1,3`
    """
    options = BlendOptions(
        sizes=_sizes(sizes),
        per_size=per_size,
        benign=benign,
        families=tuple(filter(None, (name.strip() for name in families.split(",")))),
        seed=seed,
    )
    check_folder(folder, MANIFEST, force=force)
    with working(quiet) as progress, leaving(kept=BLENDED):
        corpus = load_corpus(manifest, workers=workers or None, progress=progress)
        summary = write_blends(corpus, folder, options=options, progress=progress)
    for reason, names in summary.refused.items():
        others = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        warn(f"{names[0]}{others}: not blended, {REFUSED[reason]}")
    if quiet:
        return
    kept = len(summary.entries) - summary.made
    console.print(
        f"{len(summary.entries):,} blend{'s' if len(summary.entries) > 1 else ''}"
        + (f", {kept:,} of them from an earlier run" if kept else "")
        + (f"; {summary.left_out:,} connections left out" if summary.left_out else "")
    )
    console.print(Text(f"Emulated use of hosts, real or emulated packets: {summary.manifest}"))


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise CorpusError(
            f"not numbers of used hosts: {text[:40]!r}", where="--sizes", hint="as in 1,3,10"
        ) from error


@app.command()
def lab(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write the captures.")],
    seed: Seed = 7,
    scale: Annotated[float, typer.Option(min=0.01, max=20, help="Factor on the traffic.")] = 1.0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write emulated captures of ransomware-like families and benign applications.

    Example: `veilwatch corpus lab lab`
    """
    check_folder(folder, MANIFEST, force=force)
    with working(quiet) as progress, leaving(folder / MANIFEST):
        manifest = build_lab(folder, seed=seed, scale=scale, progress=progress)
    if not quiet:
        console.print(Text(f"Emulated corpus: {manifest}"))


@app.command()
def realism(
    emulated: Annotated[
        Path, typer.Argument(metavar="EMULATED.csv", help="Manifest of emulated captures.")
    ],
    real: Annotated[Path, typer.Argument(metavar="REAL.csv", help="Manifest of real captures.")],
    features: Annotated[
        int, typer.Option(min=1, max=400, help="Features shown, the most different first.")
    ] = 20,
    seed: Seed = 0,
    threads: Threads = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Tell how far emulated flows are from real ones, feature by feature.

    Example: `veilwatch corpus realism lab/MANIFEST.csv MANIFEST.csv`
    """
    # LightGBM and scikit-learn take seconds to load: only the verbs that need them pay.
    from veilwatch.learning.evaluation.realism import measure_realism

    with working(quiet or as_json) as progress, leaving(kept=CACHED):
        loaded = [
            load_corpus(path, workers=threads or None, progress=progress)
            for path in (emulated, real)
        ]
        if not loaded[0].emulated or loaded[1].emulated:
            wrong = real if loaded[0].emulated else emulated
            what = "marked as emulated" if loaded[0].emulated else "not marked as emulated"
            raise CorpusError(what, where=wrong, hint="name the emulated manifest first")
        samples = measure_realism(*loaded, seed=seed, threads=threads, progress=progress)
    if as_json:
        typer.echo(json.dumps({"samples": [item.document() for item in samples]}, indent=1))
        return
    print_realism(samples, features)
