import pydantic
import pytest

from pio.engine.sampling_params import SamplingParams
from pio.errors import CheckpointError, ConfigError


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("max_new_tokens", 0, "at least 1"),
        ("max_new_tokens", 2.5, "whole number"),
        ("temperature", -1, "from 0 to 100"),
        ("temperature", float("nan"), "from 0 to 100"),
        ("temperature", float("inf"), "from 0 to 100"),
        ("temperature", "0.5", "a number"),
        ("temperature", True, "a number"),
        ("top_k", -1, "at least 0"),
        ("top_p", 0, "above 0 and at most 1"),
        ("top_p", 1.01, "above 0 and at most 1"),
        ("min_p", 1.5, "from 0 to 1"),
        ("repetition_penalty", 1e-40, "from 0.01 to 10"),
        ("presence_penalty", 2.1, "from -2 to 2"),
        ("frequency_penalty", -3, "from -2 to 2"),
        ("logit_bias", {-1: 2.0}, "token id"),
        ("logit_bias", {3: 101.0}, "-100 to 100"),
        ("logit_bias", {3: float("nan")}, "-100 to 100"),
        ("seed", -1, "from 0"),
        ("seed", 2**64, "to 18446744073709551615"),
        ("stop", "", "non-empty"),
        ("stop", ["a", ""], "non-empty"),
        ("stop", [3], "string"),
        ("stop_token_ids", [-2], "token ids"),
        ("stop_token_ids", 3, "token ids"),
        ("ignore_eos", 1, "True or False"),
        ("logprobs", 101, "from 0 to 100 or None"),
        ("n", 0, "from 1 to 256"),
        ("min_new_tokens", -1, "at least 0"),
        ("min_length", True, "whole number"),
        ("max_length", 0, "at least 1 or None"),
        ("no_repeat_ngram_size", -2, "at least 0"),
        ("suppress_tokens", [3, -1], "token ids"),
        ("suppress_tokens", 3, "token ids"),
        ("begin_suppress_tokens", ["a"], "token ids"),
        ("bad_words_ids", [[]], "non-empty lists of token ids"),
        ("bad_words_ids", [[3], [4, -1]], "non-empty lists of token ids"),
        ("bad_words_ids", [3], "non-empty lists of token ids"),
    ],
)
def test_a_value_out_of_range_names_field_value_and_range(field: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError) as found:
        SamplingParams(**{field: value})  # type: ignore[arg-type]
    assert str(found.value).startswith(f"{field}={value!r} cannot be used: expected ")
    assert words in str(found.value)


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"temperature=-1 .*; top_p=3 .*"):
        SamplingParams(temperature=-1, top_p=3)


def test_long_values_are_cut() -> None:
    with pytest.raises(ConfigError) as found:
        SamplingParams(temperature="9" * 10_000)  # type: ignore[arg-type]
    assert len(str(found.value)) < 200


@pytest.mark.parametrize(("name", "near"), [("temprature", "temperature"), ("topk", "top"), ("max_token", "max_new")])
def test_an_unknown_field_names_the_nearest(name: str, near: str) -> None:
    for call in (lambda: SamplingParams(**{name: 1}), lambda: SamplingParams.merge(**{name: 1})):
        with pytest.raises(ConfigError, match=f"{name}.*did you mean '{near}"):
            call()


def test_contradictions() -> None:
    with pytest.raises(ConfigError, match="n=2 contradicts temperature=0"):
        SamplingParams(n=2, temperature=0)
    with pytest.raises(ConfigError, match="include_stop=True contradicts ignore_eos=True"):
        SamplingParams(include_stop=True, ignore_eos=True)
    SamplingParams(include_stop=True, ignore_eos=True, stop="x")
    SamplingParams(temperature=0, top_k=5, top_p=0.5)  # both keep the likeliest token


def test_values_are_kept_and_frozen() -> None:
    params = SamplingParams(stop="end", stop_token_ids=[3, 4], logit_bias={7: 1}, seed=2**64 - 1)
    assert params.stop_strings == ("end",)
    assert params.stop_token_ids == (3, 4)
    assert params.seed == 2**64 - 1
    assert SamplingParams(stop=["a", "b"]).stop_strings == ("a", "b")
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        params.temperature = 2.0  # type: ignore[misc]
    assert SamplingParams(temperature=9e-6).greedy
    assert not SamplingParams(temperature=1e-4).greedy


def test_the_later_source_wins() -> None:
    defaults = {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    merged = SamplingParams.merge(defaults, SamplingParams(top_k=5, min_p=0.0), top_p=0.5)
    assert (merged.temperature, merged.top_k, merged.top_p, merged.max_new_tokens) == (0.6, 5, 0.5, 256)
    assert SamplingParams.merge() == SamplingParams()
    assert SamplingParams.merge({"max_new_tokens": 9, "repetition_penalty": 1.05, "min_p": 0.25}) == SamplingParams(
        max_new_tokens=9, repetition_penalty=1.05, min_p=0.25
    )
    # set to the class's default is set all the same
    assert SamplingParams.merge(defaults, SamplingParams(temperature=1.0)).temperature == 1.0


@pytest.mark.parametrize("pair", [("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")])
def test_two_ways_to_say_a_length_replace_each_other(pair: tuple[str, str]) -> None:
    for below, above in (pair, pair[::-1]):
        for merged in (
            SamplingParams.merge({below: 9}, {above: 5}),
            SamplingParams.merge({below: 9}, **{above: 5}),
            SamplingParams.merge(None, SamplingParams(**{below: 9}), **{above: 5}),  # type: ignore[arg-type]
        ):
            assert merged.model_fields_set == {above}
    assert SamplingParams.merge({pair[0]: 9, pair[1]: 5}).model_fields_set == set(pair)


def test_bad_defaults_name_their_file() -> None:
    with pytest.raises(CheckpointError, match=r"generation_config.json: top_p=7 cannot be used"):
        SamplingParams.merge({"top_p": 7}, top_p=0.5)


def test_merge_does_not_share_the_bias() -> None:
    bias = {1: 2.0}
    params = SamplingParams(logit_bias=bias)
    bias[1] = 9.0
    assert SamplingParams.merge(None, params).logit_bias == {1: 2.0}


def test_none_is_as_if_a_field_were_not_given() -> None:
    assert SamplingParams(stop=None, temperature=None, max_new_tokens=None) == SamplingParams()  # type: ignore[arg-type]
    assert SamplingParams(stop=None).model_fields_set == set()  # type: ignore[arg-type]
    defaults = {"temperature": 0.6, "top_k": 20}
    merged = SamplingParams.merge(defaults, SamplingParams(top_k=5, seed=9), top_k=None, temperature=None, seed=None)
    assert (merged.temperature, merged.top_k, merged.seed) == (0.6, 5, 9)
    with pytest.raises(ConfigError, match="unknown sampling field 'temprature'"):
        SamplingParams(temprature=None)  # type: ignore[call-arg]


def test_a_dict_does_as_parameters() -> None:
    merged = SamplingParams.merge({"top_k": 20}, {"temperature": 0, "top_k": None, "stop": ["x"]}, stop="y")
    assert (merged.temperature, merged.top_k, merged.stop_strings) == (0, 20, ("y",))
    with pytest.raises(ConfigError, match="unknown sampling field 'temp'"):
        SamplingParams.merge(None, {"temp": 0})
    with pytest.raises(ConfigError, match=r"params: found 0.7, expected SamplingParams or a dict .*temperature="):
        SamplingParams.merge(None, 0.7)  # type: ignore[arg-type]
