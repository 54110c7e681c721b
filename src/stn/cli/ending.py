"""How a command ends: in a sentence that speaks of its options, or in silence; never in a traceback for what a user did."""

from __future__ import annotations

import codecs
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from stn import _check
from stn.experiments.rows import DamagedRows

WRONG, PIPE, INTERRUPTED, TERMINATED = 2, 141, 130, 143  # exit codes; the last three as of a program that a signal ends
GOES_ON = {  # command: how to go on with what was interrupted
    "train": "the same command with --resume goes on",
    "reproduce": "the same command goes on",
    "bench": "the same command with --resume goes on",
}
NO_MEMORY = re.compile("allocate memory|not enough memory|out of memory|Storage size calculation overflowed|SIZE_MAX", re.I)
PLAIN = {"±": "+-", "–": "-", "…": "..", "×": "x", "—": "-"}


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does."""


@contextmanager
def well_ended(command: str, names: Mapping[str, str]) -> Iterator[None]:
    """Around a command. names: of its arguments in sentences, as the command line has them."""
    with _signals(), _plain_warnings():
        try:
            yield
            sys.stdout.flush()
        except _check.InputError as error:
            end(spoken(str(error), names), WRONG)
        except BrokenPipeError:
            _forget_output()
            sys.exit(PIPE)
        except KeyboardInterrupt as error:
            rest = f"; {GOES_ON[command]}" if command in GOES_ON else ""
            end(f"interrupted{rest}", TERMINATED if isinstance(error, Terminated) else INTERRUPTED)
        except MemoryError:
            end(f"{command} needs more memory than there is", WRONG)
        except OSError as error:
            end(f"{error.filename or command}: {_check.reason(error)}", WRONG)
        except RuntimeError as error:
            if not NO_MEMORY.search(str(error)):
                raise
            end(f"{command} needs more memory than there is", WRONG)


def end(sentence: str, code: int) -> None:
    with suppress(OSError):
        print(f"{os.linesep if code > WRONG else ''}stn: {sentence}", file=sys.stderr)
    sys.exit(code)


def spoken(sentence: str, names: Mapping[str, str]) -> str:
    """A sentence about arguments, with their names as the command line has them. Those in a file keep theirs."""
    if re.match(r"\S*(config\.json|last\.pt)\b", sentence):
        return sentence
    for name in sorted(names, key=len, reverse=True):
        word = rf"(?<![\w./-]){re.escape(name)}"
        sentence = re.sub(rf"{word}=True\b", names[name], sentence)
        sentence = re.sub(rf"{word}='?([^\s',;]+)'?", rf"{names[name]} \1", sentence)
        sentence = re.sub(rf"(^|seed \d+: ){name}(?= )", rf"\1{names[name]}", sentence)
        sentence = re.sub(rf"{word}(?= \(now )", names[name], sentence)
        if " goes without " in sentence:
            sentence = re.sub(rf"{word}(?=[,; ])", names[name], sentence)
    return sentence


def prepare_output() -> None:
    """A terminal that lacks a sign gets a plain one: ± is no reason to end after an hour of training."""

    def plain(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end

    codecs.register_error("stn", plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., Any] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="stn")


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM ends a command like Ctrl-C: what it wrote is whole, what it started ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """This library's warnings as sentences, without the place in its source."""
    show = warnings.showwarning

    def plain(message: Warning | str, category: type[Warning], *place: Any, **rest: Any) -> None:
        if category.__module__.startswith("stn."):
            print(f"stn: {message}", file=sys.stderr)
        else:
            show(message, category, *place, **rest)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DamagedRows)
        warnings.showwarning = plain
        yield


def _forget_output() -> None:
    """Nobody reads any more: what is still in the buffer must not end in another error when the interpreter does."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
