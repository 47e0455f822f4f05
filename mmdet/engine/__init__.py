"""Configs, checkpoints, processes and the runner."""
from .amp import CpuAmpOptimWrapper, mixed_precision
from .checkpoint import (
    checkpoint_to_resume,
    fingerprint,
    latest_checkpoint,
    load_matching_weights,
    load_weights,
    own_weights,
    read_checkpoint,
    save_checkpoint,
)
from .command_line import ToolParser, add_common_options, add_training_options, config_from_arguments, run_tool
from .config import check_keys, check_known_keys, config_errors, load_config, require_keys
from .dist import start_processes
from .hooks import CheckpointHook, EarlyStoppingHook, ProgressBarHook, SeedEachIterationHook
from .pretrained import load_named_weights, load_openmmlab_weights
from .progress import ProgressDisplay
from .runner import Runner
from .visualization_hook import DetVisualizationHook

__all__ = [
    'CheckpointHook',
    'CpuAmpOptimWrapper',
    'DetVisualizationHook',
    'EarlyStoppingHook',
    'ProgressBarHook',
    'ProgressDisplay',
    'Runner',
    'SeedEachIterationHook',
    'ToolParser',
    'add_common_options',
    'add_training_options',
    'check_keys',
    'check_known_keys',
    'checkpoint_to_resume',
    'config_errors',
    'config_from_arguments',
    'fingerprint',
    'latest_checkpoint',
    'load_config',
    'load_matching_weights',
    'load_named_weights',
    'load_openmmlab_weights',
    'load_weights',
    'mixed_precision',
    'own_weights',
    'read_checkpoint',
    'require_keys',
    'run_tool',
    'save_checkpoint',
    'start_processes',
]
