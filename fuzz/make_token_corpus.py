# SPDX-License-Identifier: MIT
"""Write the seeds of fuzz/token.c: good tokens' parts and the attacks on them.

usage: python3 fuzz/make_token_corpus.py MCP [FOLDER]      (default fuzz/corpus/token)

MCP is the program: it makes one authority whose invitation and certificates are seeds too.
They differ from run to run, so the folder in the tree is written once.
"""

import base64
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

TOKEN, PAYLOAD, HEADER, INVITATION, CERTIFICATE = range(5)

# RFC 8037 appendix A.1, as a SubjectPublicKeyInfo.
PUBLIC = bytes.fromhex("302a300506032b6570032100"
                       "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
KID = hashlib.sha256(PUBLIC).hexdigest()
GOOD = {"iss": "mcp:c0ffee", "sub": "alice", "aud": "w", "iat": 1790000000, "nbf": 1790000000,
        "exp": 1790003600, "jti": "t-1", "cnf": {"x5t#S256": "A" * 43}, "scope": "infer generate",
        "priority": "normal", "model": "00" * 32, "layers": [4, 26], "rate": 1000}
HEAD = {"alg": "EdDSA", "typ": "at+jwt", "kid": KID}

CLAIMS = {
    "iss-other": {"iss": "x"}, "aud-authority": {"aud": "mcp:c0ffee"},
    "aud-list": {"aud": ["x", "w"]}, "aud-17": {"aud": ["w"] * 17}, "aud-number": {"aud": 1},
    "exp-string": {"exp": "1790003600"}, "exp-negative": {"exp": -1}, "exp-real": {"exp": 1e308},
    "exp-huge": {"exp": 2**63 - 1}, "exp-past": {"exp": 1}, "nbf-later": {"nbf": 1790009999},
    "lifetime-31-days": {"exp": 1790000000 + 31 * 86400}, "sub-control": {"sub": "a\nb\u009b"},
    "sub-unicode": {"sub": "gr\u00fc\u00df \U0001F600"}, "jti-blank": {"jti": "a b"},
    "cnf-text": {"cnf": "A" * 43}, "cnf-other": {"cnf": {"x5t#S256": "B" * 42 + "A"}},
    "scope-all": {"scope": "admin state infer generate other"}, "scope-blank": {"scope": "a  b"},
    "priority-realtime": {"priority": "realtime"}, "layers-one": {"layers": [4]},
    "layers-back": {"layers": [26, 4]}, "rate-huge": {"rate": 2**32}, "model-short": {"model": "00"},
}
HEADERS = {
    "none": {"alg": "none"}, "hs256": {"alg": "HS256"}, "es256": {"alg": "ES256"},
    "rs256": {"alg": "RS256"}, "crit": {"crit": ["exp"]}, "jku": {"jku": "https://example.org"},
    "jwk": {"jwk": {"kty": "OKP"}}, "x5u": {"x5u": "file:///etc/passwd"}, "x5c": {"x5c": [""]},
    "kid-path": {"kid": "../../dev/null"}, "kid-number": {"kid": 1}, "typ-jwt": {"typ": "JWT"},
}


def b64(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def seeds(mcp):
    yield "payload-good", PAYLOAD, json.dumps(GOOD)
    for name, change in CLAIMS.items():
        yield f"payload-{name}", PAYLOAD, json.dumps({**GOOD, **change})
    for name in GOOD:
        yield f"payload-without-{name}", PAYLOAD, json.dumps(
            {k: v for k, v in GOOD.items() if k != name})
    yield "payload-twice", PAYLOAD, json.dumps(GOOD)[:-1] + ',"sub":"root"}'
    yield "payload-deep", PAYLOAD, '{"a":' + "[" * 200 + "]" * 200 + "}"
    yield "payload-escapes", PAYLOAD, json.dumps({**GOOD, "x": "\"\\/\b\f\n\r\t\ud83d\ude00"})
    yield "header-good", HEADER, json.dumps(HEAD)
    for name, change in HEADERS.items():
        yield f"header-{name}", HEADER, json.dumps({**HEAD, **change})
    parts = [b64(json.dumps(p).encode()) for p in (HEAD, GOOD)] + ["A" * 86]
    yield "token-wrong-signature", TOKEN, ".".join(parts)
    yield "token-no-signature", TOKEN, ".".join(parts[:2]) + "."
    yield "token-4-segments", TOKEN, ".".join(parts + ["A"])
    yield "token-padded", TOKEN, ".".join(parts) + "=="
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        run = [mcp, "keys"]
        subprocess.run([*run, "init", "--keys", keys, "--hosts", "a.lan,10.0.0.1,2001:db8::1"],
                       check=True, stdout=subprocess.DEVNULL)
        line = subprocess.run([*run, "invite", "bob", "--endpoint", "a.lan:7070", "--keys", keys],
                              check=True, capture_output=True, text=True).stdout.strip()[5:]
        content = base64.urlsafe_b64decode(line + "=" * (-len(line) % 4)).decode()
        yield "invitation-good", INVITATION, content
        yield "invitation-token", INVITATION, content[:-1] + ',"token":"a.b.c"}'
        yield "invitation-endpoint", INVITATION, content.replace("a.lan:7070", "[::1]:1")
        for role in ("ca", "worker", "client"):
            yield f"certificate-{role}", CERTIFICATE, (keys / f"{role}.pem").read_text()


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "corpus/token"
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind, text in seeds(sys.argv[1]):
        (folder / name).write_bytes(bytes([kind]) + text.encode("utf-8", "surrogatepass"))


if __name__ == "__main__":
    main()
