"""What is printed: one line stays one line, and no text plays with the terminal."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

from broker.cli.showing import printable, show_fields, show_table

NASTY = "a\x1b[31m\r\nb\u202e[bold]"


def test_text_does_nothing_to_a_terminal() -> None:
    assert printable(NASTY) == "a\ufffd[31m\ufffd\ufffdb\ufffd[bold]"


def test_fields_are_lined_up_and_empty_ones_left_out() -> None:
    with redirect_stdout(io.StringIO()) as out:
        show_fields({"tenant": "acme", "id": NASTY, "subject": ""})

    assert out.getvalue() == f"tenant  acme\nid      {printable(NASTY)}\n"


def test_a_table_in_a_pipe_has_a_line_each() -> None:
    long = "t" * 200

    with redirect_stdout(io.StringIO()) as out:
        show_table(("tenant", "state"), [(long, "ACTIVE"), ("b", "[red]\n")])

    assert out.getvalue().splitlines() == [
        f"{'TENANT':<200}  STATE",
        f"{long}  ACTIVE",
        f"{'b':<200}  [red]\ufffd",
    ]
