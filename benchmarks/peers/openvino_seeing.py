"""OpenVINO GenAI, where models see: its pipeline of a tower and a decoder."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.checkpoint import SIGHT
from benchmarks.peers.openvino import PROPERTIES
from benchmarks.peers.worker import Job, Seen, serve

DECODER = "openvino_language_model.bin"


class Engine:
    def convert(self, job: Job) -> None:
        """Trace and quantize tower, embedding and decoder with optimum.

        Raises:
            ValueError: Other variants than int8 are not driven.
        """
        from optimum.exporters.openvino import main_export
        from optimum.intel import OVConfig, OVWeightQuantizationConfig

        if job.variant != "int8":
            raise ValueError(f"{job.variant}: models that see are measured in int8 only")
        main_export(
            str(job.source),
            job.converted,
            task="image-text-to-text",
            local_files_only=True,
            convert_tokenizer=True,
            ov_config=OVConfig(quantization_config=OVWeightQuantizationConfig(bits=8, sym=True)),
        )
        for name in SIGHT:  # which optimum copies where torchvision can be imported
            shutil.copyfile(job.source / name, job.converted / name)

    def load(self, job: Job) -> dict[str, Any]:
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = job.context
        scheduler.enable_prefix_caching = False
        properties = PROPERTIES | {"INFERENCE_NUM_THREADS": job.threads, "scheduler_config": scheduler}
        self.pipeline = openvino_genai.VLMPipeline(job.converted, "CPU", **properties)
        return {"version": openvino_genai.__version__, "weights": (job.converted / DECODER).stat().st_size}

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[float]:
        """Refuse: the pipeline takes text and pictures.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("the pipeline takes no token ids")

    def see(self, picture: Path, text: str) -> Seen:
        import numpy
        import openvino
        import openvino_genai
        from PIL import Image

        greedy = openvino_genai.GenerationConfig(max_new_tokens=1, ignore_eos=True, do_sample=False)
        began = time.perf_counter()
        with Image.open(picture) as image:
            pixels = openvino.Tensor(numpy.array(image.convert("RGB"))[None])
        read = time.perf_counter() - began
        answer = self.pipeline.generate(text, images=[pixels], generation_config=greedy)
        seconds, told = time.perf_counter() - began, answer.perf_metrics
        encode = read + told.get_vision_encoding_duration().mean / 1e3
        return Seen(seconds, told.get_num_input_tokens(), encode)


if __name__ == "__main__":
    serve(Engine())
