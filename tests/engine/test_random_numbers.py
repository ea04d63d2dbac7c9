from collections import Counter

from pio.engine.random_numbers import mix, uniform


def test_uniform_numbers_are_fixed_and_spread() -> None:
    # seed 0 is the well-known stream of splitmix64; a change here would change every seeded text
    stream = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
    assert [uniform(mix(0), i) for i in range(3)] == [(x >> 11) / 2**53 for x in stream]
    for seed in (0, 1, 2**63):
        draws = [uniform(mix(seed), i) for i in range(4000)]
        assert all(0 <= u < 1 for u in draws)
        assert abs(sum(draws) / 4000 - 0.5) < 0.02
        tenths = Counter(int(u * 10) for u in draws)
        assert all(300 < tenths[i] < 500 for i in range(10))
    neighbours = [uniform(mix(seed), 9) for seed in range(4000)]
    assert abs(sum(neighbours) / 4000 - 0.5) < 0.02
