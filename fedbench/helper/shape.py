"""Shapes the network of a container as a device's is, in the container's network namespace.

A token bucket (tbf) holds the rate, netem in it adds delay, jitter and loss. What leaves is shaped
at the interface itself. What arrives is led through an ifb device, which is shaped likewise. Where
there is a rate, the client's metrics go past it (htb): a real device's link does not carry them.
See tc-htb(8), tc-tbf(8), tc-netem(8) and tc-mirred(8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute, netns
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import TC_H_INGRESS, TC_H_ROOT

from fedbench.errors import HostError

METRICS_PORT = 9101  # of fedbench.client.settings, which the helper does not import
INTERFACE = "eth0"  # of every container that Docker puts on one network
LOOPBACK = 1  # in every network namespace
_IFB = "fedbench-down"
_ROOT, _BUCKET, _NETEM, _INGRESS = 0x10000, 0x20000, 0x30000, 0xFFFF0000  # 1:, 2:, 3:, ffff:
_UNLIMITED = 2**32 - 1  # bytes per second: what a rate may be in 32 bits
_ETHERNET = 14  # bytes of its header, which the bucket counts
_LARGEST = 65_550  # bytes of a packet before it is cut up
_BURST_SECONDS = 0.005  # a timer of a busy host may be so late, and no rate is lost
_QUEUE_SECONDS = 0.1
_QUEUE = 2 * 65_536  # bytes: a packet has up to 64 KiB before it is cut up
_ALL_PACKETS, _IPV4 = 0x0003, 0x0800  # ETH_P_ALL, ETH_P_IP
_TCP = "0x06/0xff+9"  # the protocol in an IPv4 header; ports follow it
_FROM_METRICS = f"{METRICS_PORT:#06x}/0xffff+20"
_TO_METRICS = f"{METRICS_PORT:#06x}/0xffff+22"


@dataclass(frozen=True)
class LinkLimits:
    """How the link of the container that has process `pid` is to be limited.

    Rates are in bit/s, None for no limit; `delay` and `jitter` (s) and `loss` (0 to 1) hold for
    each direction.
    """

    pid: int
    down: float | None = None
    up: float | None = None
    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0


def probe() -> dict[str, bool]:
    """Return which of tbf, ifb and netem this kernel has; try each on this process's network."""
    with IPRoute() as ipr:
        return {
            "tbf": _works(
                lambda: _discipline(ipr, LOOPBACK, 1500, 1e6, LinkLimits(0), {"tbf": True})
            )
            and _clear(ipr, LOOPBACK),
            "netem": _works(
                lambda: _netem(ipr, LOOPBACK, TC_H_ROOT, LinkLimits(0, delay=0.01), 1000)
            )
            and _clear(ipr, LOOPBACK),
            "ifb": _works(lambda: _divert(ipr, LOOPBACK)),
        }


def shape(links: Iterable[LinkLimits]) -> None:
    """Shape each link as far as this kernel can, whatever was in force before.

    This process ends up in the network namespace of the last link.

    Raises:
        HostError: a process has ended, or the kernel refuses.
    """
    able = probe()
    for link in links:
        _enter(link.pid)
        try:
            with IPRoute() as ipr:
                _shape(ipr, link, able)
        except NetlinkError as error:
            raise HostError(f"process {link.pid}: {INTERFACE} cannot be shaped: {error}") from None


def switch(pid: int, *, up: bool) -> None:
    """Switch the link of the container that has process `pid` on or off; addresses stay.

    This process ends up in that container's network namespace.

    Raises:
        HostError: the process has ended, or the kernel refuses.
    """
    _enter(pid)
    try:
        with IPRoute() as ipr:
            (index,) = ipr.link_lookup(ifname=INTERFACE)
            ipr.link("set", index=index, state="up" if up else "down")
    except NetlinkError as error:
        raise HostError(f"process {pid}: {INTERFACE} cannot be switched: {error}") from None


def _enter(pid: int) -> None:
    try:
        with open(f"/proc/{pid}/ns/net") as namespace:
            netns.setns(namespace.fileno())
    except FileNotFoundError:
        raise HostError(f"process {pid} is not there: its container has ended") from None


def _shape(ipr: Any, link: LinkLimits, able: dict[str, bool]) -> None:
    (interface,) = ipr.get_links(ifname=INTERFACE)
    index, mtu = interface["index"], interface.get_attr("IFLA_MTU")
    _clear(ipr, index)
    for ifb in ipr.link_lookup(ifname=_IFB):
        ipr.link("del", index=ifb)
    _discipline(ipr, index, mtu, link.up, link, able)
    if able["ifb"] and (link.down or _impaired(link, able)):
        _discipline(ipr, _divert(ipr, index), mtu, link.down, link, able)


def _discipline(
    ipr: Any, index: int, mtu: int, rate: float | None, link: LinkLimits, able: dict[str, bool]
) -> None:
    """Shape what a device sends: netem is the queue in the bucket, or the device's queue."""
    parent, packets = TC_H_ROOT, 10_000
    if rate and able["tbf"]:
        parent = _bucket(ipr, index, _past_metrics(ipr, index), rate, mtu)
        waiting = rate / 8 * (link.delay + link.jitter) + _queue(rate)
        packets = math.ceil(waiting / mtu)
    if _impaired(link, able):
        _netem(ipr, index, parent, link, packets)


def _impaired(link: LinkLimits, able: dict[str, bool]) -> bool:
    return able.get("netem", False) and bool(link.delay or link.jitter or link.loss)


def _past_metrics(ipr: Any, index: int) -> int:
    """Send a client's metrics, and requests for them, at once; return the parent of the rest."""
    ipr.tc("add", "htb", index, _ROOT, default=1)
    rest = {"parent": _ROOT, "rate": _UNLIMITED, "quantum": _LARGEST}
    ipr.tc("add-class", "htb", index, _ROOT + 1, **rest)
    for priority, port in enumerate((_FROM_METRICS, _TO_METRICS), start=1):
        ipr.tc(
            "add-filter", "u32", index, parent=_ROOT, prio=priority, protocol=_IPV4,
            target=_ROOT, keys=[_TCP, port],
        )  # fmt: skip
    return _ROOT + 1


def _bucket(ipr: Any, index: int, parent: int, rate: float, mtu: int) -> int:
    """Hold the rate; return the parent of the queue in the bucket."""
    burst = max(2 * (mtu + _ETHERNET), rate / 8 * _BURST_SECONDS)
    limit = int(burst + _queue(rate))
    bucket = {"rate": rate / 8, "burst": int(burst), "limit": limit}
    ipr.tc("add", "tbf", index, _BUCKET, parent=parent, **bucket)
    return _BUCKET + 1


def _queue(rate: float) -> float:
    """Return the bytes that may wait for their turn at so many bit/s."""
    return max(_QUEUE, rate / 8 * _QUEUE_SECONDS)


def _netem(ipr: Any, index: int, parent: int, link: LinkLimits, packets: int) -> None:
    microseconds = {"delay": link.delay * 1e6, "jitter": link.jitter * 1e6}
    impairments = {**microseconds, "loss": link.loss * 100, "limit": packets}
    ipr.tc("add", "netem", index, _NETEM, parent=parent, **impairments)


def _divert(ipr: Any, index: int) -> int:
    """Lead what arrives at a device through a new ifb device; return its index."""
    ipr.link("add", ifname=_IFB, kind="ifb")
    (ifb,) = ipr.link_lookup(ifname=_IFB)
    ipr.link("set", index=ifb, state="up")
    ipr.tc("add", "ingress", index, _INGRESS)
    redirect = {"kind": "mirred", "direction": "egress", "action": "redirect", "ifindex": ifb}
    ipr.tc(
        "add-filter", "u32", index, parent=_INGRESS, prio=1, protocol=_ALL_PACKETS,
        target=_BUCKET, keys=["0x0/0x0+0"], action=redirect,
    )  # fmt: skip
    return int(ifb)


def _clear(ipr: Any, index: int) -> bool:
    """Remove what shapes a device; return True."""
    for discipline in ipr.get_qdiscs(index):
        if discipline["handle"] in (_ROOT, _NETEM) and discipline["parent"] == TC_H_ROOT:
            ipr.tc("del", index=index, parent=TC_H_ROOT)
        if discipline["parent"] == TC_H_INGRESS:
            ipr.tc("del", "ingress", index)
    return True


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except NetlinkError:
        return False
    return True
