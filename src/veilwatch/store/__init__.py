"""What a sensor keeps: events, incidents, verdicts and counters in a database, flows in files.

See docs/architecture.md for what this package is for.
"""

from veilwatch.store.archive import ArchiveLimits, FlowArchive
from veilwatch.store.database import set_aside
from veilwatch.store.flow_erasure import ForgottenFlows, forget_flows
from veilwatch.store.query import EventFilter, StoredEvent
from veilwatch.store.retention import Retention, RetentionReport
from veilwatch.store.rows import StoredIncident
from veilwatch.store.store import Store

__all__ = [
    "ArchiveLimits",
    "EventFilter",
    "FlowArchive",
    "ForgottenFlows",
    "Retention",
    "RetentionReport",
    "Store",
    "StoredEvent",
    "StoredIncident",
    "forget_flows",
    "set_aside",
]
