# SPDX-License-Identifier: MIT
"""`mcp keys` and `mcp join`: the files they make, judged by other programs: OpenSSL's command,
Python's TLS, gRPC's BoringSSL."""

import base64
import ctypes
import hashlib
import json
import resource
import shutil
import socket
import ssl
import stat
import subprocess
import threading
from concurrent import futures

import pytest
from cli_common import Result, clean_env, mcp, refused
from sentence import one_line

SET = {"ca.pem": 0o644, "ca.key": 0o600, "worker.pem": 0o644, "worker.key": 0o600,
       "client.pem": 0o644, "client.key": 0o600, "admin.pem": 0o644, "admin.key": 0o600,
       "token.pub": 0o644, "token.key": 0o600, "issued.json": 0o644, "revoked.json": 0o644}


def ok(result):
    assert result.status == 0 and result.err == "", result
    return result


def init(mcp_bin, folder, *args):
    ok(mcp(mcp_bin, "keys", "init", "--keys", folder, *args))
    return folder


def shown(mcp_bin, folder):
    return mcp(mcp_bin, "keys", "show", "--keys", folder, "--json").json


@pytest.fixture(scope="session")
def keys(mcp_bin, tmp_path_factory):
    """An authority that tests may use and add to."""
    return init(mcp_bin, tmp_path_factory.mktemp("keys") / "authority", "--hosts", "gpu.lan")


@pytest.fixture
def openssl():
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl command")

    def run(*args, succeeds=True):
        done = subprocess.run([program, *map(str, args)], capture_output=True, check=False)
        assert (done.returncode == 0) == succeeds, done
        return done.stdout.decode()
    return run


def modes(folder):
    return {f.name: stat.S_IMODE(f.lstat().st_mode) for f in folder.iterdir()}


def rights(folder):
    return stat.S_IMODE(folder.lstat().st_mode)


# ---- files ----------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_init_makes_the_whole_set_with_safe_modes(mcp_bin, tmp_path, umask):
    folder = tmp_path / "a/b/keys"
    done = Result(subprocess.run([mcp_bin, "keys", "init", "--keys", folder], capture_output=True,
                                 env=clean_env(), umask=umask, check=False))
    ok(done)
    assert modes(folder) == SET
    assert rights(folder) == rights(folder.parent) == 0o700
    assert [p.name for p in folder.parent.iterdir()] == ["keys"]
    for text in (str(folder), "mcp worker ", "mcp keys issue worker ", "mcp keys invite "):
        assert text in done.text


def test_the_default_folder_follows_flag_and_environment(mcp_bin, tmp_path):
    def made(*args, **env):
        ok(mcp(mcp_bin, "keys", "init", *args, env={"HOME": str(tmp_path / "h"),
                                                    "XDG_CONFIG_HOME": "", **env}))

    made()
    assert (tmp_path / "h/.config/mcp/keys/ca.pem").is_file()
    made(XDG_CONFIG_HOME=str(tmp_path / "x"))
    assert (tmp_path / "x/mcp/keys/ca.pem").is_file()
    made(MCP_KEYS=str(tmp_path / "e"), XDG_CONFIG_HOME=str(tmp_path / "x"))
    assert (tmp_path / "e/ca.pem").is_file()
    made("--keys", tmp_path / "f", MCP_KEYS=str(tmp_path / "e"))
    assert (tmp_path / "f/ca.pem").is_file()
    made("--dir", tmp_path / "d")
    assert (tmp_path / "d/ca.pem").is_file()


def test_keys_are_never_overwritten(mcp_bin, keys):
    before = {f.name: f.read_bytes() for f in keys.iterdir()}
    refused(mcp(mcp_bin, "keys", "init", "--keys", keys),
            f"mcp keys init: {keys} holds keys already (ca.pem); keys are never overwritten")
    assert {f.name: f.read_bytes() for f in keys.iterdir()} == before


def test_of_many_inits_at_once_one_wins(mcp_bin, tmp_path, openssl):
    folder = tmp_path / "keys"
    running = [subprocess.Popen([mcp_bin, "keys", "init", "--keys", folder], env=clean_env(),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    done = [(p.communicate(), p.returncode) for p in running]
    assert sorted(status for _, status in done) == [0] + [1] * 7
    for (_, err), status in done:
        if status != 0:
            assert "never overwritten" in one_line(err)[0]
    assert [p.name for p in tmp_path.iterdir()] == ["keys"]
    assert modes(folder) == SET
    for role in ("worker", "client", "admin"):
        openssl("verify", "-CAfile", folder / "ca.pem", folder / f"{role}.pem")


def test_many_changes_at_once_are_all_written_down(mcp_bin, tmp_path):
    folder = init(mcp_bin, tmp_path / "keys")
    names = [f"n{i}" for i in range(8)]
    running = [subprocess.Popen([mcp_bin, "keys", "issue", "client", n, "--keys", folder, "-o",
                                 tmp_path / n], env=clean_env(), stdout=subprocess.DEVNULL)
               for n in names]
    assert [p.wait() for p in running] == [0] * 8
    running = [subprocess.Popen([mcp_bin, "keys", "revoke", n, "--keys", folder], env=clean_env(),
                                stdout=subprocess.DEVNULL) for n in names]
    assert [p.wait() for p in running] == [0] * 8
    issued = shown(mcp_bin, folder)["issued"]
    assert sorted(c["name"] for c in issued if c["revoked"]) == names
    assert len(issued) == 3 + 8


def test_unsafe_folders_and_files_are_refused(mcp_bin, keys, tmp_path):
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o750)
    refused(mcp(mcp_bin, "keys", "init", "--keys", loose),
            f"mcp keys init: keys folder {loose} has mode 0750, which lets other users in: chmod 700")
    assert not any(loose.iterdir())
    loose.chmod(0o700)
    ok(mcp(mcp_bin, "keys", "init", "--keys", loose))
    (loose / "token.key").chmod(0o640)
    refused(mcp(mcp_bin, "keys", "token", "--subject", "a", "--keys", loose),
            f"mcp keys token: {loose}/token.key has mode 0640, which lets other users read")
    (loose / "ca.pem").unlink()
    (loose / "ca.pem").symlink_to(keys / "ca.pem")
    refused(mcp(mcp_bin, "keys", "show", "--keys", loose), f"mcp keys show: {loose}/ca.pem is a "
            "symbolic link")
    (tmp_path / "file").write_text("")
    refused(mcp(mcp_bin, "keys", "init", "--keys", tmp_path / "file"), "mcp keys init: ",
            "exists and is no folder")
    refused(mcp(mcp_bin, "keys", "init", "--keys", tmp_path / "file/keys"), "mcp keys init: ",
            "Not a directory")
    refused(mcp(mcp_bin, "keys", "show", "--keys", tmp_path / "none"),
            f"mcp keys show: there is no keys folder {tmp_path}/none: 'mcp keys init' makes one")


def test_a_folder_that_cannot_be_written_is_refused(mcp_bin, tmp_path):
    def obey_permissions():  # root too
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE

    def run(*args):
        return Result(subprocess.run([mcp_bin, *args], capture_output=True, env=clean_env(),
                                     preexec_fn=obey_permissions, check=False))

    folder = init(mcp_bin, tmp_path / "shut/keys")
    (tmp_path / "new").mkdir()
    for path in (tmp_path / "new", folder):
        path.chmod(0o500)
    refused(run("keys", "init", "--keys", tmp_path / "new/keys"),
            f"mcp keys init: {tmp_path}/new/keys: cannot be made: Permission denied")
    refused(run("keys", "init", "--keys", tmp_path / "new/a/b"),
            f"mcp keys init: {tmp_path}/new/a: Permission denied")
    refused(run("keys", "issue", "client", "a", "-o", tmp_path / "a", "--keys", folder),
            f"mcp keys issue: {folder}/lock: Permission denied")
    assert run("keys", "token", "--subject", "a", "--keys", folder).status == 0  # only reads
    assert run("keys", "show", "--keys", folder).status == 0
    for path in (tmp_path / "new", folder):
        path.chmod(0o700)
    assert modes(folder) == SET and not any((tmp_path / "new").iterdir())


def test_a_full_disk_leaves_nothing(mcp_bin, tmp_path):
    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))

    # SIGXFSZ is ignored by whoever starts Python, and so by the program
    done = Result(subprocess.run([mcp_bin, "keys", "init", "--keys", tmp_path / "keys"],
                                 capture_output=True, env=clean_env(), preexec_fn=full, check=False,
                                 restore_signals=False))
    refused(done, "mcp keys init: ", "File too large")
    assert not any(tmp_path.iterdir())


# ---- certificates ---------------------------------------------------------------------


def test_openssl_accepts_each_certificate_for_its_side_only(keys, openssl):
    def verify(role, purpose, succeeds):
        openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", keys / "ca.pem",
                keys / f"{role}.pem", succeeds=succeeds)

    for role in ("client", "admin"):
        verify(role, "sslclient", True)
        verify(role, "sslserver", False)
    verify("worker", "sslserver", True)
    verify("worker", "sslclient", False)
    for role in ("ca", "worker", "client", "admin"):
        public = openssl("x509", "-in", keys / f"{role}.pem", "-noout", "-pubkey")
        assert openssl("pkey", "-in", keys / f"{role}.key", "-pubout") == public
    assert openssl("pkey", "-in", keys / "token.key", "-pubout") == (keys / "token.pub").read_text()


def test_openssl_reads_names_and_dates(keys, openssl):
    def says(*args):
        return openssl("x509", "-in", keys / "worker.pem", "-noout", *args)

    for name in ("gpu.lan", "localhost"):
        assert "does match" in says("-checkhost", name)
    for address in ("127.0.0.1", "::1"):
        assert "does match" in says("-checkip", address)
    assert "does NOT match" in says("-checkhost", "gpu2.lan")
    assert says("-subject", "-nameopt", "RFC2253") == "subject=CN=worker,OU=worker\n"
    year, ten = 365 * 86400, 3650 * 86400
    assert "will not expire" in says("-checkend", str(year - 60))
    openssl("x509", "-in", keys / "worker.pem", "-noout", "-checkend", str(year + 60),
            succeeds=False)
    openssl("x509", "-in", keys / "ca.pem", "-noout", "-checkend", str(ten))


def contexts(server_keys, client_keys, server="worker", client="client", trust=None):
    s = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    s.minimum_version = ssl.TLSVersion.TLSv1_3
    s.verify_mode = ssl.CERT_REQUIRED
    s.load_verify_locations(server_keys / "ca.pem")
    s.load_cert_chain(server_keys / f"{server}.pem", server_keys / f"{server}.key")
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.minimum_version = ssl.TLSVersion.TLSv1_3
    c.load_verify_locations((trust or client_keys) / "ca.pem")
    if client:
        c.load_cert_chain(client_keys / f"{client}.pem", client_keys / f"{client}.key")
    return s, c


def shake_hands(server, client, name):
    """What each side learnt of the other, or the first error."""
    a, b = socket.socketpair()
    a.settimeout(20)
    b.settimeout(20)
    seen = {}

    def serve():
        try:
            with server.wrap_socket(a, server_side=True) as tls:
                tls.sendall(b"hello")
                seen["client"] = dict(x[0] for x in tls.getpeercert()["subject"])
        except (ssl.SSLError, OSError) as error:
            seen["error"] = str(error)
            a.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(b, server_hostname=name) as tls:
            assert tls.recv(5) == b"hello"  # in TLS 1.3 a refusal of the client arrives here
            seen["server"] = dict(x[0] for x in tls.getpeercert()["subject"])
            seen["version"] = tls.version()
    except (ssl.SSLError, OSError, AssertionError) as error:
        seen.setdefault("error", str(error))
    finally:
        b.close()
        thread.join()
    return seen


def test_tls_1_3_with_certificates_both_ways(mcp_bin, keys, tmp_path):
    line = mcp(mcp_bin, "keys", "invite", "bob", "--endpoint", "gpu.lan:1", "--keys", keys).text
    ok(mcp(mcp_bin, "join", line.strip(), "--keys", tmp_path / "bob"))
    for name in ("gpu.lan", "localhost", "127.0.0.1", "::1"):
        seen = shake_hands(*contexts(keys, tmp_path / "bob"), name)
        assert seen == {"version": "TLSv1.3",
                        "client": {"commonName": "bob", "organizationalUnitName": "client"},
                        "server": {"commonName": "worker", "organizationalUnitName": "worker"}}
    seen = shake_hands(*contexts(keys, keys, client="admin"), "localhost")
    assert seen["client"]["organizationalUnitName"] == "admin"


def test_tls_refuses_everybody_else(mcp_bin, keys, tmp_path):
    other = init(mcp_bin, tmp_path / "other")
    for server, client, name in (
            (*contexts(keys, keys), "gpu2.lan"),  # another machine's name
            (*contexts(keys, keys, client=None), "localhost"),
            (*contexts(keys, other, trust=keys), "localhost"),  # another authority's client
            (*contexts(other, keys), "localhost"),  # another authority's worker
            (*contexts(keys, keys, client="worker"), "localhost"),  # a worker as a client
            (*contexts(keys, keys, server="client"), "localhost")):  # a client as a worker
        seen = shake_hands(server, client, name)
        assert seen.get("error") and "server" not in seen, seen


def test_grpc_accepts_the_certificates_both_ways(keys):
    """gRPC brings BoringSSL, which Envoy uses too and which is the pickiest about certificates."""
    grpc = pytest.importorskip("grpc")
    ca, worker, worker_key, client, client_key = (
        (keys / f).read_bytes() for f in ("ca.pem", "worker.pem", "worker.key", "client.pem",
                                          "client.key"))

    def who(_, context):
        return b"|".join(context.auth_context()["x509_common_name"])

    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
        "T", {"Who": grpc.unary_unary_rpc_method_handler(who)}),))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(
        [(worker_key, worker)], root_certificates=ca, require_client_auth=True))
    server.start()
    try:
        def ask(**credentials):
            with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(
                    root_certificates=ca, **credentials)) as channel:
                return channel.unary_unary("/T/Who")(b"", timeout=20)

        assert ask(private_key=client_key, certificate_chain=client) == b"client"
        with pytest.raises(grpc.RpcError):
            ask()
    finally:
        server.stop(None)


def test_issued_folders_hold_what_their_machine_needs(mcp_bin, keys, tmp_path, openssl):
    done = ok(mcp(mcp_bin, "keys", "issue", "worker", "gpu-2", "--hosts", "10.0.0.2, gpu-2.lan",
                  "--keys", keys, cwd=tmp_path))
    folder = tmp_path / "gpu-2-keys"
    assert "gpu-2-keys" in done.text
    assert modes(folder) == {n: SET[n] for n in ("ca.pem", "worker.pem", "worker.key", "token.pub",
                                                 "revoked.json")}
    assert rights(folder) == 0o700
    assert "does match" in openssl("x509", "-in", folder / "worker.pem", "-noout", "-checkip",
                                   "10.0.0.2")
    entry = [c for c in shown(mcp_bin, keys)["issued"] if c["name"] == "gpu-2"]
    assert len(entry) == 1 and entry[0]["role"] == "worker"
    der = ssl.PEM_cert_to_DER_cert((folder / "worker.pem").read_text())
    assert entry[0]["sha256"] == hashlib.sha256(der).hexdigest()
    ok(mcp(mcp_bin, "keys", "issue", "admin", "root", "-o", tmp_path / "root", "--keys", keys))
    assert sorted(modes(tmp_path / "root")) == ["admin.key", "admin.pem", "ca.pem", "revoked.json",
                                                "token.pub"]


# ---- tokens ---------------------------------------------------------------------------


def unpack(token):
    def decode(text):
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

    header, payload, signature = token.split(".")
    return (json.loads(decode(header)), json.loads(decode(payload)), decode(signature),
            f"{header}.{payload}".encode())


def sign(mcp_bin, keys, *args):
    text = ok(mcp(mcp_bin, "keys", "token", "--keys", keys, *args)).text
    assert text.endswith("\n") and text.count("\n") == 1
    return text.strip()


def test_a_token_says_what_was_asked_for(mcp_bin, keys):
    fingerprint = "ab" * 32
    header, claims, signature, _ = unpack(sign(
        mcp_bin, keys, "--subject", "alice", "--scope", "infer state", "--fingerprint", fingerprint,
        "--layers", "4-26", "--rate", "1000", "--priority", "realtime", "--expires", "15m",
        "--audience", "gpu-1"))
    about = shown(mcp_bin, keys)
    der = ssl.PEM_cert_to_DER_cert((keys / "client.pem").read_text())
    digest = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    assert header == {"alg": "EdDSA", "typ": "at+jwt", "kid": about["token_keys"][0]["id"]}
    assert len(signature) == 64
    assert claims.pop("exp") - claims["iat"] == 900
    assert claims.pop("iat") == claims.pop("nbf")
    assert len(claims.pop("jti")) == 32
    assert claims == {"iss": about["authority"]["id"], "sub": "alice", "aud": "gpu-1",
                      "cnf": {"x5t#S256": digest}, "scope": "infer state", "model": fingerprint,
                      "layers": [4, 26], "rate": 1000, "priority": "realtime"}
    _, claims, _, _ = unpack(sign(mcp_bin, keys, "--subject", "bob"))
    assert claims["aud"] == claims["iss"] and claims["scope"] == "infer generate"
    assert not {"model", "layers", "rate"} & set(claims)
    assert claims["exp"] - claims["iat"] == 86400


def test_openssl_verifies_a_tokens_signature(mcp_bin, keys, openssl, tmp_path):
    _, _, signature, signed = unpack(sign(mcp_bin, keys, "--subject", "alice"))
    (tmp_path / "signed").write_bytes(signed)
    (tmp_path / "signature").write_bytes(signature)
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", keys / "token.pub", "-rawin", "-in",
            tmp_path / "signed", "-sigfile", tmp_path / "signature")
    (tmp_path / "signed").write_bytes(signed + b"x")
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", keys / "token.pub", "-rawin", "-in",
            tmp_path / "signed", "-sigfile", tmp_path / "signature", succeeds=False)


def test_a_token_for_programs_is_one_object(mcp_bin, keys):
    result = mcp(mcp_bin, "keys", "token", "--subject", "gr\u00fc\u00df", "--expires", "30d",
                 "--json", "--keys", keys).json
    assert unpack(result["token"])[1]["sub"] == result["subject"] == "gr\u00fc\u00df"
    assert result["expires_s"] == 30 * 86400


def test_the_token_key_can_be_rotated_with_openssl(mcp_bin, tmp_path, openssl):
    folder = init(mcp_bin, tmp_path / "keys")
    old = sign(mcp_bin, folder, "--subject", "alice")
    (folder / "token.pub").rename(folder / "token-old.pub")
    (folder / "token.key").unlink()
    openssl("genpkey", "-algorithm", "ed25519", "-out", folder / "token.key")
    openssl("pkey", "-in", folder / "token.key", "-pubout", "-out", folder / "token.pub")
    new = sign(mcp_bin, folder, "--subject", "alice")
    about = shown(mcp_bin, folder)["token_keys"]
    assert {k["file"]: k["id"] for k in about} == {
        "token-old.pub": unpack(old)[0]["kid"], "token.pub": unpack(new)[0]["kid"]}
    ok(mcp(mcp_bin, "keys", "revoke", old, "--keys", folder))  # still known
    ok(mcp(mcp_bin, "keys", "issue", "worker", "w", "-o", tmp_path / "w", "--keys", folder))
    assert (tmp_path / "w/token-old.pub").is_file()


# ---- taking back ----------------------------------------------------------------------


def test_revoking_is_written_down_and_shown(mcp_bin, tmp_path):
    folder = init(mcp_bin, tmp_path / "keys")
    token = sign(mcp_bin, folder, "--subject", "alice")
    for i in range(2):
        ok(mcp(mcp_bin, "keys", "issue", "client", "eve", "-o", tmp_path / f"e{i}", "--keys", folder))
    assert ok(mcp(mcp_bin, "keys", "revoke", "eve", "--keys", folder)).text.startswith("revoked: 2;")
    assert "already" in ok(mcp(mcp_bin, "keys", "revoke", "eve", "--keys", folder)).text
    assert ok(mcp(mcp_bin, "keys", "revoke", folder / "worker.pem", "--keys", folder)).text \
        .startswith("revoked: 1;")
    ok(mcp(mcp_bin, "keys", "revoke", token, "--keys", folder))
    about = shown(mcp_bin, folder)
    assert {c["name"] for c in about["revoked"]["certificates"]} == {"eve", "worker"}
    assert [t["jti"] for t in about["revoked"]["tokens"]] == [unpack(token)[1]["jti"]]
    assert [c["revoked"] for c in about["certificates"]] == [True, False, False]
    people = ok(mcp(mcp_bin, "keys", "show", "--keys", folder)).text
    assert "client eve, revoked, serial" in people and "3 certificates, 1 tokens" in people
    refused(mcp(mcp_bin, "keys", "revoke", "nobody", "--keys", folder),
            "mcp keys revoke: 'nobody' is no certificate's or token's file")
    refused(mcp(mcp_bin, "keys", "revoke", folder / "ca.pem", "--keys", folder), "mcp keys revoke: ",
            "is the authority itself")


# ---- one line -------------------------------------------------------------------------


def test_a_line_is_all_that_a_user_needs(mcp_bin, keys, tmp_path, openssl):
    text = ok(mcp(mcp_bin, "keys", "invite", "carol", "--endpoint", "gpu.lan:7070", "--keys",
                  keys)).text
    line = text.strip()
    assert text == line + "\n" and line.startswith("mcp1:") and len(line) < 4096
    for n, how in enumerate(({"args": [line]}, {"args": ["-"], "stdin": text},
                             {"args": [], "stdin": text}, {"args": [], "env": {"MCP_LINE": line}})):
        folder = tmp_path / f"carol{n}"
        done = ok(mcp(mcp_bin, "join", *how["args"], "--keys", folder, stdin=how.get("stdin", ""),
                      env=how.get("env")))
        assert f"mcp run -m FILE --worker gpu.lan:7070 --keys {folder}\n" in done.text
        assert modes(folder) == {"ca.pem": 0o644, "client.pem": 0o644, "client.key": 0o600,
                                 "workers": 0o644}
        assert (folder / "workers").read_text() == "gpu.lan:7070\n"
        openssl("verify", "-purpose", "sslclient", "-CAfile", keys / "ca.pem", folder / "client.pem")
    about = shown(mcp_bin, folder)
    assert about["workers"] == ["gpu.lan:7070"]
    assert about["certificates"][0]["name"] == "carol" and about["certificates"][0]["key"] == "ok"
    second = mcp(mcp_bin, "keys", "invite", "carol", "--endpoint", "[::1]:7071", "--keys", keys).text
    ok(mcp(mcp_bin, "join", second.strip(), "--keys", folder))
    assert (folder / "workers").read_text() == "gpu.lan:7070\n[::1]:7071\n"


def test_join_refuses_by_one_sentence_and_leaves_nothing(mcp_bin, keys, tmp_path):
    line = mcp(mcp_bin, "keys", "invite", "dave", "--endpoint", "a:1", "--keys", keys).text.strip()

    def join(text, folder="none", stdin=""):
        return mcp(mcp_bin, "join", text, "--keys", tmp_path / folder, stdin=stdin)

    refused(join("hello"), "mcp join: that is no line made by 'mcp keys invite'")
    refused(join("mcp9:AAAA"), "mcp join: the line is of kind mcp9")
    refused(join(line[:-20]), "mcp join: the line")
    refused(join(line[:100] + " " + line[100:]), "mcp join: the line is damaged: paste it whole")
    refused(join("-", stdin=""), "mcp join: that is no line")
    refused(join("-", stdin="x" * 100000), "mcp join: standard input is longer than any line")
    other = init(mcp_bin, tmp_path / "other")
    refused(join(line, "other"), f"mcp join: {other} holds the keys of another authority")
    assert modes(other) == SET
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


# ---- usage ----------------------------------------------------------------------------


def test_wrong_usage_is_one_sentence(mcp_bin, keys, tmp_path):
    for args, says in (
            (["keys"], "mcp keys: a second word is missing"),
            (["keys", "isue"], "mcp keys: unknown verb 'isue'; did you mean 'issue'?"),
            (["keys", "init", "--hosts", "a b"], "mcp keys init: 'a b' is neither a DNS name nor"),
            (["keys", "issue"], "mcp keys issue: say for whom; usage: mcp keys issue worker|client"),
            (["keys", "issue", "client"], "mcp keys issue: say for whom"),
            (["keys", "issue", "boss", "x"], "mcp keys issue: --role: 'boss' is not one of worker"),
            (["keys", "issue", "client", "a/b"], "mcp keys issue: the name 'a/b' is not 1 to 64"),
            (["keys", "issue", "client", "a", "--hosts", "b"], "mcp keys issue: host names are for"),
            (["keys", "token"], "mcp keys token: no subject: say with --subject"),
            (["keys", "token", "--subject", "a", "--expires", "1w"],
             "mcp keys token: --expires: '1w' is not a time such as"),
            (["keys", "token", "--subject", "a", "--expires", "31d"],
             "mcp keys token: a token lives 1 to 2592000 s, not 2678400"),
            (["keys", "token", "--subject", "a", "--layers", "4:26"],
             "mcp keys token: --layers: '4:26' is not FIRST-LAST"),
            (["keys", "token", "--subject", "a", "--layers", "26-4"],
             "mcp keys token: --layers: '26-4' is not FIRST-LAST"),
            (["keys", "token", "--subject", "a", "--scope", "all"],
             "mcp keys token: the scope 'all' is not"),
            (["keys", "token", "--subject", "a\nb"], "mcp keys token: the subject is not"),
            (["keys", "token", "--subject", "a", "--rate", "-1"], "mcp keys token: --rate: -1 is"),
            (["keys", "revoke"], "mcp keys revoke: say what to take back"),
            (["keys", "invite", "a"], "mcp keys invite: say whom and to which worker"),
            (["keys", "invite", "a", "--endpoint", "a"], "mcp keys invite: 'a' is not the HOST:PORT")):
        folder = tmp_path / "new" if "init" in args else keys
        refused(mcp(mcp_bin, *args, *(["--keys", folder] if len(args) > 1 and args[1] != "isue"
                                      else [])), says)
    refused(mcp(mcp_bin, "keys", "show", "--keys", "x" * 5000), "mcp keys show: --keys: the path has")
    refused(mcp(mcp_bin, "keys", "show", env={"HOME": "", "XDG_CONFIG_HOME": ""}),
            "mcp keys show: no keys folder: none of MCP_KEYS")
