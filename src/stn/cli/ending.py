"""The end of a command: an error of the user is one sentence about the options, never a traceback."""

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
from typing import Any, NoReturn

from stn import _check
from stn.io.files import DamagedFile

WRONG, PIPE, INTERRUPTED, TERMINATED = 2, 141, 130, 143  # exit codes; the last three as for a signal
PATIENCE = 15  # seconds from a signal to the forced end
GOES_ON = {  # command -> how to continue after an interruption
    "train": "the same command with --resume continues",
    "reproduce": "the same command continues",
    "bench": "the same command with --resume continues",
}
NO_MEMORY = re.compile("allocate memory|not enough memory|out of memory|Storage size calculation overflowed|SIZE_MAX", re.I)
PLAIN = {"±": "+-", "–": "-", "…": "..", "×": "x", "—": "-"}


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command like Ctrl-C."""


@contextmanager
def well_ended(command: str, names: Mapping[str, str]) -> Iterator[None]:
    """Wrap a command. names: the names of its arguments on the command line."""
    rest = f"; {GOES_ON[command]}" if command in GOES_ON else ""
    with _signals() as asked, _plain_warnings():
        try:
            try:
                yield
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt as error:
            end(f"interrupted{rest}", TERMINATED if isinstance(error, Terminated) else INTERRUPTED)
        except Exception as error:
            if asked:  # an interruption inside a library can turn into another error, for example in compilers
                end(f"interrupted{rest}", asked[0])
            _explain(error, command, names)


def _explain(error: Exception, command: str, names: Mapping[str, str]) -> NoReturn:
    """Exit with a sentence for an error of the user or the machine; raise any other error again."""
    if isinstance(error, _check.InputError):
        end(spoken(str(error), names), WRONG)
    if isinstance(error, BrokenPipeError):
        _forget_output()
        sys.exit(PIPE)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
        end(f"{command} needs more memory than is available", WRONG)
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("stn"):
        end(f"the package {error.name.partition('.')[0]} is needed here: pip install 'torch-stn[train]'", WRONG)
    if isinstance(error, OSError):
        end(f"{error.filename or command}: {_check.reason(error)}", WRONG)
    raise error


def end(sentence: str, code: int) -> NoReturn:
    with suppress(OSError):
        print(f"{os.linesep if code > WRONG else ''}stn: {sentence}", file=sys.stderr)
    sys.exit(code)


def spoken(sentence: str, names: Mapping[str, str]) -> str:
    """Replace the names of arguments in a sentence by the names of options, except for sentences about a file."""
    if re.match(r"\S*(config\.json|last\.pt)\b", sentence):
        return sentence
    for name in sorted(names, key=len, reverse=True):
        word = rf"(?<![\w./-]){re.escape(name)}"
        sentence = re.sub(rf"{word}=True\b", names[name], sentence)
        sentence = re.sub(rf"{word}='?([^\s',;]+)'?", rf"{names[name]} \1", sentence)
        sentence = re.sub(rf"(^|seed \d+: ){name}(?= )", rf"\1{names[name]}", sentence)
        sentence = re.sub(rf"{word}(?= \(now )", names[name], sentence)
        if " cannot be combined with " in sentence:
            sentence = re.sub(rf"{word}(?=[,; ])", names[name], sentence)
    return sentence


def prepare_output() -> None:
    """Print a plain replacement for signs that the terminal cannot show, such as ±, instead of failing."""

    def plain(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end

    codecs.register_error("stn", plain)
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., Any] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="stn")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Let SIGTERM end a command like Ctrl-C: files are complete, and child processes end. Yields the exit codes.

    Python turns a signal into an exception, which is lost if it occurs in a callback from C code. A process that has not
    ended in time is therefore forced to exit, which all files survive.
    """
    asked: list[int] = []
    late: list[threading.Timer] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(128 + number)
        late.append(threading.Timer(PATIENCE, os._exit, args=(asked[0],)))
        late[-1].daemon = True
        late[-1].start()
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    unraisable, sys.unraisablehook = sys.unraisablehook, lambda found: None if asked else unraisable(found)
    try:
        yield asked
    finally:
        for timer in late:
            timer.cancel()
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print the warnings of this library as sentences, without the source line."""
    show = warnings.showwarning

    def plain(message: Warning | str, category: type[Warning], *place: Any, **rest: Any) -> None:
        if category.__module__.startswith("stn."):
            print(f"stn: {message}", file=sys.stderr)
        else:
            show(message, category, *place, **rest)

    def silent(failed: threading.ExceptHookArgs) -> None:
        """Hide the error of the TensorBoard thread for a full disk; the main thread gets the same error."""
        if not issubclass(failed.exc_type, OSError):
            hook(failed)

    hook, threading.excepthook = threading.excepthook, silent
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", DamagedFile)
            warnings.showwarning = plain
            yield
    finally:
        threading.excepthook = hook


def _forget_output() -> None:
    """Discard the output buffer after a broken pipe, which would raise another error at exit."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
