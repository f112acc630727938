"""Veilwatch sees malware in encrypted traffic of a mobile core, without decrypting it.

What stands in `__all__` is the public API (docs/api.md): it keeps its meaning within a major
version. Importing Veilwatch loads none of it and changes nothing in the process; each name is
loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from veilwatch.api import (
        FlowOptions,
        build_lab,
        check_detector,
        compare,
        compute_features,
        detect,
        evaluate,
        field_capture,
        iter_flows,
        load_corpus,
        load_model,
        read_flows,
        save_model,
        train,
    )
    from veilwatch.corpus.catalogue import Corpus
    from veilwatch.errors import (
        CaptureError,
        CorpusError,
        ModelError,
        OutputError,
        PluginError,
        TrainingError,
        VeilwatchError,
        VeilwatchWarning,
    )
    from veilwatch.learning.comparison import Comparison
    from veilwatch.learning.detectors import Detector, DetectorSettings, TrainingSet
    from veilwatch.learning.models import Model
    from veilwatch.progress import Progress
    from veilwatch.runs import Detection, Evaluation
    from veilwatch.schema.alerts import Alert
    from veilwatch.schema.events import Event
    from veilwatch.schema.features import FeatureFrame, FeatureSchema
    from veilwatch.sinks.address import Address
    from veilwatch.sinks.base import DeliveryLog, EncodedEvent, Sink

__all__ = [
    "Address",
    "Alert",
    "CaptureError",
    "Comparison",
    "Corpus",
    "CorpusError",
    "DeliveryLog",
    "Detection",
    "Detector",
    "DetectorSettings",
    "EncodedEvent",
    "Evaluation",
    "Event",
    "FeatureFrame",
    "FeatureSchema",
    "FlowOptions",
    "Model",
    "ModelError",
    "OutputError",
    "PluginError",
    "Progress",
    "Sink",
    "TrainingError",
    "TrainingSet",
    "VeilwatchError",
    "VeilwatchWarning",
    "__version__",
    "build_lab",
    "check_detector",
    "compare",
    "compute_features",
    "detect",
    "evaluate",
    "field_capture",
    "iter_flows",
    "load_corpus",
    "load_model",
    "read_flows",
    "save_model",
    "train",
]

__version__: str

_ELSEWHERE: Final = {
    "Address": "veilwatch.sinks.address:Address",
    "Alert": "veilwatch.schema.alerts:Alert",
    "CaptureError": "veilwatch.errors:CaptureError",
    "Comparison": "veilwatch.learning.comparison:Comparison",
    "Corpus": "veilwatch.corpus.catalogue:Corpus",
    "CorpusError": "veilwatch.errors:CorpusError",
    "DeliveryLog": "veilwatch.sinks.base:DeliveryLog",
    "Detection": "veilwatch.runs:Detection",
    "Detector": "veilwatch.learning.detectors:Detector",
    "DetectorSettings": "veilwatch.learning.detectors:DetectorSettings",
    "EncodedEvent": "veilwatch.sinks.base:EncodedEvent",
    "Evaluation": "veilwatch.runs:Evaluation",
    "Event": "veilwatch.schema.events:Event",
    "FeatureFrame": "veilwatch.schema.features:FeatureFrame",
    "FeatureSchema": "veilwatch.schema.features:FeatureSchema",
    "Model": "veilwatch.learning.models:Model",
    "ModelError": "veilwatch.errors:ModelError",
    "OutputError": "veilwatch.errors:OutputError",
    "PluginError": "veilwatch.errors:PluginError",
    "Progress": "veilwatch.progress:Progress",
    "Sink": "veilwatch.sinks.base:Sink",
    "TrainingError": "veilwatch.errors:TrainingError",
    "TrainingSet": "veilwatch.learning.detectors:TrainingSet",
    "VeilwatchError": "veilwatch.errors:VeilwatchError",
    "VeilwatchWarning": "veilwatch.errors:VeilwatchWarning",
}
"""Names that are not of `veilwatch.api`, and where they are: `module:name`. A test holds that
type checkers read the same above."""

if not TYPE_CHECKING:  # type checkers know the names above, and no others

    def __getattr__(name: str) -> Any:
        """Load a public name when it is first asked for."""
        if name == "__version__":
            found: Any = _version()
        elif name in __all__:
            from importlib import import_module

            module, _, inner = _ELSEWHERE.get(name, f"veilwatch.api:{name}").partition(":")
            found = getattr(import_module(module), inner)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        """Return what is loaded and what can be."""
        return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("veilwatch")
    except PackageNotFoundError:  # running from a source tree that was never installed
        return "0.0.0"
