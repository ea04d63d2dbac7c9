"""Which states are kept: against what brute force says, and where in a prompt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pio.cache.kept_states import KeptStates
from pio.engine.state_points import state_points

WAYS = st.lists(st.integers(0, 1), min_size=1, max_size=6).map(tuple)
Way = tuple[int, ...]


def chain(way: Way) -> tuple[bytes, ...]:
    """The keys of blocks: each stands for all before it."""
    return tuple(bytes(way[: i + 1]) for i in range(len(way)))


class NaiveStates:
    """What is kept, by the way to it: the clock at its last use, in the order in which it came."""

    def __init__(self) -> None:
        self.stamps: dict[Way, int] = {}
        self.parts: dict[Way, bool] = {}
        self.clock = 0

    def parent(self, way: Way) -> Way:
        return max((other for other in self.stamps if is_before(other, way)), default=(), key=len)

    def saved(self, way: Way) -> int:
        return len(way) - len(self.parent(way))

    def worth(self, way: Way) -> float:
        behind = sum(self.parent(other) == way for other in self.stamps)
        return self.saved(way) / (4 if behind == 1 and not self.parts[way] else 1) / (self.clock - self.stamps[way] + 1)

    def least(self) -> Way:
        return min(self.stamps, key=self.worth)


def is_before(one: Way, other: Way) -> bool:
    return len(one) < len(other) and other[: len(one)] == one


class Keeping(RuleBasedStateMachine):
    """Kept states and a twin that looks at all of them each time."""

    def __init__(self) -> None:
        super().__init__()
        self.states, self.naive, self.slot = KeptStates(), NaiveStates(), 0
        self.slots: dict[Way, int] = {}

    @rule(way=WAYS, parts=st.booleans(), anew=st.booleans())
    def add(self, way: Way, parts: bool, anew: bool) -> None:
        if way in self.naive.stamps:
            return
        self.slot += 1
        self.states.add(chain(way), self.slot, parts=parts, anew=anew)
        self.naive.parts[way] = parts
        self.naive.clock += anew
        self.naive.stamps[way], self.slots[way] = self.naive.clock, self.slot

    @precondition(lambda self: self.naive.stamps)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        way = data.draw(st.sampled_from(sorted(self.naive.stamps)))
        found = self.states.use(bytes(way))
        assert found.slot == self.slots[way] and found.used
        self.naive.clock += 1
        for other in self.naive.stamps:
            if other == way or is_before(other, way):
                self.naive.stamps[other] = self.naive.clock

    @precondition(lambda self: self.naive.stamps)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        way = data.draw(st.sampled_from(sorted(self.naive.stamps)))
        assert self.states.remove(bytes(way)).slot == self.slots[way]
        del self.naive.stamps[way]

    @rule(way=WAYS)
    def find(self, way: Way) -> None:
        on_the_way = [other for other in self.naive.stamps if other == way or is_before(other, way)]
        last = self.states.last(chain(way))
        assert (None if last is None else last.slot) == (self.slots[max(on_the_way, key=len)] if on_the_way else None)
        reach = max(
            (
                i
                for other in self.naive.stamps
                for i in range(7)
                if i and other[:i] == way[:i] and len(way) >= i <= len(other)
            ),
            default=0,
        )
        assert self.states.reach(chain(way)) == reach

    @invariant()
    def all_are_worth_what_brute_force_says(self) -> None:
        assert len(self.states) == len(self.naive.stamps)
        for way in self.naive.stamps:
            state = self.states.get(bytes(way))
            assert state is not None
            found = state.slot, state.saved, self.states.worth(state)
            assert found == (self.slots[way], self.naive.saved(way), self.naive.worth(way))
        if self.naive.stamps:
            assert self.states.least().slot == self.slots[self.naive.least()]


TestKeeping = Keeping.TestCase


def evicted(states: KeptStates) -> int:
    return states.remove(states.least().chain[-1]).slot


def test_of_a_conversation_older_turns_go_first() -> None:
    states = KeptStates()
    states.add(chain((0,) * 40), 0)
    for turn in range(1, 9):
        if turn > 1:
            states.use(chain((0,) * (40 + 3 * turn - 3))[-1])
        states.add(chain((0,) * (40 + 3 * turn)), turn)
    assert {evicted(states) for _ in range(5)} < {1, 2, 3, 4, 5, 6, 7}, "what it began with stays, and its last turn"


def test_what_nobody_uses_goes_in_the_end_and_what_is_used_stays() -> None:
    states = KeptStates()
    states.add(chain((0,) * 40), 0)
    states.add(chain((1,) * 10), 1)
    for i in range(200):  # prompts that never come again
        states.add(chain((2, i // 64, i // 8 % 8, i % 8)), 100 + i)
        states.use(chain((1,) * 10)[-1])
        if (slot := evicted(states)) < 100:
            break
    assert slot == 0 and i >= 5, "it saves much, but nobody wants it"


@given(
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(0, 300),
    st.lists(st.integers(1, 10000), max_size=9).map(sorted),
    st.integers(1, 40),
)
def test_points(begin: int, new: int, known: int, turns: list[int], most: int) -> None:
    end, size = begin + new, 32
    known = min(max(begin, known), end)
    found = state_points(begin, end, known, turns, size, most)
    lengths = [point.length for point in found]
    assert lengths == sorted(set(lengths)) and len(found) <= most
    assert all(point.length % size == 0 and begin < point.length // size <= end for point in found)
    assert (end * size in lengths) == (new > 0)
    if most > 1 and known > begin:
        assert known * size in lengths
    assert all(point.always == (point.length in (end * size, known * size)) for point in found)
    first = turns[0] // size if turns else None
    assert all(point.parts == (point.length // size == first) for point in found)
    if most == 40 and new:
        for part in range(begin + 1, end + 1):  # whoever parts there computes at most as much as stood behind
            last = max((length // size for length in lengths if length // size <= part), default=begin)
            assert part - last <= max(0, end - part)


def test_points_of_a_prompt_of_8192_tokens() -> None:
    found = state_points(0, 255, 0, [1000, 1500, 8100], 32, 6)
    assert [point.length // 32 for point in found] == [31, 127, 191, 223, 253, 255]
    assert [point.always for point in found] == [False] * 5 + [True]


@given(st.integers(128, 8192), st.integers(1, 4096), st.integers(2, 40))
def test_a_beginning_is_found_at_the_second_sight(shared: int, behind: int, most: int) -> None:
    """Of a beginning of 128 tokens or more something is found always, and most where little stood behind it."""
    end = (shared + behind - 1) // 32
    found = state_points(0, end, 0, [], 32, most)
    last = max((point.length for point in found if point.length <= shared), default=0)
    assert last >= 128 or end * 32 < 128 or last == end * 32
    if most == 40:
        assert last >= min(shared // 2 - 32, shared - 2 * behind - 32)
    message = state_points(0, end, 0, [shared, shared + behind // 2], 32, most)
    assert shared // 32 * 32 in [point.length for point in message]
