"""Warnings for the plan: settings that their writer can hardly want, though every value is in its bounds.

Nothing here stops a run, unless `sanakit train --strict` was asked for: a rate that never rises, a preview that
is never due, a key that nothing reads.
"""

from __future__ import annotations

from collections.abc import Iterator

from sanakit.training.config import TrainConfig
from sanakit.training.optim.learning_rate import trapezoid
from sanakit.training.optim.settings import OptimizerConfig

_LOW = 0.25
"""A mean learning rate below this share of `optimizer.lr` is reported: a warm-up and a fall to 0 leave half of it."""

_SAMPLES = 1000  # steps of a run at which the learning rate is sampled


def config_warnings(config: TrainConfig) -> list[str]:
    """One sentence each, with the key; empty if there is nothing to say."""
    kinds = (_of_rate, _of_intervals, _of_captions, _of_parts, _of_sprint, _unread)
    return [sentence for kind in kinds for sentence in kind(config)]


def rate_shares(config: TrainConfig) -> tuple[float, float]:
    """(largest, mean) learning rate over a run, as shares of the one that is asked for."""
    steps, schedule = config.steps, config.schedule
    warmup, count = schedule.warmup_of(steps), min(steps, _SAMPLES)
    sampled = [number * (steps - 1) // max(1, count - 1) for number in range(count)]
    shares = [trapezoid(step, steps, warmup, schedule.cooldown) for step in sampled]
    return max(shares), sum(shares) / len(shares)


def _of_rate(config: TrainConfig) -> Iterator[str]:
    largest, mean = rate_shares(config)
    warmup = config.schedule.warmup_of(config.steps)
    if config.optimizer.lr == 0:
        yield "optimizer.lr is 0: nothing is learnt"
    elif largest < 0.99:
        yield (
            f"schedule.warmup is {warmup} and schedule.cooldown {config.schedule.cooldown:g} in a run of "
            f"{config.steps} steps: the learning rate never reaches optimizer.lr, but {largest:.0%} of it, "
            f"and {mean:.0%} on average"
        )
    elif mean < _LOW:
        yield (
            f"schedule: the learning rate is {mean:.0%} of optimizer.lr on average; "
            "shorten schedule.warmup or lower schedule.cooldown"
        )


def _of_intervals(config: TrainConfig) -> Iterator[str]:
    steps = config.steps
    for key, every in (
        ("validate", config.validate), ("preview.every", config.preview.every), ("saving.steps", config.saving.steps),
    ):  # fmt: skip
        if every > steps:
            yield f"{key} is {every} and the run has {steps} steps: it never comes to that"
    if config.data.held and not config.validate:
        yield f"data.held keeps {config.data.held} pictures out, and validate is 0: nothing is measured on them"


def _of_captions(config: TrainConfig) -> Iterator[str]:
    if config.task != "autoencoder" and config.data.captions.dropout == 1:
        yield "data.captions.dropout is 1: no caption is ever read"


def _of_parts(config: TrainConfig) -> Iterator[str]:
    if config.task != "autoencoder":
        return
    wanted, loss = config.autoencoder, config.autoencoder.loss
    critic = wanted.phase == "refinement"
    if not (loss.pixel or loss.perceptual or loss.latent or (critic and loss.adversarial)):
        yield "autoencoder.loss: every weight is 0: nothing is learnt"
    if critic and loss.adversarial_start >= config.steps:
        yield (
            f"autoencoder.loss.adversarial_start is {loss.adversarial_start} and the run has {config.steps} steps: "
            "the critic never plays"
        )
    if bool(loss.latent) != (loss.regularisation != "none"):
        yield "autoencoder.loss: latent and regularisation have no effect one without the other"


def _of_sprint(config: TrainConfig) -> Iterator[str]:
    wanted = config.sprint
    if config.task == "sprint" and wanted.consistency and wanted.warmup > config.steps:
        yield (
            f"sprint.warmup is {wanted.warmup} and the run has {config.steps} steps: the derivative counts for "
            f"{config.steps / wanted.warmup:.0%} in the end, and jumps stay short of the picture"
        )


def _unread(config: TrainConfig) -> Iterator[str]:
    """Keys that were changed and that nothing reads, as the config is."""
    optimizer, captions, density = config.optimizer, config.data.captions, config.times.density
    usual, name = OptimizerConfig(name=optimizer.name), optimizer.name
    scored = captions.kind in ("power", "softmax")
    kind, transformer, task = captions.kind, config.task != "autoencoder", f"the task {config.task}"
    rows = [
        ("optimizer.clip_threshold", optimizer.clip_threshold != usual.clip_threshold, optimizer.family == "came",
         f"optimizer.name {name}"),
        ("optimizer.block", optimizer.block != usual.block, name == "came-8bit", f"optimizer.name {name}"),
        ("optimizer.momentum", optimizer.momentum != usual.momentum, name == "muon", f"optimizer.name {name}"),
        ("data.captions.temperature", captions.temperature != type(captions)().temperature, scored,
         f"data.captions.kind {kind}"),
        ("data.captions.threshold", captions.threshold != type(captions)().threshold, kind == "power",
         f"data.captions.kind {kind}"),
        ("times.density.scale", density.scale != type(density)().scale, density.name == "mode",
         f"times.density.name {density.name}"),
        ("times.density.mean, std", (density.mean, density.std) != (0.0, 1.0), density.name == "logit_normal",
         f"times.density.name {density.name}"),
        ("guard.rollbacks", config.guard.rollbacks != type(config.guard)().rollbacks, config.guard.patience > 0,
         "guard.patience 0"),
        ("model.growth", config.model.growth != type(config.model.growth)(), config.model.start == "grow",
         f"model.start {config.model.start}"),
        ("autoencoder", config.autoencoder != type(config.autoencoder)(), not transformer, task),
        ("data.captions", captions != type(captions)(), transformer, task),
        ("lora", config.lora != type(config.lora)(), config.task == "lora", task),
        ("control", config.control != type(config.control)(), config.task == "control", task),
        ("sprint", config.sprint != type(config.sprint)(), config.task == "sprint", task),
        *_unread_by_lora(config),
        *_unread_by_autoencoder(config),
        *_unread_by_sprint(config),
    ]  # fmt: skip
    for key, changed, read, reader in rows:
        if changed and not read:
            yield f"{key} is not read with {reader}"


def _unread_by_lora(config: TrainConfig) -> Iterator[tuple[str, bool, bool, str]]:
    if config.task != "lora":
        return
    wanted = config.lora.prior
    usual = type(wanted)()
    for name in ("count", "steps", "guidance"):
        changed = getattr(wanted, name) != getattr(usual, name)
        drawn = bool(wanted.weight) and wanted.path is None
        reader = "lora.prior.path" if wanted.weight else "lora.prior.weight 0"
        yield f"lora.prior.{name}", changed, drawn, reader


def _unread_by_autoencoder(config: TrainConfig) -> Iterator[tuple[str, bool, bool, str]]:
    if config.task != "autoencoder":
        return
    wanted, usual = config.autoencoder, type(config.autoencoder)()
    reader = f"autoencoder.start {wanted.start}"
    yield "autoencoder.preset", wanted.preset != usual.preset, wanted.start == "scratch", reader
    critic, reader = wanted.phase == "refinement", f"autoencoder.phase {wanted.phase}"
    yield "autoencoder.critic", wanted.critic is not None, critic, reader
    for name in ("adversarial", "adversarial_start"):
        changed = getattr(wanted.loss, name) != getattr(usual.loss, name)
        yield f"autoencoder.loss.{name}", changed, critic, reader


def _unread_by_sprint(config: TrainConfig) -> Iterator[tuple[str, bool, bool, str]]:
    if config.task != "sprint":
        return
    wanted, usual = config.sprint, type(config.sprint)()
    alone = "sprint.adversarial 0"
    yield "sprint.critic", wanted.critic != usual.critic, wanted.adversarial > 0, alone
    yield "sprint.max_time", wanted.max_time != usual.max_time, wanted.adversarial > 0, alone
    wanted_path, usual_path = wanted.trajectory, usual.trajectory
    for name in ("steps", "points", "noise", "stored"):
        changed = getattr(wanted_path, name) != getattr(usual_path, name)
        yield f"sprint.trajectory.{name}", changed, wanted_path.weight > 0, "sprint.trajectory.weight 0"
    matched, usual_matched = wanted.distribution, usual.distribution
    for name in ("guidance", "simulated", "times", "turns", "warmup", "optimizer"):
        changed = getattr(matched, name) != getattr(usual_matched, name)
        yield f"sprint.distribution.{name}", changed, matched.weight > 0, "sprint.distribution.weight 0"
    for name in ("tangent", "warmup", "norm_constant", "norm", "least_sigma", "adaptive"):
        changed = getattr(wanted, name) != getattr(usual, name)
        yield f"sprint.{name}", changed, wanted.consistency > 0, "sprint.consistency 0"
    batch = wanted.critic.norm == "batch" or not wanted.adversarial
    changed = wanted.critic.virtual_batch != usual.critic.virtual_batch
    yield "sprint.critic.virtual_batch", changed, batch, f"sprint.critic.norm {wanted.critic.norm}"
