"""The programs in ``examples`` run as they are."""

from __future__ import annotations

import http.client
import importlib.util
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import environment

import pio

FOLDER = Path(__file__).parents[2] / "examples"
LONG = 300.0  # seconds after which a program hangs


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(FOLDER / name), *map(str, arguments)]


def run(name: str, *arguments: object) -> str:
    done = subprocess.run(
        command(name, *arguments), capture_output=True, text=True, encoding="utf-8", timeout=LONG, env=environment()
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_in_the_table_and_is_run() -> None:
    named = re.findall(r"\]\((\w+\.py)\)", (FOLDER / "README.md").read_text("utf-8"))
    assert sorted(named) == sorted(path.name for path in FOLDER.glob("*.py"))
    assert all(name in Path(__file__).read_text("utf-8") for name in named)


def test_a_pool_of_threads() -> None:
    lines = run("thread_pool.py").splitlines()
    assert len(lines) == 24 and all(line.startswith(f"def add_{n}(a, b):") for n, line in enumerate(lines))


def test_an_asyncio_app() -> None:
    lines = run("asyncio_app.py").splitlines()
    assert lines[0].startswith("left after ") and len(lines) == 13
    with pio.load("demo") as model:
        expected = model.generate_text("# visitor 7\n", max_new_tokens=16, seed=7)
    assert lines[8] == f"7: {expected!r}"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    lines = [{"id": f"é{n}", "prompt": f"def f{n}(", "max_new_tokens": 5 + n % 40, "seed": n} for n in range(120)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def test_a_batch_job_goes_on_after_a_kill(prompts: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    assert "120 answers" in run("batch_job.py", prompts, whole)
    process = subprocess.Popen(command("batch_job.py", prompts, killed), env=environment())
    try:
        while not killed.exists() or killed.read_bytes().count(b"\n") < 10:
            assert process.poll() is None
    finally:
        process.kill()
        assert process.wait(LONG) != 0  # it had not come to its end
    with killed.open("ab") as file:
        file.write(b'{"id": "cut sh')
    assert "120 answers" in run("batch_job.py", prompts, killed)
    assert killed.read_text("utf-8").splitlines() == whole.read_text("utf-8").splitlines()


# A web service


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where the service listens, on a port that the system chose."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    process = subprocess.Popen(
        command("fastapi_app.py", "demo", 0), stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment()
    )
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", said)):
            said += (line := process.stderr.readline())
            assert line, said
        yield int(found[1])
    finally:
        process.terminate()
        _, said = process.communicate(timeout=LONG)
    assert "Traceback" not in said


def send(port: int, method: str, path: str, body: Any = None) -> tuple[http.client.HTTPConnection, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    headers = {"Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    return connection, connection.getresponse()


def stats(port: int) -> dict[str, int]:
    connection, response = send(port, "GET", "/stats")
    found = json.loads(response.read())
    connection.close()
    return found


def test_a_web_service_streams_what_the_model_says(port: int) -> None:
    connection, response = send(port, "POST", "/answers", {"prompt": "# grüße\n", "max_new_tokens": 16, "seed": 7})
    assert response.status == 200 and response.headers["Transfer-Encoding"] == "chunked"
    text = response.read().decode("utf-8")
    connection.close()
    with pio.load("demo") as model:
        assert text == model.generate_text("# grüße\n", max_new_tokens=16, seed=7)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"prompt": "x" * 19_000}, "the context holds"),
        ({"prompt": ""}, "no tokens"),
        ({"prompt": "x", "max_new_tokens": 0}, "greater than or equal to 1"),
        ({}, "Field required"),
    ],
)
def test_a_web_service_says_what_is_wrong_before_it_answers(port: int, body: dict[str, Any], told: str) -> None:
    connection, response = send(port, "POST", "/answers", body)
    said = response.read().decode("utf-8")
    connection.close()
    assert response.status == 422 and told in said


@pytest.mark.parametrize("reads", [True, False])
def test_a_client_who_goes_away_takes_the_request_along(port: int, reads: bool) -> None:
    """Between two pieces, or without having read one: the model is free again, and others get their answers."""
    endless = {"prompt": "import os\n", "max_new_tokens": 2_000, "seed": 1, "ignore_eos": True}
    before = stats(port)
    assert (before["running"], before["waiting"]) == (0, 0)
    if reads:
        connection, response = send(port, "POST", "/answers", endless)
        assert response.read1(100)
        other, answer = send(port, "POST", "/answers", {"prompt": "def f", "max_new_tokens": 4, "seed": 2})
        assert answer.read() and stats(port)["running"] == 1
        other.close()
        response.close()
        connection.close()
    else:
        body = json.dumps(endless).encode()
        head = f"POST /answers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(head.encode() + b"\r\n\r\n" + body)
            while not stats(port)["running"]:
                pass
    while (now := stats(port))["dropped"] == before["dropped"]:
        assert now["completion_tokens"] - before["completion_tokens"] < 1_900, "it was not noticed"
    assert now["dropped"] == before["dropped"] + 1 and (now["running"], now["waiting"]) == (0, 0)
    assert now["free_blocks"] == now["blocks"]


# An agent


def test_an_agent_with_the_demo_model() -> None:
    """It is made to call a tool, hears that the call is malformed, and goes on."""
    lines = run("agent.py").splitlines()
    assert lines[0].startswith("0: get_weather ") and ": error: " in lines[0] and len(lines) > 1


def test_an_agent_calls_two_tools_until_it_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """A model that says what it is told to stands for one that knows what to do."""
    spec = importlib.util.spec_from_file_location("agent", FOLDER / "agent.py")
    assert spec is not None and spec.loader is not None
    agent: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(agent)
    said = [
        ("", [("get_weather", {"city": "Paris"}, None), ("to_fahrenheit", {}, None)]),
        ("So", [("to_fahrenheit", {"celsius": 21}, None), ("watch", {}, "there is no tool 'watch'")]),
        ("69.8 degrees", []),
    ]
    asked: list[Any] = []

    def generate(messages: Any, **fields: Any) -> Any:
        asked.append(([*messages], fields["tool_choice"]))
        text, calls = said[len(asked) - 1]
        made = [pio.ToolCall(f"c{n}", name, given, "raw", wrong) for n, (name, given, wrong) in enumerate(calls)]
        usage, timings = pio.Usage(1, 1), pio.Timings(0, 0, 0, 0, 0)
        return pio.Generation(text, [1], "stop", None, None, None, usage, timings, 0, tool_calls=tuple(made))

    assert agent.ask(SimpleNamespace(generate=generate), "How warm?") == "69.8 degrees"
    assert [choice for _, choice in asked] == [{"name": "get_weather"}, "auto", "auto"]
    assert [message["role"] for message in asked[-1][0]] == ["user", *["assistant", "tool", "tool"] * 2]
    told = [message["content"] for message in asked[-1][0] if message["role"] == "tool"]
    assert json.loads(told[0]) == {"city": "Paris", "celsius": 21} and float(told[2]) == pytest.approx(69.8)
    assert "missing 1 required" in told[1] and told[3] == "error: there is no tool 'watch'"
    assert len(capsys.readouterr().out.splitlines()) == 4
