"""A run directory: config, status, metrics and checkpoints; atomic, verified, never pickled.

RUN/
  config.json     every knob, the images' fingerprint, normalisation, threads, versions
  status.json     running, interrupted, finished, diverged or failed; step; verdict
  metrics.jsonl   a line per step and per epoch
  records.jsonl   a line per evaluation result
  lock            held (flock) by the one process that writes
  checkpoints/step-000123/{model,optimizer}.safetensors, state.json, manifest.json
"""

from stopgrad.checkpoint.metrics import read_metrics
from stopgrad.checkpoint.run import RunInfo, RunWriter, read_run, read_status
from stopgrad.checkpoint.store import (
    Checkpoint,
    load_checkpoint,
    newest_step,
    save_checkpoint,
)

__all__ = [
    "Checkpoint",
    "RunInfo",
    "RunWriter",
    "load_checkpoint",
    "newest_step",
    "read_metrics",
    "read_run",
    "read_status",
    "save_checkpoint",
]
