"""Writes modbus_types.json beside itself: what each type is, in each order of words and bytes, by Python's struct.

Run it again where a type is added: `python3 tests/golden/modbus_types.py`.
"""

import json
import pathlib
import struct

CODES = {"u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d"}
VALUES = {
    "u16": [0, 1, 0x1234, 0x8000, 0xFFFF],
    "i16": [0, 1, -1, 0x1234, -0x8000, 0x7FFF],
    "u32": [0, 1, 0x12345678, 0x80000000, 0xFFFFFFFF],
    "i32": [0, -1, 0x12345678, -0x80000000, 0x7FFFFFFF],
    "u64": [0, 1, 0x123456789ABCDEF0, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF],
    "i64": [0, -1, 0x123456789ABCDEF0, -0x8000000000000000, 0x7FFFFFFFFFFFFFFF],
    "f32": [0.0, 1.0, -1.5, 230.2, 1e-38, 3.4e38, 16777216.0],
    "f64": [0.0, 1.0, -1.5, 230.2, 1e-300, 1.7e308, 9007199254740993.0],
}


def ordered(wire, word_order, byte_order):
    words = [wire[i : i + 2] for i in range(0, len(wire), 2)]
    if word_order == "little":
        words.reverse()
    if byte_order == "little":
        words = [word[::-1] for word in words]
    return b"".join(words)


cases = []
for kind, code in CODES.items():
    for word_order in ("big", "little"):
        if word_order == "little" and struct.calcsize(code) == 2:
            continue
        for byte_order in ("big", "little"):
            for value in VALUES[kind]:
                wire = ordered(struct.pack(">" + code, value), word_order, byte_order)
                # Both little is plain little-endian, which struct knows by itself.
                if (word_order, byte_order) == ("little", "little"):
                    assert wire == struct.pack("<" + code, value)
                # What a float is after it has been narrowed.
                value = struct.unpack(">" + code, struct.pack(">" + code, value))[0]
                registers = list(struct.unpack(f">{len(wire) // 2}H", wire))
                cases.append(
                    {"type": kind, "word_order": word_order, "byte_order": byte_order, "registers": registers, "value": value}
                )

text = "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n"
pathlib.Path(__file__).with_suffix(".json").write_text(text)
