"""ClientHellos beside what is published of the programs."""

from __future__ import annotations

from typing import get_args

import pytest

from veilwatch.corpus.lab.clients import CLIENTS, PADDING, Offer, Program, client_hello
from veilwatch.corpus.lab.draw import Draw

OFFER = Offer("a.example", ("h2", "http/1.1"), b"")


@pytest.mark.parametrize("program", get_args(Program))
def test_suites_and_extensions_are_offered_once(program: Program) -> None:
    client = CLIENTS[program]
    for values in (client.ciphers, client.groups, [e for e in client.extensions if e >= 0]):
        known = [value for value in values if value >= 0]
        assert len(set(known)) == len(known)
    assert set(client.shares) <= set(client.groups)


@pytest.mark.parametrize("name", ["a.example", "n" * 60 + ".example"])
def test_browsers_pad_what_some_servers_stumble_over(name: str) -> None:
    for program, client in CLIENTS.items():
        hello = client_hello(program, OFFER._replace(name=name), Draw(name))
        if PADDING in client.extensions:
            assert not 256 <= len(hello) - 5 < 512


def test_the_order_of_a_shuffling_browser_varies_and_others_do_not() -> None:
    def orders(program: Program) -> int:
        hellos = (client_hello(program, OFFER, Draw(key)) for key in range(6))
        return len({hello.index(b"a.example") for hello in hellos})

    assert orders("chrome-pq") > 1
    assert orders("schannel10") == orders("go") == 1


def test_a_ticket_is_shown() -> None:
    ticket = bytes(range(100))
    for program in ("openssl3", "schannel10"):
        assert ticket in client_hello(program, OFFER._replace(ticket=ticket), Draw(1))
