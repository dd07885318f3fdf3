"""What other trainers call the keys of a config: a key that does not exist is told by the name it has here.

Names of diffusers' scripts, kohya's sd-scripts, accelerate, Lightning and the SANA repository; also keys that were
renamed here. None of them is accepted in place of a key: a value that means something else must not pass.
"""

from __future__ import annotations

import re

ALIASES: dict[str, str] = {
    "learning_rate": "optimizer.lr", "lr": "optimizer.lr", "unet_lr": "optimizer.lr", "base_lr": "optimizer.lr",
    "optimizer_type": "optimizer.name", "optim": "optimizer.name", "use_8bit_adam": "optimizer.name=came-8bit",
    "weight_decay": "optimizer.weight_decay",
    "adam_weight_decay": "optimizer.weight_decay", "wd": "optimizer.weight_decay",
    "betas": "optimizer.betas", "adam_beta1": "optimizer.betas", "adam_beta2": "optimizer.betas",
    "eps": "optimizer.eps", "adam_epsilon": "optimizer.eps",
    "train_batch_size": "batch", "batch_size": "batch", "per_device_train_batch_size": "batch", "bs": "batch",
    "global_batch_size": "batch",
    "gradient_accumulation_steps": "accumulate", "accumulate_grad_batches": "accumulate", "grad_accum": "accumulate",
    "gradient_accumulation": "accumulate",
    "max_train_steps": "phases[0].steps", "max_steps": "phases[0].steps", "total_steps": "phases[0].steps",
    "num_steps": "phases[0].steps", "steps": "phases[0].steps", "iterations": "phases[0].steps",
    "num_epochs": "phases[0].steps", "num_train_epochs": "phases[0].steps", "max_train_epochs": "phases[0].steps",
    "epochs": "phases[0].steps", "epoch": "phases[0].steps", "max_epochs": "phases[0].steps",
    "resolution": "phases[0].size", "image_size": "phases[0].size", "img_size": "phases[0].size",
    "size": "phases[0].size", "width": "phases[0].size", "height": "phases[0].size",
    "flow_shift": "phases[0].shift", "shift": "phases[0].shift", "discrete_flow_shift": "phases[0].shift",
    "output_dir": "folder", "work_dir": "folder", "logging_dir": "folder", "save_dir": "folder", "output": "folder",
    "output_name": "folder",
    "pretrained_model_name_or_path": "base", "model_name": "base", "pretrained_model": "base", "load_from": "base",
    "checkpoint": "base", "base_model": "base",
    "mixed_precision": "dtype", "precision": "dtype", "fp16": "dtype", "bf16": "dtype", "weight_dtype": "dtype",
    "gradient_checkpointing": "recompute", "grad_checkpointing": "recompute", "activation_checkpointing": "recompute",
    "max_grad_norm": "clip", "gradient_clip": "clip", "gradient_clip_val": "clip", "grad_clip": "clip",
    "clip_grad_norm": "clip", "clip_norm": "clip",
    "ema_decay": "ema", "ema_rate": "ema", "use_ema": "ema",
    "train_data_dir": "data.path", "dataset": "data.path", "dataset_name": "data.path", "data_dir": "data.path",
    "instance_data_dir": "data.path", "train_dir": "data.path", "image_dir": "data.path", "path": "data.path",
    "cache_dir": "data.cache", "cache_latents": "data.cache", "cache_latents_to_disk": "data.cache",
    "center_crop": "data.square", "enable_bucket": "data.square", "crop": "data.square",
    "dataloader_num_workers": "data.workers", "num_workers": "data.workers", "workers": "data.workers",
    "max_data_loader_n_workers": "data.workers",
    "validation_split": "data.held", "val_split": "data.held",
    "num_validation_images": "data.held", "held": "data.held",
    "caption_dropout_rate": "data.captions.dropout", "proportion_empty_prompts": "data.captions.dropout",
    "class_dropout_prob": "data.captions.dropout",
    "uncond_prob": "data.captions.dropout", "dropout": "data.captions.dropout",
    "lr_warmup_steps": "schedule.warmup", "warmup_steps": "schedule.warmup", "num_warmup_steps": "schedule.warmup",
    "warmup": "schedule.warmup", "warmup_ratio": "schedule.warmup",
    "cooldown": "schedule.cooldown", "lr_decay_steps": "schedule.cooldown", "lr_scheduler": "schedule.cooldown",
    "lr_scheduler_type": "schedule.cooldown", "auto_lr": "schedule.rule", "scale_lr": "schedule.rule",
    "weighting_scheme": "times.density.name", "density": "times.density.name",
    "timestep_sampling": "times.density.name", "logit_mean": "times.density.mean", "logit_std": "times.density.std",
    "mode_scale": "times.density.scale", "loss_weighting": "times.weighting", "weighting": "times.weighting",
    "checkpointing_steps": "saving.steps", "save_steps": "saving.steps", "save_every_n_steps": "saving.steps",
    "save_model_steps": "saving.steps", "save_every": "saving.steps",
    "checkpoints_total_limit": "saving.keep", "save_total_limit": "saving.keep", "save_last_n_steps": "saving.keep",
    "validation_prompt": "preview.prompts", "validation_prompts": "preview.prompts",
    "sample_prompts": "preview.prompts",
    "prompts": "preview.prompts", "sample_every_n_steps": "preview.every", "sample_every": "preview.every",
    "visualize": "preview.every", "sample_steps": "preview.steps", "guidance_scale": "preview.guidance",
    "cfg_scale": "preview.guidance", "validation_steps": "validate", "eval_steps": "validate", "val_every": "validate",
    "validation_epochs": "validate", "eval_every": "validate",
    "log_interval": "report", "logging_steps": "report", "log_every": "report", "log_every_n_steps": "report",
    "report_to": "tracker", "log_with": "tracker", "logger": "tracker", "wandb": "tracker",
    "random_seed": "seed", "manual_seed": "seed", "torch_compile": "compile", "use_compile": "compile",
    "distributed_type": "parallel", "use_fsdp": "parallel", "fsdp": "parallel", "strategy": "parallel",
    "resume_from_checkpoint": "", "resume": "", "device": "",
}  # fmt: skip
"""The other name -> the key; "" where it is an option of the command."""

_NOTES = {
    "phases[0].steps": "a run is counted in steps of `batch` pictures",
    "recompute": "1 computes the activations of every block again, 0 keeps all",
    "schedule.cooldown": "the share of the run over which the rate falls to 0",
    "schedule.rule": "how the rate follows the batch",
}


def other_name(key: str) -> str | None:
    """The key that another trainer's name stands for, as the end of a sentence; None for a name that nobody uses."""
    plain = re.sub(r"\W", "_", key.lower())
    if plain not in ALIASES:
        return None
    here = ALIASES[plain]
    if not here:
        return f"; that is an option of the command: --{'device' if plain == 'device' else 'resume'}"
    note = f" ({_NOTES[here]})" if here in _NOTES else ""
    return f"; here it is {here}{note}"
