import subprocess
import sys

import pytest

import pio
from pio.config.runtime import PROFILES, RuntimeConfig
from pio.device import CUDA_KERNELS


def test_a_profile_gives_defaults_and_options_win():
    config = RuntimeConfig.from_options(profile="memory_efficient", prefill_chunk=9)
    assert (config.prefill_chunk, config.context_length, config.kv_cache_dtype) == (9, 2048, "float16")
    assert RuntimeConfig.from_options() == RuntimeConfig()


def test_every_preset_is_a_field_and_differs_from_the_default():
    plain = RuntimeConfig()
    for name, preset in PROFILES.items():
        config = RuntimeConfig.from_options(profile=name)
        for field, value in preset.items():
            assert getattr(config, field) == value != getattr(plain, field), (name, field)


def test_updates_are_new_and_checked():
    first = RuntimeConfig.from_options(profile="performance", threads=3)
    second = first.updated(prefill_chunk=11)
    assert (first.prefill_chunk, second.prefill_chunk, second.threads) == (512, 11, 3)
    third = second.updated(profile="accuracy")
    assert (third.kv_cache_dtype, third.prefill_chunk, third.threads) == ("float32", 11, 3)
    assert third.context_length == RuntimeConfig().context_length, "the old profile's presets went with it"
    with pytest.raises(pio.ConfigError, match="prefill_chunk is '0'"):
        second.updated(prefill_chunk=0)
    with pytest.raises(pio.ConfigError, match="did you mean threads"):
        second.updated(thread=1)


def test_none_is_the_default_and_types_have_names():
    none = dict.fromkeys(RuntimeConfig.model_fields)
    assert RuntimeConfig.from_options(**none) == RuntimeConfig()
    assert RuntimeConfig.from_options(profile="memory_efficient", context_length=None).context_length == 2048
    assert RuntimeConfig.from_options(threads=3).updated(threads=None).threads is None
    config = RuntimeConfig.from_options(dtype=pio.float16, kv_cache_dtype=pio.bfloat16)
    assert (config.dtype, config.kv_cache_dtype) == ("float16", "bfloat16")
    with pytest.raises(pio.ConfigError, match="dtype is 'int8'"):
        RuntimeConfig.from_options(dtype=pio.int8)


def test_more_context_than_the_model_has_is_refused_unless_it_is_a_default():
    with pytest.raises(pio.ConfigError, match=r"context_length=2049 .* context has 2048 tokens"):
        pio.load("demo", context_length=2049)
    with pio.load("demo", profile="performance", dtype=pio.float32) as model:
        assert model.metadata.context_length == 2048
        with pytest.raises(pio.ConfigError, match="at most 2048"):
            model.update(context_length=4096)
        model.update(profile="accuracy", prefill_chunk=None)
        assert (model.metadata.context_length, model.runtime.prefill_chunk) == (2048, 256)


@pytest.mark.parametrize("background", [(300, 0, 0), (0, -1, 0), (1, 2), "white", (1.5, 0, 0)])
def test_backgrounds_are_colours(background):
    with pytest.raises(pio.ConfigError, match="background"):
        RuntimeConfig.from_options(background=background)
    assert RuntimeConfig.from_options(background=(255, 0, 7)).background == (255, 0, 7)


@pytest.mark.parametrize(
    "prefix", ["nonsense", "example.com", "https://", "file:///tmp/", "ftp://a/", "https://a/?b", "http://a:99999/"]
)
def test_what_may_be_fetched_are_addresses(prefix):
    for given in (prefix, (prefix,), ["https://example.com/", prefix]):
        with pytest.raises(
            pio.ConfigError, match=r"^allow_remote is .*: expected what addresses of http or https begin"
        ):
            RuntimeConfig.from_options(allow_remote=given)
    for given in ("https://example.com/", ["https://example.com/"]):
        assert RuntimeConfig.from_options(allow_remote=given).allow_remote == ("https://example.com/",)


@pytest.mark.parametrize(
    ("wanted", "weights", "found"),
    [
        ("auto", pio.float32, pio.float32),
        ("auto", pio.bfloat16, pio.float16),
        ("auto", pio.float16, pio.float16),
        ("bfloat16", pio.float32, pio.bfloat16),
    ],
)
def test_type_of_the_cache(wanted, weights, found):
    assert RuntimeConfig(kv_cache_dtype=wanted).cache_dtype(weights) is found


@pytest.mark.parametrize(
    ("options", "cache_type", "context"),
    [
        ({}, pio.float16, 2048),
        ({"profile": "accuracy"}, pio.float32, 2048),
        ({"profile": "memory_efficient"}, pio.float16, 2048),
        ({"kv_cache_dtype": "bfloat16", "context_length": 70}, pio.bfloat16, 70),
    ],
)
def test_options_reach_the_model(options, cache_type, context):
    with pio.load("demo", **options) as model:
        loaded = model.loaded
        keys, _ = loaded.cache.layer(0)
        assert keys.dtype is cache_type
        assert loaded.context_length == context == model.metadata.context_length
        assert loaded.cache.num_blocks == -(-context // 32)
        assert (
            model.metadata.memory["cache"]
            == loaded.cache.nbytes
            == sum(2 * k.nbytes for k in (loaded.cache.layer(i)[0] for i in range(6)))
        )
        with pytest.raises(pio.CapacityError, match=str(context)):
            model.generate([5] * context)


def test_weights_can_be_converted_when_loading():
    ids = [20, 300, 4000]
    with pio.load("demo", profile="accuracy") as stored, pio.load("demo", profile="accuracy", dtype="float32") as wide:
        assert bytes(stored.logits(ids).memoryview()) == bytes(wide.logits(ids).memoryview())
        assert wide.loaded.model.layers[3].mlp.up_proj.weight.dtype is pio.float32


def test_inputs_are_rounded_where_weights_are_bfloat16_and_nowhere_else():
    ids = [20, 300, 4000]

    def logits(**options):
        with pio.load("demo", **options) as model:
            return bytes(model.logits(ids).memoryview())

    plain = {dtype: logits(dtype=dtype) for dtype in ("float32", "float16", "bfloat16")}
    assert plain["float32"] != plain["bfloat16"] != logits(activation_dtype="bfloat16")
    assert logits(activation_dtype="bfloat16") == logits(profile="performance") == logits(activation_dtype=pio.bfloat16)
    assert logits(profile="performance", activation_dtype="float32") == plain["bfloat16"]
    for dtype in ("float32", "float16"):
        assert logits(dtype=dtype, activation_dtype="bfloat16") == plain[dtype]
    packed = logits(quantize="int8")
    assert packed == logits(quantize="int8", activation_dtype="bfloat16")


def test_rounded_inputs_can_be_turned_on_and_off():
    with pio.load("demo") as model:
        before = bytes(model.logits([5, 6]).memoryview())
        assert model.update(activation_dtype="bfloat16").activation_dtype == "bfloat16"
        assert bytes(model.logits([5, 6]).memoryview()) != before
        model.update(activation_dtype=None)
        assert bytes(model.logits([5, 6]).memoryview()) == before


def test_one_thread_is_one_thread():
    """Every operation of a step asks for no more than the option gives: a process of its own starts no helper."""
    script = """
import pio
from pio.ops import compilation
with pio.load("demo", threads=1, prefill_chunk=1024, max_batch_sequences=16) as model:
    model.generate(list(range(16, 1016)), max_new_tokens=2)
    model.generate([16], n=16, temperature=1.0, max_new_tokens=2)
raise SystemExit(compilation.helpers()[0])
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_fewer_requests_at_once_is_the_same_text():
    prompts = ["def f(", "class A", "import ", "return "]
    texts = []
    for options in ({"max_batch_sequences": 1}, {"max_batch_sequences": 3, "cache_tokens": 64, "context_length": 64}):
        with pio.load("demo", **options) as model:
            texts.append([g.text for g in model.infer_batch(prompts, max_new_tokens=30, temperature=0.0)])
    assert texts[0] == texts[1]


def test_a_policy_is_of_no_use_where_nothing_is_quantized():
    with pytest.raises(pio.ConfigError, match="quantize_policy='uniform' is of no use where nothing is quantized"):
        pio.load("demo", quantize_policy="uniform")
    with pio.load("demo", quantize="int4", quantize_policy="uniform", context_length=64) as model:
        assert model.metadata.formats == {"layers": "int4", "tables": "int4"}
        model.update(quantize=None)
        assert model.metadata.formats == {"layers": "bfloat16", "tables": "bfloat16"}
        with pytest.raises(pio.ConfigError, match="of no use"):
            model.update(quantize_policy="balanced")
        model.update(quantize="int4")
        assert model.metadata.formats == {"layers": "int4", "tables": "int8"}


def test_a_default_that_is_asked_for_by_name_must_be_possible():
    with pio.load("demo") as model:
        assert model.metadata.context_length == 2048 < model.runtime.context_length  # a default is cut to what fits
        with pytest.raises(pio.ConfigError, match="this model's context has 2048 tokens"):
            model.update(context_length=model.runtime.context_length)
        model.update(threads=1)


@pytest.mark.parametrize(
    ("given", "change", "gone"),
    [
        ({"max_draft_tokens": 8}, {"speculation": "off"}, "max_draft_tokens"),
        ({"prefix_cache_path": "kept", "prefix_cache_disk": 1 << 30}, {"prefix_cache_path": None}, "prefix_cache_disk"),
    ],
)
def test_what_says_nothing_without_another_option_goes_with_it(given, change, gone):
    config = RuntimeConfig.from_options(**given).updated(**change)
    assert gone not in config.model_fields_set
    assert getattr(config, gone) == RuntimeConfig.model_fields[gone].default


@pytest.mark.parametrize(
    ("given", "found"), [("on", True), ("off", False), (True, True), (False, False), ("4GiB", 4 << 30), (7, 7)]
)
def test_the_prefix_cache_is_a_switch_or_a_size(given, found):
    made = RuntimeConfig.from_options(prefix_cache=given).prefix_cache
    assert (type(made), made) == (type(found), found)


@pytest.mark.parametrize("given", ["lots", "", 0, -1, 1.5, [], ["on"], "True"])
def test_what_is_no_prefix_cache_is_refused(given):
    with pytest.raises(pio.ConfigError, match=r"prefix_cache is .*expected 'on' or True, 'off' or False, or bytes"):
        RuntimeConfig.from_options(prefix_cache=given)


@pytest.mark.parametrize(
    ("given", "kept", "off"),
    [
        ("all", ("all",), 0),
        ("none", ("none",), len(CUDA_KERNELS)),
        ("-norm, -rope", ("-norm", "-rope"), 2),
        (["norm"], ("norm",), len(CUDA_KERNELS) - 1),
    ],
)
def test_kernels_of_a_gpu_are_named_or_left_out(given, kept, off):
    config = RuntimeConfig.from_options(cuda_kernels=given)
    assert config.cuda_kernels == kept and len(config.cuda_kernels_off) == off
    assert config.updated(device="cpu").cuda_kernels == ("all",), "they say nothing there"
    assert config.updated(device="cuda:1", cuda_kernels="-norm").cuda_kernels_off == {"norm"}


@pytest.mark.parametrize("given", ["all,norm", "norm,-rope", "nrom", "", "-all", [], ["none", "all"]])
def test_what_names_no_kernels_of_a_gpu(given):
    with pytest.raises(pio.ConfigError, match="cuda_kernels is"):
        RuntimeConfig.from_options(cuda_kernels=given)


def test_threads_go_where_a_gpu_comes():
    assert RuntimeConfig.from_options(threads=3).updated(device="cuda").threads is None
    assert RuntimeConfig.from_options(threads=3).updated(device="cpu").threads == 3
