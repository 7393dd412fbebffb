# SPDX-License-Identifier: MIT
"""`mcp run` without a prompt: turns from a pipe and from a terminal, history, commands,
Ctrl-C."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest
from cli_common import SECONDS, answer, clean_env, mcp, refused

FIRST = "My name is Bob."
SECOND = "What is my name?"


def chat(mcp_bin, smollm2, *args, **kwargs):
    return mcp(mcp_bin, "run", "-m", smollm2, "--temp", "0", "-c", "512", *args, **kwargs)


def turns(result):
    assert result.status == 0, result
    return [json.loads(line) for line in result.text.splitlines()]


# ---- a pipe -------------------------------------------------------------------------


def test_lines_of_a_pipe_are_turns_and_the_second_knows_the_first(mcp_bin, smollm2):
    one, two = turns(chat(mcp_bin, smollm2, "-n", "8", "--json",
                          stdin=f"{FIRST}\n\n{SECOND}"))  # empty lines are no turns
    alone = answer(mcp_bin, smollm2, "-n", "8", "-p", FIRST)
    assert one["tokens"] == alone["tokens"]
    assert two["prompt_tokens"] > one["prompt_tokens"] + one["generated_tokens"]
    assert two["prompt_cached"] >= one["prompt_tokens"]
    fresh = answer(mcp_bin, smollm2, "-n", "8", "-p", SECOND)
    assert two["tokens"] != fresh["tokens"]
    # The same conversation, written out by hand.
    by_hand = answer(mcp_bin, smollm2, "-n", "8", "--raw", "-p",
                     f"<|im_start|>user\n{FIRST}<|im_end|>\n<|im_start|>assistant\n{one['text']}"
                     f"<|im_end|>\n<|im_start|>user\n{SECOND}<|im_end|>\n<|im_start|>assistant\n")
    assert by_hand["prompt_tokens"] == two["prompt_tokens"]
    assert by_hand["tokens"] == two["tokens"]


def test_clear_forgets_the_conversation_but_not_the_system_prompt(mcp_bin, smollm2):
    system = ["-sys", "You are a pirate."]
    _, two = turns(chat(mcp_bin, smollm2, "-n", "8", "--json", *system,
                        stdin=f"{FIRST}\n/clear\n{SECOND}\n"))
    fresh = answer(mcp_bin, smollm2, "-n", "8", "-p", SECOND, *system)
    assert two["prompt_tokens"] == fresh["prompt_tokens"] and two["tokens"] == fresh["tokens"]


def test_exit_ends_and_help_lists_the_commands(mcp_bin, smollm2):
    result = chat(mcp_bin, smollm2, "-n", "4", stdin=f"/help\n/exit\n{FIRST}\n")
    assert result.status == 0 and result.err == "", result
    assert [w for w in result.text.split() if w.startswith("/")] == ["/help", "/clear", "/exit"]


def test_a_slash_inside_or_before_other_words_is_text(mcp_bin, smollm2):
    (one,) = turns(chat(mcp_bin, smollm2, "-n", "2", "--json", stdin="/exit the program\n"))
    assert one["generated_tokens"] == 2


def test_a_pipe_sees_answers_only_and_one_line_of_timings_each(mcp_bin, smollm2):
    result = chat(mcp_bin, smollm2, "-n", "6", stdin=f"{FIRST}\n{SECOND}\n")
    one, two = turns(chat(mcp_bin, smollm2, "-n", "6", "--json", stdin=f"{FIRST}\n{SECOND}\n"))
    assert result.text == f"{one['text']}\n{two['text']}\n"
    assert [line.split()[0] for line in result.err_lines] == ["prompt", "prompt"]


def test_raw_lines_continue_one_text(mcp_bin, smollm2):
    one, two = turns(chat(mcp_bin, smollm2, "-n", "4", "--raw", "--json",
                          stdin="One, two, three,\nOnce upon a time\n"))
    straight = answer(mcp_bin, smollm2, "-n", "4", "--raw", "-p",
                      f"One, two, three,{one['text']}\nOnce upon a time")
    assert two["prompt_tokens"] == straight["prompt_tokens"]
    assert two["tokens"] == straight["tokens"]


def test_a_line_of_any_length_is_one_turn(mcp_bin, smollm2):
    line = "=" * 15000  # more than a terminal's line or a stdio buffer, yet few tokens
    (one,) = turns(chat(mcp_bin, smollm2, "-n", "1", "--json", stdin=line + "\n"))
    whole = answer(mcp_bin, smollm2, "-n", "1", "-p", line)
    assert one["prompt_tokens"] == whole["prompt_tokens"] > 200


def test_no_input_at_all_is_told(mcp_bin, smollm2):
    refused(chat(mcp_bin, smollm2, stdin="\n"),
            "mcp run: no prompt: give -p or -f, or lines on standard input\n")


def test_a_turn_too_long_for_the_context_ends_a_piped_chat(mcp_bin, smollm2):
    result = mcp(mcp_bin, "run", "-m", smollm2, "-n", "2", "-c", "64", "--temp", "0",
                 stdin=f"{FIRST}\n{'word ' * 100}\n{SECOND}\n")
    assert result.status == 1 and result.text.count("\n") == 1, result
    assert re.fullmatch(r"mcp run: the prompt has \d+ tokens, the context holds 64: raise "
                        r"-c/--ctx-size", result.err_lines[-1]), result


def read_until(stream, mark, seconds=SECONDS):
    """Bytes of a descriptor up to and with `mark` (a compiled pattern)."""
    got = b""
    end = time.monotonic() + seconds
    while not mark.search(got):
        left = end - time.monotonic()
        assert left > 0, f"no {mark.pattern} in {got!r}"
        if select.select([stream], [], [], left)[0]:
            chunk = os.read(stream, 65536)
            assert chunk, f"end before {mark.pattern} in {got!r}"
            got += chunk
    return got


def test_ctrl_c_in_a_piped_chat_ends_only_the_answer(mcp_bin, smollm2):
    process = subprocess.Popen([mcp_bin, "run", "-m", smollm2, "--temp", "0", "--ignore-eos", "-c",
                                "4096"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=clean_env())
    try:
        for question in (FIRST, SECOND):
            process.stdin.write(question.encode() + b"\n")
            process.stdin.flush()
            read_until(process.stdout.fileno(), re.compile(rb"\w"))
            process.send_signal(signal.SIGINT)
            timings = read_until(process.stderr.fileno(), re.compile(rb"\n"))
            assert b"stopped by Ctrl-C" in timings
        # The second question came with the first answer's history: two turns in one process.
        assert int(re.search(rb"prompt (\d+) tokens", timings).group(1)) > 25
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()


# ---- a terminal ---------------------------------------------------------------------


class Terminal:
    """The program on a pseudo terminal of 80 x 24."""

    def __init__(self, args, stdout=None):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if stdout is not None:
                os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT, 0o644), 1)
            os.execve(str(args[0]), list(map(str, args)),
                      clean_env(TERM="xterm", LC_ALL="C.UTF-8"))
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.status = None

    def expect(self, pattern):
        return read_until(self.fd, re.compile(pattern)).decode("utf-8", "replace")

    def send(self, keys):
        os.write(self.fd, keys.encode())

    def wait(self):
        end = time.monotonic() + SECONDS
        while self.status is None and time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif select.select([self.fd], [], [], 0.05)[0]:
                try:
                    os.read(self.fd, 65536)
                except OSError:  # the other side is closed
                    time.sleep(0.05)
        return self.status

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


PROMPT = rb"> \r\x1b\[2C"  # drawn, and the cursor behind it


@pytest.fixture
def terminal(mcp_bin, smollm2):
    t = Terminal([mcp_bin, "run", "-m", smollm2, "--temp", "0", "-c", "2048", "--ignore-eos"])
    t.expect(PROMPT)
    yield t
    t.close()


def test_ctrl_c_on_a_terminal_stops_the_answer_and_twice_at_the_prompt_leaves(terminal):
    terminal.send("Tell me a long story.\r")
    terminal.expect(rb"\x1b\[\?2004l\w")  # the editor has left, the answer has begun
    terminal.send("\x03")
    terminal.expect(rb"stopped by Ctrl-C(?s:.*)" + PROMPT)
    terminal.send("\x03")
    terminal.expect(rb"Ctrl-C again(?s:.*)" + PROMPT)
    terminal.send("\x03")
    assert terminal.wait() == 0


def test_a_key_between_two_ctrl_c_keeps_the_chat(terminal):
    terminal.send("\x03")
    terminal.expect(rb"Ctrl-C again(?s:.*)" + PROMPT)
    terminal.send("x")
    terminal.expect(rb"> x")
    terminal.send("\x03")  # drops what was typed
    terminal.expect(rb"Ctrl-C again(?s:.*)" + PROMPT)
    terminal.send("\x04")
    assert terminal.wait() == 0


def test_the_editor_edits_and_brings_back_earlier_turns(terminal):
    terminal.send("/hepl")
    terminal.expect(rb"/hepl")
    terminal.send("\x7f\x7flp\r")  # two back: /help
    terminal.expect(rb"/clear(?s:.*)" + PROMPT)
    terminal.send("\x1b[A")
    terminal.expect(rb"> /help")
    terminal.send("\x15/exit\r")
    assert terminal.wait() == 0


def test_a_pasted_page_is_one_turn_with_its_newlines(mcp_bin, smollm2):
    page = "".join(f"{i} {'=' * 100}\n" for i in range(60))  # few tokens, many bytes
    assert len(page) > 4096  # what a terminal's own line mode holds
    expected = answer(mcp_bin, smollm2, "-n", "1", "-p", page)["prompt_tokens"]
    t = Terminal([mcp_bin, "run", "-m", smollm2, "--temp", "0", "-n", "2", "-c", "512"])
    try:
        t.expect(PROMPT)
        paste = f"\x1b[200~{page}\x1b[201~"
        for i in range(0, len(paste), 1000):
            t.send(paste[i:i + 1000])
        t.expect(rb"59 =")
        t.send("\r")
        timings = t.expect(rb"prompt \d+ tokens(?s:.*)" + PROMPT)
        assert len(re.findall(r"prompt \d+ tokens", timings)) == 1
        assert int(re.search(r"prompt (\d+) tokens", timings).group(1)) == expected
        t.send("\x04")
        assert t.wait() == 0
    finally:
        t.close()


def test_the_terminal_is_put_back_when_the_program_is_ended(terminal):
    before = termios.tcgetattr(terminal.fd)
    assert not before[3] & termios.ICANON  # the editor has it
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.wait() == -signal.SIGTERM
    after = termios.tcgetattr(terminal.fd)
    assert after[3] & termios.ICANON and after[3] & termios.ECHO


def test_no_decoration_when_standard_output_is_a_file(mcp_bin, smollm2, tmp_path):
    t = Terminal([mcp_bin, "run", "-m", smollm2, "--temp", "0", "-n", "4", "-c", "512"],
                 stdout=tmp_path / "out")
    try:
        t.send(f"{FIRST}\r")
        t.expect(rb"generated 4 tokens")
        t.send("\x04")
        assert t.wait() == 0
        expected = answer(mcp_bin, smollm2, "-n", "4", "-p", FIRST)["text"]
        assert (tmp_path / "out").read_text() == expected + "\n"
    finally:
        t.close()
