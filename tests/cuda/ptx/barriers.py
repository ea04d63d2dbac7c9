"""Barriers of a block, and operations of a warp for which its lanes wait for each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BarrierFault
from .geometry import WARP
from .lanes import EXITED, PARKED, RUNS, WAITS, Lanes

if TYPE_CHECKING:
    from .program import Program

Array = np.ndarray[Any, Any]


def wait(s: Lanes, pc: int, number: int, expected: Array) -> None:
    """Let the active lanes wait at a barrier of their block for so many lanes."""
    mask = s.mask
    s.status[mask] = WAITS
    s.pcs[mask] = pc + 1
    s.barrier[mask] = number
    s.expected[mask] = expected[mask]


def release(s: Lanes, number: int) -> Array:
    """Let lanes of complete blocks go on from a barrier and return their mask."""
    waits = (s.status == WAITS) & (s.barrier == number)
    counts = np.bincount(s.block_of[waits], minlength=s.blocks) + s.arrived[:, number]
    done = waits & (counts[s.block_of] >= s.expected)
    if np.count_nonzero(done):
        _check_warps(s, done)
        s.status[done] = RUNS
        blocks = np.unique(s.block_of[done])
        s.arrived[blocks, number] = 0
        races = s.spaces["shared"].races
        if races is not None:
            races.forget(blocks)
    return done


def _check_warps(s: Lanes, done: Array) -> None:
    """Lanes of a warp pass a barrier at one instruction."""
    low = s.by_warp(np.where(done, s.pcs, 2**62)).min(axis=1)
    high = s.by_warp(np.where(done, s.pcs, -1)).max(axis=1)
    bad = (low != high) & (high >= 0)
    if bad.any():
        warp = int(bad.argmax())
        lines = [s.program.instructions[int(pc[warp]) - 1].line for pc in (low, high)]
        raise BarrierFault(f"lanes of one warp are at the barriers of lines {lines[0]} and {lines[1]}")


def meet(s: Lanes, pc: int, members: Array) -> bool | None:
    """Let the active lanes come to an operation of warps, for which each waits for the lanes of a mask.

    Returns True where all may go, None where none may; False where some may, who are active now. The others are parked
    until their partners come.
    """
    active = s.mask
    if np.count_nonzero((s.status == PARKED) & (s.pcs == pc)):  # others wait here: all together
        s.pcs[active] = pc
        return None
    bits = np.uint32(1) << (np.arange(s.size, dtype="u4") % WARP)
    present = np.bitwise_or.reduce(s.by_warp(np.where(active, bits, np.uint32(0))), axis=1)
    gone = np.bitwise_or.reduce(s.by_warp(np.where(s.status == EXITED, bits, np.uint32(0))), axis=1)
    outside = np.flatnonzero((members & bits)[active] == 0)
    if len(outside):
        lane = int(outside[0])
        raise BarrierFault(f"is not in the mask {int(members[active][lane]):#x} of lanes of its own operation", lane)
    missing = s.by_warp(members) & ~(present | gone)[:, None]
    parked = active & (missing != 0).reshape(-1)
    if not np.count_nonzero(parked):
        return True
    s.status[parked] = PARKED
    s.pcs[parked] = pc
    rest = active & ~parked
    if not np.count_nonzero(rest):
        return None
    s.activate(rest, False)
    return False


def explain(s: Lanes, program: Program) -> str:
    """Say which lanes wait for which, after none can run."""
    waits = np.flatnonzero((s.status == WAITS) | (s.status == PARKED))
    lane = int(waits[0])
    parked = s.status[lane] == PARKED
    at = program.instructions[int(s.pcs[lane]) - (0 if parked else 1)]
    team, mine = (np.arange(s.size) // WARP, lane // WARP) if parked else (s.block_of, s.block_of[lane])
    others = np.flatnonzero(team == mine)
    there = others[(others % s.geometry.lanes) < s.geometry.threads]
    same = (s.status[there] == s.status[lane]) & (parked | (s.barrier[there] == s.barrier[lane]))
    missing = there[~same] if (~same).any() else there[s.pcs[there] != s.pcs[lane]]
    states: dict[str, int] = {}
    for other in missing.tolist():
        if s.status[other] == EXITED:
            state = "exited"
        else:
            back = 0 if s.status[other] == PARKED else 1
            state = f"at line {program.instructions[int(s.pcs[other]) - back].line}"
        states[state] = states.get(state, 0) + 1
    told = ", ".join(f"{count} {state}" for state, count in states.items()) or "fewer lanes than it expects"
    what = "waits for lanes of its warp" if parked else f"waits at barrier {int(s.barrier[lane])}"
    return f"{s.name(lane)} {what}, which never come ({told})\nkernel {program.entry.name}, line {at.line}: {at.text}"
