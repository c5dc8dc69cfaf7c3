import io
import re
import time

import pytest

from rlft.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_appear_now_and_then_and_at_the_end():
    out = io.StringIO()
    with Progress("rl", out, plain_interval_s=0.2) as progress:
        for done in range(1, 31):
            time.sleep(0.02)
            progress.update(done, 30, success=0.5, ci95=(0.31, 0.69), kl=0.0123)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("rl:   3% 1/30 [00:00<?")
    assert 4 <= len(lines) <= 6
    assert re.fullmatch(r"rl: 100% 30/30 \[00:00<00:00, .*it/s, success 50\.0%, ci95 31-69%, kl 0\.0123\]", lines[-2])
    assert re.fullmatch("rl: done after 00:0[01]", lines[-1])
    assert "\r" not in out.getvalue()


def test_a_terminal_line_is_redrawn():
    out = Terminal()
    with Progress("sft", out) as progress:
        for done in (1, 2, 3):
            progress.update(done, 3, loss=1.0)
    assert out.getvalue().startswith("\r\x1b[Ksft:  33%|")
    assert out.getvalue().count("\r") == 2  # the second report came at once after the first
    assert out.getvalue().endswith("loss 1]\nsft: done after 00:00\n")


def test_the_remaining_time_does_not_count_what_a_resume_skipped(monkeypatch):
    now = [1000.0]  # after start-up
    monkeypatch.setattr("rlft.progress.time.monotonic", lambda: now[0])
    out = io.StringIO()
    progress = Progress("rl", out, plain_interval_s=0)
    progress.update(90, 100)
    now[0] += 10.0
    progress.update(91, 100)
    assert out.getvalue().splitlines()[-1].startswith("rl:  91% 91/100 [00:10<01:30")


def test_an_error_is_named():
    out = io.StringIO()
    progress = Progress("rl", out)
    progress.update(1, 2)
    progress.__exit__(KeyError, KeyError(), None)
    assert out.getvalue().endswith("rl: stopped by KeyError after 00:00\n")


def test_nothing_shown_says_nothing():
    out = io.StringIO()
    with Progress("rl", out):
        pass
    assert out.getvalue() == ""


class Broken(io.StringIO):
    def write(self, _text):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("kind", [io.StringIO, Broken])
def test_a_stream_that_is_gone_stops_nothing(kind, terminal):
    out = kind()
    out.isatty = lambda: terminal
    with Progress("rl", out, plain_interval_s=0) as progress:
        if kind is io.StringIO:
            progress.update(1, 3)
            out.close()
        progress.update(2, 3)
        progress.update(3, 3)


def test_large_figures_are_written_out():
    out = io.StringIO()
    Progress("rl", out, plain_interval_s=0).update(1, 2, steps_per_s=1342.7, kl=0.00123, neg=-1e6)
    assert out.getvalue().strip().endswith("steps_per_s 1,343, kl 0.00123, neg -1,000,000]")
