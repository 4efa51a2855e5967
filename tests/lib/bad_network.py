"""A bad network on this computer: a TUN device whose packets are delayed, lost or refused.

A program that connects to a `BadNetwork`'s `peer` reaches this computer's own server on the same
port. The kernel hands its packets to the TUN device; here each is put back with source and
destination exchanged: late, or never. Exchanging the two leaves every checksum right, and the
kernel takes the packet for one from another computer. So both ends are the kernel's own TCP, and
nothing of TCP is modelled: lost SYNs, time-outs that double (RFC 6298), a connection that ends
after 15 retransmissions are what this kernel makes of them. It needs no namespace, no module of
the kernel but tun, and root (CAP_NET_ADMIN).

What a packet meets, in this order and in each direction:

- away: while the client is away, packets are refused with a reset, and so are its connections. A
  client is away in a share of the slots of some seconds, drawn for each slot anew;
- loss: each packet is lost with a probability of its own, acknowledgements and SYNs, too;
- rate: packets leave one after the other; what would wait for more than a second is dropped;
- delay: always the same, so that packets keep their order.

Where a kernel has netem, `tc qdisc add dev IF root netem delay 1s loss 10%` does the same to a real
device. The differences: here a packet is one of at most 1500 bytes, while netem on a device with
segmentation offload loses up to 64 KiB at once; netem waits by the kernel's timers, this by a
thread of Python, which is a millisecond late on a quiet computer and more on a busy one, and moves
some ten thousand packets a second; there is no jitter, no reordering, no duplicate and no burst of
losses here.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import count
from random import Random
from types import TracebackType

from pyroute2 import IPRoute

TUN = "/dev/net/tun"
MTU = 1500
QUEUE_SECONDS = 1.0
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_BENCHMARKS = int(IPv4Address("198.18.0.0"))  # /15: RFC 2544 sets them aside for such tests
_NETWORKS = 2**17 // 4
_LOOK_SECONDS = 0.1
_TCP = 6
_PORTS = range(20_000, 32_000)
_given: set[int] = set()
_given_lock = threading.Lock()
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16


@dataclass(frozen=True)
class Conditions:
    """What a network is like, the same in both directions.

    `delay` is in seconds one way, `rate` in bit/s, `loss` the share of lost packets, `away` the
    share of slots of `slot` seconds for which the client is away.
    """

    delay: float = 0.0
    rate: float | None = None
    loss: float = 0.0
    away: float = 0.0
    slot: float = 15.0


class Direction:
    """One direction of the network; knows no clock and no packets, only sizes and times."""

    def __init__(self, conditions: Conditions, random: Random) -> None:
        self._conditions = conditions
        self._random = random
        self._free = 0.0  # when the packets before have left

    def arrival(self, size: int, now: float) -> float | None:
        """Return when a packet of `size` bytes that comes now arrives; None if it is lost."""
        if self._random.random() < self._conditions.loss:
            return None
        begin = max(now, self._free)
        if begin - now > QUEUE_SECONDS:
            return None
        rate = self._conditions.rate
        self._free = begin + (8 * size / rate if rate else 0.0)
        return self._free + self._conditions.delay


class Absence:
    """When a client is away, in seconds since it first might be."""

    def __init__(self, conditions: Conditions, random: Random) -> None:
        self._conditions = conditions
        self._random = random
        self._slots: list[bool] = []

    def at(self, seconds: float) -> bool:
        """Return whether the client is away then."""
        slot = int(seconds / self._conditions.slot)
        while len(self._slots) <= slot:
            self._slots.append(self._random.random() < self._conditions.away)
        return self._slots[slot]


class Carrier:
    """Carries what can be read of `device` back into it, in a thread, while the block lasts.

    `port` is the server's: packets to it go up, all others down. A device may be anything that
    keeps packets apart.
    """

    def __init__(
        self,
        device: int,
        port: int,
        conditions: Conditions,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = device
        self._port = struct.pack("!H", port)
        up, down, away = (Random(f"{seed} {what}") for what in ("up", "down", "away"))
        self._directions = (Direction(conditions, down), Direction(conditions, up))
        self._absence = Absence(conditions, away)
        self._clock = clock
        self._leaving: float | None = None
        self._was_away = False
        self._last: dict[bytes, bytes] = {}  # the last packet of each end of each connection
        self._due: list[tuple[float, int, bytes]] = []
        self._numbers = count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="bad-network", daemon=True)
        self.carried = 0
        self.lost = 0

    def leave_now_and_then(self) -> None:
        """Let the client be away from now on, in the share of slots that the conditions say."""
        self._leaving = self._clock()

    def __enter__(self) -> Carrier:
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _carry(self) -> None:
        while not self._stop.is_set():
            next_due = self._due[0][0] - self._clock() if self._due else _LOOK_SECONDS
            wait = max(0.0, min(next_due, _LOOK_SECONDS))
            ready, _, _ = select.select([self._device], [], [], wait)
            away = self._is_away()
            if ready:
                self._take(os.read(self._device, 2**16), away)
            while self._due and self._due[0][0] <= self._clock():
                self._put(exchanged(heapq.heappop(self._due)[2]))

    def _is_away(self) -> bool:
        away = self._leaving is not None and self._absence.at(self._clock() - self._leaving)
        if away and not self._was_away:
            self._due.clear()
            for packet in self._last.values():
                self._refuse(packet)
            self._last.clear()
        self._was_away = away
        return away

    def _take(self, packet: bytes, away: bool) -> None:
        if packet[0] >> 4 != 4 or packet[9] != _TCP:  # the kernel looks for neighbours by IPv6
            return
        if away:
            self._refuse(packet)
            return
        start = _header(packet)
        self._last[packet[12:20] + packet[start : start + 4]] = packet
        to_server = packet[start + 2 : start + 4] == self._port
        arrival = self._directions[to_server].arrival(len(packet), self._clock())
        if arrival is None:
            self.lost += 1
        else:
            self.carried += 1
            heapq.heappush(self._due, (arrival, next(self._numbers), packet))

    def _refuse(self, packet: bytes) -> None:
        if answer := reset(packet):
            self._put(answer)

    def _put(self, packet: bytes) -> None:
        os.write(self._device, packet)


def exchanged(packet: bytes) -> bytes:
    """Return an IPv4 packet with source and destination address exchanged."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]


def reset(packet: bytes) -> bytes | None:
    """Return the reset that answers a TCP packet (RFC 9293, 3.10.7.1); None for a reset."""
    start = _header(packet)
    ports = packet[start : start + 4]
    sequence, acknowledged, offset, flags = struct.unpack_from("!IIBB", packet, start + 4)
    if flags & _RST:
        return None
    length = len(packet) - start - 4 * (offset >> 4) + bool(flags & _SYN) + bool(flags & _FIN)
    if flags & _ACK:
        numbers = (acknowledged, 0, 5 << 4, _RST)
    else:
        numbers = (0, (sequence + length) % 2**32, 5 << 4, _RST | _ACK)
    segment = ports[2:] + ports[:2] + struct.pack("!IIBBHHH", *numbers, 0, 0, 0)
    addresses = packet[16:20] + packet[12:16]
    total = _checksum(addresses + struct.pack("!HH", _TCP, len(segment)) + segment)
    segment = segment[:16] + total + segment[18:]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, _TCP, 0) + addresses
    return header[:10] + _checksum(header) + header[12:] + segment


def _header(packet: bytes) -> int:
    """Return the length of the IPv4 header."""
    return 4 * (packet[0] & 0xF)


def _checksum(data: bytes) -> bytes:
    """Return the internet checksum of an even number of bytes (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


class BadNetwork(Carrier):
    """A network to this computer's server on `port`, for whoever connects to `peer`.

    Raises:
        PermissionError, FileNotFoundError: this process may not make a TUN device, or there is no
            such thing.
    """

    def __init__(self, port: int, conditions: Conditions, seed: int = 0) -> None:
        device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
        try:
            self.peer = _configured(device)
        except BaseException:
            os.close(device)
            raise
        super().__init__(device, port, conditions, seed)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        os.close(self._device)  # with which the kernel takes the device away


def _configured(device: int) -> str:
    """Name and address a new TUN device; return the address of the computer at its other end."""
    asked = struct.pack("16sH22x", b"fedbench%d", _IFF_TUN | _IFF_NO_PI)
    answered = fcntl.ioctl(device, _TUNSETIFF, asked)
    name = answered[:16].rstrip(b"\0").decode()
    # The kernel remembers what it knows of a connection to an address: each network has its own.
    address = IPv4Address(_BENCHMARKS + 4 * (int.from_bytes(os.urandom(4), "big") % _NETWORKS) + 1)
    with IPRoute() as ipr:
        index = ipr.link_lookup(ifname=name)[0]
        ipr.addr("add", index=index, address=str(address), prefixlen=30)
        ipr.link("set", index=index, mtu=MTU, state="up")
    return str(address + 1)


def can_be_made() -> bool:
    """Return whether this process may make such a network."""
    try:
        with BadNetwork(1, Conditions()):
            return True
    except OSError:
        return False


def free_ports(number: int) -> list[int]:
    """Return ports of this computer that nobody listens on, all different, none given out before.

    The kernel takes those of outgoing connections from another range.
    """
    ports: list[int] = []
    while len(ports) < number:
        port = _PORTS[int.from_bytes(os.urandom(4), "big") % len(_PORTS)]
        with socket.socket() as client, _given_lock:
            if port not in _given and client.connect_ex(("127.0.0.1", port)):
                _given.add(port)
                ports.append(port)
    return ports
