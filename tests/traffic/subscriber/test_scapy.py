"""Messages that scapy builds, an implementation of its own, are read as they were meant."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib import gtp_v2, pfcp

from tests.examples import examples
from tests.traffic.subscriber.build import IMSI, address
from veilwatch.traffic.subscriber import KeyRing
from veilwatch.traffic.subscriber.gtpv2 import parse as parse_gtpv2
from veilwatch.traffic.subscriber.identity import Identifier
from veilwatch.traffic.subscriber.messages import ACCESS, CORE, End, Leg, Procedure, Tunnel
from veilwatch.traffic.subscriber.pfcp import LOCAL, PEER
from veilwatch.traffic.subscriber.pfcp import parse as parse_pfcp
from veilwatch.traffic.subscriber.values import ValueReader

pytest.importorskip("pycrate_mobile")

KEYS = KeyRing(bytes(32))
teids = st.integers(1, 2**32 - 1)
addresses = st.integers(1, 2**32 - 1).map(lambda n: str(IPv4Address(n)))


@examples(40)
@given(teids, addresses, teids, addresses, addresses, st.integers(5, 15), st.integers(0, 2**24 - 1))
def test_a_create_session_response(
    control: int, sgw: str, user: int, where: str, ue: str, ebi: int, sequence: int
) -> None:
    built = gtp_v2.GTPHeader(seq=sequence, gtp_type=33, T=1, teid=9) / (
        gtp_v2.GTPV2CreateSessionResponse(
            IE_list=[
                gtp_v2.IE_Cause(Cause=16),
                gtp_v2.IE_FTEID(ipv4_present=1, InterfaceType=11, GRE_Key=control, ipv4=sgw),
                gtp_v2.IE_PAA(PDN_type=1, ipv4=ue),
                gtp_v2.IE_BearerContext(
                    IE_list=[
                        gtp_v2.IE_EPSBearerID(EBI=ebi),
                        gtp_v2.IE_FTEID(ipv4_present=1, InterfaceType=1, GRE_Key=user, ipv4=where),
                    ]
                ),
            ]
        )
    )
    values = ValueReader()
    message = parse_gtpv2(bytes(built), Identifier(KEYS), values)
    assert message is not None and not values.refused
    assert (message.sequence, message.context, message.accepted) == (sequence, 9, True)
    assert message.control == [End(address(sgw), control)]
    assert message.addresses == [address(ue)]
    assert message.tunnels == [Tunnel(Leg(ebi, 1), CORE, (End(address(where), user),))]


def test_a_create_session_request() -> None:
    built = gtp_v2.GTPHeader(seq=1, gtp_type=32, T=1) / gtp_v2.GTPV2CreateSessionRequest(
        IE_list=[
            gtp_v2.IE_IMSI(IMSI=IMSI),
            gtp_v2.IE_APN(APN="internet.mnc001"),
            gtp_v2.IE_ULI(
                TAI_Present=1,
                ECGI_Present=1,
                TAI=gtp_v2.ULI_TAI(MCC="466f", MNC="92", TAC=7),
                ECGI=gtp_v2.ULI_ECGI(MCC="466f", MNC="92", ECI=1000),
            ),
        ]
    )
    message = parse_gtpv2(bytes(built), Identifier(KEYS), ValueReader())
    assert message is not None and message.procedure is Procedure.CREATE and message.request
    assert message.token == KEYS.token("imsi", IMSI.encode())
    assert message.apn == "internet.mnc001"
    assert message.location == "TAI 466-92-7, ECGI 466-92-1000"


@examples(40)
@given(
    st.integers(1, 2**64 - 1), addresses, teids, addresses, teids, addresses, addresses
)  # fmt: skip
def test_a_session_establishment(
    seid: int, smf: str, own: int, upf: str, peer: int, gnb: str, ue: str
) -> None:
    built = pfcp.PFCP(version=1, S=1, seq=5, seid=0) / pfcp.PFCPSessionEstablishmentRequest(
        IE_list=[
            pfcp.IE_NodeId(id_type=0, ipv4=smf),
            pfcp.IE_FSEID(v4=1, seid=seid, ipv4=smf),
            pfcp.IE_CreatePDR(
                IE_list=[
                    pfcp.IE_PDR_Id(id=3),
                    pfcp.IE_PDI(
                        IE_list=[
                            pfcp.IE_SourceInterface(interface=0),
                            pfcp.IE_FTEID(V4=1, TEID=own, ipv4=upf),
                            pfcp.IE_UE_IP_Address(V4=1, ipv4=ue),
                        ]
                    ),
                ]
            ),
            pfcp.IE_CreateFAR(
                IE_list=[
                    pfcp.IE_FAR_Id(id=4),
                    pfcp.IE_ApplyAction(FORW=1),
                    pfcp.IE_ForwardingParameters(
                        IE_list=[
                            pfcp.IE_DestinationInterface(interface=0),
                            pfcp.IE_OuterHeaderCreation(GTPUUDPIPV4=1, TEID=peer, ipv4=gnb),
                        ]
                    ),
                ]
            ),
        ]
    )
    values = ValueReader()
    message = parse_pfcp(bytes(built), Identifier(KEYS), values)
    assert message is not None and not values.refused
    assert message.control == [End(address(smf), seid)] and message.addresses == [address(ue)]
    assert message.tunnels == [
        Tunnel(Leg(3, LOCAL), CORE, (End(address(upf), own),)),
        Tunnel(Leg(4, PEER), ACCESS, (End(address(gnb), peer),)),
    ]
