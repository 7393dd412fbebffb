# SPDX-License-Identifier: MIT
"""The codecs and the snappy wrap, written from docs/protocol.md and the heads of
src/wire/codec_*.c alone: what another language's client would have.

`decode(codec, data, n)` gives float32 rows of n; `encode(codec, rows)` the bytes.
"""

import numpy as np

F32, F16, BF16, Q8, Q8R, Q4R = range(6)

# Largest error of an element, relative to the row's largest (docs/protocol.md).
ERROR = {F32: 0.0, F16: 0.0005, BF16: 0.004, Q8: 0.004, Q8R: 0.025, Q4R: 0.3}

_LEVELS = np.array([-127, -97, -76, -59, -44, -31, -18, -6, 6, 18, 31, 44, 59, 76, 97, 127],
                   np.float32)


def _signs():
    b = (np.arange(64)[:, None] >> np.arange(6)) & 1
    odd = (b[:, 0] & b[:, 1]) ^ (b[:, 2] & b[:, 3]) ^ (b[:, 4] & b[:, 5])
    return (1 - 2 * odd).astype(np.float32)


def _hadamard():
    i = np.arange(64)
    ones = np.array([[bin(a & b).count("1") for b in i] for a in i])
    return (1 - 2 * (ones & 1)).astype(np.float32)


_S, _H = _signs(), _hadamard()


def row_bytes(codec, n):
    return {F32: 4 * n, F16: 2 * n, BF16: 2 * n, Q8: 34 * n // 32, Q8R: 34 * n // 32,
            Q4R: 34 * n // 64 + 4 * min(n // 128, 64)}[codec]


def _q8_decode(data):
    blocks = data.reshape(-1, 34)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    return scale * blocks[:, 2:].view(np.int8).astype(np.float32)


def _q8_encode(values):
    blocks = values.reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype("<f2")
    wide = scale.astype(np.float32)
    q = np.rint(np.divide(blocks, wide, out=np.zeros_like(blocks), where=wide > 0))
    q = np.clip(q, -127, 127).astype(np.int8)
    return np.concatenate([scale.view(np.uint8).reshape(-1, 2), q.view(np.uint8)], axis=1)


def _unrotate(y):
    return y.reshape(-1, 64) @ _H / 8 * _S


def _rotate(x):
    return (x.reshape(-1, 64) * _S) @ _H / 8


def _q4r_decode(row, n):
    k = min(n // 128, 64)
    index = row[:2 * k].copy().view("<u2")
    value = row[2 * k:4 * k].copy().view("<f2").astype(np.float32)
    blocks = row[4 * k:].reshape(-1, 34)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1)
    x = _unrotate(scale * _LEVELS[codes]).reshape(n)
    np.add.at(x, index, value)
    return x


def _q4r_encode(x):
    n = len(x)
    k = min(n // 128, 64)
    index = np.sort(np.argsort(-np.abs(x), kind="stable")[:k]).astype("<u2")
    value = x[index].astype("<f2")
    rest = x.copy()
    rest[index] -= value.astype(np.float32)
    y = _rotate(rest)
    scale = (np.abs(y).max(axis=1, keepdims=True) / 127).astype("<f2")
    wide = np.where(scale > 0, scale, 1).astype(np.float32)
    codes = np.abs((y / wide)[:, :, None] - _LEVELS).argmin(axis=2).astype(np.uint8)
    packed = codes[:, :32] | codes[:, 32:] << 4
    blocks = np.concatenate([scale.view(np.uint8).reshape(-1, 2), packed], axis=1)
    return np.concatenate([index.view(np.uint8), value.view(np.uint8), blocks.reshape(-1)])


def decode(codec, data, n):
    raw = np.frombuffer(data, np.uint8).reshape(-1, row_bytes(codec, n))
    if codec == F32:
        return raw.copy().view("<f4")
    if codec == F16:
        return raw.copy().view("<f2").astype(np.float32)
    if codec == BF16:
        return (raw.copy().view("<u2").astype(np.uint32) << 16).view(np.float32)
    if codec == Q8:
        return _q8_decode(raw).reshape(-1, n)
    if codec == Q8R:
        return _unrotate(_q8_decode(raw)).reshape(-1, n)
    return np.stack([_q4r_decode(row, n) for row in raw])


def encode(codec, rows):
    rows = np.ascontiguousarray(rows, np.float32)
    if codec == F32:
        return rows.astype("<f4").tobytes()
    if codec == F16:
        return rows.astype("<f2").tobytes()
    if codec == BF16:
        bits = rows.view(np.uint32)
        return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()
    if codec == Q8:
        return _q8_encode(rows).tobytes()
    if codec == Q8R:
        return _q8_encode(_rotate(rows)).tobytes()
    return b"".join(_q4r_encode(row).tobytes() for row in rows)


# ---- snappy -------------------------------------------------------------------------------


def _unit(codec):
    return {F32: 4, F16: 2, BF16: 2}.get(codec, 1)


def planes(codec, data):
    unit = _unit(codec)
    return np.frombuffer(data, np.uint8).reshape(-1, unit).T.tobytes()


def unplanes(codec, data):
    unit = _unit(codec)
    return np.frombuffer(data, np.uint8).reshape(unit, -1).T.tobytes()


def _varint(n):
    out = bytearray()
    while n >= 128:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def snappy_pack(data):
    """Runs of one byte as copies, everything else as literals: poor and correct."""
    out = bytearray(_varint(len(data)))
    at = 0
    while at < len(data):
        run = at + 1
        while run < len(data) and data[run] == data[at]:
            run += 1
        end = at + 1 if run - at > 4 else min(run, at + 60)
        out.append(end - at - 1 << 2)
        out += data[at:end]
        while end < run:
            count = min(run - end, 64)
            out += bytes([count - 1 << 2 | 2, 1, 0])
            end += count
        at = end
    return bytes(out)


def snappy_unpack(data):
    at = shift = size = 0
    while True:
        byte = data[at]
        at += 1
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        if tag & 3 == 0:
            count = tag >> 2
            if count >= 60:
                wide = count - 59
                count = int.from_bytes(data[at:at + wide], "little")
                at += wide
            out += data[at:at + count + 1]
            at += count + 1
            continue
        if tag & 3 == 1:
            count = (tag >> 2 & 7) + 4
            offset = tag >> 5 << 8 | data[at]
            at += 1
        else:
            wide = 2 if tag & 3 == 2 else 4
            count = (tag >> 2) + 1
            offset = int.from_bytes(data[at:at + wide], "little")
            at += wide
        for _ in range(count):
            out.append(out[-offset])
    assert len(out) == size
    return bytes(out)
