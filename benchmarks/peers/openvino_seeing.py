"""OpenVINO GenAI, where models see: its pipeline of a tower and a decoder."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.peers import worker
from benchmarks.peers.openvino import PROPERTIES
from benchmarks.peers.worker import Job, Seen, serve

DECODER = "openvino_language_model.bin"


class Engine:
    def convert(self, job: Job) -> None:
        """Quantize tower, embedding and decoder of the exported folder.

        Raises:
            ValueError: Other variants than int8 are not driven.
        """
        import nncf
        import openvino

        if job.variant != "int8":
            raise ValueError(f"{job.variant}: models that see are measured in int8 only")
        exported = job.converted.parent / "exported"
        if not (exported / worker.MARK).is_file():
            export(job.source, exported)
        shutil.copytree(exported, job.converted, ignore=shutil.ignore_patterns("*_model.*"), dirs_exist_ok=True)
        for part in exported.glob("*_model.xml"):
            model = openvino.Core().read_model(part)
            quantized = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
            openvino.save_model(quantized, job.converted / part.name)

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
        encode = read + told.get_prepare_embeddings_duration().mean / 1e3
        return Seen(seconds, told.get_num_input_tokens(), encode)


def export(source: Path, folder: Path) -> None:
    """Trace the parts of the model with optimum; the weights stay as they are."""
    from optimum.exporters.openvino import main_export

    shutil.rmtree(folder, ignore_errors=True)
    main_export(str(source), folder, task="image-text-to-text", local_files_only=True, convert_tokenizer=True)
    (folder / worker.MARK).touch()


if __name__ == "__main__":
    serve(Engine())
