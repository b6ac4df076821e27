"""Command-line arguments into a frozen dataclass; usage errors in one line."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from occsora_sim.errors import ConfigurationError, OccSoraError

Options = TypeVar("Options")

HELP = ("-h", "--help")

BOX = re.compile("\x1b\\[[0-9;]*m|[\u2500-\u257f]")
"""Colour codes and the characters that draw a box."""

RULE = re.compile("[\u2500-]{8}")
"""A line between two parts of a report; of hyphens where the terminal knows no others."""


def parse_command(command: Any, program: str, description: str, arguments: Sequence[str]) -> Any | None:
    """Read `arguments` into the options of a command's module; None when they asked for help.

    Where the module has a function `defaults`, it is shown the options and answers with the defaults that fit them
    (those of a preset, say); the arguments are then read once more on top of those.
    """
    default = None
    if hasattr(command, "defaults"):
        first = [argument for argument in arguments if argument not in HELP]
        default = command.defaults(parse(command.Options, program, description, first))
    return parse(command.Options, program, description, arguments, default)


def parse(
    options: type[Options],
    program: str,
    description: str,
    arguments: Sequence[str],
    default: Options | None = None,
) -> Options | None:
    """Read `arguments` into `options`; None when they asked for help, which is then printed.

    What the arguments leave out is as in `default`; by default as the class says.

    Raises:
        ConfigurationError: the arguments do not fit; the message is one line.

    """
    import tyro

    reports = io.StringIO()
    try:
        with contextlib.redirect_stderr(reports):
            return tyro.cli(
                options,
                prog=program,
                description=description[:1].upper() + description[1:] + ".",
                args=list(arguments),
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
            )
    except OccSoraError as error:
        raise ConfigurationError(f"{program}: {error}") from error
    except SystemExit as end:
        if end.code in (0, None):
            return None
        raise ConfigurationError(one_line(reports.getvalue(), program)) from None
    finally:
        if sys.exc_info()[0] is None and reports.getvalue():
            print(reports.getvalue(), file=sys.stderr, end="")


def one_line(report: str, program: str) -> str:
    """What tyro says in a box over many lines, as one line: what is wrong, the nearest option."""
    blocks: list[list[str]] = [[]]
    for line in report.splitlines()[1:]:  # the first holds a title
        text = BOX.sub("", line).strip()
        if RULE.search(line):
            blocks.append([])
        elif text:
            blocks[-1].append(text)
    blocks = [block for block in blocks if block]
    what = " ".join(blocks[0]) if blocks else "the arguments cannot be used"
    what = what[0].lower() + what[1:].rstrip(".")
    nearest = [block[1].split()[0] for block in blocks if len(block) > 1 and block[0].startswith("Perhaps")]
    hint = f"; did you mean {nearest[0]}?" if nearest else ";"
    return f"{program}: {what}{hint} see {program} --help"
