"""A virtual environment for each engine, so that none meets another's libraries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.peers.catalogue import PEERS, Peer

MARK = "peers-installed.txt"


def python_of(cache: Path, engine: str) -> Path:
    """Return the interpreter that runs an engine."""
    return folder_of(cache, engine) / "bin" / "python" if PEERS[engine].packages else Path(sys.executable)


def folder_of(cache: Path, engine: str) -> Path:
    """Return the folder of an engine's environment."""
    return cache / "environments" / engine


def is_ready(cache: Path, engine: str) -> bool:
    """Whether an environment holds just what the catalogue says."""
    mark = folder_of(cache, engine) / MARK
    return not PEERS[engine].packages or (mark.is_file() and mark.read_text("utf-8") == _contents(PEERS[engine]))


def install(cache: Path, engine: str) -> None:
    """Make an engine's environment anew.

    Raises:
        CalledProcessError: Something could not be installed; what pip says is on the terminal.
    """
    folder, peer = folder_of(cache, engine), PEERS[engine]
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(python_of(cache, engine)), "-m", "pip"]
    command = [*pip, "install", "--quiet", "--progress-bar=off"]
    command += [option for package in peer.build for option in (f"--no-binary={package}", "--no-cache-dir")]
    subprocess.run([*command, *peer.packages], check=True, env=os.environ | peer.variables)
    if peer.without:
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", *peer.without], check=True)
    (folder / MARK).write_text(_contents(peer), "utf-8")


def _contents(peer: Peer) -> str:
    return "\n".join([*peer.packages, *(f"{k}={v}" for k, v in peer.variables.items())]) + "\n"
