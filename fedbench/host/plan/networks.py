"""The networks of emulated devices: slowed as the devices are, and what of them a kernel can do."""

from __future__ import annotations

from dataclasses import dataclass

from fedbench.config import Network
from fedbench.records.clock import Dilation, EmulatedSeconds


@dataclass(frozen=True)
class Capabilities:
    """What Docker's kernel has: rates (tbf and htb), what arrives (ifb), delay and loss (netem)."""

    tbf: bool
    ifb: bool
    netem: bool


def dilated(network: Network, dilation: Dilation) -> Network:
    """Return the network in wall seconds of a federation that is slowed by a factor."""
    return network.model_copy(
        update={
            "down": network.down and dilation.wall_rate(network.down),
            "up": network.up and dilation.wall_rate(network.up),
            "delay": dilation.wall(EmulatedSeconds(network.delay)),
            "jitter": dilation.wall(EmulatedSeconds(network.jitter)),
        }
    )


def unapplied(network: Network, capabilities: Capabilities) -> list[str]:
    """Return what of a network this kernel cannot do, and why: `delay 10 ms is not applied: …`."""
    rates = [(f"{way} {rate / 1e6:g} Mbit/s", way) for way, rate in _rates(network).items()]
    notes = [
        f"{text} is not applied: this kernel has no {'ifb' if capabilities.tbf else 'tbf or htb'}"
        for text, way in rates
        if not capabilities.tbf or (way == "down" and not capabilities.ifb)
    ]
    impairments = _impairments(network)
    if impairments and not capabilities.netem:
        notes.append(f"{_listed(impairments)} not applied: this kernel has no netem")
    elif impairments and not capabilities.ifb:
        notes.append(f"{_listed(impairments)} not applied to what arrives: this kernel has no ifb")
    return notes


def _rates(network: Network) -> dict[str, float]:
    return {way: rate for way in ("down", "up") if (rate := getattr(network, way))}


def _impairments(network: Network) -> list[str]:
    values = (
        (network.delay, f"delay {network.delay * 1e3:g} ms"),
        (network.jitter, f"jitter {network.jitter * 1e3:g} ms"),
        (network.loss, f"loss {network.loss * 100:g}%"),
    )
    return [text for value, text in values if value]


def _listed(texts: list[str]) -> str:
    return f"{', '.join(texts)} {'is' if len(texts) == 1 else 'are'}"
