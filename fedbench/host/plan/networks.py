"""The networks of emulated devices: slowed as the devices are, and what of them a kernel can do."""

from __future__ import annotations

from dataclasses import dataclass

from fedbench.config import Network


@dataclass(frozen=True)
class Capabilities:
    """What Docker's kernel has: rates (tbf and htb), what arrives (ifb), delay and loss (netem)."""

    tbf: bool
    ifb: bool
    netem: bool


def dilated(network: Network, dilation: float) -> Network:
    """The network in wall seconds of a federation that is slowed by a factor."""
    return network.model_copy(
        update={
            "down": network.down and network.down / dilation,
            "up": network.up and network.up / dilation,
            "delay": network.delay * dilation,
            "jitter": network.jitter * dilation,
        }
    )


def unapplied(network: Network, capabilities: Capabilities) -> list[str]:
    """What of a network this kernel cannot do, and why: `delay 10 ms is not applied: …`."""
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
    found = (
        (network.delay, f"delay {network.delay * 1e3:g} ms"),
        (network.jitter, f"jitter {network.jitter * 1e3:g} ms"),
        (network.loss, f"loss {network.loss * 100:g}%"),
    )
    return [text for value, text in found if value]


def _listed(parts: list[str]) -> str:
    return f"{', '.join(parts)} {'is' if len(parts) == 1 else 'are'}"
