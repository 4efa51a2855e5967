"""The bad network itself: its arithmetic, and what the kernel's TCP makes of it."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random

import pytest
from bad_network import (
    QUEUE_SECONDS,
    Absence,
    BadNetwork,
    Carrier,
    Conditions,
    Direction,
    can_be_made,
    exchanged,
    reset,
)

SYN, ACK, RST = 2, 16, 4
PORT = 443


def packet(flags: int, *, sequence: int = 7, acknowledged: int = 9, payload: bytes = b"") -> bytes:
    """One from 10.0.0.1, port 5000, to 10.0.0.2, port 443."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(payload), 0, 0, 64, 6, 0)
    segment = struct.pack("!HHIIBBHHH", 5000, PORT, sequence, acknowledged, 80, flags, 0, 0, 0)
    return header + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + segment + payload


def total(data: bytes) -> int:
    """The internet checksum's sum: all ones where the checksum in it is right."""
    value = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


def test_packets_leave_one_after_the_other_and_arrive_a_delay_later() -> None:
    direction = Direction(Conditions(delay=2.0, rate=12_000), Random(1))

    arrivals = [direction.arrival(150, now=10.0) for _ in range(5)]  # each takes 0.1 s

    assert arrivals == pytest.approx([12.1, 12.2, 12.3, 12.4, 12.5])
    assert direction.arrival(150, now=100.0) == pytest.approx(102.1)


def test_a_queue_holds_no_more_than_a_second() -> None:
    direction = Direction(Conditions(rate=12_000), Random(1))

    arrivals = [direction.arrival(150, now=0.0) for _ in range(100)]

    kept = [arrival for arrival in arrivals if arrival is not None]
    assert len(kept) == pytest.approx(QUEUE_SECONDS / 0.1 + 1, abs=1)
    assert arrivals[-1] is None


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.5])
def test_as_many_packets_are_lost_as_the_conditions_say(loss: float) -> None:
    direction = Direction(Conditions(loss=loss), Random(1))

    lost = sum(direction.arrival(1500, now=0.0) is None for _ in range(20_000))

    assert lost / 20_000 == pytest.approx(loss, abs=5 * (loss * (1 - loss) / 20_000) ** 0.5)


def test_a_client_is_away_in_its_share_of_slots_and_all_of_a_slot() -> None:
    absence = Absence(Conditions(away=0.6, slot=10.0), Random(1))

    starts = [absence.at(10.0 * slot) for slot in range(5000)]

    assert sum(starts) / 5000 == pytest.approx(0.6, abs=0.04)
    assert [absence.at(10.0 * slot + 9.9) for slot in range(5000)] == starts


def test_a_reset_is_one_that_its_receiver_believes() -> None:
    refused = reset(packet(SYN))
    broken = reset(packet(ACK, payload=b"hello"))

    assert refused is not None
    assert broken is not None
    for answer in (refused, broken):
        assert answer[12:20] == bytes([10, 0, 0, 2, 10, 0, 0, 1])
        assert struct.unpack("!HH", answer[20:24]) == (PORT, 5000)
        assert total(answer[:20]) == 0xFFFF
        assert total(answer[12:20] + struct.pack("!HH", 6, 20) + answer[20:]) == 0xFFFF
    assert struct.unpack("!IIBB", refused[24:34]) == (0, 8, 80, RST | ACK)
    assert struct.unpack("!IIBB", broken[24:34]) == (9, 0, 80, RST)
    assert reset(packet(RST)) is None


@contextmanager
def carried(conditions: Conditions) -> Iterator[tuple[socket.socket, Carrier]]:
    """A carrier and the other end of its device."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, Carrier(theirs.fileno(), PORT, conditions) as carrier:
        ours.settimeout(20)
        yield ours, carrier


def test_a_packet_comes_back_late_with_its_ends_exchanged() -> None:
    sent = packet(ACK, payload=b"hello!")
    with carried(Conditions(delay=0.2)) as (device, carrier):
        began = time.monotonic()
        device.send(b"\x60" + sent[1:])  # as if it were IPv6
        device.send(sent)
        came = device.recv(2000)

    assert time.monotonic() - began >= 0.2
    assert came == exchanged(sent)
    assert (came[12:16], came[16:20]) == (sent[16:20], sent[12:16])
    assert (carrier.carried, carrier.lost) == (1, 0)


def test_a_client_that_is_away_is_refused_and_so_are_its_connections() -> None:
    sent = packet(ACK)
    with carried(Conditions(away=1.0)) as (device, carrier):
        device.send(sent)
        before = device.recv(2000)
        carrier.leave_now_and_then()
        broken = device.recv(2000)
        device.send(packet(SYN))
        refused = device.recv(2000)

    assert before == exchanged(sent)
    assert broken == reset(sent)
    assert refused == reset(packet(SYN))


@pytest.fixture
def server() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    if not can_be_made():
        pytest.skip("this process may not make a TUN device")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("0.0.0.0", 0)))

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                stack.enter_context(connection)
                threading.Thread(target=_echo, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _echo(connection: socket.socket) -> None:
    try:
        while data := connection.recv(2**16):
            connection.sendall(data)
    except OSError:
        pass


def test_a_connection_takes_a_round_trip_and_an_answer_another(server: int) -> None:
    with BadNetwork(server, Conditions(delay=0.15)) as network:
        began = time.monotonic()
        with socket.create_connection((network.peer, server), timeout=20) as client:
            connected = time.monotonic()
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            answered = time.monotonic()

    assert 0.3 <= connected - began < 5
    assert 0.3 <= answered - connected < 5


def test_a_megabit_takes_its_time_at_a_rate(server: int) -> None:
    data = os.urandom(125_000)
    with (
        BadNetwork(server, Conditions(rate=2e6)) as network,
        socket.create_connection((network.peer, server), timeout=20) as client,
    ):
        began = time.monotonic()
        client.sendall(data)
        came = b""
        while len(came) < len(data):
            came += client.recv(2**16)
        seconds = time.monotonic() - began

    assert came == data
    assert 0.5 <= seconds < 10


def test_the_kernel_sends_again_what_was_lost(server: int) -> None:
    data = os.urandom(50_000)
    with (
        BadNetwork(server, Conditions(loss=0.1), seed=3) as network,
        socket.create_connection((network.peer, server), timeout=20) as client,
    ):
        client.sendall(data)
        came = b""
        while len(came) < len(data):
            came += client.recv(2**16)

    assert came == data
    assert network.lost > 0


def test_away_the_kernel_has_connections_reset_and_refused(server: int) -> None:
    with (
        BadNetwork(server, Conditions(away=1.0)) as network,
        socket.create_connection((network.peer, server), timeout=20) as client,
    ):
        network.leave_now_and_then()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((network.peer, server), timeout=20)
