# %% [markdown]
# # An analyst's day
#
# A capture of a busy link comes in. Which subscribers are infected, why does the model say so,
# and what goes into the report? The traffic here is emulated; the model is that of the
# researcher's day, or is trained now.

# %%
import csv
import os
from pathlib import Path

import polars as pl

import veilwatch

folder = Path(os.environ.get("VEILWATCH_EXAMPLES", "examples-output"))
scale = float(os.environ.get("VEILWATCH_EXAMPLES_SCALE", "1"))

# %%
if not (folder / "model").is_dir():
    manifest = veilwatch.build_lab(folder / "lab", scale=scale)
    veilwatch.save_model(veilwatch.train(manifest, folds=2, threads=1), folder / "model")
model = veilwatch.load_model(folder / "model")
print(f"{model.manifest.name}, trained {model.manifest.created}")

capture = folder / "n3.pcapng"
truth = veilwatch.field_capture(capture, subscribers=20, infected=4, scale=scale)

# %% [markdown]
# ## Who is infected?
# Hosts with their scores, most suspicious first. `probability` is what the score means where one
# host in a thousand is infected.

# %%
found = veilwatch.detect(capture, model, output=folder / "results")
columns = ["host", "score", "alert", "family", "probability", "flows", "alerts"]
print(found.hosts.sort("score", descending=True).select(columns).head(8))

# %% [markdown]
# ## Why?
# Each alert names what moved the score most, with the range that benign traffic has.

# %%
for alert in [alert for alert in found.alerts if alert.kind == "host"][:3]:
    print(f"{alert.host} (severity {alert.severity}): {alert.family or 'no family'}")
    for reason in alert.reasons[:3]:
        print(f"    {reason.text}")

# %% [markdown]
# ## Where does it talk to?
# The flow table goes on where the alert ends: what the most suspicious host reached, and how.

# %%
worst = found.hosts.sort("score", descending=True)["host"][0]
talks = (
    found.flows.filter(pl.col("src_ip") == worst)
    .group_by("dst_ip", "dst_port", "service", "tls_sni")
    .agg(flows=pl.len(), sent=pl.col("fwd_payload_bytes").sum(), score=pl.col("score").max())
    .sort("score", descending=True)
)
print(talks.head(8))

# %% [markdown]
# ## What goes on?
# `detect` wrote the files of `veilwatch detect`: `eve.json` for the SIEM, `flows.parquet`, the
# page, a summary. `report` writes the page anywhere else.

# %%
print(f"report: {found.report(folder / 'report.html')}")

# %% [markdown]
# ## The truth, for once
# The lab knows who is infected.

# %%
with truth.open(newline="", encoding="utf-8") as lines:
    infected = {row["subscriber"] for row in csv.DictReader(lines) if row["label"] == "malicious"}
alerted = set(found.hosts.filter("alert")["host"])
print(f"{len(infected & alerted)} of {len(infected)} infected subscribers alerted")
print(f"{len(alerted - infected)} others alerted")
