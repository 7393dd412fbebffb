# SPDX-License-Identifier: MIT
"""Write the seeds of fuzz/codec.c.

usage: python3 fuzz/make_codec_corpus.py [FOLDER]      (default fuzz/corpus/codec)

Payloads are written here from the formats' descriptions in src/wire/codec_*.c and wrap.c, not
by the code under test: one good payload and a few lies for each codec, floats at their limits,
and zstd and snappy frames made by hand of one uncompressed block.
"""

import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

DECODE, ENCODE, UNWRAP, WRAP = range(4)  # enum work of fuzz/codec.c
F32, F16, BF16, Q8, Q8R, Q4R = range(6)
NAMES = ("f32", "f16", "bf16", "q8", "q8r", "q4r")
PLAIN, ZSTD, SNAPPY = range(3)
ELEMS = {F32: 3, F16: 3, BF16: 3, Q8: 32, Q8R: 64, Q4R: 128}
UNIT = {F32: 4, F16: 2, BF16: 2, Q8: 1, Q8R: 1, Q4R: 1}


def seed(work, codec, wrap, data, rows=1):
    """The target rounds elements up to the next multiple, so ask for one less."""
    return struct.pack("<BBBBH", work, codec, wrap, rows - 1, ELEMS[codec] - 1) + data


def block(scale, values):
    return struct.pack("<e", scale) + bytes(values)


def payload(codec):
    if codec == F32:
        return struct.pack("<3f", 1.5, -2.25, 1e30)
    if codec == F16:
        return struct.pack("<3e", 1.5, -2.25, 65504)
    if codec == BF16:
        return b"".join(struct.pack("<f", x)[2:] for x in (1.5, -2.25, 1e30))
    if codec == Q8:
        return block(0.5, range(112, 144))
    if codec == Q8R:
        return block(0.5, range(32)) + block(2.0, range(224, 256))
    outlier = struct.pack("<H", 77) + struct.pack("<e", 1000)
    return outlier + block(0.01, range(32)) + block(0.02, range(100, 132))


def lies(codec, good):
    """(name, payload): not finite at the first and at the last place, and an index too large."""
    infinite = {F32: b"\0\0\x80\x7f", BF16: b"\x80\x7f"}.get(codec, b"\0\x7c")
    first = 2 if codec == Q4R else 0
    last = len(good) - (34 if codec >= Q8 else len(infinite))
    for name, at in (("first", first), ("last", last)):
        yield f"infinite-{name}", good[:at] + infinite + good[at + len(infinite):]
    if codec == Q4R:
        yield "index-128", struct.pack("<H", 128) + good[2:]
    yield "short", good[:-1]


def planes(codec, data):
    unit = UNIT[codec]
    return b"".join(data[i::unit] for i in range(unit))


def zstd(data):
    """One segment, its size in one byte, one raw block."""
    return b"\x28\xb5\x2f\xfd\x20" + bytes([len(data)]) + \
        struct.pack("<I", len(data) << 3 | 1)[:3] + data


def snappy(data):
    """The length, then literals of at most 60 bytes."""
    out = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    for at in range(0, len(data), 60):
        part = data[at:at + 60]
        out += bytes([len(part) - 1 << 2]) + part
    return out


def seeds():
    """(name, bytes) of each seed."""
    limits = struct.pack("<8I", 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF, 0x00000001,
                         0x80000000, 0x477FF000, 0x33000000)
    for codec, name in enumerate(NAMES):
        good = payload(codec)
        yield f"decode-{name}", seed(DECODE, codec, PLAIN, good)
        yield f"decode-{name}-2-rows", seed(DECODE, codec, PLAIN, good * 2, rows=2)
        for lie, bad in lies(codec, good):
            yield f"decode-{name}-{lie}", seed(DECODE, codec, PLAIN, bad)
        yield f"encode-{name}-limits", seed(ENCODE, codec, PLAIN, limits * 16)
        yield f"encode-{name}-ramp", seed(ENCODE, codec, PLAIN, struct.pack("<128f", *range(128)))
        for wrap, pack, word in ((ZSTD, zstd, "zstd"), (SNAPPY, snappy, "snappy")):
            whole = pack(planes(codec, good))
            yield f"unwrap-{name}-{word}", seed(UNWRAP, codec, wrap, whole)
            yield f"unwrap-{name}-{word}-cut", seed(UNWRAP, codec, wrap, whole[:-1])
            yield f"unwrap-{name}-{word}-long", seed(UNWRAP, codec, wrap, pack(good + b"\0"))
            yield f"wrap-{name}-{word}", seed(WRAP, codec, wrap, good * 9 + b"\1")
    yield "unwrap-plain", seed(UNWRAP, F16, PLAIN, payload(F16))
    yield "unwrap-unknown", seed(UNWRAP, F16, 3, payload(F16))


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "corpus/codec")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, data in seeds():
        (folder / name).write_bytes(data)
    print(f"{len(list(folder.iterdir()))} seeds in {folder}")


if __name__ == "__main__":
    main()
