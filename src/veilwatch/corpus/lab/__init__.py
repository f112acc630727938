"""The lab: emulated families and applications on hosts that people use, as a probe on N3 sees them.

The traffic is emulated and says so in every file. It shows that the chain works and what a
detector can tell from behaviour; figures on it say nothing about real malware. An infection is a
small part of what its host says, and healthy hosts do odd things too. Volumes are kept small: a
bulk transfer stands for one of a hundred times its size.
"""

from veilwatch.corpus.lab.build import build_lab, field_capture
from veilwatch.corpus.lab.profile import Profile, load_profiles

__all__ = ["Profile", "build_lab", "field_capture", "load_profiles"]
