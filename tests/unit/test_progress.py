import io

import pytest

from rlft.progress import Progress, duration


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_appear_now_and_then_and_at_the_end():
    out, clock = io.StringIO(), Clock()
    with Progress("rl", out, plain_interval_s=10, clock=clock) as progress:
        for done in range(1, 31):
            clock.now = float(done)
            progress.update(done, 30, success=0.5, ci95=(0.31, 0.69), kl=0.0123)
    lines = out.getvalue().splitlines()
    assert [line.split(" | ")[0] for line in lines[:-1]] == [
        "rl   3% 1/30",
        "rl  37% 11/30",
        "rl  70% 21/30",
        "rl 100% 30/30",
    ]
    assert lines[1] == "rl  37% 11/30 | 11s | 19s left | success 50.0% | ci95 31-69% | kl 0.0123"
    assert lines[-1] == "rl: done after 30s"
    assert "\r" not in out.getvalue()


def test_a_terminal_line_is_redrawn():
    out, clock = Terminal(), Clock()
    with Progress("sft", out, clock=clock) as progress:
        for done in (1, 2, 3):
            clock.now = float(done)
            progress.update(done, 3, loss=1.0)
    assert out.getvalue().count("\r\x1b[K") == 3
    assert out.getvalue().endswith("\nsft: done after 3s\n")


def test_the_remaining_time_does_not_count_what_a_resume_skipped():
    out, clock = io.StringIO(), Clock()
    progress = Progress("rl", out, plain_interval_s=0, clock=clock)
    clock.now = 1000.0  # start-up
    progress.update(90, 100)
    clock.now = 1010.0
    progress.update(91, 100)
    assert "1m30s left" in out.getvalue().splitlines()[-1]


def test_an_error_is_named():
    out = io.StringIO()
    progress = Progress("rl", out, clock=Clock())
    progress.update(1, 2)
    progress.__exit__(KeyError, KeyError(), None)
    assert out.getvalue().endswith("rl: stopped by KeyError after 0s\n")


def test_nothing_shown_says_nothing():
    out = io.StringIO()
    with Progress("rl", out, clock=Clock()):
        pass
    assert out.getvalue() == ""


def test_a_closed_stream_stops_nothing():
    out = io.StringIO()
    progress = Progress("rl", out, plain_interval_s=0, clock=Clock())
    out.close()
    progress.update(1, 2)
    progress.update(2, 2)


def test_large_figures_are_written_out():
    out = io.StringIO()
    Progress("rl", out, plain_interval_s=0, clock=Clock()).update(1, 2, steps_per_s=1342.7, kl=0.00123, neg=-1e6)
    assert out.getvalue().strip().endswith("steps_per_s 1,343 | kl 0.00123 | neg -1,000,000")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (185, "3m05s"), (7620, "2h07m")])
def test_duration(seconds, text):
    assert duration(seconds) == text
