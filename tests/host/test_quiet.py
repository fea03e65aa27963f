"""What libraries say while a file is read goes to that file's notes, and nothing of anybody else's is lost."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from depthcli.host.quiet import noise_of


def test_warnings_of_any_module_are_collected_and_not_shown() -> None:
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with noise_of() as noise:
            warnings.warn("odd tag", stacklevel=1)
            warnings.warn_explicit("a bomb", RuntimeWarning, "x.py", 1, module="numpy.core")
            logging.getLogger("PIL.TiffImagePlugin").error("too many samples: %d", 9)
        warnings.warn("mine", stacklevel=1)
    assert noise == ["odd tag", "a bomb", "too many samples: 9"]
    assert [str(warning.message) for warning in shown] == ["mine"]
    assert list(warnings.filters) == before


def test_warnings_of_other_threads_are_theirs() -> None:
    inside, done = threading.Event(), threading.Event()
    heard: list[list[str]] = []

    def read() -> None:
        with noise_of() as noise:
            inside.set()
            done.wait(10)
        heard.append(noise)

    thread = threading.Thread(target=read)
    thread.start()
    inside.wait(10)
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)
    done.set()
    thread.join()
    assert heard == [[]]


def test_filters_that_others_set_meanwhile_stay() -> None:
    with warnings.catch_warnings():
        with noise_of():
            warnings.filterwarnings("ignore", message="set meanwhile")
        warnings.warn("set meanwhile", stacklevel=1)
        with noise_of():
            warnings.resetwarnings()


def test_warnings_as_errors_do_not_stop_a_reader() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with noise_of() as noise:
            warnings.warn("odd", stacklevel=1)
    assert noise == ["odd"]


def outcome(tmp_path: Path, lines: str) -> tuple[str, str]:
    """Stdout and stderr of a process that owns its descriptor 2."""
    head = "import os, sys, threading\nfrom depthcli.host.quiet import noise_of, own_descriptor_2, terminal\n"
    script = tmp_path / "script.py"
    script.write_text(head + lines, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout, done.stderr


def test_without_a_process_of_its_own_descriptor_2_is_left_alone(tmp_path: Path) -> None:
    said, heard = outcome(tmp_path, "with noise_of() as noise:\n    os.write(2, b'libx: odd\\n')\nprint(noise)")
    assert (said, heard) == ("[]\n", "libx: odd\n")


def test_what_c_libraries_write_is_collected_and_what_python_writes_is_shown(tmp_path: Path) -> None:
    said, heard = outcome(
        tmp_path,
        "own_descriptor_2()\n"
        "own_descriptor_2()\n"
        "for name in 'ab':\n"
        "    with noise_of() as noise:\n"
        "        os.write(2, f'libx: {name}\\n\\n'.encode())\n"
        "        print('mine', file=sys.stderr)\n"
        "        os.write(terminal(), b'signal\\n')\n"
        "        os.write(2, f'libx: {name}\\nliby'.encode())\n"
        "    print(noise)\n"
        "os.write(2, b'after\\n')\n",
    )
    assert said == "['libx: a', 'liby']\n['libx: b', 'liby']\n"
    assert heard == "mine\nsignal\n" * 2 + "after\n"


def test_files_that_are_read_at_once_are_told_that_a_line_may_be_anothers(tmp_path: Path) -> None:
    said, heard = outcome(
        tmp_path,
        "own_descriptor_2()\n"
        "with noise_of() as first:\n"
        "    os.write(2, b'one\\n')\n"
        "    def read():\n"
        "        global second\n"
        "        with noise_of() as second:\n"
        "            os.write(2, b'two\\n')\n"
        "    thread = threading.Thread(target=read)\n"
        "    thread.start()\n"
        "    thread.join()\n"
        "    os.write(2, b'three\\n')\n"
        "print(first, second)\n",
    )
    shared = "two (of this file or another)"
    assert said == f"{['one', shared, 'three']} {[shared]}\n"
    assert heard == ""


def test_the_end_of_a_process_by_an_error_is_told(tmp_path: Path) -> None:
    _, heard = outcome(tmp_path, "own_descriptor_2()\nwith noise_of():\n    raise KeyError('gone')\n")
    assert heard.startswith("Traceback") and "KeyError: 'gone'" in heard


def test_a_closed_stderr_is_left_alone(tmp_path: Path) -> None:
    said, _ = outcome(tmp_path, "sys.stderr = None\nown_descriptor_2()\nwith noise_of():\n    print(terminal())\n")
    assert said == "2\n"
