"""OpenVINO GenAI: its continuous-batching pipeline, a step at a time."""

from __future__ import annotations

import itertools
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.peers import worker
from benchmarks.peers.worker import Job, serve

GROUP = 64  # weights that share a scale, at four bits
MODEL = "openvino_model.xml"
TOKENIZERS = ("openvino_tokenizer.xml", "openvino_detokenizer.xml")
PROPERTIES: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}


class Engine:
    def convert(self, job: Job) -> None:
        """Quantize the exported folder; at four bits the head keeps eight unless the variant says otherwise."""
        import nncf
        import openvino
        from openvino_tokenizers import convert_tokenizer
        from transformers import AutoTokenizer

        exported = job.converted.parent / "exported"
        if not (exported / worker.MARK).is_file():
            export(job.source, exported)
        options: dict[str, Any] = {"mode": nncf.CompressWeightsMode.INT8_SYM}
        if job.variant != "int8":
            head = job.variant == "int4-head"
            options = {"mode": nncf.CompressWeightsMode.INT4_SYM, "ratio": 1.0, "group_size": GROUP, "all_layers": head}
        model = nncf.compress_weights(openvino.Core().read_model(exported / MODEL), **options)
        openvino.save_model(model, job.converted / MODEL)
        tokenizer = AutoTokenizer.from_pretrained(job.source, local_files_only=True)
        for part, name in zip(convert_tokenizer(tokenizer, with_detokenizer=True), TOKENIZERS, strict=True):
            openvino.save_model(part, job.converted / name)
        for name in ("config.json", "generation_config.json"):
            shutil.copyfile(exported / name, job.converted / name)

    def load(self, job: Job) -> dict[str, Any]:
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = max(job.context, job.sequences * job.shared_context)
        scheduler.max_num_seqs = job.sequences
        scheduler.enable_prefix_caching = False
        properties = PROPERTIES | {"INFERENCE_NUM_THREADS": job.threads}
        if job.variant != "int8":  # activations share scales over as many numbers as the weights: faster
            properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = GROUP
        self.pipeline = openvino_genai.ContinuousBatchingPipeline(job.converted, scheduler, "CPU", properties)
        self.numbers = itertools.count()
        return {
            "version": openvino_genai.__version__,
            "weights": (job.converted / MODEL).with_suffix(".bin").stat().st_size,
        }

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[float]:
        import numpy
        import openvino
        import openvino_genai

        greedy = openvino_genai.GenerationConfig(max_new_tokens=new_tokens, ignore_eos=True, do_sample=False)
        greedy.apply_chat_template = False
        began = time.perf_counter()
        handles = [
            self.pipeline.add_request(number, openvino.Tensor(numpy.array([prompt], numpy.int64)), greedy)
            for number, prompt in zip(self.numbers, prompts, strict=False)
        ]
        tokens = [0] * len(prompts)
        seconds: list[float] = []
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
            now = time.perf_counter() - began
            for i, handle in enumerate(handles):
                while handle.can_read():
                    tokens[i] += sum(len(output.generated_ids) for output in handle.read().values())
            seconds += [now] * (min(tokens) - len(seconds))
        return seconds


def export(source: Path, folder: Path) -> None:
    """Trace the model with optimum; the weights stay as they are."""
    from optimum.exporters.openvino import main_export

    shutil.rmtree(folder, ignore_errors=True)
    main_export(str(source), folder, task="text-generation-with-past", local_files_only=True)
    (folder / worker.MARK).touch()


if __name__ == "__main__":
    serve(Engine())
