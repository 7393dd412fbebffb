# SPDX-License-Identifier: MIT
"""libmcp.so through ctypes: just what the tests call."""

import ctypes as c

c_u32, c_u64 = c.c_uint32, c.c_uint64

CODES = {0: "MCP_OK", -1: "MCP_EINVAL", -2: "MCP_ENOMEM", -3: "MCP_EIO", -4: "MCP_EFORMAT",
         -5: "MCP_ENOTSUP", -6: "MCP_ERANGE", -7: "MCP_ENOTFOUND", -8: "MCP_EDEVICE",
         -9: "MCP_ECORRUPT", -10: "MCP_ECANCELED"}


class Error(c.Structure):
    _fields_ = [("code", c.c_int), ("text", c.c_char * 512)]


class ModelInfo(c.Structure):
    _fields_ = ([(name, c.c_char_p) for name in (
        "path", "architecture", "name", "quantisation", "chat_template", "tokenizer")] +
        [(name, c_u32) for name in (
            "parts", "layers", "n_embd", "n_vocab", "n_ctx_train", "n_head", "n_head_kv", "n_ff",
            "n_expert", "n_expert_used")] +
        [(name, c_u64) for name in (
            "parameters", "weight_bytes", "file_bytes", "kv_bytes_f16", "kv_bytes_q8_0")])


class EngineOpts(c.Structure):
    _fields_ = ([(name, c_u32) for name in (
        "struct_size", "first", "last", "ctx_tokens", "seqs", "batch_tokens", "ubatch_tokens",
        "threads")] + [("device", c.c_char_p), ("gpu_layers", c.c_int32), ("kv_k", c.c_int),
                       ("kv_v", c.c_int), ("flash", c.c_int), ("poll", c_u32), ("repack", c.c_int)])


class Window(c.Structure):
    _fields_ = [("seq", c_u32), ("pos", c_u32), ("count", c_u32),
                ("tokens", c.POINTER(c.c_int32)), ("hidden", c.POINTER(c.c_float)),
                ("out", c.c_int), ("out_index", c.POINTER(c_u32)), ("out_count", c_u32)]


OUT_LAST, WANT_LOGITS = 1, 1


class Failed(Exception):
    """A negative code with its sentence."""

    def __init__(self, call, error, code):
        super().__init__(f"{call}: {CODES.get(code, code)}: {error.text.decode(errors='replace')}")
        self.code = CODES.get(code, str(code))
        self.text = error.text
        self.call = call
        self.agrees = error.code == code  # the code is returned and stored


class Library:
    def __init__(self, path):
        self.lib = c.CDLL(str(path))
        p = c.POINTER
        err = p(Error)
        for name, result, args in (
                ("mcp_model_open", c.c_int, [p(c.c_void_p), c.c_char_p, err]),
                ("mcp_model_close", None, [c.c_void_p]),
                ("mcp_model_get_info", p(ModelInfo), [c.c_void_p]),
                ("mcp_model_range_bytes", c_u64, [c.c_void_p, c_u32, c_u32]),
                ("mcp_model_fingerprint", c.c_int, [c.c_void_p, c.c_char_p, err]),
                ("mcp_model_weights_fingerprint", c.c_int, [c.c_void_p, c.c_int, c.c_char_p, err]),
                ("mcp_model_tokenize", c.c_int, [c.c_void_p, c.c_char_p, c.c_size_t, c.c_int,
                                                 p(c.c_int32), c.c_size_t, err]),
                ("mcp_model_token_bytes", c.c_int, [c.c_void_p, c.c_int32, c.c_int, c.c_char_p,
                                                    c.c_size_t, err]),
                ("mcp_engine_open", c.c_int, [p(c.c_void_p), c.c_void_p, p(EngineOpts), err]),
                ("mcp_engine_close", None, [c.c_void_p]),
                ("mcp_engine_forward", c.c_int, [c.c_void_p, c_u32, c_u32, c.c_int, p(Window),
                                                 c_u32, p(c.c_float), c.c_size_t, err])):
            try:
                function = getattr(self.lib, name)
            except AttributeError:
                continue  # said when it is called
            function.restype, function.argtypes = result, args

    def call(self, name, *args):
        error = Error()
        code = getattr(self.lib, name)(*args, c.byref(error))
        if code < 0:
            raise Failed(name, error, code)
        return code


class Model:
    def __init__(self, library, path):
        self.library = library
        self.handle = c.c_void_p()
        library.call("mcp_model_open", c.byref(self.handle), str(path).encode())

    def close(self):
        self.library.lib.mcp_model_close(self.handle)
        self.handle = None

    def info(self):
        return self.library.lib.mcp_model_get_info(self.handle).contents

    def fingerprint(self):
        out = c.create_string_buffer(32)
        self.library.call("mcp_model_fingerprint", self.handle, out)
        return out.raw

    def weights_fingerprint(self, layer):
        out = c.create_string_buffer(32)
        self.library.call("mcp_model_weights_fingerprint", self.handle, layer, out)
        return out.raw

    def tokenize(self, text, flags=3):
        call = ("mcp_model_tokenize", self.handle, text, len(text), flags)
        count = self.library.call(*call, None, 0)
        tokens = (c.c_int32 * max(count, 1))()
        again = self.library.call(*call, tokens, count)
        assert again == count
        return list(tokens[:count])

    def token_bytes(self, token, special=1):
        count = self.library.call("mcp_model_token_bytes", self.handle, token, special, None, 0)
        out = c.create_string_buffer(max(count, 1))
        self.library.call("mcp_model_token_bytes", self.handle, token, special, out, count)
        return out.raw[:count]

    def forward(self, tokens, ctx=32):
        """The logits behind the last of `tokens`, from an engine made for this."""
        opts = EngineOpts(struct_size=c.sizeof(EngineOpts), ctx_tokens=ctx, seqs=1,
                          batch_tokens=ctx, ubatch_tokens=ctx, threads=1, device=b"cpu",
                          gpu_layers=-1, poll=0, repack=1)
        engine = c.c_void_p()
        self.library.call("mcp_engine_open", c.byref(engine), self.handle, c.byref(opts))
        try:
            info = self.info()
            ids = (c.c_int32 * len(tokens))(*tokens)
            window = Window(seq=0, pos=0, count=len(tokens), tokens=ids, out=OUT_LAST)
            logits = (c.c_float * info.n_vocab)()
            self.library.call("mcp_engine_forward", engine, 0, info.layers, WANT_LOGITS,
                              c.byref(window), 1, logits, info.n_vocab)
            return list(logits)
        finally:
            self.library.lib.mcp_engine_close(engine)
