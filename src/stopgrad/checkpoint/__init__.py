"""A run directory: config, status, metrics and checkpoints; atomic, verified, never pickled.

RUN/
  config.json     every knob, the images' fingerprint, normalisation, environment, changes since
  status.json     running, interrupted, finished, diverged, collapsed or failed; step; verdict
  metrics.jsonl   a line per step and per epoch
  records.jsonl   a line per evaluation result
  labels/         the label draws of evaluations
  lock            held (flock) by the one process that writes
  checkpoints/step-000123/{model,optimizer}.safetensors, state.json, config.json, manifest.json
"""

from stopgrad.checkpoint.environment import describe_environment
from stopgrad.checkpoint.info import Change, RunInfo, extended, read_run
from stopgrad.checkpoint.metrics import check_row, read_metrics
from stopgrad.checkpoint.run import RunWriter, has_begun, read_status
from stopgrad.checkpoint.store import (
    Checkpoint,
    load_checkpoint,
    newest_step,
    save_checkpoint,
)
from stopgrad.checkpoint.verify import verify_run
from stopgrad.files import Finding

__all__ = [
    "Change",
    "Checkpoint",
    "Finding",
    "RunInfo",
    "RunWriter",
    "check_row",
    "describe_environment",
    "extended",
    "has_begun",
    "load_checkpoint",
    "newest_step",
    "read_metrics",
    "read_run",
    "read_status",
    "save_checkpoint",
    "verify_run",
]
