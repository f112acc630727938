"""Tables of every older version become the newest, with what they held, or stay as they were."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from tests.store.samples import make_incident
from veilwatch.errors import StoreError
from veilwatch.schema.convert import incident_to_plain
from veilwatch.store import Store
from veilwatch.store.database import Database, parse_url
from veilwatch.store.migrations import NEWEST, migrate, read_version
from veilwatch.store.tables import metadata


def make_version(url: str, version: int) -> None:
    """Make the tables of an older version, with an incident in them."""
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        migrate(connection, to=version)
        incident = make_incident(0)
        row = {
            "incident_id": incident.incident_id,
            "status": "open",
            "host": incident.host,
            "subscriber": "",
            "family": "",
            "severity": 2,
            "opened_ns": incident.opened_ns,
            "last_ns": incident.last_ns,
            "alerts": 1,
            "document": json.dumps(incident_to_plain(incident)),
        }
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        connection.execute(text(f"INSERT INTO vw_incidents ({names}) VALUES ({values})"), row)
    engine.dispose()


@pytest.mark.parametrize("version", range(1, NEWEST))
def test_an_older_store_is_brought_up_to_date(url: str, version: int) -> None:
    make_version(url, version)
    with pytest.raises(StoreError, match=f"tables of version {version}"):
        Store(url, create=False)
    with Store(url) as store:
        assert store.incidents()[0].incident == make_incident(0)
        store.close_incident(make_incident(0).incident_id, who="ana")


def test_the_tables_are_those_that_the_code_reads(url: str) -> None:
    database = Database(url)
    with database.reading() as connection:
        assert read_version(connection) == NEWEST
        found = inspect(connection)
        for table in metadata.sorted_tables:
            columns = {
                c["name"]: (str(c["type"]), c["nullable"]) for c in found.get_columns(table.name)
            }
            assert set(columns) == set(table.c.keys())
            for column in table.c:
                kind = column.type.compile(connection.dialect)
                kinds = {kind, "REAL"} if kind == "DOUBLE" else {kind}  # SQLite has one of both
                assert columns[column.name][0] in kinds, (table.name, column.name)
                assert not columns[column.name][1]
            keys = found.get_pk_constraint(table.name)["constrained_columns"]
            assert keys == [column.name for column in table.primary_key]
    database.close()


def test_a_later_release_is_told_apart(url: str) -> None:
    Store(url).close()
    database = Database(url)
    with database.writing() as connection:
        connection.execute(text("UPDATE vw_version SET version = 99"))
    database.close()
    for create in (True, False):
        with pytest.raises(StoreError, match="later release"):
            Store(url, create=create)


def test_a_step_that_fails_leaves_the_version_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "x.db")
    make_version(url, 1)
    from veilwatch.store import migrations

    broken = (migrations.STEPS[0], (*migrations.STEPS[1], "CREATE TABLE vw_events (x INTEGER)"))
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "STEPS", broken)
        with pytest.raises(StoreError, match="already exists"):
            Store(url)
    with Store(url) as store:
        assert len(store.incidents()) == 1


def test_two_that_open_an_old_store_at_once_change_it_once(url: str) -> None:
    make_version(url, 1)
    faults: list[BaseException] = []

    def open_it() -> None:
        try:
            Store(url).close()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
