"""Modbus devices by pymodbus, on a serial line or a port of loopback, as the first argument says in JSON:

serial or tcp: the path or the port; framer: "rtu" or "socket"; units: for each unit id its tables, each a list of
[address, [values]]; silent: for each such unit, to how many requests it does not answer, or -1 for all; mute: for
each such unit, the one address for which it never answers; late: for each such unit, by how many seconds its answers are
late; damaged: for each such unit, that one answer of so many has a wrong byte.

Each request is printed: the time in seconds, the unit, the function, the address and the count.
"""

import asyncio
import json
import sys
import time

from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.server.requesthandler import ServerRequestHandler
from pymodbus.simulator import DataType, SimData, SimDevice

told = json.loads(sys.argv[1])
silent = {int(unit): count for unit, count in told.get("silent", {}).items()}
mute = {int(unit): address for unit, address in told.get("mute", {}).items()}
late = {int(unit): delay for unit, delay in told.get("late", {}).items()}
damaged = {int(unit): every for unit, every in told.get("damaged", {}).items()}
answers = {}


def table(blocks, kind):
    if not blocks:
        # A table that is not there has no address that anybody asks for.
        blocks = [[60000, [False] * 16 if kind == DataType.BITS else [0]]]
    return [SimData(address, values=values, datatype=kind) for address, values in blocks]


def device(unit, tables):
    bits = [table(tables.get(name), DataType.BITS) for name in ("coil", "discrete")]
    registers = [table(tables.get(name), DataType.REGISTERS) for name in ("holding", "input")]
    return SimDevice(id=unit, simdata=(*bits, *registers))


send = ServerRequestHandler.server_send


def server_send(self, pdu, addr):
    """pymodbus has made the answer; whether and when it goes out is the test's matter."""
    if silent.get(pdu.dev_id, 0) != 0:
        silent[pdu.dev_id] -= 1
        return
    if self.last_pdu and mute.get(pdu.dev_id) == self.last_pdu.address:
        return
    if pdu.dev_id in late:
        asyncio.get_running_loop().call_later(late[pdu.dev_id], send, self, pdu, addr)
    else:
        send(self, pdu, addr)


ServerRequestHandler.server_send = server_send


def trace_packet(sending, packet):
    unit = packet[0] if told["framer"] == "rtu" and packet else None
    if sending and unit in damaged:
        answers[unit] = answers.get(unit, 0) + 1
        if answers[unit] % damaged[unit] == 0:
            return packet[:-3] + bytes([packet[-3] ^ 0x40]) + packet[-2:]
    return packet


def trace_pdu(sending, pdu):
    if not sending:
        print(f"{time.monotonic():.4f} {pdu.dev_id} {pdu.function_code} {pdu.address} {pdu.count}", flush=True)
    return pdu


async def main():
    devices = [device(int(unit), tables) for unit, tables in told["units"].items()]
    common = {
        "framer": FramerType(told["framer"]),
        "trace_packet": trace_packet,
        "trace_pdu": trace_pdu,
        "ignore_missing_devices": True,
    }
    if "serial" in told:
        server = ModbusSerialServer(devices, port=told["serial"], baudrate=told.get("baud", 115200), **common)
    else:
        server = ModbusTcpServer(devices, address=("127.0.0.1", told["tcp"]), **common)
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
