"""Runs the steps of a program: the lanes with the lowest program counter go first."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from .barriers import explain
from .decoder import Action
from .errors import BarrierFault, Fault, LimitFault
from .lanes import EXITED, Lanes
from .program import Program

_PATIENCE = 4_000  # instructions after which lanes that stand elsewhere have a turn: some may wait for what they write


class Interpreter:
    """One batch of blocks on its way."""

    def __init__(self, program: Program, lanes: Lanes, limit: int) -> None:
        self._program, self._lanes, self._limit = program, lanes, limit

    def run(self) -> None:
        """Run until every lane has exited."""
        lanes, program = self._lanes, self._program
        lanes.steps = turn = 0
        with np.errstate(all="ignore"):
            while True:
                chosen = lanes.choose(turn)
                if chosen is None:
                    if (lanes.status == EXITED).all():
                        return
                    self._stuck()
                turn = turn + 1 if self._go(program.whole if lanes.whole else program.masked, *chosen) else 0

    def _go(self, code: list[Action], pc: int, stop: int) -> bool:
        """Run the active lanes until they split, wait, or reach others; return whether they took too long for that."""
        lanes = self._lanes
        values, steps = lanes.values, lanes.steps
        patient = min(steps + (_PATIENCE if lanes.count < lanes.size else self._limit), self._limit + 1)
        try:
            while True:
                steps += 1
                jump = code[pc](values, lanes)
                if jump is None:
                    jump = pc + 1
                    if jump != stop:
                        pc = jump
                        continue
                elif 0 <= jump < stop and steps < patient:
                    pc = jump
                    continue
                if steps > self._limit:
                    raise LimitFault(f"takes more than {self._limit} instructions: a loop without end?", 0)
                if jump < 0:
                    return False
                lanes.pcs[lanes.mask] = jump
                return steps >= patient
        except Fault as fault:
            self._raise(fault, pc)
        except Exception as error:
            error.add_note(self._where(pc))
            raise
        finally:
            lanes.steps = steps

    def _where(self, pc: int) -> str:
        program = self._program
        instruction = program.instructions[pc]
        function = program.owners[pc]
        inside = "" if function == program.entry.name else f" in {function}"
        return f"kernel {program.entry.name}{inside}, line {instruction.line}: {instruction.text}"

    def _raise(self, fault: Fault, pc: int) -> NoReturn:
        """Raise a fault anew that says where, and in which thread."""
        lanes = self._lanes
        who = ""
        if fault.lane is not None:
            lane = fault.lane if fault.of_batch else int(np.flatnonzero(lanes.mask)[fault.lane])
            who = f"{lanes.name(lane)} "
        raise type(fault)(f"{who}{fault}\n{self._where(pc)}") from None

    def _stuck(self) -> NoReturn:
        raise BarrierFault(explain(self._lanes, self._program))
