# SPDX-License-Identifier: Apache-2.0
"""Which addresses may be called from inside: only those of the open internet, and what was allowed by name."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network

# Addresses of IPv4 that are written as IPv6 (RFC 6052), behind which is_global does not look.
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = IPv6Network("::/96")


def may_be_called(address: str, allowed: Sequence[Network]) -> bool:
    """Tell whether an address is open to everybody, or inside of a network that is allowed."""
    ip = ip_address(address.partition("%")[0])
    if any(ip.version == network.version and ip in network for network in allowed):
        return True
    return all(_is_open(each) for each in (ip, *_inside(ip)))


def _is_open(ip: IPv4Address | IPv6Address) -> bool:
    return ip.is_global and not (
        ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback or ip.is_link_local
    )


def _inside(ip: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """Return the addresses of IPv4 that an address of IPv6 stands for."""
    if isinstance(ip, IPv4Address):
        return []
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if any(ip in network for network in (*_NAT64, _COMPATIBLE)):
        found.append(IPv4Address(int(ip) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
