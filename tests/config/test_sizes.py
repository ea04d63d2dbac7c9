"""Sizes and names of types as people write them."""

import pytest

import pio
from pio.config.runtime import RuntimeConfig
from pio.config.sizes import parse_size, size_text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (4_294_967_296, "4GiB"),
        (20_000_000_000, "20GB"),
        (7_000, "7kB"),
        (3_072, "3kiB"),
        (1_500, "1500"),
        (1_025, "1025"),
        (1, "1"),
        (0, "0"),
    ],
)
def test_a_size_in_words(nbytes, text):
    assert size_text(nbytes) == text and parse_size(text) == nbytes


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("4GB", 4_000_000_000),
        ("4G", 4_000_000_000),
        ("4gb", 4_000_000_000),
        (" 4 GB ", 4_000_000_000),
        ("4GiB", 4_294_967_296),
        ("4Gi", 4_294_967_296),
        ("512M", 512_000_000),
        ("512MiB", 536_870_912),
        ("1.5GiB", 1_610_612_736),
        ("0.1kB", 100),
        ("7k", 7_000),
        ("2TB", 2_000_000_000_000),
        ("100", 100),
        ("100B", 100),
        ("1_000_000", 1_000_000),
    ],
)
def test_a_size(text, nbytes):
    assert parse_size(text) == nbytes
    assert RuntimeConfig.from_options(memory_limit=text).memory_limit == nbytes


@pytest.mark.parametrize(
    "text",
    ["", "GB", "-1", "-1GB", "1e9", "4GBB", "4iB", "1,5GB", "4 G B", "inf", "nan", "1_", "four", "4XB", "9" * 400],
)
def test_no_size(text):
    with pytest.raises(
        pio.ConfigError, match=r"memory_limit is .*: expected a number of bytes, or .* '4GB' or '512MiB'"
    ):
        RuntimeConfig.from_options(memory_limit=text)


def test_a_size_of_nothing_is_none():
    with pytest.raises(pio.ConfigError, match="memory_limit is '0': expected at least 1"):
        RuntimeConfig.from_options(memory_limit="0GB")


def test_a_limit_in_words_limits():
    with pytest.raises(pio.OutOfMemoryError, match="memory_limit"):
        pio.load("demo", memory_limit="10 MB")
    with pio.load("demo", memory_limit="1GiB") as model:
        assert model.runtime.memory_limit == 1 << 30


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("bf16", "bfloat16"),
        ("BF16", "bfloat16"),
        ("bfloat16", "bfloat16"),
        ("torch.bfloat16", "bfloat16"),
        ("fp16", "float16"),
        ("f16", "float16"),
        ("half", "float16"),
        ("fp32", "float32"),
        ("f32", "float32"),
        ("float", "float32"),
    ],
)
def test_short_names_of_types(name, full):
    config = RuntimeConfig.from_options(dtype=name, kv_cache_dtype=name)
    assert (config.dtype, config.kv_cache_dtype) == (full, full)
    if full != "float16":
        assert RuntimeConfig.from_options(activation_dtype=name).activation_dtype == full
    assert pio.Tensor.zeros((2, 3), name).dtype.name == full


def test_names_that_are_none():
    for field in ("dtype", "kv_cache_dtype", "activation_dtype"):
        for name in ("bf17", "float64", "", "floats"):
            with pytest.raises(pio.ConfigError, match=f"^{field} is '{name}': expected 'float32'|^{field} is .*'auto'"):
                RuntimeConfig.from_options(**{field: name})


@pytest.mark.parametrize(
    ("given", "found"), [(True, True), (False, False), ("2GiB", 2 << 30), (5000, 5000), (1, 1), ("1", 1)]
)
def test_bytes_of_kept_states(given: bool | int | str, found: bool | int) -> None:
    config = RuntimeConfig.from_options(prefix_cache=given, max_batch_sequences=3)
    assert config.prefix_cache == found and isinstance(config.prefix_cache, bool) == isinstance(found, bool)
    nbytes = {True: 1 << 30, False: 0}[found] if isinstance(found, bool) else found
    assert config.state_slots(1000, 1 << 40) == 3 + nbytes // 1000
    assert config.state_slots(1000, 2) == 3 + min(2, nbytes // 1000)
    assert config.state_slots(0, 100) == 3, "no layer keeps states"


@pytest.mark.parametrize("given", [0, -1, "0", "much", 1.5, [], "True"])
def test_what_is_no_switch_and_no_size(given: object) -> None:
    with pytest.raises(pio.ConfigError, match=r"prefix_cache is .*: expected .* bytes as a number"):
        RuntimeConfig.from_options(prefix_cache=given)


def test_the_small_profile_keeps_fewer_states() -> None:
    config = RuntimeConfig.from_options(profile="memory_efficient")
    assert config.prefix_cache == 256 << 20
    assert config.updated(prefix_cache=True).state_slots(1 << 20, 4096) == 4 + 1024
