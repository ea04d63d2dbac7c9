"""Which engines there are, what each needs, and what each makes of a format. The only place with versions."""

from __future__ import annotations

from dataclasses import dataclass, field

TORCH = "torch==2.13.0"
TRANSFORMERS = "transformers==5.23.0"
PILLOW = "pillow==13.0.0"
FORMATS = ("bf16", "int8", "int4")
BASE = "pio"


@dataclass(frozen=True, slots=True)
class Peer:
    """An engine.

    Attributes:
        module: Runs as the engine's worker process.
        variants: For each format, what the engine calls its ways to store the weights, the usual one first.
        packages: What its own environment holds; none runs in the environment of the runner.
        build: Packages of these that are built from source, optimised for this machine.
        variables: Environment of that build.
        without: Packages that these pull in, that nothing here needs, and that not every build of PyTorch fits.
        mixtures: Whether it takes part where models are mixtures of experts.
        seeing: Runs as its worker process where models take pictures; "" if it takes no part there.
    """

    module: str
    variants: dict[str, tuple[str, ...]]
    packages: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    mixtures: bool = False
    seeing: str = ""


PEERS = {
    "pio": Peer(
        "benchmarks.peers.pio",
        {"bf16": ("bf16", "bf16-float32"), "int8": ("int8",), "int4": ("int4", "int4-uniform")},
        mixtures=True,
        seeing="benchmarks.peers.pio",
    ),
    "llama.cpp": Peer(
        "benchmarks.peers.llama_cpp",
        {"bf16": ("BF16",), "int8": ("Q8_0",), "int4": ("Q4_0", "Q4_0-pure")},
        ("llama-cpp-python==0.3.36", "gguf==0.19.0"),
        ("llama-cpp-python",),
        {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DGGML_OPENMP=ON -DCMAKE_BUILD_TYPE=Release"},
        mixtures=True,
    ),
    "openvino": Peer(
        "benchmarks.peers.openvino",
        {"int8": ("int8",), "int4": ("int4", "int4-head")},
        (
            TORCH,
            "openvino==2026.4.1",
            "openvino-genai==2026.4.1.0",
            "openvino-tokenizers==2026.4.1.0",
            "nncf==3.4.0",
            "optimum-intel==2.2.0",
            "transformers==5.0.0",  # the last one that exports models that see
            PILLOW,
        ),
        without=("torchvision",),
        seeing="benchmarks.peers.openvino_seeing",
    ),
    "onnxruntime": Peer(
        "benchmarks.peers.onnxruntime",
        {"int8": ("int8",), "int4": ("int4",)},
        (TORCH, TRANSFORMERS, "onnxruntime-genai==0.18.0", "onnxruntime==1.31.1", "onnx==1.23.2", "onnx-ir==1.1.0"),
    ),
    "transformers": Peer(
        "benchmarks.peers.transformers",
        {"bf16": ("bfloat16", "float32")},
        (TORCH, TRANSFORMERS, PILLOW),
        seeing="benchmarks.peers.transformers_seeing",
    ),
}


@dataclass(frozen=True, slots=True)
class Contestant:
    """An engine with one way to store the weights."""

    engine: str
    format: str
    variant: str

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.engine} {self.variant}"


def contestants(engines: list[str], formats: list[str], variants: list[str] | None = None) -> list[Contestant]:
    """Return all that these engines can do in these formats, format by format; of them these variants, or all.

    Raises:
        ValueError: There is no such engine or format, or these engines have no such variant of it.
    """
    for name, known in [(e, PEERS) for e in engines] + [(f, FORMATS) for f in formats]:
        if name not in known:
            raise ValueError(f"{name!r}: expected one of {', '.join(known)}")
    found = [
        Contestant(engine, format, variant)
        for format in formats
        for engine in engines
        for variant in PEERS[engine].variants.get(format, ())
    ]
    for name in variants or ():
        if all(contestant.variant != name for contestant in found):
            raise ValueError(f"{name!r}: expected one of {', '.join(contestant.variant for contestant in found)}")
    return [contestant for contestant in found if not variants or contestant.variant in variants]
