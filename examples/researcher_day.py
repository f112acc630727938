# %% [markdown]
# # A researcher's day
#
# From labelled captures to features, to figures that a sceptic accepts, to a model. The captures
# here are emulated: what follows shows how it is done and says nothing about real malware.

# %%
import os
from pathlib import Path

import veilwatch

folder = Path(os.environ.get("VEILWATCH_EXAMPLES", "examples-output"))
scale = float(os.environ.get("VEILWATCH_EXAMPLES_SCALE", "1"))

# %% [markdown]
# ## Captures
# A corpus is a manifest: a CSV file with a row for each capture, its label, its family, and what
# must stay together when the corpus is split. Here the lab writes one.

# %%
manifest = veilwatch.build_lab(folder / "lab", scale=scale)
corpus = veilwatch.load_corpus(manifest)
print(f"{len(corpus.entries)} captures, {corpus.flows.height:,} flows")
print(corpus.flows["service"].value_counts(sort=True).head())

# %% [markdown]
# ## Flows and features
# Flows are a Polars table, one row each (docs/flows.md). Features are what detectors see of them
# (docs/features.md); `to_pandas()` and `to_numpy()` are there too.

# %%
capture = next(entry.file for entry in corpus.entries if entry.label == "malicious")
flows = veilwatch.read_flows(capture)
print(flows.select("src_ip", "dst_ip", "dst_port", "service", "fwd_bytes", "bwd_bytes").head())

features = veilwatch.compute_features(flows, ["statistics", "sequence"])
table = features.to_polars()
print(f"{len(features)} flows, {len(features.schema.names)} features")
print(table.select("fwd_size_mean", "bwd_size_mean", "pause_std").head())

# %% [markdown]
# ## How good is it?
# Never split by flow: flows of one capture resemble each other. Here whole groups (a source, a
# family, a day) are held out, and each fold is scored by detectors that never saw it.

# %%
held_out = veilwatch.evaluate(corpus, split="group", folds=2, threads=1)
for level in ("flow", "capture"):
    found = held_out.figures["mean_of_folds"][level]["detection_rate_at_fpr"]
    print(f"{level}: at a false-positive rate of 1 % {found['0.01']:.3f} are found, mean of folds")
print(f"page: {held_out.report(folder / 'held-out.html')}")

# %% [markdown]
# ## Which detector?
# `compare` runs detectors under the same splits, with gates against leaks and shortcuts, and
# recommends one. Finished folds are kept: a second call goes on from there.

# %%
comparison = veilwatch.compare(
    manifest,
    folder / "comparison",
    detectors=["lightgbm", "host_window"],
    splits=["group"],
    folds=2,
    changed=0,
)
for gate in comparison.gates:
    print(f"{gate.name}: {'passed' if gate.passed else 'not passed'}")
print(comparison.recommendation.text)

# %% [markdown]
# ## A model to hand over
# A model is a folder: the trained detectors, and a manifest that says what it learned from, with
# which features, and how it did on what it never saw. The analyst's day goes on from here.

# %%
model = veilwatch.train(corpus, folds=2, threads=1, name="LightGBM on emulated traffic")
print(f"model: {veilwatch.save_model(model, folder / 'model')}")
