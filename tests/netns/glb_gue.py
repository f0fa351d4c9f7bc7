"""GLB Director's tunnel format, read and written by somebody who does not know Bowline.

From the published layout (github.com/github/glb-director, docs/development/gue-header.md) and the standard library
alone. Private data of type 1 is the same layout with IPv6 hops.

    glb_gue.py listen INTERFACE...
        prints "ready", then a line of JSON for each tunnel packet that the interfaces receive
    glb_gue.py send BACKEND PROTOCOL CLIENT PORT VIP [HOP...]
        sends BACKEND a packet of PROTOCOL (tcp: an ACK without data, udp: a line) from CLIENT:PORT to VIP:80,
        with these hops, none of them visited
"""

import ipaddress
import json
import socket
import struct
import sys

PORT = 6080
TCP, UDP, IPV4, IPV6 = 6, 17, 4, 41
HOP_BYTES = {0: 4, 1: 16}


def ip(packet):
    """Source, destination, protocol and payload of an IP packet; None for others."""
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        source, destination = packet[12:16], packet[16:20]
        protocol, payload = packet[9], packet[(packet[0] & 15) * 4 : struct.unpack_from("!H", packet, 2)[0]]
    elif version == 6:
        source, destination = packet[8:24], packet[24:40]
        protocol, payload = packet[6], packet[40 : 40 + struct.unpack_from("!H", packet, 4)[0]]
    else:
        return None
    return str(ipaddress.ip_address(source)), str(ipaddress.ip_address(destination)), protocol, payload


def gue(data):
    """The chain and the inner packet of a GUE packet, as a dictionary, and the inner packet."""
    first, protocol, flags = struct.unpack_from("!BBH", data)
    if first >> 5 or flags or protocol not in (IPV4, IPV6):
        raise ValueError(f"not plain GUE version 0: {data[:4].hex()}")
    end = 4 + (first & 31) * 4
    private, inner = data[4:end], data[end:]
    if not private:
        return {"type": None, "next": 0, "hops": []}, protocol, inner
    kind, following, count = struct.unpack_from("!HBB", private)
    size = HOP_BYTES[kind]
    hops = [private[4 + size * i : 4 + size * (i + 1)] for i in range(count)]
    if len(private) != 4 + size * count:
        raise ValueError(f"{count} hops in {len(private)} bytes")
    hops = [str(ipaddress.ip_address(hop)) for hop in hops]
    return {"type": kind, "next": following, "hops": hops}, protocol, inner


def dissect(packet):
    """What a tunnel packet says; None for others."""
    outer = ip(packet)
    if not outer or outer[2] != UDP or struct.unpack_from("!H", outer[3], 2)[0] != PORT:
        return None
    said, protocol, inner = gue(outer[3][8:])
    source, destination, transport, segment = ip(inner)
    if (protocol == IPV4) != (inner[0] >> 4 == 4):
        raise ValueError("the inner packet is not what the header says")
    sport, dport = struct.unpack_from("!HH", segment)
    opens = transport == TCP and segment[13] & 0x12 == 0x02
    said.update(outer_source=outer[0], outer_destination=outer[1])
    said.update(source=source, destination=destination, sport=sport, dport=dport)
    said.update(protocol=transport, opens=opens)
    return said


def listen(interfaces):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    # SO_RCVBUFFORCE, which the module does not name: beyond the limit of the machine.
    sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
    print("ready", flush=True)
    while True:
        packet, (interface, _, kind, _, _) = sock.recvfrom(65536)
        if kind == socket.PACKET_OUTGOING or interface not in interfaces:
            continue
        said = dissect(packet)
        if said:
            print(json.dumps({"interface": interface, **said}), flush=True)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def inner(protocol, client, port, vip):
    source, destination = ipaddress.ip_address(client), ipaddress.ip_address(vip)
    number, text = (TCP, b"") if protocol == "tcp" else (UDP, b"a line\n")
    if number == TCP:
        head, at = struct.pack("!HHIIBBHHH", port, 80, 1000, 2000, 5 << 4, 0x10, 1000, 0, 0), 16
    else:
        head, at = struct.pack("!HHHH", port, 80, 8 + len(text), 0), 6
    pseudo = source.packed + destination.packed + struct.pack("!II", len(head + text), number)
    sum_ = struct.pack("!H", checksum(pseudo + head + text))
    body = head[:at] + sum_ + head[at + 2 :] + text
    if source.version == 6:
        return IPV6, struct.pack("!IHBB", 6 << 28, len(body), number, 64) + source.packed + destination.packed + body
    fixed = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, number, 0)
    header = fixed + source.packed + destination.packed
    return IPV4, header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def send(backend, protocol, client, port, vip, *hops):
    number, packet = inner(protocol, client, int(port), vip)
    to = ipaddress.ip_address(backend)
    private = b""
    if hops:
        private = struct.pack("!HBB", to.version == 6, 0, len(hops))
        private += b"".join(ipaddress.ip_address(hop).packed for hop in hops)
    family = socket.AF_INET if to.version == 4 else socket.AF_INET6
    tunnel = socket.socket(family, socket.SOCK_DGRAM)
    tunnel.sendto(struct.pack("!BBH", len(private) // 4, number, 0) + private + packet, (backend, PORT))


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "listen":
        listen(words)
    else:
        send(*words)
